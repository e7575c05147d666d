package client

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// JobDraft is a job that is to be made or previewed.
type JobDraft struct {
	Spec     json.RawMessage // a JobSpec, or what stands over Template or Clone
	Template string          // begin with this template
	Clone    string          // begin with what this job was made with
	Token    string          // of a preview: refuse the job if its targets are no longer those
	Sample   int             // of a preview: how many targets to show; 0: the hub's choice
}

// body joins the draft's own members with those of its spec.
func (d JobDraft) body() (json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	if len(d.Spec) > 0 {
		if err := json.Unmarshal(d.Spec, &members); err != nil {
			return nil, fmt.Errorf("read the job: %w", err)
		}
	}
	for name, value := range map[string]string{"template": d.Template, "clone": d.Clone, "token": d.Token} {
		if value != "" {
			text, err := json.Marshal(value)
			if err != nil {
				return nil, err
			}
			members[name] = text
		}
	}
	if d.Sample > 0 {
		members["sample"] = json.RawMessage(strconv.Itoa(d.Sample))
	}
	return json.Marshal(members)
}

// Job is a job with all that it was made with.
type Job struct {
	JobSpec
	JobProgress
	Kind      string `json:"kind"`
	QueryText string `json:"queryText,omitempty"` // what the saved query of the targets stood for
	Principal string `json:"principal"`
	Created   Time   `json:"createdTime"`
	// Warnings are of the answer that made the job without a preview.
	Warnings []JobFault `json:"warnings,omitempty"`

	Raw json.RawMessage `json:"-"` // as it came
}

// UnmarshalJSON keeps what came, too.
func (j *Job) UnmarshalJSON(data []byte) error {
	type plain Job
	if err := json.Unmarshal(data, (*plain)(j)); err != nil {
		return err
	}
	j.Raw = append(json.RawMessage(nil), data...)
	return nil
}

// JobProgress is how a job stands.
type JobProgress struct {
	ETag     string         `json:"etag"`
	Status   string         `json:"status"`              // queued, scheduled, running, paused, canceling, completed, failed, canceled
	WaitsFor string         `json:"waitsFor,omitempty"`  // approval, soak, health, gate, window, rate, devices, turn
	Blocked  string         `json:"blockedBy,omitempty"` // a job that is in progress on devices for which this one waits
	Reason   string         `json:"reason,omitempty"`
	Run      uint64         `json:"run"`
	Wave     int            `json:"wave,omitempty"` // from 1
	Waves    []JobWaveState `json:"waves,omitempty"`
	Total    JobTally       `json:"total"`
	Found    int64          `json:"found,omitempty"` // while it is queued

	Started   Time `json:"startedTime,omitzero"`
	Updated   Time `json:"updatedTime"`
	Ended     Time `json:"endedTime,omitzero"`
	SoakUntil Time `json:"soakUntilTime,omitzero"`
	NextRun   Time `json:"nextRunTime,omitzero"`
	ETA       Time `json:"etaTime,omitzero"`

	Gates []JobGate `json:"gates,omitempty"` // what a pattern's gate said, the oldest first
	Undo  *JobUndo  `json:"undo,omitempty"`  // nil: nobody has taken the job's runs back
}

// JobGate is what a pattern's gate said between two waves.
type JobGate struct {
	Wave     int    `json:"wave"`               // behind which, from 1
	Decision string `json:"decision,omitempty"` // go, pause, abort, undo; empty: it could not be asked
	Reason   string `json:"reason,omitempty"`
	Time     Time   `json:"time"`
}

// JobUndo is how far it is that what a job's runs did is taken back.
type JobUndo struct {
	Reason  string `json:"reason,omitempty"`
	By      string `json:"by"` // who asked for it
	Started Time   `json:"startedTime"`
	Told    bool   `json:"told"` // each run was told so
	Begun   int    `json:"begun"`
	Undone  int    `json:"undone"`
	Failed  int    `json:"failed"`
	Left    int    `json:"left"` // runs with nothing to take back
}

// Final reports whether the job does nothing more by itself, also not again at
// another time.
func (p *JobProgress) Final() bool {
	return (p.Status == "completed" || p.Status == "failed" || p.Status == "canceled") && p.NextRun.IsZero()
}

// JobWaveState is how a wave stands.
type JobWaveState struct {
	Number int    `json:"number"` // from 1
	Status string `json:"status"` // pending, approval, running, soaking, checking, ended
	JobTally
	Approved   string `json:"approvedBy,omitempty"`
	ApprovedAt Time   `json:"approvedTime,omitzero"`
}

