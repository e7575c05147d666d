package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestTitleOfErrors: an error of which nobody knows more names the command that has
// failed, and what of it is a file's matter says which file.
func TestTitleOfErrors(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "none")
	hooks := Hooks{
		Verify: func(_ context.Context, f StoreFlags, _ IO) (Report, error) {
			_, err := os.ReadDir(f.Data)
			return Report{}, fmt.Errorf("read the data directory: %w", err)
		},
		Author: AuthorHooks{
			New: func(f PatternNewFlags, _ IO) error { return os.Mkdir(filepath.Join(f.In, f.Name), 0o755) },
			Check: func(PatternCheckFlags, IO) error {
				return errors.New("the check has found errors")
			},
		},
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"verify", "--data", missing}, ExitUsage, "muster: verify failed\n  why:  read the data directory: open " + missing + ": no such file or directory\n  next: Check the name of " + missing + ".\n"},
		{[]string{"pattern", "new", "blink", "--in", missing}, ExitUsage, "muster: " + filepath.Join(missing, "blink") + " can't be made\n  why:  there is no folder " + missing + "\n  next: Make the folder, or say another place.\n"},
		{[]string{"pattern", "check"}, ExitFailed, "muster: pattern check failed\n  why:  the check has found errors\n"},
	} {
		if got := (call{args: c.args, hooks: hooks}).run(t); got.code != c.code || got.err != c.want {
			t.Errorf("%v: exit code %d, want %d:\n%s\nwant\n%s", c.args, got.code, c.code, got.err, c.want)
		}
	}
}
