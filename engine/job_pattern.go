package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// runAction runs a pattern on each target.
type runAction struct{ *JobRun }

func (runAction) kind() JobKind        { return JobRunPattern }
func (runAction) operation() operation { return opRunStart }

// runAction returns the action, which nothing else may stand beside.
func (a *JobAction) runAction() (jobAction, error) {
	switch {
	case a.Twin != nil || a.Method != nil:
		return nil, errf(CodeArgumentInvalid, "action has run beside twin or method; expected one of them")
	case a.Offline != "" || a.AnyAnswer:
		return nil, errf(CodeArgumentInvalid, "action.offline and action.anyAnswer say what becomes of a method; a pattern says itself what it does without its device")
	}
	return runAction{a.Run}, nil
}

// check implements jobAction. What depends on the pattern was looked at before, by
// prepareRun.
func (a runAction) check(*Hub) error {
	if a.Pattern == "" {
		return errf(CodeArgumentNull, "action.run.pattern is missing; expected the name of a pattern")
	}
	return nil
}

// preview implements jobAction; previewRuns says the rest, of all targets at once.
func (a runAction) preview(_ *Hub, t *Twin) JobEffect {
	e := JobEffect{Pattern: a.Pattern + " " + a.Version, Connected: t.Identity.Connected}
	if t.Identity.Disabled {
		e.Fault = fmt.Sprintf("%s is disabled and can't connect", t.Identity.ID())
	}
	return e
}

// prepareRun makes a job's action run one version of its pattern, with checked
// parameters, and gives its policy what the manifest says and the job does not. It
// returns the version.
func (h *Hub) prepareRun(ctx context.Context, s *JobSpec) (*patternRecord, error) {
	run := *s.Action.Run
	if err := (runAction{&run}).check(h); err != nil {
		return nil, err
	}
	var record patternRecord
	err := h.view(ctx, "read a pattern", func(r storage.Reader) (err error) {
		record, err = h.pattern(r, run.Pattern, run.Version)
		return err
	})
	if err == nil {
		err = record.usable()
	}
	if err != nil {
		return nil, err
	}
	m := &record.Manifest
	if m.Scope == pattern.ScopeFleet {
		e := errf(CodeArgumentInvalid, "action.run: the pattern %q is of the fleet as a whole and not of its devices", m.Name)
		e.Next = "Start one run of it: `muster pattern run " + m.Name + "`."
		return nil, e
	}
	run.Version = m.Version
	if run.Params, err = m.Complete(run.Params); err != nil {
		return nil, wrapf(CodeArgumentInvalid, err, "action.run.params: %v", err)
	}
	s.Action.Run = &run
	overlayPolicy(&s.Policy, m)
	return &record, nil
}

// overlayPolicy gives a job's policy the members of the manifest's that it does not
// have itself. Runs take as long as they take: where nobody says otherwise, an
// attempt has the time of a run, and an execution that of its attempts.
func overlayPolicy(p *rollout.Policy, m *pattern.Manifest) {
	if d := m.Rollout; d != nil {
		if len(p.Waves) == 0 {
			p.Waves = append(p.Waves, d.Waves...)
		}
		if len(p.Windows) == 0 {
			p.Windows = append(p.Windows, d.Windows...)
		}
		if len(p.Pause) == 0 {
			p.Pause = append(p.Pause, d.Pause...)
		}
		if len(p.Abort) == 0 {
			p.Abort = append(p.Abort, d.Abort...)
		}
		if p.Rate == nil && d.Rate != nil {
			rate := *d.Rate
			p.Rate = &rate
		}
		if p.Retry == nil && d.Retry != nil {
			retry := *d.Retry
			p.Retry = &retry
		}
		p.Parallel = cmp.Or(p.Parallel, d.Parallel)
		p.AtEnd = cmp.Or(p.AtEnd, d.AtEnd)
		p.Timeout = cmp.Or(p.Timeout, d.Timeout)
		p.AttemptTimeout = cmp.Or(p.AttemptTimeout, d.AttemptTimeout)
		p.Priority = cmp.Or(p.Priority, d.Priority)
	}
	longest := cmp.Or(m.Timeout, rollout.Duration(pattern.MaxRun))
	if p.AttemptTimeout == 0 {
		p.AttemptTimeout = min(longest, rollout.DurationMost)
		if p.Timeout > 0 {
			p.AttemptTimeout = min(p.AttemptTimeout, p.Timeout)
		}
	}
	if p.Timeout == 0 {
		p.Timeout = p.AttemptTimeout
		if p.Retry != nil {
			p.Timeout = rollout.DurationMost
		}
	}
}

