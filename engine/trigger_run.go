package engine

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

const (
	triggerEntries = 512              // of the change log that are read in one go
	triggerBatch   = 32               // devices of one transaction
	triggerStore   = 10 * time.Second // how often cursors are stored when nothing came of what was read
	triggerRetry   = time.Second      // after an error, and until there is room for more runs
	triggerReady   = 200 * time.Millisecond
	triggerTime    = time.Minute // how often conditions are looked at that time alone changes
)

// errTriggersChanged ends a transaction whose trigger works no more.
var errTriggersChanged = errors.New("the triggers have changed")

// triggerLoop is the state of runTriggers alone.
type triggerLoop struct {
	hub  *Hub
	list []*trigger
	told time.Time
	// stored is when cursors were stored last, looked when conditions on time were
	// looked at.
	stored, looked time.Time
	// pause says that what there is to do has to wait, whatever comes.
	pause bool
}

// trigger is one that works, ready to be asked.
type trigger struct {
	triggerID
	record  triggerRecord // as it is stored
	at      uint64        // how far it has come in the change log
	event   string        // kind of change; empty: another kind of trigger
	when    *query.Predicate
	where   *query.Predicate // nil: all devices
	applies *query.Predicate // nil: all devices
	reads   map[string]bool  // kinds of changes after which when may hold, or no more
	lost    bool             // entries of the change log are gone that it had not followed
}

// follows reports whether the trigger follows the change log.
func (t *trigger) follows() bool { return t.when != nil || t.event != "" }

// runTriggers starts what the triggers of enabled patterns ask for, until ctx ends:
// it is Run's, and returns when all that it began has stopped. A restored hub that
// was not resumed starts nothing.
func (h *Hub) runTriggers(ctx context.Context) {
	if h.db.Paused() || h.patterns.scripts == nil {
		<-ctx.Done()
		return
	}
	l := &triggerLoop{hub: h}
	h.patterns.triggers.look()
	for ctx.Err() == nil {
		l.pause = false
		wait, err := l.pass(ctx)
		if err != nil && ctx.Err() == nil {
			l.tell(err)
			wait, l.pause = triggerRetry, true
		}
		l.sleep(ctx, wait)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), followRetry)
	defer cancel()
	if err := l.storeCursors(last); err != nil {
		h.log.Warn("how far triggers have come can't be stored; it is found again", slog.Any("error", err))
	}
}

func (l *triggerLoop) tell(err error) {
	if errors.Is(err, errTriggersChanged) || time.Since(l.told) < toldEvery {
		return
	}
	l.told = time.Now()
	l.hub.log.Warn("triggers of patterns are held up; they go on in a moment", slog.Any("error", err))
}

// sleep waits for news, at most for a time; 0 is no wait.
func (l *triggerLoop) sleep(ctx context.Context, wait time.Duration) {
	if wait <= 0 {
		return
	}
	at, follows := l.behind()
	if !follows || l.pause {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-l.hub.patterns.triggers.signal:
			l.hub.patterns.triggers.look()
		}
		return
	}
	// A change of the patterns is an entry of the change log, too.
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := changeLog.Wait(bounded, l.hub.db, at); errors.Is(err, storage.ErrClosed) {
		<-ctx.Done()
	}
}

// behind is how far the trigger has come that is furthest behind.
func (l *triggerLoop) behind() (at uint64, follows bool) {
	for _, t := range l.list {
		if t.follows() && !t.record.Marking && (!follows || t.at < at) {
			at, follows = t.at, true
		}
	}
	return at, follows
}

// pass does what there is to do, and says how long nothing will be.
func (l *triggerLoop) pass(ctx context.Context) (wait time.Duration, err error) {
	select {
	case <-l.hub.patterns.triggers.signal:
		if err := l.sync(ctx); err != nil {
			l.hub.patterns.triggers.look()
			return 0, err
		}
	default:
	}
	wait = jobsTick
	for _, t := range l.list {
		if t.record.Marking || t.lost {
			if !l.hub.QueryProgress().Ready {
				wait = min(wait, triggerReady)
				continue
			}
			if err := l.reconcile(ctx, t); err != nil {
				return 0, err
			}
		}
		if !t.record.Next.IsZero() {
			if err := l.fleetCron(ctx, t); err != nil {
				return 0, err
			}
			wait = min(wait, max(time.Millisecond, time.Until(t.record.Next)))
		}
	}
	timed, err := l.timed(ctx)
	if err != nil {
		return 0, err
	}
	more, pause, err := l.follow(ctx)
	switch {
	case err != nil:
		return 0, err
	case more:
		l.pause = pause > 0
		return pause, nil
	}
	if _, follows := l.behind(); follows {
		wait = min(wait, triggerStore)
		if time.Since(l.stored) >= triggerStore {
			return wait, l.storeCursors(ctx)
		}
	}
	if timed > 0 {
		wait = min(wait, timed)
	}
	return wait, nil
}

