package scenario

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/query"
)

// hub is a test's hub between two crashes: what it has stored, and what it makes
// of that.
type hub struct {
	lab    *lab
	epoch  int // of its events in the clock
	memory *memory
	// waits are the predicates of runs that wait for one, by run; made again from
	// their steps when they are missing.
	waits map[string]*query.Predicate
}

// divergence is a program that does not do the same twice.
type divergence struct{ text, place string }

// Error implements error.
func (d *divergence) Error() string { return d.text }

// work does one thing that can be done now; it reports whether there was one.
func (h *hub) work() (bool, error) {
	for _, d := range h.lab.devices {
		if d.online && !d.greeted || d.told {
			return true, d.greet()
		}
	}
	for _, r := range h.memory.Runs {
		if r.State.State == pattern.Ready {
			return true, h.activate(r)
		}
	}
	for _, r := range h.memory.Runs {
		if r.State.State != pattern.Queued {
			continue
		}
		if did, err := h.turn(r); did || err != nil {
			return did, err
		}
	}
	for _, c := range h.memory.Calls {
		if !c.Sending && h.lab.reachable(c.Device) {
			return true, h.deliver(c)
		}
	}
	for _, q := range h.memory.Requests {
		if !q.Sending {
			return true, h.request(q)
		}
	}
	return false, nil
}

// begin stores a new run.
func (h *hub) begin(r *run) *run {
	r.ID, r.Started = h.memory.named("r-"), h.lab.now
	r.State.State = pattern.Queued
	h.memory.Runs = append(h.memory.Runs, r)
	if m := h.lab.programs[r.Pattern].manifest; m != nil && m.Timeout > 0 {
		r.Deadline = h.lab.now.Add(time.Duration(m.Timeout))
	}
	h.watchDeadline(r)
	return r
}

// alone reports whether a run must have its device to itself.
func (h *hub) alone(r *run) bool {
	m := h.lab.programs[r.Pattern].manifest
	return r.Device != "" && r.Parent == "" && m != nil && m.Conflicts != pattern.ConflictShare
}

// turn has a run begin whose turn it is: no other one is under way on its device.
// It reports whether something came of that.
func (h *hub) turn(r *run) (bool, error) {
	if !h.alone(r) {
		r.State.State = pattern.Ready
		return true, nil
	}
	for _, o := range h.memory.Runs {
		if o == r || o.Device != r.Device || !h.alone(o) || o.State.State.Final() || o.State.State == pattern.Queued {
			continue
		}
		fault := &pattern.Fault{Code: pattern.FaultConflict, Message: fmt.Sprintf("the run %s is under way on the device", o.ID)}
		switch h.lab.programs[r.Pattern].manifest.Conflicts {
		case pattern.ConflictSkip:
			r.State.State, r.State.Fault = pattern.Skipped, fault
			return true, h.stored(r, "a run that was not begun")
		case pattern.ConflictReject:
			r.State.Fail(fault)
			return true, h.stored(r, "a run that was not begun")
		case pattern.ConflictReplace:
			if o.State.Cancel == nil {
				return true, h.stop(o, "the run "+r.ID+" takes its place", false)
			}
		}
		return false, nil
	}
	r.State.State = pattern.Ready
	return true, nil
}

// watch sees to it that a run goes on by itself when it is time.
func (h *hub) watch(r *run) {
	id := r.ID
	if due := r.State.Due(); !due.IsZero() {
		h.lab.at(due, h.epoch, func() error { return h.expire(id) })
	}
}

// watchDeadline sees to it that a run does not take longer than it may.
func (h *hub) watchDeadline(r *run) {
	id := r.ID
	if !r.Deadline.IsZero() && !r.State.State.Final() {
		h.lab.at(r.Deadline, h.epoch, func() error { return h.overdue(id) })
	}
}

// grace is how long deferred functions may take when the time of a run is up, as
// in a hub.
const grace = 10 * time.Minute

// overdue asks a run to end whose time is up, and ends it when it was asked
// before.
func (h *hub) overdue(id string) error {
	r := h.memory.run(id)
	if r.State.State.Final() || h.lab.now.Before(r.Deadline) {
		return nil
	}
	w := &world{h, r}
	why := fmt.Sprintf("the run has taken longer than %s", time.Duration(h.lab.programs[r.Pattern].manifest.Timeout))
	fault := &pattern.Fault{Code: pattern.FaultTimeout, Message: why}
	if r.Late {
		if err := r.State.Kill(w, why, h.lab.now); err != nil {
			return err
		}
		r.State.Fail(fault)
		return h.stored(r, "the end of a run whose time was up")
	}
	r.Late, r.Deadline = true, h.lab.now.Add(grace)
	h.watchDeadline(r)
	if err := r.State.Stop(w, why, false, h.lab.now); err != nil {
		return err
	}
	if r.State.Cancel != nil {
		r.State.Cancel.Code = pattern.FaultTimeout
	}
	if r.State.State == pattern.Canceled {
		r.State.Fail(fault)
	}
	return h.stored(r, "the time of a run was up")
}

