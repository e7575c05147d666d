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

// keptColumns counts the changes of what the columns hold of the same records: a
// new property, another path. It needs to change for builds that have no revision.
const keptColumns = 1

// keptVersion names what the columns of this build hold. Another build may make
// others of the same records, so each revision has its own.
func keptVersion(version string) string { return fmt.Sprintf("columns %d of %s", keptColumns, version) }

// keep writes the columns when the store closes, for the next start. No session is
// left then, and all that was known of activity is stored.
func (q *queries) keep(w io.Writer) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.live {
		return errors.New("the columns of queries were not built yet")
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
	err := q.hub.db.Kept(keptVersion(q.hub.about.version), func(r *bufio.Reader) error {
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
