package service

import (
	"bufio"
	"encoding/csv"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/rollout"
)

func executionRoutes() []*route {
	const need, one = auth.ServiceConnect, "/api/v1/jobs/{job}"
	filter := []parameter{
		{name: "status", kind: "string", text: "Only executions of this status."},
		{name: "wave", kind: "integer", text: "Only those of this wave, from 1."},
		{name: "run", kind: "integer", text: "Of a job that repeats, which run; the newest when absent."},
	}
	table := []*route{
		{
			method: http.MethodGet, pattern: one + "/executions", operation: "listExecutions", tag: tagJobs, permission: need,
			query: append(append(listQuery("executions"), filter...),
				parameter{name: "format", kind: "string", text: "ndjson or csv: all of them as a stream, without pages; as the Accept header application/x-ndjson or text/csv does. A stream that ends in an error is cut off."}),
			summary: "Lists a job's executions, one for each target; those that have begun come first.", response: page[executionDocument]{}, handle: listExecutions,
		},
		{
			method: http.MethodGet, pattern: one + "/failures", operation: "listFailures", tag: tagJobs, permission: need,
			query:   []parameter{filter[2]},
			summary: "Counts a job's executions that ended badly by status and error code.", response: failuresDocument{}, handle: listFailures,
		},
	}
	for _, of := range []struct{ path, name, what string }{{"{id}", "", "a device"}, {"{id}/modules/{mid}", "Module", "a module"}} {
		table = append(table, &route{
			method: http.MethodGet, pattern: "/api/v1/devices/" + of.path + "/jobs", operation: "list" + of.name + "DeviceJobs", tag: tagJobs, permission: need,
			query: listQuery("executions"), summary: "Lists the executions of all jobs on " + of.what + ".", response: page[executionDocument]{}, handle: listDeviceJobs,
		})
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

// waveNumbers is above every number of a wave.
const waveNumbers = 1000

// executionFilter reads the parameters status, wave and run.
func (c *call) executionFilter() (f engine.ExecutionFilter, err error) {
	f.Status = rollout.ExecutionStatus(c.query.Get("status"))
	if f.Status != "" && !slices.Contains(rollout.ExecutionStatuses(), f.Status) {
		return f, invalid("the query parameter status is %q; expected one of %s", clip(string(f.Status)), strings.Join(texts(rollout.ExecutionStatuses()), ", "))
	}
	wave, err := c.integer("wave", 0, 1, waveNumbers)
	if err != nil {
		return f, err
	}
	run, err := c.integer("run", 0, 1, 1<<31)
	if f.Run = uint64(run); wave > 0 { //nolint:gosec // not negative
		index := wave - 1
		f.Wave = &index
	}
	return f, err
}

func listExecutions(c *call) (answer, error) {
	f, err := c.executionFilter()
	if err != nil {
		return answer{}, err
	}
	format, err := c.exportFormat()
	if err != nil {
		return answer{}, err
	}
	if format != nil {
		for _, name := range []string{"cursor", "limit"} {
			if c.query.Has(name) {
				return answer{}, invalid("%s goes with pages; a stream has all executions", name)
			}
		}
		return c.exportExecutions(f, format.contentType)
	}
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	job := c.params[0]
	filter := strings.Join([]string{job, string(f.Status), c.query.Get("wave"), strconv.FormatUint(f.Run, 10)}, "\x01")
	after, err := parseCursor(c.query.Get("cursor"), "executions", filter)
	if err != nil {
		return answer{}, err
	}
	list, next, err := c.hub.Executions(c.r.Context(), c.caller, job, f, after, limit)
	return answer{body: page[executionDocument]{show(list, showExecution), makeCursor("executions", filter, next)}}, err
}

func listDeviceJobs(c *call) (answer, error) {
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	id := c.target()
	after, err := parseCursor(c.query.Get("cursor"), "device-jobs", id.String())
	if err != nil {
		return answer{}, err
	}
	list, next, err := c.hub.DeviceJobs(c.r.Context(), c.caller, id, after, limit)
	return answer{body: page[executionDocument]{show(list, showExecution), makeCursor("device-jobs", id.String(), next)}}, err
}

// executionTime is how long one page of a stream may take, its writing not included.
const executionTime = 30 * time.Second

// exportExecutions streams all executions.
func (c *call) exportExecutions(f engine.ExecutionFilter, contentType string) (answer, error) {
	next := func(after string) (list []engine.Execution, cursor string, err error) {
		return c.hub.Executions(c.r.Context(), c.caller, c.params[0], f, after, pageMost)
	}
	write := executionLines
	if contentType == "text/csv" {
		write = executionCommas
	}
	return exportPages(c, contentType, next, write)
}

// exportPages streams all records of a list, page after page, and holds one
// page. What fails after the first page cuts the stream off, since its status
// has gone out.
func exportPages[T any](c *call, contentType string, next func(after string) (list []T, cursor string, err error), form func(w *bufio.Writer) func([]T) error) (answer, error) {
	list, after, err := next("")
	if err != nil {
		return answer{}, err
	}
	c.w.Header().Set("Content-Type", contentType+"; charset=utf-8")
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return answer{sent: true}, nil
	}
	w := bufio.NewWriterSize(c.w, 64<<10)
	write := form(w)
	control := http.NewResponseController(c.w)
	for {
		c.wait(executionTime)
		if write(list) != nil || w.Flush() != nil {
			return answer{sent: true}, nil // the client is gone
		}
		if after == "" {
			return answer{sent: true}, nil
		}
		_ = control.Flush() // not supported by test recorders
		c.wait(executionTime + exportPatience)
		cursor := after // a page that fails has none
		err := patiently(c.r.Context(), func() (err error) { list, after, err = next(cursor); return err })
		if err != nil {
			c.log.WarnContext(c.r.Context(), "an export was cut off", slog.String("of", c.route.operation), slog.Any("error", err), slog.String("request_id", c.requestID))
			panic(http.ErrAbortHandler)
		}
	}
}

// executionLines writes a JSON object a line.
func executionLines(w *bufio.Writer) func([]engine.Execution) error {
	return func(list []engine.Execution) error {
		for _, e := range list {
			_, _ = w.Write(encode(showExecution(e))) // the writer keeps its first error
			if err := w.WriteByte('\n'); err != nil {
				return err
			}
		}
		return nil
	}
}

// executionCommas writes a header and a line for each execution. Times are in
// RFC 3339, what is missing is empty.
func executionCommas(w *bufio.Writer) func([]engine.Execution) error {
	out := csv.NewWriter(w)
	begun := false
	return func(list []engine.Execution) error {
		if !begun {
			begun = true
			err := out.Write([]string{
				"jobId", "run", "deviceId", "moduleId", "wave", "status", "final", "attempts", "code", "message", "answerStatus", "answer",
				"createdTime", "startedTime", "endedTime", "blockedBy",
			})
			if err != nil {
				return err
			}
		}
		for _, e := range list {
			answerStatus, payload := "", ""
			if e.Result != nil {
				answerStatus, payload = strconv.Itoa(e.Result.Status), string(e.Result.Payload)
			}
			err := out.Write([]string{
				e.Job, strconv.FormatUint(e.Run, 10), e.Target.DeviceID, e.Target.ModuleID, strconv.Itoa(e.Wave + 1), string(e.Status), strconv.FormatBool(!e.Ended.IsZero()),
				strconv.Itoa(e.Attempts), e.Code, e.Message, answerStatus, payload, timeCell(e.Created), timeCell(e.Started), timeCell(e.Ended), e.BlockedBy,
			})
			if err != nil {
				return err
			}
		}
		out.Flush()
		return out.Error()
	}
}

func timeCell(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

type failuresDocument struct {
	Items    []failureDocument `json:"items" doc:"The most frequent first."`
	Complete bool              `json:"complete" doc:"Whether all were counted: at most 10,000 of each status are."`
}

type failureDocument struct {
	Status   rollout.ExecutionStatus `json:"status"`
	Code     string                  `json:"code"`
	Count    int                     `json:"count"`
	Message  string                  `json:"message" doc:"Of one of them."`
	DeviceID string                  `json:"deviceId" doc:"Of the same one."`
	ModuleID string                  `json:"moduleId,omitempty"`
}

// failuresMost is how many executions of a status are looked at.
const failuresMost = 10_000

// listFailures looks at no more than what ended badly, which has an index.
func listFailures(c *call) (answer, error) {
	run, err := c.integer("run", 0, 1, 1<<31)
	if err != nil {
		return answer{}, err
	}
	c.wait(executionTime)
	d := failuresDocument{Items: []failureDocument{}, Complete: true}
	place := map[[2]string]int{}
	for _, status := range []rollout.ExecutionStatus{rollout.ExecutionFailed, rollout.ExecutionTimedOut, rollout.ExecutionRejected, rollout.ExecutionUncertain} {
		f := engine.ExecutionFilter{Run: uint64(run), Status: status} //nolint:gosec // not negative
		for after, seen := "", 0; ; {
			list, next, err := c.hub.Executions(c.r.Context(), c.caller, c.params[0], f, after, pageMost)
			if err != nil {
				return answer{}, err
			}
			for _, e := range list {
				key := [2]string{string(e.Status), e.Code}
				i, known := place[key]
				if !known {
					i = len(d.Items)
					place[key] = i
					d.Items = append(d.Items, failureDocument{Status: e.Status, Code: e.Code, Message: e.Message, DeviceID: e.Target.DeviceID, ModuleID: e.Target.ModuleID})
				}
				d.Items[i].Count++
			}
			if after, seen = next, seen+len(list); after == "" {
				break
			}
			if seen >= failuresMost {
				d.Complete = false
				break
			}
		}
	}
	slices.SortStableFunc(d.Items, func(a, b failureDocument) int { return b.Count - a.Count })
	return answer{body: d}, nil
}
