package engine

// triggerState is what the loop that runs triggers is told.
type triggerState struct {
	signal chan struct{} // capacity 1: patterns have changed
}

func (t *triggerState) init(*Limits) { t.signal = make(chan struct{}, 1) }

// look has the loop read the triggers again.
func (t *triggerState) look() {
	select {
	case t.signal <- struct{}{}:
	default:
	}
}
