package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

type runTraceCmd struct {
	HubFlags
	OutputFlags
	ID string `arg:"" name:"run" help:"Id of the run."`
}

// Run tells what a run did.
func (c *runTraceCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	t, err := s.RunTrace(ctx, c.ID)
	if err != nil {
		return err
	}
	switch c.Output {
	case "json":
		return writeJSON(a.io.Out, t.Raw)
	case "table":
		_, err := io.WriteString(a.io.Out, a.story(&t))
		return err
	}
	sh := &sheet{columns: []string{"NUMBER", "ENTRY", "OP", "ARGS", "STATE", "RESULT", "FAULT", "BEGUN", "ENDED", "LINE", "SOURCE"}}
	for i := range t.Steps {
		x := &t.Steps[i]
		fault := ""
		if x.Fault != nil {
			fault = faultLine(x.Fault)
		}
		sh.add(x, x.Number, x.Entry, x.Op, x.Args, x.State, x.Result, fault, x.Begun, x.Ended, x.Line, x.Source)
	}
	return a.print(c.OutputFlags, sh)
}

// story tells a run from its start to where it is: each step with its time, how
// long it took, what it was asked and what it gave, and below it the line of the
// program; between them what the program logged.
func (a *app) story(t *client.RunTrace) string {
	var b strings.Builder
	line := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		if a.width > 0 {
			text = cut(text, a.width)
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	line("%s %s on %s: %s", printable(t.Pattern), printable(t.Version), printable(t.Target()), printable(runState(&t.Run)))
	line("run %s by %s, %s", printable(t.ID), printable(t.Principal), a.runTimes(&t.Run))
	if origin := originText(&t.Run); origin != "" {
		line("%s", printable(origin))
	}
	if len(t.Params) > 0 && string(t.Params) != "{}" {
		line("with %s", printable(string(t.Params)))
	}
	b.WriteString("\n")
	logs := t.Logs
	said := func(until time.Time) {
		for len(logs) > 0 && (until.IsZero() || !logs[0].Time.After(until)) {
			line("       %s  says: %s", a.clock(logs[0].Time.Time), printable(logs[0].Text))
			logs = logs[1:]
		}
	}
	undoing := false
	for i := range t.Steps {
		s := &t.Steps[i]
		said(s.Begun.Time)
		if s.Entry == "undo" && !undoing {
			undoing = true
			line("  undo")
		}
		mark := " "
		if s.Deferred {
			mark = "*"
		}
		line("%s %3d  %s  %8s  %s", mark, s.Number, a.clock(s.Begun.Time), a.stepTook(s), printable(stepText(s)))
		switch {
		case s.State == "waiting":
			line("       %s", a.waiting(s, t.WaitsFor))
		default:
			word := "->"
			if s.State == "failed" {
				word = "!!"
			}
			tries := ""
			if s.Tries > 1 {
				tries = fmt.Sprintf("  (%d attempts)", s.Tries)
			}
			line("       %s %s%s", word, printable(outcomeText(s)), tries)
		}
		if s.Line != "" {
			line("       %s  %s", printable(s.Line), printable(s.Source))
		}
	}
	said(time.Time{})
	if slices.ContainsFunc(t.Steps, func(s client.RunStep) bool { return s.Deferred }) {
		line("  * by a deferred function")
	}
	b.WriteString("\n")
	if t.Cost.Activations > 0 {
		line("Cost: %s", costOfRun(&t.Cost))
	}
	if len(t.Cost.Hot) > 0 {
		line("Most at: %s", printable(hotText(t.Cost.Hot, t.Cost.Instructions)))
	}
	a.ending(t, line)
	return b.String()
}

// clock is a time of day.
func (a *app) clock(t time.Time) string {
	if t.IsZero() {
		return "            "
	}
	return t.In(a.zone).Format("15:04:05.000")
}

func (a *app) stepTook(s *client.RunStep) string {
	switch {
	case s.Begun.IsZero():
		return ""
	case s.Ended.IsZero():
		return "..."
	}
	return tookText(s.Ended.Sub(s.Begun.Time))
}

// waiting says for what an open step waits, and until when. waitsFor is what its
// run says of that.
func (a *app) waiting(s *client.RunStep, waitsFor string) string {
	text := "waits"
	what := waitText(s.Op)
	if strings.HasPrefix(waitsFor, waitText("connect")) { // the call is not sent yet
		what = printable(waitsFor)
	}
	if what != "" {
		text += " for " + what
	}
	if !s.Due.IsZero() {
		text += ", until " + a.cell(s.Due)
	}
	if s.Ref != "" && (s.Op == "dev.run" || s.Op == "fleet.run") {
		text += " (" + printable(s.Ref) + ")"
	}
	return text
}

// runTimes is when a run began and how long it took.
func (a *app) runTimes(r *client.Run) string {
	switch {
	case r.Started.IsZero() && r.Ended.IsZero():
		return "made " + a.cell(r.Created) + ", not begun"
	case r.Started.IsZero():
		return "made " + a.cell(r.Created) + ", never begun"
	case r.Ended.IsZero():
		return "begun " + a.cell(r.Started)
	}
	return "begun " + a.cell(r.Started) + ", took " + tookText(r.Ended.Sub(r.Started.Time))
}

// originText is where a run comes from.
func originText(r *client.Run) string {
	var parts []string
	for _, x := range []struct{ text, id string }{{"of the job ", r.JobID}, {"started by the run ", r.Parent}, {"a retry of ", r.Of}, {"by its trigger ", r.Trigger}} {
		if x.id != "" {
			parts = append(parts, x.text+x.id)
		}
	}
	return strings.Join(parts, ", ")
}

// ending tells how a run ended, or what it waits for, and what to do next.
func (a *app) ending(t *client.RunTrace, line func(format string, args ...any)) {
	r := &t.Run
	switch {
	case r.Fault != nil:
		line("It %s: %s", printable(endedWord(r)), printable(faultLine(r.Fault)))
		if r.Fault.Line != "" {
			line("  at %s", printable(r.Fault.Line))
		}
		for _, place := range r.Fault.Trace {
			line("  in %s", printable(place))
		}
	case r.Final && r.State != "undone" && len(r.Result) > 0:
		line("It %s, and gave %s", printable(endedWord(r)), printable(string(r.Result)))
	case r.Final:
		line("It %s.", printable(endedWord(r)))
	case r.Question != "":
		line("It asks: %s", printable(r.Question))
	default:
		line("It is %s: %s", printable(runState(r)), printable(a.runPlace(r)))
	}
	switch next := runNext(r); {
	case r.State == "failed":
		line("`muster run retry %s` starts it again.", printable(r.ID))
	case next != "":
		line("%s.", printable(next))
	}
}

// endedWord says how a run ended.
func endedWord(r *client.Run) string {
	switch r.State {
	case "skipped", "canceled", "undone":
		return "was " + r.State
	case "uncertain":
		return "ended uncertain"
	}
	return runState(r)
}
