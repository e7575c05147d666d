package engine

// jobAction is what a job does to each of its targets, beyond which neither
// targets nor policies know anything.
type jobAction interface {
	kind() JobKind
	// operation is what the job's owner must be allowed to do.
	operation() operation
	// check says what is wrong with the action whatever the target.
	check(h *Hub) error
	// preview says what it would do to a target.
	preview(h *Hub, t *Twin) JobEffect
}

// action returns what the job does, an error when it is not exactly one thing.
func (a *JobAction) action() (jobAction, error) {
	return nil, errf(CodeInternal, "not built")
}