// confirm is what whoever starts the job is to type: the pattern's name, if it is
// dangerous or more than so many devices are reached.
func (c *checkedJob) confirm(targets int64) string {
	if c.pattern == nil {
		return ""
	}
	m := &c.pattern.Manifest
	if m.Danger || m.Most > 0 && targets > int64(m.Most) {
		return m.Name
	}
	return ""
}

// checkDanger refuses a job without the token of a preview whose pattern asks for
// one.
func (h *Hub) checkDanger(ctx context.Context, checked *checkedJob) error {
	if checked.pattern == nil {
		return nil
	}
	m := &checked.pattern.Manifest
	refuse := func(why string) error {
		e := errf(CodeArgumentNull, "the job needs the token of its preview: the pattern %q %s", m.Name, why)
		e.Next = "Preview the job, look at its targets, and create it with the token that the preview gives."
		return e
	}
	if m.Danger {
		return refuse("is dangerous")
	}
	if m.Most <= 0 {
		return nil
	}
	if err := h.queries.waitReady(ctx); err != nil {
		return err
	}
	n := 0
	err := h.eachTarget(ctx, checked.targets, targetAsk{limit: m.Most + 1}, func(rows []query.Row) bool {
		n += len(rows)
		return n <= m.Most
	})
	if err == nil && n > m.Most {
		err = refuse(fmt.Sprintf("asks for that beyond %s", plural(m.Most, "device")))
	}
	return err
}

// beginRun begins a run as the execution's attempt, whose id is the run's. The
// device is not taken by it as by a method: a run waits for days, perhaps, and two
// runs of one device are the pattern's matter.
func (t *jobTx) beginRun(j *jobInTx, id TwinID, e *executionRecord) error {
	a := j.work.spec.Spec.Action.Run
	record, err := t.hub.pattern(t.Tx, a.Pattern, a.Version)
	if err == nil {
		err = record.usable()
	}
	if err == nil && j.work.spec.Saved.Applies != "" {
		applies, err := t.applies(j, id)
		if err != nil {
			return err
		}
		if !applies {
			e.Message = "the pattern does not apply to it any more"
			return t.move(j, id, e, rollout.ExecutionRemoved, true)
		}
	}
	run := ""
	if err == nil {
		run, err = t.hub.startRunTx(t.Tx, j.caller, runStart{
			Pattern: record, Device: id, Params: a.Params, Job: &queuedJob{j.id, j.Run}, Of: e.lastRun(), Attempt: e.Attempts + 1,
		})
	}
	switch refused, ok := errors.AsType[*Error](err); {
	case err == nil:
	case ok && (refused.Code == CodePatternNotFound || refused.Code == CodePatternState || refused.Code == CodeArgumentInvalid || refused.Code == CodePatternGrant):
		t.attempt(e, "")
		return t.endAttempt(j, id, e, rollout.AttemptFailed, refused.Code.String(), clip(refused.Message), 0)
	default:
		return err
	}
	t.attempt(e, run)
	e.Due = t.attemptDeadline(j, e)
	return t.move(j, id, e, rollout.ExecutionRunning, false)
}

// applies reports whether the pattern can work on a twin as it is now.
func (t *jobTx) applies(j *jobInTx, id TwinID) (bool, error) {
	targets, err := j.work.targets(t.hub)
	if err != nil || targets.applies == nil {
		return err == nil, err
	}
	doc, _, err := hubDocuments{hub: t.hub}.document(t.Tx, id)
	if isGone(err) {
		return false, nil
	}
	return err == nil && targets.applies.Match(doc, t.Now()), err
}

// lastRun returns the run of the newest attempt, "" when there is none.
func (r *executionRecord) lastRun() string {
	if a := r.newest(); a != nil && isRunID(a.ID) {
		return a.ID
	}
	return ""
}

