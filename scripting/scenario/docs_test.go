package scenario_test

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/scripting/scenario"
)

// TestPageIsTrue runs the example of the page about tests.
func TestPageIsTrue(t *testing.T) {
	page, err := os.ReadFile("../../docs/how-to/test-a-pattern.md")
	if err != nil {
		t.Fatal(err)
	}
	b := &pattern.Bundle{Files: map[string][]byte{}}
	for _, m := range regexp.MustCompile("(?s)```lua\n-- (\\S+\\.lua)\n(.*?)```").FindAllSubmatch(page, -1) {
		b.Files[string(m[1])] = m[2]
	}
	r, err := scenario.Test(context.Background(), b, scenario.Options{CrashEverywhere: true, Cover: true})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := r.Text(&out, false); err != nil {
		t.Fatal(err)
	}
	if !r.Passed() || len(r.Tests) != 4 {
		t.Error(out.String())
	}
	for _, c := range r.Cover {
		if len(c.Missed) > 0 {
			t.Errorf("no test runs the lines %v of %s", c.Missed, c.File)
		}
	}
	for _, o := range scenario.API() {
		if o.Name != "t" {
			continue
		}
		for _, f := range o.Functions {
			if f.Text == "" {
				t.Errorf("t:%s has no text", f.Name)
			}
		}
	}
}
