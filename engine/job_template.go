package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// JobTemplate is a job's spec with a name, or a part of one. Each change makes
// a version; the versions before are kept, as many as of a saved query.
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

type jobTemplateRecord struct {
	Description string          `json:"t,omitempty"`
	Spec        json.RawMessage `json:"s"`
	versionStamp
}

var (
	jobTemplateTable        = storage.NewTable[jobTemplateRecord]("job_template", 1, plainJSON[jobTemplateRecord]{storage.JSON[jobTemplateRecord]()})
	jobTemplateVersionTable = storage.NewTable[jobTemplateRecord]("job_template_version", 1, plainJSON[jobTemplateRecord]{storage.JSON[jobTemplateRecord]()})
)

const (
	counterJobTemplates = "jobs.templates"
	jobTemplateName     = 64
)

func (h *Hub) jobTemplates() *named[jobTemplateRecord, JobTemplate] {
	return &named[jobTemplateRecord, JobTemplate]{
		hub: h, noun: "job template", plural: "job templates", newest: jobTemplateTable, kept: jobTemplateVersionTable,
		counter: counterJobTemplates, most: h.limits.JobTemplates, missing: CodeJobTemplateNotFound, read: opJobRead,
		show: func(name, etag string, r jobTemplateRecord) JobTemplate {
			return JobTemplate{
				Name: name, Description: r.Description, Spec: r.Spec, Version: r.Version, ETag: etag,
				Principal: r.Principal, Created: r.Created.UTC(), Updated: r.Updated.UTC(),
			}
		},
	}
}

// ParseJobSpec reads a job's JSON form. What it does not know is
// CodeArgumentInvalid with rollout.Faults as its cause, which say where.
func ParseJobSpec(text []byte) (s JobSpec, err error) {
	if err := rollout.Decode(text, "job", &s); err != nil {
		return s, wrapf(CodeArgumentInvalid, err, "%s", err.Error())
	}
	return s, nil
}

// JobTemplates lists the templates by name. It needs ServiceConnect.
func (h *Hub) JobTemplates(ctx context.Context, c Caller) ([]JobTemplate, error) {
	return h.jobTemplates().list(ctx, c)
}

// JobTemplate returns a template: its newest version when version is 0. It
// needs ServiceConnect.
func (h *Hub) JobTemplate(ctx context.Context, c Caller, name string, version uint64) (JobTemplate, error) {
	return h.jobTemplates().one(ctx, c, name, version)
}

// JobTemplateVersions lists the versions of a template that are kept, newest
// first. It needs ServiceConnect.
func (h *Hub) JobTemplateVersions(ctx context.Context, c Caller, name string) ([]JobTemplate, error) {
	return h.jobTemplates().versions(ctx, c, name)
}

func (h *Hub) checkJobTemplate(t *JobTemplate) error {
	if err := checkID("name of a job template", t.Name, jobTemplateName); err != nil {
		return err
	}
	if n := len(t.Description); n > jobDescriptionBytes {
		return errf(CodeArgumentInvalid, "description has %d bytes; expected at most %d", n, jobDescriptionBytes)
	}
	if most := h.limits.JobBytes; len(t.Spec) > most {
		return errf(CodeTooLarge, "the template has %d bytes; expected at most %d", len(t.Spec), most)
	}
	s, err := ParseJobSpec(t.Spec)
	if err != nil {
		return err
	}
	if s.ID != "" {
		return errf(CodeArgumentInvalid, "a template has no id: each of its jobs has its own")
	}
	var spec bytes.Buffer
	if err := json.Compact(&spec, t.Spec); err != nil {
		return wrapf(CodeFormat, err, "the template is not JSON")
	}
	t.Spec = spec.Bytes()
	return nil
}

