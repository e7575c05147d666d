package engine

// runEnded takes the end of an execution's run into it.
func (t *jobTx) runEnded(job queuedJob, id TwinID, run *runRecord) error { return nil }
