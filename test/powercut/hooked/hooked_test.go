package hooked

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../../.."

func TestOverlayFitsTheModules(t *testing.T) {
	path, err := Overlay(root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"manifest.go", "table.go", "file_linux.go", filepath.Join("z", "powercut.go")} {
		if !strings.Contains(string(b), want) {
			t.Errorf("overlay does not replace %s", want)
		}
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
	mods := map[string]string{}
	for _, m := range []string{badger, ristretto} {
		d, err := moduleDir(root, m)
		if err != nil {
			t.Fatal(err)
		}
		mods[m] = d
	}
	extra := filepath.Join(dir, "db.go")
	if err := os.WriteFile(extra, []byte("package badger\nfunc f() { os.Rename(a, b); os.MkdirAll(c, 0) }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := count(mods, map[string]string{filepath.Join(mods[badger], "db.go"): extra}); err == nil {
		t.Error("an unhooked os.Rename was not noticed")
	}
}