// PutJobTemplate makes a template, or a new version of one when something of it
// differs. etag is empty, "*" when it must exist, or the one that it must have.
// It needs ServiceConnect.
func (h *Hub) PutJobTemplate(ctx context.Context, c Caller, t JobTemplate, etag string) (JobTemplate, error) {
	if err := h.authorize(ctx, c, opJobTemplateWrite, t.Name); err != nil {
		return JobTemplate{}, err
	}
	if err := h.checkJobTemplate(&t); err != nil {
		return JobTemplate{}, err
	}
	var out JobTemplate
	err := h.step(ctx, "job.template", func(tx *storage.Tx) (err error) {
		var version uint64
		out, version, err = h.jobTemplates().putTx(tx, c, t.Name, etag, func(old jobTemplateRecord) bool {
			return bytes.Equal(old.Spec, t.Spec) && old.Description == t.Description
		}, func(stamp versionStamp) jobTemplateRecord {
			return jobTemplateRecord{t.Description, t.Spec, stamp}
		})
		if err != nil || version == 0 {
			return err
		}
		return h.auditTx(tx, c, opJobTemplateWrite, t.Name, jobDetails(map[string]any{"template": t.Name, "version": version}))
	})
	return out, err
}

// DeleteJobTemplate removes a template with its versions. etag is as in
// PutJobTemplate. It needs ServiceConnect.
func (h *Hub) DeleteJobTemplate(ctx context.Context, c Caller, name, etag string) error {
	if err := h.authorize(ctx, c, opJobTemplateWrite, name); err != nil {
		return err
	}
	return h.step(ctx, "job.templateDelete", func(tx *storage.Tx) error {
		if _, err := h.jobTemplates().deleteTx(tx, name, etag); err != nil {
			return err
		}
		return h.auditTx(tx, c, opJobTemplateWrite, name, json.RawMessage(`{"deleted":true}`))
	})
}

// JobFromTemplate returns a job's spec from a template: its newest version when
// version is 0. Overrides are the JSON form of a spec, of which members may be
// missing: what they have, also below targets, action and policy, takes the place
// of what the template has, and null takes it away. It needs ServiceConnect.
func (h *Hub) JobFromTemplate(ctx context.Context, c Caller, name string, version uint64, overrides json.RawMessage) (JobSpec, error) {
	t, err := h.JobTemplate(ctx, c, name, version)
	if err != nil {
		return JobSpec{}, err
	}
	return h.overridden(t.Spec, overrides)
}

// overridden is a spec with other members of its own, in JSON.
func (h *Hub) overridden(spec, overrides json.RawMessage) (JobSpec, error) {
	if most := h.limits.JobBytes; len(overrides) > most {
		return JobSpec{}, errf(CodeTooLarge, "the overrides have %d bytes; expected at most %d", len(overrides), most)
	}
	if len(overrides) > 0 {
		// Whatever is wrong with them is told of them, not of what they make.
		err := rollout.Decode(overrides, "overrides", new(JobSpec))
		if err != nil {
			return JobSpec{}, wrapf(CodeArgumentInvalid, err, "%s", err.Error())
		}
		if spec, err = override(spec, overrides, 2); err != nil {
			return JobSpec{}, err
		}
	}
	return ParseJobSpec(spec)
}

// override puts the members of an object into another one, down to a depth.
func override(text, with json.RawMessage, depth int) (json.RawMessage, error) {
	var base, over map[string]json.RawMessage
	if json.Unmarshal(with, &over) != nil || over == nil {
		return with, nil // what is no object takes the place
	}
	if json.Unmarshal(text, &base) != nil || base == nil {
		base = map[string]json.RawMessage{}
	}
	for _, key := range slices.Sorted(maps.Keys(over)) {
		switch v := over[key]; {
		case isNull(v):
			delete(base, key)
		case depth > 1 && slices.Contains([]string{"targets", "action", "policy"}, key):
			merged, err := override(base[key], v, depth-1)
			if err != nil {
				return nil, err
			}
			base[key] = merged
		default:
			base[key] = v
		}
	}
	return marshal(base)
}

func isNull(v json.RawMessage) bool { return string(bytes.TrimSpace(v)) == "null" }
