package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/muster-hub/muster/protocols/client"
)

type schemaGroup struct {
	Paths    schemaPathsCmd    `cmd:"" default:"withargs" help:"Show which paths twins have: types, how many devices, examples, and whether queries find a column. The word paths may be left out."`
	Declare  schemaDeclareCmd  `cmd:"" help:"Declare what devices' twins should look like, as JSON Schemas."`
	Declared schemaDeclaredCmd `cmd:"" help:"Show the declared schema and what was found against it."`
	Drop     schemaDropCmd     `cmd:"" help:"Drop the declared schema."`
}

type schemaPathsCmd struct {
	HubFlags
	OutputFlags
	Modules bool   `help:"Of modules, not devices."`
	Limit   int    `help:"At most so many; 0 shows all." default:"1000"`
	Prefix  string `arg:"" optional:"" help:"Only paths that begin so, such as tags. or reported.net."`
}

// Run shows the paths.
func (c *schemaPathsCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	sh := &sheet{columns: []string{"PATH", "TWINS", "TYPES", "COLUMN", "EXAMPLES"}, empty: "No twin has such a path."}
	source := ""
	if c.Modules {
		source = "modules"
	}
	truncated, more := false, false
	for page, err := range s.Schema(ctx, source, c.Prefix) {
		if err != nil {
			return err
		}
		left := len(page.Paths)
		if c.Limit > 0 {
			left = min(left, c.Limit-len(sh.rows))
		}
		for _, p := range page.Paths[:left] {
			column, twins := "yes", any(p.Twins)
			if !p.Column {
				column, twins = "no: "+p.Why, "-" // nobody counts what stands in documents only
			}
			sh.add(p, p.Path, twins, typesText(p.Types), column, examplesText(p.Examples))
		}
		truncated = truncated || page.Truncated
		if more = left < len(page.Paths); more {
			break
		}
	}
	if err := a.print(c.OutputFlags, sh); err != nil {
		return err
	}
	if more {
		a.note("There are more than %d; --limit 0 shows all.", c.Limit)
	}
	if truncated { // for all forms: in a file, too, the list looks as if it were all
		a.note("%s", schemaTruncated)
	}
	return nil
}

// schemaTruncated says what is left out whatever --limit is. That the hub forgets
// which paths got no column is why it can't name them.
const schemaTruncated = "Paths may be missing here: twins have had more than the hub makes columns for, or than a report looks at. " +
	"Queries on them are right, but read documents: `muster query --explain QUERY` says whether one does."

// typesText is "number" where all have one type, else "number 90, string 10".
func typesText(types map[string]int) string {
	names := slices.SortedFunc(maps.Keys(types), func(x, y string) int {
		return cmp.Or(cmp.Compare(types[y], types[x]), strings.Compare(x, y))
	})
	if len(names) == 1 {
		return names[0]
	}
	for i, n := range names {
		names[i] = fmt.Sprintf("%s %d", n, types[n])
	}
	return strings.Join(names, ", ")
}

func examplesText(list []json.RawMessage) string {
	texts := make([]string, len(list))
	for i, e := range list {
		texts[i] = string(e)
	}
	return strings.Join(texts, ", ")
}

type schemaDeclareCmd struct {
	HubFlags
	OutputFlags
	Mode string `help:"warn or reject, instead of what the file says." enum:",warn,reject" default:"" placeholder:"MODE"`
	ETag string `name:"etag" help:"Declare it only if the one before still has this ETag; * only if there is one." placeholder:"ETAG"`
	File string `arg:"" help:"A JSON file with the members tags, desired, reported (a JSON Schema each) and mode; - is standard input."`
}

// schemaFileMost bounds the file; the hub takes less.
const schemaFileMost = 1 << 20

// Run declares a schema.
func (c *schemaDeclareCmd) Run(a *app) error {
	f, name, err := a.openInput(c.File)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, schemaFileMost))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	var body map[string]json.RawMessage
	if err := json.Unmarshal(text, &body); err != nil || body == nil {
		why := "it is not a JSON object"
		if err != nil {
			why = err.Error()
		}
		return &problem{exit: ExitUsage, what: "the schema in " + name + " can't be read", why: why, next: `It looks like {"mode": "warn", "reported": {"properties": {"battery": {"type": "number"}}}}.`}
	}
	if c.Mode != "" {
		body["mode"] = quoteJSON(c.Mode)
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	d, err := s.DeclareSchema(ctx, raw, c.ETag)
	if err != nil {
		return err
	}
	return a.printDeclared(c.OutputFlags, d)
}

func (a *app) printDeclared(o OutputFlags, d client.DeclaredSchema) error {
	if o.Output == "table" {
		var sections []string
		for name, raw := range map[string]json.RawMessage{"tags": d.Tags, "desired": d.Desired, "reported": d.Reported} {
			if len(raw) > 0 {
				sections = append(sections, name)
			}
		}
		slices.Sort(sections)
		err := a.printRecord(o, d, []field{
			{"mode", d.Mode}, {"sections", strings.Join(sections, ", ")}, {"version", d.Version}, {"created", d.Created}, {"changed", d.Updated}, {"etag", d.ETag},
		})
		if err != nil || len(d.Violations) == 0 {
			return err
		}
		if _, err := fmt.Fprintln(a.io.Out); err != nil {
			return err
		}
	}
	if o.Output == "json" || o.Output == "jsonl" {
		return a.printRecord(o, d, nil)
	}
	sh := &sheet{columns: []string{"PATH", "WARNED", "REJECTED", "LAST DEVICE", "LAST TIME", "FOUND", "EXPECTED"}}
	for _, v := range d.Violations {
		sh.add(v, v.Path, v.Warned, v.Rejected, v.Device, v.Last, v.Found, v.Expected)
	}
	return a.print(o, sh)
}

type schemaDeclaredCmd struct {
	HubFlags
	OutputFlags
}

// Run shows the declared schema.
func (c *schemaDeclaredCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	d, err := s.DeclaredSchema(ctx)
	if err != nil {
		return err
	}
	return a.printDeclared(c.OutputFlags, d)
}

type schemaDropCmd struct {
	HubFlags
	Yes bool `short:"y" help:"Don't ask."`
}

// Run drops the declared schema.
func (c *schemaDropCmd) Run(a *app) error {
	s, ctx, stop, err := a.connectConfirmed(c.HubFlags, c.Yes, "Drop the declared schema? Twins are no longer checked.")
	if err != nil {
		return err
	}
	defer stop()
	if err := s.DropDeclaredSchema(ctx, ""); err != nil {
		return err
	}
	a.note("Dropped the declared schema.")
	return nil
}
