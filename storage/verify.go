package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Report says what Verify or Repair found and did.
type Report struct {
	Rung     string   // the format found
	Records  uint64   // records read
	Indexes  uint64   // index entries read
	Logs     uint64   // log entries read
	Blobs    uint64   // blobs read
	Bytes    int64    // bytes of keys and values read
	Sequence uint64   // newest committed sequence
	Problems []string // what is damaged; the first maxProblems
	Actions  []string // what Repair did, and what was cut or lost by it
}

const maxProblems = 100

func (r *Report) act(format string, args ...any) {
	r.Actions = append(r.Actions, fmt.Sprintf(format, args...))
}

func (r *Report) problem(err error) {
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, err.Error())
	}
}

// Verify opens a directory that no process has open, as Open does (the journal is replayed), and
// reads everything: every table block, every value, every index entry against its record, every
// log's positions and chain. An older format stays as it is. The error is ErrCorrupt when there are Problems.
func Verify(ctx context.Context, o Options) (Report, error) {
	var r Report
	o.KeepFormat = true
	db, err := recoverStore(ctx, o.withDefaults(), osFS{}, tuning{}, strict)
	if err != nil {
		if errors.Is(err, ErrCorrupt) {
			r.problem(err)
		}
		return r, err
	}
	err = db.audit(ctx, &r, nil)
	if err == nil {
		err = db.messages.verify(ctx, &r)
	}
	if err == nil {
		err = db.blobs.verify(ctx, &r)
	}
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	if err == nil && len(r.Problems) > 0 {
		err = fmt.Errorf("%w: %d problem(s), the first: %s", ErrCorrupt, len(r.Problems), r.Problems[0])
	}
	return r, err
}

// audit reads all keys of one snapshot. bad, when not nil, is called with every raw key whose
// value cannot be used.
func (db *DB) audit(ctx context.Context, r *Report, bad func(key []byte, why error)) error {
	r.Rung, r.Sequence = db.format.Name, db.visible.Load()
	report := func(key []byte, why error) {
		r.problem(why)
		if bad != nil {
			bad(key, why)
		}
	}
	type tally struct{ entries, sum uint32 }
	tables := map[string]tally{}
	var logName string
	var logInFront bool
	fronts, behind := map[string]uint64{}, map[string]uint64{} // by log: first of the newer, last of the older entries
	var position uint64
	var before []byte
	return db.View(ctx, func(reader Reader) error {
		n := 0
		for p, err := range reader.scan(nil, nil, false) {
			if n++; n%1024 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				return err
			}
			r.Bytes += int64(len(p.key) + len(p.value))
			_, payload, err := unframe(p.key, p.value)
			if err != nil {
				report(p.key, err)
				continue
			}
			switch key := string(p.key); {
			case strings.HasPrefix(key, prefixTable):
				r.Records++
				table, _, _ := strings.Cut(key[len(prefixTable):], "\x00")
				entries, sum, _, ok := splitRecord(payload)
				if !ok {
					report(p.key, badValue(p.key, "the record is cut short"))
					continue
				}
				t := tables[table]
				tables[table] = tally{t.entries + entries, t.sum + sum}
			case strings.HasPrefix(key, prefixIndex):
				r.Indexes++
				at, err := indexSplit(p.key, p.value)
				record, table, ok := splitIndexKey(p.key, at)
				if err == nil && !ok {
					err = badValue(p.key, "an index entry points nowhere")
				}
				if err == nil {
					if _, gerr := reader.get(record); errors.Is(gerr, ErrNotFound) {
						err = badValue(p.key, "an index entry points to a record that does not exist")
					} else if gerr != nil {
						return gerr
					}
				}
				if err != nil {
					report(p.key, err)
					continue
				}
				t := tables[table]
				tables[table] = tally{t.entries - 1, t.sum - crc32.Checksum(p.key, castagnoli)}
			case strings.HasPrefix(key, prefixFront), strings.HasPrefix(key, prefixLog):
				name, last, _ := splitLogKey(p.key)
				inFront := strings.HasPrefix(key, prefixFront)
				err := unpack(p.key, p.value, func(e Entry) bool {
					r.Logs++
					if name != logName || inFront != logInFront {
						logName, logInFront, position, before = name, inFront, e.Position-1, nil
						if e.Position == 1 {
							before = make([]byte, sha256.Size)
						}
						if inFront {
							fronts[name] = e.Position
						}
					}
					if e.Position != position+1 {
						r.problem(badValue(p.key, "entries %d to %d are missing before it", position+1, e.Position-1))
						before = nil
					}
					if e.Hash != nil && before != nil {
						if sum := chainHash(before, e.Position, e.Time.UnixNano(), e.Data); !bytes.Equal(sum[:], e.Hash) {
							r.problem(badValue(p.key, "the hash chain is broken here"))
						}
					}
					position, before = e.Position, bytes.Clone(e.Hash)
					return true
				})
				if err != nil {
					report(p.key, err)
				}
				if !inFront {
					behind[name] = last
				}
			}
		}
		for name, last := range behind {
			if first, ok := fronts[name]; ok && first != last+1 {
				r.problem(fmt.Errorf("%w: the older entries of the log %s end with %d, the newer ones begin with %d", ErrCorrupt, name, last, first))
			}
		}
		for table, t := range tables {
			if t.entries != 0 || t.sum != 0 {
				r.problem(fmt.Errorf("%w: the index entries of table %s are not those of its records (%d too few)", ErrCorrupt, table, int32(t.entries)))
			}
		}
		return nil
	})
}

// scanRest is the pause between two rounds of the background scan.
const scanRest = time.Hour

// scanTables verifies the checksums of all tables again and again, slowly, since a scan that
// meets a damaged block ends without an error. It reads the files itself: a mapped page behind
// the end of a file that Badger deletes would end the process.
func (db *DB) scanTables() {
	t := time.NewTimer(scanRest)
	defer t.Stop()
	wait := func(d time.Duration) error {
		t.Reset(d)
		select {
		case <-t.C:
			return nil
		case <-db.closing:
			return ErrClosed
		}
	}
	dir := db.path(badgerDir)
	var read int
	pace := func(n int) error {
		if read += n; read < 1<<20 {
			return nil
		}
		read = 0
		return wait(db.tune.scanPause)
	}
	damaged := map[uint64]bool{} // each counts once, however often it is met
	for wait(scanRest) == nil {
		m, err := readManifest(db.fs, filepath.Join(dir, "MANIFEST"))
		if err != nil {
			continue // Badger may just be replacing it; the next round sees
		}
		for id, table := range m.tables {
			_, err := tableCheck(db.fs, filepath.Join(dir, tableName(id)), table.compression, pace)
			if errors.Is(err, ErrClosed) {
				return
			}
			db.count.scannedTables.Add(1)
			if err != nil && !errors.Is(err, os.ErrNotExist) && db.hasTable(id) {
				damaged[id] = true
				db.count.damagedTable.Store(uint64(len(damaged)))
				db.raise(err)
				db.opt.Logger.Error("the background scan found a damaged table", "error", err)
			}
		}
	}
}

func (db *DB) hasTable(id uint64) bool {
	for _, t := range db.badger.Tables() {
		if t.ID == id {
			return true
		}
	}
	return false
}
