package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/muster-hub/muster/protocols/client"
)

type runGroup struct {
	List    runListCmd    `cmd:"" help:"List runs of patterns, the newest first."`
	Show    runShowCmd    `cmd:"" help:"Show a run: how far it is, what it waits for, and what to do next."`
	Trace   runTraceCmd   `cmd:"" help:"Tell what a run did, step by step, with times, values and source lines."`
	Watch   runWatchCmd   `cmd:"" help:"Follow a run until it has ended."`
	Approve runApproveCmd `cmd:"" help:"Answer yes to what runs ask."`
	Deny    runDenyCmd    `cmd:"" help:"Answer no to what runs ask."`
	Cancel  runCancelCmd  `cmd:"" help:"Ask runs to end; they clean up first."`
	Undo    runUndoCmd    `cmd:"" help:"Have runs that have ended take back what they did."`
	Retry   runRetryCmd   `cmd:"" help:"Start a run again that has ended: from its start, or from a step."`
	Export  runExportCmd  `cmd:"" help:"Write runs into a file."`
}

// RunFilterFlags select runs.
type RunFilterFlags struct {
	Pattern string `help:"Only runs of this pattern." placeholder:"NAME"`
	Device  string `help:"Only runs on this device or module." placeholder:"ID"`
	Job     string `help:"Only runs of this job." placeholder:"ID"`
	State   string `help:"Only runs of these states, with commas between: queued, ready, waiting, succeeded, skipped, failed, uncertain, canceled, undone; active for those that have not ended." placeholder:"STATE"`
	Asks    bool   `help:"Only runs that wait for a person's answer."`
}

func (f RunFilterFlags) filter() (client.RunFilter, error) {
	out := client.RunFilter{Pattern: f.Pattern, JobID: f.Job, State: f.State, Asks: f.Asks}
	if f.Device == "" {
		return out, nil
	}
	var err error
	out.DeviceID, out.ModuleID, err = splitID(f.Device)
	return out, err
}

type runListCmd struct {
	HubFlags
	OutputFlags
	RunFilterFlags
	Limit int `help:"At most so many; 0 lists all." default:"100"`
}

// Run lists runs.
func (c *runListCmd) Run(a *app) error {
	f, err := c.filter()
	if err != nil {
		return err
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	sh := &sheet{columns: []string{"RUN", "PATTERN", "ON", "STATE", "WHERE IT IS", "STEPS", "BEGUN", "JOB"}, empty: "No such runs."}
	if f == (client.RunFilter{}) {
		sh.empty = "No runs; `muster pattern run NAME --device ID` starts one."
	}
	for r, err := range s.Runs(ctx, f) {
		if err != nil {
			return err
		}
		if c.Limit > 0 && len(sh.rows) == c.Limit {
			a.note("There are more than %d; --limit 0 lists all.", c.Limit)
			break
		}
		sh.add(r.Raw, r.ID, r.Pattern+" "+r.Version, r.Target(), runState(&r), a.runPlace(&r), r.Steps, r.Created, r.JobID)
	}
	return a.print(c.OutputFlags, sh)
}

// runState is the state of a run, for people.
func runState(r *client.Run) string {
	text := r.State
	switch {
	case r.Entry == "undo" && !r.Final:
		text = "undoing"
	case r.Entry == "undo" && r.State == "failed":
		text = "failed to undo"
	case r.Canceling && !r.Final:
		text = "canceling"
	}
	return text
}

// runPlace is where a run is: its question, its fault, or its phase and what it
// waits for.
func (a *app) runPlace(r *client.Run) string {
	switch {
	case r.Question != "":
		return "asks: " + r.Question
	case r.Fault != nil:
		return faultLine(r.Fault)
	case r.Final && r.State != "undone" && len(r.Result) > 0:
		return joined("; ", r.Text, string(r.Result))
	}
	var parts []string
	if r.Phase != "" {
		phase := r.Phase
		if r.Progress > 0 && !r.Final {
			phase += fmt.Sprintf(" %.0f %%", 100*r.Progress)
		}
		parts = append(parts, phase)
	}
	if r.Text != "" {
		parts = append(parts, r.Text)
	}
	if r.WaitsFor != "" && !r.Final {
		parts = append(parts, "waits for "+r.WaitsFor)
	}
	return strings.Join(parts, "; ")
}

// faultLine is a fault in a line.
func faultLine(f *client.RunFault) string {
	message := oneLine(f.Message)
	if strings.HasPrefix(message, f.Code) {
		return message
	}
	return f.Code + ": " + message
}

// oneLine is a text of several lines as one of a table.
func oneLine(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
			continue
		case b.Len() == 0:
		case strings.ContainsAny(b.String()[b.Len()-1:], ".:;,"):
			b.WriteString(" ")
		default:
			b.WriteString("; ")
		}
		b.WriteString(line)
	}
	return b.String()
}

type runShowCmd struct {
	HubFlags
	OutputFlags
	ID string `arg:"" name:"run" help:"Id of the run."`
}

// Run shows a run.
func (c *runShowCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	r, err := s.Run(ctx, c.ID)
	if err != nil {
		return err
	}
	return a.printRun(c.OutputFlags, &r)
}

