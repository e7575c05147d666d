package engine_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/storage"
)

// The fault sweep: a hub in a process of its own does long work, and is killed
// (SIGKILL) right before or after the k-th time that it comes to a named step.
// It is started again in the same directory and must end as a hub does that
// nobody killed. The devices live in the test's process, where their logs of
// what they were told outlive the hub.

// sweepWork is long work that is swept. All of it runs in the hub's process.
type sweepWork struct {
	devices int
	// begin makes what is to be done, unless it was made before a kill.
	begin func(ctx context.Context, h *engine.Hub) error
	// done reports whether all of it is done.
	done func(ctx context.Context, h *engine.Hub) (bool, error)
	// state is what has come of it: what must be the same whatever happened.
	state func(ctx context.Context, h *engine.Hub) (map[string]string, error)
	// check compares a state with that of a hub that nobody killed, and with what
	// the devices were told; it runs in the test's process.
	check func(t *testing.T, want, got map[string]string, log map[string][]string)
	// options changes the options of the hub; tell says something to the devices. nil:
	// as they are.
	options func(o *engine.Options, tell func(sweepLine))
}

// sweepWorks are all works, by name: each file that has some adds its own.
var sweepWorks = map[string]sweepWork{
	"jobs":           jobsSweep,
	"configurations": configurationsSweep,
	"imports":        importsSweep,
	"runs":           runsSweep,
	"patterns":       patternsSweep,
}

// sweepLine is what hub and devices tell each other, one in a line.
type sweepLine struct {
	Kind     string            `json:"k"`           // to the devices: call, step, done; to the hub: answer, report
	Device   string            `json:"d,omitempty"` // its id
	Request  string            `json:"r,omitempty"`
	Name     string            `json:"n,omitempty"` // of a method, or a step
	Reported json.RawMessage   `json:"p,omitempty"`
	State    map[string]string `json:"s,omitempty"`
	Error    string            `json:"e,omitempty"`
}

const (
	sweepVariable = "MUSTER_SWEEP_CHILD" // work, directory, step and count, divided by newlines
	sweepAll      = "MUSTER_SWEEP"       // "all": every step, each in turn; else some of them
	sweepSome     = 10
)

// TestFaultSweep kills the hub at named steps, some in each run, or at all of
// them, the first and the last time that it comes to each, if MUSTER_SWEEP is
// "all".
func TestFaultSweep(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes")
	}
	for name, work := range sweepWorks {
		t.Run(name, func(t *testing.T) {
			reference := newSweepRun(t, name, work)
			want, steps := reference.finish(t, "", 0)
			if len(steps) == 0 {
				t.Fatal("the hub came to no step")
			}
			type point struct {
				step string
				time int
			}
			var points []point
			for _, step := range slices.Sorted(maps.Keys(steps)) {
				points = append(points, point{step, 1})
				if n := steps[step]; n > 1 {
					points = append(points, point{step, n})
				}
			}
			if os.Getenv(sweepAll) != "all" {
				seed := rand.Uint64()
				t.Logf("seed %d: %d of %d points", seed, min(sweepSome, len(points)), len(points))
				rand.New(rand.NewPCG(seed, 0)).Shuffle(len(points), func(i, k int) { points[i], points[k] = points[k], points[i] })
				points = points[:min(sweepSome, len(points))]
			}
			for _, p := range points {
				t.Run(fmt.Sprintf("%s/%d", p.step, p.time), func(t *testing.T) {
					r := newSweepRun(t, name, work)
					got, _ := r.finish(t, p.step, p.time)
					r.mu.Lock()
					defer r.mu.Unlock()
					work.check(t, want, got, r.log)
				})
			}
		})
	}
}

// sweepRun is one hub's directory, and its devices.
type sweepRun struct {
	name string
	dir  string
	ids  []string

	after time.Duration // when the hub is killed; 0: at its step, if at all

	mu       sync.Mutex
	log      map[string][]string          // what each device was told
	reported map[string]map[string]string // what it has to report
}

