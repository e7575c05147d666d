package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

type twinGroup struct {
	Show    twinShowCmd    `cmd:"" help:"Show a twin."`
	Patch   twinPatchCmd   `cmd:"" help:"Change tags and desired properties; null deletes."`
	Replace twinReplaceCmd `cmd:"" help:"Replace tags or desired properties as a whole."`
	History twinHistoryCmd `cmd:"" help:"List a twin's changes: who, when, what."`
	Diff    twinDiffCmd    `cmd:"" help:"Compare a twin at two moments."`
	Restore twinRestoreCmd `cmd:"" help:"Take tags or desired properties back to an earlier state."`
}

type twinShowCmd struct {
	HubFlags
	OutputFlags
	Section  string `help:"Only one section: tags, desired or reported." enum:",tags,desired,reported" default:"" placeholder:"SECTION"`
	Metadata bool   `help:"With $metadata: when each property changed."`
	AsOf     string `help:"The twin as it was: a change's id from the history (right after it), a time (RFC 3339), or how long ago (90m, 2d)." placeholder:"WHEN"`
	ID       string `arg:"" name:"id" help:"DEVICE, or DEVICE/MODULE."`
}

// Run shows a twin.
func (c *twinShowCmd) Run(a *app) error {
	device, module, err := splitID(c.ID)
	if err != nil {
		return err
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	if c.AsOf != "" {
		if c.Metadata {
			return usage("--metadata and --as-of are both given", "The history keeps values, not their $metadata: leave --metadata out.")
		}
		at, err := moment("--as-of", c.AsOf)
		if err != nil {
			return err
		}
		t, err := s.TwinAsOf(ctx, device, module, at)
		if err != nil {
			return err
		}
		return a.printTwinAsOf(c.OutputFlags, t, c.Section)
	}
	t, err := s.Twin(ctx, device, module)
	if err != nil {
		return err
	}
	return a.printTwin(c.OutputFlags, t, c.Section, c.Metadata)
}

func (a *app) printTwin(o OutputFlags, t client.Twin, section string, metadata bool) error {
	sections := []field{{"tags", t.Tags}, {"desired", t.Properties.Desired}, {"reported", t.Properties.Reported}}
	if o.Output != "table" {
		doc := t.Raw
		if section != "" {
			i := slices.IndexFunc(sections, func(f field) bool { return f.name == section })
			doc, _ = sections[i].value.(json.RawMessage)
		}
		if len(doc) == 0 {
			doc = json.RawMessage("{}")
		}
		if !metadata {
			doc = dropMetadata(doc)
		}
		if o.Output == "csv" {
			return writeCSV(a.io.Out, []string{"PATH", "VALUE"}, leaves(doc))
		}
		return a.printRecord(o, doc, nil)
	}
	var b strings.Builder
	if section == "" {
		name := t.DeviceID
		if t.ModuleID != "" {
			name += "/" + t.ModuleID
		}
		fmt.Fprintf(&b, "%s  %s, last activity %s, etag %s\n", printable(name), strings.ToLower(t.ConnectionState), a.cell(t.LastActivityTime), printable(t.ETag))
		if len(t.Configurations) > 0 {
			var list []string
			for _, id := range slices.Sorted(maps.Keys(t.Configurations)) {
				list = append(list, id+" "+strings.ToLower(t.Configurations[id].Status))
			}
			fmt.Fprintf(&b, "configurations: %s\n", printable(strings.Join(list, ", ")))
		}
	}
	for _, sec := range sections {
		if section != "" && sec.name != section {
			continue
		}
		raw, _ := sec.value.(json.RawMessage)
		if len(raw) == 0 {
			raw = json.RawMessage("{}")
		}
		if !metadata {
			raw = dropMetadata(raw)
		}
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, raw, "", "  "); err != nil {
			return fmt.Errorf("show the section %s: %w", sec.name, err)
		}
		if section == "" {
			b.WriteString("\n" + sec.name + " ")
		}
		b.WriteString(printableLines(pretty.String()) + "\n")
	}
	_, err := io.WriteString(a.io.Out, b.String())
	return err
}

// dropMetadata removes every $metadata member and keeps order and number text.
func dropMetadata(raw json.RawMessage) json.RawMessage {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var b bytes.Buffer
	if err := copyValue(d, &b, func(key string) bool { return key != "$metadata" }); err != nil {
		return raw
	}
	return b.Bytes()
}

