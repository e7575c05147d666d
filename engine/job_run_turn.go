package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// Bounds of one turn of a job.
const (
	// jobBatch is how many targets a turn takes, or cancels. More would save
	// little, and whoever changes something else waits behind the transaction.
	jobBatch     = 128
	jobZones     = 64  // zones looked at in one turn
	jobAgainMost = 256 // executions that may go on, held for a job
	jobScan      = 2000
)

// jobTurn is one turn of a job: what was found outside the transaction, and what
// the transaction did. Everything that it decides by is read again in it.
type jobTurn struct {
	loop   *jobLoop
	job    *activeJob
	input  rollout.Input
	again  map[string][]TwinID // by zone
	cancel []TwinID            // executions to be canceled if the policy says so
	stop   []TwinID            // runs that have begun and are to end, too

	decision rollout.Decision
	tried    []TwinID // of again
	refilled bool     // a page of who waits was looked at
	begun    int      // attempts, and executions that ended without one
	ended    int      // executions that were canceled
	waits    rollout.WaitsFor
	method   bool
	gone     bool // the job stands otherwise than the loop knows
}

// turn does the next part of a job, one transaction of it.
func (l *jobLoop) turn(ctx context.Context, a *activeJob) error {
	a.ready = false
	var err error
	switch {
	case a.undoing:
		err = l.undo(ctx, a)
	case a.status.Final():
		err = l.repeat(ctx, a)
	case a.status == rollout.JobQueued || a.status == rollout.JobScheduled && !a.laidOut:
		err = l.layOut(ctx, a)
	default:
		err = l.work(ctx, a)
	}
	if err == nil || ctx.Err() != nil {
		return nil
	}
	if code := AsError(err).Code; code == CodeReadOnly || code == CodeClosed {
		a.ready = true
		return err // all of them have to wait
	}
	// What is wrong with one job holds no other one up.
	a.wake = time.Now().Add(jobsRetry)
	l.tell("a job is held up; it goes on in a moment", a.id, err)
	return nil
}

// layOut finds the targets of a job when its time has come: those of the moment
// at which it starts.
func (l *jobLoop) layOut(ctx context.Context, a *activeJob) error {
	h := l.hub
	start, now := a.start, time.Now()
	if now.Before(start) {
		if a.status == rollout.JobQueued {
			return h.step(ctx, "job.schedule", h.inJobs(func(t *jobTx) error {
				j, err := t.job(a.id)
				if err == nil && j.State.Status == rollout.JobQueued {
					j.State.Status, j.changed = rollout.JobScheduled, true
				}
				return err
			}))
		}
		a.wake = start
		return nil
	}
	if a.status == rollout.JobScheduled {
		return h.step(ctx, "job.start", h.inJobs(func(t *jobTx) error {
			j, err := t.job(a.id)
			if err == nil && j.State.Status == rollout.JobScheduled && !j.State.LaidOut {
				j.State.Status, j.changed = rollout.JobQueued, true
			}
			return err
		}))
	}
	done, err := h.layOutStep(ctx, a.id)
	if err != nil {
		return err
	}
	if done {
		h.jobs.look(a.id)
	} else {
		a.ready = true
	}
	return nil
}

// repeat begins the next run of a job whose time has come.
func (l *jobLoop) repeat(ctx context.Context, a *activeJob) error {
	if time.Now().Before(a.repeats) {
		a.wake = a.repeats
		return nil
	}
	return l.hub.step(ctx, "job.repeat", l.hub.inJobs(func(t *jobTx) error {
		j, err := t.job(a.id)
		if err != nil || !j.State.Status.Final() || j.NextRun.IsZero() {
			return err
		}
		j.NextRun = time.Time{}
		j.changed = true
		return beginRunTx(t.Tx, a.id, &j.jobRecord)
	}))
}

