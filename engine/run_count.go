package engine

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// RunCount says how many runs stand alike: the fleet's view of a pattern.
type RunCount struct {
	Pattern string
	Version string
	State   pattern.State
	Phase   string // that the program told; empty: none
	Step    string // operation for which they wait, such as "dev.call", or StepConnect; empty: none
	Count   int64
}

// StepConnect is the step of runs whose call can't be sent since their device is
// not there.
const StepConnect = "connect"

// runCountsMost bounds how many different counts there may be: phases are texts of
// programs. What is beyond is counted together, without a phase.
const runCountsMost = 1000

// RunCounts counts the runs of a filter by how they stand: the most recent state of
// each, in the order of pattern, version, state and phase. CodeQueryBudget when
// there are more than can be counted in the time of a query. It needs
// ServiceConnect.
func (h *Hub) RunCounts(ctx context.Context, c Caller, f RunFilter) ([]RunCount, error) {
	if err := h.authorize(ctx, c, opRunRead, "*"); err != nil {
		return nil, err
	}
	leave, err := h.queries.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	counts, err := h.countRuns(ctx, &f)
	if err != nil {
		return nil, err
	}
	list := make([]RunCount, 0, len(counts))
	for one, n := range counts {
		one.Count = n
		list = append(list, one)
	}
	states := pattern.States()
	slices.SortFunc(list, func(a, b RunCount) int {
		return cmp.Or(cmp.Compare(a.Pattern, b.Pattern), pattern.CompareVersions(a.Version, b.Version), cmp.Compare(a.Version, b.Version),
			cmp.Compare(slices.Index(states, a.State), slices.Index(states, b.State)), cmp.Compare(a.Phase, b.Phase), cmp.Compare(a.Step, b.Step))
	})
	return list, nil
}

// countRuns counts the runs of a filter: by the tally, or those of a device and
// those that ask somebody, which are few, one by one.
func (h *Hub) countRuns(ctx context.Context, f *RunFilter) (map[RunCount]int64, error) {
	if f.Device == (TwinID{}) && !f.Asks {
		counts, ok, err := h.tallied(ctx, f)
		if ok || err != nil {
			return counts, err
		}
	}
	return h.scanRuns(ctx, f)
}

// scanRuns counts the runs of a filter one by one.
func (h *Hub) scanRuns(ctx context.Context, f *RunFilter) (map[RunCount]int64, error) {
	begun := time.Now()
	counts := map[RunCount]int64{}
	err := h.view(ctx, "count runs", func(r storage.Reader) error {
		clear(counts)
		seen := 0
		return eachRunOf(r, f, func(record *runRecord) error {
			if seen++; seen%1000 == 0 && (ctx.Err() != nil || time.Since(begun) > h.limits.QueryTime) {
				return cmp.Or(ctx.Err(), runsNotCounted(h, seen))
			}
			one := record.place().RunCount
			if one.Step == opCall && h.callable(record.device()) == nil {
				one.Step = StepConnect
			}
			addCount(counts, one, 1)
			return nil
		})
	})
	return counts, err
}

// eachRunOf calls f for the runs of a filter, by the narrowest way.
func eachRunOf(r storage.Reader, f *RunFilter, visit func(record *runRecord) error) error {
	look := func(item storage.Item[runRecord], err error) error {
		if err != nil || !f.wants(&item.Value) {
			return err
		}
		return visit(&item.Value)
	}
	index, prefix := "", storage.Key(nil)
	switch {
	case f.Device != (TwinID{}):
		index, prefix = "device", storage.Tuple(f.Device.DeviceID, f.Device.ModuleID)
	case f.Job != "":
		index, prefix = "job", storage.Tuple(f.Job)
	case f.Asks:
		index, prefix = "asks", storage.Tuple(asksPerson)
	case f.Pattern != "":
		index, prefix = "pattern", storage.Tuple(f.Pattern)
	}
	if index == "" && (f.Active || len(f.States) > 0) {
		for _, s := range f.states() {
			for item, err := range runTable.Lookup(r, "state", storage.Range{Prefix: storage.Tuple(string(s))}) {
				if err := look(item, err); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if index == "" {
		for item, err := range runTable.Scan(r, storage.Range{}) {
			if err := look(item, err); err != nil {
				return err
			}
		}
		return nil
	}
	for item, err := range runTable.Lookup(r, index, storage.Range{Prefix: prefix}) {
		if err := look(item, err); err != nil {
			return err
		}
	}
	return nil
}

// states are the states that a filter lets through.
func (f *RunFilter) states() []pattern.State {
	return slices.DeleteFunc(pattern.States(), func(s pattern.State) bool {
		return f.Active && s.Final() || len(f.States) > 0 && !slices.Contains(f.States, s)
	})
}
