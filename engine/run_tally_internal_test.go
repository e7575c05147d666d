package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// TestRunTally counts runs that move, come and go at the same time, by the tally and
// one by one: once all stand still, both are the same, whenever the tally was made.
func TestRunTally(t *testing.T) {
	h := idleHub(t)
	move := func(r *rand.Rand) {
		id := fmt.Sprintf("r-%02d", r.IntN(60))
		if r.IntN(8) == 0 {
			err := h.step(t.Context(), "run.drop", func(tx *storage.Tx) error {
				record, err := loadRun(tx, id)
				if isRunGone(err) {
					return nil
				}
				if err != nil {
					return err
				}
				return (&goneRun{id: id, revision: record.Revision}).dropTx(h, tx)
			})
			if err != nil {
				t.Error(err)
			}
			return
		}
		putRun(t, h, id, func(x *runInTx) {
			if x.was == "" {
				x.Pattern, x.Device = fmt.Sprint("p", r.IntN(2)), id
				if r.IntN(2) == 0 {
					x.Job = &queuedJob{Job: fmt.Sprint("j", r.IntN(3)), Run: 1}
				}
			}
			x.State.Report.Phase, x.State.Steps = fmt.Sprint("phase ", r.IntN(3)), nil
			x.State.State = []pattern.State{pattern.Ready, pattern.Waiting, pattern.Waiting, pattern.Canceled}[r.IntN(4)]
			if x.State.State == pattern.Waiting {
				x.State.Steps = []pattern.Step{{Op: []string{opCall, opWait, opApprove}[r.IntN(3)], Args: []byte(`{}`), Open: true, Due: time.Now().Add(time.Hour), Tries: 1}}
			}
		})
	}
	filters := []RunFilter{
		{}, {Job: "j1"}, {Job: "none"}, {Pattern: "p1"}, {Pattern: "p0", Job: "j2"}, {Active: true}, {States: []pattern.State{pattern.Canceled}, Job: "j0"},
	}
	for round := range 12 {
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(w)))
				for range 40 {
					if move(r); r.IntN(10) == 0 {
						if _, err := h.RunCounts(t.Context(), everything, filters[r.IntN(len(filters))]); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
		for _, f := range filters {
			want, err := h.scanRuns(context.Background(), &f)
			if err != nil {
				t.Fatal(err)
			}
			got, ok, err := h.tallied(context.Background(), &f)
			if !ok || err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("round %d, %+v: the tally has %v, %v, %v, one by one there are %v", round, f, got, ok, err, want)
			}
		}
		switch round % 3 {
		case 0: // it is made again in the middle of the next round
			h.runs.tally.mu.Lock()
			h.runs.tally.forgetLocked()
			h.runs.tally.mu.Unlock()
		case 1: // nobody asked for long
			h.runs.tally.mu.Lock()
			h.runs.tally.asked = time.Now().Add(-2 * tallyIdle)
			h.runs.tally.mu.Unlock()
			for h.runs.tally.kept() {
				move(rand.New(rand.NewPCG(rand.Uint64(), 3)))
			}
		}
	}
}

func (n *runTally) kept() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.places != nil
}

// TestRunTallyFull: with too many places runs are counted one by one.
func TestRunTallyFull(t *testing.T) {
	h := idleHub(t)
	for i := range 3 {
		putRun(t, h, fmt.Sprint("r-", i), func(r *runInTx) { r.State.State, r.State.Report.Phase = pattern.Canceled, fmt.Sprint(i) })
	}
	if _, err := h.RunCounts(t.Context(), everything, RunFilter{}); err != nil || !h.runs.tally.kept() {
		t.Fatal("it is not kept:", err)
	}
	h.runs.tally.places.n += tallyMost
	putRun(t, h, "r-3", func(r *runInTx) { r.State.State = pattern.Ready })
	if h.runs.tally.kept() {
		t.Error("too many places are kept")
	}
	h.runs.tally.vain = time.Now()
	list, err := h.RunCounts(t.Context(), everything, RunFilter{})
	if err != nil || len(list) != 4 || h.runs.tally.kept() {
		t.Errorf("%v, %v", list, err)
	}
}

// BenchmarkRunCounts counts 20,000 runs of a job whose devices are awaited, by the
// tally and one by one.
func BenchmarkRunCounts(b *testing.B) {
	h, err := Open(b.Context(), Options{Storage: storage.Options{Dir: b.TempDir()}})
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close() //nolint:errcheck // a benchmark
	for part := range 200 {
		err := h.step(b.Context(), "run.test", h.inRuns(func(x *runTx) error {
			for i := range 100 {
				id := fmt.Sprintf("r-%05d", part*100+i)
				r := &runInTx{id: id, whole: true, runRecord: runRecord{Pattern: "p", Version: "1.0.0", Device: id, Job: &queuedJob{Job: "j", Run: 1}, Created: x.Now(), Started: x.Now()}}
				r.State.State = pattern.Waiting
				r.State.Steps = []pattern.Step{{Op: opCall, Args: []byte(`{"method":"reboot"}`), Open: true, Due: x.Now().Add(time.Hour), Tries: 1}}
				if err := x.store(r); err != nil {
					return err
				}
			}
			return nil
		}))
		if err != nil {
			b.Fatal(err)
		}
	}
	f := RunFilter{Job: "j"}
	b.Run("one by one", func(b *testing.B) {
		for b.Loop() {
			if _, err := h.scanRuns(b.Context(), &f); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("tally", func(b *testing.B) {
		for b.Loop() {
			if _, ok, err := h.tallied(b.Context(), &f); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
}
