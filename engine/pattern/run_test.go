package pattern

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// simple is a world that answers as it is told.
type simple struct {
	answer    Answer
	err       error
	begun     []string
	withdrawn []string
}

func (w *simple) Begin(_ *Run, s *Step) (Answer, error) {
	w.begun = append(w.begun, s.Op)
	return w.answer, w.err
}

func (w *simple) Withdraw(_ *Run, s *Step) error {
	w.withdrawn = append(w.withdrawn, s.Op)
	return w.err
}

func call(op string) Step { return Step{Op: op, Args: json.RawMessage(`{"for":"5m"}`)} }

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// waiting is a run that waits for its second step.
func waiting(t *testing.T) *Run {
	t.Helper()
	r := &Run{State: Ready}
	w := &simple{answer: Answer{Open: true, Ref: "ref", Due: noon.Add(time.Minute)}}
	take(t, r, w, &Outcome{Ending: EndSuspended, Steps: []Step{{Op: "ctx.now", Args: json.RawMessage("{}"), Result: json.RawMessage(`"x"`)}, call("ctx.approve")}})
	if r.State != Waiting || r.Open() == nil || !r.Due().Equal(noon.Add(time.Minute)) {
		t.Fatalf("the run is %s", r.State)
	}
	return r
}

func take(t *testing.T, r *Run, w World, o *Outcome) {
	t.Helper()
	if err := r.Take(o, w, nil, noon); err != nil {
		t.Fatal(err)
	}
}

func TestTakeIsRefused(t *testing.T) {
	t.Parallel()
	for _, s := range States() {
		r := &Run{State: s}
		if err := r.Take(&Outcome{Ending: EndReturned}, &simple{}, nil, noon); (err == nil) != (s == Ready) {
			t.Errorf("a run that is %s: got %v", s, err)
		}
	}
	broken := errors.New("broken")
	r := &Run{State: Ready}
	if err := r.Take(&Outcome{Ending: EndSuspended, Steps: []Step{call("ctx.sleep")}}, &simple{err: broken}, nil, noon); !errors.Is(err, broken) {
		t.Errorf("the world's own error: got %v", err)
	}
}

// TestSenselessOutcomes takes what no program can have done: the run ends, and
// nothing grows.
func TestSenselessOutcomes(t *testing.T) {
	t.Parallel()
	long := json.RawMessage(`"` + strings.Repeat("a", MaxValue) + `"`)
	for name, c := range map[string]struct {
		o    Outcome
		want string
	}{
		"no step":          {Outcome{Ending: EndSuspended}, "without a step"},
		"no ending":        {Outcome{}, "an ending"},
		"many steps":       {Outcome{Ending: EndSuspended, Steps: slices.Repeat([]Step{call("ctx.event")}, MaxBatch+1)}, "65 new steps"},
		"a large result":   {Outcome{Ending: EndReturned, Result: long}, "at most 65536"},
		"a bad result":     {Outcome{Ending: EndReturned, Result: json.RawMessage("{")}, "not JSON"},
		"much kept":        {Outcome{Ending: EndReturned, Kept: map[string]json.RawMessage{"a": long}}, "at most 16384"},
		"bad kept":         {Outcome{Ending: EndReturned, Kept: map[string]json.RawMessage{"a": json.RawMessage("x")}}, "not JSON"},
		"large arguments":  {Outcome{Ending: EndSuspended, Steps: []Step{{Op: "ctx.sleep", Args: long}}}, "at most 65536"},
		"a long name":      {Outcome{Ending: EndSuspended, Steps: []Step{{Op: strings.Repeat("a", 100), Args: json.RawMessage("{}")}}}, "no name"},
		"out of its order": {Outcome{Ending: EndSuspended, Steps: []Step{{Op: "ctx.event", Args: json.RawMessage("{}"), Deferred: true}, call("ctx.sleep")}}, "although the run was to end"},
	} {
		r, w := &Run{State: Ready}, &simple{}
		take(t, r, w, &c.o)
		if r.State != Failed || !strings.Contains(r.Fault.Message, c.want) || w.begun != nil || r.Size() > 0 {
			t.Errorf("%s: the run is %s, %v, did %q and has %d bytes; want %q", name, r.State, r.Fault, w.begun, r.Size(), c.want)
		}
	}
	// What is only too long is cut.
	r := &Run{State: Ready}
	fault := &Fault{Message: strings.Repeat("ä", 5000), Line: strings.Repeat("l", 500), Cause: long, Payload: append(long, ' '), Trace: slices.Repeat([]string{strings.Repeat("t", 500)}, 100)}
	take(t, r, &simple{}, &Outcome{Ending: EndFailed, Fault: fault, Report: Report{Phase: strings.Repeat("p", 500), Progress: 7}, Logs: slices.Repeat([]LogLine{{Text: strings.Repeat("l", 5000)}}, 300)})
	text, err := json.Marshal(r)
	if err != nil || len(text) > 600<<10 || len(r.Logs) != MaxLogs || r.Fault.Code != FaultLua || len(r.Fault.Trace) != traceMost || r.Report.Progress != 1 || fault.Code != "" {
		t.Errorf("a run of %d bytes, %d lines, %v", len(text), len(r.Logs), err)
	}
}