func (h *hub) expire(id string) error {
	r := h.memory.run(id)
	s := r.State.Open()
	if s == nil {
		return nil
	}
	what := describe(len(r.State.Of(entryOf(r))), s)
	ended, err := r.State.Expire(&world{h, r}, h.lab.now)
	if err != nil || !ended {
		return err
	}
	return h.stored(r, what+", when its time had come")
}

// settle brings the answer of a step.
func (h *hub) settle(id, ref string, result json.RawMessage, f *pattern.Fault) error {
	r := h.memory.run(id)
	if r == nil || r.State.Open() == nil {
		return nil
	}
	what := describe(len(r.State.Of(entryOf(r))), r.State.Open())
	if !r.State.Settle(ref, result, f, h.lab.now) {
		return nil
	}
	return h.stored(r, what+", when its answer was stored")
}

func (h *hub) stop(r *run, why string, undo bool) error {
	if err := r.State.Stop(&world{h, r}, why, undo, h.lab.now); err != nil {
		return err
	}
	return h.stored(r, "a run was canceled")
}

// stored follows a commit that changed a run.
func (h *hub) stored(r *run, point string) error {
	delete(h.waits, r.ID)
	if phase := r.State.Report.Phase; phase != "" && (len(r.Phases) == 0 || r.Phases[len(r.Phases)-1] != phase) {
		r.Phases = append(r.Phases, phase)
	}
	if r.State.State.Final() {
		if r.Ended.IsZero() {
			r.Ended = h.lab.now
		}
		h.tellParent(r)
	} else {
		r.Ended = time.Time{}
	}
	if crashed, err := h.lab.point("%s", point); crashed || err != nil {
		return err
	}
	h.watch(r)
	return nil
}

// activation is what a worker would get for a run.
func (h *hub) activation(r *run) *pattern.Activation {
	a := &pattern.Activation{
		Run: r.ID, Attempt: 1, Device: r.Device, Params: r.Params, Now: h.lab.now, Seed: seedOf(r.ID), Trace: h.lab.trace,
	}
	if i := h.memory.Twins[r.Device]; i != nil && r.Grants.Allows("twin:read") {
		a.Twin = i.document()
	}
	r.State.Fill(a)
	return a
}

// seedOf makes a seed of a run's name.
func seedOf(id string) uint64 {
	seed := uint64(14695981039346656037) // FNV-1a
	for _, c := range []byte(id) {
		seed = (seed ^ uint64(c)) * 1099511628211
	}
	return seed
}

// activate runs a program as far as it goes and takes over what it did.
func (h *hub) activate(r *run) error {
	p := h.lab.programs[r.Pattern]
	if p.stub != nil {
		return h.pretend(r, p)
	}
	o, a, err := h.twice(r, p)
	if err != nil {
		return err
	}
	h.lab.cover(o.Lines)
	at := "the end of the run"
	if n := len(o.Steps); n > 0 && o.Ending == pattern.EndSuspended {
		at = describe(len(a.Steps)+n, &o.Steps[n-1])
	}
	if crashed, err := h.lab.point("%s, before it was stored", at); crashed || err != nil {
		return err
	}
	entry, steps := entryOf(r), len(a.Steps)
	if err := r.State.Take(&o, &world{h, r}, r.Grants, h.lab.now); err != nil {
		return err
	}
	if r.State.State.Final() {
		if err := h.replay(r, p, a, entry, &o); err != nil {
			return err
		}
	}
	if list := r.State.Of(entry); len(list) > steps && o.Ending == pattern.EndSuspended {
		at = describe(len(list), &list[len(list)-1])
	}
	return h.stored(r, at+", when it was stored and before anything was sent")
}

// twice runs an activation two times, of copies, and returns what it did if that
// is the same. With a crash it is run once: that the program does the same again
// is known by then, and what it comes to is compared in the end.
func (h *hub) twice(r *run, p *loaded) (pattern.Outcome, *pattern.Activation, error) {
	if h.lab.crashAt >= 0 {
		a := h.activation(r)
		a.Steps = slices.Clone(a.Steps)
		return h.lab.execute(p.program, a), a, nil
	}
	text, err := json.Marshal(h.activation(r))
	if err != nil {
		return pattern.Outcome{}, nil, fmt.Errorf("write an activation: %w", err)
	}
	var outcomes [2]pattern.Outcome
	var first *pattern.Activation
	for i := range outcomes {
		a := &pattern.Activation{}
		if err := json.Unmarshal(text, a); err != nil {
			return pattern.Outcome{}, nil, fmt.Errorf("read an activation: %w", err)
		}
		outcomes[i] = h.lab.execute(p.program, a)
		if first == nil {
			first = a
		}
	}
	if d := compareOutcomes(&outcomes[0], &outcomes[1]); d != "" {
		return pattern.Outcome{}, nil, &divergence{text: "the program was run twice from the same journal and did not do the same:\n" + d, place: placeOf(&outcomes[0], &outcomes[1])}
	}
	return outcomes[0], first, nil
}

