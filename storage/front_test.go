package storage

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// behindLast is the last entry of the directories that were left with the format packs-2, where logs
// lie behind other keys.
const behindLast = 120

// TestLogBehindAndInFront: a log that an older program began goes on in front, and is one log to all
// who read it, trim it, verify it and back it up.
func TestLogBehindAndInFront(t *testing.T) {
	for _, kind := range []string{"closed-log", "killed-log"} {
		t.Run(kind, func(t *testing.T) {
			o := testOptions(t, copyDir(t, filepath.Join("testdata", ladder[2], kind)))
			older := o
			older.KeepFormat = true
			db := mustOpen(t, older, osFS{}, goldenTuning())
			checkChanges(t, db, 1, behindLast)
			mustClose(t, db)

			db = mustOpen(t, o, osFS{}, goldenTuning())
			checkChanges(t, db, 1, behindLast)
			const all = behindLast + 30
			for n := behindLast + 1; n <= all; n++ {
				update(t, db, func(tx *Tx) error { return changes().Append(tx, fmt.Appendf(nil, "change %d", n)) })
			}
			checkChanges(t, db, 1, all)
			mustClose(t, db)
			if r, err := Verify(t.Context(), o); err != nil || r.Logs != all+40 {
				t.Errorf("%d log entries, %v", r.Logs, err)
			}

			db = mustOpen(t, o, osFS{}, goldenTuning())
			checkChanges(t, db, 1, all)
			copied, info := backupOf(t, db, "")
			if want := []BackupLog{{"audit", 40}, {"changes", all}}; !slices.Equal(info.Logs, want) {
				t.Errorf("the backup has the logs %v", info.Logs)
			}
			again := Options{Dir: filepath.Join(t.TempDir(), "again"), MasterKeyFile: filepath.Join(o.Dir, masterKeyFile), Reserve: 1}
			if _, err := restoreWith(t.Context(), bytes.NewReader(copied), again, nil, goldenTuning()); err != nil {
				t.Fatal(err)
			}
			restored := mustOpen(t, again, osFS{}, goldenTuning())
			checkChanges(t, restored, 1, all)
			mustClose(t, restored)

			for _, c := range []struct{ keep, first uint64 }{
				{50, 49}, // the value holds the entries 49 to 51
				{behindLast + 10, behindLast + 11},
			} {
				if _, err := changes().Trim(t.Context(), db, TrimPolicy{Before: time.Now().Add(time.Hour), Keep: c.keep}); err != nil {
					t.Fatal(err)
				}
				checkChanges(t, db, c.first, all)
			}
			mustClose(t, db)
			db = mustOpen(t, o, osFS{}, goldenTuning())
			checkChanges(t, db, behindLast+11, all)
			if _, err := changes().Trim(t.Context(), db, TrimPolicy{MaxBytes: 1, Keep: math.MaxUint64}); err != nil {
				t.Fatal(err)
			}
			checkChanges(t, db, all, all)
			mustClose(t, db)
		})
	}
}

// checkChanges checks that the log of changes is the entries first to last, wherever one begins to
// read.
func checkChanges(t *testing.T, db *DB, first, last uint64) {
	t.Helper()
	view(t, db, func(r Reader) error {
		lo, hi, err := changes().Bounds(r)
		if lo != first || hi != last || err != nil {
			t.Errorf("entries %d to %d, %v; want %d to %d", lo, hi, err, first, last)
		}
		for after := range last + 1 {
			want := max(after+1, first)
			for e, err := range changes().Read(r, after) {
				if err != nil || e.Position != want || string(e.Data) != fmt.Sprintf("change %d", want) {
					t.Fatalf("after %d: entry %d is %q, %v; want %d", after, e.Position, e.Data, err, want)
				}
				want++
			}
			if want != last+1 {
				t.Fatalf("after %d: entries end before %d", after, want)
			}
		}
		n, bad, err := changes().Verify(t.Context(), r)
		if n != last-first+1 || bad != 0 {
			t.Errorf("verified %d, bad %d", n, bad)
		}
		return err
	})
}

