package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
)

// RunSpec says what is to be run on one device, or for the fleet as a whole.
type RunSpec struct {
	Pattern  string          `json:"pattern"`
	Version  string          `json:"version,omitempty"` // empty: the default
	DeviceID string          `json:"deviceId,omitempty"`
	ModuleID string          `json:"moduleId,omitempty"`
	Params   json.RawMessage `json:"params,omitempty"`
}

// Run is a run of a pattern as it stands.
type Run struct {
	ID       string          `json:"runId"`
	Pattern  string          `json:"pattern"`
	Version  string          `json:"version"`
	Hash     string          `json:"hash"`
	DeviceID string          `json:"deviceId,omitempty"` // empty: it is of the fleet
	ModuleID string          `json:"moduleId,omitempty"`
	Params   json.RawMessage `json:"params,omitempty"`
	Attempt  int             `json:"attempt"`
	JobID    string          `json:"jobId,omitempty"`
	Parent   string          `json:"parentRunId,omitempty"`
	Of       string          `json:"retryOf,omitempty"`
	Trigger  string          `json:"trigger,omitempty"`

	State     string          `json:"state"`
	Final     bool            `json:"final"`
	Entry     string          `json:"entry"` // run or undo
	WaitsFor  string          `json:"waitsFor,omitempty"`
	Due       Time            `json:"dueTime,omitzero"`
	Question  string          `json:"question,omitempty"`
	Phase     string          `json:"phase,omitempty"`
	Progress  float64         `json:"progress,omitempty"` // 0 to 1
	Text      string          `json:"text,omitempty"`
	Steps     int             `json:"stepCount"`
	Result    json.RawMessage `json:"result,omitempty"`
	Fault     *RunFault       `json:"fault,omitempty"`
	Canceling bool            `json:"canceling,omitempty"`

	Principal string  `json:"principal"`
	Created   Time    `json:"createdTime"`
	Started   Time    `json:"startedTime,omitzero"`
	Updated   Time    `json:"updatedTime"`
	Ended     Time    `json:"endedTime,omitzero"`
	ETag      string  `json:"etag"`
	Cost      RunCost `json:"cost"`

	Raw json.RawMessage `json:"-"` // as it came
}

// UnmarshalJSON keeps what came, too.
func (r *Run) UnmarshalJSON(data []byte) error {
	type plain Run
	if err := json.Unmarshal(data, (*plain)(r)); err != nil {
		return err
	}
	r.Raw = append(json.RawMessage(nil), data...)
	return nil
}

// Target is DEVICE or DEVICE/MODULE, or "fleet".
func (r *Run) Target() string {
	switch {
	case r.DeviceID == "":
		return "fleet"
	case r.ModuleID == "":
		return r.DeviceID
	}
	return r.DeviceID + "/" + r.ModuleID
}

// RunFault is why a run, or one of its steps, came to nothing.
type RunFault struct {
	Code    string          `json:"code"`
	Message string          `json:"message"`
	Status  int             `json:"status,omitempty"`
	Cause   json.RawMessage `json:"cause,omitempty"`
	Payload json.RawMessage `json:"payload,omitempty"`
	Line    string          `json:"line,omitempty"` // pattern.lua:44
	Trace   []string        `json:"trace,omitempty"`
}

// RunCost is what a run took.
type RunCost struct {
	Activations  int     `json:"activations"`
	Instructions int64   `json:"instructions"`
	Calls        int64   `json:"calls"`
	Peak         int64   `json:"peakInstructions"` // of one activation
	Seconds      float64 `json:"seconds"`          // in workers
	Journal      int     `json:"journalBytes"`

	Hot []PatternLine `json:"hot,omitempty"` // of slow activations, sampled; the hottest first
}

// RunTrace is a run with what it did.
type RunTrace struct {
	Run
	Steps []RunStep                  `json:"steps"`
	Logs  []RunLog                   `json:"logs"`
	Kept  map[string]json.RawMessage `json:"kept,omitempty"`

	Raw json.RawMessage `json:"-"` // as it came
}

