package engine

import (
	"errors"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// executionLockTable says which execution is in progress on a device or module,
// (device, module): none begins an attempt while another one's has not ended.
// Whoever waits is found by the index "open" of executions, not here: a lock
// that named them would be written again for each of them.
var executionLockTable = storage.NewTable("job_device", 1, storage.JSON[executionLock]())

// executionLock names the execution in progress.
type executionLock struct {
	Job string `json:"j"`
	Run uint64 `json:"r"`
}

// lockedBy returns the job that is in progress on a target, "" when none but
// ref is.
func lockedBy(r storage.Reader, ref executionRef) (string, error) {
	l, err := executionLockTable.Get(r, ref.id.key())
	if errors.Is(err, storage.ErrNotFound) || err == nil && l == (executionLock{ref.job, ref.run}) {
		return "", nil
	}
	return l.Job, err
}

// How many executions that wait are asked for whom: of one job, and of a page of jobs
// in all.
const (
	blockerLooks     = 1000
	blockerLooksPage = 4000
)

// mayBeBlocked reports whether the job waits for devices that another one may hold.
func mayBeBlocked(s *rollout.State) bool {
	return s.WaitsFor == rollout.WaitsForDevices && s.Total().Waiting > 0
}

// blockerOf returns a job that is in progress on a device for which another one
// waits, "" when the first of those that wait tell of none. An execution keeps the job
// that held its device when its turn came; who holds it now is in the lock. What it
// looks at is taken from left, and no more than that is.
func blockerOf(r storage.Reader, job string, record *jobRecord, left *int) (string, error) {
	if !mayBeBlocked(&record.State) {
		return "", nil
	}
	looks := min(blockerLooks, *left)
	defer func(all int) { *left -= all - looks }(looks)
	prefix := storage.Tuple(job, record.Run, string(rollout.ExecutionWaiting))
	for item, err := range executionTable.Lookup(r, "status", storage.Range{Prefix: prefix}) {
		if err != nil || looks == 0 {
			return "", err
		}
		looks--
		if item.Value.BlockedBy != "" {
			_, run, id, err := executionOfKey(item.Key)
			if err != nil {
				return "", err
			}
			if holder, err := lockedBy(r, executionRef{job, run, id}); err != nil || holder != "" {
				return holder, err
			}
		}
	}
	return "", nil
}

// lock takes the device for the execution; it must be free, or its own.
func (t *jobTx) lock(ref executionRef) error {
	return executionLockTable.Put(t.Tx, ref.id.key(), executionLock{ref.job, ref.run})
}

// unlock gives the device back if the execution holds it, and has the loop look
// at who waits for it.
func (t *jobTx) unlock(ref executionRef) error {
	l, err := executionLockTable.Get(t.Tx, ref.id.key())
	if errors.Is(err, storage.ErrNotFound) || err == nil && l != (executionLock{ref.job, ref.run}) {
		return nil
	}
	if err != nil {
		return err
	}
	t.OnCommit(func(uint64) { t.hub.jobs.attend(ref.id) })
	return executionLockTable.Delete(t.Tx, ref.id.key())
}
