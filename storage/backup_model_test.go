package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"sync"
	"testing"
)

// TestBackupIsExactlyOneSequence: writers note for each change the sequence at
// which it was acknowledged. A backup that is made meanwhile restores to
// exactly the changes up to the sequence that it names: each of them with all
// of its keys, and nothing that came after. The message log and the log of
// changes end where the backup says.
func TestBackupIsExactlyOneSequence(t *testing.T) {
	tune := small()
	db := mustOpen(t, testOptions(t, t.TempDir()), osFS{}, tune)
	defer mustClose(t, db)
	type change struct {
		key    string // deleted when value is nil
		value  *doc
		change string // the entry in the log
	}
	var mu sync.Mutex
	acked := map[uint64][]change{} // by sequence; a group of transactions shares one
	rng := seeded(t)
	seeds := make([]int64, 4)
	for i := range seeds {
		seeds[i] = rng.Int64()
	}
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	defer writers.Wait()
	defer stop()
	for w := range len(seeds) {
		writers.Go(func() {
			for i := int64(0); ctx.Err() == nil; i++ {
				n := (i*7919 + seeds[w]) % 40
				c := change{key: string(Tuple(int64(w), n)), change: fmt.Sprintf("%d/%d", w, i)}
				if i%5 != 4 {
					c.value = &doc{City: fmt.Sprint("city ", i%3), Number: i, Text: text(int(300+n*40), "words ")}
				}
				err := db.Update(ctx, func(tx *Tx) error {
					tx.OnCommit(func(seq uint64) {
						mu.Lock()
						defer mu.Unlock()
						acked[seq] = append(acked[seq], c)
					})
					err := changes().Append(tx, []byte(c.change))
					tx.Add("n", 1)
					if c.value == nil {
						return errors.Join(err, docs().Delete(tx, Key(c.key)))
					}
					return errors.Join(err, docs().Put(tx, Key(c.key), *c.value))
				})
				if err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
				if i%10 == 0 {
					_ = db.Messages().Append(fmt.Appendf(nil, "message %d/%d", w, i), nil)
				}
			}
		})
	}
	for round := range 4 {
		if err := changes().Wait(t.Context(), db, uint64(100*(round+1))); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		// A slow reader, so that much happens while the backup is made.
		info, err := db.Backup(t.Context(), io.MultiWriter(&b, writerFunc(func(p []byte) (int, error) {
			if len(p) > 1000 {
				mu.Lock()
				n := len(acked)
				mu.Unlock()
				for more := n; more < n+5; {
					mu.Lock()
					more = len(acked)
					mu.Unlock()
				}
			}
			return len(p), nil
		})), BackupOptions{Passphrase: []byte("p")})
		if err != nil {
			t.Fatal(err)
		}
		if db.visible.Load() <= info.Sequence {
			t.Fatal("nothing was written while the backup was made: the test shows nothing")
		}
		o := Options{Dir: filepath.Join(t.TempDir(), "restored")}
		if _, err := restoreWith(t.Context(), bytes.NewReader(b.Bytes()), o, []byte("p"), small()); err != nil {
			t.Fatal(err)
		}
		again := mustOpen(t, o, osFS{}, small())
		want, log := map[string]doc{}, map[string]bool{}
		mu.Lock()
		for seq := uint64(1); seq <= info.Sequence; seq++ {
			for _, c := range acked[seq] { // in the order of their group, in which a later one wins
				log[c.change] = true
				if c.value == nil {
					delete(want, c.key)
				} else {
					want[c.key] = *c.value
				}
			}
		}
		mu.Unlock()
		view(t, again, func(r Reader) error {
			got := map[string]doc{}
			for it, err := range docs().Scan(r, Range{}) {
				if err != nil {
					return err
				}
				got[string(it.Key)] = it.Value
			}
			if !maps.Equal(got, want) {
				t.Errorf("round %d: %d records, %d were acknowledged up to sequence %d:\n%s", round, len(got), len(want), info.Sequence, diffDocs(got, want))
			}
			n, err := Counter(r, "n")
			if int(n) != len(log) {
				t.Errorf("round %d: the counter is %d, %d changes were acknowledged", round, n, len(log))
			}
			last := uint64(0)
			for e, err := range changes().Read(r, 0) {
				if err != nil {
					return err
				}
				if last = e.Position; !log[string(e.Data)] {
					t.Errorf("round %d: %q was not acknowledged by then", round, e.Data)
				}
				delete(log, string(e.Data))
			}
			if len(log) > 0 || last != info.Last("changes") {
				t.Errorf("round %d: %d changes are missing; the log ends at %d, the backup says %d", round, len(log), last, info.Last("changes"))
			}
			return err
		})
		if got := again.Messages().Last(); got != info.Messages {
			t.Errorf("round %d: the message log ends at %d, the backup says %d", round, got, info.Messages)
		}
		mustClose(t, again)
	}
}