// printRun writes a run.
func (a *app) printRun(o OutputFlags, r *client.Run) error {
	fields := []field{{"run", r.ID}, {"pattern", r.Pattern + " " + r.Version}, {"on", r.Target()}, {"state", runState(r)}}
	optional := func(name string, value any, there bool) {
		if there || o.Output == "csv" {
			fields = append(fields, field{name, value})
		}
	}
	optional("next", runNext(r), runNext(r) != "")
	optional("asks", r.Question, r.Question != "")
	optional("phase", r.Phase, r.Phase != "")
	optional("progress", fmt.Sprintf("%.0f %%", 100*r.Progress), r.Progress > 0)
	optional("says", r.Text, r.Text != "")
	optional("waits for", r.WaitsFor, r.WaitsFor != "" && !r.Final)
	optional("until", r.Due, !r.Due.IsZero() && !r.Final)
	if r.Fault != nil || o.Output == "csv" {
		text, line := "", ""
		if r.Fault != nil {
			text, line = faultLine(r.Fault), r.Fault.Line
		}
		fields = append(fields, field{"why", text})
		optional("at", line, line != "")
	}
	optional("result", r.Result, len(r.Result) > 0)
	optional("parameters", r.Params, len(r.Params) > 0 && string(r.Params) != "{}")
	optional("job", r.JobID, r.JobID != "")
	optional("started by the run", r.Parent, r.Parent != "")
	optional("retry of", r.Of, r.Of != "")
	optional("attempt", r.Attempt, r.Attempt > 1)
	optional("trigger", r.Trigger, r.Trigger != "")
	fields = append(fields, field{"steps", r.Steps}, field{"took", costOfRun(&r.Cost)})
	optional("most at", hotText(r.Cost.Hot, r.Cost.Instructions), len(r.Cost.Hot) > 0)
	fields = append(fields, field{"by", r.Principal}, field{"created", r.Created})
	optional("started", r.Started, !r.Started.IsZero())
	optional("ended", r.Ended, !r.Ended.IsZero())
	return a.printRecord(o, r.Raw, fields)
}

// costOfRun is what a run took.
func costOfRun(c *client.RunCost) string {
	return fmt.Sprintf("%d activations, %d instructions (at most %d in one), %d host calls, %s in workers, %d bytes of journal",
		c.Activations, c.Instructions, c.Peak, c.Calls, secondsText(c.Seconds), c.Journal)
}

// runNext is what one can do about how a run stands; "" when nothing is to do.
func runNext(r *client.Run) string {
	switch {
	case r.Question != "":
		return fmt.Sprintf("`muster run approve %s` or `muster run deny %s` answers", r.ID, r.ID)
	case r.Final && (r.State == "failed" || r.State == "uncertain"):
		next := fmt.Sprintf("`muster run trace %s` tells what it did; `muster run retry %s` starts it again", r.ID, r.ID)
		if r.State == "uncertain" {
			next = "nobody knows whether the device took the last command: look at it first; " + next
		}
		return next
	}
	return ""
}

// RunsFlags name runs one by one, or by a filter.
type RunsFlags struct {
	HubFlags
	RunFilterFlags
	Yes  bool     `short:"y" help:"Don't ask."`
	Runs []string `arg:"" optional:"" name:"run" help:"Ids of the runs."`
}

