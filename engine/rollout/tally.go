package rollout

// Tally counts the executions of one wave by phase. Size is the sum of the
// others, always.
type Tally struct {
	Size      int `json:"size"`
	Pending   int `json:"pending,omitempty"`
	Waiting   int `json:"waiting,omitempty"`
	Active    int `json:"active,omitempty"`
	Retrying  int `json:"retrying,omitempty"`
	Succeeded int `json:"succeeded,omitempty"`
	Failed    int `json:"failed,omitempty"`
	TimedOut  int `json:"timedOut,omitempty"`
	Rejected  int `json:"rejected,omitempty"`
	Uncertain int `json:"uncertain,omitempty"`
	Canceled  int `json:"canceled,omitempty"`
	Removed   int `json:"removed,omitempty"`
}

// of is the counter of a phase, and one that nobody reads if there is none.
func (t *Tally) of(p Phase) *int {
	switch p {
	case PhasePending:
		return &t.Pending
	case PhaseWaiting:
		return &t.Waiting
	case PhaseActive:
		return &t.Active
	case PhaseRetrying:
		return &t.Retrying
	case PhaseSucceeded:
		return &t.Succeeded
	case PhaseFailed:
		return &t.Failed
	case PhaseTimedOut:
		return &t.TimedOut
	case PhaseRejected:
		return &t.Rejected
	case PhaseUncertain:
		return &t.Uncertain
	case PhaseCanceled:
		return &t.Canceled
	case PhaseRemoved:
		return &t.Removed
	}
	return new(int)
}

// Get is the counter of one phase; none of a phase that there isn't.
func (t *Tally) Get(p Phase) int { return *t.of(p) }

// Open counts the executions that have not ended.
func (t *Tally) Open() int { return t.Pending + t.Waiting + t.Active + t.Retrying }

// Outcomes counts the executions that ended with an outcome.
func (t *Tally) Outcomes() int {
	return t.Succeeded + t.Failed + t.TimedOut + t.Rejected + t.Uncertain
}

// Bad counts the executions that ended badly.
func (t *Tally) Bad() int { return t.Failed + t.TimedOut + t.Rejected + t.Uncertain }

// since is how many more ended each way than at an earlier time.
func (t *Tally) since(before *Tally) Tally {
	return Tally{
		Succeeded: max(0, t.Succeeded-before.Succeeded),
		Failed:    max(0, t.Failed-before.Failed),
		TimedOut:  max(0, t.TimedOut-before.TimedOut),
		Rejected:  max(0, t.Rejected-before.Rejected),
		Uncertain: max(0, t.Uncertain-before.Uncertain),
	}
}

// add adds the outcomes of another tally.
func (t *Tally) add(o Tally) {
	t.Succeeded += o.Succeeded
	t.Failed += o.Failed
	t.TimedOut += o.TimedOut
	t.Rejected += o.Rejected
	t.Uncertain += o.Uncertain
}
