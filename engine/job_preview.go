package engine

import (
	"context"
	"encoding/json"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
)

// JobPreview is what a job would do if it were made now.
type JobPreview struct {
	Spec     JobSpec // with the defaults of its policy
	Count    int64   // targets, exactly
	Sample   []JobTarget
	Excluded []JobExclusion
	Waves    []JobWavePreview
	First    time.Time // when it would start its first attempt; zero: never
	// Active are the jobs that have not ended and are busy with, or still to come
	// to, some of the sample.
	Active   []JobConflict
	Warnings []rollout.Fault
	Token    string    // for CreateJob
	Expires  time.Time // of the token
}

// JobTarget is one target of a preview, and what the job would do to it.
type JobTarget struct {
	ID     TwinID
	Wave   int
	Effect JobEffect
}

// JobEffect is what an action would do to one target.
type JobEffect struct {
	Changes   []JobDifference // of the twin
	Method    string          // that would be called
	Connected bool
	Fault     string // why it would fail; empty: it would not, as far as one can tell
}

// JobDifference is one value that would change.
type JobDifference struct {
	Path   string          // dotted, from the section on: "desired.fw.version"
	Before json.RawMessage // nil: it is not there
	After  json.RawMessage // nil: it would be removed
}

// JobExclusion says how many targets are left out for one reason, and some of them.
type JobExclusion struct {
	Reason string // "exclude" or "excludeWhere"; "notFound" of ids that do not exist
	Count  int64
	Sample []TwinID
}

// JobWavePreview is what would be in a wave.
type JobWavePreview struct {
	Size     int
	Targets  []TwinID // of small waves before the last: which ones
	Approval bool
}

// JobConflict is a job on the same devices.
type JobConflict struct {
	Job      string
	Status   rollout.JobStatus
	Priority int
	Targets  int64 // how many of the sample's
}

// PreviewJob says what a job would do, exactly to how many targets, and gives a
// token that binds CreateJob to it. sample bounds the targets that are shown; 0
// is 100, at most 1000. Errors are those of CreateJob. It needs ServiceConnect.
func (h *Hub) PreviewJob(ctx context.Context, c Caller, s JobSpec, sample int) (JobPreview, error) {
	return JobPreview{}, errf(CodeInternal, "not built")
}
