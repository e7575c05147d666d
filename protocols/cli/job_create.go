package cli

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"iter"
	"strings"

	"github.com/muster-hub/muster/protocols/client"
)

// StartFlags say how a job is made.
type StartFlags struct {
	HubFlags
	OutputFlags
	JobFlags
	Yes   bool `short:"y" help:"Don't preview and don't ask."`
	Watch bool `help:"Then follow the job until it has ended."`
	PauseFlags
	ID string `name:"id" help:"Id of the job; the hub makes one when not given." placeholder:"ID"`
}

type jobCreateCmd struct {
	StartFlags
	More []string `arg:"" optional:"" name:"path=value" help:"More changes of twins, as of --patch."`
}

// Run makes a job: what was previewed and agreed to, and nothing else.
func (c *jobCreateCmd) Run(a *app) error {
	draft, err := a.jobDraft(c.JobFlags, c.More, true)
	if err != nil {
		return err
	}
	return c.start(a, draft)
}

type jobCloneCmd struct {
	StartFlags
	Job  string   `arg:"" help:"The job to begin with; flags stand over what it was made with."`
	More []string `arg:"" optional:"" name:"path=value" help:"More changes of twins, as of --patch."`
}

// Run makes a job of another one.
func (c *jobCloneCmd) Run(a *app) error {
	draft, err := a.jobDraft(c.JobFlags, c.More, false)
	if err != nil {
		return err
	}
	draft.Clone = c.Job
	return c.start(a, draft)
}

// start previews a draft, asks, and makes the job.
func (f *StartFlags) start(a *app, draft client.JobDraft) error {
	if f.Watch && f.Output != "table" && f.Output != "jsonl" {
		return usage("--watch goes with -o table or jsonl", "Leave -o out, or give -o jsonl for one event a line.")
	}
	if !f.Yes && !a.inTerminal {
		return usage("a job is made after a question, and standard input is not a terminal", "Add --yes if you are sure; `muster job preview` shows what it would do.")
	}
	s, err := a.service(f.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	if f.ID != "" {
		if draft.Spec, err = withMember(draft.Spec, "id", f.ID); err != nil {
			return err
		}
	}
	if !f.Yes {
		ctx, stop := a.with(f.HubFlags)
		p, err := s.PreviewJob(ctx, draft)
		stop()
		if err != nil {
			return err
		}
		if err := a.showPreview(a.io.Err, &p); err != nil {
			return err
		}
		if p.Confirm != "" { // a pattern that wants more than a yes
			err = a.confirmTyped(fmt.Sprintf("This starts on %s. Type %s to go on:", targetCount(p.Count), printable(p.Confirm)), p.Confirm)
		} else {
			err = a.confirm(false, fmt.Sprintf("Start on %s?", targetCount(p.Count)))
		}
		if err != nil {
			return err
		}
		draft.Token = p.Token
	}
	ctx, stop := a.with(f.HubFlags)
	j, err := s.CreateJob(ctx, draft, rand.Text())
	stop()
	if err != nil {
		return err
	}
	a.noteWarnings(j.Warnings)
	if f.Watch {
		a.note("Job %s.", printable(j.ID))
		return a.watchJob(s, j.ID, watching{output: f.Output, through: f.ThroughPauses})
	}
	if err := a.printJob(f.OutputFlags, j); err != nil {
		return err
	}
	if f.Output == "table" {
		a.note("`muster job watch %s` follows it.", printable(j.ID))
	}
	return nil
}

// noteWarnings tells of what may not be meant in a policy that nobody previewed.
func (a *app) noteWarnings(list []client.JobFault) {
	for _, f := range list {
		a.note("Warning: %s.", printable(faultText(f)))
	}
}

func withMember(raw json.RawMessage, name string, value any) (json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, err
	}
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	members[name] = text
	return json.Marshal(members)
}

type jobPreviewCmd struct {
	HubFlags
	OutputFlags
	JobFlags
	Sample int      `help:"Show what would change of so many targets." default:"10"`
	More   []string `arg:"" optional:"" name:"path=value" help:"More changes of twins, as of --patch."`
}

