package storage

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

// doc is the record of the tests: a document with a city to index by.
type doc struct {
	City   string
	Number int64
	Text   string
}

func docs() *Table[doc] {
	return NewTable("docs", 1, JSON[doc](), Index[doc]{Name: "city", Keys: func(_ Key, v doc) []Key {
		if v.City == "" {
			return nil
		}
		return []Key{Tuple(v.City)}
	}})
}

func changes() *Log { return NewLog("changes", LogOptions{}) }

func auditLog() *Log { return NewLog("audit", LogOptions{Chained: true}) }

// small makes Badger rotate, flush and compact within a few thousand writes.
func small() tuning {
	return tuning{
		memTable: 256 << 10, numMemtables: 2, tableSize: 128 << 10, baseLevelSize: 512 << 10,
		blockCache: 1 << 20, indexCache: 1 << 20, segmentSize: 256 << 10, segments: 8, queue: 256, settleRest: time.Millisecond,
	}
}

func testOptions(t testing.TB, dir string) Options {
	t.Helper()
	return Options{Dir: dir, Reserve: 1, Logger: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))}
}

// testWriter writes log lines to the test's output.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	if os.Getenv("STORAGE_TEST_LOG") != "" {
		fmt.Fprintf(os.Stderr, "%s", b)
	}
	return len(b), nil
}

func mustOpen(t testing.TB, o Options, fs fsys, tune tuning) *DB {
	t.Helper()
	db, err := openWith(context.Background(), o, fs, tune)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return db
}

func mustClose(t testing.TB, db *DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func update(t testing.TB, db *DB, f func(tx *Tx) error) {
	t.Helper()
	if err := db.Update(t.Context(), f); err != nil {
		t.Fatalf("update: %v", err)
	}
}

func view(t testing.TB, db *DB, f func(r Reader) error) {
	t.Helper()
	if err := db.View(t.Context(), f); err != nil {
		t.Fatalf("view: %v", err)
	}
}

// seeded returns a generator and prints its seed; STORAGE_TEST_SEED repeats a run.
func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("STORAGE_TEST_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatalf("STORAGE_TEST_SEED: %v", err)
		}
	}
	t.Logf("STORAGE_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// scaled is how many of n rounds of the same kind a test takes: with the race
// detector a fifth, since it needs few to see how goroutines meet. test/run.sh
// runs all of them without it.
func scaled(n int) int {
	if raceDetector {
		return max(1, n/5)
	}
	return n
}

func text(n int, fill string) string { return strings.Repeat(fill, n/len(fill)+1)[:n] }
