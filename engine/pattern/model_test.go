package pattern

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

// fates decides what becomes of each step, the same whoever asks.
type fates struct{ seed uint64 }

func (f fates) of(entry Entry, number int, about string) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s %d %s", f.seed, entry, number, about)
	return h.Sum64() >> 7
}

// answer is how a step ends, sooner or later.
func (f fates) answer(entry Entry, number int, op string) (json.RawMessage, *Fault) {
	if known, ok := Find(op); ok && known.Timer {
		return nil, nil
	}
	codes := []FaultCode{FaultOffline, FaultUncertain, FaultStatus, FaultTooBig}
	x := f.of(entry, number, "answer")
	switch known, _ := Find(op); {
	case x%5 == 0:
		code := codes[x/5%4]
		if code == FaultTooBig && known.Way != Assumed {
			return marshal(fmt.Sprintf("%*d", MaxValue, 0)), nil // the run makes a fault of it
		}
		return nil, &Fault{Code: code, Message: "at " + op, Payload: json.RawMessage(`{"a":1}`)}
	case known.Way == Assumed:
		return nil, nil
	}
	return marshal(fmt.Sprintf("%d", x%1000)), nil
}

// expires says that an open step is left until its time is up.
func (f fates) expires(entry Entry, number int, op string) bool {
	known, _ := Find(op)
	return known.Timer || f.of(entry, number, "expires")%4 == 0
}

// uncertain says that a step which is withdrawn may have been taken.
func (f fates) uncertain(entry Entry, number int) bool { return f.of(entry, number, "sent")%3 == 0 }

func (f fates) local(entry Entry, number int, op string) (json.RawMessage, *Fault) {
	return f.answer(entry, number, op)
}

// world performs steps and counts them.
type world struct {
	fates
	now     time.Time
	effects []string
}

func (w *world) Begin(r *Run, s *Step) (Answer, error) {
	number := len(r.Of(r.entry())) + 1
	w.effects = append(w.effects, fmt.Sprintf("%s %d %s", r.entry(), number, s.Op))
	op, _ := Find(s.Op)
	if op.Way == Open && w.of(r.entry(), number, "at once")%3 != 0 {
		return Answer{Open: true, Ref: fmt.Sprint("ref", number), Due: w.now.Add(time.Minute)}, nil
	}
	result, f := w.answer(r.entry(), number, s.Op)
	return Answer{Result: result, Fault: f}, nil
}

func (w *world) Withdraw(r *Run, s *Step) error {
	if w.uncertain(r.entry(), len(r.Of(r.entry()))) {
		s.Fault = &Fault{Code: FaultUncertain, Message: "it was sent"}
	}
	return nil
}

// told is what somebody said to a run: after so many steps of its entry, while
// the last of them was open or not.
type told struct {
	kill, undo bool
	full       bool // or that its journal is full
	entry      Entry
	steps      int
	open       bool
}

// straight is the model: it runs a program straight on, and is told what the run
// was told.
type straight struct {
	fates
	grants Needs
	entry  Entry
	told   []told
	steps  []Step
	logs   []string
	cancel *Fault
	undo   bool
	failed *Fault // the run has ended
	killed bool
	kept   map[string]json.RawMessage // as they were when the last step was taken
	m      *machine
}

func (d *straight) log(text string) { d.logs = append(d.logs, text) }

// hear is called when so many steps have been taken.
func (d *straight) hear(open bool) (now *Fault) {
	for len(d.told) > 0 {
		t := d.told[0]
		if t.entry != d.entry || t.steps != len(d.steps) || t.open != open {
			return now
		}
		d.told = d.told[1:]
		deferred := len(d.steps) > 0 && d.steps[len(d.steps)-1].Deferred
		switch {
		case t.kill:
			d.killed = true
		case t.full && (deferred || d.cancel != nil || d.entry == EntryUndo):
			d.failed = &Fault{Code: FaultJournalFull}
		case t.full:
			d.cancel = &Fault{Code: FaultJournalFull}
		case d.entry == EntryUndo:
		case d.cancel != nil || deferred:
			d.undo = d.undo || t.undo
		default:
			d.undo = d.undo || t.undo
			d.cancel = &Fault{Code: FaultCanceled, Message: "why"}
			now = d.cancel
		}
	}
	return now
}

