package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/protocols/client"
)

type patternRunCmd struct {
	HubFlags
	OutputFlags
	Device string `help:"On this device or module alone, without a job." placeholder:"ID" group:"Targets"`
	All    bool   `help:"Targets: every device." group:"Targets"`
	TargetFlags
	ParamFlags
	Description string            `help:"What it is for." placeholder:"TEXT" group:"Run"`
	Label       map[string]string `help:"A label of the job; repeatable." placeholder:"KEY=VALUE" mapsep:"none" group:"Run"`
	PolicyFlags
	Yes      bool `short:"y" help:"Don't preview and don't ask."`
	OverMost bool `help:"With --yes: also when there are more targets than the pattern says to be confirmed."`
	Watch    bool `help:"Follow it until it has ended, which --no-watch does not; with -o json and csv nothing is followed." default:"true" negatable:""`
	PauseFlags
	PatternFlags
}

// Help says more than a line.
func (c *patternRunCmd) Help() string {
	return strings.TrimSpace(`
On one device it is a run. Over many it is a job: targets and policy are those of
muster job create, and what the job does not say of its policy, the pattern does.
Examples:

  muster pattern run reboot --device pump-7
  muster pattern run reboot --where 'tags.site == "lyon"' --param delay=5 --waves 1,10%,100%
  muster pattern run factory-reset --ids pump-7,pump-8 --yes --no-watch

The parameters are checked before anything is sent. It ends with 0 when all went
well, 8 when some of the devices ended badly, 1 when all of them did. A job that
pauses ends the watching with 8 where there is no terminal, unless
--through-pauses is given.`)
}

// Run runs a pattern.
func (c *patternRunCmd) Run(a *app) error {
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, stop := a.with(c.HubFlags)
	p, err := s.Pattern(ctx, c.Pattern, c.Version)
	stop()
	if err != nil {
		return err
	}
	m, err := manifestOf(&p)
	if err != nil {
		return err
	}
	fleet := m.Scope == pattern.ScopeFleet
	if err := c.check(a, &p, fleet); err != nil {
		return err
	}
	params, err := c.parameters(m)
	if err != nil {
		return err
	}
	if fleet || c.Device != "" {
		return c.runOne(a, s, m, params)
	}
	return c.runMany(a, s, m, params)
}

// watched says whether what was started is followed.
func (c *patternRunCmd) watched() bool {
	return c.Watch && (c.Output == "table" || c.Output == "jsonl")
}

// check refuses flags that make no sense together.
func (c *patternRunCmd) check(a *app, p *client.Pattern, fleet bool) error {
	many := !reflect.ValueOf(c.TargetFlags).IsZero() || c.All
	jobs := !reflect.ValueOf(c.PolicyFlags).IsZero() || c.Description != "" || len(c.Label) > 0
	switch {
	case !p.Enabled:
		return &problem{exit: ExitConflict, what: fmt.Sprintf("the pattern %s %s is disabled", printable(p.Name), printable(p.Version)), next: fmt.Sprintf("`muster pattern enable %s` lets it run.", printable(p.Name))}
	case fleet && (many || jobs || c.Device != ""):
		return usage(fmt.Sprintf("%s runs once for the fleet as a whole: it has no targets and no policy", p.Name), "Leave them out.")
	case c.Device != "" && (many || jobs):
		return usage("--device is one run, and the other targets and policies are of jobs", "Give one of them; --ids makes a job of some devices.")
	case !fleet && c.Device == "" && c.Where == "" && c.Query == "" && len(c.IDs) == 0 && !c.All:
		return usage("nothing says on which devices", "Give --device ID, --where PREDICATE, --query NAME, --ids ID,... or --all.")
	case c.All && (c.Where != "" || c.Query != "" || len(c.IDs) > 0):
		return usage("--all is every device, and others are named beside it", "Give one of them.")
	case !c.Yes && !a.inTerminal && c.Device == "" && !fleet: // one run needs no question, unless it is dangerous
		return usage("a pattern starts over many devices after a question, and standard input is not a terminal", "Add --yes if you are sure.")
	}
	return nil
}