// work lets a job that is laid out go on.
func (l *jobLoop) work(ctx context.Context, a *activeJob) error {
	h := l.hub
	n := &jobTurn{loop: l, job: a}
	if err := h.view(ctx, "look for what a job may do", n.look); err != nil {
		return err
	}
	if n.gone {
		h.jobs.look(a.id)
		return nil
	}
	a.mu.Lock()
	n.input.Health, n.input.Gate = a.health.result, a.gate.result
	a.mu.Unlock()
	n.input.Now, n.input.Later = time.Now().UTC(), h.jobs.clock.later
	var wait time.Duration
	n.input.Room, wait = l.room(n.input.Now, n.method)
	err := l.run(ctx, a, n)
	if err != nil {
		return err
	}
	if h.jobs.rate != nil && n.begun > 0 {
		h.jobs.rate.ReserveN(n.input.Now, n.begun)
	}
	a.again = slices.DeleteFunc(a.again, func(id TwinID) bool { return slices.Contains(n.tried, id) })
	d := &n.decision
	a.wake, a.starved = d.Wake, false
	a.closed = n.waits == rollout.WaitsForWindow
	switch {
	case n.begun+n.ended+len(n.tried) > 0 || d.Changed:
		a.ready = true // there may be more
	case n.waits == rollout.WaitsForTurn && wait > 0:
		if at := n.input.Now.Add(wait); a.wake.IsZero() || at.Before(a.wake) {
			a.wake = at
		}
	case n.waits == rollout.WaitsForTurn:
		a.starved = true
	case n.refilled && a.more && len(a.again) == 0:
		a.ready = true // the next page of who waits
	}
	if d.Health != nil {
		l.check(ctx, a, *d.Health)
	} else if n.input.Health != nil {
		a.mu.Lock()
		a.health.result = nil
		a.mu.Unlock()
	}
	if d.Gate != nil {
		l.askGate(ctx, a, *d.Gate)
	} else if n.input.Gate != nil {
		a.mu.Lock()
		a.gate.result = nil
		a.mu.Unlock()
	}
	return nil
}

// run makes the turn's transaction: once, unless a twin refuses its change, or
// so many large ones don't fit into it.
func (l *jobLoop) run(ctx context.Context, a *activeJob, n *jobTurn) error {
	h := l.hub
	h.jobs.writing.Lock()
	defer h.jobs.writing.Unlock()
	var refused *Error
	for careful := false; ; {
		err := h.step(ctx, "job.turn", h.inJobs(func(t *jobTx) error {
			t.careful, t.refused = careful, refused
			return n.do(t)
		}))
		switch e, ok := errors.AsType[*Error](err); {
		case err == nil:
			return nil
		case errors.Is(err, errTwinRefused) && !careful:
			careful = true
		case ok && e.Code == CodeTooLarge && a.batch > 1:
			a.batch = max(1, a.batch/4)
		case ok && e.Code == CodeTooLarge && refused == nil:
			refused = e // one target alone is too much: it fails
		default:
			return err
		}
	}
}

// room is how many attempts the hub's budget leaves, and when it leaves more if
// that is a matter of time.
func (l *jobLoop) room(now time.Time, method bool) (room int, wait time.Duration) {
	h := l.hub
	room = -1
	if method {
		room = max(0, h.limits.JobsInFlight-int(h.jobs.stats.running.Load()))
	}
	if limit := h.jobs.rate; limit != nil {
		tokens := limit.TokensAt(now)
		if n := max(0, int(tokens)); room < 0 || n < room {
			room = n
		}
		if tokens < 1 {
			wait = max(time.Millisecond, time.Duration((1-tokens)/float64(limit.Limit())*float64(time.Second)))
		}
	}
	return room, wait
}

