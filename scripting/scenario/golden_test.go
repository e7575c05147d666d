package scenario_test

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/scripting/scenario"
)

var rewrite = flag.Bool("rewrite", false, "write what is found into the files of testdata")

// parts splits a file of testdata into its files.
func parts(text string) (flags string, files map[string][]byte) {
	heading := regexp.MustCompile(`(?m)^-- (\S+) --\n`)
	files = map[string][]byte{}
	marks := heading.FindAllStringSubmatchIndex(text, -1)
	for i, m := range marks {
		end := len(text)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		files[text[m[2]:m[3]]] = []byte(text[m[1]:end])
	}
	return text[:marks[0][0]], files
}

// TestGolden runs the patterns of testdata and compares what is told of them.
func TestGolden(t *testing.T) {
	list, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(list) == 0 {
		t.Fatal("there is no testdata", err)
	}
	took := regexp.MustCompile(`(?m)(^ok .*\S) +[0-9.]+(?:µs|ms|s)( +\S+ virtual)|(, in )[0-9.]+(?:µs|ms|s)$`)
	costs := regexp.MustCompile(`\d+ activations, \d+ instructions, \d+ calls`)
	for _, file := range list {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			flags, files := parts(string(text))
			want := string(files["want"])
			delete(files, "want")
			var out strings.Builder
			r, err := scenario.Test(context.Background(), &pattern.Bundle{Files: files}, scenario.Options{
				CrashEverywhere: strings.Contains(flags, "crash"), Cover: strings.Contains(flags, "cover"),
			})
			if err != nil {
				out.WriteString("error: " + err.Error() + "\n")
			} else if err := r.Text(&out, strings.Contains(flags, "verbose")); err != nil {
				t.Fatal(err)
			}
			got := took.ReplaceAllString(costs.ReplaceAllString(out.String(), "COSTS"), "${1}${3} TIME$2")
			if *rewrite {
				before, _, _ := strings.Cut(string(text), "-- want --\n")
				if err := os.WriteFile(file, []byte(before+"-- want --\n"+got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("%s: found\n%s\nexpected\n%s", file, got, want)
			}
		})
	}
}
