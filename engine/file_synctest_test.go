package engine

import (
	"testing"
	"testing/synctest"
	"time"
)

// An upload ends after its time, blocks included, and a file after its own.
func TestFilesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &uploader{T: t, dir: t.TempDir()}
		u.open()
		defer u.Close()
		ctx := t.Context()
		// The store's own timers tick on, and 30 days of them take long.
		u.limits.FileAge, u.limits.UploadTime = 20*time.Minute, 10*time.Minute
		u.upload(u.g, "old", []byte("old"))
		up, g := u.begin(u.g, "never")
		if err := u.StageBlock(ctx, g, "b", body([]byte("block"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(u.limits.UploadTime - time.Second)
		u.consistent()
		if totals := u.FileTotals(); totals.Uploads != 1 {
			t.Fatalf("the upload ended before its time: %+v", totals)
		}
		time.Sleep(time.Second)
		u.want(CodeUploadExpired, u.StageBlock(ctx, g, "c", body(nil)))
		u.want(CodeUploadExpired, u.complete(u.g, up.CorrelationID, true))
		time.Sleep(time.Second)
		u.consistent()
		if totals := u.FileTotals(); totals.Uploads != 0 || totals.Staged != 0 || totals.Failed != 1 {
			t.Errorf("the upload did not end: %+v", totals)
		}
		u.want(CodeUploadNotFound, u.complete(u.g, up.CorrelationID, true))
		time.Sleep(u.limits.FileAge - u.limits.UploadTime - 2*time.Second)
		u.upload(u.g, "new", []byte("new"))
		u.sweep()
		if got := u.names("d"); got != "new old" {
			t.Errorf("kept %q, want both", got)
		}
		time.Sleep(2 * time.Second)
		u.sweep()
		if got := u.names("d"); got != "new" {
			t.Errorf("kept %q, want new", got)
		}
		u.consistent()
	})
}