// JobTally counts executions by where they are. Size is the sum of the others.
type JobTally struct {
	Size      int `json:"size"`
	Pending   int `json:"pending,omitempty"`
	Waiting   int `json:"waiting,omitempty"`
	Active    int `json:"active,omitempty"`
	Retrying  int `json:"retrying,omitempty"`
	Succeeded int `json:"succeeded,omitempty"`
	Failed    int `json:"failed,omitempty"`
	TimedOut  int `json:"timedOut,omitempty"`
	Rejected  int `json:"rejected,omitempty"`
	Uncertain int `json:"uncertain,omitempty"`
	Canceled  int `json:"canceled,omitempty"`
	Removed   int `json:"removed,omitempty"`
}

// Ended counts those that are over.
func (t *JobTally) Ended() int { return t.Succeeded + t.Bad() + t.Canceled + t.Removed }

// Bad counts those that ended badly.
func (t *JobTally) Bad() int { return t.Failed + t.TimedOut + t.Rejected + t.Uncertain }

// JobPreview is what a job would do.
type JobPreview struct {
	Job       json.RawMessage       `json:"job"` // with the defaults of its policy
	Kind      string                `json:"kind"`
	Count     int64                 `json:"count"`
	Waves     []JobPreviewWave      `json:"waves"`
	First     Time                  `json:"firstTime,omitzero"` // zero: it would never start
	Sample    []JobPreviewTarget    `json:"sample"`
	Excluded  []JobPreviewExclusion `json:"excluded"`
	Conflicts []JobPreviewConflict  `json:"conflicts"`
	Warnings  []JobFault            `json:"warnings"`
	Confirm   string                `json:"confirm,omitempty"` // what a person is to type before; empty: nothing
	Token     string                `json:"token"`
	Expires   Time                  `json:"expiresTime"`

	Raw json.RawMessage `json:"-"` // as it came
}

// JobPreviewWave is one wave of a preview.
type JobPreviewWave struct {
	Number   int      `json:"number"`
	Size     int      `json:"size"`
	Diverse  bool     `json:"diverse,omitempty"`
	Approval bool     `json:"approval,omitempty"`
	Targets  []string `json:"targets,omitempty"` // of small waves
}

// JobPreviewTarget is one target of a preview.
type JobPreviewTarget struct {
	DeviceID  string             `json:"deviceId"`
	ModuleID  string             `json:"moduleId,omitempty"`
	Wave      int                `json:"wave"`
	Connected bool               `json:"connected"`
	Changes   []JobPreviewChange `json:"changes,omitempty"`
	Method    string             `json:"method,omitempty"`
	Pattern   string             `json:"pattern,omitempty"` // and its version
	Fault     string             `json:"fault,omitempty"`
}

