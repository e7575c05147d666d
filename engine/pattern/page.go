package pattern

import (
	"fmt"
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine/wording"
)

// Page returns docs/reference/lua.md without its first line. More are objects
// that only some programs have, such as those of tests.
func Page(more ...Object) string {
	p := &page{}
	p.text("# The host API\n\nWhat programs of patterns see. [Patterns](../explanation/patterns.md) explains how they run; `muster pattern stubs` writes the same for editors.\n\n" +
		"The language is Lua 5.1 with `goto`. Numbers are doubles: whole ones are exact up to 2^53, and there is no `//` and no operator on bits. Durations are texts such as `90s`, `5m`, `6h` or `2d`, times texts such as `2026-01-31T22:00:00Z`, paths texts such as `reported.firmware.version`, `desired.mode`, `tags.site` or `connected`. Predicates are those of [queries](query.md), in the form `tags.site == 'A' and reported.battery < 20`.\n")
	p.manifest()
	p.needs()
	for _, o := range Host() {
		if o.Method {
			p.object("##", o)
		}
	}
	p.text("\n## Libraries\n\nThey are there in every file.\n")
	for _, o := range Host() {
		if !o.Method && o.Name != "" && !ofLua(o) {
			p.object("###", o)
		}
	}
	p.lua()
	p.faults()
	p.text("\n## Limits\n\n| Most | Of what |\n|---|---|\n")
	for _, l := range LimitTable() {
		p.text(fmt.Sprintf("| %s | %s |\n", l.Value, cell(l.Text)))
	}
	if len(more) > 0 {
		p.text("\n## Tests\n\nFiles in `test/` see this, too.\n")
		for _, o := range more {
			p.object("###", o)
		}
	}
	return p.out.String()
}

type page struct{ out strings.Builder }

func (p *page) text(s string) { p.out.WriteString(s) }

func cell(s string) string { return strings.ReplaceAll(strings.ReplaceAll(s, "|", `\|`), "\n", " ") }

// ofLua reports whether an object is one of Lua's own.
func ofLua(o Object) bool {
	return slices.ContainsFunc(o.Functions, func(f Function) bool { return f.Standard })
}

func (p *page) manifest() {
	p.text("\n## pattern{}\n\nThe file `pattern.lua` ends with `return pattern { ... }`. A member that is not in this list is an error.\n\n| Member | Type | |\n|---|---|---|\n")
	fields := ManifestFields()
	p.fields("", fields)
	p.text("\nA gate is told `wave`:\n\n| Member | |\n|---|---|\n")
	for _, f := range waveFields() {
		p.text("| `" + f.Name + "` | " + cell(f.Text) + " |\n")
	}
}

// fields writes rows of a table; those of tables within come behind them.
func (p *page) fields(before string, fields []Field) {
	for _, f := range fields {
		kind := "`" + strings.ReplaceAll(f.Type, "muster.", "") + "`"
		name := before + f.Name
		switch {
		case f.Members != nil && f.List:
			kind = "list of tables"
		case f.Members != nil:
			kind = "table"
		case strings.HasPrefix(f.Type, "fun("):
			kind = "function"
		}
		if !f.Optional {
			kind += ", required"
		}
		p.text(fmt.Sprintf("| `%s` | %s | %s |\n", name, cell(kind), cell(f.Text)))
		if f.List {
			name += "[]"
		}
		p.fields(name+".", f.Members)
	}
}

func (p *page) needs() {
	p.text("\n## Capabilities\n\nWhat a pattern does beyond itself it declares in `needs`. Whoever installs it grants them, and the hub looks at each step: what was not granted raises `denied` where the call is.\n\n| In needs | What it grants |\n|---|---|\n")
	for _, n := range NeedTable() {
		name := "`" + n.Need + "`"
		if n.Arg != "" {
			name = "`" + n.Need + ":" + strings.ToUpper(n.Arg) + "`"
			if n.Maybe {
				name = "`" + n.Need + "`, " + name
			}
		}
		text := n.Text
		if n.Missing != "" {
			text += " Not yet: a pattern that needs it can be installed, and not enabled, since this hub has no " + n.Missing + "."
		}
		p.text("| " + name + " | " + cell(text) + " |\n")
	}
}

