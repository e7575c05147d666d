package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/client"
)

// hubOptions are the flags of the commands that need a running hub.
type hubOptions struct {
	binary string
	dir    string
	memory string
	extra  []string // more arguments of serve
}

func (o *hubOptions) flags(f *flag.FlagSet) {
	f.StringVar(&o.binary, "muster", "", "the muster binary; run.sh builds it and gives its path")
	f.StringVar(&o.dir, "dir", "", "directory for the data; default a temporary one")
	f.StringVar(&o.memory, "memory", "2GiB", "the hub's --memory")
}

// hub is a `muster serve` process on free ports of the loopback.
type hub struct {
	options      hubOptions
	data         string
	https, mqtts string // addresses
	process      *exec.Cmd
	exited       chan struct{}
	complaints   bytes.Buffer // what the process printed
	mu           sync.Mutex   // guards complaints
	key          auth.ConnectionString
	roots        *x509.CertPool
}

// hostName is the hub's name in certificates and tokens.
const hostName = "localhost"

func newHub(o hubOptions) (*hub, func(), error) {
	if o.binary == "" {
		return nil, nil, errors.New("-muster is missing: the path of the muster binary; run.sh builds it and gives its path")
	}
	dir, clean, err := workDirectory(o.dir)
	if err != nil {
		return nil, nil, err
	}
	h := &hub{options: o, data: filepath.Join(dir, "data")}
	for _, a := range []*string{&h.https, &h.mqtts} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			clean()
			return nil, nil, err
		}
		*a = l.Addr().String()
		_ = l.Close()
	}
	return h, clean, nil
}

// Write collects what the process prints.
func (h *hub) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.complaints.Write(b)
}

func (h *hub) printed() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.complaints.String()
}

// launch starts the process; the caller waits for what it wants to measure.
func (h *hub) launch() error {
	args := []string{
		"serve", "--data", h.data, "--host", hostName, "--https", h.https, "--mqtts", h.mqtts,
		"--memory", h.options.memory, "--log-level", "warn", "--quiet",
	}
	c := exec.Command(h.options.binary, append(args, h.options.extra...)...)
	c.Stdout, c.Stderr = h, h
	if err := c.Start(); err != nil {
		return err
	}
	h.process, h.exited = c, make(chan struct{})
	go func() {
		defer close(h.exited)
		_ = c.Wait()
	}()
	return nil
}

// start launches the hub and waits until it is ready.
func (h *hub) start(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	if err := h.launch(); err != nil {
		return 0, err
	}
	err := h.untilReady(ctx)
	took := time.Since(began)
	if err != nil {
		return took, err
	}
	return took, h.learn(ctx)
}

// until repeats attempt each millisecond until it succeeds.
func (h *hub) until(ctx context.Context, what string, attempt func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		err := attempt(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-h.exited:
			return fmt.Errorf("the hub ended before %s: %s", what, h.printed())
		default:
		}
		if ctx.Err() != nil {
			return fmt.Errorf("waiting for %s: %w; the hub printed: %s", what, err, h.printed())
		}
		pause(ctx, time.Millisecond)
	}
}

// untilReady polls /readyz. Its certificate is not checked: at the first start
// the authority is made while this waits.
func (h *hub) untilReady(ctx context.Context) error {
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // readiness only
	defer c.CloseIdleConnections()
	return h.until(ctx, "readiness", func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+h.https+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("/readyz answers %d", resp.StatusCode)
		}
		return nil
	})
}

// learn reads the authority's certificate and the owner's connection string.
func (h *hub) learn(ctx context.Context) error {
	pem, err := os.ReadFile(filepath.Join(h.data, "tls", "ca.pem"))
	if err != nil {
		return err
	}
	h.roots = x509.NewCertPool()
	if !h.roots.AppendCertsFromPEM(pem) {
		return errors.New("tls/ca.pem holds no certificate")
	}
	out, err := exec.CommandContext(ctx, h.options.binary, "connection-string", "--data", h.data, "--policy", "iothubowner").Output()
	if err != nil {
		return fmt.Errorf("muster connection-string: %w", err)
	}
	h.key, err = auth.ParseConnectionString(strings.TrimSpace(string(out)))
	return err
}