// JobPreviewChange is a value that would change.
type JobPreviewChange struct {
	Path   string          `json:"path"`
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

// JobPreviewExclusion says how many are left out for one reason.
type JobPreviewExclusion struct {
	Reason string   `json:"reason"` // exclude, excludeWhere, notFound, or words
	Count  int64    `json:"count"`
	Sample []string `json:"sample"`
}

// JobPreviewConflict is another job on some of the targets.
type JobPreviewConflict struct {
	Job      string `json:"jobId"`
	Kind     string `json:"kind"`
	Status   string `json:"status"`
	Priority int    `json:"priority"`
	Targets  int    `json:"targets"`
}

// JobFault says what is wrong with one member of a document.
type JobFault struct {
	Path     string `json:"path"`
	Reason   string `json:"reason"`
	Expected string `json:"expected,omitempty"`
}

func jobPath(id string) string { return "/api/v1/jobs/" + url.PathEscape(id) }

// PreviewJob says what a job would do, and gives a token that binds its start
// to that.
func (s *Service) PreviewJob(ctx context.Context, d JobDraft) (p JobPreview, err error) {
	body, err := d.body()
	if err != nil {
		return p, err
	}
	err = s.Do(ctx, Request{Method: http.MethodPost, Path: "/api/v1/jobs/preview", Body: body}, &p.Raw)
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(p.Raw, &p); err != nil {
		return p, fmt.Errorf("read the hub's preview: %w", err)
	}
	return p, nil
}

// CreateJob makes a job. key is an Idempotency-Key; with one that was used the
// first answer comes again.
func (s *Service) CreateJob(ctx context.Context, d JobDraft, key string) (j Job, err error) {
	body, err := d.body()
	if err != nil {
		return j, err
	}
	err = s.Do(ctx, Request{Method: http.MethodPost, Path: "/api/v1/jobs", Body: body, Key: key}, &j)
	return j, err
}

// Job returns a job as it stands.
func (s *Service) Job(ctx context.Context, id string) (j Job, err error) {
	err = s.Do(ctx, Request{Method: http.MethodGet, Path: jobPath(id)}, &j)
	return j, err
}

// JobFilter selects jobs; what is empty selects all.
type JobFilter struct {
	Status string // some statuses with commas between, or active
	Kind   string
	Label  string // KEY or KEY=VALUE
}

// Jobs walks the jobs, the newest first.
func (s *Service) Jobs(ctx context.Context, f JobFilter) iter.Seq2[Job, error] {
	q := url.Values{}
	for name, value := range map[string]string{"status": f.Status, "kind": f.Kind, "label": f.Label} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return pages[Job](ctx, s, "/api/v1/jobs", q, 100)
}

// controlJob posts an operation on a job.
func (s *Service) controlJob(ctx context.Context, id, operation string, body map[string]any, etag string, out any) error {
	r := Request{Method: http.MethodPost, Path: jobPath(id) + "/" + operation, IfMatch: etag}
	if len(body) > 0 {
		r.Body = body
	}
	return s.Do(ctx, r, out)
}

func reasonBody(reason string) map[string]any {
	if reason == "" {
		return nil
	}
	return map[string]any{"reason": reason}
}

// PauseJob stops a job from starting anything. etag is empty or the one that
// the job must have, here and in the other operations.
func (s *Service) PauseJob(ctx context.Context, id, reason, etag string) (j Job, err error) {
	err = s.controlJob(ctx, id, "pause", reasonBody(reason), etag, &j)
	return j, err
}

// ResumeJob lets a paused job go on, and accepts the outcomes that made it pause.
func (s *Service) ResumeJob(ctx context.Context, id, etag string) (j Job, err error) {
	err = s.controlJob(ctx, id, "resume", nil, etag, &j)
	return j, err
}

// CancelJob ends a job; what is on its way goes on to its end.
func (s *Service) CancelJob(ctx context.Context, id, reason, etag string) (j Job, err error) {
	err = s.controlJob(ctx, id, "cancel", reasonBody(reason), etag, &j)
	return j, err
}

// UndoJob has the runs of a job take back what they did; it goes on by itself,
// and Undo of the job shows how far it is.
func (s *Service) UndoJob(ctx context.Context, id, reason, etag string) (j Job, err error) {
	err = s.controlJob(ctx, id, "undo", reasonBody(reason), etag, &j)
	return j, err
}

// ApproveJob lets a wave begin, from 1; 0 is the next one that asks for approval.
func (s *Service) ApproveJob(ctx context.Context, id string, wave int, etag string) (j Job, err error) {
	var body map[string]any
	if wave > 0 {
		body = map[string]any{"wave": wave}
	}
	err = s.controlJob(ctx, id, "approve", body, etag, &j)
	return j, err
}

// RetryJob lets executions that ended with one of the outcomes begin again, and
// says how many; no outcomes are all bad ones.
func (s *Service) RetryJob(ctx context.Context, id string, outcomes []string, etag string) (j Job, retried int, err error) {
	var body map[string]any
	if len(outcomes) > 0 {
		body = map[string]any{"outcomes": outcomes}
	}
	var out struct {
		Retried int `json:"retried"`
		Job     Job `json:"job"`
	}
	err = s.controlJob(ctx, id, "retry", body, etag, &out)
	return out.Job, out.Retried, err
}

// DeleteJob deletes a job that has ended, with its executions.
func (s *Service) DeleteJob(ctx context.Context, id, etag string) error {
	return s.Do(ctx, Request{Method: http.MethodDelete, Path: jobPath(id), IfMatch: etag}, nil)
}

// JobEvent is how a job stands at a moment.
type JobEvent struct {
	Cursor string `json:"cursor"`
	Kind   string `json:"kind"` // progress, or ended
	Time   Time   `json:"time"`
	JobID  string `json:"jobId"`
	JobProgress

	Raw json.RawMessage `json:"-"` // as it came
}

// FollowJob tells how a job stands, now and whenever that has changed, until see
// returns an error or the stream ends; errors and cursor are as Follow has them.
func (s *Service) FollowJob(ctx context.Context, id, cursor string, see func(JobEvent) error) (string, error) {
	q := url.Values{}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	return s.follow(ctx, jobPath(id)+"/progress", q, func(data []byte) (string, error) {
		e := JobEvent{Raw: data}
		if err := json.Unmarshal(data, &e); err != nil {
			return "", fmt.Errorf("read the hub's event: %w", err)
		}
		return e.Cursor, see(e)
	})
}
