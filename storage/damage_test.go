package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// crashed makes a directory as kill -9 leaves it: a store was filled, its files copied while it
// was open. It returns the model of what was acknowledged.
func crashed(t *testing.T, steps int, every time.Duration) (dir string, m *model) {
	t.Helper()
	o := testOptions(t, t.TempDir())
	o.CheckpointEvery = every
	o.CheckpointBytes = 400 << 10
	db := mustOpen(t, o, osFS{}, small())
	m = newModel()
	rng := seeded(t)
	for range steps {
		if err := m.step(db, rng); err != nil {
			t.Fatal(err)
		}
	}
	if every >= time.Hour {
		// The copy is taken while nothing is written and no checkpoint runs.
		dir = copyDir(t, o.Dir)
	}
	mustClose(t, db)
	if dir == "" {
		dir = copyDir(t, o.Dir)
	}
	return dir, m
}

func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	err := filepath.WalkDir(from, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) { // Badger deleted it meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// lastRecord finds the newest record of the journal: its file, offset and bytes.
func lastRecord(t *testing.T, dir string) (name string, at int, size int) {
	t.Helper()
	var newest uint64
	names, err := filepath.Glob(filepath.Join(dir, journalDir, "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		for pos := segmentHeader; ; {
			r, ok := decodeRecord(b[pos:])
			if !ok {
				break
			}
			if r.seq > newest {
				newest, name, at, size = r.seq, n, pos, recordHeader+len(r.body)
			}
			pos += r.size
		}
	}
	return name, at, size
}

// TestDamagedTail: a damaged or missing last record opens with everything before it. Badger has
// applied that record already, so its effects must be taken back, wholly.
func TestDamagedTail(t *testing.T) {
	o := testOptions(t, t.TempDir())
	o.CheckpointEvery = time.Hour
	o.CheckpointBytes = 1 << 40
	db := mustOpen(t, o, osFS{}, tuning{segmentSize: 256 << 10, segments: 64})
	m := newModel()
	rng := seeded(t)
	for range 200 {
		if err := m.step(db, rng); err != nil {
			t.Fatal(err)
		}
	}
	before := *m
	for before.counter == m.counter && len(before.logs) == len(m.logs) || db.visible.Load() == 0 {
		before = *m
		seq := db.visible.Load()
		if err := m.step(db, rng); err != nil {
			t.Fatal(err)
		}
		if db.visible.Load() == seq {
			before = *m
		}
	}
	dir := copyDir(t, o.Dir)
	mustClose(t, db)
	name, at, size := lastRecord(t, dir)
	damages := map[string]func(b []byte) []byte{
		"cut in the header":   func(b []byte) []byte { return b[:at+5] },
		"cut in the body":     func(b []byte) []byte { return b[:at+recordHeader+size/3] },
		"cut before the last": func(b []byte) []byte { return b[:at+size-1] },
		"zeros":               func(b []byte) []byte { clear(b[at+size/2:]); return b },
	}
	for i := range scaled(12) {
		bit := rng.IntN(8 * size)
		if bit/8 >= 28 && bit/8 < 32 {
			continue // four bytes that mean nothing
		}
		damages[fmt.Sprintf("flip %d (bit %d)", i, bit)] = func(b []byte) []byte { b[at+bit/8] ^= 1 << (bit % 8); return b }
	}
	for what, damage := range damages {
		t.Run(what, func(t *testing.T) {
			hit := copyDir(t, dir)
			file := filepath.Join(hit, journalDir, filepath.Base(name))
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			o := testOptions(t, hit)
			tune := tuning{segmentSize: 256 << 10, segments: 64}
			db := mustOpen(t, o, osFS{}, tune)
			before.check(t, db)
			after := before
			for range 20 {
				if err := after.step(db, rng); err != nil {
					t.Fatal(err)
				}
			}
			after.check(t, db)
			mustClose(t, db)
			db = mustOpen(t, o, osFS{}, tune)
			after.check(t, db)
			mustClose(t, db)
		})
	}
}

// crashedWithRecords makes crashed directories until one has, in its newest segment, records
// before the last one that a start still needs; how many a segment holds is chance.
func crashedWithRecords(t *testing.T) (dir, name string, segment []byte, starts []int) {
	t.Helper()
	for range 20 {
		var last int
		dir, _ = crashed(t, 300, time.Hour)
		name, last, _ = lastRecord(t, dir)
		var err error
		if segment, err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
		var c checkpoint
		if err := readText(osFS{}, filepath.Join(dir, checkpointFile), &c, nil); err != nil {
			t.Fatal(err)
		}
		for pos := segmentHeader; pos < last; {
			r, _ := decodeRecord(segment[pos:])
			if r.seq > c.Sequence {
				starts = append(starts, pos)
			}
			pos += r.size
		}
		if len(starts) > 0 {
			return dir, name, segment, starts
		}
	}
	t.Fatal("20 crashed directories held one needed record each")
	return "", "", nil, nil
}

// TestDamageBeforeTheTail: a flipped bit in an earlier record that is still needed is named.
func TestDamageBeforeTheTail(t *testing.T) {
	dir, name, b, starts := crashedWithRecords(t)
	for _, pos := range []int{starts[0], starts[len(starts)/2], starts[len(starts)-1]} {
		hit := copyDir(t, dir)
		file := filepath.Join(hit, journalDir, filepath.Base(name))
		c := slices.Clone(b)
		c[pos+recordHeader+3] ^= 4
		if err := os.WriteFile(file, c, 0o600); err != nil {
			t.Fatal(err)
		}
		o := testOptions(t, hit)
		_, err := openWith(t.Context(), o, osFS{}, small())
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), fmt.Sprint("byte ", pos)) || !strings.Contains(err.Error(), "muster repair") {
			t.Errorf("damage at %d: %v", pos, err)
		}
		r, err := repairWith(t.Context(), o, small())
		if err != nil || len(r.Actions) == 0 {
			t.Errorf("repair: %+v, %v", r, err)
		}
		db := mustOpen(t, o, osFS{}, small())
		if db.visible.Load() == 0 {
			t.Error("the repair kept nothing")
		}
		mustClose(t, db)
	}
}