func (d *straight) step(op string, args json.RawMessage, deferred bool) (json.RawMessage, *Fault) {
	d.hear(false)
	if d.killed || d.failed != nil {
		panic(ended{})
	}
	if d.cancel != nil && !deferred {
		return nil, d.cancel
	}
	s := Step{Op: op, Args: args, Deferred: deferred}
	d.kept = maps.Clone(d.m.kept)
	number := len(d.steps) + 1
	known, ok := Find(op)
	switch {
	case !ok:
		s.Fault = &Fault{Code: FaultUnavailable}
	case d.grants.refuse(known, args) != nil:
		s.Fault = &Fault{Code: FaultDenied}
	default:
		open := known.Way == Open && d.of(d.entry, number, "at once")%3 != 0
		s.Result, s.Fault = d.answer(d.entry, number, op)
		if open {
			d.steps = append(d.steps, s)
			now := d.hear(true)
			d.steps = d.steps[:len(d.steps)-1]
			expired := known.Timer || d.expires(d.entry, number, op)
			switch {
			case now != nil || d.killed:
				s.Result, s.Fault = nil, &Fault{Code: FaultCanceled}
			case expired && !known.Timer:
				s.Result, s.Fault = nil, &Fault{Code: FaultTimeout}
			}
			if (now != nil || d.killed || expired && !known.Timer) && d.uncertain(d.entry, number) {
				s.Fault = &Fault{Code: FaultUncertain}
			}
		}
		if len(s.Result) > MaxValue {
			s.Result, s.Fault = nil, &Fault{Code: FaultTooBig}
		}
	}
	d.steps = append(d.steps, s)
	if d.killed {
		panic(ended{})
	}
	return s.Result, s.Fault
}

// follow runs the program of an entry straight on and says how it ends.
func (d *straight) follow(block []statement, large bool, kept map[string]json.RawMessage) (state State, result json.RawMessage, f *Fault) {
	d.m = &machine{host: d, kept: maps.Clone(kept), large: large}
	if d.m.kept == nil {
		d.m.kept = map[string]json.RawMessage{}
	}
	var end Ending
	func() {
		defer func() {
			if r := recover(); r != nil {
				e, ok := r.(ended)
				if !ok {
					panic(r)
				}
				end = e.ending
			}
		}()
		// What was told before the program ended is heard where it ends, too.
		end, result, f = d.m.run(block, func() *Fault { d.hear(false); return d.cancel })
	}()
	if d.hear(false); d.killed {
		return Canceled, nil, nil
	}
	undo := d.entry == EntryUndo
	switch {
	case d.failed != nil:
		return Failed, nil, d.failed
	case end == EndSkipped && undo, end == EndReturned && undo:
		return Undone, nil, nil
	case end == EndSkipped:
		return Skipped, nil, nil
	case d.cancel != nil && !undo && d.cancel.Code == FaultCanceled:
		return Canceled, result, d.cancel
	case d.cancel != nil && !undo:
		return Failed, result, d.cancel
	case end == EndReturned:
		return Succeeded, result, nil
	case f.Code == FaultUncertain && !undo:
		return Uncertain, nil, f
	}
	return Failed, nil, f
}

// drive takes a run to its end, with answers, expiries, cancels and kills in
// between, and with what was not committed done again.
type drive struct {
	*rand.Rand
	t     *testing.T
	p     program
	w     *world
	large bool
	calm  bool // nobody says anything to it
	r     Run
	told  []told
	seed  uint64
	turns int

	grants Needs
}

func (d *drive) fatalf(format string, args ...any) {
	d.t.Helper()
	d.t.Fatalf("seed %d: "+format, append([]any{d.seed}, args...)...)
}

// again gives the run as a store gives it back.
func (d *drive) again() {
	text, err := json.Marshal(&d.r)
	if err != nil {
		d.fatalf("%v", err)
	}
	var back Run
	if err := json.Unmarshal(text, &back); err != nil {
		d.fatalf("%v", err)
	}
	if again, err := json.Marshal(&back); err != nil || string(again) != string(text) {
		d.fatalf("stored, the run is another: %v\n%s\n%s", err, text, again)
	}
	d.r = back
}

