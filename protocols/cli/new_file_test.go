package cli

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFilesThatCommandsMake: whatever a command makes, it refuses a place that is
// taken in the same way, and says which folder is missing; nothing is left behind.
func TestFilesThatCommandsMake(t *testing.T) {
	data := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/api/v1/doctor":
			_, _ = io.WriteString(w, `{}`)
		case strings.HasPrefix(r.URL.Path, "/debug/"), strings.HasSuffix(r.URL.Path, "/executions"), strings.HasPrefix(r.URL.Path, "/api/v1/runs"):
			_, _ = io.WriteString(w, `"new"`)
		default:
			http.NotFound(w, r)
		}
	}))
	for _, command := range []string{"debug profile heap", "debug flight", "doctor --bundle", "job export j1 --to", "run export --to", "device export", "file download d1 f --to"} {
		t.Run(command, func(t *testing.T) {
			dir := t.TempDir()
			run := func(file string) outcome {
				return call{args: append(words(command), file, "--data", data)}.run(t)
			}
			taken := filepath.Join(dir, "taken")
			if err := os.WriteFile(taken, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := run(taken); got.code != ExitConflict || !strings.Contains(got.err, taken+" exists already\n  next: Say another place") {
				t.Errorf("taken: exit code %d\n%s", got.code, got.err)
			}
			if text, err := os.ReadFile(taken); err != nil || string(text) != "old" {
				t.Errorf("what was there is now %q, %v", text, err)
			}
			missing := filepath.Join(dir, "none", "new")
			if got := run(missing); got.code != ExitUsage || !strings.Contains(got.err, missing+" can't be made\n  why:  there is no folder "+filepath.Dir(missing)) {
				t.Errorf("no folder: exit code %d\n%s", got.code, got.err)
			}
			left, err := os.ReadDir(dir)
			if err != nil || len(left) != 1 {
				t.Errorf("the folder has %v, %v", left, err)
			}
		})
	}
	for _, command := range []string{"debug profile heap", "debug flight", "job export j1 --to", "run export --to"} {
		file := filepath.Join(t.TempDir(), "new")
		got := call{args: append(words(command), file, "--data", data)}.run(t)
		text, err := os.ReadFile(file)
		if got.code != ExitOK || err != nil || string(text) != `"new"` {
			t.Errorf("%s: exit code %d, %q, %v\n%s", command, got.code, text, err, got.err)
			continue
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want it for its owner alone", command, info, err)
		}
	}
}