// replay runs a program that has ended once more, answered from its whole
// journal, with a twin in which nothing is and at a time that is not that of its
// end: it must not matter.
func (h *hub) replay(r *run, p *loaded, last *pattern.Activation, entry pattern.Entry, end *pattern.Outcome) error {
	a := *last
	a.Steps, a.Now = r.State.Of(entry), h.lab.now.Add(time.Hour)
	if len(a.Twin) > 0 {
		a.Twin = newIdentity(r.Device).document()
	}
	text, err := json.Marshal(&a)
	if err != nil {
		return fmt.Errorf("write an activation: %w", err)
	}
	again := pattern.Activation{}
	if err := json.Unmarshal(text, &again); err != nil {
		return fmt.Errorf("read an activation: %w", err)
	}
	o := h.lab.execute(p.program, &again)
	wanted := pattern.Outcome{Ending: end.Ending, Result: end.Result, Fault: end.Fault}
	if d := compareOutcomes(&wanted, &pattern.Outcome{Ending: o.Ending, Result: o.Result, Fault: o.Fault, Steps: o.Steps}); d != "" {
		return &divergence{text: "replayed from its whole journal the program did not come to the same end:\n" + d, place: placeOf(&o, end)}
	}
	return nil
}

// compareOutcomes shows how two outcomes differ; empty: they don't.
func compareOutcomes(a, b *pattern.Outcome) string {
	texts := [2][]byte{}
	for i, o := range []*pattern.Outcome{a, b} {
		c := *o
		c.Cost.Time, c.Lines = 0, nil
		text, err := json.Marshal(&c)
		if err != nil {
			return err.Error()
		}
		texts[i] = text
	}
	if bytes.Equal(texts[0], texts[1]) {
		return ""
	}
	for i := range texts {
		var b bytes.Buffer
		if err := json.Indent(&b, texts[i], "", "  "); err == nil {
			texts[i] = b.Bytes()
		}
	}
	return diffText(string(texts[0]), string(texts[1]))
}

// placeOf is the line of the first step that two outcomes do not share.
func placeOf(a, b *pattern.Outcome) string {
	for i := range a.Steps {
		if i >= len(b.Steps) || a.Steps[i].Op != b.Steps[i].Op || !bytes.Equal(a.Steps[i].Args, b.Steps[i].Args) || !bytes.Equal(a.Steps[i].Result, b.Steps[i].Result) {
			return a.Steps[i].Line
		}
	}
	for _, o := range []*pattern.Outcome{a, b} {
		if o.Fault != nil && o.Fault.Line != "" {
			return o.Fault.Line
		}
	}
	return ""
}

// entryOf is the entry at which a run is.
func entryOf(r *run) pattern.Entry {
	if r.State.Entry == "" {
		return pattern.EntryRun
	}
	return r.State.Entry
}

// describe names a step for people.
func describe(n int, s *pattern.Step) string {
	return fmt.Sprintf("step %d, %s (%s)", n, s.Op, s.Line)
}

// recover takes up what a hub left that has crashed.
func (h *hub) recover() error {
	for _, c := range append([]*call(nil), h.memory.Calls...) {
		if c.Sending {
			if err := h.interrupted(c); err != nil {
				return err
			}
		}
	}
	for _, q := range append([]*request(nil), h.memory.Requests...) {
		if q.Sending {
			if err := h.requestLost(q, "the hub stopped after the request was sent and before an answer"); err != nil {
				return err
			}
		}
	}
	for _, c := range h.memory.Calls {
		h.watchCall(c)
	}
	for _, r := range h.memory.Runs {
		h.watch(r)
		h.watchDeadline(r)
	}
	for _, id := range slices.Sorted(maps.Keys(h.memory.Twins)) { // what changed just before
		if err := h.changed(h.memory.Twins[id]); err != nil || h != h.lab.hub {
			return err
		}
	}
	return nil
}

// changed follows a change of a device's twin: runs that waited for it go on.
func (h *hub) changed(i *identity) error {
	v := i.value()
	for _, r := range h.memory.Runs {
		if r.Device != i.ID {
			continue
		}
		s := r.State.Open()
		if s == nil || s.Op != "dev.wait" {
			continue
		}
		p := h.waits[r.ID]
		if p == nil {
			var err error
			if p, err = predicateOf(s.Args); err != nil {
				return err // it was parsed before
			}
			if h.waits == nil {
				h.waits = map[string]*query.Predicate{}
			}
			h.waits[r.ID] = p
		}
		if p.Match(v, h.lab.now) {
			if err := h.settle(r.ID, s.Ref, i.plain(reported), nil); err != nil || h != h.lab.hub {
				return err
			}
		}
	}
	return nil
}
