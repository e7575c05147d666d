package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/protocols/client"
)

type patternGroup struct {
	patternAuthor

	List    patternListCmd    `cmd:"" help:"List the patterns of the hub: programs that manage devices."`
	Show    patternShowCmd    `cmd:"" help:"Show a pattern: what it does, its parameters, what it may do, and what its runs took."`
	Install patternInstallCmd `cmd:"" help:"Install a pattern from its folder or archive, after a look at what it needs."`
	Enable  patternEnableCmd  `cmd:"" help:"Let a pattern run, also by its triggers."`
	Disable patternDisableCmd `cmd:"" help:"Let nothing start a version of a pattern any more; its runs go on."`
	Default patternDefaultCmd `cmd:"" help:"Make a version the one that runs when none is named."`
	Remove  patternRemoveCmd  `cmd:"" help:"Remove a version of a pattern."`
	Run     patternRunCmd     `cmd:"" help:"Run a pattern on a device, or over many by a job, and follow it."`
	Counts  patternCountsCmd  `cmd:"" help:"Count runs by where they stand: how many at which phase and step."`

	Key    patternKeyGroup    `cmd:"" help:"Keys whose signatures on patterns the hub trusts."`
	Secret patternSecretGroup `cmd:"" help:"Secrets that patterns may use, and nobody can read."`
}

type patternListCmd struct {
	HubFlags
	OutputFlags
	All bool `help:"Every installed version, not only the one that runs when none is named."`
}

// Run lists patterns.
func (c *patternListCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	sh := &sheet{columns: []string{"PATTERN", "VERSION", "STATUS", "ORIGIN", "RUNS NOW", "ENDED SINCE START", "SUMMARY"}, empty: "No patterns; `muster pattern install DIR` installs one."}
	for p, err := range s.Patterns(ctx) {
		if err != nil {
			return err
		}
		if c.All || p.Default {
			sh.add(p.Raw, p.Name, p.Version, patternStatus(&p), patternOrigin(&p), p.Active, p.Cost.Runs, p.Summary)
		}
	}
	return a.print(c.OutputFlags, sh)
}

// patternStatus says whether a pattern can run.
func patternStatus(p *client.Pattern) string {
	status := "disabled"
	if p.Enabled {
		status = "enabled"
	}
	if len(p.Missing) > 0 {
		status += ", lacks " + strings.Join(p.Missing, ", ")
	}
	if !p.Default && !p.Installed.IsZero() {
		status += ", not the default"
	}
	return status
}

func patternOrigin(p *client.Pattern) string {
	if p.Signer != "" {
		return "signed by " + p.Signer
	}
	return p.Origin
}

// manifestOf reads what a pattern declares.
func manifestOf(p *client.Pattern) (*pattern.Manifest, error) {
	var m pattern.Manifest
	if err := json.Unmarshal(p.Manifest, &m); err != nil {
		return nil, fmt.Errorf("read the manifest that the hub gave: %w", err)
	}
	return &m, nil
}

// PatternFlags name a version of a pattern.
type PatternFlags struct {
	Version string `help:"Which version; the default one when not given." placeholder:"VERSION"`
	Pattern string `arg:"" name:"pattern" help:"Name of the pattern."`
}

type patternShowCmd struct {
	HubFlags
	OutputFlags
	Source bool `help:"Print its files instead."`
	PatternFlags
}

// Run shows a pattern.
func (c *patternShowCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	if c.Source {
		files, err := s.PatternFiles(ctx, c.Pattern, c.Version)
		if err != nil {
			return err
		}
		return a.printFiles(c.OutputFlags, files)
	}
	p, err := s.Pattern(ctx, c.Pattern, c.Version)
	if err != nil {
		return err
	}
	others, err := otherVersions(ctx, s, &p)
	if err != nil {
		return err
	}
	return a.printPattern(c.OutputFlags, &p, others...)
}