func newSweepRun(t *testing.T, name string, work sweepWork) *sweepRun {
	r := &sweepRun{name: name, dir: t.TempDir(), log: map[string][]string{}, reported: map[string]map[string]string{}}
	for i := range work.devices {
		r.ids = append(r.ids, sweepDevice(i))
	}
	return r
}

func sweepDevice(i int) string { return fmt.Sprintf("device-%02d", i) }

// killWorks are works that are only killed at random.
var killWorks = map[string]sweepWork{"many": runsKill}

// finish runs the hub until its work is done, with a kill at a step the first
// time. It returns what came of it, and how often the hub came to each step.
func (r *sweepRun) finish(t *testing.T, step string, count int) (state map[string]string, steps map[string]int) {
	t.Helper()
	state, steps, err := r.once(t, step, count)
	if step != "" {
		if err == nil { // it went another way this time: nothing was killed
			t.Logf("the hub did not come to %s %d times", step, count)
			return state, steps
		}
		state, steps, err = r.once(t, "", 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return state, steps
}

// once starts the hub, and speaks for its devices until it ends.
func (r *sweepRun) once(t *testing.T, step string, count int) (state map[string]string, steps map[string]int, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestFaultSweepChild$", "-test.v")
	// The race detector tells what it finds at once; it need not wait a second at the end for more.
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", sweepVariable+"="+strings.Join([]string{r.name, r.dir, step, strconv.Itoa(count)}, "\n"))
	fromHub, hubWrites, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer fromHub.Close()
	hubReads, toHub, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer toHub.Close()
	cmd.ExtraFiles = []*os.File{hubWrites, hubReads}
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	hubWrites.Close()
	hubReads.Close()
	if r.after > 0 {
		timer := time.AfterFunc(r.after, func() { _ = cmd.Process.Kill() }) // it may have ended
		defer timer.Stop()
	}
	tell := json.NewEncoder(toHub)
	for _, id := range r.ids { // they come back, and say how they are
		_ = tell.Encode(r.report(id)) // the hub may have been killed already
	}
	steps = map[string]int{}
	lines := bufio.NewScanner(fromHub)
	lines.Buffer(nil, 1<<20)
	failure := ""
	for lines.Scan() {
		var l sweepLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			break // cut off by the kill
		}
		switch l.Kind {
		case "step":
			steps[l.Name]++
		case "done":
			state, failure = l.State, l.Error
		case "call":
			r.mu.Lock()
			r.log[l.Device] = append(r.log[l.Device], l.Name)
			if r.reported[l.Device] == nil {
				r.reported[l.Device] = map[string]string{}
			}
			r.reported[l.Device][l.Name] = "done"
			r.mu.Unlock()
			_ = tell.Encode(r.report(l.Device))
			_ = tell.Encode(sweepLine{Kind: "answer", Device: l.Device, Request: l.Request})
		}
	}
	err = cmd.Wait()
	switch {
	case failure != "":
		t.Fatalf("the hub says: %s\n%s", failure, output.String())
	case err != nil && step == "" && r.after == 0:
		t.Fatalf("the hub ended with %v\n%s", err, output.String())
	case err != nil && cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL:
		t.Fatalf("the hub was not killed: %v\n%s", err, output.String())
	}
	return state, steps, err
}

func (r *sweepRun) report(id string) sweepLine {
	r.mu.Lock()
	defer r.mu.Unlock()
	patch := r.reported[id]
	if patch == nil {
		patch = map[string]string{}
	}
	b, _ := json.Marshal(patch) // plain texts always marshal
	return sweepLine{Kind: "report", Device: id, Reported: b}
}

// TestFaultSweepChild is the hub's process.
func TestFaultSweepChild(t *testing.T) {
	parts := strings.Split(os.Getenv(sweepVariable), "\n")
	if len(parts) != 4 {
		t.Skip("only for TestFaultSweep")
	}
	work, ok := sweepWorks[parts[0]]
	if !ok {
		work = killWorks[parts[0]]
	}
	count, _ := strconv.Atoi(parts[3])
	c := &sweepChild{step: parts[2], count: count, out: os.NewFile(3, "devices"), sessions: map[string]*enginetest.Device{}}
	in := os.NewFile(4, "devices")
	state, err := c.run(t.Context(), parts[1], work, in)
	l := sweepLine{Kind: "done", State: state}
	if err != nil {
		l.Error = err.Error()
	}
	c.tell(l)
}

// sweepChild is the hub, and the pipe to its devices.
type sweepChild struct {
	step  string
	count int

	mu       sync.Mutex
	out      io.Writer
	times    map[string]int
	sessions map[string]*enginetest.Device
}

func (c *sweepChild) tell(l sweepLine) {
	b, _ := json.Marshal(l) // always marshals
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.out.Write(append(b, '\n')) // who reads it outlives this process
}

// reached ends the process at the chosen step.
func (c *sweepChild) reached(step string) {
	c.mu.Lock()
	if c.times == nil {
		c.times = map[string]int{}
	}
	c.times[step]++
	n := c.times[step]
	c.mu.Unlock()
	if step == c.step && n == c.count {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // it comes at once
	}
	c.tell(sweepLine{Kind: "step", Name: step})
}

func (c *sweepChild) run(ctx context.Context, dir string, work sweepWork, in io.Reader) (map[string]string, error) {
	o := engine.Options{Storage: storage.Options{Dir: dir, Memory: 64 << 20}, Hosts: []string{enginetest.HostName}, Reached: c.reached}
	if work.options != nil {
		work.options(&o, c.tell)
	}
	h, err := engine.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	for i := range work.devices {
		id := engine.TwinID{DeviceID: sweepDevice(i)}
		if _, err := h.CreateIdentity(ctx, enginetest.Owner(), engine.Identity{DeviceID: id.DeviceID}); err != nil && engine.AsError(err).Code != engine.CodeDeviceAlreadyExists {
			return nil, err
		}
	}
	running, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.Run(running) })
	wg.Go(func() { c.listen(running, h, in) })
	state, err := c.work(ctx, h, work)
	stop()
	// The reader of the pipe ends with the process.
	return state, errors.Join(err, h.Close())
}

