package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Each bucket ends where the next begins, and none is wider than a thirty-second.
func TestHistogramBuckets(t *testing.T) {
	last := 0
	for _, ns := range []uint64{0, 1, 63, 64, 65, 127, 128, 1000, 999_999, 1 << 30, 1<<40 + 12345} {
		i := bucketOf(ns)
		if end := bucketEnd(i); end < ns || float64(end-ns) > float64(ns)/32+1 {
			t.Errorf("%d ns is in a bucket that ends at %d", ns, end)
		}
		if i < last {
			t.Errorf("%d ns is in bucket %d, below that of a shorter time", ns, i)
		}
		if last = i; bucketOf(bucketEnd(i)) != i || bucketOf(bucketEnd(i)+1) != i+1 {
			t.Errorf("bucket %d does not end at %d", i, bucketEnd(i))
		}
	}
}

func TestHistogramQuantiles(t *testing.T) {
	var h histogram
	for i := range 1000 {
		h.add(time.Duration(i+1) * time.Millisecond)
	}
	before := h.snapshot()
	near := func(what string, got, want time.Duration) {
		if got < want || got > want+want/25 {
			t.Errorf("%s is %s, expected about %s", what, got, want)
		}
	}
	s := h.summary()
	near("p50", s.P50, 500*time.Millisecond)
	near("p99", s.P99, 990*time.Millisecond)
	near("max", s.Max, time.Second)
	h.add(2 * time.Millisecond)
	if s := h.since(before); s.Count != 1 || s.P50 > 3*time.Millisecond {
		t.Errorf("since a snapshot: %+v", s)
	}
}

func TestApply(t *testing.T) {
	doc := newDocument(7)
	if len(doc) != documentSize || !json.Valid(doc) {
		t.Fatalf("a document has %d bytes, or is no JSON: %s", len(doc), doc)
	}
	before := batteryOf(doc)
	c := change{document: 7, battery: 42, uptime: 1_234_567_890, reading: 33}
	r := c.apply(doc, time.Unix(0, 0).UTC())
	for name, b := range map[string][]byte{"document": r.document, "history": r.history, "log": r.log} {
		if !json.Valid(b) {
			t.Errorf("the %s is no JSON: %s", name, b)
		}
	}
	if len(r.document) != documentSize || versionOf(r.document) != firstVersion+1 || batteryOf(r.document) != 42 || r.battery != [2]int{before, 42} {
		t.Errorf("the change was not applied: %+v", r)
	}
}

// Every embedded store does the same work and loses none of it.
func TestStores(t *testing.T) {
	const documents, updates = 50, 200
	for _, name := range []string{"muster", "pebble", "badger"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := openStore(name, dir, 64<<20, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.load(documents); err != nil {
				t.Fatal(err)
			}
			for range updates {
				if err := s.update(t.Context(), randomChange(documents)); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.close(); err != nil {
				t.Fatal(err)
			}
			if s, err = openStore(name, dir, 64<<20, 0); err != nil {
				t.Fatal(err)
			}
			defer s.close()
			sum, err := s.versions()
			if err != nil || sum != documents*firstVersion+updates {
				t.Errorf("versions add up to %d, %v", sum, err)
			}
			rows, bytes, err := s.readable()
			if err != nil || rows != 2*documents+2*updates || bytes < documents*documentSize {
				t.Errorf("%d rows of %d bytes, %v", rows, bytes, err)
			}
		})
	}
}

// An operation that stalls delays those that are due behind it, and that shows.
func TestOfferedLoadCountsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		r, err := loadPlan{workers: 1, duration: time.Second, rate: 100}.run(t.Context(), func(ctx context.Context, _ int) error {
			if n.Add(1) == 10 {
				pause(ctx, 200*time.Millisecond)
			}
			return nil
		})
		if err != nil || r.Latency.Count < 100 || r.Latency.P99 < 150*time.Millisecond {
			t.Errorf("%+v, %v", r.Latency, err)
		}
	})
}

func TestLoadEndsAtTheFirstError(t *testing.T) {
	broken := errors.New("broken")
	_, err := loadPlan{workers: 4, duration: time.Hour}.run(t.Context(), func(context.Context, int) error { return broken })
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestMedianIsTheLowerOfTwo(t *testing.T) {
	list := []outcome{{PerSecond: 3}, {PerSecond: 1}, {PerSecond: 2}, {PerSecond: 4}}
	if m := medianOf(list); m.PerSecond != 2 {
		t.Errorf("the median is %v", m.PerSecond)
	}
}

// An import has a line for each identity, and whoever stops reading ends it.
func TestImportLines(t *testing.T) {
	r, size := importLines(250)
	text, err := io.ReadAll(r)
	if err != nil || bytes.Count(text, []byte{'\n'}) != 250 || size() != int64(len(text)) {
		t.Fatalf("%d lines, %d bytes, %d read, %v", bytes.Count(text, []byte{'\n'}), size(), len(text), err)
	}
	var item struct{ ID, ImportMode string }
	if err := json.Unmarshal(text[bytes.LastIndexByte(text[:len(text)-1], '\n')+1:], &item); err != nil || item.ID != "device-249" || item.ImportMode != "create" {
		t.Errorf("the last line is %+v, %v", item, err)
	}
	r, _ = importLines(1_000_000)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
