package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// imports measures an import of new identities with tags and desired properties
// from a blob of lines, and an export of all of them, with the most memory that
// the hub had meanwhile.
func (o *jobOptions) imports(ctx context.Context, h *hub, stdout io.Writer) error {
	if _, err := h.start(ctx); err != nil {
		return err
	}
	service, err := h.registry()
	if err != nil {
		return err
	}
	defer service.Close()
	const container, blob = "bench", "devices.txt"
	if _, err := service.CreateContainer(ctx, container, ""); err != nil {
		return err
	}
	access, err := service.ContainerAccess(ctx, container, time.Hour)
	if err != nil {
		return err
	}
	lines, size := importLines(o.imported)
	defer func() { _ = lines.Close() }() // its writer ends, also when nobody has read to the end
	began := time.Now()
	if _, err := service.PutBlob(ctx, access, blob, lines, nil); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d lines, %s, uploaded in %.1f s\n", o.imported, mib(size()), time.Since(began).Seconds())
	fmt.Fprintf(stdout, "%-8s %12s %16s %22s\n", "job", "lines/s", "hub us of CPU", "anonymous memory, most")

	rate, most, err := o.identityJob(ctx, h, service, client.IdentityJobAsk{Type: "import", Container: container, Blob: blob, Mode: "create"}, stdout)
	if err != nil {
		return err
	}
	q, err := newQueryHub(h, 1)
	if err != nil {
		return err
	}
	defer q.close()
	n, err := q.count(ctx, "properties.desired.interval = 30")
	if err == nil && n != o.imported {
		err = fmt.Errorf("%d devices were found after the import, not %d", n, o.imported)
	}
	if err != nil {
		return err
	}
	if _, _, err := o.identityJob(ctx, h, service, client.IdentityJobAsk{Type: "export", Container: container, Blob: "out.txt"}, stdout); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\ntargets\n")
	target(stdout, "import", rate, 20_000, true, "identities/s")
	target(stdout, "anonymous memory of an import", float64(most)/(1<<20), 600, false, "MiB")
	return nil
}

// identityJob runs an import or export to its end. It returns its rate and the
// most anonymous memory that the hub had.
func (o *jobOptions) identityJob(ctx context.Context, h *hub, s *client.Service, ask client.IdentityJobAsk, stdout io.Writer) (rate float64, most int64, err error) {
	before, err := cpuOf(h.pid())
	if err != nil {
		return 0, 0, err
	}
	var m peak
	watch, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() { defer close(watched); m.watch(watch, h.pid()) }()
	j, err := s.CreateIdentityJob(ctx, ask, "")
	for err == nil && !j.Ended() {
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			err = ctx.Err()
			break
		}
		j, err = s.IdentityJob(ctx, j.ID)
	}
	stop()
	<-watched
	if err != nil {
		return 0, 0, err
	}
	after, err := cpuOf(h.pid())
	if err != nil {
		return 0, 0, err
	}
	if n := int64(o.imported); j.Status != "completed" || j.Counts.Created != n || j.Counts.Failed != 0 {
		return 0, 0, fmt.Errorf("the %s is %s with %+v, expected %d lines: %s", ask.Type, j.Status, j.Counts, n, j.FailureReason)
	}
	rate, most = float64(o.imported)/j.EndedTime.Sub(j.StartedTime).Seconds(), m.anonymous.Load()
	fmt.Fprintf(stdout, "%-8s %12.0f %16.0f %22s\n", ask.Type, rate, float64((after-before).Microseconds())/float64(o.imported), mib(most))
	return rate, most, nil
}

// importLines streams n lines of an import; size is how many bytes were read.
func importLines(n int) (lines io.ReadCloser, size func() int64) {
	r, w := io.Pipe()
	var bytes int64
	go func() {
		key := base64.StdEncoding.EncodeToString(deviceSecret)
		b := bufio.NewWriter(w)
		for i := range n {
			line, err := json.Marshal(newDevice("device", i, key))
			if err == nil {
				_, err = b.Write(append(line, '\n'))
			}
			if err != nil {
				_ = w.CloseWithError(err)
				return
			}
			bytes += int64(len(line)) + 1
		}
		_ = w.CloseWithError(b.Flush()) // nil is the end
	}()
	return r, func() int64 { return bytes }
}
