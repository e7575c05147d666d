package scripting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/muster-hub/muster/engine/pattern"
)

// TestMain is a worker when a pool of a test has started it as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "__worker":
			exit(Worker(os.Stdin, os.Stdout))
		case "__worker-probe":
			exit(probe(os.Stdout))
		case "__parent":
			exit(parent(os.Stdout))
		case "__worker-dies":
			exit(dies())
		case "__worker-open": // the sandbox is off, the walls of the process stand
			exit(work(os.Stdin, os.Stdout, confine(), walls{open: true}))
		}
	}
	os.Exit(m.Run())
}

func exit(err error) {
	if err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

func testPool(t testing.TB, arg string, workers int) *Pool {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPool(Options{Command: []string{binary, arg}, Workers: workers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// dies is a worker that says hello, and then dies at its first request.
func dies() error {
	_ = work(strings.NewReader(""), os.Stdout, "", walls{})
	_, _ = os.Stdin.Read(make([]byte, 1))
	panic("out of luck")
}

// TestBatch runs many activations, more than a pipe holds, and finds each outcome
// in its place, on every worker.
func TestBatch(t *testing.T) {
	p := testPool(t, "__worker", 2)
	b := bundleOf(`return { n = p.n, size = #p.text }`)
	var list []pattern.Activation
	for i := range 300 {
		a := activationOf()
		a.Params = json.RawMessage(fmt.Sprintf(`{"n":%d,"text":%q}`, i, strings.Repeat("x", 20_000)))
		list = append(list, a)
	}
	out, err := p.Activate(t.Context(), b, list)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range out {
		if want := fmt.Sprintf(`{"n":%d,"size":20000}`, i); string(o.Result) != want {
			t.Fatalf("outcome %d is %s %v, expected %s", i, o.Result, o.Fault, want)
		}
	}
	// Activations that are as they should be wear no worker out.
	heavy := &pattern.Bundle{Files: map[string][]byte{pattern.MainFile: []byte(benchSource)}}
	for range 20 {
		list := make([]pattern.Activation, 16)
		for i := range list {
			list[i] = journal(200)
		}
		if _, err := p.Activate(t.Context(), heavy, list); err != nil {
			t.Fatal(err)
		}
	}
	s := p.Stats()
	if s.Activations != 300+20*16 || s.Busy != 0 {
		t.Errorf("%+v", s)
	}
	if !raceDetector && (s.Workers != 2 || s.Starts != 2) { // its own memory wears them out
		t.Errorf("%+v", s)
	}
	for _, w := range p.alive() {
		t.Logf("a worker has %.1f MiB", float64(w.usage.memory())/(1<<20))
	}
}

// TestTooLarge has an activation in a batch that no worker takes.
func TestTooLarge(t *testing.T) {
	p := testPool(t, "__worker", 1)
	list := []pattern.Activation{activationOf(), activationOf(), activationOf()}
	list[1].Params = json.RawMessage(`"` + strings.Repeat("x", requestMost) + `"`)
	for range 2 {
		out, err := p.Activate(t.Context(), bundleOf(`return 1`), list)
		if err != nil {
			t.Fatal(err)
		}
		if string(out[0].Result) != "1" || string(out[2].Result) != "1" || out[1].Fault == nil || out[1].Fault.Code != pattern.FaultTooBig {
			t.Errorf("%v, %v, %v", out[0], out[1].Fault, out[2])
		}
	}
	if out, err := p.Activate(t.Context(), bundleOf(`return 2`), list[1:]); err != nil || string(out[1].Result) != "2" {
		t.Errorf("%v, %v", out, err)
	}
	if s := p.Stats(); s.Starts != 1 {
		t.Errorf("%+v", s)
	}
}

// TestPrograms has one worker run more programs than it keeps.
func TestPrograms(t *testing.T) {
	p := testPool(t, "__worker", 1)
	for range 2 {
		for i := range placesMost + 5 {
			o := activateOne(t, p, bundleOf(fmt.Sprintf("return %d", i)))
			if want := fmt.Sprint(i); string(o.Result) != want {
				t.Fatalf("program %d gave %s %v", i, o.Result, o.Fault)
			}
		}
	}
}

// TestKilledInBatch stops the one activation of a batch that does not end, and the
// others do.
func TestKilledInBatch(t *testing.T) {
	p := testPool(t, "__worker-open", 1)
	b := bundleOf(`if p.loop then while true do end end return p.n`)
	var list []pattern.Activation
	for i := range 7 {
		a := activationOf()
		a.Params = json.RawMessage(fmt.Sprintf(`{"n":%d,"loop":%v}`, i, i == 3))
		list = append(list, a)
	}
	out, err := p.Activate(t.Context(), b, list)
	for try := 0; err != nil && try < 5; try++ {
		out, err = p.Activate(t.Context(), b, list)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range out {
		switch {
		case i == 3 && (o.Fault == nil || o.Fault.Code != pattern.FaultBudget || !strings.Contains(o.Fault.Message, "time")):
			t.Errorf("the loop ended %s %v", o.Ending, o.Fault)
		case i != 3 && string(o.Result) != fmt.Sprint(i):
			t.Errorf("outcome %d is %s %v", i, o.Result, o.Fault)
		}
	}
	if s := p.Stats(); s.Kills["time"] != 1 {
		t.Errorf("%+v", s)
	}
}

// TestCrash has workers that die by themselves: the activation is tried again, and
// then it is its fault.
func TestCrash(t *testing.T) {
	p := testPool(t, "__worker-dies", 1)
	o := activateOne(t, p, bundleOf(`return 1`))
	if o.Fault == nil || o.Fault.Code != pattern.FaultBudget {
		t.Errorf("%s %v", o.Ending, o.Fault)
	}
	if s := p.Stats(); s.Crashes != triesMost || s.Starts != triesMost || s.Workers != 0 {
		t.Errorf("%+v", s)
	}
}

// TestNoWorker has a command that is none.
func TestNoWorker(t *testing.T) {
	p, err := NewPool(Options{Command: []string{"/nonexistent"}, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	if _, err := p.Activate(t.Context(), bundleOf(`return 1`), []pattern.Activation{activationOf()}); err == nil {
		t.Error("an activation without a worker")
	}
	if _, err := p.Load(t.Context(), bundleOf(`return 1`)); err == nil {
		t.Error("a manifest without a worker")
	}
}

// TestPoolLoad loads through a worker what Load gives, and says what is wrong with
// what it does not.
func TestPoolLoad(t *testing.T) {
	p := testPool(t, "__worker", 1)
	m, err := p.Load(t.Context(), bundleOf(`return 1`))
	if err != nil || m.Name != "x" || m.HasUndo {
		t.Errorf("%+v, %v", m, err)
	}
	for text, want := range map[string]string{
		`return pattern { name = "Bad Name", version = "1.0.0", run = function() end }`: "name",
		`return pattern { name = "x" version = 1 }`:                                     "pattern.lua:1",
		`return 1`:                    "returns no pattern",
		`return pattern { name="x" }`: "no function run",
		`while true do end`:           "budget: instructions",
		"local a\n\nos.exit()":        "pattern.lua:3",
	} {
		m, err := p.Load(t.Context(), &pattern.Bundle{Files: map[string][]byte{pattern.MainFile: []byte(text)}})
		if err == nil {
			t.Errorf("%s: %+v", text, m)
			continue
		}
		said := err.Error()
		if f, ok := errors.AsType[*pattern.Fault](err); ok {
			said += " " + f.Line
		}
		if !strings.Contains(said, want) {
			t.Errorf("%s: %s, expected %q in it", text, said, want)
		}
	}
}

// TestClose closes a pool whose workers are busy, and whose requests wait.
func TestClose(t *testing.T) {
	p := testPool(t, "__worker-open", 1)
	activateOne(t, p, bundleOf(`return 1`))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := p.Activate(t.Context(), bundleOf(`while true do end`), []pattern.Activation{activationOf()}); !errors.Is(err, ErrClosed) {
				t.Errorf("a request of a closed pool: %v", err)
			}
		})
	}
	for p.Stats().Waiting < 3 {
		runtime.Gosched()
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if _, err := p.Activate(t.Context(), bundleOf(`return 1`), []pattern.Activation{activationOf()}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// TestAbandoned has a caller go away while its activation runs.
func TestAbandoned(t *testing.T) {
	p := testPool(t, "__worker-open", 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := p.Activate(ctx, bundleOf(`while true do end`), []pattern.Activation{activationOf()})
		done <- err
	}()
	for p.Stats().Busy == 0 {
		runtime.Gosched()
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if o := activateOne(t, p, bundleOf(`return 1`)); o.Ending != pattern.EndReturned {
		t.Error(o)
	}
}