// runOne starts one run, and follows it.
func (c *patternRunCmd) runOne(a *app, s *client.Service, m *pattern.Manifest, params json.RawMessage) error {
	spec := client.RunSpec{Pattern: c.Pattern, Version: m.Version, Params: params}
	where := "the fleet"
	if c.Device != "" {
		var err error
		if spec.DeviceID, spec.ModuleID, err = splitID(c.Device); err != nil {
			return err
		}
		where = printable(c.Device)
	}
	if m.Danger && (a.inTerminal || c.Device == "") {
		if err := a.confirm(c.Yes, fmt.Sprintf("Start %s on %s?", m.Name, where)); err != nil {
			return err
		}
	}
	ctx, stop := a.with(c.HubFlags)
	r, err := s.StartRun(ctx, spec, rand.Text())
	stop()
	if err != nil {
		return err
	}
	if c.watched() {
		a.note("Run %s.", printable(r.ID))
		return a.watchRun(s, r.ID, c.Output, 0)
	}
	if err := a.printRun(c.OutputFlags, &r); err != nil {
		return err
	}
	if c.Output == "table" {
		a.note("`muster run watch %s` follows it.", printable(r.ID))
	}
	return nil
}

// runMany makes a job, and follows it.
func (c *patternRunCmd) runMany(a *app, s *client.Service, m *pattern.Manifest, params json.RawMessage) error {
	spec := client.JobSpec{
		Description: c.Description, Labels: c.Label, AllowEmpty: c.AllowEmpty, Targets: client.JobTargets{DiverseBy: c.DiverseBy},
		Action: client.JobAction{Run: &client.JobRun{Pattern: c.Pattern, Version: m.Version, Params: params}},
	}
	if c.All {
		c.Where = "true"
	}
	err := inOrder(
		func() error { return c.targets(&spec.Targets, false) },
		func() error { return c.policy(&spec.Policy, time.Now()) },
	)
	if err != nil {
		return err
	}
	draft := client.JobDraft{}
	if draft.Spec, err = json.Marshal(spec); err != nil {
		return err
	}
	if !c.Yes || m.Danger || m.Most > 0 { // then the hub asks for a preview's token
		if draft.Token, err = c.preview(a, s, draft, m); err != nil {
			return err
		}
	}
	ctx, stop := a.with(c.HubFlags)
	j, err := s.CreateJob(ctx, draft, rand.Text())
	stop()
	if err != nil {
		return err
	}
	a.noteWarnings(j.Warnings)
	if c.watched() {
		a.note("Job %s: %s %s.", printable(j.ID), m.Name, m.Version)
		return a.watchJob(s, j.ID, watching{output: c.Output, through: c.ThroughPauses})
	}
	if err := a.printJob(c.OutputFlags, j); err != nil {
		return err
	}
	if c.Output == "table" {
		a.note("`muster job watch %s` follows it.", printable(j.ID))
	}
	return nil
}

// preview shows what a job would do, asks, and returns what binds its start to
// that. A dangerous one is started by typing what the hub asks for.
func (c *patternRunCmd) preview(a *app, s *client.Service, draft client.JobDraft, m *pattern.Manifest) (token string, err error) {
	ctx, stop := a.with(c.HubFlags)
	p, err := s.PreviewJob(ctx, draft)
	stop()
	over := m.Most > 0 && p.Count > int64(m.Most)
	switch {
	case err != nil:
		return "", err
	case c.Yes && over && !c.OverMost:
		return "", usage(fmt.Sprintf("there are %s, more than the %d that %s is for (its most)", targetCount(p.Count), m.Most, m.Name),
			"Name fewer of them, or add --over-most if you are sure; without --yes, on a terminal, it shows them and asks for a word.")
	case c.Yes:
		return p.Token, nil
	}
	if err := a.showPreview(a.io.Err, &p); err != nil {
		return "", err
	}
	word := p.Confirm
	if word == "" && m.Danger {
		word = m.Name
	}
	if word == "" {
		return p.Token, a.confirm(false, fmt.Sprintf("Start on %s?", targetCount(p.Count)))
	}
	many := ""
	if over {
		many = fmt.Sprintf(", more than the %d that it is for", m.Most)
	}
	return p.Token, a.confirmTyped(fmt.Sprintf("This starts %s on %s%s. Type %s to go on:", m.Name, targetCount(p.Count), many, printable(word)), word)
}

// confirmTyped asks for a word instead of yes.
func (a *app) confirmTyped(question, word string) error {
	if _, err := fmt.Fprintf(a.io.Err, "%s ", question); err != nil {
		return err
	}
	answer, err := readLine(a.ctx, a.io.In)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(answer) != word {
		return &problem{exit: ExitCancelled, what: "cancelled, nothing was changed"}
	}
	return nil
}

// patternOf reads a pattern for completion; nil when it can't be read.
func patternOf(ctx context.Context, s *client.Service, name, version string) *pattern.Manifest {
	p, err := s.Pattern(ctx, name, version)
	if err != nil {
		return nil
	}
	m, err := manifestOf(&p)
	if err != nil {
		return nil
	}
	return m
}
