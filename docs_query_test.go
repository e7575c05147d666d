package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/query/querytest"
)

// queryPage makes the reference of the query language: what people wrote is in
// a template, the subjects and their examples are the scenarios that the tests
// run, functions and limits come from their tables.
func queryPage(t *testing.T) string {
	t.Helper()
	template, err := os.ReadFile("engine/query/testdata/page.md")
	if err != nil {
		t.Fatal(err)
	}
	subjects, err := querytest.Load(os.DirFS("engine/query/testdata"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(template)
	for mark, text := range map[string]string{
		"twins": fleetBlock(t), "subjects": querySubjects(t, subjects), "functions": queryFunctions(), "limits": queryLimits(),
	} {
		mark = "{{" + mark + "}}\n"
		if !strings.Contains(page, mark) {
			t.Errorf("the template of the query page has no %s", mark)
		}
		page = strings.Replace(page, mark, text, 1)
	}
	return page
}

// fleetBlock shows the twins that most examples query, one a paragraph.
func fleetBlock(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("engine/query/testdata/fleet.json")
	if err != nil {
		t.Fatal(err)
	}
	return "```json\n" + string(data) + "```\n"
}

func querySubjects(t *testing.T, subjects []querytest.Subject) string {
	t.Helper()
	var b strings.Builder
	shown := 0
	for _, s := range subjects {
		var examples strings.Builder
		for _, c := range s.Cases {
			if c.Shown {
				shown++
				examples.WriteString(queryExample(c))
			}
		}
		if examples.Len() == 0 {
			continue // a subject for the tests
		}
		fmt.Fprintf(&b, "### %s\n\n%s\n\n", s.Title, s.Prose)
		if own := ownTwins(t, s); own != "" {
			fmt.Fprintf(&b, "Beside the twins above there are here:\n\n```json\n%s```\n\n", own)
		}
		b.WriteString(examples.String())
	}
	if shown < 50 {
		t.Errorf("only %d examples are on the query page", shown)
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// ownTwins returns the twins that only a subject's file has.
func ownTwins(t *testing.T, s querytest.Subject) string {
	t.Helper()
	fleet, err := os.ReadFile("engine/query/testdata/fleet.json")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, twin := range s.Twins {
		if !strings.Contains(string(fleet), `"deviceId": "`+strings.Split(twin.ID, "/")[0]+`"`) {
			b.Write(twin.Document)
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// queryExample shows a case: the query, and its rows or its error.
func queryExample(c querytest.Case) string {
	var b strings.Builder
	title := c.Title
	if c.Strict {
		title += " (with `--limits azure`)"
	}
	if strings.Contains(strings.ToLower(c.Query), "now()") {
		title += " (at " + c.Now.Format("15:04") + " UTC)"
	}
	fmt.Fprintf(&b, "%s:\n\n", title)
	language := "sql"
	if c.Bare {
		language = "text"
	}
	if c.Error != "" {
		fmt.Fprintf(&b, "```text\n%s\n%s^\ncolumn %d: %s\n```\n\n", c.Query, strings.Repeat(" ", c.At-1), c.At, c.Error)
		return b.String()
	}
	fmt.Fprintf(&b, "```%s\n%s\n```\n\n", language, c.Query)
	switch {
	case len(c.IDs) > 0:
		fmt.Fprintf(&b, "→ the twins `%s`\n\n", strings.Join(c.IDs, "`, `"))
	case len(c.Rows) > 0:
		fmt.Fprintf(&b, "```json\n%s\n```\n\n", strings.Join(c.Rows, "\n"))
	default:
		b.WriteString("→ nothing\n\n")
	}
	return b.String()
}

func queryFunctions() string {
	var b strings.Builder
	b.WriteString("| Function | What it gives | IoT Hub has it |\n|---|---|---|\n")
	for _, f := range query.Functions() {
		has := "yes"
		if f.Extension {
			has = "no"
		}
		fmt.Fprintf(&b, "| `%s%s` | %s | %s |\n", f.Name, f.Arguments, cell(f.Does), has)
	}
	return b.String()
}

// queryLimits lists the limits of queries: those of their language, and those
// of a hub.
func queryLimits() string {
	var b strings.Builder
	b.WriteString("| Limit | Default | Azure | Unit | Meaning |\n|---|---|---|---|---|\n")
	for _, r := range engine.LimitTable() {
		if strings.HasPrefix(r.Name, "query_") {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", r.Name, figure(r.Default), figure(r.Azure), r.Unit, cell(r.Text))
		}
	}
	return b.String()
}
