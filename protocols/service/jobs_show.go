package service

import (
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/rollout"
)

// jobDocument is a job with all that it was made with.
type jobDocument struct {
	engine.JobSpec
	jobProgress
	Kind        engine.JobKind `json:"kind" enum:"scheduleUpdateTwin,scheduleDeviceMethod,applyConfiguration,runPattern,import,export" doc:"Imports and exports have no targets, action and policy; GET /api/v1/identity-jobs/{id} says more of them."`
	QueryText   string         `json:"queryText,omitempty" doc:"What the saved query of the targets stood for when the job was made."`
	Principal   string         `json:"principal" doc:"Who made the job: it acts with this principal's permissions."`
	CreatedTime time.Time      `json:"createdTime"`
	Warnings    []jobFault     `json:"warnings,omitempty" doc:"What may not be meant in the policy: in the answer that makes a job without the token of a preview, which would have told it."`
}

// jobProgress is what changes of a job while it runs.
type jobProgress struct {
	ETag     string            `json:"etag"`
	Status   rollout.JobStatus `json:"status" enum:"queued,scheduled,running,paused,canceling,completed,failed,canceled"`
	WaitsFor rollout.WaitsFor  `json:"waitsFor,omitempty" enum:"approval,soak,health,gate,window,rate,devices,turn" doc:"What keeps a running job from starting more."`
	Blocked  string            `json:"blockedBy,omitempty" doc:"A job that is in progress on devices for which this one waits."`
	Reason   string            `json:"reason,omitempty" doc:"Why it stands so, for people."`
	Run      uint64            `json:"run" doc:"From 1; of a job that repeats, which time."`
	Wave     int               `json:"wave,omitempty" doc:"Number of the wave that is under way or comes next."`
	Waves    []jobWaveState    `json:"waves,omitempty" doc:"As soon as the targets are known."`
	Total    rollout.Tally     `json:"total" doc:"The sum of the waves."`
	Found    int64             `json:"found,omitempty" doc:"Targets found so far while the job is queued."`
	Gates    []jobGate         `json:"gates,omitempty" doc:"What the pattern's own gate said behind waves, in the order of time."`
	Undo     *jobUndo          `json:"undo,omitempty" doc:"What the job's runs did is taken back."`

	StartedTime time.Time `json:"startedTime,omitzero" doc:"Of this run."`
	UpdatedTime time.Time `json:"updatedTime"`
	EndedTime   time.Time `json:"endedTime,omitzero"`
	SoakUntil   time.Time `json:"soakUntilTime,omitzero" doc:"While it waits for the soak after a wave."`
	NextRunTime time.Time `json:"nextRunTime,omitzero" doc:"Of a job that repeats."`
	ETA         time.Time `json:"etaTime,omitzero" doc:"When it will have ended if it goes on as so far; absent when nobody can tell."`
}

// jobGate is what a pattern's gate said behind a wave.
type jobGate struct {
	Wave     int                 `json:"wave" doc:"Number of the wave, from 1."`
	Decision rollout.GateVerdict `json:"decision,omitempty" enum:"go,pause,abort,undo" doc:"Absent when the gate could not be asked: the job paused."`
	Reason   string              `json:"reason,omitempty"`
	Time     time.Time           `json:"time"`
}

// jobUndo is how far the undo of a job is.
type jobUndo struct {
	Reason      string    `json:"reason,omitempty"`
	By          string    `json:"by" doc:"Who asked for it; \"gate\": the pattern's own gate."`
	StartedTime time.Time `json:"startedTime"`
	Told        bool      `json:"told" doc:"Each run of the job was told so."`
	Begun       int64     `json:"begun" doc:"Runs that are undone, or will be."`
	Undone      int64     `json:"undone"`
	Failed      int64     `json:"failed" doc:"Runs whose undo failed."`
	Left        int64     `json:"left" doc:"Runs with nothing to take back."`
}