// say may tell the run something.
func (d *drive) say() bool {
	if d.calm || d.IntN(12) != 0 {
		return false
	}
	own := len(d.r.Of(d.r.entry()))
	t := told{entry: d.r.entry(), steps: own, open: d.r.Open() != nil, kill: d.IntN(4) == 0, undo: d.IntN(2) == 0}
	began := d.r.Cost.Activations > 0
	var err error
	if t.kill {
		err = d.r.Kill(d.w, "why", d.w.now)
	} else {
		err = d.r.Stop(d.w, "why", t.undo, d.w.now)
	}
	if err != nil {
		d.fatalf("%v", err)
	}
	if !began {
		if d.r.State != Canceled || len(d.r.Steps) != 0 || len(d.w.effects) != 0 {
			d.fatalf("stopped before it began, it is %s", d.r.State)
		}
		t.kill = true
	}
	d.told = append(d.told, t)
	return true
}

// step lets one thing happen.
func (d *drive) step() {
	d.check()
	if d.turns++; d.turns > 10_000 {
		d.fatalf("the run does not end: it is %s", d.r.State)
	}
	if d.IntN(4) == 0 {
		d.again()
	}
	if d.say() {
		return
	}
	if s := d.r.Open(); s != nil {
		d.settle(s)
		return
	}
	d.activate()
}

func (d *drive) toEnd() {
	for !d.r.State.Final() {
		d.step()
	}
	d.check()
}

func (d *drive) settle(s *Step) {
	d.w.now = d.w.now.Add(time.Second)
	number := len(d.r.Of(d.r.entry()))
	if d.r.Settle("another", nil, nil, d.w.now) || d.r.Settle("", nil, nil, d.w.now) {
		d.fatalf("an answer of another step was taken")
	}
	if d.w.expires(d.r.entry(), number, s.Op) {
		if did, err := d.r.Expire(d.w, s.Due.Add(-1)); did || err != nil {
			d.fatalf("a step expired before its time: %v", err)
		}
		d.w.now = s.Due
		if did, err := d.r.Expire(d.w, d.w.now); !did || err != nil {
			d.fatalf("a step did not expire: %v", err)
		}
		return
	}
	result, f := d.w.answer(d.r.entry(), number, s.Op)
	if !d.r.Settle(s.Ref, result, f, d.w.now) {
		d.fatalf("an answer was not taken")
	}
}

func (d *drive) activate() {
	d.w.now = d.w.now.Add(time.Second)
	before, effects := d.r, len(d.w.effects)
	before.Steps, before.Logs = slices.Clone(d.r.Steps), slices.Clone(d.r.Logs)
	a := Activation{Run: "r", Seed: d.seed}
	d.r.Fill(&a)
	o := d.p.activate(&a, d.large, d.w.local)
	if o.Ending == EndDiverged {
		d.fatalf("%v", o.Fault)
	}
	text, err := json.Marshal(&o)
	if err != nil {
		d.fatalf("%v", err)
	}
	o = Outcome{}
	if err := json.Unmarshal(text, &o); err != nil {
		d.fatalf("%v", err)
	}
	own := len(d.r.Of(d.r.entry()))
	canceled := d.r.Cancel != nil
	if err := d.r.Take(&o, d.w, d.grants, d.w.now); err != nil {
		d.fatalf("%v", err)
	}
	if d.IntN(10) == 0 { // it was never committed
		d.r, d.w.effects = before, d.w.effects[:effects]
		return
	}
	if !canceled && d.r.Cancel != nil || d.r.Fault != nil && d.r.Fault.Code == FaultJournalFull && len(o.Steps) > 0 {
		own = len(d.r.Of(a.Entry))
		d.told = append(d.told, told{full: true, entry: a.Entry, steps: own})
		if size := sizeOfAll(d.r.Of(a.Entry)); own < MaxSteps && size < MaxJournal-3000 {
			d.fatalf("a journal of %d steps and %d bytes is full", own, size)
		}
	} else if !d.r.State.Final() && len(d.r.Of(d.r.entry())) == own && d.r.entry() == a.Entry {
		d.fatalf("an activation that ended as %s did nothing", o.Ending)
	}
}

