package service

import "encoding/json"

// The documents of a job as it is sent and shown. Spans of time are texts such
// as "90s", "1h30m" or "2d"; a share is a count, "5", or a percentage, "2.5%".

// jobSpecDocument describes engine.JobSpec, which reads and writes itself.
type jobSpecDocument struct {
	ID          string            `json:"id,omitempty" doc:"Unique; the hub makes one when absent."`
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Targets     jobTargets        `json:"targets" doc:"Exactly one of where, condition, query and ids."`
	Action      jobAction         `json:"action"`
	Policy      jobPolicy         `json:"policy,omitzero"`
	AllowEmpty  bool              `json:"allowEmpty,omitempty" doc:"Make the job even if nothing matches its targets now."`
}

type jobTargets struct {
	Where        string   `json:"where,omitempty" doc:"A bare predicate, such as tags.site == \"A\"; * or true for all."`
	Source       string   `json:"source,omitempty" enum:"devices,modules" doc:"What where and condition are about; devices when absent."`
	Condition    string   `json:"condition,omitempty" doc:"What stands behind WHERE in IoT Hub's query language, or *. It is read when the job runs."`
	Query        string   `json:"query,omitempty" doc:"Name of a saved query; its text of now counts."`
	IDs          []string `json:"ids,omitempty" doc:"DEVICE or DEVICE/MODULE each."`
	Exclude      []string `json:"exclude,omitempty" doc:"DEVICE or DEVICE/MODULE each."`
	ExcludeWhere string   `json:"excludeWhere,omitempty" doc:"A bare predicate: what it matches is left out."`
	DiverseBy    []string `json:"diverseBy,omitempty" doc:"Paths in a target's twin by which diverse waves differ, the weightiest first; when absent, its model, and where there are such tags and reported properties, firmware and site."`
	Dynamic      bool     `json:"dynamic,omitempty" doc:"Also take what comes to match while the job runs."`
}

type jobAction struct {
	Twin   *jobTwin   `json:"twin,omitempty" doc:"Change the target's twin. It, method or run."`
	Method *jobMethod `json:"method,omitempty" doc:"Call a direct method of the target."`
	Run    *jobRun    `json:"run,omitempty" doc:"Run a pattern on the target. Members of the policy that the job does not set are the pattern's."`
	// Configuration is of jobs that the hub makes.
	Configuration *jobConfiguration `json:"configuration,omitempty" doc:"The revision of a configuration that the job spreads; not to be sent."`
	Offline       string            `json:"offline,omitempty" enum:"wait,fail" doc:"Of a method, while the target is not connected: wait until the execution's timeout, when absent, or fail after connectTimeout."`
	AnyAnswer     bool              `json:"anyAnswer,omitempty" doc:"Of a method: each answer is success, as IoT Hub has it; otherwise a status of 400 or more is rejected."`
	Confirm       string            `json:"confirm,omitempty" doc:"A bare predicate on the target's twin: evidence that the action took effect, such as reported.fw == \"2.0\"."`
}

type jobConfiguration struct {
	ID       string `json:"id"`
	Revision uint64 `json:"revision"`
}

type jobTwin struct {
	Tags    json.RawMessage `json:"tags,omitempty" schema:"object" doc:"A merge patch; null deletes."`
	Desired json.RawMessage `json:"desired,omitempty" schema:"object" doc:"A merge patch; null deletes."`
}

type jobMethod struct {
	Name            string          `json:"name"`
	Payload         json.RawMessage `json:"payload,omitempty" doc:"Any JSON value; none is sent when absent."`
	ResponseTimeout string          `json:"responseTimeout,omitempty" doc:"5s to 300s; 30s when absent."`
	ConnectTimeout  string          `json:"connectTimeout,omitempty" doc:"With offline fail: how long to wait for the device, up to 300s."`
}

type jobRun struct {
	Pattern string          `json:"pattern"`
	Version string          `json:"version,omitempty" doc:"The default one when absent. The job keeps to the one that it began with."`
	Params  json.RawMessage `json:"params,omitempty" schema:"object" doc:"As the pattern's JSON Schema says."`
}

