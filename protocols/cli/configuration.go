package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

type configurationGroup struct {
	List      configurationListCmd      `cmd:"" help:"List the configurations."`
	Show      configurationShowCmd      `cmd:"" help:"Show a configuration: what it sets, where, its metrics and how far it is spread."`
	Apply     configurationApplyCmd     `cmd:"" help:"Make a configuration, or a new revision of one; what is not given stays."`
	Delete    configurationDeleteCmd    `cmd:"" help:"Delete a configuration; what it has set stays in the twins."`
	Test      configurationTestCmd      `cmd:"" help:"Check a condition and metrics, and count what they select now."`
	Revisions configurationRevisionsCmd `cmd:"" help:"List the revisions of a configuration, newest first."`
	Rollback  configurationRollbackCmd  `cmd:"" help:"Make a new revision that is as an earlier one was."`
	Metrics   configurationMetricsCmd   `cmd:"" help:"Count what the metrics of a configuration select."`
}

type configurationListCmd struct {
	HubFlags
	OutputFlags
	Label string `help:"Only those with this label." placeholder:"KEY[=VALUE]"`
}

// Run lists the configurations.
func (c *configurationListCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	key, value, exact := strings.Cut(c.Label, "=")
	sh := &sheet{columns: []string{"CONFIGURATION", "PRIORITY", "TARGETED", "APPLIED", "REVISION", "CHANGED", "LABELS", "WHERE"},
		empty: "No configurations; `muster configuration apply` makes one."}
	for g, err := range s.Configurations(ctx) {
		if err != nil {
			return err
		}
		if got, ok := g.Labels[key]; c.Label != "" && (!ok || exact && got != value) {
			continue
		}
		sh.add(g, g.ID, g.Priority, countOf(g.SystemMetrics.Results, "targetedCount"), countOf(g.SystemMetrics.Results, "appliedCount"), g.Revision, g.Updated, labelText(g.Labels), g.TargetCondition)
	}
	return a.print(c.OutputFlags, sh)
}

// countOf is a result, or nothing when there is none.
func countOf(results map[string]int64, name string) any {
	if n, ok := results[name]; ok {
		return n
	}
	return nil
}

type configurationShowCmd struct {
	HubFlags
	OutputFlags
	Revision      uint64 `help:"A revision before the newest." placeholder:"N"`
	Configuration string `arg:"" help:"Id of the configuration."`
}

// Run shows a configuration.
func (c *configurationShowCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	if c.Revision > 0 {
		g, err := revisionOf(ctx, s, c.Configuration, c.Revision)
		if err != nil {
			return err
		}
		return a.printConfiguration(c.OutputFlags, g, nil)
	}
	g, err := s.Configuration(ctx, c.Configuration)
	if err != nil {
		return err
	}
	p, err := s.ConfigurationProgress(ctx, c.Configuration)
	if err != nil {
		return err
	}
	return a.printConfiguration(c.OutputFlags, g, &p)
}

// revisionOf looks for a revision among those that are kept.
func revisionOf(ctx context.Context, s *client.Service, id string, revision uint64) (client.Configuration, error) {
	for g, err := range s.ConfigurationRevisions(ctx, id) {
		if err != nil {
			return g, err
		}
		if g.Revision == revision {
			return g, nil
		}
	}
	return client.Configuration{}, &problem{
		exit: ExitNotFound, what: fmt.Sprintf("revision %d of %s is not kept", revision, printable(id)),
		next: fmt.Sprintf("`muster configuration revisions %s` lists those that are.", printable(id)),
	}
}

