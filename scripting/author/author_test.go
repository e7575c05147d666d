package author_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/scripting/author"
	"github.com/muster-hub/muster/scripting/scenario"
)

// TestSkeleton makes each kind of pattern and holds it to what is promised: its
// tests pass, with a crash wherever one makes a difference, each line runs, and
// the check finds nothing.
func TestSkeleton(t *testing.T) {
	for _, scope := range []pattern.Scope{pattern.ScopeDevice, pattern.ScopeFleet} {
		t.Run(string(scope), func(t *testing.T) {
			dir, err := author.Create(t.TempDir(), "my-pattern", scope)
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{"pattern.lua", "README.md", ".luarc.json", "muster.d.lua", "test/my-pattern_test.lua"} {
				if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
					t.Error(err)
				}
			}
			b, s, err := author.Read(dir)
			if err != nil || s != nil || len(b.Files) != 3 {
				t.Fatalf("%v %v, %d files", err, s, len(b.Files))
			}
			if list, m := author.Check(b); len(list) > 0 || m.Name != "my-pattern" || m.Title != "My pattern" {
				t.Errorf("%v %+v", list, m)
			}
			r, err := scenario.Test(context.Background(), b, scenario.Options{CrashEverywhere: true, Cover: true})
			if err != nil || !r.Passed() || len(r.Tests) == 0 {
				var out strings.Builder
				_ = r.Text(&out, false)
				t.Fatalf("%v\n%s", err, out.String())
			}
			for _, c := range r.Cover {
				if len(c.Missed) > 0 {
					t.Errorf("%s: no test runs the lines %v", c.File, c.Missed)
				}
			}
			if _, err := author.Create(filepath.Dir(dir), "my-pattern", scope); err == nil {
				t.Error("a folder was written over")
			}
		})
	}
	for _, name := range []string{"", "X", "a b", "../x", "a--b", "-a", strings.Repeat("a", 65)} {
		if _, err := author.Skeleton(name, pattern.ScopeDevice); err == nil {
			t.Errorf("%q was taken as a name", name)
		}
	}
	if _, err := author.Skeleton("x", "galaxy"); err == nil {
		t.Error("an unknown kind was taken")
	}
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

const small = `return pattern { name = "small", version = "1.0.0", api = 1, run = function(dev, p, ctx) ctx:sleep("1m") return "done" end }`

func TestFolderHoldsOnlyThePattern(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"pattern.lua": small, "README.md": "x", "lib/a.lua": "return 1", "lib/deep/b.lua": "return 2", "test/c_test.lua": `test("x", function(t) t:run() end)`,
		"muster.d.lua": "not this", ".hidden.lua": "nor this", "lib/notes.txt": "nor this", "other/x.lua": "nor this", "lib/.x.lua": "nor this", "pattern.key": "least of all this",
	})
	b, _, err := author.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Files) != 5 {
		t.Errorf("%d files: %v", len(b.Files), b.Files)
	}
	if _, _, err := author.Read(t.TempDir()); !errors.Is(err, author.ErrNoPattern) {
		t.Errorf("an empty folder: %v", err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "lib", "z.lua")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := author.Read(dir); err == nil {
		t.Error("a link was followed")
	}
}

func TestNeighbours(t *testing.T) {
	in := t.TempDir()
	write(t, in, map[string]string{"small/pattern.lua": small, "other/pattern.lua": strings.Replace(small, "small", "other", 1)})
	find := author.Neighbours(filepath.Join(in, "small"))
	if _, err := find("other"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"none", "..", "../other", ""} {
		if _, err := find(name); err == nil {
			t.Errorf("%q was found", name)
		}
	}
}

// lockedBuffer tells whenever something was written.
type lockedBuffer struct {
	lines chan string
	rest  bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.rest.Write(p)
	for {
		line, err := b.rest.ReadString('\n')
		if err != nil {
			b.rest.WriteString(line)
			return len(p), nil
		}
		b.lines <- strings.TrimSuffix(line, "\n")
	}
}

// until reads lines up to one that has a text in it.
func (b *lockedBuffer) until(t *testing.T, part string) {
	t.Helper()
	late := time.After(20 * time.Second)
	var seen []string
	for {
		select {
		case line := <-b.lines:
			if seen = append(seen, line); strings.Contains(line, part) {
				return
			}
		case <-late:
			t.Fatalf("%q was not said:\n%s", part, strings.Join(seen, "\n"))
		}
	}
}

func TestDevLooksAgainAfterEachChange(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"pattern.lua": small, "test/small_test.lua": `test("sleeps", function(t) t:equal(t:run().result, "done") end)`})
	ctx, cancel := context.WithCancel(context.Background())
	out := &lockedBuffer{lines: make(chan string, 1000)}
	done := make(chan error)
	passed := func(b *pattern.Bundle) (string, error) {
		m, err := author.Manifest(b)
		if err != nil {
			return "", err
		}
		return "passed as " + m.Version, nil
	}
	go func() {
		done <- author.Dev(ctx, dir, author.DevOptions{Every: time.Millisecond, Out: out, Passed: passed})
	}()
	out.until(t, "1 test, all passed")
	out.until(t, "ctx.sleep")
	out.until(t, "passed as 1.0.0-dev.")
	out.until(t, "looked in")
	write(t, dir, map[string]string{"pattern.lua": strings.Replace(small, `"done"`, `"finished"`, 1)})
	out.until(t, `found "finished", expected "done"`)
	out.until(t, "looked in")
	write(t, dir, map[string]string{"pattern.lua": "return pattern {"})
	out.until(t, "syntax")
	write(t, dir, map[string]string{"pattern.lua": small + "\n"})
	out.until(t, "1 test, all passed")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// FuzzCheck checks any text as a program.
func FuzzCheck(f *testing.F) {
	f.Add(small)
	f.Add(`local function f(dev) while true do dev:wait("a", { x = f }) end end return pattern { run = f, needs = { 1, {} }, params = f }`)
	f.Add(`return pattern { name = "x", version = "1.0.0", api = 1, needs = { "method:a" }, run = function(dev, p) p.x.y = dev:call(p.z) repeat until p end }`)
	f.Add("#!x\n\x00 goto x ::x:: a.b.c:d(...)[1] = -#not 'x' // 2")
	f.Fuzz(func(_ *testing.T, text string) {
		author.Check(&pattern.Bundle{Files: map[string][]byte{"pattern.lua": []byte(text), "test/a_test.lua": []byte(text)}})
	})
}
