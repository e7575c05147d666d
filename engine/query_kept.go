package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

// keptBy names whose columns are kept, and taken over: another build may make
// others of the same records.
func keptBy(build string) string { return "columns of " + build }

// keep writes the columns when the store closes, for the next start. They must be
// what a build from the store would be: whole, without a session, and with no time
// of activity that could not be stored.
func (q *queries) keep(w io.Writer) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.live {
		return errors.New("the columns of queries were not built yet")
	}
	if n := uint64(q.hub.count.presenceLost.Load()) + q.hub.db.Stats().DroppedSubmits; n > 0 {
		return fmt.Errorf("%d changes of presence could not be stored", n)
	}
	for _, c := range q.columns {
		if c.Has(rowPaths.connectionState, query.StringValue(stateConnected)) {
			return errors.New("a session has not ended in the columns of queries")
		}
		if err := c.Keep(w); err != nil {
			return err
		}
	}
	return nil
}

// restore takes the columns that the run before has kept, and reports whether it
// did. What has changed since the store was opened is in dirty.
func (q *queries) restore() bool {
	if q.made == "" {
		return false
	}
	err := q.hub.db.Kept(keptBy(q.made), func(r *bufio.Reader) error {
		for _, c := range q.columns {
			if err := c.Restore(r); err != nil {
				return err
			}
			q.total.Add(int64(c.Stats().Rows))
		}
		return nil
	})
	if err == nil {
		q.done.Store(q.total.Load())
		return true
	}
	level := slog.LevelWarn
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrClosed) {
		level = slog.LevelDebug
	}
	q.hub.log.Log(context.Background(), level, "the columns of queries are built from all twins", slog.Any("reason", err))
	return false
}
