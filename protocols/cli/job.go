package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-hub/muster/protocols/client"
)

type jobGroup struct {
	Create     jobCreateCmd     `cmd:"" help:"Show what a job would do, ask, and make it."`
	Preview    jobPreviewCmd    `cmd:"" help:"Show what a job would do, and to how many targets exactly."`
	List       jobListCmd       `cmd:"" help:"List the jobs, the newest first."`
	Show       jobShowCmd       `cmd:"" help:"Show a job: how far it is, what stops it, and what to do next."`
	Watch      jobWatchCmd      `cmd:"" help:"Follow a job until it has ended."`
	Executions jobExecutionsCmd `cmd:"" help:"List how a job stands with each target, or how all jobs stand with one."`
	Export     jobExportCmd     `cmd:"" help:"Write how a job stands with each target into a file."`
	Approve    jobApproveCmd    `cmd:"" help:"Let a wave begin that waits for approval."`
	Pause      jobPauseCmd      `cmd:"" help:"Stop a job from starting anything; what is on its way goes on."`
	Resume     jobResumeCmd     `cmd:"" help:"Let a paused job go on; this accepts what made it pause."`
	Cancel     jobCancelCmd     `cmd:"" help:"End a job; what is on its way goes on to its end."`
	Undo       jobUndoCmd       `cmd:"" help:"Have the runs of a job of a pattern take back what they did."`
	Retry      jobRetryCmd      `cmd:"" help:"Let targets begin again that ended badly."`
	Clone      jobCloneCmd      `cmd:"" help:"Make a job of what another one was made with."`
	Delete     jobDeleteCmd     `cmd:"" help:"Delete jobs that have ended, with their executions."`
	Template   jobTemplateGroup `cmd:"" help:"Jobs with a name, to begin others with."`
}

type jobListCmd struct {
	HubFlags
	OutputFlags
	Status string `help:"Only jobs of these statuses, with commas between: queued, scheduled, running, paused, canceling, completed, failed, canceled; active for those that have not ended." placeholder:"STATUS"`
	Kind   string `help:"Only jobs that change twins, that call methods, that run patterns, imports or exports." enum:",twin,method,run,import,export" default:"" placeholder:"KIND"`
	Label  string `help:"Only those with this label." placeholder:"KEY[=VALUE]"`
	Limit  int    `help:"At most so many; 0 lists all." default:"100"`
}

// Run lists jobs.
func (c *jobListCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	kind := map[string]string{"twin": "scheduleUpdateTwin", "method": "scheduleDeviceMethod", "run": "runPattern", "import": "import", "export": "export"}[c.Kind]
	sh := &sheet{columns: []string{"JOB", "STATUS", "DONE", "BAD", "ACTION", "CREATED", "BY", "DESCRIPTION"}, empty: "No jobs; `muster job create` makes one."}
	for j, err := range s.Jobs(ctx, client.JobFilter{Status: c.Status, Kind: kind, Label: c.Label}) {
		if err != nil {
			return err
		}
		if c.Limit > 0 && len(sh.rows) == c.Limit {
			a.note("There are more than %d; --limit 0 lists all.", c.Limit)
			break
		}
		status := j.Status
		switch {
		case j.WaitsFor != "":
			status += ": " + waitsForWhat(&j.JobProgress)
		case !j.NextRun.IsZero():
			status += ": repeats"
		}
		if j.Blocked != "" {
			status += " held by " + j.Blocked
		}
		done := doneOf(&j.JobProgress)
		if isIdentityJob(&j) && !j.Final() { // how many lines there are nobody knows
			done = fmt.Sprintf("%d so far", j.Total.Ended())
		}
		sh.add(j.Raw, j.ID, status, done, j.Total.Bad(), jobText(&j), j.Created, j.Principal, j.Description)
	}
	return a.print(c.OutputFlags, sh)
}

// doneOf is how many of a job's targets have ended.
func doneOf(p *client.JobProgress) string {
	if p.Status == "queued" {
		return fmt.Sprintf("%d found", p.Found)
	}
	return fmt.Sprintf("%d/%d", p.Total.Ended(), p.Total.Size)
}