func (a *app) printConfiguration(o OutputFlags, g client.Configuration, p *client.ConfigurationProgress) error {
	fields := []field{
		{"configuration", g.ID}, {"where", g.TargetCondition}, {"priority", g.Priority}, {"labels", labelText(g.Labels)},
		{"revision", g.Revision}, {"by", g.Principal}, {"created", g.Created}, {"changed", g.Updated}, {"etag", g.ETag},
	}
	if g.RolloutJob != "" {
		fields = append(fields, field{"spread by the job", g.RolloutJob})
	}
	if p != nil {
		fields = append(fields, field{"progress", progressText(*p)})
	}
	for _, m := range []client.ConfigurationMetrics{g.SystemMetrics, g.Metrics} {
		for _, name := range slices.Sorted(maps.Keys(m.Queries)) {
			if n, ok := m.Results[name]; ok {
				fields = append(fields, field{name, n})
			} else if p != nil {
				fields = append(fields, field{name, "not counted"})
			} else {
				fields = append(fields, field{name, m.Queries[name]})
			}
		}
	}
	for _, row := range settingRows(g.Content) {
		fields = append(fields, field{"sets " + plainCell(row[0]), row[1]})
	}
	return a.printRecord(o, g, fields)
}

func progressText(p client.ConfigurationProgress) string {
	text := fmt.Sprintf("settled on %d of %d, applied on %d", p.Settled, p.Targeted, p.Applied)
	if p.Failed > 0 {
		text += fmt.Sprintf(", refused by %d", p.Failed)
	}
	if p.Working {
		text += ", at work"
	}
	return text
}

// desiredPrefix begins the keys of a content.
const desiredPrefix = "properties.desired"

// settingRows lists what a content sets, path and value, by path.
func settingRows(content client.ConfigurationContent) [][]any {
	var rows [][]any
	add := func(where string, settings map[string]json.RawMessage) {
		for _, key := range slices.Sorted(maps.Keys(settings)) {
			path := strings.TrimPrefix(strings.TrimPrefix(key, desiredPrefix), ".")
			rows = append(rows, []any{strings.Trim(where+"desired."+path, "."), settings[key]})
		}
	}
	add("", content.Device)
	add("", content.Module)
	for _, module := range slices.Sorted(maps.Keys(content.Modules)) {
		var settings map[string]json.RawMessage
		if json.Unmarshal(content.Modules[module], &settings) == nil {
			add(module+": ", settings)
		}
	}
	return rows
}

// settingText shows what a content sets on one line.
func settingText(content client.ConfigurationContent) string {
	var list []string
	for _, row := range settingRows(content) {
		list = append(list, plainCell(row[0])+"="+plainCell(row[1]))
	}
	return strings.Join(list, " ")
}

type configurationDeleteCmd struct {
	HubFlags
	Yes           bool   `short:"y" help:"Don't ask."`
	ETag          string `name:"etag" help:"Delete it only if it still has this ETag." placeholder:"ETAG"`
	Configuration string `arg:"" help:"Id of the configuration."`
}

// Run deletes a configuration.
func (c *configurationDeleteCmd) Run(a *app) error {
	s, ctx, stop, err := a.connectConfirmed(c.HubFlags, c.Yes, fmt.Sprintf("Delete the configuration %s with its revisions? What it has set stays in the twins.", printable(c.Configuration)))
	if err != nil {
		return err
	}
	defer stop()
	if err := s.DeleteConfiguration(ctx, c.Configuration, c.ETag); err != nil {
		return err
	}
	a.note("Deleted the configuration %s.", printable(c.Configuration))
	return nil
}

type configurationRevisionsCmd struct {
	HubFlags
	OutputFlags
	Configuration string `arg:"" help:"Id of the configuration."`
}

// Run lists revisions.
func (c *configurationRevisionsCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	sh := &sheet{columns: []string{"REVISION", "CHANGED", "BY", "PRIORITY", "WHERE", "SETS"}}
	for g, err := range s.ConfigurationRevisions(ctx, c.Configuration) {
		if err != nil {
			return err
		}
		sh.add(g, g.Revision, g.Updated, g.Principal, g.Priority, g.TargetCondition, settingText(g.Content))
	}
	return a.print(c.OutputFlags, sh)
}