// UnmarshalJSON reads the run and what it did, and keeps what came.
func (t *RunTrace) UnmarshalJSON(data []byte) error {
	var did struct {
		Steps []RunStep                  `json:"steps"`
		Logs  []RunLog                   `json:"logs"`
		Kept  map[string]json.RawMessage `json:"kept"`
	}
	if err := json.Unmarshal(data, &did); err != nil {
		return err
	}
	if err := json.Unmarshal(data, &t.Run); err != nil {
		return err
	}
	t.Steps, t.Logs, t.Kept, t.Raw = did.Steps, did.Logs, did.Kept, t.Run.Raw
	return nil
}

// RunStep is a host call of a run.
type RunStep struct {
	Number   int             `json:"number"` // from 1, among those of its entry
	Entry    string          `json:"entry"`  // run or undo
	Op       string          `json:"op"`     // dev.call
	Args     json.RawMessage `json:"args,omitempty"`
	State    string          `json:"state"` // waiting, done or failed
	Result   json.RawMessage `json:"result,omitempty"`
	Fault    *RunFault       `json:"fault,omitempty"`
	Line     string          `json:"line,omitempty"`   // pattern.lua:44
	Source   string          `json:"source,omitempty"` // what stands there
	Deferred bool            `json:"deferred,omitempty"`
	Tries    int             `json:"tries,omitempty"`
	Ref      string          `json:"ref,omitempty"` // a queued call, a run, a job
	Begun    Time            `json:"begunTime,omitzero"`
	Ended    Time            `json:"endedTime,omitzero"`
	Due      Time            `json:"dueTime,omitzero"`
}

// RunLog is a line that a program logged.
type RunLog struct {
	Time Time   `json:"time,omitzero"`
	Line string `json:"line,omitempty"`
	Text string `json:"text"`
}

// RunFilter selects runs; what is zero selects all.
type RunFilter struct {
	Pattern  string `json:"pattern,omitempty"`
	DeviceID string `json:"deviceId,omitempty"`
	ModuleID string `json:"moduleId,omitempty"`
	JobID    string `json:"jobId,omitempty"`
	State    string `json:"state,omitempty"` // some states with commas between, or active
	Asks     bool   `json:"asks,omitempty"`  // a person is to decide
}

func (f RunFilter) values() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"pattern": f.Pattern, "deviceId": f.DeviceID, "moduleId": f.ModuleID, "jobId": f.JobID, "state": f.State} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if f.Asks {
		q.Set("asks", "true")
	}
	return q
}

func runPath(id string) string { return "/api/v1/runs/" + url.PathEscape(id) }

// StartRun starts a pattern on one device, or for the fleet. key is an
// Idempotency-Key; with one that was used the first answer comes again.
func (s *Service) StartRun(ctx context.Context, spec RunSpec, key string) (r Run, err error) {
	err = s.Do(ctx, Request{Method: http.MethodPost, Path: "/api/v1/runs", Body: spec, Key: key}, &r)
	return r, err
}

// Runs walks runs, the newest first.
func (s *Service) Runs(ctx context.Context, f RunFilter) iter.Seq2[Run, error] {
	return pages[Run](ctx, s, "/api/v1/runs", f.values(), 200)
}

// ExportRuns writes all runs that a filter selects as a stream, "csv" or
// "ndjson", as the hub sends them. A stream that ends in an error is not whole.
func (s *Service) ExportRuns(ctx context.Context, f RunFilter, format string, w io.Writer) error {
	q := f.values()
	q.Set("format", format)
	return s.stream(ctx, Request{Method: http.MethodGet, Path: "/api/v1/runs/export", Query: q}, w)
}

// Run returns a run as it stands.
func (s *Service) Run(ctx context.Context, id string) (r Run, err error) {
	err = s.Do(ctx, Request{Method: http.MethodGet, Path: runPath(id)}, &r)
	return r, err
}

// RunTrace returns a run with its steps, logs and source lines.
func (s *Service) RunTrace(ctx context.Context, id string) (t RunTrace, err error) {
	err = s.Do(ctx, Request{Method: http.MethodGet, Path: runPath(id) + "/trace"}, &t)
	return t, err
}