// jobText is what a job does, in a few words; an import or export has no action.
func jobText(j *client.Job) string {
	if isIdentityJob(j) {
		return j.Kind
	}
	return actionText(&j.JobSpec)
}

func isIdentityJob(j *client.Job) bool { return j.Kind == "import" || j.Kind == "export" }

// actionText is what the action of a job does, in a few words.
func actionText(s *client.JobSpec) string {
	if m := s.Action.Method; m != nil {
		return "method " + m.Name
	}
	if r := s.Action.Run; r != nil {
		text := joined(" ", "pattern", r.Pattern, r.Version)
		if with := brief(r.Params); with != "" {
			text += " with " + with
		}
		return text
	}
	if g := s.Action.Configuration; g != nil {
		return fmt.Sprintf("revision %d of the configuration %s", g.Revision, g.ID)
	}
	var paths []string
	if t := s.Action.Twin; t != nil {
		for _, section := range []struct {
			name  string
			patch json.RawMessage
		}{{"tags", t.Tags}, {"desired", t.Desired}} {
			if len(section.patch) == 0 {
				continue
			}
			for _, l := range leaves(section.patch) {
				value, _ := l[1].(json.RawMessage)
				paths = append(paths, fmt.Sprintf("%s.%s=%s", section.name, l[0], value))
			}
		}
	}
	return brieflyJoined(paths, briefMost)
}

// brieflyJoined joins the first few of a list and counts the rest.
func brieflyJoined(list []string, most int) string {
	if more := len(list) - most; more > 0 {
		return strings.Join(list[:most], " ") + " +" + strconv.Itoa(more)
	}
	return strings.Join(list, " ")
}

// targetText is whom a job is for, in a few words.
func targetText(s *client.JobSpec) string {
	if s.Action.Configuration != nil {
		return "those of the configuration"
	}
	t := &s.Targets
	what := "devices"
	if t.Source != "" {
		what = t.Source
	}
	text := ""
	switch {
	case t.Where == "*" || t.Where == "true" || t.Condition == "*":
		text = "all " + what
	case t.Where != "":
		text = what + " where " + t.Where
	case t.Condition != "":
		text = what + " WHERE " + t.Condition
	case t.Query != "":
		text = "the saved query " + t.Query
	default:
		text = brieflyJoined(t.IDs, briefMost)
	}
	if t.ExcludeWhere != "" {
		text += ", without those where " + t.ExcludeWhere
	}
	if len(t.Exclude) > 0 {
		text += ", without " + brieflyJoined(t.Exclude, briefMost)
	}
	if t.Dynamic {
		text += ", and what comes to match"
	}
	return text
}

type jobShowCmd struct {
	HubFlags
	OutputFlags
	Job string `arg:"" help:"Id of the job."`
}

// Run shows a job.
func (c *jobShowCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	j, err := s.Job(ctx, c.Job)
	if err != nil {
		return err
	}
	if err := a.printJob(c.OutputFlags, j); err != nil || c.Output != "table" || j.Total.Bad() == 0 {
		return err
	}
	list, complete, err := s.JobFailures(ctx, c.Job, j.Run)
	if err != nil {
		return err
	}
	sh := &sheet{columns: []string{"FAILED", "CODE", "COUNT", "MESSAGE OF ONE", "TARGET"}}
	for _, f := range list {
		target := f.DeviceID
		if f.ModuleID != "" {
			target += "/" + f.ModuleID
		}
		sh.add(f, f.Status, f.Code, f.Count, f.Message, target)
	}
	if !complete {
		a.note("There are more that ended badly than the hub counts by code.")
	}
	a.printf("\n")
	return a.writeTable(sh)
}

