package hooked

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../../.."

func TestPatchesFitTheModules(t *testing.T) {
	dir := t.TempDir()
	modfile, err := Prepare(root, dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(modfile)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{badger, ristretto} {
		if !strings.Contains(string(b), m+" => "+dir) {
			t.Errorf("go.mod does not replace %s", m)
		}
	}
}

func TestMainModuleIsPatchedByOverlay(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(root, "LICENSE")
	before, err := os.ReadFile(src)
	if err != nil {
		t.Fatal(err)
	}
	path, err := Overlay(root, dir, []Patch{{File: "LICENSE", Edits: []Edit{{"Version 2.0, January 2004", "patched"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), "0-LICENSE") {
		t.Errorf("overlay %s, %v", b, err)
	}
	if after, err := os.ReadFile(src); err != nil || string(after) != string(before) {
		t.Errorf("the source itself was changed: %v", err)
	}
}

func TestApplyRefusesChangedSource(t *testing.T) {
	p := Patch{File: "x.go", Edits: []Edit{{"one()", "two()"}}}
	for _, tt := range []struct {
		name, src string
		ok        bool
	}{
		{"once", "a one() b", true},
		{"absent", "a b", false},
		{"twice", "one() one()", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := apply(tt.src, p)
			if (err == nil) != tt.ok {
				t.Fatalf("apply: %v, expected success %t", err, tt.ok)
			}
			if tt.ok && out != "a two() b" {
				t.Errorf("apply gave %q", out)
			}
		})
	}
}

func TestCensusFindsUnhookedCall(t *testing.T) {
	dir := t.TempDir()
	if _, err := Prepare(root, dir); err != nil {
		t.Fatal(err)
	}
	mods := map[string]string{badger: filepath.Join(dir, "badger"), ristretto: filepath.Join(dir, "ristretto")}
	if err := os.Remove(filepath.Join(mods[ristretto], "z", "powercut.go")); err != nil {
		t.Fatal(err)
	}
	if err := count(mods); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mods[badger], "new.go"), []byte("package badger\nfunc f() { os.Rename(a, b) }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := count(mods); err == nil {
		t.Error("an unhooked os.Rename was not noticed")
	}
}
