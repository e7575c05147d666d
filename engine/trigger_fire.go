package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

// candidate is a device of which a trigger may have to start a run, or of which its
// condition holds no more.
type candidate struct {
	id       TwinID
	position uint64          // of the entry that says so; 0: none does
	kind     string          // of the entry
	twin     json.RawMessage // as it was after the entry; nil: it does not say
	holds    bool            // the condition, then
}

// logged is an entry of the change log of a device.
type logged struct {
	candidate
	data []byte // the whole entry, of which the twin is read when it is needed
}

// follow follows the next entries of the change log; more says that there may be
// others, after a pause.
func (l *triggerLoop) follow(ctx context.Context) (more bool, pause time.Duration, err error) {
	at, follows := l.behind()
	if !follows {
		return false, 0, nil
	}
	var entries []logged
	last, read := at, 0
	err = l.hub.view(ctx, "read changes", func(r storage.Reader) error {
		entries, last, read = entries[:0], at, 0
		first, _, err := changeLog.Bounds(r)
		if err != nil {
			return err
		}
		for _, t := range l.list {
			if t.follows() && !t.record.Marking && t.at+1 < first {
				t.lost, t.at = true, first-1
			}
		}
		for e, err := range changeLog.Read(r, at) {
			if err != nil {
				return err
			}
			last = e.Position
			c, err := peekChange(e.Data)
			if err != nil {
				l.hub.log.Error("an entry of the change log can't be read", slog.Any("error", err))
			} else if c.device != "" && c.module == "" {
				entries = append(entries, logged{candidate{id: TwinID{DeviceID: c.device}, position: e.Position, kind: c.kind}, bytes.Clone(e.Data)})
			}
			if read++; read == triggerEntries {
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return false, 0, err
	}
	for _, t := range l.list {
		if !t.follows() || t.record.Marking || t.at >= last {
			continue
		}
		var list []candidate
		for i := range entries {
			e := &entries[i]
			if e.position <= t.at || !t.relevant(e.kind) {
				continue
			}
			if t.when != nil && e.data != nil {
				var r changeRecord
				if json.Unmarshal(e.data, &r) == nil {
					e.twin = r.Twin
				}
				e.data = nil
			}
			list = append(list, e.candidate)
		}
		if list, err = l.differing(ctx, t, list); err != nil {
			return false, 0, err
		}
		wait, err := l.fire(ctx, t, list, last)
		if err != nil || wait > 0 {
			return true, wait, err
		}
	}
	return read == triggerEntries, 0, nil
}

// fire does what candidates ask for, and moves the trigger's place with it, up to
// last when all is done. wait says that the rest has to wait for its turn.
func (l *triggerLoop) fire(ctx context.Context, t *trigger, list []candidate, last uint64) (wait time.Duration, err error) {
	limit := l.hub.patterns.triggers.rate
	for len(list) > 0 {
		now := time.Now()
		tokens := int(limit.TokensAt(now))
		if tokens < 1 {
			return max(time.Millisecond, time.Duration((1-limit.TokensAt(now))/float64(limit.Limit())*float64(time.Second))), nil
		}
		some := list[:min(len(list), triggerBatch, tokens)]
		list = list[len(some):]
		// Behind the last one of this batch nothing is done yet; all before it is.
		place := some[len(some)-1].position
		if len(list) == 0 {
			place = last
		}
		started, err := l.fireSome(ctx, t, some, place)
		if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeTooManyRuns {
			return triggerRetry, nil
		}
		if err != nil {
			return 0, err
		}
		if started > 0 {
			limit.ReserveN(now, started)
		}
		t.at = max(t.at, place)
	}
	t.at = max(t.at, last)
	return 0, nil
}

// differing leaves those candidates for which there is something to do: most
// changes change nothing, and a look is cheaper than a transaction. A condition is
// compared with the device as the entry left it, as far as the entry says that, and
// else as it is now: one that ceases to hold and holds again between two looks, which
// is some milliseconds, has not ceased.
func (l *triggerLoop) differing(ctx context.Context, t *trigger, list []candidate) (due []candidate, err error) {
	if len(list) == 0 {
		return nil, nil
	}
	now := time.Now()
	type known struct {
		doc     query.Value // as it is now
		matches bool
	}
	err = l.hub.view(ctx, "look at devices", func(r storage.Reader) error {
		due = nil
		devices := map[TwinID]*known{}
		for _, c := range list {
			d := devices[c.id]
			if d == nil {
				doc, before, err := l.hub.triggerLook(r, t, c.id)
				if err != nil {
					return err
				}
				d = &known{doc, before.Matches}
				devices[c.id] = d
			}
			doc := d.doc
			if t.when != nil {
				doc = asOf(doc, &c)
			}
			c.holds, c.twin = t.holds(doc, now), nil
			if t.when != nil && c.holds != d.matches || t.when == nil && c.holds {
				due = append(due, c)
			}
			d.matches = c.holds
		}
		return nil
	})
	return due, err
}

// asOf returns a device as an entry of the change log left it, as far as that tells.
func asOf(doc query.Value, c *candidate) query.Value {
	replaced := map[string]query.Value{}
	switch {
	case doc.Kind() == query.Undefined:
		return doc
	case c.kind == changeConnected:
		replaced["connectionState"] = query.StringValue(stateConnected)
	case c.kind == changeDisconnected:
		replaced["connectionState"] = query.StringValue("Disconnected")
	case c.twin == nil:
		return doc
	default:
		whole, err := query.ParseValue(c.twin)
		if err != nil {
			return doc
		}
		replaced["tags"], replaced["properties"] = whole.Member("tags"), whole.Member("properties")
	}
	var members []query.Member
	for _, m := range doc.Members() {
		v, is := replaced[m.Key]
		if !is {
			v = m.Value
		}
		delete(replaced, m.Key)
		if v.Kind() != query.Undefined {
			members = append(members, query.Member{Key: m.Key, Value: v})
		}
	}
	for key, v := range replaced {
		if v.Kind() != query.Undefined {
			members = append(members, query.Member{Key: key, Value: v})
		}
	}
	return query.ObjectValue(members)
}

// triggerLook returns a device as it is, the zero Value when it is gone, and what a
// trigger knows of it.
func (h *Hub) triggerLook(r storage.Reader, t *trigger, id TwinID) (doc query.Value, known triggerDevice, err error) {
	known, err = triggerDeviceTable.Get(r, t.device(id.DeviceID))
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return doc, known, err
	}
	doc, _, err = hubDocuments{hub: h}.document(r, id)
	if isGone(err) {
		return query.Value{}, known, nil
	}
	return doc, known, err
}

// fireSome is one transaction: runs, what the trigger knows of the devices, and its
// place. A place of 0 leaves that.
func (l *triggerLoop) fireSome(ctx context.Context, t *trigger, list []candidate, place uint64) (started int, err error) {
	h := l.hub
	var next triggerRecord
	err = h.step(ctx, "trigger.fire", func(tx *storage.Tx) error {
		started = 0
		record, _, err := h.wantedTx(tx, t.triggerID)
		if err != nil {
			return err
		}
		if next, err = triggerTable.Get(tx, t.key()); errors.Is(err, storage.ErrNotFound) {
			return errTriggersChanged
		} else if err != nil {
			return err
		}
		caller, refused := h.ownerCaller(record.Owner, opRunStart, "the trigger", "pattern:"+t.pattern)
		f := &firing{hub: h, tx: tx, trigger: t, pattern: record, record: &next, caller: caller, refused: refused}
		for _, c := range list {
			if err := f.device(c); err != nil {
				return err
			}
		}
		started = f.started
		next.Cursor = max(next.Cursor, place)
		return triggerTable.Put(tx, t.key(), next)
	})
	if errors.Is(err, errTriggersChanged) {
		h.patterns.triggers.look()
	}
	if err == nil {
		t.record = next
	}
	return started, err
}

// firing is a transaction in which a trigger starts runs.
type firing struct {
	hub     *Hub
	tx      *storage.Tx
	trigger *trigger
	pattern patternRecord
	record  *triggerRecord
	caller  Caller
	refused error // its owner may start none
	started int
}

// device does what a device asks for.
func (f *firing) device(c candidate) error {
	t, key := f.trigger, f.trigger.device(c.id.DeviceID)
	known, err := triggerDeviceTable.Get(f.tx, key)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	if t.when != nil {
		if c.holds == known.Matches {
			return nil
		}
		known.Matches = c.holds
	}
	if c.holds {
		if err := f.start(c.id, &known); err != nil {
			return err
		}
	}
	if known == (triggerDevice{}) {
		return triggerDeviceTable.Delete(f.tx, key)
	}
	return triggerDeviceTable.Put(f.tx, key, known)
}

// start starts a run on a device, unless one that the trigger started has not ended.
func (f *firing) start(id TwinID, known *triggerDevice) error {
	applies, err := f.applies(id)
	if err != nil || !applies {
		return err
	}
	if f.refused != nil {
		f.record.refuse(f.tx.Now(), AsError(f.refused).Message)
		return nil
	}
	busy, err := runActive(f.tx, known.Run)
	if err != nil {
		return err
	}
	if busy {
		f.record.refuse(f.tx.Now(), "the run "+known.Run+" that it started on "+id.String()+" has not ended")
		return nil
	}
	params, err := f.pattern.Manifest.Complete(f.record.Trigger.Params)
	if err != nil {
		f.record.refuse(f.tx.Now(), err.Error())
		return nil
	}
	run, err := f.hub.startRunTx(f.tx, f.caller, runStart{Pattern: f.pattern, Device: id, Params: params, Trigger: f.record.Trigger.Kind()})
	if isGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	known.Run = run
	f.record.Started++
	f.started++
	return nil
}

func (f *firing) applies(id TwinID) (bool, error) {
	if f.trigger.applies == nil {
		return true, nil
	}
	doc, _, err := hubDocuments{hub: f.hub}.document(f.tx, id)
	if isGone(err) {
		return false, nil
	}
	return err == nil && f.trigger.applies.Match(doc, f.tx.Now()), err
}

// runActive reports whether a run has not ended.
func runActive(r storage.Reader, run string) (bool, error) {
	if run == "" {
		return false, nil
	}
	record, err := loadRun(r, run)
	if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeRunNotFound {
		return false, nil
	}
	return err == nil && !record.State.State.Final(), err
}

// reconcile compares what a condition selects with what the trigger knows: all of
// it, page by page. While it is marking, what holds is what held when the pattern
// was enabled; else what came to hold, or holds no more, is done.
func (l *triggerLoop) reconcile(ctx context.Context, t *trigger) error {
	if t.when == nil { // what happened is gone; nobody knows of whom
		t.lost = false
		return l.note(ctx, t, "changes were dropped before the trigger had followed them")
	}
	after := t.record.After
	for {
		page, done, err := l.selected(ctx, t, after)
		if err != nil {
			return err
		}
		until := ""
		if !done {
			until = page[len(page)-1]
		}
		list, err := l.compare(ctx, t, page, after, until)
		if err != nil {
			return err
		}
		if t.record.Marking {
			err = l.mark(ctx, t, list, until, done)
		} else {
			for wait := time.Duration(1); wait > 0 && err == nil; {
				if wait, err = l.fire(ctx, t, list, 0); wait > 0 {
					sleepFor(ctx, wait)
					err = errors.Join(err, ctx.Err())
				}
			}
		}
		if err != nil {
			return err
		}
		if done {
			t.lost = false
			return nil
		}
		after = until
	}
}

func sleepFor(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// triggerPage is how many devices are compared together.
const triggerPage = 250

// selected returns the next devices of which the condition holds, in order; where
// is looked at when they are compared.
func (l *triggerLoop) selected(ctx context.Context, t *trigger, after string) (page []string, done bool, err error) {
	q := l.hub.queries
	leave, err := q.enter(ctx)
	if err != nil {
		return nil, false, err
	}
	defer leave()
	full := false
	err = q.selectRows(ctx, query.Select(query.Devices, t.when), targetAsk{after: after, limit: 2 * triggerPage}, func(rows []query.Row) bool {
		for i := range rows {
			page = append(page, rows[i].ID)
		}
		full = len(page) >= triggerPage
		return !full
	})
	return page, !full, err
}

// compare returns the devices of a page, and of those that the trigger knows of in
// its range, for which there is something to do.
func (l *triggerLoop) compare(ctx context.Context, t *trigger, page []string, after, until string) (list []candidate, err error) {
	now := time.Now()
	err = l.hub.view(ctx, "look at devices", func(r storage.Reader) error {
		list = nil
		in := map[string]bool{}
		for _, row := range page {
			in[row] = true
			id := twinIDOfRow(row)
			doc, known, err := l.hub.triggerLook(r, t, id)
			if err != nil {
				return err
			}
			if holds := t.holds(doc, now); holds != known.Matches {
				list = append(list, candidate{id: id, holds: holds})
			}
		}
		g := storage.Range{Prefix: t.key()}
		if after != "" {
			g.After = t.device(after)
		}
		for item, err := range triggerDeviceTable.Scan(r, g) {
			if err != nil {
				return err
			}
			_, device, err := triggerOfKey(item.Key)
			if err != nil {
				return err
			}
			if until != "" && device > until {
				return nil
			}
			if item.Value.Matches && !in[device] {
				list = append(list, candidate{id: TwinID{DeviceID: device}})
			}
		}
		return nil
	})
	return list, err
}

// mark notes of which devices the condition holds, without starting anything.
func (l *triggerLoop) mark(ctx context.Context, t *trigger, list []candidate, until string, done bool) error {
	var next triggerRecord
	err := l.hub.step(ctx, "trigger.mark", func(tx *storage.Tx) error {
		if _, _, err := l.hub.wantedTx(tx, t.triggerID); err != nil {
			return err
		}
		var err error
		if next, err = triggerTable.Get(tx, t.key()); errors.Is(err, storage.ErrNotFound) {
			return errTriggersChanged
		} else if err != nil {
			return err
		}
		for _, c := range list {
			doc, known, err := l.hub.triggerLook(tx, t, c.id)
			if err != nil {
				return err
			}
			holds := t.holds(doc, tx.Now())
			if holds == known.Matches {
				continue
			}
			known.Matches = holds
			if err := triggerDeviceTable.Put(tx, t.device(c.id.DeviceID), known); err != nil {
				return err
			}
		}
		next.After = until
		if done {
			next.Marking, next.After = false, ""
		}
		return triggerTable.Put(tx, t.key(), next)
	})
	if errors.Is(err, errTriggersChanged) {
		l.hub.patterns.triggers.look()
	}
	if err == nil {
		t.record = next
	}
	return err
}

// note counts what was not started.
func (l *triggerLoop) note(ctx context.Context, t *trigger, why string) error {
	var next triggerRecord
	err := l.hub.step(ctx, "trigger.note", func(tx *storage.Tx) (err error) {
		if next, err = triggerTable.Get(tx, t.key()); errors.Is(err, storage.ErrNotFound) {
			return errTriggersChanged
		} else if err != nil {
			return err
		}
		next.refuse(tx.Now(), why)
		next.Cursor = max(next.Cursor, t.at)
		return triggerTable.Put(tx, t.key(), next)
	})
	if err == nil {
		t.record = next
	}
	return err
}

// fleetCron starts the run of a pattern of the whole fleet when its time has come:
// of times that were missed, one.
func (l *triggerLoop) fleetCron(ctx context.Context, t *trigger) error {
	if time.Now().Before(t.record.Next) {
		return nil
	}
	h := l.hub
	var next triggerRecord
	err := h.step(ctx, "trigger.cron", func(tx *storage.Tx) error {
		record, _, err := h.wantedTx(tx, t.triggerID)
		if err != nil {
			return err
		}
		if next, err = triggerTable.Get(tx, t.key()); errors.Is(err, storage.ErrNotFound) {
			return errTriggersChanged
		} else if err != nil || tx.Now().Before(next.Next) {
			return err
		}
		next.Next = nextCron(&next.Trigger, tx.Now())
		caller, refused := h.ownerCaller(record.Owner, opRunStart, "the trigger", "pattern:"+t.pattern)
		busy, err := runActive(tx, next.Run)
		if err != nil {
			return err
		}
		params, wrong := record.Manifest.Complete(next.Trigger.Params)
		switch {
		case refused != nil:
			next.refuse(tx.Now(), AsError(refused).Message)
		case wrong != nil:
			next.refuse(tx.Now(), wrong.Error())
		case busy:
			next.refuse(tx.Now(), "the run "+next.Run+" that it started has not ended")
		default:
			run, err := h.startRunTx(tx, caller, runStart{Pattern: record, Params: params, Trigger: next.Trigger.Kind()})
			if err != nil {
				return err
			}
			next.Run = run
			next.Started++
		}
		return triggerTable.Put(tx, t.key(), next)
	})
	if errors.Is(err, errTriggersChanged) {
		h.patterns.triggers.look()
	}
	if err == nil {
		t.record = next
	}
	return err
}
