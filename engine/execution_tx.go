package engine

import (
	"errors"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// executionRef names an execution.
type executionRef struct {
	job string
	run uint64
	id  TwinID
}

func (ref executionRef) key() storage.Key { return executionKey(ref.job, ref.run, ref.id) }

// jobTx is a transaction in which executions move. It reads each job that it
// touches once and stores it at the end, so that the counters of the job say
// what its executions are, always.
type jobTx struct {
	*storage.Tx
	hub   *Hub
	jobs  []*jobInTx
	gauge jobGauge
	// careful says that changes of twins are tried before they are made: one of
	// them was refused, and half of it must not stay.
	careful bool
	refused *Error   // attempts fail with it: the store would not take them
	absent  []TwinID // that were found absent, and are looked for again once that is durable
}

// jobInTx is a job in such a transaction.
type jobInTx struct {
	jobRecord
	id      string
	work    *jobWork
	caller  Caller // as whom it acts; only of who acts
	before  rollout.JobStatus
	waited  rollout.WaitsFor
	changed bool // it is to be stored
}

// jobGauge is what a transaction adds to the figures of the jobs.
type jobGauge struct {
	waiting, running int64
	ended            map[rollout.ExecutionStatus]int64
	due              time.Time // the earliest of what it set; zero: none
}

// inJobs makes a transaction's function of one that moves executions.
func (h *Hub) inJobs(f func(t *jobTx) error) func(tx *storage.Tx) error {
	return func(tx *storage.Tx) error {
		t := &jobTx{Tx: tx, hub: h}
		if err := f(t); err != nil {
			return err
		}
		return t.end()
	}
}

// job returns a job of the transaction; CodeJobNotFound when there is none.
func (t *jobTx) job(id string) (*jobInTx, error) {
	for _, j := range t.jobs {
		if j.id == id {
			return j, nil
		}
	}
	r, err := loadJob(t.Tx, id)
	if err != nil {
		return nil, err
	}
	work, err := t.hub.jobs.works.get(t.hub, t.Tx, id, &r)
	if err != nil {
		return nil, err
	}
	j := &jobInTx{jobRecord: r, id: id, work: work, before: r.State.Status, waited: r.State.WaitsFor}
	t.jobs = append(t.jobs, j)
	return j, nil
}

// ref names an execution of the job's present run.
func (j *jobInTx) ref(id TwinID) executionRef { return executionRef{j.id, j.Run, id} }

// load returns a stored execution; found is false when there is none.
func (t *jobTx) load(ref executionRef) (e executionRecord, found bool, err error) {
	e, err = executionTable.Get(t.Tx, ref.key())
	if errors.Is(err, storage.ErrNotFound) {
		return e, false, nil
	}
	return e, err == nil, err
}

// phaseOf is the counter in which an execution is; one without a status has not
// been taken yet.
func phaseOf(e *executionRecord) rollout.Phase {
	if e.Status == "" {
		return rollout.PhasePending
	}
	return e.Status.Phase(e.final())
}

// move takes an execution to a status and stores it. ended says whether it is
// final there; whoever moves it has set what else changes. The counters of its
// job follow.
func (t *jobTx) move(j *jobInTx, id TwinID, e *executionRecord, to rollout.ExecutionStatus, ended bool) error {
	from, first := phaseOf(e), e.Status == ""
	running := e.Status == rollout.ExecutionRunning
	was := e.final()
	e.Status, e.Updated = to, t.Now()
	switch {
	case ended && !was:
		e.Ended, e.Due, e.BlockedBy = t.Now(), time.Time{}, ""
	case !ended:
		e.Ended = time.Time{}
	}
	e.Rank = nil
	if to == rollout.ExecutionWaiting {
		e.Rank = &executionRank{j.Priority, j.Created}
	}
	after := phaseOf(e)
	if from != after {
		if err := j.State.Move(e.Wave, from, after, 1); err != nil {
			return wrapf(CodeInternal, err, "the job %q can't take its execution on %q from %s to %s: %v", j.id, id, from, after, err)
		}
		j.changed = true
	}
	g := &t.gauge
	g.waiting += one(after == rollout.PhaseWaiting) - one(from == rollout.PhaseWaiting)
	if j.Kind != JobRunPattern { // whose runs keep nothing on its way while they wait
		g.running += one(to == rollout.ExecutionRunning) - one(running && !first)
	}
	if !e.Due.IsZero() && (g.due.IsZero() || e.Due.Before(g.due)) {
		g.due = e.Due
	}
	if from == rollout.PhaseWaiting && ended {
		t.OnCommit(func(uint64) { t.hub.jobs.attend(id) }) // it was the first of those that wait
	}
	err := executionTable.Put(t.Tx, j.ref(id).key(), *e)
	if ended && (from != after || !was) {
		if g.ended == nil {
			g.ended = map[rollout.ExecutionStatus]int64{}
		}
		g.ended[to]++
		err = errors.Join(err, t.tell(j, id, e))
	}
	return err
}

func one(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// tell writes the event of an execution that ended.
func (t *jobTx) tell(j *jobInTx, id TwinID, e *executionRecord) error {
	m := beginMembers(make([]byte, 0, 160))
	m.text("job", j.id)
	m.number("run", int64(j.Run))
	m.text("status", string(e.Status))
	m.number("wave", int64(e.Wave))
	m.number("attempts", int64(e.Attempts))
	m.textUnlessEmpty("code", e.Code)
	return appendChange(t.Tx, hubCaller("job:"+j.id), changeExecution, id, 0, m.end())
}

// end stores the jobs that changed, and tells of those whose status did.
func (t *jobTx) end() error {
	for _, j := range t.jobs {
		if !j.changed {
			continue
		}
		if err := t.store(j); err != nil {
			return err
		}
	}
	g, absent := t.gauge, t.absent
	if g.waiting != 0 || g.running != 0 || len(g.ended) > 0 || !g.due.IsZero() {
		t.OnCommit(func(uint64) {
			t.hub.jobs.count(g)
			// Who came before they were counted as waited for told nobody.
			for _, id := range absent {
				if t.hub.callable(id) != nil {
					t.hub.jobs.attend(id)
				}
			}
		})
	}
	return nil
}

// store stores a job whose counters or status moved.
func (t *jobTx) store(j *jobInTx) error {
	s, now := &j.State, t.Now()
	if s.Status != j.before || s.WaitsFor != j.waited {
		j.Revision++
		j.Updated = now
	}
	// A run without targets is over before anybody has seen it running; when the next
	// one begins is counted from this, too.
	if j.Started.IsZero() && (s.Status == rollout.JobRunning || s.Status == rollout.JobCompleted) {
		j.Started = now
	}
	var err error
	if s.Status != j.before {
		if s.Status.Final() {
			t.close(j)
		}
		err = t.tellJob(j)
	}
	id := j.id
	t.OnCommit(func(uint64) { t.hub.jobs.look(id) })
	return errors.Join(err, jobTable.Put(t.Tx, jobKey(id), j.jobRecord))
}

// close ends a job's run: the job has ended, unless it repeats. One that was
// canceled or has failed doesn't, so that nobody has to catch it.
func (t *jobTx) close(j *jobInTx) {
	j.Ended = t.Now()
	if j.State.Status == rollout.JobCompleted {
		j.NextRun, _ = j.work.plan.Occurrence(j.Started, t.Now())
	}
	if j.NextRun.IsZero() {
		t.Add(counterJobsActive, -1)
	}
}

// tellJob writes the event of a job whose status moved.
func (t *jobTx) tellJob(j *jobInTx) error {
	m := beginMembers(make([]byte, 0, 160))
	m.text("job", j.id)
	m.number("run", int64(j.Run))
	m.text("status", string(j.State.Status))
	m.textUnlessEmpty("waitsFor", string(j.State.WaitsFor))
	m.textUnlessEmpty("reason", j.State.Reason)
	return appendChange(t.Tx, hubCaller("job:"+j.id), changeJobStatus, TwinID{}, 0, m.end())
}