// printJob writes a job, and below it its waves.
func (a *app) printJob(o OutputFlags, j client.Job) error {
	fields := []field{{"job", j.ID}}
	optional := func(name string, value any, there bool) {
		if there || o.Output == "csv" {
			fields = append(fields, field{name, value})
		}
	}
	optional("description", j.Description, j.Description != "")
	optional("labels", labelText(j.Labels), len(j.Labels) > 0)
	fields = append(fields, field{"action", jobText(&j)}, field{"targets", targetText(&j.JobSpec)}, field{"status", a.standing(&j.JobProgress)})
	optional("next", jobNext(j.ID, &j.JobProgress), jobNext(j.ID, &j.JobProgress) != "")
	fields = append(fields, field{"done", doneOf(&j.JobProgress)}, field{"outcomes", tallyText(&j.Total)}, field{"policy", policyText(&j.Policy)})
	for i := range j.Gates {
		fields = append(fields, field{"gate", gateText(&j.Gates[i])})
	}
	if j.Undo != nil {
		fields = append(fields, field{"undo", undoText(j.Undo)})
	}
	optional("run", j.Run, j.Policy.Repeat != "")
	optional("next run", j.NextRun, !j.NextRun.IsZero())
	fields = append(fields, field{"by", j.Principal}, field{"created", j.Created})
	optional("started", j.Started, !j.Started.IsZero())
	optional("ended", j.Ended, !j.Ended.IsZero())
	optional("will end about", j.ETA, !j.ETA.IsZero())
	fields = append(fields, field{"etag", j.ETag})
	if err := a.printRecord(o, j.Raw, fields); err != nil || o.Output != "table" || len(j.Waves) < 2 {
		return err
	}
	a.printf("\n")
	sh := &sheet{columns: []string{"WAVE", "STATUS", "DONE", "OUTCOMES", "APPROVED BY"}}
	for i := range j.Waves {
		w := &j.Waves[i]
		sh.add(w, w.Number, waveStanding(w), fmt.Sprintf("%d/%d", w.Ended(), w.Size), tallyText(&w.JobTally), w.Approved)
	}
	return a.writeTable(sh)
}

// waveStanding is how a wave stands, for people.
func waveStanding(w *client.JobWaveState) string {
	if w.Status == "approval" {
		return "waits for approval"
	}
	return w.Status
}

// tallyText counts executions by outcome; what there is none of is left out.
func tallyText(t *client.JobTally) string {
	var parts []string
	for _, p := range []struct {
		name string
		n    int
	}{
		{"succeeded", t.Succeeded}, {"failed", t.Failed}, {"timed out", t.TimedOut}, {"rejected", t.Rejected}, {"uncertain", t.Uncertain},
		{"canceled", t.Canceled}, {"removed", t.Removed}, {"under way", t.Active}, {"waiting", t.Waiting}, {"retrying", t.Retrying}, {"pending", t.Pending},
	} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", p.name, p.n))
		}
	}
	return strings.Join(parts, ", ")
}

// standing is how a job stands, for people: its status, and what it waits for
// or why.
func (a *app) standing(p *client.JobProgress) string {
	text := p.Reason
	if text == "" && p.Status == "running" {
		switch p.WaitsFor {
		case "":
		case "approval":
			text = fmt.Sprintf("wave %d waits for approval", p.Wave)
		case "soak":
			text = fmt.Sprintf("soaks until %s", a.cell(p.SoakUntil))
		case "turn":
			text = "waits for its turn among other jobs"
		default:
			text = "waits for " + waitsForWhat(p)
		}
		if p.Blocked != "" {
			text += " on which the job " + p.Blocked + " is in progress"
		}
	}
	if text == "" {
		return p.Status
	}
	return p.Status + ": " + text
}

// waitsForWhat is what a job waits for. Where the hub says devices, it is those only
// while some are missing: otherwise all that is left has begun.
func waitsForWhat(p *client.JobProgress) string {
	switch t := &p.Total; {
	case p.WaitsFor != "devices" || t.Waiting > 0:
	case t.Active > 0:
		return "what is under way"
	case t.Retrying > 0:
		return "retries"
	}
	return p.WaitsFor
}

