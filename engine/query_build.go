package engine

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

// The columns are built when the hub starts, from a snapshot, while devices
// and reads are served. What changes meanwhile is only noted, and read again
// afterwards: the notes are bounded by the number of rows, however long it takes.
// A hub that was shut down has kept its columns (query_kept.go): then only the
// second half is to be done.
const (
	buildChunk  = 2048            // twins that a goroutine decodes in one go
	buildLast   = 256             // rows that may be read while commits wait
	buildRounds = 8               // from then on twice as many each round, so that it ends
	buildRetry  = 5 * time.Second // after a failure
)

// start begins to build the columns.
func (q *queries) start() {
	ctx, stop := context.WithCancel(context.Background())
	q.stop = stop
	// Nothing was published yet, unless by who opens the hub.
	seq := q.hub.db.Sequence()
	if q.taken.CompareAndSwap(0, seq) {
		q.taking.CompareAndSwap(0, seq)
	}
	q.running.Go(func() { q.build(ctx) })
	q.running.Go(func() { q.following.run(ctx) })
}

// close ends what runs and waits for it.
func (q *queries) close() {
	q.stop()
	q.running.Wait()
}

func (q *queries) build(ctx context.Context) {
	for first := true; ; first = false {
		begun := time.Now()
		var err error
		if !first || !q.restore() {
			err = q.load(ctx)
		}
		if err == nil {
			if q.read != nil {
				q.read()
			}
			err = q.catchUpAll(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			q.hub.log.Info("queries are ready", slog.Int64("rows", q.done.Load()), slog.Duration("took", time.Since(begun).Round(time.Millisecond)))
			return
		}
		q.hub.log.Error("the columns of queries could not be built; it will be tried again", slog.Any("error", err))
		select {
		case <-ctx.Done():
			return
		case <-time.After(buildRetry):
		}
	}
}

// load builds the columns from a snapshot.
func (q *queries) load(ctx context.Context) error {
	q.mu.Lock()
	for i := range q.dirty {
		q.dirty[i] = map[string]struct{}{}
	}
	q.mu.Unlock()
	q.done.Store(0)
	var builders [querySources]*query.Builder
	for i := range builders {
		builders[i] = q.columns[i].Build()
	}
	err := q.hub.db.View(ctx, func(r storage.Reader) error {
		var rows int64
		for _, name := range []string{counterDevices, counterModules} {
			n, err := storage.Counter(r, name)
			if err != nil {
				return err
			}
			rows += n
		}
		q.total.Store(rows)
		return q.loadRows(ctx, r, builders)
	})
	if err != nil {
		return err
	}
	for i := range builders {
		builders[i].Done()
	}
	return nil
}

// catchUpAll takes what has changed since the rows were read, and lets changes in.
func (q *queries) catchUpAll(ctx context.Context) error {
	for round := 0; ; round++ {
		done, err := q.catchUp(ctx, round)
		if done || err != nil {
			return err
		}
	}
}

// loadRows reads all rows of a snapshot with all processors.
func (q *queries) loadRows(ctx context.Context, r storage.Reader, builders [querySources]*query.Builder) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	chunks := make(chan storage.Chunk[twinRecord])
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			var loaders [querySources]*query.Loader
			for i := range loaders {
				loaders[i] = builders[i].Loader()
			}
			for c := range chunks {
				if ctx.Err() != nil {
					continue
				}
				if err := q.loadChunk(r, c, loaders); err != nil {
					cancel(err)
				}
			}
		})
	}
	for c, err := range twinTable.Chunks(r, storage.Range{}, buildChunk) {
		if err != nil {
			cancel(err)
		}
		if ctx.Err() != nil {
			break
		}
		chunks <- c
	}
	close(chunks)
	workers.Wait()
	return context.Cause(ctx)
}

// loadChunk joins a run of twins with their identities and presence.
func (q *queries) loadChunk(r storage.Reader, c storage.Chunk[twinRecord], loaders [querySources]*query.Loader) error {
	first, last := c.Keys()
	from, err := (TwinID{}).fromKey(first)
	if err != nil {
		return err
	}
	to, err := (TwinID{}).fromKey(last)
	if err != nil {
		return err
	}
	ids := map[TwinID]identityRecord{}
	seen := map[TwinID]presenceRecord{}
	configured := map[TwinID]configuredRecord{}
	both := storage.Range{Start: first, End: append(last, 0)}
	err = errors.Join(
		addRange(ids, deviceTable, r, storage.Range{Start: deviceKey(from.DeviceID), End: append(deviceKey(to.DeviceID), 0)}, TwinID.fromDeviceKey),
		addRange(ids, moduleTable, r, both, TwinID.fromKey),
		addRange(seen, presenceTable, r, both, TwinID.fromKey),
		addRange(configured, configuredTable, r, both, TwinID.fromKey),
	)
	if err != nil {
		return err
	}
	epoch := q.hub.db.Epoch().Ordinal
	f := newRow()
	f.values = &query.TwinValues{} // loaders keep nothing
	for item, err := range c.Items() {
		if err != nil {
			return err
		}
		id, err := (TwinID{}).fromKey(item.Key)
		if err != nil {
			return err
		}
		identity, ok := ids[id]
		if !ok {
			continue // half of a row; verify tells it
		}
		item.Value.enter(epoch)
		source, row := id.row()
		f.reset()
		f.whole(q.hub, id, &identity, &item.Value, seen[id], configured[id])
		loaders[source].Add(row, identity.note(), f.list)
	}
	q.done.Add(int64(c.Len()))
	return nil
}

