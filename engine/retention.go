package engine

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/muster-hub/muster/storage"
)

// Bounds of the change log: at least a day, and until every webhook that is
// enabled, the configurations and the triggers of patterns have passed, within a
// size.
const (
	changeLogAge   = 24 * time.Hour
	changeLogBytes = 1 << 30 // or a tenth of the disk: a small one must not be full of it before a day is over
	retainBatch    = 500
	retainPause    = 50 * time.Millisecond // between two batches
)

// retain drops history entries, change-log entries and kept answers that have
// passed their age. It walks in batches, each a short transaction, and rests
// between them, so that a sweep over a large store leaves the processor to
// those who wait.
func (h *Hub) retain(ctx context.Context, now time.Time) error {
	keep, err := h.webhooksKeep(ctx)
	for _, follower := range []func(context.Context) (uint64, error){h.configurationsKeep, h.runsKeep, h.triggersKeep} {
		if err != nil {
			break
		}
		var followed uint64
		followed, err = follower(ctx)
		keep = min(keep, followed)
	}
	if err == nil {
		_, err = changeLog.Trim(ctx, h.db, storage.TrimPolicy{Before: now.Add(-changeLogAge), Keep: keep})
	}
	most, berr := h.db.Share(changeLogBytes)
	if berr == nil {
		_, berr = changeLog.Trim(ctx, h.db, storage.TrimPolicy{MaxBytes: most, Keep: math.MaxUint64})
	}
	_, merr := h.db.Messages().Trim(now.Add(-h.limits.MessageAge), 0)
	return errors.Join(err, berr, merr, h.retainHistory(ctx, now), h.retainAnswers(ctx, now), h.retainIdentityJobs(ctx), h.retainRuns(ctx, now))
}

func (h *Hub) retainHistory(ctx context.Context, now time.Time) error {
	var after storage.Key
	for {
		var old []storage.Key
		seen := 0
		err := h.db.View(ctx, func(r storage.Reader) error {
			for item, err := range historyTable.Scan(r, storage.Range{After: after}) {
				if err != nil {
					return err
				}
				after = item.Key
				if h.historyExpired(item, now) {
					old = append(old, after)
				}
				if seen++; seen >= 10*retainBatch || len(old) >= retainBatch {
					return nil
				}
			}
			after = nil
			return nil
		})
		if err != nil {
			return err
		}
		if len(old) > 0 {
			err := h.db.Update(ctx, func(tx *storage.Tx) error {
				for _, k := range old {
					if err := historyTable.Delete(tx, k); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		if after == nil {
			return nil
		}
		rest := time.NewTimer(retainPause)
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
			return ctx.Err()
		}
	}
}

func (h *Hub) historyExpired(item storage.Item[historyRecord], now time.Time) bool {
	parts, err := item.Key.Parts()
	if err != nil || len(parts) != 5 {
		return false
	}
	n, _ := parts[3].(uint64)
	_, age := h.limits.history(historyNumber(n))
	return now.Sub(item.Value.Time) > age
}