// otherVersions are the installed versions of a pattern but this one, the newest
// first.
func otherVersions(ctx context.Context, s *client.Service, p *client.Pattern) (others []string, err error) {
	for q, err := range s.Patterns(ctx) {
		switch {
		case err != nil:
			return nil, err
		case q.Name != p.Name || q.Version == p.Version:
		case q.Default:
			others = append(others, q.Version+" (the default)")
		default:
			others = append(others, q.Version)
		}
	}
	return others, nil
}

// versionsText is a list of versions, the first ones of many.
func versionsText(list []string) string {
	const most = 10
	text := strings.Join(list[:min(len(list), most)], ", ")
	if more := len(list) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func (a *app) printFiles(o OutputFlags, files []client.PatternFile) error {
	if o.Output != "table" {
		sh := &sheet{columns: []string{"PATH", "CONTENT"}}
		for _, f := range files {
			sh.add(f, f.Path, f.Content)
		}
		return a.print(o, sh)
	}
	for i, f := range files {
		if i > 0 {
			a.printf("\n")
		}
		a.printf("-- %s\n%s", printable(f.Path), strings.TrimSuffix(printableLines(strings.ReplaceAll(f.Content, "\t", "    ")), "\n")+"\n")
	}
	return nil
}

// printPattern writes a pattern, and in a table what it declares in words.
// others are its other versions.
func (a *app) printPattern(o OutputFlags, p *client.Pattern, others ...string) error {
	m, err := manifestOf(p)
	if err != nil {
		return err
	}
	fields := []field{{"pattern", p.Name}, {"version", p.Version}}
	optional := func(name string, value any, there bool) {
		if there || o.Output == "csv" {
			fields = append(fields, field{name, value})
		}
	}
	optional("other versions", versionsText(others), len(others) > 0)
	optional("title", p.Title, p.Title != "")
	optional("summary", p.Summary, p.Summary != "")
	optional("author", m.Author, m.Author != "")
	if !p.Installed.IsZero() || o.Output == "csv" {
		fields = append(fields, field{"status", patternStatus(p)})
	}
	fields = append(fields, field{"origin", patternOrigin(p)}, field{"runs on", patternScope(m)})
	optional("another run", conflictText(m.Conflicts), m.Scope != pattern.ScopeFleet)
	optional("time limit", m.Timeout.String(), m.Timeout != 0)
	optional("care", careText(m), careText(m) != "")
	optional("can", abilities(m), abilities(m) != "")
	if m.Rollout != nil {
		var policy client.JobPolicy
		raw, err := json.Marshal(m.Rollout)
		if err == nil {
			err = json.Unmarshal(raw, &policy)
		}
		if err != nil {
			return fmt.Errorf("read the policy that the hub gave: %w", err)
		}
		optional("over a fleet", policyText(&policy), policyText(&policy) != "")
	}
	if !p.Installed.IsZero() || o.Output == "csv" {
		fields = append(fields, field{"runs now", p.Active}, field{"installed", p.Installed}, field{"by", p.Principal})
		optional("runs ended", endedText(&p.Cost), p.Cost.Runs > 0)
		optional("since start", costText(&p.Cost), p.Cost.Activations > 0)
		optional("most at", hotText(p.Cost.Hot, p.Cost.Instructions), len(p.Cost.Hot) > 0)
		fields = append(fields, field{"etag", p.ETag})
	}
	if err := a.printRecord(o, p.Raw, fields); err != nil || o.Output != "table" {
		return err
	}
	a.printf("%s", a.declaredText(p, m))
	return nil
}

// declaredText is what a pattern needs, takes and is started by, each in a table
// of its own.
func (a *app) declaredText(p *client.Pattern, m *pattern.Manifest) string {
	var b strings.Builder
	table := func(sh *sheet) {
		if len(sh.rows) > 0 {
			b.WriteString("\n" + a.tableText(sh))
		}
	}
	needs := &sheet{columns: []string{"IT MAY", ""}}
	for _, n := range p.Needs {
		text := n.Text
		if n.Missing != "" {
			text += " (This hub has no " + n.Missing + " yet.)"
		}
		needs.add(nil, n.Need, text)
	}
	table(needs)
	params := &sheet{columns: []string{"PARAMETER", "TYPE", "DEFAULT", "WHAT IT IS"}}
	for _, q := range m.Parameters() {
		def := strings.Trim(string(q.Default), `"`)
		if q.Required {
			def = "required"
		}
		params.add(nil, q.Name, parameterType(&q), def, q.Text)
	}
	table(params)
	triggers := &sheet{columns: []string{"STARTS BY ITSELF", "ON", "WITH"}}
	for i := range m.Triggers {
		t := &m.Triggers[i]
		on := "all devices"
		if t.Where != "" {
			on = "devices where " + t.Where
		}
		if m.Scope == pattern.ScopeFleet {
			on = "the fleet"
		}
		triggers.add(nil, triggerText(t), on, string(t.Params))
	}
	table(triggers)
	return b.String()
}

func patternScope(m *pattern.Manifest) string {
	switch {
	case m.Scope == pattern.ScopeFleet:
		return "the fleet as a whole"
	case m.Applies != "":
		return "devices where " + m.Applies
	}
	return "any device"
}

func conflictText(c pattern.Conflict) string {
	switch c {
	case pattern.ConflictSkip:
		return "is left alone: this one is skipped"
	case pattern.ConflictReject:
		return "is left alone: this one fails"
	case pattern.ConflictReplace:
		return "on the device is canceled first"
	case pattern.ConflictShare:
		return "on the device may go on beside it"
	}
	return "on the device ends first"
}

func careText(m *pattern.Manifest) string {
	var parts []string
	if m.Danger {
		parts = append(parts, "its name is to be typed before it starts over many devices")
	}
	if m.Most > 0 {
		parts = append(parts, fmt.Sprintf("more than %d devices have to be confirmed", m.Most))
	}
	return strings.Join(parts, "; ")
}

func abilities(m *pattern.Manifest) string {
	var parts []string
	for _, x := range []struct {
		has  bool
		text string
	}{
		{m.HasUndo, "undo what it did"}, {m.HasGate, "look at each wave before the next"}, {m.HasCheck, "say beforehand where it would not work"}, {m.Resumable, "be retried from a step"},
	} {
		if x.has {
			parts = append(parts, x.text)
		}
	}
	return strings.Join(parts, ", ")
}

// triggerText is when a trigger starts a pattern.
func triggerText(t *pattern.Trigger) string {
	switch {
	case t.When != "":
		return "when " + t.When
	case t.Event == "connected":
		return "when a device connects"
	case t.Event == "disconnected":
		return "when a device disconnects"
	case t.Event == "created":
		return "when a device is created"
	case t.Event != "":
		return "at the event " + t.Event
	case t.Cron != "":
		zone := t.Zone
		if zone == "" {
			zone = "UTC"
		}
		return fmt.Sprintf("at %q in %s", t.Cron, zone)
	case t.Alert != "":
		return "at the alert " + t.Alert
	case t.Enrolled:
		return "when a device was provisioned"
	}
	return "never"
}

// endedText counts the runs that ended by how they did.
func endedText(c *client.PatternCost) string {
	var parts []string
	for _, s := range pattern.States() {
		if n := c.Ended[string(s)]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", s, n))
		}
	}
	return strings.Join(parts, ", ")
}

