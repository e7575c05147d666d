package plugins_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/plugins"
	"github.com/muster-hub/muster/scripting"
	"github.com/muster-hub/muster/scripting/scenario"
)

// TestScenarios runs the scenarios of every shipped pattern, each with a crash
// wherever one makes a difference, and wants each of their lines to be run. With
// the race detector there are no crashes; test/run.sh calls it without that, too.
func TestScenarios(t *testing.T) {
	t.Parallel()
	for name, b := range bundles(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			find := func(name string) (*pattern.Bundle, error) { return plugins.Bundle(name) }
			r, err := scenario.Test(t.Context(), b, scenario.Options{CrashEverywhere: !raceDetector, Cover: true, Find: find})
			if err != nil {
				t.Fatal(err)
			}
			crashes := 0
			for _, test := range r.Tests {
				crashes += test.Crashes
				if f := test.Failure; f != nil {
					t.Errorf("%s\n%s: %s\n%s\n%s%s", test.Name, f.Place, f.Message, f.Crash, f.Diff, strings.Join(f.Source, "\n"))
				}
			}
			if !r.Passed() || len(r.Tests) < 4 || crashes < 10 && !raceDetector {
				t.Errorf("%d tests, repeated with %d crashes", len(r.Tests), crashes)
			}
			for _, c := range r.Cover {
				if len(c.Missed) > 0 {
					t.Errorf("%s: the lines %v ran in no test", c.File, c.Missed)
				}
			}
		})
	}
}

func bundles(t *testing.T) map[string]*pattern.Bundle {
	t.Helper()
	names, err := plugins.Names()
	if err != nil || !slices.IsSorted(names) {
		t.Fatalf("%v, %v", names, err)
	}
	list, err := plugins.Bundles()
	if err != nil || len(list) != len(names) || len(list) < 14 {
		t.Fatalf("%d bundles of %v, %v", len(list), names, err)
	}
	of := map[string]*pattern.Bundle{}
	for i, b := range list {
		of[names[i]] = b
	}
	return of
}

// TestManifests compares each pattern's manifest with its folder and its page.
func TestManifests(t *testing.T) {
	t.Parallel()
	list := bundles(t)
	for name, b := range list {
		m, err := scripting.Load(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m.Name != name || m.Title == "" || m.Summary == "" || m.Timeout == 0 || len(m.Missing()) > 0 {
			t.Errorf("%s: %+v; missing %v", name, m, m.Missing())
		}
		if m.Scope != pattern.ScopeFleet && m.Conflicts == "" {
			t.Errorf("%s does not say what it does beside others", name)
		}
		page := string(b.Files["README.md"])
		if !strings.HasPrefix(page, "# "+name+"\n") || !strings.Contains(page, "WHERE pattern = '"+name+"' GROUP BY phase") {
			t.Errorf("the page of %s lacks its title, or its query by phase", name)
		}
		var params map[string]struct {
			Title, Description string
			Default            json.RawMessage
		}
		if err := json.Unmarshal(m.Params, &params); err != nil {
			t.Fatal(err)
		}
		for param, p := range params {
			shown := "required"
			if !slices.Contains(m.Required, param) {
				shown = strings.Trim(string(p.Default), `"`)
			}
			if p.Title == "" || p.Description == "" || !strings.Contains(page, "| `"+param+"` | "+shown+" |") {
				t.Errorf("%s: the parameter %s lacks a title or a description, or its row in the page: | `%s` | %s |", name, param, param, shown)
			}
		}
	}
	if !bytes.Equal(list["configure"].Files["lib/patch.lua"], list["staged-configuration"].Files["lib/patch.lua"]) {
		t.Error("the two copies of lib/patch.lua differ")
	}
}

func TestBundleNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", ".", "..", "none", "reboot/test", "../plugins"} {
		if _, err := plugins.Bundle(name); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