// copyValue copies one JSON value token by token, leaving out members whose
// key keep refuses.
func copyValue(d *json.Decoder, b *bytes.Buffer, keep func(key string) bool) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	switch t {
	case json.Delim('{'):
		b.WriteByte('{')
		first := true
		for d.More() {
			k, err := d.Token()
			if err != nil {
				return err
			}
			key, _ := k.(string)
			to := b
			if !keep(key) {
				to = &bytes.Buffer{}
			} else {
				if !first {
					b.WriteByte(',')
				}
				first = false
				b.Write(quoteJSON(key))
				b.WriteByte(':')
			}
			if err := copyValue(d, to, keep); err != nil {
				return err
			}
		}
		b.WriteByte('}')
		_, err = d.Token()
		return err
	case json.Delim('['):
		b.WriteByte('[')
		for i := 0; d.More(); i++ {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := copyValue(d, b, keep); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		_, err = d.Token()
		return err
	}
	raw, err := encodeJSON(t)
	b.Write(raw)
	return err
}

// leaves lists the values of a document by dotted path, sorted.
func leaves(raw json.RawMessage) [][]any {
	var rows [][]any
	var walk func(path string, raw json.RawMessage)
	walk = func(path string, raw json.RawMessage) {
		var members map[string]json.RawMessage
		if json.Unmarshal(raw, &members) != nil || members == nil || len(members) == 0 && path != "" {
			rows = append(rows, []any{path, raw})
			return
		}
		for key, v := range members {
			p := key
			if path != "" {
				p = path + "." + key
			}
			walk(p, v)
		}
	}
	walk("", raw)
	slices.SortFunc(rows, func(x, y []any) int { return strings.Compare(plainCell(x[0]), plainCell(y[0])) })
	return rows
}

type twinPatchCmd struct {
	HubFlags
	OutputFlags
	File   string   `short:"f" help:"Read the patch as JSON from a file; - is standard input." placeholder:"FILE"`
	ETag   string   `name:"etag" help:"Change it only if it still has this ETag." placeholder:"ETAG"`
	ID     string   `arg:"" name:"id" help:"DEVICE, or DEVICE/MODULE."`
	Assign []string `arg:"" optional:"" name:"path=value" help:"Changes such as desired.fan.speed=3 tags.site=lyon tags.old=null; a value that is not JSON is a string."`
}

