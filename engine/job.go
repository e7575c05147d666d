package engine

import (
	"encoding/json"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
)

// JobKind says what a job does to its targets; the texts are IoT Hub's.
type JobKind string

// The kinds of job.
const (
	JobTwin   JobKind = "scheduleUpdateTwin"
	JobMethod JobKind = "scheduleDeviceMethod"
	// JobConfigure is not one of IoT Hub's: a rollout of a configuration.
	JobConfigure JobKind = "applyConfiguration"
	// JobRunPattern is not either: a run of a pattern on each target.
	JobRunPattern JobKind = "runPattern"
)

// JobSpec is what a job is to do: an action, on targets, as a policy says. It
// never changes once the job is made. Its JSON form is what operators write.
type JobSpec struct {
	ID          string            `json:"id,omitempty"` // empty: the hub makes one, in order of time
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Targets     JobTargets        `json:"targets"`
	Action      JobAction         `json:"action"`
	Policy      rollout.Policy    `json:"policy,omitzero"`
	// AllowEmpty makes a job even if nothing matches its targets now.
	AllowEmpty bool `json:"allowEmpty,omitempty"`
}

// JobTargets say which devices or modules a job is for. Exactly one of Where,
// Condition, Query and IDs is set.
type JobTargets struct {
	// Where is a bare predicate on twins of Source, or "*" for all of them.
	Where  string `json:"where,omitempty"`
	Source string `json:"source,omitempty"` // "devices" (when empty) or "modules"
	// Condition is what stands behind WHERE in IoT Hub's language over devices,
	// or "*". It is read when the job runs: a bad one makes the job fail then.
	Condition string `json:"condition,omitempty"`
	// Query is the name of a saved query; its text of the time of creation counts.
	Query string   `json:"query,omitempty"`
	IDs   []TwinID `json:"ids,omitempty"`

	Exclude []TwinID `json:"exclude,omitempty"`
	// ExcludeWhere is a bare predicate on twins of the same source.
	ExcludeWhere string `json:"excludeWhere,omitempty"`
	// Dynamic takes what comes to match while the job runs, too: only with Where,
	// Condition or Query.
	Dynamic bool `json:"dynamic,omitempty"`
	// DiverseBy are the paths by which a diverse wave is chosen, the weightiest
	// first; none are where fleets tell model, firmware and site.
	DiverseBy []string `json:"diverseBy,omitempty"`
}

// JobAction is what is done to each target: Twin, Method or Run, one of them.
type JobAction struct {
	Twin   *JobTwinPatch  `json:"twin,omitempty"`
	Method *JobMethodCall `json:"method,omitempty"`
	// Run runs a pattern on each target. Policy members that the job does not set
	// are those of the pattern's manifest.
	Run *JobRun `json:"run,omitempty"`
	// Configuration is of jobs that the hub makes itself.
	Configuration *JobConfiguration `json:"configuration,omitempty"`
	// Offline says what becomes of a method whose device is not there.
	Offline JobOffline `json:"offline,omitempty"`
	// AnyAnswer takes each answer of a device for success, as IoT Hub does;
	// otherwise a status of 400 or more is ExecutionRejected. Methods only.
	AnyAnswer bool `json:"anyAnswer,omitempty"`
	// Confirm is a bare predicate on the target's twin: evidence that the action
	// took effect. Without it a twin that is written, or a method that is
	// answered, is all there is to wait for.
	Confirm string `json:"confirm,omitempty"`
}

// JobConfiguration is the revision of a configuration that a job spreads.
type JobConfiguration struct {
	ID       string `json:"id"`
	Revision uint64 `json:"revision"`
}

// JobTwinPatch is a merge patch of a twin: JSON objects, nil = absent.
type JobTwinPatch struct {
	Tags    json.RawMessage `json:"tags,omitempty"`
	Desired json.RawMessage `json:"desired,omitempty"`
}

// JobMethodCall is a direct method that a job invokes.
type JobMethodCall struct {
	Name            string           `json:"name"`
	Payload         json.RawMessage  `json:"payload,omitempty"`         // nil: none
	ResponseTimeout rollout.Duration `json:"responseTimeout,omitempty"` // 0: 30 s
	ConnectTimeout  rollout.Duration `json:"connectTimeout,omitempty"`  // with JobOfflineFail: how long to wait for the device
}

// JobOffline says what becomes of a method call whose device is not there.
type JobOffline string

// What may become of it.
const (
	JobOfflineWait JobOffline = "wait" // until the execution's timeout; the default
	JobOfflineFail JobOffline = "fail" // after ConnectTimeout, as IoT Hub does
)

// Job is a job as it stands.
type Job struct {
	JobSpec // with its ID, and the policy's defaults
	Kind    JobKind
	ETag    string // without quotes; moves with each change of State.Status and State.WaitsFor and each operation
	// QueryText is what Targets.Query stood for when the job was made.
	QueryText string

	Run       uint64        // from 1; of a job that repeats, which time
	State     rollout.State // of the run: status, waves, counters; LaidOut says whether the targets are known
	Found     int64         // targets found so far while they are laid out
	Principal string        // whose permissions it acts with
	Created   time.Time
	Updated   time.Time
	Started   time.Time // of the run; zero: not yet
	Ended     time.Time // zero: not yet
	NextRun   time.Time // of a job that repeats; zero: never
	Undo      *JobUndo  // nil: what its runs did stays
	// BlockedBy is a job that is in progress on devices for which this one waits, as far
	// as the first of them tell; empty: none. Of Job and Jobs.
	BlockedBy string

	// Warnings are what may not be meant in its policy: of CreateJob without a
	// preview, which would have told them.
	Warnings []rollout.Fault
}

// Status says how far the job is.
func (j *Job) Status() rollout.JobStatus { return j.State.Status }
