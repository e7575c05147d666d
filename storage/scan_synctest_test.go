package storage

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestBackgroundScan: a table that is damaged while the store is open is found by the scan, which
// runs every hour; Health names it.
func TestBackgroundScan(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t, dir)
		db := mustOpen(t, o, osFS{}, small())
		for i := range 400 {
			update(t, db, func(tx *Tx) error {
				return docs().Put(tx, Tuple(uint64(i)), doc{City: "Ulm", Text: text(2000, "scan ")})
			})
		}
		mustClose(t, db)
		db = mustOpen(t, o, osFS{}, small())
		time.Sleep(scanRest + time.Minute)
		synctest.Wait()
		if s := db.Stats(); s.ScannedTables == 0 || s.DamagedTables != 0 || db.Health() != nil {
			t.Errorf("a sound store: %d scanned, %d damaged, %v", s.ScannedTables, s.DamagedTables, db.Health())
		}
		tables, err := filepath.Glob(filepath.Join(dir, badgerDir, "*.sst"))
		if err != nil || len(tables) == 0 {
			t.Fatalf("no tables: %v", err)
		}
		flip(t, tables[0], 800)
		time.Sleep(scanRest + time.Minute)
		synctest.Wait()
		if s := db.Stats(); s.DamagedTables == 0 || !errors.Is(db.Health(), ErrCorrupt) {
			t.Errorf("a damaged store: %d damaged, %v", s.DamagedTables, db.Health())
		}
		time.Sleep(scanRest + time.Minute)
		synctest.Wait()
		if s := db.Stats(); s.DamagedTables != 1 {
			t.Errorf("one damaged table that was met twice counts as %d", s.DamagedTables)
		}
		mustClose(t, db)
		if _, err := openWith(context.Background(), o, osFS{}, small()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("open: %v", err)
		}
	})
}
