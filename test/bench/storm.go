package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/simulator"
)

// others are the devices that read their twins while the storm goes on.
const (
	others     = 20
	othersRead = 50 * time.Millisecond
)

// stormCommand cuts the network of a whole fleet in one moment and measures how
// long it takes until all are back, beside what a bare TLS server takes for as
// many handshakes that begin in the same way.
func stormCommand(ctx context.Context, args []string, stdout io.Writer) error {
	var o hubOptions
	f := flag.NewFlagSet("storm", flag.ContinueOnError)
	o.flags(f)
	n := f.Int("devices", 5000, "devices that lose their network")
	rounds := f.Int("rounds", 3, "storms; medians are judged")
	rate := f.Float64("rate", 250, "messages per second of the fleet, before and after a storm")
	resume := f.Bool("resume", false, "devices resume TLS sessions; else each handshake is a full one, on both sides of the comparison")
	mqtts := f.Bool("mqtts", false, "MQTT over TLS instead of WebSocket")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *n < 1 || *rounds < 1 || *rate <= 0 {
		return errors.New("-devices, -rounds and -rate must be above 0")
	}
	h, clean, err := newHub(o)
	if err != nil {
		return err
	}
	defer clean()
	if _, err := h.start(ctx); err != nil {
		return err
	}
	defer func() { _ = h.signal(syscall.SIGKILL) }()
	fmt.Fprintln(stdout, "machine:", machine(h.data))
	if _, err := h.fill(ctx, "other", others, 2); err != nil {
		return err
	}
	s := storm{h: h, devices: *n, rate: *rate, resume: *resume, mqtts: *mqtts, log: filepath.Join(filepath.Dir(h.data), "acks.jsonl")}
	return s.run(ctx, *rounds, stdout)
}

// storm is a run of stormCommand.
type storm struct {
	h             *hub
	devices       int
	rate          float64
	resume, mqtts bool
	log           string
}