func TestFullJournal(t *testing.T) {
	t.Parallel()
	batch := func(n int, deferred bool) *Outcome {
		s := Step{Op: "ctx.event", Args: json.RawMessage(`{}`), Deferred: deferred}
		return &Outcome{Ending: EndSuspended, Steps: slices.Repeat([]Step{s}, n)}
	}
	r, w := &Run{State: Ready}, &simple{}
	for r.Cancel == nil {
		take(t, r, w, batch(MaxBatch, false))
	}
	if len(r.Steps) != MaxSteps || r.State != Ready || r.CancelAt != MaxSteps+1 || r.Cancel.Code != FaultJournalFull || len(w.begun) != MaxSteps {
		t.Fatalf("%d steps, %s, %v", len(r.Steps), r.State, r.Cancel)
	}
	a := Activation{}
	if r.Fill(&a); a.Cancel != r.Cancel || a.CancelAt != r.CancelAt {
		t.Error("the program does not find that its journal is full")
	}
	// It cleans up, and too much of that ends it.
	few, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	take(t, r, w, batch(10, true))
	take(t, r, w, &Outcome{Ending: EndFailed, Fault: r.Cancel})
	if r.State != Failed || r.Fault.Code != FaultJournalFull || len(r.Steps) != MaxSteps+10 {
		t.Errorf("it is %s, %v, with %d steps", r.State, r.Fault, len(r.Steps))
	}
	var other Run
	if err := json.Unmarshal(few, &other); err != nil {
		t.Fatal(err)
	}
	for other.State == Ready {
		take(t, &other, w, batch(MaxBatch, true))
	}
	if other.State != Failed || len(other.Steps) != MaxSteps*11/10 {
		t.Errorf("it is %s with %d steps", other.State, len(other.Steps))
	}
	// An undo has a journal of its own, without more.
	if err := other.BeginUndo(); err != nil {
		t.Fatal(err)
	}
	for other.State == Ready {
		take(t, &other, w, batch(MaxBatch, false))
	}
	if other.State != Failed || other.Entry != EntryUndo || len(other.Of(EntryUndo)) != MaxSteps {
		t.Errorf("the undo is %s with %d steps", other.State, len(other.Of(EntryUndo)))
	}
	// By bytes.
	large := &Outcome{Ending: EndSuspended, Steps: []Step{{Op: "ctx.event", Args: json.RawMessage(`"` + strings.Repeat("a", 50_000) + `"`)}}}
	bytes := &Run{State: Ready}
	for bytes.Cancel == nil {
		take(t, bytes, w, large)
	}
	if len(bytes.Steps) != 5 || bytes.Size() > MaxJournal {
		t.Errorf("%d steps of %d bytes", len(bytes.Steps), bytes.Size())
	}
}