// Run shows what a job would do.
func (c *jobPreviewCmd) Run(a *app) error {
	draft, err := a.jobDraft(c.JobFlags, c.More, true)
	if err != nil {
		return err
	}
	if draft.Sample = c.Sample; c.Sample < 1 || c.Sample > 1000 {
		return usage("--sample is out of range", "Give 1 to 1000.")
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	p, err := s.PreviewJob(ctx, draft)
	if err != nil {
		return err
	}
	if c.Output == "table" {
		return a.showPreview(a.io.Out, &p)
	}
	if c.Output == "csv" {
		return a.print(c.OutputFlags, sampleSheet(&p, len(p.Sample)))
	}
	return a.printRecord(c.OutputFlags, p.Raw, nil)
}

func targetCount(n int64) string {
	if n == 1 {
		return "1 target"
	}
	return fmt.Sprintf("%d targets", n)
}

type jobTemplateGroup struct {
	Save   templateSaveCmd   `cmd:"" help:"Save a job, or a part of one, under a name, or make a new version of one."`
	List   templateListCmd   `cmd:"" help:"List the job templates."`
	Show   templateShowCmd   `cmd:"" help:"Show a job template."`
	Delete templateDeleteCmd `cmd:"" help:"Delete a job template with its versions."`
}

type templateSaveCmd struct {
	HubFlags
	OutputFlags
	JobFlags
	ETag string   `name:"etag" help:"Save it only if it still has this ETag; * only if it exists." placeholder:"ETAG"`
	Name string   `arg:"" help:"Name of the template."`
	More []string `arg:"" optional:"" name:"path=value" help:"More changes of twins, as of --patch."`
}

// Run saves a template.
func (c *templateSaveCmd) Run(a *app) error {
	if c.Template != "" {
		return usage("--template goes with a job", "Give the whole template with flags, or -f FILE.")
	}
	draft, err := a.jobDraft(c.JobFlags, c.More, false)
	if err != nil {
		return err
	}
	if string(draft.Spec) == "{}" {
		return usage("there is nothing to save", "Give flags, or -f FILE.")
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	t, err := s.PutJobTemplate(ctx, c.Name, c.Description, draft.Spec, c.ETag)
	if err != nil {
		return err
	}
	return a.printTemplate(c.OutputFlags, t)
}

func (a *app) printTemplate(o OutputFlags, t client.JobTemplate) error {
	return a.printRecord(o, t, []field{
		{"name", t.Name}, {"description", t.Description}, {"job", t.Job}, {"version", t.Version}, {"by", t.Principal}, {"created", t.Created},
		{"changed", t.Updated}, {"etag", t.ETag},
	})
}

type templateListCmd struct {
	HubFlags
	OutputFlags
}

// Run lists templates.
func (c *templateListCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	return a.printTemplates(c.OutputFlags, s.JobTemplates(ctx))
}

func (a *app) printTemplates(o OutputFlags, list iter.Seq2[client.JobTemplate, error]) error {
	sh := &sheet{columns: []string{"NAME", "VERSION", "CHANGED", "BY", "DESCRIPTION", "JOB"}, empty: "No job templates; `muster job template save NAME` saves one."}
	for t, err := range list {
		if err != nil {
			return err
		}
		sh.add(t, t.Name, t.Version, t.Updated, t.Principal, t.Description, t.Job)
	}
	return a.print(o, sh)
}

type templateShowCmd struct {
	HubFlags
	OutputFlags
	Version  uint64 `help:"A version before the newest." placeholder:"N"`
	Versions bool   `help:"All versions that are kept, newest first."`
	Name     string `arg:"" help:"Name of the template."`
}

// Run shows a template.
func (c *templateShowCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	if c.Versions {
		return a.printTemplates(c.OutputFlags, s.JobTemplateVersions(ctx, c.Name))
	}
	t, err := s.JobTemplate(ctx, c.Name, c.Version)
	if err != nil {
		return err
	}
	return a.printTemplate(c.OutputFlags, t)
}

type templateDeleteCmd struct {
	HubFlags
	Yes  bool   `short:"y" help:"Don't ask."`
	ETag string `name:"etag" help:"Delete it only if it still has this ETag." placeholder:"ETAG"`
	Name string `arg:"" help:"Name of the template."`
}

// Run deletes a template.
func (c *templateDeleteCmd) Run(a *app) error {
	s, ctx, stop, err := a.connectConfirmed(c.HubFlags, c.Yes, fmt.Sprintf("Delete the job template %s with its versions?", printable(c.Name)))
	if err != nil {
		return err
	}
	defer stop()
	if err := s.DeleteJobTemplate(ctx, c.Name, c.ETag); err != nil {
		return err
	}
	a.note("Deleted the job template %s.", printable(c.Name))
	return nil
}

// Help says more than a line about a job's flags.
func (c *jobCreateCmd) Help() string {
	return strings.TrimSpace(`
A job is targets, an action and a policy. Examples:

  muster job create --where 'tags.site == "lyon"' --patch desired.interval=30
  muster job create --where true --method reboot --waves 1,10%,100% --diverse --soak 10m --pause-at 5%
  muster job create -f rollout.yaml --watch

Spans of time are such as 90s, 1h30m or 2d; a share is a count, 5, or a percentage, 2.5%.`)
}
