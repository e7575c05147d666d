package service

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/pattern"
)

// runsQuery are the query parameters that select runs.
func runsQuery() []parameter {
	return []parameter{
		{name: "pattern", kind: "string", text: "Only runs of this pattern."},
		{name: "deviceId", kind: "string", text: "Only runs on this device, or with moduleId on this module."},
		{name: "moduleId", kind: "string", text: "With deviceId."},
		{name: "jobId", kind: "string", text: "Only runs of this job."},
		{name: "state", kind: "string", text: "Only runs of these states, separated by commas; active for all that have not ended."},
		{name: "asks", kind: "boolean", text: "true: only runs that wait for a person's answer."},
	}
}

func runRoutes() []*route {
	const need, root = auth.ServiceConnect, "/api/v1/runs"
	const one = root + "/{run}"
	table := []*route{
		{
			method: http.MethodGet, pattern: root, operation: "listRuns", tag: tagRuns, permission: need, query: append(listQuery("runs"), runsQuery()...),
			summary: "Lists runs of patterns, the newest first; a page may be shorter than limit.", response: page[runDocument]{}, handle: listRuns,
		},
		{
			method: http.MethodPost, pattern: root, operation: "startRun", tag: tagRuns, permission: need, idempotent: true, status: http.StatusCreated,
			summary: "Starts a run of a pattern: on a device, or of scope fleet. Over many devices a job starts them.", request: runBody{}, response: runDocument{}, held: true, handle: startRun,
		},
		{
			method: http.MethodGet, pattern: root + "/counts", operation: "countRuns", tag: tagRuns, permission: need, query: runsQuery(),
			summary: "Counts runs by where they stand: how many at which phase and step.", response: page[runCountDocument]{}, handle: countRuns,
		},
		{
			method: http.MethodGet, pattern: root + "/export", operation: "exportRuns", tag: tagRuns, permission: need, content: "application/x-ndjson",
			query:   append(runsQuery(), parameter{name: "format", kind: "string", text: "ndjson, when absent, or csv; as the Accept header application/x-ndjson or text/csv does. A stream that ends in an error is cut off."}),
			summary: "Streams runs without pages, as a JSON object or a line of CSV each.", handle: exportRuns,
		},
		{
			method: http.MethodPost, pattern: root + "/decide", operation: "decideRuns", tag: tagRuns, permission: need, idempotent: true,
			summary: "Answers what runs ask, all that the filter selects.", request: runsDecision{}, response: runsDecided{}, held: true, handle: decideRuns,
		},
		{
			method: http.MethodPost, pattern: root + "/cancel", operation: "cancelRuns", tag: tagRuns, permission: need, idempotent: true,
			summary: "Asks runs to end, all that the filter selects.", request: runsCancel{}, response: runsCanceled{}, handle: cancelRuns,
		},
		{
			method: http.MethodGet, pattern: one, operation: "getRun", tag: tagRuns, permission: need,
			summary: "Returns a run as it stands.", response: runDocument{}, handle: getRun,
		},
		{
			method: http.MethodGet, pattern: one + "/trace", operation: "traceRun", tag: tagRuns, permission: need,
			summary: "Returns a run with all that it did: its steps with arguments, results, times and source lines, and what it logged.", response: runTrace{}, handle: traceRun,
		},
		{
			method: http.MethodPost, pattern: one + "/cancel", operation: "cancelRun", tag: tagRuns, permission: need, idempotent: true,
			summary: "Asks a run to end: the program finds the fault canceled where it waits, and cleans up.", request: runCancel{}, response: runDocument{}, handle: cancelRun,
		},
		{
			method: http.MethodPost, pattern: one + "/undo", operation: "undoRun", tag: tagRuns, permission: need, idempotent: true,
			summary: "Has a run that has ended take back what it did.", response: runDocument{}, held: true, handle: undoRun,
		},
		{
			method: http.MethodPost, pattern: one + "/retry", operation: "retryRun", tag: tagRuns, permission: need, idempotent: true, status: http.StatusCreated,
			summary: "Begins a run again that has ended, as a new run: from its start, or from a step if its pattern is resumable.", request: runRetry{}, response: runDocument{}, held: true, handle: retryRun,
		},
		{
			method: http.MethodPost, pattern: one + "/decide", operation: "decideRun", tag: tagRuns, permission: need, idempotent: true,
			summary: "Answers what a run asks.", request: runDecision{}, response: runDocument{}, held: true, handle: decideRun,
		},
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

// runFilter reads the query parameters of runsQuery.
func (c *call) runFilter() (f engine.RunFilter, err error) {
	asks, err := c.flag("asks")
	if err != nil {
		return f, err
	}
	return makeRunFilter(runFilterBody{
		Pattern: c.query.Get("pattern"), DeviceID: c.query.Get("deviceId"), ModuleID: c.query.Get("moduleId"), JobID: c.query.Get("jobId"), State: c.query.Get("state"), Asks: asks,
	}, "the query parameter ")
}

// runFilterBody is a filter of runs in a body.
type runFilterBody struct {
	Pattern  string `json:"pattern,omitempty"`
	DeviceID string `json:"deviceId,omitempty"`
	ModuleID string `json:"moduleId,omitempty"`
	JobID    string `json:"jobId,omitempty"`
	State    string `json:"state,omitempty" doc:"Some states, separated by commas, or active."`
	Asks     bool   `json:"asks,omitempty" doc:"Only those that wait for a person's answer."`
}

// makeRunFilter checks a filter. before stands before names in messages.
func makeRunFilter(b runFilterBody, before string) (f engine.RunFilter, err error) {
	if b.ModuleID != "" && b.DeviceID == "" {
		return f, invalid("%smoduleId goes with deviceId", before)
	}
	f = engine.RunFilter{Pattern: b.Pattern, Device: engine.TwinID{DeviceID: b.DeviceID, ModuleID: b.ModuleID}, Job: b.JobID, Asks: b.Asks}
	if b.State == "" {
		return f, nil
	}
	for name := range strings.SplitSeq(b.State, ",") {
		switch {
		case name == "active":
			f.Active = true
		case slices.Contains(pattern.States(), pattern.State(name)):
			f.States = append(f.States, pattern.State(name))
		default:
			return f, invalid("%sstate has %q; expected active, or some of %s", before, clip(name), strings.Join(texts(pattern.States()), ", "))
		}
	}
	if f.Active && f.States != nil {
		return f, invalid("%sstate has active beside other states; expected one or the others", before)
	}
	return f, nil
}

func listRuns(c *call) (answer, error) {
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	f, err := c.runFilter()
	if err != nil {
		return answer{}, err
	}
	filter := string(encode(f))
	after, err := parseCursor(c.query.Get("cursor"), "runs", filter)
	if err != nil {
		return answer{}, err
	}
	list, next, err := c.hub.Runs(c.r.Context(), c.caller, f, limit, after)
	return answer{body: page[runDocument]{show(list, showPatternRun), makeCursor("runs", filter, next)}}, err
}

// runBody is the body that starts a run.
type runBody struct {
	Pattern  string `json:"pattern"`
	Version  string `json:"version,omitempty" doc:"The default one when absent."`
	DeviceID string `json:"deviceId,omitempty" doc:"Absent for a pattern of scope fleet."`
	ModuleID string `json:"moduleId,omitempty"`
	Params   obj    `json:"params,omitempty" doc:"As the pattern's JSON Schema says; defaults are filled in."`
}

func startRun(c *call) (answer, error) {
	f, err := c.members("pattern", "version", "deviceId", "moduleId", "params")
	if err != nil {
		return answer{}, err
	}
	var s engine.RunSpec
	for key, to := range map[string]*string{"pattern": &s.Pattern, "version": &s.Version, "deviceId": &s.Device.DeviceID, "moduleId": &s.Device.ModuleID} {
		if *to, err = f.text(key); err != nil {
			return answer{}, err
		}
	}
	if s.Pattern == "" {
		return answer{}, &engine.Error{Code: engine.CodeArgumentNull, Message: "pattern is missing; expected the name of a pattern"}
	}
	if s.Device.ModuleID != "" && s.Device.DeviceID == "" {
		return answer{}, invalid("moduleId goes with deviceId")
	}
	s.Params, _ = f.get("params")
	a, err := shownRun(c.hub.StartRun(c.r.Context(), c.caller, s))
	a.status = http.StatusCreated
	return a, err
}

func shownRun(r engine.Run, err error) (answer, error) {
	return answer{body: showPatternRun(r), etag: r.ETag}, err
}

func getRun(c *call) (answer, error) {
	return shownRun(c.hub.ReadRun(c.r.Context(), c.caller, c.params[0]))
}

func countRuns(c *call) (answer, error) {
	f, err := c.runFilter()
	if err != nil {
		return answer{}, err
	}
	c.wait(exportPatience)
	list, err := c.hub.RunCounts(c.r.Context(), c.caller, f)
	return answer{body: page[runCountDocument]{Items: show(list, showRunCount)}}, err
}

// traceRun adds the source lines, as long as the version is installed that the
// run keeps to.
func traceRun(c *call) (answer, error) {
	t, err := c.hub.RunTrace(c.r.Context(), c.caller, c.params[0])
	if err != nil {
		return answer{}, err
	}
	return answer{body: showTrace(t, c.source(t.Run)), etag: t.ETag}, nil
}

func (c *call) source(r engine.Run) *pattern.Bundle {
	b, err := c.hub.PatternBundle(c.r.Context(), c.caller, r.Pattern, r.Version)
	if err != nil || b.Hash() != r.Hash {
		return nil
	}
	return b
}

type runCancel struct {
	Reason string `json:"reason,omitempty" doc:"For people; the program finds it in the fault."`
	Undo   bool   `json:"undo,omitempty" doc:"The pattern's undo follows."`
	Now    bool   `json:"now,omitempty" doc:"At once: nothing of the program runs any more, deferred functions neither."`
}

// cancelOptions reads a body of runCancel.
func (f fields) cancelOptions() (o engine.CancelRunOptions, err error) {
	if o.Reason, err = f.text("reason"); err != nil {
		return o, err
	}
	if o.Undo, err = f.boolean("undo"); err != nil {
		return o, err
	}
	o.Now, err = f.boolean("now")
	if o.Now && o.Undo {
		return o, invalid("now and undo are both there; expected one of them")
	}
	return o, err
}

func cancelRun(c *call) (answer, error) {
	f, err := c.optionalMembers("reason", "undo", "now")
	if err != nil {
		return answer{}, err
	}
	o, err := f.cancelOptions()
	if err != nil {
		return answer{}, err
	}
	return shownRun(c.hub.CancelRun(c.r.Context(), c.caller, c.params[0], o))
}

func undoRun(c *call) (answer, error) {
	if _, err := c.optionalMembers(); err != nil {
		return answer{}, err
	}
	return shownRun(c.hub.UndoRun(c.r.Context(), c.caller, c.params[0]))
}

type runRetry struct {
	From    int    `json:"from,omitempty" doc:"Number of the step that is taken again, from 1, with those behind it; from the start when absent."`
	Version string `json:"version,omitempty" doc:"Of the pattern; the run's own when absent."`
}

func retryRun(c *call) (answer, error) {
	f, err := c.optionalMembers("from", "version")
	if err != nil {
		return answer{}, err
	}
	from, given, err := f.integer("from")
	if err != nil {
		return answer{}, err
	}
	if given && (from < 1 || from > 2*pattern.MaxSteps) {
		return answer{}, invalid("from is %d; expected the number of a step, from 1", from)
	}
	version, err := f.text("version")
	if err != nil {
		return answer{}, err
	}
	a, err := shownRun(c.hub.RetryRun(c.r.Context(), c.caller, c.params[0], engine.RetryRunOptions{From: int(from), Version: version}))
	a.status = http.StatusCreated
	return a, err
}

type runDecision struct {
	Approve bool   `json:"approve" doc:"true is yes, false no."`
	Reason  string `json:"reason,omitempty" doc:"For people; the program finds it in the fault when it is no."`
}

// decision reads a body of runDecision.
func (f fields) decision() (approve bool, reason string, err error) {
	if _, ok := f.get("approve"); !ok {
		return false, "", &engine.Error{Code: engine.CodeArgumentNull, Message: "approve is missing; expected true or false"}
	}
	if approve, err = f.boolean("approve"); err != nil {
		return false, "", err
	}
	reason, err = f.text("reason")
	return approve, reason, err
}

func decideRun(c *call) (answer, error) {
	f, err := c.members("approve", "reason")
	if err != nil {
		return answer{}, err
	}
	approve, reason, err := f.decision()
	if err != nil {
		return answer{}, err
	}
	return shownRun(c.hub.DecideRun(c.r.Context(), c.caller, c.params[0], approve, reason))
}

type runsDecision struct {
	Filter runFilterBody `json:"filter" doc:"At least one member."`
	runDecision
}

type runsDecided struct {
	Decided int `json:"decided" doc:"Runs that were answered."`
}

type runsCancel struct {
	Filter runFilterBody `json:"filter" doc:"At least one member. What has ended is left as it is."`
	runCancel
}

type runsCanceled struct {
	Canceled int `json:"canceled" doc:"Runs that were asked to end."`
}

// bodyFilter reads the filter of a body; an empty one is refused, so that
// nobody ends everything by mistake.
func (f fields) bodyFilter() (engine.RunFilter, error) {
	o, err := f.object("filter")
	if err != nil {
		return engine.RunFilter{}, err
	}
	var b runFilterBody
	texts := map[string]*string{"pattern": &b.Pattern, "deviceId": &b.DeviceID, "moduleId": &b.ModuleID, "jobId": &b.JobID, "state": &b.State}
	for key := range o.members {
		to, known := texts[key]
		switch {
		case known:
			*to, err = o.text(key)
		case key == "asks":
			b.Asks, err = o.boolean(key)
		default:
			err = invalid("%q is not a member of filter; expected pattern, deviceId, moduleId, jobId, state, asks", clip(key))
		}
		if err != nil {
			return engine.RunFilter{}, err
		}
	}
	if b == (runFilterBody{}) {
		return engine.RunFilter{}, &engine.Error{Code: engine.CodeArgumentNull, Message: "filter is missing or empty; expected at least one of pattern, deviceId, jobId, state, asks"}
	}
	return makeRunFilter(b, "filter.")
}

// byFilter runs an operation on all runs of a filter. A client that goes away
// does not end it half way.
func byFilter(c *call, members []string, do func(ctx context.Context, f fields, filter engine.RunFilter) (answer, error)) (answer, error) {
	f, err := c.members(append(members, "filter")...)
	if err != nil {
		return answer{}, err
	}
	filter, err := f.bodyFilter()
	if err != nil {
		return answer{}, err
	}
	c.wait(previewTime)
	ctx, stop := context.WithTimeout(context.WithoutCancel(c.r.Context()), previewTime)
	defer stop()
	return do(ctx, f, filter)
}

func decideRuns(c *call) (answer, error) {
	return byFilter(c, []string{"approve", "reason"}, func(ctx context.Context, f fields, filter engine.RunFilter) (answer, error) {
		approve, reason, err := f.decision()
		if err != nil {
			return answer{}, err
		}
		n, err := c.hub.DecideRuns(ctx, c.caller, filter, approve, reason)
		return answer{body: runsDecided{n}}, err
	})
}

func cancelRuns(c *call) (answer, error) {
	return byFilter(c, []string{"reason", "undo", "now"}, func(ctx context.Context, f fields, filter engine.RunFilter) (answer, error) {
		o, err := f.cancelOptions()
		if err != nil {
			return answer{}, err
		}
		n, err := c.hub.CancelRuns(ctx, c.caller, filter, o)
		return answer{body: runsCanceled{n}}, err
	})
}