func (s *storm) run(ctx context.Context, rounds int, stdout io.Writer) error {
	service, err := s.h.registry()
	if err != nil {
		return err
	}
	defer service.Close()
	log, err := simulator.OpenAckLog(s.log)
	if err != nil {
		return err
	}
	closeLog := sync.OnceValue(log.Close)
	defer func() { _ = closeLog() }()
	behaviour, err := simulator.ParseBehaviour([]byte("description: of the storm\n"))
	if err != nil {
		return err
	}
	behaviour.Interval = time.Duration(float64(s.devices) / s.rate * float64(time.Second))
	options := simulator.LoadOptions{
		Service: service, Hub: hostName, Transport: client.WebSocket, Address: s.h.https, RootCAs: s.h.roots, Prefix: "storm-", Devices: s.devices, Seed: 1,
		Spread: time.Duration(s.devices) * 3 * time.Millisecond, Behaviour: behaviour, Acks: log, FullHandshakes: !s.resume,
	}
	if s.mqtts {
		options.Transport, options.Address = client.MQTT, s.h.mqtts
	}
	load, err := simulator.NewLoad(options)
	if err != nil {
		return err
	}
	if _, err := load.Prepare(ctx); err != nil {
		return err
	}
	beside, err := startBare(ctx, s.h)
	if err != nil {
		return err
	}
	defer beside.stop()
	running, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	work.Go(func() { _ = load.Run(running) }) // ends with its context
	if err := allOnline(ctx, load, s.devices, 0); err != nil {
		return err
	}
	others, err := startReaders(ctx, s.h)
	if err != nil {
		return err
	}
	defer func() { _ = others.stop() }()
	fmt.Fprintf(stdout, "%d devices over %s, %s\nround  bare TLS s  back s  ratio  hub CPU us each  twin reads: count p50 p99 max, ms  load average\n", s.devices, s.transport(), s.handshakes())
	var ratios, p99 []float64
	for round := range rounds {
		bare, err := s.bare(ctx, beside)
		if err != nil {
			return err
		}
		pause(ctx, time.Second)
		before, err := cpuOf(s.h.pid())
		if err != nil {
			return err
		}
		if _, err := others.since(); err != nil {
			return err
		}
		connects := load.Report().Connects
		began := time.Now()
		load.Drop()
		if err := allOnline(ctx, load, s.devices, connects+int64(s.devices)); err != nil {
			return err
		}
		took := time.Since(began)
		after, err := cpuOf(s.h.pid())
		if err != nil {
			return err
		}
		r, err := others.since()
		if err != nil {
			return err
		}
		again, err := s.bare(ctx, beside) // the machine is seldom as fast as it was a moment ago
		if err != nil {
			return err
		}
		bare = (bare + again) / 2
		ratios, p99 = append(ratios, took.Seconds()/bare.Seconds()), append(p99, r.P99.Seconds()*1000)
		fmt.Fprintf(stdout, "%5d %11.2f %7.2f %6.2f %16d %16d %.1f %.1f %.1f  %s\n", round+1, bare.Seconds(), took.Seconds(), ratios[round],
			(after-before).Microseconds()/int64(s.devices), r.Count, ms(r.P50), ms(r.P99), ms(r.Max), loadAverage())
	}
	stop()
	work.Wait()
	r := load.Report()
	fmt.Fprintf(stdout, "fleet: %d messages and %d reports acknowledged, %d without an answer; errors: %v\n", r.Messages, r.TwinPatches, r.Unknown, r.ErrorReasons)
	if err := closeLog(); err != nil {
		return err
	}
	figures, err := s.h.metrics(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "hub: %.0f handshakes; strangers: %.0f gave way, %.0f were too slow, %.0f turned away; %.0f comings and goings not stored\n", figures["muster_handshakes_total"],
		figures["muster_strangers_evicted_total"], figures["muster_strangers_expired_total"], figures["muster_strangers_turned_away_total"], figures["muster_presence_lost_total"])
	missing, err := verifyAcks(ctx, s.h, stdout, s.log)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, "\ntargets, of medians")
	target(stdout, "time until all are back / bare TLS", median(ratios), 2, false, "x")
	target(stdout, "p99 of others' twin reads", median(p99), 500, false, "ms")
	target(stdout, "acknowledged and missing", float64(missing), 0, false, "")
	return ctx.Err()
}

func (s *storm) transport() string {
	if s.mqtts {
		return "MQTT/TLS"
	}
	return "TLS WebSocket"
}

func (s *storm) handshakes() string {
	if s.resume {
		return "TLS sessions resumed"
	}
	return "full TLS handshakes"
}

// allOnline waits until all devices are there and have connected so often in all.
func allOnline(ctx context.Context, l *simulator.Load, devices int, connects int64) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		r := l.Report()
		if r.Online == int64(devices) && r.Connects >= connects {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%d of %d devices are there after five minutes; errors: %v", r.Online, devices, r.ErrorReasons)
		}
		pause(ctx, 5*time.Millisecond)
	}
}

// bare has as many clients as there are devices do a handshake with the bare
// server, each after the pause that a device takes, and returns how long that takes.
func (s *storm) bare(ctx context.Context, b *bare) (time.Duration, error) {
	conns := make([]net.Conn, s.devices)
	errs := make([]error, s.devices)
	config := s.h.tls()
	if s.resume {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(64)
	}
	began := time.Now()
	var work sync.WaitGroup
	for i := range conns {
		work.Go(func() {
			pause(ctx, 250*time.Millisecond+rand.N(500*time.Millisecond))
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", b.address)
			if err != nil {
				errs[i] = err
				return
			}
			conns[i] = c
			secure := tls.Client(c, config)
			if errs[i] = secure.HandshakeContext(ctx); errs[i] == nil {
				_, errs[i] = secure.Write([]byte("x")) // the server's end of the handshake
			}
		})
	}
	work.Wait()
	took := time.Since(began)
	for _, c := range conns {
		if c != nil {
			_ = c.Close()
		}
	}
	pause(ctx, 500*time.Millisecond)
	return took, errors.Join(errs...)
}