func TestSettleAndExpire(t *testing.T) {
	t.Parallel()
	r := waiting(t)
	if r.Settle("other", nil, nil, noon) || r.Settle("", nil, nil, noon) {
		t.Error("another's answer was taken")
	}
	if !r.Settle("ref", json.RawMessage(`"yes"`), nil, noon) || r.State != Ready || string(r.Steps[1].Result) != `"yes"` {
		t.Errorf("its answer was not taken: %s", r.State)
	}
	if r.Settle("ref", nil, nil, noon) {
		t.Error("a second answer was taken")
	}
	r = waiting(t)
	r.Settle("ref", json.RawMessage(`"`+strings.Repeat("a", MaxValue)+`"`), nil, noon)
	if f := r.Steps[1].Fault; f == nil || f.Code != FaultTooBig || r.Steps[1].Result != nil {
		t.Errorf("a large answer: %v", f)
	}
	r, w := waiting(t), &simple{}
	if did, err := r.Expire(w, noon.Add(59*time.Second)); did || err != nil {
		t.Errorf("before its time: %t, %v", did, err)
	}
	if did, err := r.Expire(w, noon.Add(time.Minute)); !did || err != nil || r.Steps[1].Fault.Code != FaultTimeout || !slices.Equal(w.withdrawn, []string{"ctx.approve"}) {
		t.Errorf("at its time: %t, %v, %v", did, err, r.Steps[1].Fault)
	}
	r = &Run{State: Ready}
	take(t, r, &simple{answer: Answer{Open: true, Due: noon.Add(time.Minute)}}, &Outcome{Ending: EndSuspended, Steps: []Step{call("ctx.sleep")}})
	if did, err := r.Expire(w, noon.Add(time.Hour)); !did || err != nil || r.Steps[0].Fault != nil || len(w.withdrawn) != 1 {
		t.Errorf("a timer: %t, %v, %v", did, err, r.Steps[0].Fault)
	}
}

// TestStop has a run stopped at each of the places where it can be.
func TestStop(t *testing.T) {
	t.Parallel()
	cleaning := func() *Run {
		r := waiting(t)
		r.Settle("ref", nil, &Fault{Code: FaultRejected}, noon)
		take(t, r, &simple{answer: Answer{Open: true, Ref: "ref"}}, &Outcome{Ending: EndSuspended, Steps: []Step{{Op: "ctx.approve", Args: json.RawMessage(`{}`), Deferred: true}}})
		return r
	}
	undoing := func() *Run {
		r := waiting(t)
		r.Settle("ref", nil, nil, noon)
		take(t, r, &simple{}, &Outcome{Ending: EndReturned})
		if err := r.BeginUndo(); err != nil {
			t.Fatal(err)
		}
		take(t, r, &simple{answer: Answer{Open: true, Ref: "ref"}}, &Outcome{Ending: EndSuspended, Steps: []Step{call("ctx.sleep")}})
		return r
	}
	late := waiting(t)
	late.Settle("ref", nil, nil, noon)
	done := waiting(t)
	done.Settle("ref", nil, nil, noon)
	take(t, done, &simple{}, &Outcome{Ending: EndReturned})
	again, err := done.Again(2)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		r         *Run
		state     State // after Stop
		cancelAt  int
		undo      bool
		withdrawn int
		killed    State
	}{
		"queued":      {&Run{State: Queued}, Canceled, 0, false, 0, Canceled},
		"never begun": {&Run{State: Ready}, Canceled, 0, false, 0, Canceled},
		"waiting":     {waiting(t), Ready, 3, true, 1, Canceled},
		"between":     {late, Ready, 3, true, 0, Canceled},
		"cleaning up": {cleaning(), Failed, 0, true, 0, Canceled},
		"undoing":     {undoing(), Waiting, 0, false, 0, Canceled},
		"ended":       {done, Succeeded, 0, false, 0, Succeeded},
		"a retry":     {&again, Ready, 2, true, 0, Canceled},
	} {
		text, err := json.Marshal(c.r)
		if err != nil {
			t.Fatal(err)
		}
		var kill Run
		if err := json.Unmarshal(text, &kill); err != nil {
			t.Fatal(err)
		}
		w := &simple{}
		if err := c.r.Stop(w, "why", true, noon); err != nil {
			t.Fatal(err)
		}
		want := c.state
		if want == Failed { // it goes on waiting in its deferred function
			want = Waiting
		}
		if c.r.State != want || c.r.CancelAt != c.cancelAt || c.r.Undo != c.undo || len(w.withdrawn) != c.withdrawn {
			t.Errorf("%s: stopped, it is %s, from step %d on, undo %t, withdrawn %q", name, c.r.State, c.r.CancelAt, c.r.Undo, w.withdrawn)
		}
		if s := c.r.Open(); c.withdrawn > 0 && s != nil {
			t.Errorf("%s: it still waits for %s", name, s.Op)
		}
		if err := kill.Kill(w, "why", noon); err != nil || kill.State != c.killed || kill.Undo || kill.Open() != nil {
			t.Errorf("%s: killed, it is %s, %v", name, kill.State, err)
		}
		if kill.State == Canceled && len(kill.Steps) > 0 && kill.Steps[len(kill.Steps)-1].Open {
			t.Errorf("%s: killed, its last step is open", name)
		}
	}
}

