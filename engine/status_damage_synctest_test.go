package engine_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// TestDoctorTellsDamage: what the background scan finds in the files of a hub that
// runs is a line of doctor, with what to do.
func TestDoctorTellsDamage(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := enginetest.New(t, enginetest.Dir(dir))
		mustCreate(t, h, engine.Identity{DeviceID: "d1"})
		if err := h.Close(); err != nil { // which writes a table
			t.Fatal(err)
		}
		h = enginetest.New(t, enginetest.Dir(dir))
		finding := func() engine.Finding {
			time.Sleep(time.Hour + 2*time.Minute) // the scan's rest and its work
			synctest.Wait()
			return findingOf(t, h, "damage")
		}
		if f := finding(); f.Level != "ok" || !strings.HasSuffix(f.Text, "tables and found no damage") || strings.Contains(f.Text, " 0 ") {
			t.Errorf("sound: %+v", f)
		}
		tables, err := filepath.Glob(filepath.Join(dir, "badger", "*.sst"))
		if err != nil || len(tables) == 0 {
			t.Fatalf("no tables: %v", err)
		}
		text, err := os.ReadFile(tables[0])
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(tables[0], os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{text[100] ^ 1}, 100); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		want := engine.Finding{Check: "damage", Level: "fail", Text: "1 of the store's tables are damaged", Next: "stop the hub, copy the data directory, run `muster repair`"}
		if f := finding(); f != want {
			t.Errorf("damaged: %+v, want %+v", f, want)
		}
	})
}
