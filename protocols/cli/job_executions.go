package cli

import (
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"strings"

	"github.com/muster-hub/muster/protocols/client"
)

// ExecutionFlags select executions of a job.
type ExecutionFlags struct {
	Status string `help:"Only those of this status." enum:",pending,waiting,running,confirming,retrying,uncertain,succeeded,failed,timedOut,rejected,canceled,removed" default:"" placeholder:"STATUS"`
	Wave   int    `help:"Only those of this wave, from 1." placeholder:"N"`
	RunNo  uint64 `name:"run" help:"Of a job that repeats, which run; the newest when not given." placeholder:"N"`
}

func (f ExecutionFlags) filter() client.ExecutionFilter {
	return client.ExecutionFilter{Status: f.Status, Wave: f.Wave, Run: f.RunNo}
}

type jobExecutionsCmd struct {
	HubFlags
	OutputFlags
	ExecutionFlags
	Device string `help:"The executions of all jobs on this device or module instead." placeholder:"ID"`
	Limit  int    `help:"At most so many. When not given, 1000 in a table and all in the other forms."`
	Job    string `arg:"" optional:"" help:"Id of the job."`
}

// Run lists executions.
func (c *jobExecutionsCmd) Run(a *app) error {
	switch {
	case c.Limit < 0:
		return usage("--limit is negative", "Give how many.")
	case c.Job == "" && c.Device == "":
		return usage("neither a job nor a device is named", "Give the job's id, or --device ID.")
	case c.Job != "" && c.Device != "", c.Device != "" && c.filter() != client.ExecutionFilter{}:
		return usage("--device goes without a job and its filters", "Give one of them.")
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	if format := map[string]string{"csv": "csv", "jsonl": "ndjson"}[c.Output]; format != "" && c.Job != "" && c.Limit == 0 {
		return a.stream(func(w io.Writer) error { return s.ExportExecutions(a.ctx, c.Job, c.filter(), format, w) })
	}
	ctx, stop := a.with(c.HubFlags)
	defer stop()
	var list iter.Seq2[client.Execution, error]
	if c.Device != "" {
		device, module, err := splitID(c.Device)
		if err != nil {
			return err
		}
		list = s.DeviceJobs(ctx, device, module)
	} else {
		list = s.Executions(ctx, c.Job, c.filter())
	}
	limit := c.Limit
	if limit == 0 && c.Output == "table" {
		limit = 1000
	}
	sh := &sheet{columns: []string{"TARGET", "JOB", "WAVE", "STATUS", "ATTEMPTS", "STARTED", "ENDED", "CODE", "WHAT"}, empty: "No executions."}
	for e, err := range list {
		if err != nil {
			return err
		}
		if limit > 0 && len(sh.rows) == limit {
			a.note("There are more than %d; --limit shows more, -o csv or jsonl all.", limit)
			break
		}
		sh.add(e, e.Target(), e.JobID, e.Wave, executionStanding(&e), e.Attempts, e.Started, e.Ended, e.Code, executionText(&e))
	}
	return a.print(c.OutputFlags, sh)
}

func executionStanding(e *client.Execution) string {
	if e.BlockedBy != "" {
		return e.Status + " for " + e.BlockedBy
	}
	return e.Status
}

// executionText is what a target answered, or why it came to nothing.
func executionText(e *client.Execution) string {
	if e.Message != "" {
		return e.Message
	}
	if r := e.Response; r != nil {
		return fmt.Sprintf("answered %d %s", r.Status, r.Payload)
	}
	return ""
}

type jobExportCmd struct {
	HubFlags
	ExecutionFlags
	To    string `short:"t" required:"" help:"File to make, .csv, or .jsonl for a JSON object a line; - is standard output, as JSON." placeholder:"FILE"`
	Force bool   `help:"Replace a file that exists."`
	Job   string `arg:"" help:"Id of the job."`
}

// Run exports executions: into a temporary file beside its place, which it
// takes when all have come.
func (c *jobExportCmd) Run(a *app) error {
	format := "ndjson"
	if strings.EqualFold(filepath.Ext(c.To), ".csv") {
		format = "csv"
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	write := func(w io.Writer) error { return s.ExportExecutions(a.ctx, c.Job, c.filter(), format, w) }
	if c.To == "-" {
		return a.stream(write)
	}
	if err := wholeFile(c.To, c.Force, write); err != nil {
		return err
	}
	a.note("Wrote %s.", printable(c.To))
	return nil
}
