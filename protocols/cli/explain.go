package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/muster-hub/muster/protocols/client"
)

type deviceExplainCmd struct {
	HubFlags
	OutputFlags
	If []string `help:"A tag as it would be; repeatable: shows what would change, and changes nothing. A value that is not JSON is a string, null takes the tag away." placeholder:"tags.PATH=VALUE" sep:"none"`
	ID string   `arg:"" name:"id" help:"DEVICE, or DEVICE/MODULE."`
}

// Run explains a twin.
func (c *deviceExplainCmd) Run(a *app) error {
	device, module, err := splitID(c.ID)
	if err != nil {
		return err
	}
	tags, err := supposedTags(c.If)
	if err != nil {
		return usage("--if: "+err.Error(), "For example: muster device explain "+c.ID+" --if tags.site=paris")
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	if tags != nil {
		w, err := s.ExplainIf(ctx, device, module, tags)
		if err != nil {
			return err
		}
		return a.printWhatIf(c.OutputFlags, c.ID, w)
	}
	e, err := s.Explain(ctx, device, module)
	if err != nil {
		return err
	}
	return a.printExplanation(c.OutputFlags, e)
}

// supposedTags makes a patch of arguments such as tags.site=paris; nil of none.
func supposedTags(args []string) (json.RawMessage, error) {
	if len(args) == 0 {
		return nil, nil
	}
	for _, arg := range args {
		if !strings.HasPrefix(arg, "tags.") && !strings.HasPrefix(arg, "tags=") {
			return nil, fmt.Errorf("%q is not about a tag, expected tags.PATH=VALUE", arg)
		}
	}
	raw, err := parseAssignments(args)
	if err != nil {
		return nil, err
	}
	var patch struct{ Tags json.RawMessage }
	err = json.Unmarshal(raw, &patch)
	return patch.Tags, err
}

func (a *app) printExplanation(o OutputFlags, e client.Explanation) error {
	paths := &sheet{columns: []string{"PATH", "VALUE", "SET BY", "WHEN", "LOST"}, empty: "It has no desired properties."}
	for _, p := range e.Paths {
		value := any(p.Value)
		if p.Value == nil {
			value = "(kept away)"
		}
		var when any = p.Time
		if p.Time.IsZero() {
			when = ""
		}
		paths.add(p, p.Path, value, setBy(p), when, lostText(p))
	}
	switch o.Output {
	case "json", "jsonl":
		return a.printRecord(o, e, nil)
	case "csv":
		return a.print(o, paths)
	}
	configurations := &sheet{columns: []string{"CONFIGURATION", "PRIORITY", "CREATED", "STATUS", "NOTE"}, empty: "No configuration selects it."}
	for _, g := range e.Configurations {
		configurations.add(g, g.ID, g.Priority, g.Created, statusText(g), g.Reason)
	}
	if e.Error != "" {
		a.note("Its configurations can't be applied: %s", printable(e.Error))
	}
	if err := a.print(o, configurations); err != nil {
		return err
	}
	if len(configurations.rows) > 0 && len(paths.rows) > 0 {
		if _, err := io.WriteString(a.io.Out, "\n"); err != nil {
			return err
		}
	}
	return a.print(o, paths)
}

// statusText says how a configuration stands on a twin.
func statusText(g client.ExplainedConfiguration) string {
	switch {
	case !g.Matches:
		return "leaving" // it no longer matches, and what it set is about to go
	case g.Status == "":
		return "coming"
	}
	return g.Status
}

// setBy names the configuration that sets a property, else what wrote it.
func setBy(p client.ExplainedPath) string {
	switch kind, id, ok := strings.Cut(p.Cause, ":"); {
	case p.Configuration != "":
		return "configuration " + p.Configuration
	case kind == "configuration": // what one has set stays when it is deleted
		return "configuration " + id + ", which no longer does"
	case ok:
		return kind + " " + id
	case p.Principal != "":
		return p.Principal
	}
	return "unknown: longer ago than history is kept"
}

// lostText says what other configurations would set here, and why they don't.
func lostText(p client.ExplainedPath) string {
	var list []string
	for _, l := range p.Lost {
		text := l.Configuration + ": "
		if l.Path != p.Path {
			text += l.Path + "="
		}
		list = append(list, text+string(l.Value)+", "+l.Reason)
	}
	return strings.Join(list, "; ")
}

func (a *app) printWhatIf(o OutputFlags, id string, w client.WhatIf) error {
	sh := &sheet{columns: []string{"PATH", "NOW", "THEN", "SET BY"}, empty: "No desired property would change."}
	for _, p := range w.Paths {
		by := "removed with the configuration that set it"
		if p.Configuration != "" {
			by = "configuration " + p.Configuration
		}
		sh.add(p, p.Path, p.Before, p.After, by)
	}
	switch o.Output {
	case "json", "jsonl":
		return a.printRecord(o, w, nil)
	case "csv":
		return a.print(o, sh)
	}
	for _, change := range []struct {
		what string
		ids  []string
	}{{"would get", w.Gained}, {"would lose", w.Lost}} {
		if len(change.ids) > 0 {
			if _, err := fmt.Fprintf(a.io.Out, "%s %s %s\n", printable(id), change.what, printable(strings.Join(change.ids, ", "))); err != nil {
				return err
			}
		}
	}
	return a.print(o, sh)
}
