package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// identityJobPoll is how often a job that is followed is looked at.
const identityJobPoll = 500 * time.Millisecond

// importFault is a line of importErrors.log. Column is of CSV alone.
type importFault struct {
	Line        int64  `json:"line,omitempty"`
	Column      int    `json:"column,omitempty"`
	DeviceID    string `json:"deviceId,omitempty"`
	ModuleID    string `json:"moduleId,omitempty"`
	ErrorCode   int    `json:"errorCode,omitempty"`
	ErrorStatus string `json:"errorStatus"`
}

// call bounds one call of long work by --timeout.
func (a *app) call(h HubFlags, f func(ctx context.Context) error) error {
	ctx, stop := a.with(h)
	defer stop()
	return f(ctx)
}

// followIdentityJob shows how far a job is until it has ended. The job goes on when
// the command doesn't.
func (a *app) followIdentityJob(h HubFlags, o OutputFlags, s *client.Service, id string) (client.IdentityJob, error) {
	f := &following{app: a}
	bar := newJobProgress(a, o)
	defer bar.clear()
	for {
		var j client.IdentityJob
		err := a.call(h, func(ctx context.Context) (err error) { j, err = s.IdentityJob(ctx, id); return err })
		switch {
		case a.ctx.Err() != nil:
			bar.clear()
			return j, &problem{exit: ExitCancelled, what: "cancelled; the job " + id + " goes on", next: "`muster device import --follow " + id + "` takes it up, `muster job` commands show it."}
		case err != nil:
			if err = f.wait(err); err != nil {
				return j, err
			}
			continue
		}
		f.heard()
		if j.Ended() {
			return j, nil
		}
		bar.show(&j)
		select {
		case <-a.ctx.Done():
		case <-time.After(identityJobPoll):
		}
	}
}

// jobProgress shows rate and rest of a job: a line that is written over on a
// terminal, JSON lines on standard error with -o json or jsonl, else a line every
// five seconds.
type jobProgress struct {
	app    *app
	asJSON bool
	every  time.Duration
	over   bool
	wide   int
	shown  time.Time
	began  time.Time
	first  int64 // done when it was first looked at
	lines  int64
}

func newJobProgress(a *app, o OutputFlags) *jobProgress {
	p := &jobProgress{app: a, asJSON: o.Output == "json" || o.Output == "jsonl", every: 5 * time.Second, over: isTerminal(a.io.Err), began: time.Now(), first: -1}
	if p.over || p.asJSON {
		p.every = identityJobPoll
	}
	p.shown = p.began
	return p
}

func (p *jobProgress) show(j *client.IdentityJob) {
	n := &j.Counts
	if p.first < 0 {
		p.first, p.lines, p.began = j.Done, n.Lines, time.Now()
	}
	if time.Since(p.shown) < p.every {
		return
	}
	p.shown = time.Now()
	seconds := time.Since(p.began).Seconds()
	rate := float64(n.Lines-p.lines) / seconds
	eta := ""
	if done := j.Done - p.first; done > 0 && j.Total > j.Done {
		eta = "   eta " + since(time.Duration(float64(j.Total-j.Done)/float64(done)*seconds*float64(time.Second)))
	}
	if p.asJSON {
		_ = writeJSONLine(p.app.io.Err, map[string]any{"job": j.ID, "status": j.Status, "progress": j.Progress, "lines": n.Lines, "failed": n.Failed, "perSecond": rate}) // nobody is left to tell
		return
	}
	line := fmt.Sprintf("%s %3d %%   %d lines   %.0f/s   failed %d%s", j.Status, j.Progress, n.Lines, rate, n.Failed, eta)
	if !p.over {
		p.app.note("%s", line)
		return
	}
	_, _ = fmt.Fprintf(p.app.io.Err, "\r%-*s", p.wide, line) // nobody is left to tell
	p.wide = max(p.wide, len(line))
}

func (p *jobProgress) clear() {
	if p.wide > 0 {
		_, _ = fmt.Fprintf(p.app.io.Err, "\r%*s\r", p.wide, "")
		p.wide = 0
	}
}

// faultFile collects what is wrong with lines: it tells the first few, and keeps
// all in a file that is made when there is something to write.
type faultFile struct {
	app   *app
	name  string
	file  *os.File
	out   *bufio.Writer
	count int64 // written
	err   error
}

const faultsTold = 5

func (f *faultFile) add(e importFault) {
	if f.err != nil {
		return
	}
	if f.file == nil {
		if f.file, f.err = os.OpenFile(f.name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600); f.err != nil {
			return
		}
		f.out = bufio.NewWriter(f.file)
	}
	if f.count++; f.count <= faultsTold {
		who := e.DeviceID
		if e.ModuleID != "" {
			who += "/" + e.ModuleID
		}
		if who != "" {
			who = " (" + printable(who) + ")"
		}
		place := fmt.Sprintf("line %d", e.Line)
		if e.Column > 0 {
			place += fmt.Sprintf(", column %d", e.Column)
		}
		f.app.note("%s%s: %s", place, who, printable(e.ErrorStatus))
	}
	text, err := encodeJSON(e)
	if err == nil {
		_, err = f.out.Write(append(text, '\n'))
	}
	f.err = err
}

// close ends the file and says where it is.
func (f *faultFile) close() error {
	if f.file != nil {
		f.err = errors.Join(f.err, f.out.Flush(), f.file.Close())
		if f.err == nil && f.count > faultsTold {
			f.app.note("... and %d more", f.count-faultsTold)
		}
	}
	if f.err != nil {
		return &problem{exit: ExitFailed, what: "the file of errors cannot be written", why: pathError(f.err), next: "Say another place with --errors FILE; `muster device import --follow JOB` writes it again."}
	}
	return nil
}

// readFaults adds a job's error log.
func (f *faultFile) readFaults(h HubFlags, s *client.Service, container string) error {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := f.app.call(h, func(ctx context.Context) error {
			access, err := s.ContainerAccess(ctx, container, 0)
			if err == nil {
				_, err = s.GetBlob(ctx, access, "importErrors.log", w)
			}
			return err
		})
		_ = w.CloseWithError(err) // never fails
		done <- err
	}()
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e importFault
		if err := json.Unmarshal(bytes.TrimSpace(lines.Bytes()), &e); err != nil {
			continue // not of this hub's making
		}
		f.add(e)
	}
	_ = r.Close() // never fails
	return <-done
}