// look finds what may be done, and in which zones.
func (n *jobTurn) look(r storage.Reader) error {
	a, h := n.job, n.loop.hub
	record, err := jobTable.Get(r, jobKey(a.id))
	if errors.Is(err, storage.ErrNotFound) || err == nil && (record.Run != a.run || record.State.Status != a.status) {
		n.gone = true
		return nil
	}
	if err != nil {
		return err
	}
	work, err := h.jobs.works.get(h, r, a.id, &record)
	if err != nil {
		return err
	}
	n.method, n.input.Asks = work.spec.Spec.Action.Method != nil, work.gate
	s := &record.State
	// After the end what was taken goes on, once what was not is canceled.
	if total := s.Total(); s.Status == rollout.JobCanceling || s.Ended && total.Pending > 0 {
		return errors.Join(n.lookOpen(r), n.lookRuns(r, &record))
	}
	if s.Status != rollout.JobRunning {
		return nil
	}
	if len(a.again) == 0 && a.more {
		n.refilled = true
		if err := n.loop.refill(r, a, work); err != nil {
			return err
		}
	}
	tag := work.policy.ZoneTag()
	n.again = map[string][]TwinID{}
	for _, id := range a.again {
		zone := ""
		if tag != "" {
			zone = h.zoneOf(tag, id)
		}
		n.again[zone] = append(n.again[zone], id)
	}
	zones := []string{}
	if s.Wave < len(s.Waves) && s.Waves[s.Wave].Pending > 0 {
		if zones, err = targetZones(r, a.id, a.run, s.Wave, jobZones); err != nil {
			return err
		}
	}
	for _, zone := range zones {
		n.input.Zones = append(n.input.Zones, rollout.Zone{Name: zone, Pending: true, Due: len(n.again[zone])})
	}
	for zone, ids := range n.again {
		if !slices.Contains(zones, zone) {
			n.input.Zones = append(n.input.Zones, rollout.Zone{Name: zone, Due: len(ids)})
		}
	}
	return nil
}

// lookOpen finds executions that wait, to be canceled.
func (n *jobTurn) lookOpen(r storage.Reader) error {
	for _, status := range []rollout.ExecutionStatus{rollout.ExecutionWaiting, rollout.ExecutionRetrying} {
		for item, err := range executionTable.Lookup(r, "status", storage.Range{Prefix: storage.Tuple(n.job.id, n.job.run, string(status))}) {
			if err != nil {
				return err
			}
			_, _, id, err := executionOfKey(item.Key)
			if err != nil {
				return err
			}
			if n.cancel = append(n.cancel, id); len(n.cancel) == jobBatch {
				return nil
			}
		}
	}
	return nil
}

// do is the turn's transaction.
func (n *jobTurn) do(t *jobTx) error {
	a, h := n.job, n.loop.hub
	n.decision, n.begun, n.ended, n.waits, n.tried = rollout.Decision{}, 0, 0, "", n.tried[:0]
	j, err := t.job(a.id)
	if err != nil {
		return err
	}
	if j.Run != a.run || j.State.Status.Final() {
		return nil
	}
	if j.caller, err = h.jobCaller(a.id, &j.jobRecord); err != nil && j.State.Status != rollout.JobCanceling {
		if j.State.Status == rollout.JobPaused {
			return nil
		}
		j.changed = true
		return j.State.Pause(rollout.PausedByHub, AsError(err).Message)
	}
	n.decision = j.work.plan.Advance(&j.State, n.input)
	d := &n.decision
	n.waits = j.State.WaitsFor
	if d.Changed {
		j.changed = true
	}
	t.beginGateUndo(j)
	if d.Cancel != rollout.CancelNothing {
		if err := n.doCancel(t, j); err != nil {
			return err
		}
	}
	if err := n.stopRuns(t, j); err != nil {
		return err
	}
	left := a.batch
	again, start := min(d.Again, left), d.Start
	for _, zone := range d.Open {
		for _, id := range n.again[zone] {
			if again == 0 {
				break
			}
			begun, err := n.goOn(t, j, id)
			if err != nil {
				return err
			}
			n.tried = append(n.tried, id)
			if begun {
				again--
				left--
				n.begun++
			}
		}
	}
	for _, zone := range d.Open {
		most := min(start, left)
		if most <= 0 {
			break
		}
		ids, err := takeTargetsTx(t.Tx, a.id, a.run, d.Wave, zone, most)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := n.first(t, j, id); err != nil {
				return err
			}
		}
		start -= len(ids)
		left -= len(ids)
		n.begun += len(ids)
	}
	if n.method {
		return nil // each call is audited when it ends
	}
	return t.auditTargetsTx(j, jobOperation(j.Kind), n.begun)
}