// costText is what the runs of a pattern took.
func costText(c *client.PatternCost) string {
	text := fmt.Sprintf("%d activations, %d instructions, %d host calls, %s in workers; the slowest activation %s", c.Activations, c.Instructions, c.Calls, secondsText(c.Seconds), secondsText(c.Slowest))
	if c.SlowestRun != "" {
		text += " of the run " + c.SlowestRun
	}
	if c.Runs > 0 {
		text += fmt.Sprintf("; %d bytes of journal a run", c.Journal/c.Runs)
	}
	return text
}

// hotMost is how many hot lines people are shown.
const hotMost = 3

// hotText says which lines of a pattern ran most of its instructions.
func hotText(list []client.PatternLine, instructions int64) string {
	var parts []string
	for _, hot := range list[:min(len(list), hotMost)] {
		parts = append(parts, fmt.Sprintf("%s (%d %%)", hot.Line, min(100, 100*hot.Instructions/max(1, instructions))))
	}
	return strings.Join(parts, ", ")
}

type patternControl struct {
	HubFlags
	OutputFlags
	ETag string `name:"etag" help:"Do it only if it still has this ETag." placeholder:"ETAG"`
	PatternFlags
}

func (c *patternControl) do(a *app, f func(s *client.Service, ctx context.Context, name, version, etag string) (client.Pattern, error), done string) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	p, err := f(s, ctx, c.Pattern, c.Version, c.ETag)
	if err != nil {
		return err
	}
	if c.Output != "table" {
		return a.printPattern(c.OutputFlags, &p)
	}
	a.note(done, printable(p.Name), printable(p.Version))
	return nil
}

