package engine

import (
	"errors"
	"slices"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

func loadRunDevice(r storage.Reader, id TwinID) (runDevice, error) {
	d, err := runDeviceTable.Get(r, id.key())
	if errors.Is(err, storage.ErrNotFound) {
		return runDevice{}, nil
	}
	return d, err
}

func (t *runTx) putRunDevice(id TwinID, d runDevice) error {
	if d.Holder == "" && len(d.Queue) == 0 {
		return runDeviceTable.Delete(t.Tx, id.key())
	}
	return runDeviceTable.Put(t.Tx, id.key(), d)
}

// alone reports whether a run must have its device to itself. One that another
// run started works within that one's turn.
func (r *runRecord) alone() bool {
	return r.Device != "" && r.Conflicts != pattern.ConflictShare && r.Parent == ""
}

// acquire takes the device for a run that is to go on; ok is false when another
// one has it: then this one waits, or has ended, as its pattern says.
func (t *runTx) acquire(r *runInTx) (ok bool, err error) {
	if !r.alone() {
		return true, nil
	}
	d, err := loadRunDevice(t.Tx, r.device())
	if err != nil {
		return false, err
	}
	if d.Holder == r.id {
		return true, nil
	}
	if d.Holder == "" {
		d.Holder = r.id
		d.Queue = slices.DeleteFunc(d.Queue, func(id string) bool { return id == r.id })
		return true, t.putRunDevice(r.device(), d)
	}
	conflicts := r.Conflicts
	if r.State.Entry == pattern.EntryUndo {
		conflicts = pattern.ConflictQueue
	}
	inTheWay := faultf(pattern.FaultConflict, "the run %s is under way on the device", d.Holder)
	switch conflicts {
	case pattern.ConflictSkip:
		r.State.State, r.State.Fault = pattern.Skipped, inTheWay
		return false, nil
	case pattern.ConflictReject:
		r.State.Fail(inTheWay)
		return false, nil
	}
	if len(d.Queue) >= t.hub.limits.RunsPerDevice {
		r.State.Fail(faultf(pattern.FaultConflict, "%s wait for the device, as many as may", plural(len(d.Queue), "run")))
		return false, nil
	}
	r.Parked, r.State.State = true, pattern.Queued
	if slices.Contains(d.Queue, r.id) {
		return false, nil
	}
	if conflicts == pattern.ConflictReplace {
		d.Queue = append([]string{r.id}, d.Queue...)
		if err := t.stopLater(d.Holder, "the run "+r.id+" takes its place", false); err != nil {
			return false, err
		}
	} else {
		d.Queue = append(d.Queue, r.id)
	}
	return false, t.putRunDevice(r.device(), d)
}

// release gives the device of a run that has ended to the next one.
func (t *runTx) release(r *runInTx) error {
	if !r.alone() {
		return nil
	}
	d, err := loadRunDevice(t.Tx, r.device())
	if err != nil {
		return err
	}
	if d.Holder != r.id {
		i := slices.Index(d.Queue, r.id)
		if i < 0 {
			return nil
		}
		d.Queue = slices.Delete(d.Queue, i, i+1)
		return t.putRunDevice(r.device(), d)
	}
	d.Holder = ""
	for d.Holder == "" && len(d.Queue) > 0 {
		next := d.Queue[0]
		d.Queue = d.Queue[1:]
		n, err := t.loadWhole(next)
		if isRunGone(err) {
			continue
		}
		if err != nil {
			return err
		}
		if n.State.State.Final() || !n.Parked {
			continue
		}
		d.Holder, n.Parked = next, false
		if err := t.store(n); err != nil { // Queued still: the loop begins it
			return err
		}
	}
	return t.putRunDevice(r.device(), d)
}

// stopLater asks a run to end, which the loop does; one that has ended, or is
// gone, is left as it is.
func (t *runTx) stopLater(id, why string, undo bool) error {
	r, err := t.load(id)
	if isRunGone(err) {
		return nil
	}
	if err != nil || r.State.State.Final() || r.Stop != nil && (r.Stop.Undo || !undo) {
		return err
	}
	if r.Stop == nil {
		r.Stop = &runStop{Why: why}
	}
	r.Stop = &runStop{Why: r.Stop.Why, Undo: undo || r.Stop.Undo}
	return t.store(r)
}