type jobWaveState struct {
	Number int    `json:"number" doc:"From 1."`
	Status string `json:"status" enum:"pending,approval,running,soaking,checking,ended"`
	rollout.Tally
	Approved   string    `json:"approvedBy,omitempty"`
	ApprovedAt time.Time `json:"approvedTime,omitzero"`
}

func showJob(j engine.Job) jobDocument {
	return jobDocument{
		JobSpec: j.JobSpec, jobProgress: showProgress(&j, time.Now()), Kind: j.Kind, QueryText: j.QueryText, Principal: j.Principal, CreatedTime: j.Created.UTC(),
		Warnings: show(j.Warnings, showJobFault),
	}
}

func showProgress(j *engine.Job, now time.Time) jobProgress {
	s := &j.State
	d := jobProgress{
		ETag: j.ETag, Status: s.Status, WaitsFor: s.WaitsFor, Blocked: j.BlockedBy, Reason: s.Reason, Run: j.Run, Total: s.Total(), Found: j.Found,
		StartedTime: j.Started, UpdatedTime: j.Updated, EndedTime: j.Ended, NextRunTime: j.NextRun,
	}
	for _, g := range s.Gates {
		d.Gates = append(d.Gates, jobGate{g.Wave + 1, g.Verdict, g.Reason, g.At})
	}
	if u := j.Undo; u != nil {
		d.Undo = &jobUndo{u.Reason, u.By, u.Started, u.Told, u.Begun, u.Undone, u.Failed, u.Left}
	}
	if !s.LaidOut {
		return d
	}
	d.Wave = s.Wave + 1
	for i := range s.Waves {
		d.Waves = append(d.Waves, jobWaveState{Number: i + 1, Status: waveStatus(s, i), Tally: s.Waves[i]})
	}
	for _, a := range s.Approvals {
		if a.Wave < len(d.Waves) {
			d.Waves[a.Wave].Approved, d.Waves[a.Wave].ApprovedAt = a.By, a.At
		}
	}
	if s.WaitsFor == rollout.WaitsForSoak && s.Wave < len(j.Policy.Waves) {
		d.SoakUntil = s.SoakSince.Add(time.Duration(j.Policy.Waves[s.Wave].Soak))
	}
	d.ETA = jobETA(j, now)
	return d
}

func waveStatus(s *rollout.State, wave int) string {
	switch {
	case wave < s.Wave || s.Status.Final() && s.Waves[wave].Open() == 0:
		return "ended"
	case wave > s.Wave || s.Status == rollout.JobScheduled:
		return "pending"
	case s.WaitsFor == rollout.WaitsForApproval:
		return "approval"
	case s.WaitsFor == rollout.WaitsForSoak:
		return "soaking"
	case s.WaitsFor == rollout.WaitsForHealth || s.WaitsFor == rollout.WaitsForGate:
		return "checking"
	case !s.Opened:
		return "pending"
	}
	return "running"
}

// jobETA is when a job will have ended if what is left goes as fast as what has
// ended in this run, and no faster than its rate allows, and each soak is
// waited. Nobody can tell while it waits for a person, a window or what devices
// do, of which nothing says how long that takes, nor of one that goes on until its
// end.
func jobETA(j *engine.Job, now time.Time) time.Time {
	s := &j.State
	total := s.Total()
	left, ended := total.Open(), total.Size-total.Open()
	if s.Status != rollout.JobRunning || s.Dynamic || j.Started.IsZero() || left == 0 || ended == 0 {
		return time.Time{}
	}
	switch s.WaitsFor {
	case rollout.WaitsForApproval, rollout.WaitsForWindow, rollout.WaitsForTurn:
		return time.Time{}
	case rollout.WaitsForDevices:
		if most := j.Policy.Parallel; most == 0 || total.Active < most { // else others follow each that ends
			return time.Time{}
		}
	}
	var soaks, soaked time.Duration
	for i, w := range j.Policy.Waves {
		switch {
		case i < s.Wave:
			soaked += time.Duration(w.Soak)
		case i < len(s.Waves):
			soaks += time.Duration(w.Soak)
		}
		if i > s.Wave && w.Approval {
			return time.Time{}
		}
	}
	busy := max(now.Sub(j.Started)-soaked, time.Second)
	rest := time.Duration(float64(busy) / float64(ended) * float64(left))
	if r := j.Policy.Rate; r != nil && r.PerMinute > 0 {
		fastest := max(r.PerMinute, r.Most)
		rest = max(rest, time.Duration(float64(total.Pending)/fastest*float64(time.Minute)))
	}
	const farthest = 10 * 365 * 24 * time.Hour
	if rest < 0 || rest > farthest {
		return time.Time{}
	}
	return now.Add(rest + soaks).UTC().Truncate(time.Second)
}

