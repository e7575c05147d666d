package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// Execution is how a job stands with one device or module.
type Execution struct {
	JobID     string        `json:"jobId"`
	Kind      string        `json:"kind"`
	Run       uint64        `json:"run"`
	DeviceID  string        `json:"deviceId"`
	ModuleID  string        `json:"moduleId,omitempty"`
	Wave      int           `json:"wave"` // from 1
	Status    string        `json:"status"`
	Final     bool          `json:"final"`
	BlockedBy string        `json:"blockedBy,omitempty"` // the job that is in progress on the target
	Attempts  int           `json:"attempts"`
	Last      []Attempt     `json:"lastAttempts,omitempty"` // the newest last
	Code      string        `json:"code,omitempty"`
	Message   string        `json:"message,omitempty"`
	Response  *MethodResult `json:"response,omitempty"`

	Created Time `json:"createdTime"`
	Started Time `json:"startedTime,omitzero"`
	Updated Time `json:"updatedTime"`
	Ended   Time `json:"endedTime,omitzero"`
	Due     Time `json:"dueTime,omitzero"`
}

// Target is DEVICE or DEVICE/MODULE.
func (e *Execution) Target() string {
	if e.ModuleID == "" {
		return e.DeviceID
	}
	return e.DeviceID + "/" + e.ModuleID
}

// Attempt is one try of an execution.
type Attempt struct {
	ID      string `json:"id"`
	Sent    Time   `json:"sentTime,omitzero"`
	Ended   Time   `json:"endedTime,omitzero"`
	Outcome string `json:"outcome,omitempty"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	Status  int    `json:"status,omitempty"` // of the target's answer
}

// ExecutionFilter selects executions; what is zero selects all.
type ExecutionFilter struct {
	Status string
	Wave   int    // from 1
	Run    uint64 // 0: the newest
}

func (f ExecutionFilter) values() url.Values {
	q := url.Values{}
	if f.Status != "" {
		q.Set("status", f.Status)
	}
	if f.Wave > 0 {
		q.Set("wave", strconv.Itoa(f.Wave))
	}
	if f.Run > 0 {
		q.Set("run", strconv.FormatUint(f.Run, 10))
	}
	return q
}

// Executions walks the executions of a job by device, those that have begun
// before those that are pending.
func (s *Service) Executions(ctx context.Context, job string, f ExecutionFilter) iter.Seq2[Execution, error] {
	return pages[Execution](ctx, s, jobPath(job)+"/executions", f.values(), 500)
}

// ExportExecutions writes all executions of a job as a stream, "csv" or
// "ndjson", as the hub sends them. A stream that ends in an error is not whole.
func (s *Service) ExportExecutions(ctx context.Context, job string, f ExecutionFilter, format string, w io.Writer) error {
	q := f.values()
	q.Set("format", format)
	return s.stream(ctx, Request{Method: http.MethodGet, Path: jobPath(job) + "/executions", Query: q}, w)
}

// stream copies an answer to w as it comes.
func (s *Service) stream(ctx context.Context, r Request, w io.Writer) error {
	req, err := s.request(ctx, r)
	if err != nil {
		return err
	}
	res, err := s.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return &ConnectError{Target: s.target, Err: err}
	}
	defer func() { _ = res.Body.Close() }() // read to its end, or given up with the connection
	if res.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes))
		if err != nil {
			return &ConnectError{Target: s.target, Err: err}
		}
		return parseError(res.StatusCode, res.Header, body)
	}
	out := &noted{w: w}
	if _, err := io.Copy(out, res.Body); err != nil {
		if out.err != nil {
			return out.err
		}
		return &ConnectError{Target: s.target, Err: fmt.Errorf("the answer was cut off: %w", err)}
	}
	return nil
}

// noted remembers its writer's error, to tell it from the reader's.
type noted struct {
	w   io.Writer
	err error
}

func (n *noted) Write(b []byte) (int, error) {
	k, err := n.w.Write(b)
	n.err = err
	return k, err
}

// DeviceJobs walks the executions of all jobs on a device or module.
func (s *Service) DeviceJobs(ctx context.Context, deviceID, moduleID string) iter.Seq2[Execution, error] {
	return pages[Execution](ctx, s, identityPath("/api/v1/devices", deviceID, moduleID)+"/jobs", nil, 500)
}

// JobFailure counts executions that ended badly in one way.
type JobFailure struct {
	Status   string `json:"status"`
	Code     string `json:"code"`
	Count    int    `json:"count"`
	Message  string `json:"message"` // of one of them
	DeviceID string `json:"deviceId"`
	ModuleID string `json:"moduleId,omitempty"`
}

// JobFailures counts a job's executions that ended badly, the most frequent way
// first. complete is false when there are more than the hub counts.
func (s *Service) JobFailures(ctx context.Context, job string, run uint64) (list []JobFailure, complete bool, err error) {
	var out struct {
		Items    []JobFailure `json:"items"`
		Complete bool         `json:"complete"`
	}
	err = s.Do(ctx, Request{Method: http.MethodGet, Path: jobPath(job) + "/failures", Query: ExecutionFilter{Run: run}.values()}, &out)
	return out.Items, out.Complete, err
}

// JobTemplate is a job, perhaps without some members, with a name.
type JobTemplate struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Job         json.RawMessage `json:"job"`
	Version     uint64          `json:"version"`
	Principal   string          `json:"principal"`
	ETag        string          `json:"etag"`
	Created     Time            `json:"createdTime"`
	Updated     Time            `json:"updatedTime"`
}

func templatePath(name string) string { return "/api/v1/job-templates/" + url.PathEscape(name) }

// JobTemplates walks the job templates by name.
func (s *Service) JobTemplates(ctx context.Context) iter.Seq2[JobTemplate, error] {
	return pages[JobTemplate](ctx, s, "/api/v1/job-templates", nil, 100)
}

// JobTemplate returns a job template, its newest version when version is 0.
func (s *Service) JobTemplate(ctx context.Context, name string, version uint64) (JobTemplate, error) {
	return ofVersion[JobTemplate](ctx, s, templatePath(name), version)
}

// JobTemplateVersions walks the versions of a job template, newest first.
func (s *Service) JobTemplateVersions(ctx context.Context, name string) iter.Seq2[JobTemplate, error] {
	return pages[JobTemplate](ctx, s, templatePath(name)+"/versions", nil, 100)
}

// PutJobTemplate saves a job under a name. etag is empty, * when the template
// must exist, or the one that it must have.
func (s *Service) PutJobTemplate(ctx context.Context, name, description string, job json.RawMessage, etag string) (t JobTemplate, err error) {
	body := map[string]any{"job": job}
	if description != "" {
		body["description"] = description
	}
	err = s.Do(ctx, Request{Method: http.MethodPut, Path: templatePath(name), Body: body, IfMatch: etag}, &t)
	return t, err
}

// DeleteJobTemplate deletes a job template with its versions.
func (s *Service) DeleteJobTemplate(ctx context.Context, name, etag string) error {
	return s.Do(ctx, Request{Method: http.MethodDelete, Path: templatePath(name), IfMatch: etag}, nil)
}