// check looks at what is true of every run at any time.
func (d *drive) check() {
	r := &d.r
	if size := sizeOfAll(r.Steps); r.Size() != size {
		d.fatalf("the journal has %d bytes, and is said to have %d", size, r.Size())
	}
	for _, e := range []Entry{EntryRun, EntryUndo} {
		if own := r.Of(e); len(own) > MaxSteps*11/10 || sizeOfAll(own) > MaxJournal*11/10+MaxValue {
			d.fatalf("the journal of %s has %d steps and %d bytes", e, len(own), sizeOfAll(own))
		}
	}
	for i, s := range r.Steps {
		if s.Open != (i == len(r.Steps)-1 && r.State == Waiting) {
			d.fatalf("step %d of %d is open (%t), and the run is %s", i+1, len(r.Steps), s.Open, r.State)
		}
	}
	if len(r.Logs) > MaxLogs || (r.State == Succeeded) != (r.Fault == nil && r.State.Final() && r.State != Undone && r.State != Skipped) {
		d.fatalf("%d lines, %s with the fault %v", len(r.Logs), r.State, r.Fault)
	}
}

// compare compares an entry of the run with the model.
func (d *drive) compare(entry Entry, kept map[string]json.RawMessage) *straight {
	m := &straight{fates: d.w.fates, grants: d.grants, entry: entry, told: slices.Clone(d.told)}
	block := d.p.run
	if entry == EntryUndo {
		block = d.p.undo
	}
	state, result, f := m.follow(block, d.large, kept)
	own := d.r.Of(entry)
	if len(own) != len(m.steps) {
		d.fatalf("%s has %d steps, and the model %d (%s and %s)", entry, len(own), len(m.steps), d.r.State, state)
	}
	code := func(f *Fault) FaultCode {
		if f == nil {
			return ""
		}
		return f.Code
	}
	for i, s := range own {
		w := m.steps[i]
		if s.Op != w.Op || string(s.Args) != string(w.Args) || string(s.Result) != string(w.Result) || code(s.Fault) != code(w.Fault) || s.Deferred != w.Deferred {
			d.fatalf("step %d of %s is\n%s %s -> %.50s %v %t, and the model's\n%s %s -> %.50s %v %t", i+1, entry,
				s.Op, s.Args, s.Result, s.Fault, s.Deferred, w.Op, w.Args, w.Result, w.Fault, w.Deferred)
		}
	}
	if m.undo && entry == EntryRun && len(own) > 0 && m.failed == nil && !m.killed {
		if d.r.entry() != EntryUndo {
			d.fatalf("no undo follows: the run is %s", d.r.State)
		}
		return m
	}
	if d.r.entry() != entry {
		d.fatalf("an undo follows that nobody asked for")
	}
	if d.r.State != state || state != Undone && code(d.r.Fault) != code(f) && !m.killed || entry == EntryRun && string(d.r.Result) != string(result) {
		d.fatalf("%s ended as %s, %s, %v, and the model as %s, %s, %v", entry, d.r.State, d.r.Result, d.r.Fault, state, result, f)
	}
	if !m.killed && m.failed == nil && d.r.Report.Phase != m.m.phase {
		d.fatalf("its phase is %q, and the model's %q", d.r.Report.Phase, m.m.phase)
	}
	return m
}