func repairWith(ctx context.Context, o Options, t tuning) (Report, error) {
	var r Report
	db, err := recoverStore(ctx, o.withDefaults(), osFS{}, t, mode{repair: true, report: &r})
	if err != nil {
		return r, err
	}
	return r, db.Close()
}

// TestFlippedBits flips one bit anywhere in a crashed or a closed directory: it opens with all
// acknowledged data, or is refused with a named error.
func TestFlippedBits(t *testing.T) {
	rounds := scaled(80)
	if testing.Short() {
		rounds = min(rounds, 30)
	}
	for name, every := range map[string]time.Duration{"crashed": time.Hour, "closed": time.Second} {
		t.Run(name, func(t *testing.T) {
			dir, m := crashed(t, 1500, every)
			rng := seeded(t)
			lastName, lastAt, lastSize := lastRecord(t, dir)
			files := dataFiles(t, dir)
			refused, opened := 0, 0
			var where string
			t.Cleanup(func() {
				if t.Failed() {
					t.Log("last at " + where)
				}
			})
			for range rounds {
				f := files[rng.IntN(len(files))]
				bit := f.bit(rng)
				where = fmt.Sprintf("%s, bit %d (byte %d)", f.name, bit, bit/8)
				if every >= time.Hour && filepath.Join(dir, f.name) == lastName && bit/8 >= int64(lastAt) && bit/8 < int64(lastAt+lastSize) {
					continue // the last record: TestDamagedTail
				}
				hit := copyDir(t, dir)
				flip(t, filepath.Join(hit, f.name), bit)
				db, err := openWith(t.Context(), testOptions(t, hit), osFS{}, small())
				if err != nil {
					if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewerFormat) {
						t.Errorf("%s bit %d: refused without a name: %v", f.name, bit, err)
					}
					refused++
				} else {
					opened++
					m.check(t, db)
					mustClose(t, db)
				}
				if t.Failed() {
					return
				}
				if err := os.RemoveAll(hit); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("%d refused, %d opened with everything", refused, opened)
		})
	}
}