func TestUndo(t *testing.T) {
	t.Parallel()
	r := waiting(t)
	if err := r.BeginUndo(); !errors.Is(err, ErrUndo) {
		t.Errorf("an undo of what has not ended: %v", err)
	}
	if err := r.Stop(&simple{}, "why", true, noon); err != nil {
		t.Fatal(err)
	}
	take(t, r, &simple{}, &Outcome{Ending: EndFailed, Fault: r.Cancel, Kept: map[string]json.RawMessage{"old": json.RawMessage("1")}})
	if r.State != Ready || r.Entry != EntryUndo || r.Undo || r.Fault == nil {
		t.Fatalf("it is %s, %s, %v", r.State, r.Entry, r.Fault)
	}
	a := Activation{}
	if r.Fill(&a); a.Entry != EntryUndo || len(a.Steps) != 0 || a.Cancel != nil || string(a.Kept["old"]) != "1" {
		t.Errorf("its activation is %+v", a)
	}
	take(t, r, &simple{}, &Outcome{Ending: EndSuspended, Steps: []Step{call("ctx.event")}, Kept: map[string]json.RawMessage{"old": json.RawMessage("2")}})
	if string(r.Kept["old"]) != "1" {
		t.Error("replayed, the undo would find what it kept itself")
	}
	take(t, r, &simple{}, &Outcome{Ending: EndFailed, Fault: &Fault{Code: FaultUncertain}})
	if r.State != Failed || r.Fault.Code != FaultUncertain {
		t.Errorf("it failed, and is %s, %v", r.State, r.Fault)
	}
	if err := r.BeginUndo(); err != nil || len(r.Of(EntryUndo)) != 0 || len(r.Of(EntryRun)) != 2 {
		t.Fatalf("once more: %v, %d steps", err, len(r.Steps))
	}
	take(t, r, &simple{}, &Outcome{Ending: EndReturned})
	if r.State != Undone || r.Result != nil {
		t.Errorf("it is %s", r.State)
	}
	if err := r.BeginUndo(); !errors.Is(err, ErrUndo) {
		t.Errorf("an undo of what was undone: %v", err)
	}
	for _, s := range []State{Queued, Skipped, Succeeded} {
		none := &Run{State: s}
		if err := none.BeginUndo(); !errors.Is(err, ErrUndo) {
			t.Errorf("an undo of a run without steps that is %s: %v", s, err)
		}
	}
}