func (s *Service) controlRun(ctx context.Context, id, operation string, body any) (r Run, err error) {
	err = s.Do(ctx, Request{Method: http.MethodPost, Path: runPath(id) + "/" + operation, Body: body, Key: rand.Text()}, &r)
	return r, err
}

// CancelRunOptions say how a run is canceled.
type CancelRunOptions struct {
	Reason string `json:"reason,omitempty"`
	Undo   bool   `json:"undo,omitempty"` // and then undone
	Now    bool   `json:"now,omitempty"`  // its deferred functions do not run
}

// CancelRun asks a run to end.
func (s *Service) CancelRun(ctx context.Context, id string, o CancelRunOptions) (Run, error) {
	return s.controlRun(ctx, id, "cancel", o)
}

// CancelRuns cancels the runs that a filter selects, and says how many.
func (s *Service) CancelRuns(ctx context.Context, f RunFilter, o CancelRunOptions) (int, error) {
	var out struct {
		Canceled int `json:"canceled"`
	}
	body := struct {
		Filter RunFilter `json:"filter"`
		CancelRunOptions
	}{f, o}
	err := s.Do(ctx, Request{Method: http.MethodPost, Path: "/api/v1/runs/cancel", Body: body, Key: rand.Text()}, &out)
	return out.Canceled, err
}

// UndoRun has a run that has ended take back what it did.
func (s *Service) UndoRun(ctx context.Context, id string) (Run, error) {
	return s.controlRun(ctx, id, "undo", nil)
}

// RetryRun starts a run again that has ended: from its start, or from a step;
// version is empty for its own.
func (s *Service) RetryRun(ctx context.Context, id string, from int, version string) (Run, error) {
	body := map[string]any{}
	if from > 0 {
		body["from"] = from
	}
	if version != "" {
		body["version"] = version
	}
	return s.controlRun(ctx, id, "retry", body)
}

// DecideRun answers the question of a run.
func (s *Service) DecideRun(ctx context.Context, id string, approve bool, reason string) (Run, error) {
	return s.controlRun(ctx, id, "decide", decision{Approve: approve, Reason: reason})
}

type decision struct {
	Filter  *RunFilter `json:"filter,omitempty"`
	Approve bool       `json:"approve"`
	Reason  string     `json:"reason,omitempty"`
}

// DecideRuns answers the questions of the runs that a filter selects, and says
// how many.
func (s *Service) DecideRuns(ctx context.Context, f RunFilter, approve bool, reason string) (int, error) {
	var out struct {
		Decided int `json:"decided"`
	}
	err := s.Do(ctx, Request{Method: http.MethodPost, Path: "/api/v1/runs/decide", Body: decision{&f, approve, reason}, Key: rand.Text()}, &out)
	return out.Decided, err
}

// RunEvent is how a run stands at a moment.
type RunEvent struct {
	Cursor string `json:"cursor"`
	Kind   string `json:"kind"` // progress, or ended
	At     Time   `json:"time"`
	Run

	Raw json.RawMessage `json:"-"` // as it came
}

// UnmarshalJSON reads the event and its run.
func (e *RunEvent) UnmarshalJSON(data []byte) error {
	var head struct {
		Cursor string `json:"cursor"`
		Kind   string `json:"kind"`
		Time   Time   `json:"time"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return err
	}
	if err := json.Unmarshal(data, &e.Run); err != nil {
		return err
	}
	e.Cursor, e.Kind, e.At, e.Raw = head.Cursor, head.Kind, head.Time, e.Run.Raw
	return nil
}

// FollowRun tells how a run stands, now and whenever that has changed, until see
// returns an error or the stream ends; errors and cursor are as Follow has them.
func (s *Service) FollowRun(ctx context.Context, id, cursor string, see func(RunEvent) error) (string, error) {
	q := url.Values{}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	return s.follow(ctx, runPath(id)+"/stream", q, func(data []byte) (string, error) {
		var e RunEvent
		if err := json.Unmarshal(data, &e); err != nil {
			return "", fmt.Errorf("read the hub's event: %w", err)
		}
		return e.Cursor, see(e)
	})
}