// timed looks at conditions that time alone changes, once in a while; it says when
// it does so next, 0 when there is no such condition.
func (l *triggerLoop) timed(ctx context.Context) (wait time.Duration, err error) {
	for _, t := range l.list {
		if t.when == nil || t.record.Marking || !t.when.ReadsTime() && (t.where == nil || !t.where.ReadsTime()) {
			continue
		}
		if since := time.Since(l.looked); since < triggerTime {
			return triggerTime - since, nil
		}
		if !l.hub.QueryProgress().Ready {
			return triggerReady, nil
		}
		if err := l.reconcile(ctx, t); err != nil {
			return 0, err
		}
		wait = triggerTime
	}
	if wait > 0 {
		l.looked = time.Now()
	}
	return wait, nil
}

// relevant reports whether an entry of the change log may make the trigger start a
// run, or ready to do so again.
func (t *trigger) relevant(kind string) bool {
	if t.event != "" {
		return kind == t.event
	}
	switch kind {
	case changeIdentityCreated, changeIdentityUpdated, changeIdentityDeleted, changeModel:
		return true
	}
	return t.reads[kind] || t.reads[""] && slices.Contains([]string{changeTags, changeDesired, changeReported, changeConnected, changeDisconnected, changeConfigured}, kind)
}

// kindsOf are the kinds of changes after which what predicates read may differ; the
// empty one: any.
func kindsOf(list ...*query.Predicate) map[string]bool {
	kinds := map[string]bool{}
	for _, p := range list {
		if p == nil {
			continue
		}
		for _, path := range p.Paths() {
			switch {
			case path[0] == "tags":
				kinds[changeTags] = true
			case path[0] == "properties" && len(path) > 1 && path[1] == "desired":
				kinds[changeDesired] = true
			case path[0] == "properties" && len(path) > 1 && path[1] == "reported":
				kinds[changeReported] = true
			case path[0] == "connectionState":
				kinds[changeConnected], kinds[changeDisconnected] = true, true
			case path[0] == "deviceId":
			default:
				kinds[""] = true
			}
		}
	}
	return kinds
}

// newTrigger makes a trigger ready.
func newTrigger(id triggerID, record triggerRecord, m *pattern.Manifest) (*trigger, error) {
	t := &trigger{triggerID: id, record: record, at: record.Cursor}
	var err error
	parse := func(member, text string) *query.Predicate {
		if text == "" || text == "*" || err != nil {
			return nil
		}
		var p *query.Predicate
		p, err = parsePredicate(member, text)
		return p
	}
	t.when, t.where, t.applies = parse("when", record.Trigger.When), parse("where", record.Trigger.Where), parse("applies", m.Applies)
	switch record.Trigger.Event {
	case pattern.EventConnected:
		t.event = changeConnected
	case pattern.EventDisconnected:
		t.event = changeDisconnected
	case pattern.EventCreated:
		t.event = changeIdentityCreated
	}
	t.reads = kindsOf(t.when, t.where)
	return t, err
}

// holds reports whether the trigger's condition holds of a device; of none that is
// gone.
func (t *trigger) holds(doc query.Value, now time.Time) bool {
	return doc.Kind() != query.Undefined && (t.when == nil || t.when.Match(doc, now)) && (t.where == nil || t.where.Match(doc, now))
}

// storeCursors stores how far triggers have come of which nothing came.
func (l *triggerLoop) storeCursors(ctx context.Context) error {
	l.stored = time.Now()
	var due []*trigger
	for _, t := range l.list {
		if t.follows() && !t.record.Marking && t.at > t.record.Cursor {
			due = append(due, t)
		}
	}
	if len(due) == 0 {
		return nil
	}
	err := l.hub.step(ctx, "trigger.cursor", func(tx *storage.Tx) error {
		for _, t := range due {
			record, err := triggerTable.Get(tx, t.key())
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			record.Cursor = max(record.Cursor, t.at)
			if err := triggerTable.Put(tx, t.key(), record); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, t := range due {
		t.record.Cursor = t.at
	}
	return nil
}

// triggersKeep is the last entry of the change log that every trigger has followed.
func (h *Hub) triggersKeep(ctx context.Context) (keep uint64, err error) {
	err = h.view(ctx, "read triggers", func(r storage.Reader) error {
		keep = ^uint64(0)
		for item, err := range triggerTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			if t := &item.Value.Trigger; cmp.Or(t.When, t.Event) != "" {
				keep = min(keep, item.Value.Cursor)
			}
		}
		return nil
	})
	return keep, err
}
