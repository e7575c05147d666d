package engine

import (
	"context"
	"time"

	"github.com/muster-hub/muster/storage"
)

// runsGoneBatch is how many runs one transaction removes.
const runsGoneBatch = 50

// retainRuns removes runs that ended longer ago than they are kept, and the oldest
// of too many.
func (h *Hub) retainRuns(ctx context.Context, now time.Time) error {
	return h.dropRuns(ctx, now.Add(-h.limits.RunAge), int64(h.limits.RunsKept))
}

func (h *Hub) dropRuns(ctx context.Context, before time.Time, most int64) error {
	for ctx.Err() == nil {
		var list []goneRun
		err := h.view(ctx, "look for old runs", func(r storage.Reader) error {
			list = nil
			n, err := storage.Counter(r, counterRunsEnded)
			if err != nil {
				return err
			}
			for item, err := range runTable.Lookup(r, "ended", storage.Range{}) {
				if err != nil {
					return err
				}
				if n <= most && !item.Value.Ended.Before(before) || len(list) == runsGoneBatch {
					return nil
				}
				n--
				gone, err := findGoneRun(r, item)
				if err != nil {
					return err
				}
				list = append(list, gone)
			}
			return nil
		})
		if err != nil || len(list) == 0 {
			return err
		}
		err = h.step(ctx, "run.remove", func(tx *storage.Tx) error {
			for _, g := range list {
				if err := g.dropTx(h, tx); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		rest := time.NewTimer(retainPause)
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
		}
	}
	return ctx.Err()
}

// goneRun is a run that is to be removed.
type goneRun struct {
	id       string
	revision uint64
	chunks   int
	logs     []int // numbers of the chunks of its logs
	values   []storage.Key
}

func findGoneRun(r storage.Reader, item storage.Item[runRecord]) (g goneRun, err error) {
	if g.id, err = runOfKey(item.Key); err != nil {
		return g, err
	}
	g.revision, g.chunks = item.Value.Revision, len(item.Value.Chunks)
	for n := range item.Value.Logs {
		g.logs = append(g.logs, item.Value.LogFirst+n)
	}
	if item.Value.Keys > 0 {
		g.values, err = firstKeys(runValueTable, r, storage.Range{Prefix: storage.Tuple(valuesOfRun, g.id)}, valuesOfRunMost)
	}
	return g, err
}

// dropTx removes a run with all that is its own, unless an undo began meanwhile.
func (g *goneRun) dropTx(h *Hub, tx *storage.Tx) error {
	record, err := loadRun(tx, g.id)
	if isRunGone(err) {
		return nil
	}
	if err != nil || record.Revision != g.revision {
		return err
	}
	for n := range g.chunks {
		if err := runStepsTable.Delete(tx, runChunkKey(g.id, n)); err != nil {
			return err
		}
	}
	for _, n := range g.logs {
		if err := runLogsTable.Delete(tx, runChunkKey(g.id, n)); err != nil {
			return err
		}
	}
	for _, k := range g.values {
		if err := runValueTable.Delete(tx, k); err != nil {
			return err
		}
	}
	tx.Add(counterRunsEnded, -1)
	h.runs.tally.movedTx(tx, g.id, record.device(), record.place(), tallyPlace{})
	return runTable.Delete(tx, runKey(g.id))
}