func (p *page) object(heading string, o Object) {
	name := o.Name
	if name != "" {
		p.text("\n" + heading + " " + name + "\n")
	}
	if o.Text != "" {
		p.text("\n" + o.Text + "\n")
	}
	if len(o.Fields) > 0 {
		p.text("\n| Member | Type | |\n|---|---|---|\n")
		for _, f := range o.Fields {
			p.text(fmt.Sprintf("| `%s.%s` | `%s` | %s |\n", name, f.Name, cell(f.Type), cell(f.Text)))
		}
	}
	for _, f := range o.Functions {
		p.function(o, f)
	}
}

func (p *page) function(o Object, f Function) {
	sep := "."
	if o.Method {
		sep = ":"
	}
	full := o.Name + sep + f.Name
	if o.Name == "" {
		full = f.Name
	}
	p.text("\n**`" + full + "(" + names(f.Params) + ")`**")
	if len(f.Returns) > 0 {
		p.text(" gives `" + names(f.Returns) + "`")
	}
	p.text("\n\n" + f.Text + "\n")
	if params, returns := telling(f.Params), telling(f.Returns); len(params)+len(returns) > 0 {
		p.text("\n| | Type | |\n|---|---|---|\n")
		p.fields("", params)
		for i := range returns {
			returns[i].Name = "→ " + returns[i].Name
		}
		p.fields("", returns)
	}
	var also []string
	if f.Op != "" {
		also = append(also, "A step.")
	}
	if len(f.Needs) > 0 {
		also = append(also, "Needs `"+strings.Join(f.Needs, "`, `")+"`.")
	}
	if len(f.Faults) > 0 {
		codes := make([]string, len(f.Faults))
		for i, c := range f.Faults {
			codes[i] = "`" + string(c) + "`"
		}
		also = append(also, "May raise "+wording.OneOf(codes)+".")
	}
	if also != nil {
		p.text("\n" + strings.Join(also, " ") + "\n")
	}
	if f.Example != "" {
		p.text("\n```lua\n" + f.Example + "\n```\n")
	}
}

// telling are the rows that tell more than the call does, whose brackets say what
// is required.
func telling(rows []Field) []Field {
	rows = slices.DeleteFunc(slices.Clone(rows), func(f Field) bool { return f.Text == "" && f.Members == nil && f.Type == "string" })
	for i := range rows {
		rows[i].Optional = true
	}
	return rows
}

// names lists parameters, those that may be left out in brackets.
func names(fields []Field) string {
	var b strings.Builder
	open := 0
	for i, f := range fields {
		if f.Optional {
			b.WriteByte('[')
			open++
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(f.Name)
	}
	return b.String() + strings.Repeat("]", open)
}

// lua tells what is there of Lua, and what is not.
func (p *page) lua() {
	p.text("\n## Lua's own\n\nA program can't make globals. What is there of Lua's own is as its manual says, except:\n\n| | |\n|---|---|\n")
	var plain []string
	for _, o := range Host() {
		if o.Method || !ofLua(o) {
			continue
		}
		before := o.Name + "."
		if o.Name == "" {
			before = ""
		}
		for _, f := range o.Fields {
			plain = append(plain, "`"+before+f.Name+"`")
		}
		for _, f := range o.Functions {
			switch name := before + f.Name; {
			case f.Text != "" && f.Standard:
				p.text("| `" + name + "` | " + cell(f.Text) + " |\n")
			case f.Text != "":
				p.text("| `" + name + "(" + names(f.Params) + ")` | " + cell(f.Text) + " |\n")
			default:
				plain = append(plain, "`"+name+"`")
			}
		}
	}
	p.text("\nWithout a difference: " + strings.Join(plain, ", ") + ".\n\nWhat is not there, and what to do instead:\n\n| | |\n|---|---|\n")
	for _, r := range RemovedNames() {
		p.text("| `" + r.Name + "` | " + cell(r.Message) + " |\n")
	}
}

func (p *page) faults() {
	p.text("\n## Errors\n\nEvery error is a table `{code, message, status?, cause?, payload?}`; `pcall` gives it back. A program raises its own by `error { code = \"unhealthy\", message = \"...\" }`; an error that is a text has the code `lua`. A step may also raise `denied`, `invalid`, `canceled`, `journal-full` and `unavailable`.\n\n| Code | What it means |\n|---|---|\n")
	for _, f := range Faults() {
		p.text("| `" + string(f.Code) + "` | " + cell(f.Text) + " |\n")
	}
}