// Run changes a twin.
func (c *twinPatchCmd) Run(a *app) error {
	device, module, err := splitID(c.ID)
	if err != nil {
		return err
	}
	if (c.File == "") == (len(c.Assign) == 0) {
		return usage("a patch needs either PATH=VALUE arguments or -f FILE", "For example: muster twin patch "+c.ID+" desired.interval=30 tags.site=lyon")
	}
	var patch json.RawMessage
	if c.File != "" {
		patch, err = a.readTwinFile(c.File)
	} else if patch, err = parseAssignments(c.Assign); err != nil {
		err = usage(err.Error(), "For example: muster twin patch "+c.ID+" desired.interval=30 tags.site=lyon")
	}
	if err != nil {
		return err
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	t, err := s.PatchTwin(ctx, device, module, patch, c.ETag)
	if err != nil {
		return err
	}
	return a.printTwin(c.OutputFlags, t, "", false)
}

func (a *app) readTwinFile(name string) (json.RawMessage, error) {
	f, name, err := a.openInput(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	raw, err := readDocument(f, name)
	if err != nil {
		return nil, err
	}
	return twinDocument(raw, name)
}

type twinReplaceCmd struct {
	HubFlags
	OutputFlags
	File string `short:"f" required:"" help:"The new sections as JSON; - is standard input. A section that is left out stays." placeholder:"FILE"`
	ETag string `name:"etag" help:"Replace it only if it still has this ETag." placeholder:"ETAG"`
	Yes  bool   `short:"y" help:"Don't ask."`
	ID   string `arg:"" name:"id" help:"DEVICE, or DEVICE/MODULE."`
}

// Run replaces sections of a twin.
func (c *twinReplaceCmd) Run(a *app) error {
	device, module, err := splitID(c.ID)
	if err != nil {
		return err
	}
	doc, err := a.readTwinFile(c.File)
	if err != nil {
		return err
	}
	s, ctx, stop, err := a.connectConfirmed(c.HubFlags, c.Yes, fmt.Sprintf("Replace the twin of %s? What the document leaves out of a section is lost.", printable(c.ID)))
	if err != nil {
		return err
	}
	defer stop()
	t, err := s.ReplaceTwin(ctx, device, module, doc, c.ETag)
	if err != nil {
		return err
	}
	return a.printTwin(c.OutputFlags, t, "", false)
}

type twinHistoryCmd struct {
	HubFlags
	OutputFlags
	Section string `help:"Only one section: identity, tags, desired or reported." enum:",identity,tags,desired,reported" default:"" placeholder:"SECTION"`
	Limit   int    `help:"At most so many, the newest; 0 lists all." default:"20"`
	ID      string `arg:"" name:"id" help:"DEVICE, or DEVICE/MODULE."`
}

// Run lists a twin's changes.
func (c *twinHistoryCmd) Run(a *app) error {
	device, module, err := splitID(c.ID)
	if err != nil {
		return err
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	sh := &sheet{columns: []string{"ID", "TIME", "WHO", "CAUSE", "PATCH"}, empty: "No changes are kept."}
	for e, err := range s.TwinHistory(ctx, device, module, c.Section) {
		if err != nil {
			return err
		}
		if c.Limit > 0 && len(sh.rows) == c.Limit {
			a.note("There are more than %d; --limit 0 lists all.", c.Limit)
			break
		}
		sh.add(e, e.ID, e.Time, e.Principal, e.Cause, e.Patch)
	}
	return a.print(c.OutputFlags, sh)
}

type twinDiffCmd struct {
	HubFlags
	OutputFlags
	From string `help:"A change's id from the history (the twin right after it), a time (RFC 3339), or how long ago (90m, 2d). Without it the twin before its newest change." placeholder:"WHEN"`
	To   string `help:"As --from, or now." default:"now" placeholder:"WHEN"`
	ID   string `arg:"" name:"id" help:"DEVICE, or DEVICE/MODULE."`
}

// Run compares a twin at two moments.
func (c *twinDiffCmd) Run(a *app) error {
	device, module, err := splitID(c.ID)
	if err != nil {
		return err
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	from, err := moment("--from", c.From)
	if err != nil {
		return err
	}
	to, err := moment("--to", c.To)
	if err != nil {
		return err
	}
	if from == "" {
		var ids []string
		for e, err := range s.TwinHistory(ctx, device, module, "") {
			if err != nil {
				return err
			}
			if e.Section == "identity" {
				continue
			}
			if ids = append(ids, e.ID); len(ids) == 2 {
				break
			}
		}
		if len(ids) < 2 {
			a.note("The twin has had fewer than two changes: nothing to compare.")
			return a.print(c.OutputFlags, &sheet{columns: []string{"PATH", "BEFORE", "AFTER"}})
		}
		from = ids[1]
	}
	changes, err := s.TwinDiff(ctx, device, module, from, to)
	if err != nil {
		return err
	}
	sh := &sheet{columns: []string{"PATH", "BEFORE", "AFTER"}}
	for _, d := range changes {
		sh.add(d, d.Path, d.Before, d.After)
	}
	if c.Output != "table" {
		return a.print(c.OutputFlags, sh)
	}
	if len(changes) == 0 {
		a.note("No difference.")
		return nil
	}
	_, err = io.WriteString(a.io.Out, diffText(changes))
	return err
}

// moment turns "how long ago" into a time; a time, now and the id of a change
// stay. What it can be none of the hub would refuse without naming spans.
func moment(flag, text string) (string, error) {
	if at, ok := ago(text); ok {
		return at, nil
	}
	if text == "" || text == "now" || strings.Contains(text, ":") { // ids of changes have one, and times
		return text, nil
	}
	return "", usage(fmt.Sprintf("%s is %q", flag, text),
		"Write how long ago, such as 90m or 2d, a time as 2026-12-01T22:00:00+01:00, or the id of a change from `muster twin history`.")
}

// ago turns "how long ago" into a time.
func ago(text string) (at string, ok bool) {
	d, err := spanOf(text)
	if err != nil {
		return "", false
	}
	return time.Now().Add(-d).UTC().Format(time.RFC3339Nano), true
}

// diffText shows what was with a minus and what is with a plus.
func diffText(changes []client.Difference) string {
	var b strings.Builder
	for _, d := range changes {
		if len(d.Before) > 0 {
			b.WriteString("- " + printable(d.Path+" = "+string(d.Before)) + "\n")
		}
		if len(d.After) > 0 {
			b.WriteString("+ " + printable(d.Path+" = "+string(d.After)) + "\n")
		}
	}
	return b.String()
}