// runEnded takes the end of a run into the execution whose attempt it is. Of a run
// whose undo has ended, after its own end was taken, only that is noted.
func (t *jobTx) runEnded(job queuedJob, id TwinID, run *runRecord) error {
	j, err := t.job(job.Job)
	if isGoneJob(err) {
		return nil // deleted meanwhile
	}
	if err != nil || j.Run != job.Run {
		return err
	}
	e, found, err := t.load(j.ref(id))
	if err != nil || !found {
		return err
	}
	if run.State.Entry == pattern.EntryUndo {
		if err := t.noteUndone(j, id, &e, run); err != nil {
			return err
		}
	} else {
		t.noteNotUndone(j, run)
	}
	if e.final() || e.Status != rollout.ExecutionRunning || run.Attempt != e.Attempts {
		return nil
	}
	code, message := "", ""
	if f := run.State.Fault; f != nil {
		code, message = string(f.Code), clip(f.Message)
	}
	stopped := e.Code
	switch s := run.State.State; {
	case s == pattern.Succeeded || s == pattern.Skipped:
		return t.effect(j, id, &e)
	case stopped == CodeGatewayTimeout.String():
		return t.endAttempt(j, id, &e, rollout.AttemptTimedOut, stopped, e.Message, 0)
	case s == pattern.Uncertain:
		return t.endAttempt(j, id, &e, rollout.AttemptUncertain, code, message, 0)
	case s == pattern.Canceled || s == pattern.Undone:
		return t.cancel(j, id, &e, cmp.Or(message, "the run was canceled"))
	case run.State.Entry == pattern.EntryUndo:
		return t.endAttempt(j, id, &e, rollout.AttemptFailed, code, "its undo failed: "+message, 0)
	default:
		return t.endAttempt(j, id, &e, rollout.AttemptFailed, code, message, 0)
	}
}

// runStopTime is how long a run that was told to end, since its execution's time is
// over, may take for what it does then; the execution ends without it after that.
const runStopTime = 10 * time.Minute

// runOverdue tells a run to end whose attempt's time is over; one that was told so
// and has not is left to itself.
func (t *jobTx) runOverdue(j *jobInTx, id TwinID, e *executionRecord) error {
	if e.Code == CodeGatewayTimeout.String() {
		return t.endAttempt(j, id, e, rollout.AttemptTimedOut, e.Code, e.Message, 0)
	}
	const why = "the execution's time is over"
	if err := t.stopRun(j, e, why, false); err != nil {
		return err
	}
	e.Code, e.Message, e.Due = CodeGatewayTimeout.String(), why, t.Now().Add(runStopTime)
	return t.keep(j.ref(id), e)
}

// stopRun asks the run of the newest attempt to end, if it is under way.
func (t *jobTx) stopRun(j *jobInTx, e *executionRecord, why string, undo bool) error {
	run := e.lastRun()
	if j.Kind != JobRunPattern || run == "" || e.Status != rollout.ExecutionRunning {
		return nil
	}
	return t.hub.stopRunTx(t.Tx, run, why, undo)
}

// lookRuns finds runs that have begun, of a job that was canceled: unlike methods,
// they can be called back. After an abort, or at the job's end, they go on.
func (n *jobTurn) lookRuns(r storage.Reader, record *jobRecord) error {
	a, s := n.job, &record.State
	if record.Kind != JobRunPattern || s.Status != rollout.JobCanceling || s.Verdict != rollout.JobCanceled || s.Total().Active == 0 {
		return nil
	}
	prefix := storage.Tuple(a.id, a.run, string(rollout.ExecutionRunning))
	seen := 0
	for item, err := range executionTable.Lookup(r, "status", storage.Range{Prefix: prefix, After: a.stopped}) {
		if err != nil {
			return err
		}
		_, _, id, err := executionOfKey(item.Key)
		if err != nil {
			return err
		}
		a.stopped = append(storage.Key{}, append(prefix, item.Key...)...)
		if item.Value.Code != CodeCanceled.String() {
			n.stop = append(n.stop, id)
		}
		if seen++; seen == jobScan || len(n.stop) == jobBatch {
			return nil
		}
	}
	return nil
}

// stopRuns tells runs to end whose job was canceled. Their executions end with
// them.
func (n *jobTurn) stopRuns(t *jobTx, j *jobInTx) error {
	if j.State.Status != rollout.JobCanceling {
		return nil
	}
	why := cmp.Or(j.State.Reason, "the job was canceled")
	for _, id := range n.stop {
		e, found, err := t.load(j.ref(id))
		if err != nil {
			return err
		}
		if !found || e.Status != rollout.ExecutionRunning || e.Code == CodeCanceled.String() {
			continue
		}
		if err := t.stopRun(j, &e, why, false); err != nil {
			return err
		}
		e.Code, e.Message = CodeCanceled.String(), "the job was canceled, and its run is told to end"
		e.Updated = t.Now()
		if err := t.keep(j.ref(id), &e); err != nil {
			return err
		}
		n.ended++
	}
	return nil
}
