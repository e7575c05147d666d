package service

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

type templateBody struct {
	Description string          `json:"description,omitempty"`
	Job         json.RawMessage `json:"job" schema:"object" doc:"A job, of which members may be missing."`
}

type templateDocument struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Job         json.RawMessage `json:"job" schema:"object"`
	Version     uint64          `json:"version"`
	Principal   string          `json:"principal" doc:"Who made this version."`
	ETag        string          `json:"etag"`
	CreatedTime time.Time       `json:"createdTime"`
	UpdatedTime time.Time       `json:"updatedTime" doc:"When this version was made."`
}

func templateRoutes() []*route {
	const need, path = auth.ServiceConnect, "/api/v1/job-templates/{name}"
	table := []*route{
		{
			method: http.MethodGet, pattern: "/api/v1/job-templates", operation: "listJobTemplates", tag: tagJobs, permission: need, query: listQuery("templates"),
			summary: "Lists the job templates by name.", response: page[templateDocument]{}, handle: listTemplates,
		},
		{
			method: http.MethodGet, pattern: path, operation: "getJobTemplate", tag: tagJobs, permission: need,
			query:   []parameter{{name: "version", kind: "integer", text: "A version that is kept; the newest when absent."}},
			summary: "Returns a job template.", response: templateDocument{}, handle: getTemplate,
		},
		{
			method: http.MethodPut, pattern: path, operation: "putJobTemplate", tag: tagJobs, permission: need, ifMatch: optional,
			summary: "Saves a job under a name to begin others with, or makes a new version of one.", request: templateBody{}, response: templateDocument{}, maxBody: jobBytes, handle: putTemplate,
		},
		{
			method: http.MethodDelete, pattern: path, operation: "deleteJobTemplate", tag: tagJobs, permission: need, ifMatch: optional,
			summary: "Deletes a job template with its versions. Jobs that began with it stay.", status: http.StatusNoContent, handle: deleteTemplate,
		},
		{
			method: http.MethodGet, pattern: path + "/versions", operation: "listJobTemplateVersions", tag: tagJobs, permission: need, query: listQuery("versions"),
			summary: "Lists the versions of a job template that are kept, newest first.", response: page[templateDocument]{}, handle: listTemplateVersions,
		},
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

func showTemplate(t engine.JobTemplate) templateDocument {
	return templateDocument{t.Name, t.Description, t.Spec, t.Version, t.Principal, t.ETag, t.Created, t.Updated}
}

func listTemplates(c *call) (answer, error) {
	list, err := c.hub.JobTemplates(c.r.Context(), c.caller)
	if err != nil {
		return answer{}, err
	}
	return pageOfNames(c, "job-templates", list, func(t engine.JobTemplate) string { return t.Name }, showTemplate)
}

func listTemplateVersions(c *call) (answer, error) {
	list, err := c.hub.JobTemplateVersions(c.r.Context(), c.caller, c.params[0])
	if err != nil {
		return answer{}, err
	}
	return pageOfVersions(c, "job-template-versions", list, func(t engine.JobTemplate) uint64 { return t.Version }, showTemplate)
}

func getTemplate(c *call) (answer, error) {
	version, err := c.integer("version", 0, 1, 1<<53)
	if err != nil {
		return answer{}, err
	}
	return shownTemplate(c.hub.JobTemplate(c.r.Context(), c.caller, c.params[0], uint64(version))) //nolint:gosec // not negative
}

func shownTemplate(t engine.JobTemplate, err error) (answer, error) {
	return answer{body: showTemplate(t), etag: t.ETag}, err
}

func putTemplate(c *call) (answer, error) {
	f, err := c.members("description", "job")
	if err != nil {
		return answer{}, err
	}
	t := engine.JobTemplate{Name: c.params[0]}
	if t.Description, err = f.text("description"); err != nil {
		return answer{}, err
	}
	job, ok := f.get("job")
	if !ok {
		return answer{}, missing("job", "an object with members of a job, such as action and policy")
	}
	if job[0] != '{' {
		return answer{}, badFormat("job is %s; expected a JSON object", kindOf(job))
	}
	t.Spec = job
	return shownTemplate(c.hub.PutJobTemplate(c.r.Context(), c.caller, t, c.condition()))
}

func deleteTemplate(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.DeleteJobTemplate(c.r.Context(), c.caller, c.params[0], c.condition())
}
