package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/muster-hub/muster/test/powercut/hooked"
)

// The known-bad variants are edits of storage's sources. This fails as soon as one no longer
// fits, long before somebody waits for a run.
func TestVariantsFitStorage(t *testing.T) {
	root, err := mainModule()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			if _, err := hooked.Overlay(root, t.TempDir(), v.patches); err != nil {
				t.Error(err)
			}
			if len(v.patches) == 0 && len(v.args) == 0 {
				t.Error("the variant differs in nothing from the good one")
			}
		})
	}
}

func TestReadAddsUpReports(t *testing.T) {
	path := filepath.Join(t.TempDir(), "images.jsonl")
	lines := []string{
		`{"phase":"load","moment":"sync x","image":{"pages":5,"pagesLost":2},"rotations":3,"flushes":2,"compactions":1}`,
		`{"phase":"open","moment":"open y","image":{"pages":1}}`,
		`{"phase":"close","moment":"remove z","image":{},"rotations":1,"flushes":0,"compactions":4,"bad":"key lost","dir":"d"}`,
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var sum total
	bad, err := read(&sum, path)
	if err != nil || !bad {
		t.Fatalf("read: bad %t, %v", bad, err)
	}
	if sum.images != 2 || sum.recovery != 1 || len(sum.bad) != 1 || sum.unproven != 1 || sum.sum.Image.Pages != 6 || sum.sum.Rotations != 4 {
		t.Errorf("added up to %+v", &sum)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := read(&sum, path); err == nil {
		t.Error("half a report was accepted")
	}
	if _, err := read(&sum, path+"x"); err == nil {
		t.Error("a run without reports was accepted")
	}
}