type jobPolicy struct {
	Waves          []jobWave      `json:"waves,omitempty" doc:"In order; one wave of all targets when absent."`
	Rate           *jobRate       `json:"rate,omitempty" doc:"How many executions may start."`
	Parallel       int            `json:"parallel,omitempty" doc:"Executions in progress at once; only the hub's own bound when absent."`
	Windows        []jobWindow    `json:"windows,omitempty" doc:"Executions start only inside one of them."`
	Start          string         `json:"start,omitempty" doc:"RFC 3339; now when absent."`
	End            string         `json:"end,omitempty" doc:"RFC 3339: nothing starts from then on."`
	AtEnd          string         `json:"atEnd,omitempty" enum:"stop,cancel" doc:"At end: stop, when absent, lets what was begun go on; cancel does not."`
	Repeat         string         `json:"repeat,omitempty" doc:"A cron expression: the job runs at each of its times."`
	RepeatZone     string         `json:"repeatZone,omitempty" doc:"Time zone of repeat; UTC when absent."`
	Timeout        string         `json:"timeout,omitempty" doc:"Of an execution, from when its turn comes, waiting for its device included."`
	AttemptTimeout string         `json:"attemptTimeout,omitempty" doc:"Of one attempt, from its sending to its evidence."`
	Retry          *jobRetry      `json:"retry,omitempty" doc:"No attempt is repeated when absent."`
	Pause          []jobThreshold `json:"pause,omitempty" doc:"The job pauses itself when one of them is reached."`
	Abort          []jobThreshold `json:"abort,omitempty" doc:"The job fails when one of them is reached."`
	Priority       int            `json:"priority,omitempty" doc:"Jobs of a higher one go first."`
}

type jobWave struct {
	Size     string     `json:"size" doc:"A share of all targets: how far the job reaches when this wave has ended. The last one's is 100%."`
	Diverse  bool       `json:"diverse,omitempty" doc:"Choose targets that differ in model, firmware and site."`
	Approval bool       `json:"approval,omitempty" doc:"The wave waits for approval before it starts."`
	Soak     string     `json:"soak,omitempty" doc:"How long to wait when all of the wave's executions have ended."`
	Health   *jobHealth `json:"health,omitempty" doc:"Asked after the soak."`
}

type jobHealth struct {
	Where     string `json:"where" doc:"A bare predicate that matches an ill target."`
	AtMost    string `json:"atMost,omitempty" doc:"A share of the wave's targets; none may be ill when absent."`
	Otherwise string `json:"otherwise,omitempty" enum:"pause,abort" doc:"pause when absent."`
}

type jobRate struct {
	PerMinute float64 `json:"perMinute"`
	Factor    float64 `json:"factor,omitempty" doc:"The rate is multiplied by it each time that every more are counted."`
	Every     int     `json:"every,omitempty"`
	Of        string  `json:"of,omitempty" enum:"started,succeeded" doc:"What every counts."`
	Most      float64 `json:"most,omitempty" doc:"A minute; where the rate stops to grow."`
}

type jobWindow struct {
	Cron     string `json:"cron" doc:"When the window opens: minute, hour, day of month, month, day of week."`
	Duration string `json:"duration"`
	TimeZone string `json:"timeZone,omitempty" doc:"A name such as Europe/Paris; UTC when absent."`
	ZoneTag  string `json:"zoneTag,omitempty" doc:"Path of a tag that holds the target's own time zone, such as tags.timezone."`
}

type jobRetry struct {
	Attempts int      `json:"attempts,omitempty" doc:"In all, the first included."`
	On       []string `json:"on,omitempty" doc:"failed, timedOut, uncertain, offline."`
	Backoff  string   `json:"backoff,omitempty" doc:"Before the second attempt."`
	Factor   float64  `json:"factor,omitempty" doc:"Each further wait is so many times as long."`
	Most     string   `json:"most,omitempty" doc:"The longest wait."`
}

type jobThreshold struct {
	Share string   `json:"share"`
	Of    []string `json:"of,omitempty" doc:"Outcomes that count."`
	Least int      `json:"least,omitempty" doc:"Outcomes there must be before a percentage counts."`
	Per   string   `json:"per,omitempty" enum:"wave,job"`
}