// TestFlippedManifest flips every bit of the lengths and checksums in MANIFEST, also of its last
// record, in copies of a directory that a checkpoint has just seen: a record that is gone must not pass
// for one that a power cut tore, since what it listed is nowhere else.
func TestFlippedManifest(t *testing.T) {
	o := testOptions(t, t.TempDir())
	o.CheckpointEvery = time.Millisecond
	db := mustOpen(t, o, osFS{}, small())
	m := newModel()
	rng := seeded(t)
	name := filepath.Join(badgerDir, "MANIFEST")
	var dir string
	var b []byte
	var c checkpoint
	// The newest table must be one that the checkpoint counts on: no journal has what it holds.
	for tables := 0; tables < 2 || c.Manifest != int64(len(b)); {
		if err := m.step(db, rng); err != nil {
			t.Fatal(err)
		}
		if listed, err := readManifest(osFS{}, db.path(name)); err != nil || len(listed.tables) < 2 {
			continue
		}
		for c.Sequence != db.visible.Load() { // then no checkpoint runs
			if err := readText(osFS{}, db.path(checkpointFile), &c, nil); err != nil {
				t.Fatal(err)
			}
		}
		dir = copyDir(t, o.Dir)
		copied, err := readManifest(osFS{}, filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		tables = len(copied.tables)
		if b, err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, db)
	refused := 0
	for at := int64(manifestHeader); at < c.Manifest; at += 8 + int64(binary.BigEndian.Uint32(b[at:])) {
		for bit := 8 * at; bit < 8*(at+8); bit++ {
			hit := copyDir(t, dir)
			flip(t, filepath.Join(hit, name), bit)
			db, err := openWith(t.Context(), testOptions(t, hit), osFS{}, small())
			switch {
			case errors.Is(err, ErrCorrupt):
				refused++
			case err != nil:
				t.Fatalf("bit %d of byte %d: refused without a name: %v", bit%8, bit/8, err)
			default:
				m.check(t, db)
				mustClose(t, db)
			}
			if err := os.RemoveAll(hit); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d refused", refused)
}

type dataFile struct {
	name string
	used int64 // bytes up to the last one that is not zero
}

func (f dataFile) bit(rng *rand.Rand) int64 { return rng.Int64N(8 * f.used) }

func dataFiles(t *testing.T, dir string) []dataFile {
	t.Helper()
	var files []dataFile
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == lockFile || e.Name() == masterKeyFile {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		n := len(strings.TrimRight(string(b), "\x00"))
		rel, err := filepath.Rel(dir, name)
		if n > 0 && err == nil {
			files = append(files, dataFile{rel, int64(n)})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func flip(t *testing.T, name string, bit int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], bit/8); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << (bit % 8)
	if _, err := f.WriteAt(b[:], bit/8); err != nil {
		t.Fatal(err)
	}
}

// TestMissingFiles removes one file at a time.
func TestMissingFiles(t *testing.T) {
	dir, m := crashed(t, 1500, time.Hour)
	for _, f := range dataFiles(t, dir) {
		hit := copyDir(t, dir)
		if err := os.Remove(filepath.Join(hit, f.name)); err != nil {
			t.Fatal(err)
		}
		db, err := openWith(t.Context(), testOptions(t, hit), osFS{}, small())
		switch {
		case err == nil:
			m.check(t, db)
			mustClose(t, db)
		case !errors.Is(err, ErrCorrupt):
			t.Errorf("without %s: %v", f.name, err)
		}
		if t.Failed() {
			t.Fatalf("without %s", f.name)
		}
	}
}

// TestRepair damages a directory in several ways and repairs it: the store opens, is consistent
// and the report says what happened.
func TestRepair(t *testing.T) {
	dir, m := crashed(t, 1500, time.Hour)
	tables, err := filepath.Glob(filepath.Join(dir, badgerDir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	table, err := filepath.Rel(dir, tables[0])
	if err != nil {
		t.Fatal(err)
	}
	damages := map[string]func(hit string) error{
		"format":     func(hit string) error { return os.WriteFile(filepath.Join(hit, formatFile), []byte("junk"), 0o600) },
		"checkpoint": func(hit string) error { return os.Remove(filepath.Join(hit, checkpointFile)) },
		"manifest":   func(hit string) error { return os.Truncate(filepath.Join(hit, badgerDir, "MANIFEST"), 3) },
		"table":      func(hit string) error { return os.Truncate(filepath.Join(hit, table), 1000) },
		"master key": func(hit string) error { return os.Remove(filepath.Join(hit, masterKeyFile)) },
	}
	for what, damage := range damages {
		t.Run(what, func(t *testing.T) {
			hit := copyDir(t, dir)
			if err := damage(hit); err != nil {
				t.Fatal(err)
			}
			o := testOptions(t, hit)
			if _, err := openWith(t.Context(), o, osFS{}, small()); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("open: %v", err)
			} else {
				t.Log(err)
			}
			r, err := repairWith(t.Context(), o, small())
			if err != nil || len(r.Actions) == 0 {
				t.Fatalf("repair: %+v, %v", r, err)
			}
			t.Log(strings.Join(r.Actions, "\n"))
			db := mustOpen(t, o, osFS{}, small())
			if what != "table" && what != "manifest" { // the others lose no record
				m.check(t, db)
			}
			update(t, db, func(tx *Tx) error { return docs().Put(tx, Tuple("new"), doc{Number: 1}) })
			mustClose(t, db)
		})
	}
}

// TestDamagedValue: a value whose own checksum is wrong is refused by every read, found by
// Verify and removed by Repair.
func TestDamagedValue(t *testing.T) {
	o := testOptions(t, t.TempDir())
	db := mustOpen(t, o, osFS{}, tuning{})
	update(t, db, func(tx *Tx) error {
		raw := docs().raw(Tuple("bad"))
		b := frame(raw, 1, binary.AppendUvarint(nil, 0))
		b[len(b)-1] ^= 1
		return errors.Join(tx.set(raw, b), docs().Put(tx, Tuple("good"), doc{City: "Ulm"}))
	})
	view(t, db, func(r Reader) error {
		if _, err := docs().Get(r, Tuple("bad")); !errors.Is(err, ErrCorrupt) {
			t.Errorf("get: %v", err)
		}
		for _, err := range docs().Scan(r, Range{}) {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("scan: %v", err)
			}
			break
		}
		return nil
	})
	mustClose(t, db)
	if r, err := Verify(t.Context(), o); !errors.Is(err, ErrCorrupt) || len(r.Problems) != 1 {
		t.Errorf("verify: %+v, %v", r, err)
	}
	if r, err := Repair(t.Context(), o); err != nil || len(r.Actions) != 1 {
		t.Errorf("repair: %+v, %v", r, err)
	}
	if r, err := Verify(t.Context(), o); err != nil || r.Records != 1 || r.Indexes != 1 {
		t.Errorf("verify after the repair: %+v, %v", r, err)
	}
}