func TestAgain(t *testing.T) {
	t.Parallel()
	r := waiting(t)
	if _, err := r.Again(1); err == nil {
		t.Error("a run that has not ended begins again")
	}
	r.Settle("ref", nil, nil, noon)
	take(t, r, &simple{}, &Outcome{Ending: EndSuspended, Steps: []Step{{Op: "ctx.event", Args: json.RawMessage(`{}`), Deferred: true}}})
	take(t, r, &simple{}, &Outcome{Ending: EndFailed, Fault: &Fault{Code: FaultLua}, Kept: map[string]json.RawMessage{"a": json.RawMessage("1")}})
	for from := -1; from < 6; from++ {
		again, err := r.Again(from)
		if ok := from >= 1 && from <= 3; (err == nil) != ok {
			t.Errorf("from step %d: %v", from, err)
		} else if ok && (again.State != Ready || len(again.Steps) != from-1 || again.Kept != nil || again.Size() != sizeOfAll(again.Steps)) {
			t.Errorf("from step %d: %+v", from, again)
		}
	}
}

// TestKeptOutlastsWhatCutsOff: an activation that was cut off in its middle takes
// nothing away from undo.
func TestKeptOutlastsWhatCutsOff(t *testing.T) {
	t.Parallel()
	r := &Run{State: Ready}
	take(t, r, &simple{}, &Outcome{Ending: EndSuspended, Steps: []Step{call("ctx.event")}, Kept: map[string]json.RawMessage{"a": json.RawMessage("1"), "b": json.RawMessage("2")}})
	take(t, r, &simple{}, &Outcome{Ending: EndFailed, Fault: &Fault{Code: FaultBudget}, Kept: map[string]json.RawMessage{"a": json.RawMessage("3")}})
	if string(r.Kept["a"]) != "3" || string(r.Kept["b"]) != "2" {
		t.Errorf("kept are %s", marshal(r.Kept))
	}
}

func TestGrants(t *testing.T) {
	t.Parallel()
	granted := Needs{"twin:read", "twin:desired:firmware", "twin:tags", "method:reboot", "http:hooks.example.net", "http:a.example:8443", "secret:smtp"}
	for _, c := range []struct{ op, args, denied string }{
		{"dev.get", `{"path":"tags.a"}`, ""},
		{"dev.desire", `{"patch":{"firmware":{"url":"x"}}}`, ""},
		{"dev.desire", `{"patch":{"firmware":null}}`, ""},
		{"dev.desire", `{"patch":{"firmware":1,"other":{"a":1}}}`, "twin:desired:other.a"},
		{"dev.desire", `{"patch":{"firmwares":1}}`, "twin:desired:firmwares"},
		{"dev.tag", `{"patch":{"any":{"thing":1}}}`, ""},
		{"dev.call", `{"method":"reboot"}`, ""},
		{"dev.call", `{"method":"reboot","payload":{"a":[{"$secret":"smtp"}]}}`, ""},
		{"dev.call", `{"method":"reboot","payload":{"a":[{"$secret":"other"}]}}`, "secret:other"},
		{"dev.call", `{"method":"reboot","payload":{"$secret":"key:primary"}}`, "identity:rotate"},
		{"dev.call", `{"method":"wipe"}`, "method:wipe"},
		{"dev.call", `{"method":5}`, "FaultInvalid"},
		{"dev.send", `{"body":1}`, "message"},
		{"ctx.http", `{"url":"https://HOOKS.example.net/x"}`, ""},
		{"ctx.http", `{"url":"https://a.example:8443/x"}`, ""},
		{"ctx.http", `{"url":"https://a.example/x"}`, "http:a.example"},
		{"ctx.http", `{"url":"https://hooks.example.net@evil.example/x"}`, "http:evil.example"},
		{"ctx.http", `{"url":"https://hooks.example.net.evil.example/"}`, "http:hooks.example.net.evil.example"},
		{"ctx.http", `{"url":"https://hooks.example.net/","headers":{"a":{"$secret":"b"}}}`, "secret:b"},
		{"ctx.http", `{"url":"https://hooks.example.net/","json":{"x":{"$secret":"b"}}}`, "secret:b"},
		{"ctx.sleep", `{"for":"1s"}`, ""},
		{"fleet.count", `{}`, "query"},
	} {
		r, w := &Run{State: Ready}, &simple{}
		if err := r.Take(&Outcome{Ending: EndSuspended, Steps: []Step{{Op: c.op, Args: json.RawMessage(c.args)}}}, w, granted, noon); err != nil {
			t.Fatal(err)
		}
		f := r.Steps[0].Fault
		switch {
		case c.denied == "" && f != nil, c.denied != "" && (f == nil || w.begun != nil):
			t.Errorf("%s %s: got %v, and did %q", c.op, c.args, f, w.begun)
		case c.denied == "FaultInvalid" && f.Code != FaultInvalid:
			t.Errorf("%s %s: got %v", c.op, c.args, f)
		case c.denied != "" && c.denied != "FaultInvalid" && (f.Code != FaultDenied || !strings.Contains(f.Message, `"`+c.denied+`"`)):
			t.Errorf("%s %s: got %v, want %s", c.op, c.args, f, c.denied)
		}
	}
}

