package service

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/rollout"
)

// Bounds of what is entered in a form. As much fits into one argument of a
// program.
const (
	formBytes   = 96 << 10
	formIDsMost = 1000
)

func patternFormRoutes() []*route {
	const read, root = auth.StatusRead, "/api/v1/pattern-forms"
	const one = root + "/{pattern}"
	version := []parameter{{name: "version", kind: "string", text: "Which version; the default one when absent."}}
	table := []*route{
		{
			method: http.MethodGet, pattern: root, operation: "listPatternForms", tag: tagPatterns, permission: read, query: listQuery("versions"),
			summary: "Lists every installed version of every pattern in brief, by name, the newest version first.", response: page[patternFormSummary]{}, handle: listPatternForms,
		},
		{
			method: http.MethodGet, pattern: one, operation: "getPatternForm", tag: tagPatterns, permission: read, query: version,
			summary: "Returns the form in which the parameters of a pattern are entered, made from their JSON Schema.", response: patternFormDocument{}, handle: getPatternForm,
		},
		{
			method: http.MethodPost, pattern: one + "/check", operation: "checkPatternForm", tag: tagPatterns, permission: read, query: version, reads: true,
			summary: "Checks what was entered in a pattern's form. The answer has all that is wrong; or the command, and the request, that begin a run or a job of it. Nothing is begun.",
			request: formEntryBody{}, response: formCheckDocument{}, maxBody: formBytes, handle: checkPatternForm,
		},
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

// patternFormSummary is a pattern in brief.
type patternFormSummary struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Title   string `json:"title,omitempty"`
	Summary string `json:"summary,omitempty"`
	Enabled bool   `json:"enabled" doc:"Runs may begin."`
	Default bool   `json:"default" doc:"It is run when no version is named."`
}

// patternFormDocument is the form of a pattern.
type patternFormDocument struct {
	patternFormSummary
	Fleet  bool                `json:"fleet" doc:"It runs once for the fleet as a whole, and has no targets."`
	Fields []pattern.FormField `json:"fields" doc:"Its parameters: those that must be given first, then by name."`
}

// formEntryBody is what was entered in a form.
type formEntryBody struct {
	Texts   map[string]string `json:"texts,omitempty" doc:"By the name of a parameter what was entered for it, as --param of the command line takes it. What was left empty is absent."`
	Targets formTargets       `json:"targets,omitzero" doc:"where or ids; neither for a pattern of scope fleet."`
}

type formTargets struct {
	Where string   `json:"where,omitempty" doc:"A bare predicate, or * for every device."`
	IDs   []string `json:"ids,omitempty" doc:"DEVICE or DEVICE/MODULE each. One of them is a run, more are a job."`
}

// formCheckDocument is what an entry comes to.
type formCheckDocument struct {
	Faults  []jobFault      `json:"faults" doc:"All that is wrong, at most twenty with parameters. A path is params.NAME, with what lies below it, targets, targets.where or targets.ids."`
	Params  json.RawMessage `json:"params,omitempty" schema:"object" doc:"The parameters as a run gets them, with defaults; names of secrets that were not entered are left out. Absent when something is wrong with them."`
	Command string          `json:"command,omitempty" doc:"For a POSIX shell. Absent when something is wrong."`
	Request *formRequest    `json:"request,omitempty" doc:"The same by REST. Absent when something is wrong."`
}

// formRequest is a request that begins a run or a job.
type formRequest struct {
	Method  string          `json:"method" enum:"POST"`
	Path    string          `json:"path"`
	Body    json.RawMessage `json:"body" schema:"object"`
	Preview bool            `json:"preview" doc:"The body goes to /api/v1/jobs/preview first: the job needs the token that comes back."`
}

func showFormSummary(p engine.PatternForm) patternFormSummary {
	return patternFormSummary{p.Name, p.Version, p.Title, p.Summary, p.Enabled, p.Default}
}

func listPatternForms(c *call) (answer, error) {
	list, err := c.hub.PatternForms(c.r.Context(), c.caller)
	if err != nil {
		return answer{}, err
	}
	return pageOfPatterns(c, "pattern-forms", list, func(p *engine.PatternForm) (name, version string) { return p.Name, p.Version }, showFormSummary)
}

func getPatternForm(c *call) (answer, error) {
	p, err := c.hub.PatternForm(c.r.Context(), c.caller, c.params[0], c.query.Get("version"))
	return answer{body: patternFormDocument{showFormSummary(p), p.Fleet, p.Fields}}, err
}

func checkPatternForm(c *call) (answer, error) {
	entry, err := c.formEntry()
	if err != nil {
		return answer{}, err
	}
	check, err := c.hub.CheckPatternForm(c.r.Context(), c.caller, c.params[0], c.query.Get("version"), entry)
	if err != nil {
		return answer{}, err
	}
	doc := formCheckDocument{Faults: show(append(check.Faults, unfit(check.Filled.Texts, entry)...), showJobFault), Params: check.Filled.Whole}
	if len(doc.Faults) == 0 {
		doc.Command, doc.Request = formCommand(&check, entry), requestOf(&check, entry)
	}
	return answer{body: doc}, nil
}

// formEntry reads a body of formEntryBody.
func (c *call) formEntry() (e engine.FormEntry, err error) {
	f, err := c.members("texts", "targets")
	if err != nil {
		return e, err
	}
	texts, err := f.object("texts")
	if err != nil {
		return e, err
	}
	e.Texts = make(map[string]string, len(texts.members))
	for name, raw := range texts.members {
		if raw[0] != '"' {
			return e, badFormat("%s is %s; expected a string, as it was entered", clip(texts.name(name)), kindOf(raw))
		}
		e.Texts[name] = unquote(raw)
	}
	targets, err := f.object("targets")
	if err != nil {
		return e, err
	}
	for key := range targets.members {
		if key != "where" && key != "ids" {
			return e, invalid("%q is not a member of targets here; expected where or ids", clip(key))
		}
	}
	if e.Where, err = targets.text("where"); err != nil {
		return e, err
	}
	ids, err := targets.texts("ids", formIDsMost)
	for _, text := range ids {
		var id engine.TwinID
		id.DeviceID, id.ModuleID, _ = strings.Cut(text, "/")
		e.IDs = append(e.IDs, id)
	}
	return e, err
}

// unfit says what of an entry stands on no command line: control characters,
// which a terminal would take for keys when somebody pastes them, and an id among
// others that would be taken for the name of a file.
func unfit(filled []string, e engine.FormEntry) []rollout.Fault {
	var faults []rollout.Fault
	check := func(path, text string) {
		if strings.ContainsFunc(text, notPasted) {
			faults = append(faults, rollout.Fault{Path: path, Reason: "has a control character", Expected: "a text without it: what has one goes by REST, or into a file for --params"})
		}
	}
	for _, text := range filled {
		name, value, _ := strings.Cut(text, "=")
		check("params."+name, value)
	}
	check("targets.where", e.Where)
	for _, id := range e.IDs {
		if len(e.IDs) > 1 && strings.HasPrefix(id.DeviceID, "@") {
			return append(faults, rollout.Fault{Path: "targets.ids", Reason: id.String() + " begins with @, which the command line takes for a file", Expected: "it alone, or a condition in place of ids"})
		}
	}
	return faults
}

// requestOf is the request that begins what was entered.
func requestOf(p *engine.FormCheck, e engine.FormEntry) *formRequest {
	run := obj{"pattern": p.Name, "version": p.Version}
	if string(p.Filled.Given) != "{}" {
		run["params"] = p.Filled.Given
	}
	r := &formRequest{Method: http.MethodPost, Path: "/api/v1/runs"}
	switch {
	case p.Fleet:
	case len(e.IDs) == 1:
		run["deviceId"] = e.IDs[0].DeviceID
		if e.IDs[0].ModuleID != "" {
			run["moduleId"] = e.IDs[0].ModuleID
		}
	default:
		targets := obj{}
		if e.Where != "" {
			targets["where"] = e.Where
		} else {
			targets["ids"] = e.IDs
		}
		r.Path, r.Preview = "/api/v1/jobs", p.Preview
		r.Body = encode(obj{"targets": targets, "action": obj{"run": run}})
		return r
	}
	r.Body = encode(run)
	return r
}