// jobNext is what one can do about how a job stands; "" when nothing is to do.
func jobNext(id string, p *client.JobProgress) string {
	switch {
	case p.Status == "running" && p.WaitsFor == "approval":
		return fmt.Sprintf("`muster job approve %s` lets wave %d begin; `muster job cancel %s` ends the job", id, p.Wave, id)
	case p.Status == "running" && p.WaitsFor == "window":
		return "it goes on by itself when a window opens"
	case p.Status == "running" && p.Blocked != "":
		return fmt.Sprintf("it goes on by itself when that job is done with them; `muster job show %s` says how far it is", p.Blocked)
	case p.Undo != nil && p.Undo.Failed > 0:
		return fmt.Sprintf("`muster run list --job %s --state failed` shows whose undo failed; `muster run undo RUN` tries it again", id)
	case p.Undo != nil:
		return ""
	case p.Status == "paused" && p.Total.Bad() == 0:
		return fmt.Sprintf("`muster job resume %s` lets it go on; `muster job cancel %s` ends the job", id, id)
	case p.Status == "paused":
		return fmt.Sprintf("%s; `muster job resume %s` accepts it and goes on; `muster job cancel %s` ends the job", showsBad(id, &p.Total), id, id)
	case p.Final() && p.Total.Bad() > 0:
		return fmt.Sprintf("%s; `muster job retry %s` tries it again", showsBad(id, &p.Total), id)
	}
	return ""
}

// showsBad says how to see the executions that ended badly: the command is for
// what most of them are, and the others' statuses stand beside it.
func showsBad(id string, t *client.JobTally) string {
	type kind struct {
		status string
		n      int
	}
	kinds := []kind{{"failed", t.Failed}, {"rejected", t.Rejected}, {"timedOut", t.TimedOut}, {"uncertain", t.Uncertain}}
	slices.SortStableFunc(kinds, func(a, b kind) int { return b.n - a.n })
	text := fmt.Sprintf("`muster job executions %s --status %s` shows what failed", id, kinds[0].status)
	var others []string
	for _, k := range kinds[1:] {
		if k.n > 0 {
			others = append(others, k.status)
		}
	}
	if len(others) > 0 {
		text += " (there are also " + strings.Join(others, ", ") + ")"
	}
	return text
}

type jobControl struct {
	HubFlags
	OutputFlags
	ETag string `name:"etag" help:"Do it only if the job still has this ETag." placeholder:"ETAG"`
	Job  string `arg:"" help:"Id of the job."`
}

// do runs an operation on a job and shows how the job stands then.
func (c *jobControl) do(a *app, f func(ctx context.Context, s *client.Service) (client.Job, error)) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	j, err := f(ctx, s)
	if err != nil {
		return err
	}
	return a.printJob(c.OutputFlags, j)
}

type jobPauseCmd struct {
	jobControl
	Reason string `help:"Why; it is shown with the job." placeholder:"TEXT"`
}

// Run pauses a job.
func (c *jobPauseCmd) Run(a *app) error {
	return c.do(a, func(ctx context.Context, s *client.Service) (client.Job, error) {
		return s.PauseJob(ctx, c.Job, c.Reason, c.ETag)
	})
}

type jobResumeCmd struct{ jobControl }

// Run resumes a job.
func (c *jobResumeCmd) Run(a *app) error {
	return c.do(a, func(ctx context.Context, s *client.Service) (client.Job, error) {
		return s.ResumeJob(ctx, c.Job, c.ETag)
	})
}

type jobApproveCmd struct {
	jobControl
	Wave int `help:"Number of the wave, from 1; the next one that asks for approval when not given." placeholder:"N"`
}

// Run approves a wave.
func (c *jobApproveCmd) Run(a *app) error {
	if c.Wave < 0 {
		return usage("--wave is negative", "Give the number of a wave; 1 is the first.")
	}
	return c.do(a, func(ctx context.Context, s *client.Service) (client.Job, error) {
		return s.ApproveJob(ctx, c.Job, c.Wave, c.ETag)
	})
}