func TestOperationTable(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, op := range Operations() {
		if seen[op.Name] {
			t.Errorf("%s is there twice", op.Name)
		}
		seen[op.Name] = true
		if op.Timer && op.Way != Open {
			t.Errorf("%s is a timer that does not wait", op.Name)
		}
		if got, ok := Find(op.Name); !ok || got.Name != op.Name {
			t.Errorf("%s is not found", op.Name)
		}
		if op.Needs == nil {
			continue
		}
		needs, err := op.Needs(json.RawMessage(`{"method": "m", "patch": {"a": 1}, "url": "https://a.example/"}`))
		if err != nil || len(needs) == 0 {
			t.Errorf("%s needs %q, %v", op.Name, needs, err)
		}
		for _, n := range needs {
			if err := n.Check(); err != nil {
				t.Errorf("%s: %v", op.Name, err)
			}
		}
		if _, err := op.Needs(json.RawMessage(`[1]`)); err == nil && fmt.Sprint(needs) != fmt.Sprint(must(op.Needs(nil))) {
			t.Errorf("%s takes arguments that are none", op.Name)
		}
	}
}

func must(n []Need, _ error) []Need { return n }

func FuzzRun(f *testing.F) {
	r := Run{State: Ready, Steps: []Step{{Op: "ctx.now", Args: json.RawMessage("{}")}}}
	text, err := json.Marshal(&r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, []byte(`{"ending":"suspended","steps":[{"op":"ctx.sleep","a":{"for":"5s"}}]}`))
	f.Add([]byte(`{"s":"waiting","j":[{"op":"dev.wait","o":true,"i":"x"}]}`), []byte(`{"ending":"failed","fault":{"code":"lua"}}`))
	f.Fuzz(func(t *testing.T, run, outcome []byte) {
		var r Run
		var o Outcome
		if json.Unmarshal(run, &r) != nil || json.Unmarshal(outcome, &o) != nil {
			return
		}
		w := &simple{answer: Answer{Open: true, Ref: "x", Due: noon}}
		for _, do := range []func(r *Run) error{
			func(r *Run) error { return r.Take(&o, w, Needs{"twin:read"}, noon) },
			func(r *Run) error { return r.Stop(w, "why", true, noon) },
			func(r *Run) error { return r.Kill(w, "why", noon) },
			func(r *Run) error { _, err := r.Expire(w, noon); return err },
			func(r *Run) error { r.Settle("x", nil, nil, noon); return nil },
			(*Run).BeginUndo,
			func(r *Run) error { _, err := r.Again(1); return err },
		} {
			text, err := json.Marshal(&r)
			if err != nil {
				t.Fatal(err)
			}
			var own Run
			if err := json.Unmarshal(text, &own); err != nil {
				t.Fatal(err)
			}
			if err := do(&own); err != nil {
				continue
			}
			if own.Size() != sizeOfAll(own.Steps) {
				t.Fatalf("%d bytes, and not %d", own.Size(), sizeOfAll(own.Steps))
			}
			if text, err = json.Marshal(&own); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(text, &own); err != nil {
				t.Fatal(err)
			}
		}
	})
}
