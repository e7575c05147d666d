package engine

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// runRecord is a stored run. Of its journal it holds the end, Run.Steps; what
// came before lies in runStepsTable, in chunks that are written once.
type runRecord struct {
	Revision   uint64 // the ETag's number
	Pattern    string
	Version    string
	Hash       []byte // of the bundle
	Device     string
	Module     string
	Generation string // of the identity
	Params     json.RawMessage
	Attempt    int
	Job        *queuedJob
	Parent     string
	Depth      int // how many runs stand above it
	Of         string
	Trigger    string
	Owner      jobOwner

	Conflicts pattern.Conflict // empty: ConflictQueue
	Timeout   time.Duration
	Created   time.Time
	Started   time.Time
	Updated   time.Time
	Ended     time.Time

	Deadline time.Time // of the run, or of its undo
	Late     bool      // it was told to stop since the deadline had passed
	Wake     time.Time // when the loop looks at it; zero: it waits for news
	Parked   bool      // another run has the device
	Stop     *runStop  // that the loop has yet to do
	Failures int       // attempts in a row to activate it that failed
	Retry    time.Time // when the next one is made
	Taken    bool      // the hub's own work for the open step may have begun
	Keys     int       // of its key-value pairs
	Told     runTold
	Chunks   []int // how many steps there are up to the end of each chunk
	Logs     []int // lines of each chunk of logs that is kept
	LogFirst int   // number of the first of these

	State pattern.Run
}

// runStop is what somebody asked for whose transaction is about something else.
type runStop struct {
	Why  string
	Undo bool
}

// runTold is what the change log was told last of how far the run is.
type runTold struct {
	At       time.Time
	Phase    string
	Progress float64
}

func (r *runRecord) device() TwinID { return TwinID{r.Device, r.Module} }

var (
	runTable = storage.NewTable[runRecord]("run", 1, runCodec{},
		// Those that the loop looks at by themselves, by when.
		storage.Index[runRecord]{Name: "due", Keys: func(_ storage.Key, r runRecord) []storage.Key {
			if r.Wake.IsZero() {
				return nil
			}
			return []storage.Key{storage.Tuple(r.Wake)}
		}},
		storage.Index[runRecord]{Name: "device", Keys: func(_ storage.Key, r runRecord) []storage.Key {
			if r.Device == "" {
				return nil
			}
			return []storage.Key{storage.Tuple(r.Device, r.Module)}
		}},
		storage.Index[runRecord]{Name: "pattern", Keys: func(_ storage.Key, r runRecord) []storage.Key {
			return []storage.Key{storage.Tuple(r.Pattern, string(r.State.State))}
		}},
		storage.Index[runRecord]{Name: "state", Keys: func(_ storage.Key, r runRecord) []storage.Key {
			return []storage.Key{storage.Tuple(string(r.State.State))}
		}},
		storage.Index[runRecord]{Name: "job", Keys: func(_ storage.Key, r runRecord) []storage.Key {
			if r.Job == nil {
				return nil
			}
			return []storage.Key{storage.Tuple(r.Job.Job, r.Job.Run)}
		}},
		storage.Index[runRecord]{Name: "parent", Keys: func(_ storage.Key, r runRecord) []storage.Key {
			if r.Parent == "" {
				return nil
			}
			return []storage.Key{storage.Tuple(r.Parent)}
		}},
		// What its open step asks of the hub itself, and not of a device.
		storage.Index[runRecord]{Name: "asks", Keys: func(_ storage.Key, r runRecord) []storage.Key {
			if kind := runAsks(r.State.Open()); kind != "" {
				return []storage.Key{storage.Tuple(kind)}
			}
			return nil
		}},
		storage.Index[runRecord]{Name: "ended", Keys: func(_ storage.Key, r runRecord) []storage.Key {
			if r.Ended.IsZero() {
				return nil
			}
			return []storage.Key{storage.Tuple(r.Ended)}
		}},
	)
	// runStepsTable: (run, chunk), the older part of a journal.
	runStepsTable = storage.NewTable[[]pattern.Step]("run_steps", 1, runStepsCodec{})
	// runLogsTable: (run, chunk), older lines of a run's logs.
	runLogsTable = storage.NewTable[[]pattern.LogLine]("run_logs", 1, runLogsCodec{})
	// runDeviceTable: (device, module), which run has a device, and who waits for it.
	runDeviceTable = storage.NewTable("run_device", 1, storage.JSON[runDevice]())
	// runWaitTable: (device, module, run), conditions that are followed.
	runWaitTable = storage.NewTable[runWait]("run_wait", 1, plainJSON[runWait]{storage.JSON[runWait]()})
	// runValueTable: (scope, owner, key), what programs keep in ctx:kv.
	runValueTable = storage.NewTable[json.RawMessage]("run_value", 1, plainJSON[json.RawMessage]{storage.JSON[json.RawMessage]()})
)