// readersCommand is the child of storm: devices of a process of their own that
// read their twins all the time, so that what the storm's clients compute does
// not count as the hub's. For each line that comes it prints what was read since
// the line before.
func readersCommand(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	h := &hub{}
	f := flag.NewFlagSet("readers", flag.ContinueOnError)
	f.StringVar(&h.mqtts, "mqtts", "", "the hub's address")
	f.StringVar(&h.data, "data", "", "its data directory")
	if err := f.Parse(args); err != nil {
		return err
	}
	pem, err := os.ReadFile(filepath.Join(h.data, "tls", "ca.pem"))
	if err != nil {
		return err
	}
	h.roots = x509.NewCertPool()
	h.roots.AppendCertsFromPEM(pem)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	reads := &histogram{}
	p := newPool()
	var ready, work sync.WaitGroup
	for i := range others {
		ready.Add(1)
		work.Go(func() {
			d, err := p.connect(ctx, h, deviceName("other", i), false)
			if err == nil {
				defer d.close()
				err = d.subscribe(filterAnswers)
			}
			ready.Done()
			for err == nil && ctx.Err() == nil {
				began := time.Now()
				if err = d.readTwin(); err == nil {
					reads.add(time.Since(began))
					pause(ctx, othersRead)
				}
			}
			if err != nil {
				cancel(fmt.Errorf("a device that reads its twin: %w", err))
			}
		})
	}
	ready.Wait()
	fmt.Fprintln(stdout, "ready")
	from := reads.snapshot()
	for lines := bufio.NewScanner(stdin); lines.Scan() && ctx.Err() == nil; from = reads.snapshot() {
		if err := json.NewEncoder(stdout).Encode(reads.since(from)); err != nil {
			return err
		}
	}
	cause := context.Cause(ctx)
	cancel(nil)
	work.Wait()
	return cause
}

// readers is a running readersCommand.
type readers struct {
	process *exec.Cmd
	ask     io.WriteCloser
	answers *bufio.Reader
}

func startReaders(ctx context.Context, h *hub) (*readers, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r := &readers{process: exec.CommandContext(ctx, self, "readers", "-mqtts", h.mqtts, "-data", h.data)}
	r.process.Stderr = os.Stderr
	out, err := r.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if r.ask, err = r.process.StdinPipe(); err != nil {
		return nil, err
	}
	r.answers = bufio.NewReader(out)
	if err := r.process.Start(); err != nil {
		return nil, err
	}
	_, err = r.answers.ReadString('\n')
	return r, err
}

// since returns what was read since the call before.
func (r *readers) since() (s summary, err error) {
	if _, err = fmt.Fprintln(r.ask); err != nil {
		return s, fmt.Errorf("the readers of twins have ended: %w", err)
	}
	line, err := r.answers.ReadBytes('\n')
	if err != nil {
		return s, fmt.Errorf("the readers of twins have ended: %w", err)
	}
	return s, json.Unmarshal(line, &s)
}

func (r *readers) stop() error {
	_ = r.ask.Close() // which ends them
	return r.process.Wait()
}

// verifyAcks has the hub's binary look up what a log says; it returns how much
// is missing.
func verifyAcks(ctx context.Context, h *hub, stdout io.Writer, log string, more ...string) (missing int, err error) {
	began := time.Now()
	out, err := exec.CommandContext(ctx, h.options.binary, append([]string{"verify", "--data", h.data, "--acks", log}, more...)...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "fail") {
			missing++
		}
	}
	fmt.Fprintf(stdout, "verify --acks %s (%.1f s):\n%s", strings.Join(more, " "), time.Since(began).Seconds(), out)
	if _, failed := errors.AsType[*exec.ExitError](err); failed && missing > 0 {
		err = nil // it is in the figures
	}
	return missing, err
}

func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}
