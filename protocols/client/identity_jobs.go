package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// IdentityJobAsk is what to import or export.
type IdentityJobAsk struct {
	Type        string `json:"type"` // "import" or "export"
	Description string `json:"description,omitempty"`
	Container   string `json:"container"`
	Blob        string `json:"blob,omitempty"`
	Mode        string `json:"mode,omitempty"`
	DryRun      bool   `json:"dryRun,omitempty"`
	ExcludeKeys bool   `json:"excludeKeys,omitempty"`
	Where       string `json:"where,omitempty"`
}

// IdentityJob is an import or an export of identities.
type IdentityJob struct {
	ID            string            `json:"id"`
	Type          string            `json:"type"`
	Description   string            `json:"description,omitempty"`
	Status        string            `json:"status"` // "enqueued", "running", "completed", "failed", "cancelled"
	FailureReason string            `json:"failureReason,omitempty"`
	Progress      int               `json:"progress"`
	Counts        IdentityJobCounts `json:"counts"`
	Done          int64             `json:"done"`
	Total         int64             `json:"total"`
	Container     string            `json:"container"`
	Blob          string            `json:"blob"`
	Mode          string            `json:"mode,omitempty"`
	DryRun        bool              `json:"dryRun,omitempty"`
	ExcludeKeys   bool              `json:"excludeKeys,omitempty"`
	Where         string            `json:"where,omitempty"`
	Principal     string            `json:"principal"`
	CreatedTime   time.Time         `json:"createdTime"`
	StartedTime   time.Time         `json:"startedTime,omitzero"`
	UpdatedTime   time.Time         `json:"updatedTime"`
	EndedTime     time.Time         `json:"endedTime,omitzero"`
}

// IdentityJobCounts are what a job has done so far; of an export, Created is
// what it has written.
type IdentityJobCounts struct {
	Lines   int64 `json:"lines"`
	Skipped int64 `json:"skipped"`
	Created int64 `json:"created"`
	Updated int64 `json:"updated"`
	Deleted int64 `json:"deleted"`
	Failed  int64 `json:"failed"`
	Logged  int64 `json:"logged"`
}

// Ended reports whether the job has ended, however.
func (j *IdentityJob) Ended() bool {
	return j.Status == "completed" || j.Status == "failed" || j.Status == "cancelled"
}

const identityJobsPath = "/api/v1/identity-jobs"

// CreateIdentityJob makes an import or export. key is an Idempotency-Key, or
// empty.
func (s *Service) CreateIdentityJob(ctx context.Context, ask IdentityJobAsk, key string) (IdentityJob, error) {
	var j IdentityJob
	err := s.Do(ctx, Request{Method: http.MethodPost, Path: identityJobsPath, Key: key, Body: ask}, &j)
	return j, err
}

// IdentityJob reads an import or export.
func (s *Service) IdentityJob(ctx context.Context, id string) (IdentityJob, error) {
	var j IdentityJob
	err := s.Do(ctx, Request{Method: http.MethodGet, Path: identityJobsPath + "/" + url.PathEscape(id)}, &j)
	return j, err
}

// IdentityJobs walks imports and exports, the newest first.
func (s *Service) IdentityJobs(ctx context.Context) iter.Seq2[IdentityJob, error] {
	return pages[IdentityJob](ctx, s, identityJobsPath, nil, pageSize)
}

// CancelIdentityJob ends an import or export.
func (s *Service) CancelIdentityJob(ctx context.Context, id string) (IdentityJob, error) {
	var j IdentityJob
	err := s.Do(ctx, Request{Method: http.MethodPost, Path: identityJobsPath + "/" + url.PathEscape(id) + "/cancel"}, &j)
	return j, err
}