// runDevice says which run has a device to itself, and which ones wait for it, in
// the order in which they get it.
type runDevice struct {
	Holder string   `json:"h,omitempty"`
	Queue  []string `json:"q,omitempty"`
}

// runWait is a condition that a run waits for.
type runWait struct {
	Ref   string                     `json:"r"` // of the step
	Where string                     `json:"w"`
	Vars  map[string]json.RawMessage `json:"v,omitempty"`
}

// counterRuns counts runs that have not ended, by state; counterRunsEnded those
// that have and are kept; counterRunsOf those of a version that have not ended.
const (
	counterRuns      = "runs."
	counterRunsEnded = "runs.ended"
	counterRunsOf    = "runs.of."
)

func runsOf(name, version string) string { return counterRunsOf + name + "@" + version }

// What an open step may ask of the hub.
const (
	asksPerson = "person"
	asksWork   = "work" // requests, queries and jobs that are to be made, which workers do
	asksJob    = "job"  // the end of a job
)

func runAsks(s *pattern.Step) string {
	if s == nil {
		return ""
	}
	switch s.Op {
	case opApprove:
		return asksPerson
	case opFleetRun:
		if jobOfRef(s.Ref) != "" {
			return asksJob
		}
		return asksWork
	case opHTTP, opFleetQuery, opFleetCount, opFleetGroup:
		return asksWork
	}
	return ""
}

func runKey(id string) storage.Key { return storage.Tuple(id) }

func runChunkKey(id string, n int) storage.Key { return storage.Tuple(id, uint64(n)) }

func runWaitKey(id TwinID, run string) storage.Key {
	return storage.Tuple(id.DeviceID, id.ModuleID, run)
}

func loadRun(r storage.Reader, id string) (runRecord, error) {
	record, err := runTable.Get(r, runKey(id))
	if errors.Is(err, storage.ErrNotFound) {
		return record, errf(CodeRunNotFound, "there is no run %q, or it ended too long ago", clip(id))
	}
	return record, err
}

// loadSteps returns the older part of a run's journal, whose end the record has.
func loadSteps(r storage.Reader, id string, record *runRecord) (steps []pattern.Step, err error) {
	for n := range record.Chunks {
		some, err := runStepsTable.Get(r, runChunkKey(id, n))
		if err != nil {
			return nil, wrapf(CodeInternal, err, "the run %q lacks a part of its journal", id)
		}
		steps = append(steps, some...)
	}
	if n := len(record.Chunks); n > 0 && record.Chunks[n-1] != len(steps) {
		return nil, errf(CodeInternal, "the run %q has %d steps in its chunks, expected %d", id, len(steps), record.Chunks[n-1])
	}
	return steps, nil
}

// loadWholeRun is loadRun with the whole journal.
func loadWholeRun(r storage.Reader, id string) (runRecord, error) {
	record, err := loadRun(r, id)
	if err != nil {
		return record, err
	}
	steps, err := loadSteps(r, id, &record)
	record.completed(steps)
	return record, err
}

// completed puts the older part of its journal before what the record has. The
// older part may be another record's, too: nobody changes a step in it.
func (r *runRecord) completed(older []pattern.Step) {
	if len(older) > 0 {
		r.State.Steps = slices.Concat(older, r.State.Steps)
	}
}
