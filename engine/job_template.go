package engine

import (
	"context"
	"encoding/json"
	"time"
)

// JobTemplate is a job's spec with a name. Each change makes a version; the
// versions before are kept, as many as of a saved query.
type JobTemplate struct {
	Name        string
	Description string
	Spec        json.RawMessage // a JobSpec's JSON form, of which members may be missing
	Version     uint64          // from 1
	ETag        string          // without quotes
	Principal   string          // who made this version
	Created     time.Time
	Updated     time.Time // when this version was made
}

// JobTemplates lists the templates by name. It needs ServiceConnect.
func (h *Hub) JobTemplates(ctx context.Context, c Caller) ([]JobTemplate, error) {
	return nil, errf(CodeInternal, "not built")
}

// JobTemplate returns a template: its newest version when version is 0. It
// needs ServiceConnect.
func (h *Hub) JobTemplate(ctx context.Context, c Caller, name string, version uint64) (JobTemplate, error) {
	return JobTemplate{}, errf(CodeInternal, "not built")
}

// PutJobTemplate makes a template, or a new version of one. etag is empty, "*"
// when it must exist, or the one that it must have. It needs ServiceConnect.
func (h *Hub) PutJobTemplate(ctx context.Context, c Caller, t JobTemplate, etag string) (JobTemplate, error) {
	return JobTemplate{}, errf(CodeInternal, "not built")
}

// DeleteJobTemplate removes a template with its versions. It needs ServiceConnect.
func (h *Hub) DeleteJobTemplate(ctx context.Context, c Caller, name, etag string) error {
	return errf(CodeInternal, "not built")
}

// JobFromTemplate returns the spec of a template's newest version, with what
// overrides has (a JSON merge patch) in place of what the template has. It needs
// ServiceConnect.
func (h *Hub) JobFromTemplate(ctx context.Context, c Caller, name string, overrides json.RawMessage) (JobSpec, error) {
	return JobSpec{}, errf(CodeInternal, "not built")
}