// addRange adds a range of a table to a map.
func addRange[T any](into map[TwinID]T, t *storage.Table[T], r storage.Reader, g storage.Range, id func(TwinID, storage.Key) (TwinID, error)) error {
	for item, err := range t.Scan(r, g) {
		if err != nil {
			return err
		}
		key, err := id(TwinID{}, item.Key)
		if err != nil {
			return err
		}
		into[key] = item.Value
	}
	return nil
}

func (id TwinID) fromDeviceKey(k storage.Key) (TwinID, error) {
	parts, err := k.Parts()
	if err == nil && len(parts) == 1 {
		if d, ok := parts[0].(string); ok {
			return TwinID{DeviceID: d}, nil
		}
	}
	return TwinID{}, errors.New("key is not that of a device")
}

// whole adds all that columns hold of a row.
func (f *rowFields) whole(h *Hub, id TwinID, identity *identityRecord, t *twinRecord, stored presenceRecord, configured configuredRecord) {
	f.identity(id, identity)
	f.twin(t)
	p, connected := h.presenceNow(id)
	if !connected && stored.Activity.After(p.Activity) {
		p = stored
	}
	f.presence(p, connected)
	f.configurations(&configured)
}

// catchUp reads rows again that changed while the columns were built. When
// only a few are left it does so while commits wait, and lets changes in.
func (q *queries) catchUp(ctx context.Context, round int) (done bool, err error) {
	few := buildLast << max(0, round-buildRounds)
	q.mu.Lock()
	changed := q.dirty
	if len(changed[query.Devices])+len(changed[query.Modules]) <= few {
		defer q.mu.Unlock()
		if err := q.readAgain(ctx, changed); err != nil {
			return false, err
		}
		q.dirty = [querySources]map[string]struct{}{}
		q.live = true
		for _, set := range q.following.sets {
			set.Apply(q.hub.db.Sequence(), time.Now(), nil)
		}
		close(q.ready)
		return true, nil
	}
	for i := range q.dirty {
		q.dirty[i] = map[string]struct{}{}
	}
	q.mu.Unlock()
	return false, q.readAgain(ctx, changed)
}

// readAgain puts rows into the columns as they are stored now.
func (q *queries) readAgain(ctx context.Context, rows [querySources]map[string]struct{}) error {
	return q.hub.db.View(ctx, func(r storage.Reader) error {
		for source := range query.Source(querySources) {
			changes := make([]query.Change, 0, len(rows[source]))
			for row := range rows[source] {
				if err := ctx.Err(); err != nil {
					return err
				}
				id := twinIDOfRow(row)
				identity, t, err := q.hub.loadTwin(r, id)
				if isGone(err) {
					changes = append(changes, query.Change{ID: row, Gone: true})
					continue
				}
				if err != nil {
					return err
				}
				p, err := presenceTable.Get(r, id.key())
				if err != nil && !errors.Is(err, storage.ErrNotFound) {
					return err
				}
				configured, err := q.hub.configured(r, id)
				if err != nil {
					return err
				}
				f := newRow()
				f.whole(q.hub, id, &identity, &t, p, configured)
				changes = append(changes, query.Change{ID: row, Replace: true, Fields: f.list, Noted: true, Note: identity.note()})
			}
			q.columns[source].Apply(changes)
		}
		return nil
	})
}

// QueryProgress says how far the columns of queries are built.
type QueryProgress struct {
	Ready bool
	Done  int64 // rows built
	Total int64 // rows that there were to build; 0 until that is known
}

// QueryProgress returns whether queries are answered, and how much of their
// columns is built otherwise. It is cheap.
func (h *Hub) QueryProgress() QueryProgress {
	p := QueryProgress{Done: h.queries.done.Load(), Total: h.queries.total.Load()}
	select {
	case <-h.queries.ready:
		p.Ready = true
	default:
	}
	return p
}
