package service

import (
	"net/http"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

// jobProperties is an import or export job as IoT Hub shows it. Addresses of
// containers come back empty, since they hold tokens.
type jobProperties struct {
	JobID                  string  `json:"jobId"`
	StartTimeUTC           *string `json:"startTimeUtc"`
	EndTimeUTC             *string `json:"endTimeUtc"`
	Type                   string  `json:"type" enum:"import,export"`
	Status                 string  `json:"status" enum:"enqueued,running,completed,failed,cancelled"`
	Progress               int     `json:"progress" doc:"Percent."`
	InputBlobContainerURI  string  `json:"inputBlobContainerUri"`
	InputBlobName          string  `json:"inputBlobName,omitempty"`
	OutputBlobContainerURI string  `json:"outputBlobContainerUri"`
	OutputBlobName         string  `json:"outputBlobName,omitempty"`
	ExcludeKeysInExport    bool    `json:"excludeKeysInExport"`
	StorageAuthentication  string  `json:"storageAuthenticationType,omitempty" enum:"keyBased,identityBased"`
	IncludeConfigurations  bool    `json:"includeConfigurations"`
	ConfigurationsBlobName string  `json:"configurationsBlobName,omitempty"`
	FailureReason          *string `json:"failureReason"`
}

// jobRequest is the body of POST /jobs/create.
type jobRequest struct {
	Type                   string `json:"type" enum:"import,export"`
	InputBlobContainerURI  string `json:"inputBlobContainerUri,omitempty" doc:"Of this hub, with its token."`
	InputBlobName          string `json:"inputBlobName,omitempty" doc:"devices.txt when absent."`
	OutputBlobContainerURI string `json:"outputBlobContainerUri,omitempty" doc:"Of this hub, with its token; an import writes importErrors.log there."`
	OutputBlobName         string `json:"outputBlobName,omitempty" doc:"devices.txt when absent."`
	ExcludeKeysInExport    bool   `json:"excludeKeysInExport,omitempty"`
	StorageAuthentication  string `json:"storageAuthenticationType,omitempty" enum:"keyBased,identityBased" doc:"identityBased: an address without a token is good by the caller's own permission."`
	IncludeConfigurations  bool   `json:"includeConfigurations,omitempty"`
	ConfigurationsBlobName string `json:"configurationsBlobName,omitempty" doc:"configurations.txt when absent."`
}

// identityJobBody is what a client sends to Muster's own path.
type identityJobBody struct {
	Type           string `json:"type" enum:"import,export"`
	Description    string `json:"description,omitempty"`
	Container      string `json:"container" doc:"Name: where the lines are or go, and an import's importErrors.log."`
	Blob           string `json:"blob,omitempty" doc:"devices.txt when absent."`
	Mode           string `json:"mode,omitempty" doc:"Import: the importMode of lines that name none; createOrUpdate when absent."`
	DryRun         bool   `json:"dryRun,omitempty" doc:"Import: check each line and change nothing."`
	ExcludeKeys    bool   `json:"excludeKeys,omitempty" doc:"Export: without keys."`
	Where          string `json:"where,omitempty" doc:"Export: only devices that this predicate matches, with their modules."`
	Configurations bool   `json:"configurations,omitempty" doc:"Also configurations.txt."`
}

type identityJobDocument struct {
	ID            string            `json:"id"`
	Type          string            `json:"type" enum:"import,export"`
	Description   string            `json:"description,omitempty"`
	Status        string            `json:"status" enum:"enqueued,running,completed,failed,cancelled"`
	FailureReason string            `json:"failureReason,omitempty"`
	Progress      int               `json:"progress" doc:"Percent."`
	Counts        identityJobCounts `json:"counts"`
	Done          int64             `json:"done" doc:"Import: bytes of the file; export: devices."`
	Total         int64             `json:"total"`
	Container     string            `json:"container"`
	Blob          string            `json:"blob"`
	Mode          string            `json:"mode,omitempty"`
	DryRun        bool              `json:"dryRun,omitempty"`
	ExcludeKeys   bool              `json:"excludeKeys,omitempty"`
	Where         string            `json:"where,omitempty"`
	Principal     string            `json:"principal" doc:"For whom it acts."`
	CreatedTime   time.Time         `json:"createdTime"`
	StartedTime   *time.Time        `json:"startedTime,omitempty"`
	UpdatedTime   time.Time         `json:"updatedTime" doc:"Of its last step."`
	EndedTime     *time.Time        `json:"endedTime,omitempty"`
}

type identityJobCounts struct {
	Lines   int64 `json:"lines"`
	Skipped int64 `json:"skipped" doc:"Blank lines, and those that do not begin with {."`
	Created int64 `json:"created" doc:"Of an export: written."`
	Updated int64 `json:"updated"`
	Deleted int64 `json:"deleted"`
	Failed  int64 `json:"failed"`
	Logged  int64 `json:"logged" doc:"How many of the failed lines importErrors.log has: it has a bound."`

	Configurations int64 `json:"configurations,omitempty" doc:"Written, or made and changed, with configurations."`
}

func identityJobRoutes() []*route {
	const read, write = auth.RegistryRead, auth.RegistryWrite
	table := []*route{
		{method: http.MethodPost, pattern: "/jobs/create", operation: "createImportExportJob", tag: tagBulk, permission: write,
			summary: "Makes an import or export job of device identities.", request: jobRequest{}, response: jobProperties{}, held: true, handle: createJobProperties},
		{method: http.MethodGet, pattern: "/jobs", operation: "listImportExportJobs", tag: tagBulk, permission: read,
			summary: "Lists import and export jobs, the newest first.", response: []jobProperties{}, handle: listJobProperties},
		{method: http.MethodGet, pattern: "/jobs/{id}", operation: "getImportExportJob", tag: tagBulk, permission: read,
			summary: "Returns an import or export job.", response: jobProperties{}, handle: getJobProperties},
		{method: http.MethodDelete, pattern: "/jobs/{id}", operation: "cancelImportExportJob", tag: tagBulk, permission: write,
			summary: "Cancels an import or export job; one that has ended stays as it is.", status: http.StatusNoContent, handle: cancelJobProperties},
	}
	const all = "/api/v1/identity-jobs"
	own := []*route{
		{method: http.MethodGet, pattern: all, operation: "listIdentityJobs", tag: tagBulk, permission: read, query: listQuery("jobs"),
			summary: "Lists imports and exports of identities, the newest first.", response: page[identityJobDocument]{}, handle: listIdentityJobs},
		{method: http.MethodPost, pattern: all, operation: "createIdentityJob", tag: tagBulk, permission: write, idempotent: true,
			summary: "Makes an import or export of identities between the hub and a container of it.", request: identityJobBody{}, response: identityJobDocument{}, status: http.StatusCreated, held: true, handle: createIdentityJob},
		{method: http.MethodGet, pattern: all + "/{id}", operation: "getIdentityJob", tag: tagBulk, permission: read,
			summary: "Returns an import or export with its counts.", response: identityJobDocument{}, handle: getIdentityJob},
		{method: http.MethodPost, pattern: all + "/{id}/cancel", operation: "cancelIdentityJob", tag: tagBulk, permission: write, idempotent: true,
			summary: "Ends an import or export; what it has done stays done.", response: identityJobDocument{}, handle: cancelIdentityJob},
	}
	for _, r := range own {
		r.shape = shapeProblem
	}
	return append(table, own...)
}

func showJobProperties(j engine.IdentityJob) jobProperties {
	p := jobProperties{
		JobID: j.ID, Type: string(j.Type), Status: string(j.Status), Progress: j.Progress, InputBlobName: j.InputBlob, OutputBlobName: j.OutputBlob,
		ExcludeKeysInExport: j.ExcludeKeys, StorageAuthentication: "keyBased", IncludeConfigurations: j.Configurations, FailureReason: orNull(j.FailureReason),
	}
	if j.Configurations {
		p.ConfigurationsBlobName = j.ConfigurationsBlob
	}
	for _, t := range []struct {
		to *(*string)
		at time.Time
	}{{&p.StartTimeUTC, j.Started}, {&p.EndTimeUTC, j.Ended}} {
		if !t.at.IsZero() {
			*t.to = orNull(t.at.Format(timeLayout))
		}
	}
	return p
}

func createJobProperties(c *call) (answer, error) {
	body, err := c.body()
	if err != nil {
		return answer{}, err
	}
	f, err := object(body, "")
	if err != nil {
		return answer{}, err
	}
	var s engine.IdentityJobSpec
	var kind, storage string
	err = firstError(
		func() error { return f.into("type", &kind) },
		func() error { return f.into("storageAuthenticationType", &storage) },
		func() error { return f.into("inputBlobName", &s.InputBlob) },
		func() error { return f.into("outputBlobName", &s.OutputBlob) },
		func() error { return f.into("configurationsBlobName", &s.ConfigurationsBlob) },
		func() (err error) { s.ExcludeKeys, err = f.boolean("excludeKeysInExport"); return err },
		func() (err error) { s.Configurations, err = f.boolean("includeConfigurations"); return err },
	)
	if err != nil {
		return answer{}, err
	}
	keyBased := true
	switch strings.ToLower(storage) {
	case "", "keybased":
	case "identitybased":
		keyBased = false
	default:
		return answer{}, invalid("storageAuthenticationType is %q; expected keyBased or identityBased", clip(storage))
	}
	s.Type = engine.IdentityJobType(strings.ToLower(kind))
	if err := firstError(
		func() (err error) { s.Input, err = c.containerOf(f, "inputBlobContainerUri", keyBased); return err },
		func() (err error) { s.Output, err = c.containerOf(f, "outputBlobContainerUri", keyBased); return err },
	); err != nil {
		return answer{}, err
	}
	j, err := c.hub.CreateIdentityJob(c.r.Context(), c.caller, s)
	return answer{body: showJobProperties(j)}, err
}

func listJobProperties(c *call) (answer, error) {
	jobs, _, err := c.hub.IdentityJobs(c.r.Context(), c.caller, "", pageMost) // as many as are kept
	return answer{body: show(jobs, showJobProperties)}, err
}

func getJobProperties(c *call) (answer, error) {
	j, err := c.hub.IdentityJob(c.r.Context(), c.caller, c.params[0])
	return answer{body: showJobProperties(j)}, err
}

func cancelJobProperties(c *call) (answer, error) {
	_, err := c.hub.CancelIdentityJob(c.r.Context(), c.caller, c.params[0])
	if err != nil && engine.AsError(err).Code == engine.CodeJobState {
		err = nil // it has ended, as the client wants
	}
	return answer{status: http.StatusNoContent}, err
}

func showIdentityJob(j engine.IdentityJob) identityJobDocument {
	n := j.Counts
	d := identityJobDocument{
		ID: j.ID, Type: string(j.Type), Description: j.Description, Status: string(j.Status), FailureReason: j.FailureReason, Progress: j.Progress,
		Counts: identityJobCounts{n.Lines, n.Skipped, n.Created, n.Updated, n.Deleted, n.Failed, n.Logged, n.Configurations}, Done: j.Bytes, Total: j.Total,
		Container: j.Output.Name, Blob: j.OutputBlob, Mode: string(j.DefaultMode), DryRun: j.DryRun, ExcludeKeys: j.ExcludeKeys, Where: j.Where,
		Principal: j.Principal, CreatedTime: j.Created, UpdatedTime: j.Updated,
	}
	if j.Type == engine.IdentityImport {
		d.Container, d.Blob = j.Input.Name, j.InputBlob
	}
	if !j.Started.IsZero() {
		d.StartedTime = &j.Started
	}
	if !j.Ended.IsZero() {
		d.EndedTime = &j.Ended
	}
	return d
}

func createIdentityJob(c *call) (answer, error) {
	f, err := c.members("type", "description", "container", "blob", "mode", "dryRun", "excludeKeys", "where", "configurations")
	if err != nil {
		return answer{}, err
	}
	var s engine.IdentityJobSpec
	var container, blob string
	err = firstError(
		func() error { return f.into("type", (*string)(&s.Type)) },
		func() error { return f.into("description", &s.Description) },
		func() error { return f.into("container", &container) },
		func() error { return f.into("blob", &blob) },
		func() error { return f.into("mode", (*string)(&s.DefaultMode)) },
		func() error { return f.into("where", &s.Where) },
		func() (err error) { s.DryRun, err = f.boolean("dryRun"); return err },
		func() (err error) { s.ExcludeKeys, err = f.boolean("excludeKeys"); return err },
		func() (err error) { s.Configurations, err = f.boolean("configurations"); return err },
	)
	if err != nil {
		return answer{}, err
	}
	s.Output, s.InputBlob, s.OutputBlob = engine.BlobContainer{Name: container}, blob, blob
	if s.Type == engine.IdentityImport {
		s.Input = s.Output
	}
	j, err := c.hub.CreateIdentityJob(c.r.Context(), c.caller, s)
	return answer{status: http.StatusCreated, body: showIdentityJob(j)}, err
}

func listIdentityJobs(c *call) (answer, error) {
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	before, err := parseCursor(c.query.Get("cursor"), "identity-jobs", "")
	if err != nil {
		return answer{}, err
	}
	jobs, next, err := c.hub.IdentityJobs(c.r.Context(), c.caller, before, limit)
	return answer{body: page[identityJobDocument]{show(jobs, showIdentityJob), makeCursor("identity-jobs", "", next)}}, err
}

func getIdentityJob(c *call) (answer, error) {
	j, err := c.hub.IdentityJob(c.r.Context(), c.caller, c.params[0])
	return answer{body: showIdentityJob(j)}, err
}

func cancelIdentityJob(c *call) (answer, error) {
	j, err := c.hub.CancelIdentityJob(c.r.Context(), c.caller, c.params[0])
	return answer{body: showIdentityJob(j)}, err
}
