package engine

import (
	"bytes"
	"errors"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// jobRecord is what changes of a job: small, since each batch of executions
// writes it. What never changes is in jobSpecTable.
type jobRecord struct {
	Revision uint64        `json:"n"` // the ETag's number
	Kind     JobKind       `json:"k"`
	Priority int           `json:"p,omitempty"`
	Owner    jobOwner      `json:"o"`
	Run      uint64        `json:"r"` // from 1
	State    rollout.State `json:"s"`
	Created  time.Time     `json:"c"`
	Updated  time.Time     `json:"u"`
	Started  time.Time     `json:"t,omitzero"`
	Ended    time.Time     `json:"e,omitzero"`
	NextRun  time.Time     `json:"nr,omitzero"`
	Undo     *jobUndo      `json:"ud,omitempty"` // what runs of a pattern did is taken back
	// Ranked says that all executions of this run that wait say their rank; those
	// of a hub before they had one don't.
	Ranked bool `json:"w,omitempty"`
}

// jobOwner is whose permissions a job acts with.
type jobOwner struct {
	Kind auth.Kind `json:"k"`
	Name string    `json:"n"`
}

// jobSpecRecord is what a job was made with.
type jobSpecRecord struct {
	Spec  JobSpec   `json:"s"`
	Saved savedText `json:"q,omitzero"` // the query that the spec names
}

var (
	jobTable = storage.NewTable("job", 1, storage.JSON[jobRecord](),
		storage.Index[jobRecord]{Name: "created", Keys: func(_ storage.Key, r jobRecord) []storage.Key {
			return []storage.Key{storage.Tuple(r.Created)}
		}},
		storage.Index[jobRecord]{Name: "status", Keys: func(_ storage.Key, r jobRecord) []storage.Key {
			return []storage.Key{storage.Tuple(string(r.State.Status), r.Created)}
		}},
		storage.Index[jobRecord]{Name: "ended", Keys: func(_ storage.Key, r jobRecord) []storage.Key {
			if !r.ended() {
				return nil
			}
			return []storage.Key{storage.Tuple(r.Ended)}
		}},
		// Those whose run has ended and that run again.
		storage.Index[jobRecord]{Name: "next", Keys: func(_ storage.Key, r jobRecord) []storage.Key {
			if r.NextRun.IsZero() {
				return nil
			}
			return []storage.Key{storage.Tuple(r.NextRun)}
		}},
		// Those of which runs are to be undone.
		storage.Index[jobRecord]{Name: "undo", Keys: func(_ storage.Key, r jobRecord) []storage.Key {
			if !r.undoing() {
				return nil
			}
			return []storage.Key{storage.Tuple(r.Created)}
		}},
	)
	jobSpecTable = storage.NewTable[jobSpecRecord]("job_spec", 1, plainJSON[jobSpecRecord]{storage.JSON[jobSpecRecord]()})
	// executionTable: (job, run, device, module).
	executionTable = storage.NewTable[executionRecord]("execution", 1, executionCodec{},
		// What time alone moves on.
		storage.Index[executionRecord]{Name: "due", Keys: func(_ storage.Key, r executionRecord) []storage.Key {
			if r.final() || r.Due.IsZero() {
				return nil
			}
			return []storage.Key{storage.Tuple(r.Due)}
		}},
		// All executions of a device or module.
		storage.Index[executionRecord]{Name: "device", Keys: func(k storage.Key, _ executionRecord) []storage.Key {
			return []storage.Key{k[executionRun(k):]}
		}},
		// Those that wait for the device, in the order in which they get it: by
		// priority of the jobs and their age.
		storage.Index[executionRecord]{Name: "waiting", Keys: func(k storage.Key, r executionRecord) []storage.Key {
			if r.Status != rollout.ExecutionWaiting || r.Rank == nil {
				return nil
			}
			return []storage.Key{append(k[executionRun(k):len(k):len(k)], storage.Tuple(-int64(r.Rank.Priority), r.Rank.Created)...)}
		}},
		// Those that are not final, in the order in which they came: who waits for
		// the device, and who for whom.
		storage.Index[executionRecord]{Name: "open", Keys: func(k storage.Key, r executionRecord) []storage.Key {
			if r.final() {
				return nil
			}
			return []storage.Key{append(k[executionRun(k):len(k):len(k)], storage.Tuple(r.Created)...)}
		}},
		// Of a run, those whose status one looks for; most end well, and have no entry.
		storage.Index[executionRecord]{Name: "status", Keys: func(k storage.Key, r executionRecord) []storage.Key {
			if r.Status == rollout.ExecutionSucceeded {
				return nil
			}
			n := executionRun(k)
			return []storage.Key{append(k[:n:n], storage.Tuple(string(r.Status))...)}
		}},
	)
)

// counterJobsActive counts jobs that have not ended.
const counterJobsActive = "jobs.active"

func jobKey(job string) storage.Key { return storage.Tuple(job) }

func executionKey(job string, run uint64, id TwinID) storage.Key {
	return storage.Tuple(job, run, id.DeviceID, id.ModuleID)
}

// executionRun returns where the key of an execution stops naming the run: a key
// is that of the run, then that of the device or module.
func executionRun(k storage.Key) int {
	// A job's id has no zero byte, so that the first two of them end it; a number has nine bytes.
	return min(bytes.Index(k, []byte{0, 0})+2+9, len(k))
}

// executionOfKey reads what executionKey made.
func executionOfKey(k storage.Key) (job string, run uint64, id TwinID, err error) {
	parts, err := k.Parts()
	if err != nil || len(parts) != 4 {
		return "", 0, TwinID{}, errExecutionKey
	}
	job, ok1 := parts[0].(string)
	run, ok2 := parts[1].(uint64)
	id.DeviceID, _ = parts[2].(string)
	id.ModuleID, _ = parts[3].(string)
	if !ok1 || !ok2 || id.DeviceID == "" {
		return "", 0, TwinID{}, errExecutionKey
	}
	return job, run, id, nil
}

var errExecutionKey = errors.New("key is not that of an execution")

func loadJob(r storage.Reader, job string) (jobRecord, error) {
	record, err := jobTable.Get(r, jobKey(job))
	if errors.Is(err, storage.ErrNotFound) {
		return record, errf(CodeJobNotFound, "there is no job %q", clip(job))
	}
	return record, err
}

func loadJobSpec(r storage.Reader, job string) (jobSpecRecord, error) {
	record, err := jobSpecTable.Get(r, jobKey(job))
	if errors.Is(err, storage.ErrNotFound) {
		return record, errf(CodeJobNotFound, "there is no job %q", clip(job))
	}
	return record, err
}
