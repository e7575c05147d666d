package client

import "encoding/json"

// JobSpec says what a job does: an action, on targets, under a policy. Spans of
// time are texts such as "90s", "1h30m" or "2d", shares "5" or "2.5%".
type JobSpec struct {
	ID          string            `json:"id,omitempty"` // empty: the hub makes one
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Targets     JobTargets        `json:"targets,omitzero"`
	Action      JobAction         `json:"action,omitzero"`
	Policy      JobPolicy         `json:"policy,omitzero"`
	AllowEmpty  bool              `json:"allowEmpty,omitempty"` // make it even if nothing matches now
}

// JobTargets are the devices or modules of a job: those of a predicate, of a
// saved query, or named one by one.
type JobTargets struct {
	Where        string   `json:"where,omitempty"`
	Source       string   `json:"source,omitempty"`    // of Where: devices (when empty) or modules
	Condition    string   `json:"condition,omitempty"` // what stands behind WHERE in IoT Hub's language
	Query        string   `json:"query,omitempty"`     // name of a saved query
	IDs          []string `json:"ids,omitempty"`       // DEVICE or DEVICE/MODULE
	Exclude      []string `json:"exclude,omitempty"`
	ExcludeWhere string   `json:"excludeWhere,omitempty"`
	DiverseBy    []string `json:"diverseBy,omitempty"` // paths by which diverse waves differ
	Dynamic      bool     `json:"dynamic,omitempty"`   // also those that come to match while the job runs
}

// JobAction is what is done to each target: one of Twin, Method and Run.
type JobAction struct {
	Twin      *JobTwin   `json:"twin,omitempty"`
	Method    *JobMethod `json:"method,omitempty"`
	Run       *JobRun    `json:"run,omitempty"`
	Offline   string     `json:"offline,omitempty"`   // of a method: wait (when empty) or fail
	AnyAnswer bool       `json:"anyAnswer,omitempty"` // of a method: whatever the device answers is success
	Confirm   string     `json:"confirm,omitempty"`   // predicate on the target's twin that shows that the action took effect

	// Configuration is of jobs that a hub makes itself: the rollout of a configuration.
	Configuration *JobConfiguration `json:"configuration,omitempty"`
}

// JobConfiguration is the revision of a configuration that a job spreads.
type JobConfiguration struct {
	ID       string `json:"id"`
	Revision uint64 `json:"revision"`
}

// JobTwin is a merge patch of a twin.
type JobTwin struct {
	Tags    json.RawMessage `json:"tags,omitempty"`
	Desired json.RawMessage `json:"desired,omitempty"`
}

// JobMethod is a direct method call.
type JobMethod struct {
	Name            string          `json:"name"`
	Payload         json.RawMessage `json:"payload,omitempty"`
	ResponseTimeout string          `json:"responseTimeout,omitempty"`
	ConnectTimeout  string          `json:"connectTimeout,omitempty"`
}

// JobRun runs a pattern on each target.
type JobRun struct {
	Pattern string          `json:"pattern"`
	Version string          `json:"version,omitempty"` // empty: the default; the job keeps to the one it began with
	Params  json.RawMessage `json:"params,omitempty"`
}

// JobPolicy says how an action spreads over its targets.
type JobPolicy struct {
	Waves          []JobWave      `json:"waves,omitempty"` // none: one wave of everything
	Rate           *JobRate       `json:"rate,omitempty"`
	Parallel       int            `json:"parallel,omitempty"` // executions at once; 0: no bound of the job's own
	Windows        []JobWindow    `json:"windows,omitempty"`
	Start          string         `json:"start,omitempty"` // RFC 3339
	End            string         `json:"end,omitempty"`   // RFC 3339
	AtEnd          string         `json:"atEnd,omitempty"` // stop or cancel
	Repeat         string         `json:"repeat,omitempty"`
	RepeatZone     string         `json:"repeatZone,omitempty"`
	Timeout        string         `json:"timeout,omitempty"`        // of an execution, from its first attempt on
	AttemptTimeout string         `json:"attemptTimeout,omitempty"` // of an attempt, until its evidence
	Retry          *JobRetry      `json:"retry,omitempty"`
	Pause          []JobThreshold `json:"pause,omitempty"`
	Abort          []JobThreshold `json:"abort,omitempty"`
	Priority       int            `json:"priority,omitempty"` // higher goes first
}

// JobWave is a wave. Its size is how far the job reaches with it, as a count
// or a share of all targets; the last wave's is 100%.
type JobWave struct {
	Size     string     `json:"size"`
	Diverse  bool       `json:"diverse,omitempty"`
	Approval bool       `json:"approval,omitempty"` // it waits for approval before it starts
	Soak     string     `json:"soak,omitempty"`     // to wait when it has ended, before what follows
	Health   *JobHealth `json:"health,omitempty"`
}

// JobHealth is a gate at the end of a wave: at most so many of its targets may
// match a predicate.
type JobHealth struct {
	Where     string `json:"where"`
	AtMost    string `json:"atMost,omitempty"`
	Otherwise string `json:"otherwise,omitempty"` // pause (when empty) or abort
}

// JobRate bounds how many executions start a minute. It grows by Factor each
// time that Every more have started or succeeded.
type JobRate struct {
	PerMinute float64 `json:"perMinute"`
	Factor    float64 `json:"factor,omitempty"`
	Every     int     `json:"every,omitempty"`
	Of        string  `json:"of,omitempty"` // started or succeeded
	Most      float64 `json:"most,omitempty"`
}

// JobWindow is when executions may start: from each time of a cron expression
// on, for a while.
type JobWindow struct {
	Cron     string `json:"cron"`
	Duration string `json:"duration"`
	TimeZone string `json:"timeZone,omitempty"` // UTC when empty
	ZoneTag  string `json:"zoneTag,omitempty"`  // path in a target's twin that has its zone
}

// JobRetry says what becomes of an execution whose attempt came to nothing.
type JobRetry struct {
	Attempts int      `json:"attempts,omitempty"`
	On       []string `json:"on,omitempty"` // failed, timedOut, uncertain, offline
	Backoff  string   `json:"backoff,omitempty"`
	Factor   float64  `json:"factor,omitempty"`
	Most     string   `json:"most,omitempty"`
}

// JobThreshold is how many executions may come to a bad end.
type JobThreshold struct {
	Share string   `json:"share"`
	Of    []string `json:"of,omitempty"`
	Least int      `json:"least,omitempty"` // outcomes before a percentage counts
	Per   string   `json:"per,omitempty"`   // wave or job
}
