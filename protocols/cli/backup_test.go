package cli

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestBackupIsCut: a hub that ends in the middle of a backup is told apart from one
// that cannot be reached, and from a user who ends the command.
func TestBackupIsCut(t *testing.T) {
	leave := context.CancelFunc(func() { panic(http.ErrAbortHandler) })
	dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/backups/stream" {
			_, _ = w.Write([]byte("{}"))
			return
		}
		_, _ = w.Write([]byte("some of it"))
		_ = http.NewResponseController(w).Flush()
		leave()
		<-r.Context().Done()
	}))
	hooks := Hooks{Backup: BackupHooks{
		Create: func(context.Context, StoreFlags, string, []byte, BackupProgress, IO) (BackupSummary, error) {
			t.Error("the directory of a hub that runs was opened")
			return BackupSummary{}, nil
		},
		Save: func(_ context.Context, _ string, _ BackupProgress, std IO, write func(w io.Writer) error) (BackupSummary, error) {
			return BackupSummary{}, write(std.Out)
		},
	}}
	for file, left := range map[string]string{"hub.mbk": "There is no hub.mbk.", "-": "What standard output got is no backup, so throw it away."} {
		got := call{args: []string{"backup", "create", file, "--data", dir}, hooks: hooks}.run(t)
		want := "muster: the hub did not send all of the backup\n  why:  " + dir + "/" + socketName + ": the backup was cut: unexpected EOF\n" +
			"  next: " + left + " `muster status` tells whether the hub runs, and its log why it ended; then make the backup again.\n"
		if got.code != ExitConnect || got.err != want || got.out != "some of it" {
			t.Errorf("%s: exit code %d, wrote %q and\n%s\nwant\n%s", file, got.code, got.out, got.err, want)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	leave = stop
	var notes strings.Builder
	a := newApp(ctx, IO{In: strings.NewReader(""), Out: io.Discard, Err: &notes, Env: func(string) string { return "" }}, hooks)
	if code := a.run([]string{"backup", "create", "hub.mbk", "--data", dir}); code != ExitCancelled || notes.String() != "muster: cancelled\n" {
		t.Errorf("cancelled by the user: exit code %d\n%s", code, &notes)
	}
}
