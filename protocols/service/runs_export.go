package service

import (
	"bufio"
	"encoding/csv"
	"strconv"

	"github.com/muster-hub/muster/engine"
)

func exportRuns(c *call) (answer, error) {
	f, err := c.runFilter()
	if err != nil {
		return answer{}, err
	}
	format, err := c.exportFormat()
	if err != nil {
		return answer{}, err
	}
	contentType, write := "application/x-ndjson", runLines
	if format != nil && format.name == "csv" {
		contentType, write = format.contentType, runCommas
	}
	next := func(after string) ([]engine.Run, string, error) {
		return c.hub.Runs(c.r.Context(), c.caller, f, pageMost, after)
	}
	return exportPages(c, contentType, next, write)
}

// runLines writes a JSON object a line.
func runLines(w *bufio.Writer) func([]engine.Run) error {
	return func(list []engine.Run) error {
		for _, r := range list {
			_, _ = w.Write(encode(showPatternRun(r))) // the writer keeps its first error
			if err := w.WriteByte('\n'); err != nil {
				return err
			}
		}
		return nil
	}
}

// runCommas writes a header and a line for each run. Times are in RFC 3339,
// parameters and results JSON; what is missing is empty.
func runCommas(w *bufio.Writer) func([]engine.Run) error {
	out := csv.NewWriter(w)
	begun := false
	return func(list []engine.Run) error {
		if !begun {
			begun = true
			err := out.Write([]string{
				"runId", "pattern", "version", "deviceId", "moduleId", "jobId", "attempt", "trigger", "state", "entry", "waitsFor", "phase", "progress", "text", "stepCount",
				"params", "result", "faultCode", "faultMessage", "principal", "createdTime", "startedTime", "endedTime", "instructions", "journalBytes",
			})
			if err != nil {
				return err
			}
		}
		for i := range list {
			d := showPatternRun(list[i])
			code, message := "", ""
			if d.Fault != nil {
				code, message = string(d.Fault.Code), d.Fault.Message
			}
			err := out.Write([]string{
				d.RunID, d.Pattern, d.Version, d.DeviceID, d.ModuleID, d.JobID, strconv.Itoa(d.Attempt), d.Trigger, string(d.State), string(d.Entry), d.WaitsFor,
				d.Phase, strconv.FormatFloat(d.Progress, 'f', -1, 64), d.Text, strconv.Itoa(d.Steps), string(d.Params), string(d.Result), code, message, d.Principal,
				timeCell(d.Created), timeCell(d.Started), timeCell(d.Ended), strconv.FormatInt(d.Cost.Instructions, 10), strconv.Itoa(d.Cost.Journal),
			})
			if err != nil {
				return err
			}
		}
		out.Flush()
		return out.Error()
	}
}