type jobCancelCmd struct {
	jobControl
	Reason string `help:"Why; it is shown with the job." placeholder:"TEXT"`
	Yes    bool   `short:"y" help:"Don't ask."`
}

// Run cancels a job.
func (c *jobCancelCmd) Run(a *app) error {
	if err := a.confirm(c.Yes, fmt.Sprintf("Cancel the job %s? What it has done stays done.", printable(c.Job))); err != nil {
		return err
	}
	return c.do(a, func(ctx context.Context, s *client.Service) (client.Job, error) {
		return s.CancelJob(ctx, c.Job, c.Reason, c.ETag)
	})
}

type jobRetryCmd struct {
	jobControl
	Outcome []string `help:"Only those that ended so: failed, timedOut, rejected, uncertain, canceled; all but the last when not given." placeholder:"OUTCOME"`
}

// Run retries what ended badly.
func (c *jobRetryCmd) Run(a *app) error {
	return c.do(a, func(ctx context.Context, s *client.Service) (client.Job, error) {
		j, n, err := s.RetryJob(ctx, c.Job, c.Outcome, c.ETag)
		if err == nil {
			a.note("%d begin again.", n)
		}
		return j, err
	})
}

type jobDeleteCmd struct {
	HubFlags
	Yes  bool     `short:"y" help:"Don't ask."`
	Jobs []string `arg:"" name:"job" help:"Ids of the jobs."`
}

// Run deletes jobs.
func (c *jobDeleteCmd) Run(a *app) error {
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	if err := a.confirm(c.Yes, fmt.Sprintf("Delete %s with all executions?", few(c.Jobs))); err != nil {
		return err
	}
	return a.each(c.HubFlags, c.Jobs, func(ctx context.Context, id string) error {
		err := s.DeleteJob(ctx, id, "")
		if err == nil {
			a.note("Deleted job %s.", printable(id))
		}
		return err
	})
}

// policyText is a policy in one line.
func policyText(p *client.JobPolicy) string { return strings.Join(policyParts(p), "; ") }

func policyParts(p *client.JobPolicy) (parts []string) {
	add := func(there bool, format string, args ...any) {
		if there {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(len(p.Waves) > 1, "%d waves", len(p.Waves))
	if r := p.Rate; r != nil {
		text := rateText(r.PerMinute)
		if r.Every > 0 {
			text += fmt.Sprintf(" (times %s with each %d that %s)", number(r.Factor), r.Every, r.Of)
		}
		add(true, "%s", text)
	}
	add(p.Parallel > 0, "%d at a time", p.Parallel)
	for _, w := range p.Windows {
		zone := w.TimeZone
		if w.ZoneTag != "" {
			zone = "the zone in " + w.ZoneTag + ", else " + zone
		}
		add(true, "from %q for %s in %s", w.Cron, w.Duration, zone)
	}
	add(p.Start != "", "from %s", p.Start)
	add(p.End != "", "until %s", p.End)
	add(p.Repeat != "", "again at %q in %s", p.Repeat, p.RepeatZone)
	if r := p.Retry; r != nil {
		add(r.Attempts > 1, "%d attempts after %s", r.Attempts, strings.Join(r.On, ", "))
	}
	for _, t := range p.Pause {
		add(true, "pauses at %s", thresholdText(t))
	}
	for _, t := range p.Abort {
		add(true, "gives up at %s", thresholdText(t))
	}
	add(p.Timeout != "", "%s for each target", p.Timeout)
	add(p.Priority != 0, "priority %d", p.Priority)
	return parts
}

// rateText is a rate in the unit in which it is a number that people read.
func rateText(perMinute float64) string {
	if perMinute < 1 {
		return number(math.Round(perMinute*60*1000)/1000) + " an hour"
	}
	return number(math.Round(perMinute*1000)/1000) + " a minute"
}

func thresholdText(t client.JobThreshold) string {
	text := t.Share + " bad of a wave"
	if t.Per == "job" {
		text = t.Share + " bad of all"
	}
	if t.Least > 1 {
		text += fmt.Sprintf(" from %d outcomes on", t.Least)
	}
	return text
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