type patternEnableCmd struct{ patternControl }

// Run enables a pattern.
func (c *patternEnableCmd) Run(a *app) error {
	return c.do(a, (*client.Service).EnablePattern, "%s %s is enabled.")
}

type patternDisableCmd struct{ patternControl }

// Run disables a pattern.
func (c *patternDisableCmd) Run(a *app) error {
	return c.do(a, (*client.Service).DisablePattern, "%s %s is disabled; its runs go on.")
}

type patternDefaultCmd struct{ patternControl }

// Run chooses the version that runs when none is named.
func (c *patternDefaultCmd) Run(a *app) error {
	if c.Version == "" {
		return usage("no version is named", "Give --version; `muster pattern list --all` shows which are installed.")
	}
	return c.do(a, (*client.Service).DefaultPattern, "%s %s runs when no version is named.")
}

type patternRemoveCmd struct {
	HubFlags
	ETag string `name:"etag" help:"Do it only if it still has this ETag." placeholder:"ETAG"`
	Yes  bool   `short:"y" help:"Don't ask."`
	PatternFlags
}

// Run removes a version of a pattern.
func (c *patternRemoveCmd) Run(a *app) error {
	version := c.Version
	if version == "" { // whoever is asked is to know which one goes
		s, ctx, stop, err := a.connect(c.HubFlags)
		if err != nil {
			return err
		}
		p, err := s.Pattern(ctx, c.Pattern, "")
		stop()
		if err != nil {
			return err
		}
		version = p.Version
	}
	what := printable(c.Pattern + " " + version)
	s, ctx, stop, err := a.connectConfirmed(c.HubFlags, c.Yes, fmt.Sprintf("Remove the pattern %s?", what))
	if err != nil {
		return err
	}
	defer stop()
	if err := s.RemovePattern(ctx, c.Pattern, version, c.ETag); err != nil {
		return err
	}
	a.note("Removed %s.", what)
	if left, err := s.Pattern(ctx, c.Pattern, ""); err == nil { // other versions stay
		a.note("%s runs when no version is named; `muster pattern list --all` shows what is left.", printable(left.Name+" "+left.Version))
	}
	return nil
}

type patternCountsCmd struct {
	HubFlags
	OutputFlags
	Job     string `help:"Only runs of this job." placeholder:"ID"`
	Active  bool   `help:"Only runs that have not ended."`
	Pattern string `arg:"" optional:"" name:"pattern" help:"Name of the pattern; all when not given."`
}

// Run counts runs by where they stand.
func (c *patternCountsCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	f := client.RunFilter{Pattern: c.Pattern, JobID: c.Job}
	if c.Active {
		f.State = "active"
	}
	list, err := s.RunCounts(ctx, f)
	if err == nil && len(list) == 0 && c.Pattern != "" { // of one that was removed, runs may be left
		_, err = s.Pattern(ctx, c.Pattern, "")
	}
	if err != nil {
		return err
	}
	sh := &sheet{columns: []string{"PATTERN", "VERSION", "STATE", "PHASE", "WAITS FOR", "RUNS"}, empty: "No runs."}
	for _, n := range list {
		waits := n.Step
		if c.Output == "table" {
			waits = waitText(n.Step)
		}
		sh.add(n, n.Pattern, n.Version, n.State, n.Phase, waits, n.Count)
	}
	return a.print(c.OutputFlags, sh)
}