type configurationRollbackCmd struct {
	HubFlags
	OutputFlags
	WaitFlag
	To            uint64 `help:"The revision to go back to; the one before the newest when it is not given." placeholder:"N"`
	ETag          string `name:"etag" help:"Only if it still has this ETag." placeholder:"ETAG"`
	Configuration string `arg:"" help:"Id of the configuration."`
}

// Run rolls a configuration back.
func (c *configurationRollbackCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	to, etag := c.To, c.ETag
	if to == 0 {
		now, err := s.Configuration(ctx, c.Configuration)
		if err != nil {
			return err
		}
		if now.Revision < 2 {
			return usage(fmt.Sprintf("%s has one revision only", printable(c.Configuration)), "There is nothing to go back to.")
		}
		// Of two who go back at once one is told, instead of both going two back.
		if to = now.Revision - 1; etag == "" {
			etag = now.ETag
		}
	}
	g, err := s.RollBackConfiguration(ctx, c.Configuration, to, etag)
	if err != nil {
		return err
	}
	a.note("Revision %d is as revision %d was.", g.Revision, to)
	return a.settle(c.OutputFlags, s, g, c.Wait)
}

type configurationMetricsCmd struct {
	HubFlags
	OutputFlags
	Configuration string `arg:"" help:"Id of the configuration."`
}

// Run counts metrics.
func (c *configurationMetricsCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	list, err := s.ConfigurationMetrics(ctx, c.Configuration)
	if err != nil {
		return err
	}
	sh := &sheet{columns: []string{"METRIC", "RESULT", "QUERY"}}
	for _, m := range list {
		var result any = "not counted"
		if m.Result != nil {
			result = *m.Result
		}
		sh.add(m, m.Name, result, m.Query)
	}
	return a.print(c.OutputFlags, sh)
}

// WaitFlag is of commands after which twins follow in the background.
type WaitFlag struct {
	Wait time.Duration `help:"Wait, at most so long, until the twins that it selects have the revision, and show how far it is." placeholder:"SPAN"`
}

const progressPause = 500 * time.Millisecond

// settle waits until a revision is spread when that was asked for, and prints
// the configuration.
func (a *app) settle(o OutputFlags, s *client.Service, g client.Configuration, most time.Duration) error {
	a.noteWarnings(g.Warnings)
	if g.RolloutJob != "" {
		a.note("The job %s spreads it; `muster job watch %s` follows it.", g.RolloutJob, g.RolloutJob)
	}
	if most <= 0 {
		return a.printConfiguration(o, g, nil)
	}
	ctx, stop := context.WithTimeout(a.ctx, most)
	defer stop()
	for said := ""; ; {
		p, err := s.ConfigurationProgress(ctx, g.ID)
		if err != nil {
			return err
		}
		if text := progressText(p); text != said {
			said = text
			a.note("%s: %s.", printable(g.ID), text)
		}
		switch {
		case p.Revision > g.Revision:
			return &problem{exit: ExitConflict, what: fmt.Sprintf("%s has revision %d meanwhile", printable(g.ID), p.Revision), next: "Look at it with `muster configuration show`."}
		case !p.Working && p.Pending == 0:
			if g, err = s.Configuration(ctx, g.ID); err != nil {
				return err
			}
			if err := a.printConfiguration(o, g, &p); err != nil || p.Failed == 0 {
				return err
			}
			return &problem{exit: ExitPartly, what: fmt.Sprintf("%d twins can't take %s", p.Failed, printable(g.ID)), next: "`muster device explain` says why, for one of them."}
		}
		select {
		case <-ctx.Done():
			return &problem{exit: ExitTimeout, what: fmt.Sprintf("%s is not spread yet: %s", printable(g.ID), said), next: "It goes on in the hub; `muster configuration show` tells how far it is."}
		case <-time.After(progressPause):
		}
	}
}