// TestOlderSnapshotKeepsItsNewest: what a snapshot has as its newest entry stays that when a trim takes
// it meanwhile.
func TestOlderSnapshotKeepsItsNewest(t *testing.T) {
	for _, kind := range []string{"empty", "closed-log"} {
		o := testOptions(t, t.TempDir())
		if kind != "empty" {
			o = testOptions(t, copyDir(t, filepath.Join("testdata", ladder[2], kind)))
		}
		db := mustOpen(t, o, osFS{}, goldenTuning())
		appended := func() {
			update(t, db, func(tx *Tx) error { return changes().Append(tx, []byte("change")) })
		}
		if kind == "empty" {
			appended()
		}
		view(t, db, func(older Reader) error {
			_, want, err := changes().Bounds(older)
			if err != nil || want == 0 {
				t.Errorf("%s: the newest entry is %d, %v", kind, want, err)
			}
			appended()
			if _, err := changes().Trim(t.Context(), db, TrimPolicy{Before: time.Now().Add(time.Hour), Keep: math.MaxUint64}); err != nil {
				return err
			}
			if _, last, err := changes().Bounds(older); last != want || err != nil {
				t.Errorf("%s: after a trim the newest entry of an older snapshot is %d, %v; want %d", kind, last, err, want)
			}
			return nil
		})
		mustClose(t, db)
	}
}

// TestVerifyMissesEntriesBetween: entries that are missing where the older ones end show.
func TestVerifyMissesEntriesBetween(t *testing.T) {
	o := testOptions(t, copyDir(t, filepath.Join("testdata", ladder[2], "closed-log")))
	db := mustOpen(t, o, osFS{}, goldenTuning())
	update(t, db, func(tx *Tx) error { return changes().Append(tx, []byte("change 121")) })
	update(t, db, func(tx *Tx) error { return tx.del(logKey(logPrefix(prefixLog, "changes"), behindLast)) })
	mustClose(t, db)
	if _, err := Verify(t.Context(), o); err == nil || !strings.Contains(err.Error(), "the newer ones begin with 121") {
		t.Errorf("verify: %v", err)
	}
}

// TestOlderEntriesAreLeftAlone: a merge of level 0 does not write the tables of older entries of a
// log anew, which it would if other keys came before the log's.
func TestOlderEntriesAreLeftAlone(t *testing.T) {
	tune := small()
	tune.levelZero, tune.baseLevelSize = 4, 64<<20 // one level below level 0
	db := mustOpen(t, testOptions(t, t.TempDir()), osFS{}, tune)
	defer mustClose(t, db)
	entry := make([]byte, 1000)
	// As random as can be, so that compressed they are as large.
	rnd := seeded(t)
	work := func(until func() bool) {
		t.Helper()
		for i := int64(0); !until(); i++ {
			update(t, db, func(tx *Tx) error {
				for range 20 {
					for k := range entry {
						entry[k] = byte(rnd.Uint32())
					}
					if err := changes().Append(tx, entry); err != nil {
						return err
					}
				}
				return docs().Put(tx, Tuple("key", uint64(i%20)), doc{City: fmt.Sprint("city ", i%7), Number: i, Text: text(1000, "text")})
			})
		}
	}
	settled := func() map[uint64]bool { // tables that hold nothing but older entries
		ids := map[uint64]bool{}
		for _, table := range db.badger.Tables() {
			if table.Level > 0 && strings.HasPrefix(string(table.Left), prefixFront) && strings.HasPrefix(string(table.Right), prefixFront) {
				ids[table.ID] = true
			}
		}
		return ids
	}
	work(func() bool { return len(settled()) >= 4 })
	old := settled()
	newest := slices.Max(slices.Collect(maps.Keys(old)))
	merged := func() bool { return slices.Max(slices.Collect(maps.Keys(settled()))) > newest }
	work(merged)
	kept := 0
	for id := range settled() {
		if old[id] {
			kept++
		}
	}
	if kept < len(old)-1 { // the last of them may also hold what followed
		t.Errorf("%d of %d tables of older entries were written anew", len(old)-kept, len(old))
	}
}