func (h *hub) tls() *tls.Config { return &tls.Config{RootCAs: h.roots, ServerName: hostName} }

// registry returns a client of the hub's REST.
func (h *hub) registry() (*client.Service, error) {
	_, port, err := net.SplitHostPort(h.https)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	return client.NewService(client.ServiceOptions{ConnectionString: h.key, Port: n, RootCAs: h.roots})
}

// signal ends the process and waits: SIGTERM to drain, SIGKILL to kill.
func (h *hub) signal(s syscall.Signal) error {
	if h.process == nil {
		return nil
	}
	if err := h.process.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-h.exited
	h.process = nil
	return nil
}

// metrics reads the hub's metrics that have no labels.
func (h *hub) metrics(ctx context.Context) (map[string]float64, error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(h.data, "muster.sock"))
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://muster/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	found := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.ContainsAny(name, "#{") {
			if v, err := strconv.ParseFloat(value, 64); err == nil {
				found[name] = v
			}
		}
	}
	return found, nil
}

func (h *hub) pid() int { return h.process.Process.Pid }

// deviceSecret is the key of every device that a benchmark makes.
var deviceSecret = bytes.Repeat([]byte("k"), 32)

// fill creates devices name-0 to name-(n-1) through the bulk API, a hundred a
// request, with first desired properties and tags, and returns how long it took.
func (h *hub) fill(ctx context.Context, name string, n, parallel int) (time.Duration, error) {
	key := base64.StdEncoding.EncodeToString(deviceSecret)
	return h.create(ctx, n, parallel, func(i int) client.BulkItem { return newDevice(name, i, key) })
}

// create makes n devices through the bulk API.
func (h *hub) create(ctx context.Context, n, parallel int, item func(i int) client.BulkItem) (time.Duration, error) {
	service, err := h.registry()
	if err != nil {
		return 0, err
	}
	defer service.Close()
	began := time.Now()
	batches := make(chan int)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var workers sync.WaitGroup
	for range parallel {
		workers.Go(func() {
			for from := range batches {
				items := make([]client.BulkItem, 0, client.MaxBulk)
				for i := from; i < min(n, from+client.MaxBulk); i++ {
					items = append(items, item(i))
				}
				result, err := service.Bulk(ctx, items)
				if err == nil && len(result.Errors) > 0 {
					err = fmt.Errorf("device %s: %s", result.Errors[0].DeviceID, result.Errors[0].ErrorStatus)
				}
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	for from := 0; from < n && ctx.Err() == nil; from += client.MaxBulk {
		batches <- from
	}
	close(batches)
	workers.Wait()
	return time.Since(began), context.Cause(ctx)
}

func newDevice(name string, i int, key string) client.BulkItem {
	return client.BulkItem{
		ID: deviceName(name, i), ImportMode: "create", Status: "enabled",
		Authentication: &client.Authentication{Type: "sas", SymmetricKey: &client.SymmetricKey{Primary: key, Secondary: key}},
		Tags:           fmt.Appendf(nil, `{"site":"site-%03d","building":"B%d","floor":%d,"customer":"customer-%04d"}`, i%200, i%20, i%12, i%5000),
		Properties: &client.BulkProperties{Desired: fmt.Appendf(nil,
			`{"interval":30,"fw":{"version":"2.%d.0","url":"https://updates.example.net/images/gateway-%08x.swu"},"alarms":{"low":10,"high":%d}}`, i%9, i*2654435761, 60+i%30)},
	}
}

func deviceName(name string, i int) string { return name + "-" + strconv.Itoa(i) }
