package storage

import (
	"bytes"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"
)

// TestLogPacks appends from many goroutines, so that values hold several entries, while some
// transactions read the log themselves; every reader must see positions without gaps.
func TestLogPacks(t *testing.T) {
	o := testOptions(t, t.TempDir())
	db := mustOpen(t, o, osFS{}, small())
	const writers, each = 24, 30
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				err := db.Update(t.Context(), func(tx *Tx) error {
					if w == 0 {
						if _, last, err := changes().Bounds(tx); err != nil || i > 0 && last < uint64(i) {
							return fmt.Errorf("the log ends at %d, %v", last, err)
						}
					}
					for n := range 1 + i%3 {
						data := fmt.Appendf(nil, "%d %d %d", w, i, n)
						if i == 7 {
							data = bytes.Repeat(data, 2000) // more than one value takes
						}
						if err := changes().Append(tx, data); err != nil {
							return err
						}
					}
					return auditLog().Append(tx, []byte{byte(w), byte(i)})
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	const all = writers * each * 2
	read := func(after, want uint64) {
		t.Helper()
		next, orders := want, map[string]bool{}
		view(t, db, func(r Reader) error {
			for e, err := range changes().Read(r, after) {
				if err != nil {
					return err
				}
				if e.Position != next || orders[string(e.Data)] {
					t.Fatalf("after %d: entry %d, want %d", after, e.Position, next)
				}
				orders[string(e.Data)] = true
				next++
			}
			return nil
		})
		if next != all+1 {
			t.Errorf("after %d: the newest entry read is %d, want %d", after, next-1, all)
		}
	}
	check := func() {
		t.Helper()
		for _, after := range []uint64{0, 1, 2, 17, 500, 501, 502, all - 1} {
			read(after, after+1)
		}
		view(t, db, func(r Reader) error {
			n, bad, err := auditLog().Verify(t.Context(), r)
			if n != writers*each || bad != 0 {
				t.Errorf("%d of %d entries of the chained log, bad %d", n, writers*each, bad)
			}
			return err
		})
	}
	check()
	mustClose(t, db)
	if r, err := Verify(t.Context(), o); err != nil || r.Logs != all+writers*each {
		t.Errorf("verify: %d entries, %v", r.Logs, err)
	}
	db = mustOpen(t, o, osFS{}, small())
	defer mustClose(t, db)
	check()
	values := 0
	view(t, db, func(r Reader) error {
		for range r.scan(logPrefix(prefixFront, "changes"), successor(logPrefix(prefixFront, "changes")), false) {
			values++
		}
		return nil
	})
	if values >= all {
		t.Errorf("%d values hold %d entries", values, all)
	}

	const keep = 700
	n, err := changes().Trim(t.Context(), db, TrimPolicy{Before: time.Now().Add(time.Hour), Keep: keep})
	if err != nil || n > keep {
		t.Fatalf("trimmed %d entries of %d, %v", n, keep, err)
	}
	view(t, db, func(r Reader) error {
		first, last, err := changes().Bounds(r)
		if first != uint64(n)+1 || first > keep+1 || first < keep-200 || last != all {
			t.Errorf("%d entries are trimmed, and the log goes from %d to %d", n, first, last)
		}
		read(0, first)
		return err
	})
	if _, err := changes().Trim(t.Context(), db, TrimPolicy{MaxBytes: 1, Keep: math.MaxUint64}); err != nil {
		t.Error(err)
	}
	view(t, db, func(r Reader) error {
		if _, last, err := changes().Bounds(r); last != all || err != nil {
			t.Errorf("the newest entry is %d, %v", last, err)
		}
		return nil
	})
}

func FuzzUnpack(f *testing.F) {
	key := logKey(logPrefix(prefixLog, "log"), 9)
	for _, n := range []int{1, 3} {
		p := logPack{log: NewLog("log", LogOptions{Chained: n == 3}), last: 9}
		for i := range n {
			p.add(9, logEntry{time: int64(i), data: []byte("data")})
		}
		f.Add(p.pair().value[1], p.pair().value[frameHeader:])
	}
	f.Fuzz(func(t *testing.T, version byte, payload []byte) {
		next := uint64(0)
		err := unpack(key, frame(key, version, payload), func(e Entry) bool {
			if next != 0 && e.Position != next || e.Position == 0 || e.Position > 9 {
				t.Fatalf("position %d, want %d", e.Position, next)
			}
			next = e.Position + 1
			return true
		})
		if err == nil && next != 10 {
			t.Errorf("the last entry is %d", next-1)
		}
	})
}
