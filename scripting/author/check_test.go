package author_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/scripting/author"
)

var rewrite = flag.Bool("rewrite", false, "write what is found into the files of testdata")

// parts splits a file of testdata into its files.
func parts(text string) map[string][]byte {
	files := map[string][]byte{}
	marks := regexp.MustCompile(`(?m)^-- (\S+) --\n`).FindAllStringSubmatchIndex(text, -1)
	for i, m := range marks {
		end := len(text)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		files[text[m[2]:m[3]]] = []byte(text[m[1]:end])
	}
	return files
}

// TestFindings compares what is found in the patterns of testdata.
func TestFindings(t *testing.T) {
	list, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(list) == 0 {
		t.Fatal("there is no testdata", err)
	}
	for _, file := range list {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			files := parts(string(text))
			want := string(files["want"])
			delete(files, "want")
			b := &pattern.Bundle{Files: files}
			findings, _ := author.Check(b)
			var out strings.Builder
			if err := author.Text(&out, "x", b, findings); err != nil {
				t.Fatal(err)
			}
			got := regexp.MustCompile(`(?m)^      [> ] .*\n`).ReplaceAllString(out.String(), "") // the source
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
