package engine

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/muster-hub/muster/engine/twin"
	"github.com/muster-hub/muster/storage"
)

// cursorConfigurations is how far configurations have followed the change log.
const cursorConfigurations = "configurations"

const (
	configurationEntries = 512                    // entries of the change log that are read in one go
	followBatch          = 50                     // twins of one transaction
	followSides          = 4                      // transactions at once
	followReady          = 200 * time.Millisecond // how often it is looked whether queries are ready
)

// configurationFollower keeps twins in step with configurations. One goroutine
// owns it. All that it does can be done again: it looks at twins, and changes those
// that are not as they should be.
type configurationFollower struct {
	hub    *Hub
	set    *configurationSet
	at     uint64 // in the change log
	stored uint64 // the cursor
	when   time.Time
}

// errConfigurationsChanged ends a transaction that was begun with another set.
var errConfigurationsChanged = errors.New("the configurations have changed")

// runConfigurations keeps twins in step with configurations until ctx ends.
func (h *Hub) runConfigurations(ctx context.Context) {
	if h.db.Paused() { // a restored hub changes no twin until it is resumed, which a start comes after
		<-ctx.Done()
		return
	}
	f := &configurationFollower{hub: h}
	follow := func(ctx context.Context) error {
		err := f.follow(ctx)
		if errors.Is(err, errConfigurationsChanged) {
			return nil // it begins anew
		}
		return err
	}
	h.keepFollowing(ctx, "configurations", follow, f.store)
}

// follow does what there is to do, and waits until there is more.
func (f *configurationFollower) follow(ctx context.Context) error {
	h := f.hub
	changed := h.configurations.next()
	id, spread, busy, err := f.begin(ctx)
	if err != nil {
		return err
	}
	if err := f.rollouts(ctx); err != nil {
		return err
	}
	if len(f.set.list) == 0 && !busy {
		select {
		case <-changed:
		case <-ctx.Done():
		}
		return nil
	}
	more, err := f.changes(ctx)
	if err != nil || more {
		return err
	}
	wait, cancel := ctx, context.CancelFunc(func() {})
	if busy {
		if h.QueryProgress().Ready {
			return f.spread(ctx, id, spread)
		}
		wait, cancel = context.WithTimeout(ctx, followReady)
	} else if f.at != f.stored {
		wait, cancel = context.WithTimeout(ctx, followStore)
	}
	defer cancel()
	err = h.awaitChange(ctx, wait, f.at)
	if time.Since(f.when) >= followStore {
		return errors.Join(err, f.store(ctx))
	}
	return err
}

// begin takes the set and the place as they are stored, and the configuration
// whose twins are to be looked at first.
func (f *configurationFollower) begin(ctx context.Context) (id string, s spreadRecord, busy bool, err error) {
	h := f.hub
	var lost bool
	err = h.view(ctx, "read configurations", func(r storage.Reader) error {
		id, s, busy, lost = "", spreadRecord{}, false, false
		if f.set, err = h.configurationSetAt(r); err != nil {
			return err
		}
		for item, err := range spreadTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			other, err := configurationOfKey(item.Key)
			if err != nil {
				return err
			}
			if !busy || item.Value.Started.Before(s.Started) {
				id, s, busy = other, item.Value, true
			}
		}
		stored, err := storage.Cursor(r, cursorConfigurations)
		if err != nil {
			return err
		}
		if f.at < stored || f.stored != stored {
			f.at, f.stored = max(stored, f.at), stored
		}
		first, _, err := changeLog.Bounds(r)
		lost = first > f.at+1
		return err
	})
	if err == nil && lost && len(f.set.list) > 0 {
		return "", s, false, errors.Join(f.beginAgain(ctx), errConfigurationsChanged)
	}
	return id, s, busy, err
}

// beginAgain looks at all twins, since entries of the change log are gone that
// were not read: its size is bounded, whoever reads it.
func (f *configurationFollower) beginAgain(ctx context.Context) error {
	f.hub.log.Warn("changes were dropped before configurations had followed them; all twins are looked at")
	err := f.hub.step(ctx, "configuration.again", func(tx *storage.Tx) error {
		_, last, err := changeLog.Bounds(tx)
		if err != nil {
			return err
		}
		for _, m := range f.set.list {
			if err := spreadTable.Put(tx, configurationKey(m.id), spreadRecord{Started: tx.Now()}); err != nil {
				return err
			}
		}
		tx.SetCursor(cursorConfigurations, last)
		return nil
	})
	if err == nil {
		f.at = 0 // what is stored counts
	}
	return err
}

// changes follows the next entries of the change log; more says that there may be
// others behind them.
func (f *configurationFollower) changes(ctx context.Context) (more bool, err error) {
	var ids []TwinID
	at, read := f.at, 0
	err = f.hub.view(ctx, "read changes", func(r storage.Reader) error {
		ids, at, read = nil, f.at, 0
		seen := map[TwinID]bool{}
		for e, err := range changeLog.Read(r, f.at) {
			if err != nil {
				return err
			}
			at = e.Position
			read++
			if id, device, ok := f.concerns(e.Data); ok {
				list := []TwinID{id}
				if device && f.set.edge {
					if list, err = edgeModules(r, list, id); err != nil {
						return err
					}
				}
				for _, id := range list {
					if !seen[id] {
						seen[id] = true
						ids = append(ids, id)
					}
				}
			}
			if read == configurationEntries || len(ids) >= configurationEntries {
				break
			}
		}
		return nil
	})
	if err != nil || read == 0 {
		return false, err
	}
	due, err := f.differing(ctx, ids)
	if err != nil {
		return false, err
	}
	if len(due) > 0 {
		err = f.apply(ctx, due, "configuration.follow", func(tx *storage.Tx) error {
			tx.SetCursor(cursorConfigurations, at)
			return nil
		})
		if err != nil {
			return false, err
		}
		f.stored, f.when = at, time.Now()
	}
	f.at = at
	return read == configurationEntries, nil
}