func (c *sweepChild) work(ctx context.Context, h *engine.Hub, work sweepWork) (map[string]string, error) {
	if err := work.begin(ctx, h); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(time.Minute); ; {
		done, err := work.done(ctx, h)
		if err != nil {
			return nil, err
		}
		if done {
			return work.state(ctx, h)
		}
		if time.Now().After(deadline) {
			state, err := work.state(ctx, h)
			return state, errors.Join(fmt.Errorf("the work was not done in a minute: %v", state), err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// listen takes what the devices say: each connects with its first word.
func (c *sweepChild) listen(ctx context.Context, h *engine.Hub, in io.Reader) {
	lines := bufio.NewScanner(in)
	for lines.Scan() && ctx.Err() == nil {
		var l sweepLine
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			return
		}
		d := c.sessions[l.Device]
		if d == nil {
			if d = c.connect(ctx, h, l.Device); d == nil {
				continue
			}
			c.sessions[l.Device] = d
		}
		switch l.Kind {
		case "report":
			if string(l.Reported) != "{}" {
				_, _ = d.Session.PatchReported(ctx, l.Reported, -1) // the hub may be closing
			}
			set := engine.NoSubscriptions()
			set[engine.EndpointMethod] = 0
			_ = d.Session.Subscribe(ctx, set)
		case "answer":
			d.Session.CompleteMethod(l.Request, 200, nil)
		}
	}
}

func (c *sweepChild) connect(ctx context.Context, h *engine.Hub, id string) *enginetest.Device {
	token, err := enginetest.OwnToken(ctx, h, engine.TwinID{DeviceID: id})
	if err != nil {
		return nil
	}
	d, err := enginetest.ConnectWith(ctx, h, engine.TwinID{DeviceID: id}, token, false)
	if err != nil {
		return nil
	}
	d.Forward(func(m enginetest.Method) {
		c.tell(sweepLine{Kind: "call", Device: id, Request: m.RequestID, Name: m.Name})
	})
	return d
}