// one is one random run.
func one(t *testing.T, seed uint64) (steps int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 1))
	g := &generator{Rand: rnd, long: rnd.IntN(3000) == 0}
	d := &drive{
		Rand: rnd, t: t, seed: seed, p: g.program(), large: rnd.IntN(40) == 0, calm: rnd.IntN(3) == 0, r: Run{State: Ready},
		w:      &world{fates: fates{seed}, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)},
		grants: Needs{"twin:read", "twin:tags:allowed", "twin:desired:allowed", "method:allowed"},
	}
	if rnd.IntN(10) == 0 {
		d.grants = nil
	}
	var logs []string
	exact := true
	follow := func(m *straight) {
		logs = append(logs, m.logs...)
		exact = exact && !m.killed && m.failed == nil
	}
	// To the end of run: an undo that follows is stopped at its beginning.
	for d.r.entry() == EntryRun && !d.r.State.Final() {
		d.step()
	}
	m := d.compare(EntryRun, nil)
	follow(m)
	for name, value := range m.kept {
		if _, have := d.r.Kept[name]; !have || !m.killed && m.failed == nil && string(d.r.Kept[name]) != string(m.m.kept[name]) {
			d.fatalf("%s is kept as %s, and by the model as %s, %s", name, d.r.Kept[name], value, m.m.kept[name])
		}
	}
	d.replay(EntryRun, m)
	steps = len(d.r.Steps)
	if d.r.State.Final() && rnd.IntN(2) == 0 {
		may := d.r.State != Skipped && len(d.r.Steps) > 0
		if err := d.r.BeginUndo(); (err == nil) != may {
			d.fatalf("an undo of %s with %d steps: %v", d.r.State, len(d.r.Steps), err)
		}
	}
	kept := maps.Clone(d.r.Kept)
	for range 3 {
		if d.r.entry() != EntryUndo {
			break
		}
		d.told, d.w.effects = nil, slices.DeleteFunc(d.w.effects, func(e string) bool { return e[:4] == "undo" })
		logs, exact = nil, true
		d.r.Logs = nil
		d.toEnd()
		m := d.compare(EntryUndo, kept)
		follow(m)
		d.replay(EntryUndo, m)
		if !reflect.DeepEqual(d.r.Kept, kept) && len(kept) > 0 {
			d.fatalf("an undo has changed what was kept")
		}
		if err := d.r.BeginUndo(); (err == nil) != (d.r.State != Undone) {
			d.fatalf("a second undo of %s: %v", d.r.State, err)
		} else if err != nil {
			break
		}
	}
	if exact && d.r.State.Final() {
		var got []string
		for _, l := range d.r.Logs {
			got = append(got, l.Text)
		}
		if want := logs[max(0, len(logs)-MaxLogs):]; !slices.Equal(got, want) {
			d.fatalf("it wrote\n%q, and the model\n%q", got, want)
		}
	}
	return steps
}

// replay runs the whole journal of an entry once more: the program does the same.
func (d *drive) replay(entry Entry, m *straight) {
	var want []string
	for i, s := range d.r.Of(entry) {
		if op, ok := Find(s.Op); ok && op.Way != Local && d.grants.refuse(op, s.Args) == nil {
			want = append(want, fmt.Sprintf("%s %d %s", entry, i+1, s.Op))
		}
	}
	got := slices.DeleteFunc(slices.Clone(d.w.effects), func(e string) bool { return e[:len(entry)] != string(entry) })
	if !slices.Equal(got, want) {
		d.fatalf("what was done is\n%q, and the journal says\n%q", got, want)
	}
	if m.killed || m.failed != nil {
		return
	}
	a := Activation{Entry: entry, Steps: d.r.Of(entry)}
	if entry == EntryRun {
		a.Cancel, a.CancelAt = d.r.Cancel, d.r.CancelAt
	} else {
		a.Kept = d.r.Kept
	}
	o := d.p.activate(&a, d.large, d.w.local)
	if o.Ending == EndDiverged || o.Ending == EndSuspended || len(o.Steps) > 0 {
		d.fatalf("replayed, it ends as %s with %d more steps: %v", o.Ending, len(o.Steps), o.Fault)
	}
}

// TestRunIsItsProgram compares runs that are suspended, told things, stored and
// tried again with their programs as they run straight on.
func TestRunIsItsProgram(t *testing.T) {
	t.Parallel()
	n := uint64(100_000)
	if raceDetector {
		n = 1000
	}
	if testing.Short() {
		n /= 10
	}
	steps := 0
	for seed := range n {
		steps += one(t, seed)
	}
	if steps < int(n) {
		t.Errorf("%d runs took %d steps: they test little", n, steps)
	}
}