// concerns reports whether an entry of the change log may change what a twin gets
// from configurations. device says that its modules are concerned, too.
func (f *configurationFollower) concerns(entry []byte) (id TwinID, device, ok bool) {
	c, err := peekChange(entry)
	if err != nil {
		f.hub.log.Error("an entry of the change log can't be read", slog.Any("error", err))
		return id, false, false
	}
	id = TwinID{c.device, c.module}
	switch c.kind {
	case changeIdentityCreated, changeIdentityUpdated:
		return id, id.ModuleID == "", true
	case changeTags:
		return id, id.ModuleID == "", f.set.paths().reads[0].touchedBy(c.data)
	case changeReported:
		return id, id.ModuleID == "", f.set.paths().reads[1].touchedBy(c.data)
	case changeDesired:
		// What the hub itself has written is as it should be.
		return id, false, !strings.HasPrefix(c.cause, causeConfiguration) && f.set.paths().sets.touchedBy(c.data)
	}
	return id, false, false
}

// touchedBy is touched for the text of a patch.
func (t *pathTree) touchedBy(patch []byte) bool {
	if t.empty() {
		return false
	}
	if !t.end && len(t.names) <= namesMost {
		// Most changes are of something else, which is seen without reading them.
		named := func(name []byte) bool { return bytes.Contains(patch, name) }
		if !slices.ContainsFunc(t.names, named) && !bytes.Equal(patch, []byte("null")) {
			return false
		}
	}
	p, err := twin.ParsePatch(patch, 0)
	return err != nil || p.IsNull() || t.touched(p.View())
}

// configure brings twins to what their configurations make of them. then is part
// of the last transaction, which comes when all others are durable.
func (f *configurationFollower) configure(ctx context.Context, ids []TwinID, step string, then func(tx *storage.Tx) error) error {
	due, err := f.differing(ctx, ids)
	if err != nil {
		return err
	}
	return f.apply(ctx, due, step, then)
}

// differing returns those twins that are not as they should be: most are, and a
// look is cheaper than a transaction.
func (f *configurationFollower) differing(ctx context.Context, ids []TwinID) (due []TwinID, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	now := time.Now()
	err = f.hub.view(ctx, "look at twins", func(r storage.Reader) error {
		due = nil
		for _, id := range ids {
			if err := ctx.Err(); err != nil {
				return err
			}
			e, err := f.hub.evaluate(r, f.set, id, now)
			if isGone(err) {
				continue
			}
			if err != nil {
				return err
			}
			if e.changes() {
				due = append(due, id)
			}
		}
		return nil
	})
	return due, err
}

// apply changes twins in several transactions side by side, and then the last ones
// with what belongs to all of them.
func (f *configurationFollower) apply(ctx context.Context, due []TwinID, step string, then func(tx *storage.Tx) error) error {
	var last []TwinID
	if n := len(due); n > 0 {
		from := (n - 1) / followBatch * followBatch
		due, last = due[:from], due[from:]
	}
	errs := make([]error, followSides)
	var wg sync.WaitGroup
	for w := range min(followSides, (len(due)+followBatch-1)/followBatch) {
		wg.Go(func() {
			for from := w * followBatch; from < len(due) && errs[w] == nil; from += followSides * followBatch {
				errs[w] = f.transaction(ctx, due[from:min(from+followBatch, len(due))], step, nil)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return f.transaction(ctx, last, step, then)
}

func (f *configurationFollower) transaction(ctx context.Context, ids []TwinID, step string, then func(tx *storage.Tx) error) error {
	return f.hub.step(ctx, step, func(tx *storage.Tx) error {
		version, err := storage.Counter(tx, counterConfigurationSet)
		if err != nil {
			return err
		}
		if version != f.set.version {
			return errConfigurationsChanged
		}
		for _, id := range ids {
			if _, err := f.hub.configureTx(tx, f.set, id, ""); err != nil {
				return err
			}
		}
		if then != nil {
			return then(tx)
		}
		return nil
	})
}

// store stores how far the change log was followed.
func (f *configurationFollower) store(ctx context.Context) error {
	if f.at == f.stored || f.set == nil || len(f.set.list) == 0 {
		return nil
	}
	at := f.at
	err := f.hub.step(ctx, "configuration.cursor", func(tx *storage.Tx) error {
		tx.SetCursor(cursorConfigurations, at)
		return nil
	})
	if err == nil {
		f.stored, f.when = at, time.Now()
	}
	return err
}

// configurationsKeep is the last entry of the change log that configurations have
// followed.
func (h *Hub) configurationsKeep(ctx context.Context) (keep uint64, err error) {
	keep = math.MaxUint64
	err = h.view(ctx, "read configurations", func(r storage.Reader) error {
		keep = math.MaxUint64
		for _, err := range configurationTable.Scan(r, storage.Range{}) {
			if err == nil {
				keep, err = storage.Cursor(r, cursorConfigurations)
			}
			return err
		}
		return nil
	})
	return keep, err
}
