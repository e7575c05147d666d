package storage

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
)

func TestChunksHoldAllRecordsOnce(t *testing.T) {
	db := mustOpen(t, testOptions(t, t.TempDir()), osFS{}, small())
	defer mustClose(t, db)
	tab := docs()
	var want []string
	for i := range 1000 {
		id := fmt.Sprintf("%04d", i)
		want = append(want, id)
		update(t, db, func(tx *Tx) error {
			return tab.Put(tx, Tuple(id), doc{City: "x", Number: int64(i), Text: text(i%50+1, "x")})
		})
	}
	for _, size := range []int{1, 7, 64, 1000, 4096} {
		var chunks []Chunk[doc]
		view(t, db, func(r Reader) error {
			for c, err := range tab.Chunks(r, Range{}, size) {
				if err != nil {
					return err
				}
				chunks = append(chunks, c)
			}
			return nil
		})
		var got []string
		for i, c := range chunks { // after the reader has ended
			if c.Len() == 0 || c.Len() > size || c.Len() < size && i < len(chunks)-1 {
				t.Errorf("size %d: chunk %d of %d has %d records", size, i, len(chunks), c.Len())
			}
			first, last := c.Keys()
			n := len(got)
			for item, err := range c.Items() {
				if err != nil {
					t.Fatal(err)
				}
				if item.Value.Number != int64(len(got)) || len(item.Value.Text) != len(got)%50+1 {
					t.Errorf("record %d is %+v", len(got), item.Value)
				}
				if len(got) == n && !bytes.Equal(item.Key, first) || len(got) == n+c.Len()-1 && !bytes.Equal(item.Key, last) {
					t.Errorf("size %d: the keys of chunk %d are not those of its first and last record", size, i)
				}
				parts, err := item.Key.Parts()
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprint(parts[0]))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("size %d: %d records, want %d in order", size, len(got), len(want))
		}
	}
	view(t, db, func(r Reader) error {
		for range tab.Chunks(r, Range{Prefix: Tuple("none")}, 8) {
			t.Error("a chunk of nothing")
		}
		return nil
	})
}

// Published comes after the callbacks of a group and before its callers go on.
func TestPublishedComesBetweenCallbacksAndAnswers(t *testing.T) {
	var called, published atomic.Int64
	o := testOptions(t, t.TempDir())
	o.Published = func(uint64) { published.Store(called.Load()) }
	db := mustOpen(t, o, osFS{}, tuning{})
	defer mustClose(t, db)
	for i := range int64(200) {
		err := db.Update(context.Background(), func(tx *Tx) error {
			tx.OnCommit(func(uint64) { called.Add(1) })
			return docs().Put(tx, Tuple(fmt.Sprint(i)), doc{})
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := published.Load(); got != i+1 {
			t.Fatalf("the answer of transaction %d came when %d were published", i+1, got)
		}
	}
}

func TestDerivedKeysFollowFromTheMasterKey(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, testOptions(t, dir), osFS{}, tuning{})
	a, b := db.DeriveKey("a"), db.DeriveKey("b")
	mustClose(t, db)
	db = mustOpen(t, testOptions(t, dir), osFS{}, tuning{})
	defer mustClose(t, db)
	if len(a) != 32 || bytes.Equal(a, b) || !bytes.Equal(a, db.DeriveKey("a")) {
		t.Errorf("keys %x and %x, and %x after a restart", a, b, db.DeriveKey("a"))
	}
	other := mustOpen(t, testOptions(t, t.TempDir()), osFS{}, tuning{})
	defer mustClose(t, other)
	if bytes.Equal(a, other.DeriveKey("a")) {
		t.Error("another master key gives the same key")
	}
}