// first takes a target whose turn has come.
func (n *jobTurn) first(t *jobTx, j *jobInTx, id TwinID) error {
	e := executionRecord{Wave: n.decision.Wave}
	if !j.State.Dynamic {
		return t.begin(j, id, &e)
	}
	if twice, err := t.dropTwice(j, e.Wave, id); err != nil || twice {
		return err
	}
	targets, err := j.work.targets(t.hub)
	if err != nil {
		return err
	}
	matches, err := targets.matches(t.hub, t.Tx, id, t.Now())
	if err != nil {
		return err
	}
	if !matches {
		e.Created, e.Message = t.Now(), "it belonged to the targets no more when its turn came"
		return t.move(j, id, &e, rollout.ExecutionRemoved, true)
	}
	return t.begin(j, id, &e)
}

// dropTwice drops a pending target that has an execution already: it came to match
// again while it was pending, or while it had its turn. It reports whether it did.
func (t *jobTx) dropTwice(j *jobInTx, wave int, id TwinID) (twice bool, err error) {
	if !j.State.Dynamic {
		return false, nil
	}
	if _, twice, err = t.load(j.ref(id)); err == nil && twice {
		j.State.Waves[wave].Pending--
		j.State.Waves[wave].Size--
		j.changed = true
	}
	return twice, err
}

// dropLost takes back what is counted as pending when nothing is: an earlier hub did
// not count down for each target that had joined twice, and such a job would not end.
func (j *jobInTx) dropLost() {
	for i := range j.State.Waves {
		if w := &j.State.Waves[i]; j.State.Dynamic && w.Pending > 0 {
			w.Size -= w.Pending
			w.Pending, j.changed = 0, true
		}
	}
}

// goOn lets an execution go on that waits for that. It may have moved meanwhile.
func (n *jobTurn) goOn(t *jobTx, j *jobInTx, id TwinID) (begun bool, err error) {
	e, found, err := t.load(j.ref(id))
	if err != nil || !found || e.Status != rollout.ExecutionWaiting || e.Wave >= j.State.Reach() {
		return false, err
	}
	return true, t.begin(j, id, &e)
}

// doCancel cancels what the policy, or somebody, has given up.
func (n *jobTurn) doCancel(t *jobTx, j *jobInTx) error {
	why := j.State.Reason
	if why == "" {
		why = "the job was canceled"
	}
	wave, ids, err := dropTargetsTx(t.Tx, n.job.id, n.job.run, 0, jobBatch)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if twice, err := t.dropTwice(j, wave, id); err != nil {
			return err
		} else if twice {
			continue
		}
		e := executionRecord{Wave: wave, Created: t.Now()}
		if err := t.cancel(j, id, &e, why); err != nil {
			return err
		}
	}
	n.ended += len(ids)
	if len(ids) == 0 {
		j.dropLost()
	}
	if len(ids) > 0 || n.decision.Cancel != rollout.CancelOpen {
		return nil
	}
	for _, id := range n.cancel {
		e, found, err := t.load(j.ref(id))
		if err != nil {
			return err
		}
		if !found || e.Status != rollout.ExecutionWaiting && e.Status != rollout.ExecutionRetrying {
			continue
		}
		if err := t.cancel(j, id, &e, why); err != nil {
			return err
		}
		n.ended++
	}
	return nil
}