// executionDocument is how a job stands with one target.
type executionDocument struct {
	JobID     string                  `json:"jobId"`
	Kind      engine.JobKind          `json:"kind" enum:"scheduleUpdateTwin,scheduleDeviceMethod,applyConfiguration,runPattern"`
	Run       uint64                  `json:"run"`
	DeviceID  string                  `json:"deviceId"`
	ModuleID  string                  `json:"moduleId,omitempty"`
	Wave      int                     `json:"wave" doc:"From 1."`
	Status    rollout.ExecutionStatus `json:"status" enum:"pending,waiting,running,confirming,retrying,uncertain,succeeded,failed,timedOut,rejected,canceled,removed"`
	Final     bool                    `json:"final"`
	BlockedBy string                  `json:"blockedBy,omitempty" doc:"The job that is in progress on the target."`
	Attempts  int                     `json:"attempts" doc:"Ever begun."`
	Last      []attemptDocument       `json:"lastAttempts,omitempty" doc:"The newest last, at most ten."`
	Code      string                  `json:"code,omitempty" doc:"Of the error, when it ended otherwise than well."`
	Message   string                  `json:"message,omitempty"`
	Response  *methodResult           `json:"response,omitempty" doc:"The target's answer."`

	CreatedTime time.Time `json:"createdTime" doc:"When its turn came; of a pending one, when its job was made."`
	StartedTime time.Time `json:"startedTime,omitzero" doc:"Of the first attempt."`
	UpdatedTime time.Time `json:"updatedTime"`
	EndedTime   time.Time `json:"endedTime,omitzero"`
	DueTime     time.Time `json:"dueTime,omitzero" doc:"When time alone moves it on."`
}

type attemptDocument struct {
	ID        string                  `json:"id"`
	SentTime  time.Time               `json:"sentTime,omitzero" doc:"When its sending was stored, before the wire."`
	EndedTime time.Time               `json:"endedTime,omitzero"`
	Outcome   rollout.ExecutionStatus `json:"outcome,omitempty"`
	Code      string                  `json:"code,omitempty"`
	Message   string                  `json:"message,omitempty"`
	Status    int                     `json:"status,omitempty" doc:"Of the target's answer."`
}

func showExecution(e engine.Execution) executionDocument {
	d := executionDocument{
		JobID: e.Job, Kind: e.Kind, Run: e.Run, DeviceID: e.Target.DeviceID, ModuleID: e.Target.ModuleID, Wave: e.Wave + 1, Status: e.Status, Final: !e.Ended.IsZero(),
		BlockedBy: e.BlockedBy, Attempts: e.Attempts, Code: e.Code, Message: e.Message,
		CreatedTime: e.Created, StartedTime: e.Started, UpdatedTime: e.Updated, EndedTime: e.Ended, DueTime: e.Due,
	}
	for _, a := range e.Last {
		d.Last = append(d.Last, attemptDocument{a.ID, a.Sent, a.Ended, a.Outcome, a.Code, a.Message, a.Status})
	}
	if e.Result != nil {
		d.Response = &methodResult{e.Result.Status, e.Result.Payload}
	}
	return d
}