// do runs an operation on the runs that are named, or on those that the filter
// selects after a question with their number.
func (f *RunsFlags) do(a *app, verb, done string, narrow client.RunFilter, one func(ctx context.Context, s *client.Service, id string) error, all func(ctx context.Context, s *client.Service, f client.RunFilter) (int, error)) error {
	filter, err := f.filter()
	if err != nil {
		return err
	}
	chosen := filter != client.RunFilter{}
	if chosen == (len(f.Runs) > 0) {
		return usage("runs are named one by one, or by a filter", "Give their ids, or --job, --pattern, --device, --state or --asks.")
	}
	s, err := a.service(f.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	if !chosen {
		return a.each(f.HubFlags, f.Runs, func(ctx context.Context, id string) error { return one(ctx, s, id) })
	}
	counted := filter
	counted.Asks = counted.Asks || narrow.Asks
	if counted.State == "" {
		counted.State = narrow.State
	}
	if !f.Yes {
		ctx, stop := a.with(f.HubFlags)
		n, err := runsOf(ctx, s, counted)
		stop()
		if err != nil {
			return err
		}
		if n == 0 {
			a.note("There are no such runs.")
			return nil
		}
		if err := a.confirm(false, fmt.Sprintf("%s %s?", verb, runCount(n))); err != nil {
			return err
		}
	}
	ctx, stop := a.with(f.HubFlags)
	defer stop()
	n, err := all(ctx, s, counted)
	if err != nil {
		return err
	}
	a.note("%s %s.", done, runCount(int64(n)))
	return nil
}

func runsOf(ctx context.Context, s *client.Service, f client.RunFilter) (n int64, err error) {
	list, err := s.RunCounts(ctx, f)
	for _, x := range list {
		n += x.Count
	}
	return n, err
}

func runCount(n int64) string {
	if n == 1 {
		return "1 run"
	}
	return fmt.Sprintf("%d runs", n)
}

type runApproveCmd struct {
	RunsFlags
	Reason string `help:"Why; it is kept with the run." placeholder:"TEXT"`
}

// Run approves.
func (c *runApproveCmd) Run(a *app) error { return c.decide(a, true, c.Reason) }

type runDenyCmd struct {
	RunsFlags
	Reason string `help:"Why; the program finds it in the fault." placeholder:"TEXT"`
}

// Run denies.
func (c *runDenyCmd) Run(a *app) error { return c.decide(a, false, c.Reason) }

func (f *RunsFlags) decide(a *app, approve bool, reason string) error {
	verb, done := "Deny", "Denied"
	if approve {
		verb, done = "Approve", "Approved"
	}
	return f.do(a, verb, done, client.RunFilter{Asks: true},
		func(ctx context.Context, s *client.Service, id string) error {
			r, err := s.DecideRun(ctx, id, approve, reason)
			if err == nil {
				a.note("%s the run %s on %s.", done, printable(r.ID), printable(r.Target()))
			}
			return err
		},
		func(ctx context.Context, s *client.Service, filter client.RunFilter) (int, error) {
			return s.DecideRuns(ctx, filter, approve, reason)
		})
}

type runCancelCmd struct {
	RunsFlags
	Reason string `help:"Why; the program finds it in the fault." placeholder:"TEXT"`
	Undo   bool   `help:"Then take back what was done, where the pattern can."`
	Now    bool   `help:"At once, without letting the program clean up."`
}

// Run cancels.
func (c *runCancelCmd) Run(a *app) error {
	if c.Undo && c.Now {
		return usage("--undo and --now are both given", "Give one of them.")
	}
	o := client.CancelRunOptions{Reason: c.Reason, Undo: c.Undo, Now: c.Now}
	return c.do(a, "Cancel", "Asked to end:", client.RunFilter{State: "active"},
		func(ctx context.Context, s *client.Service, id string) error {
			r, err := s.CancelRun(ctx, id, o)
			if err == nil {
				a.note("The run %s on %s is %s.", printable(r.ID), printable(r.Target()), printable(runState(&r)))
			}
			return err
		},
		func(ctx context.Context, s *client.Service, filter client.RunFilter) (int, error) {
			return s.CancelRuns(ctx, filter, o)
		})
}

type runUndoCmd struct {
	HubFlags
	Runs []string `arg:"" name:"run" help:"Ids of the runs."`
}

// Run undoes.
func (c *runUndoCmd) Run(a *app) error {
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	return a.each(c.HubFlags, c.Runs, func(ctx context.Context, id string) error {
		r, err := s.UndoRun(ctx, id)
		if err == nil {
			a.note("The run %s on %s is %s; `muster run watch %s` follows it.", printable(r.ID), printable(r.Target()), printable(runState(&r)), printable(r.ID))
		}
		return err
	})
}

type runRetryCmd struct {
	HubFlags
	OutputFlags
	From    int    `help:"Take this step again, and those behind it; steps before it keep their answers. The pattern has to allow it." placeholder:"STEP"`
	Version string `help:"With this version of the pattern; the run's own when not given." placeholder:"VERSION"`
	Watch   bool   `help:"Then follow the new run until it has ended."`
	ID      string `arg:"" name:"run" help:"Id of the run."`
}

// Run starts a run again.
func (c *runRetryCmd) Run(a *app) error {
	if c.From < 0 {
		return usage("--from is negative", "Give the number of a step; `muster run trace RUN` shows them.")
	}
	if c.Watch && c.Output != "table" && c.Output != "jsonl" {
		return usage("--watch goes with -o table or jsonl", "Leave -o out, or give -o jsonl for one event a line.")
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, stop := a.with(c.HubFlags)
	r, err := s.RetryRun(ctx, c.ID, c.From, c.Version)
	stop()
	if err != nil {
		return err
	}
	if c.Watch {
		a.note("Run %s.", printable(r.ID))
		return a.watchRun(s, r.ID, c.Output, 0)
	}
	return a.printRun(c.OutputFlags, &r)
}

type runExportCmd struct {
	HubFlags
	RunFilterFlags
	To    string `short:"t" required:"" help:"File to make, .csv, or .jsonl for a JSON object a line; - is standard output, as JSON." placeholder:"FILE"`
	Force bool   `help:"Replace a file that exists."`
}

// Run exports runs.
func (c *runExportCmd) Run(a *app) error {
	f, err := c.filter()
	if err != nil {
		return err
	}
	format := "ndjson"
	if strings.EqualFold(filepath.Ext(c.To), ".csv") {
		format = "csv"
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	write := func(w io.Writer) error { return s.ExportRuns(a.ctx, f, format, w) }
	if c.To == "-" {
		return a.stream(write)
	}
	if err := wholeFile(c.To, c.Force, write); err != nil {
		return err
	}
	a.note("Wrote %s.", printable(c.To))
	return nil
}
