package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/muster-hub/muster/protocols/client"
)

func (a *app) printTwinAsOf(o OutputFlags, t client.PastTwin, section string) error {
	sections := []field{{"tags", t.Tags}, {"desired", t.Desired}, {"reported", t.Reported}}
	var doc any = t
	var b strings.Builder
	for _, sec := range sections {
		raw, _ := sec.value.(json.RawMessage)
		if section != "" && sec.name != section {
			continue
		}
		if section != "" {
			doc = raw
		} else {
			b.WriteString(sec.name + " ")
		}
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, raw, "", "  "); err != nil {
			return fmt.Errorf("show the section %s: %w", sec.name, err)
		}
		b.WriteString(printableLines(pretty.String()) + "\n")
	}
	if o.Output == "table" {
		_, err := io.WriteString(a.io.Out, b.String())
		return err
	}
	if o.Output == "csv" {
		raw, err := encodeJSON(doc)
		if err != nil {
			return err
		}
		return writeCSV(a.io.Out, []string{"PATH", "VALUE"}, leaves(raw))
	}
	return a.printRecord(o, doc, nil)
}

type twinRestoreCmd struct {
	HubFlags
	OutputFlags
	To      string   `required:"" help:"A change's id from the history (the twin right after it), a time (RFC 3339), or how long ago (90m, 2d)." placeholder:"WHEN"`
	Section []string `help:"Only this section: tags or desired." enum:"tags,desired" placeholder:"SECTION"`
	DryRun  bool     `help:"Only show what would change."`
	ETag    string   `name:"etag" help:"Restore it only if the twin still has this ETag." placeholder:"ETAG"`
	Yes     bool     `short:"y" help:"Don't ask."`
	ID      string   `arg:"" name:"id" help:"DEVICE, or DEVICE/MODULE."`
}

// Run restores a twin.
func (c *twinRestoreCmd) Run(a *app) error {
	device, module, err := splitID(c.ID)
	if err != nil {
		return err
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	to, err := moment("--to", c.To)
	if err != nil {
		return err
	}
	if !c.DryRun {
		if err := a.confirm(c.Yes, fmt.Sprintf("Take the twin of %s back to %s? --dry-run shows what changes.", printable(c.ID), printable(to))); err != nil {
			return err
		}
	}
	ctx, stop := a.with(c.HubFlags)
	defer stop()
	changes, err := s.RestoreTwin(ctx, device, module, client.Restoration{To: to, Sections: c.Section, DryRun: c.DryRun}, c.ETag)
	if err != nil {
		return err
	}
	if c.Output != "table" {
		sh := &sheet{columns: []string{"PATH", "BEFORE", "AFTER"}}
		for _, d := range changes {
			sh.add(d, d.Path, d.Before, d.After)
		}
		return a.print(c.OutputFlags, sh)
	}
	if len(changes) == 0 {
		a.note("It is as it was then: nothing to restore.")
		return nil
	}
	_, err = io.WriteString(a.io.Out, diffText(changes))
	return err
}
