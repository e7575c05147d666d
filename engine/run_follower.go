package engine

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// cursorRuns is how far runs have followed the change log.
const cursorRuns = "runs"

const (
	runEntries     = 512 // entries of the change log that are read in one go
	runSettleBatch = 64  // runs of one transaction
	runPage        = 500 // runs that are looked at together when all are

	// How often the cursor moves while there is no run, so that the first one need
	// not begin with a long past.
	runIdleLook = time.Second
)

// runFollower tells runs what has changed: a twin on which a condition is
// followed, a device that was deleted, a job that has ended. One goroutine owns
// it. What it read moves its cursor in the transaction of what came of it.
type runFollower struct {
	hub    *Hub
	at     uint64 // in the change log
	stored uint64 // the cursor
	when   time.Time
	began  bool
}

// runNews is what some entries of the change log mean for runs.
type runNews struct {
	matches []runMatch
	gone    []string   // runs whose device is gone
	jobs    []runMatch // runs whose job has ended
}

func (n *runNews) len() int { return len(n.matches) + len(n.gone) + len(n.jobs) }

// followForRuns tells runs of changes until ctx ends.
func (h *Hub) followForRuns(ctx context.Context) {
	f := &runFollower{hub: h}
	h.keepFollowing(ctx, "runs", f.follow, f.store)
}

// follow does what the next entries ask for, and waits if there is none.
func (f *runFollower) follow(ctx context.Context) error {
	h := f.hub
	var news runNews
	var at uint64
	var lost, idle bool
	err := h.view(ctx, "read changes", func(r storage.Reader) (err error) {
		news, lost = runNews{}, false
		if !f.began {
			if f.stored, err = storage.Cursor(r, cursorRuns); err != nil {
				return err
			}
			f.at, f.began = f.stored, true
		}
		first, last, err := changeLog.Bounds(r)
		if err != nil {
			return err
		}
		if idle, err = runsIdle(r); err != nil {
			return err
		}
		if idle { // nobody waits for what came before this
			at = max(last, f.at)
			return nil
		}
		if lost = first > f.at+1; lost {
			at = last
			return nil
		}
		at, err = f.read(r, &news)
		return err
	})
	if err != nil {
		return err
	}
	if lost {
		return f.again(ctx, at)
	}
	if news.len() > 0 {
		if err := f.settle(ctx, &news, at); err != nil {
			return err
		}
		f.at, f.stored, f.when = at, at, time.Now()
		return nil
	}
	if at != f.at {
		f.at = at
		if time.Since(f.when) >= followStore {
			return f.store(ctx)
		}
		if idle {
			h.runs.awaitOne(ctx)
		}
		return nil
	}
	wait, cancel := ctx, context.CancelFunc(func() {})
	if f.at != f.stored {
		wait, cancel = context.WithTimeout(ctx, followStore)
	}
	defer cancel()
	err = h.awaitChange(ctx, wait, f.at)
	if time.Since(f.when) >= followStore {
		return errors.Join(err, f.store(ctx))
	}
	return err
}

// awaitOne waits while there is no run: changes concern nobody then, and on a busy
// hub there are thousands a second.
func (n *runRunner) awaitOne(ctx context.Context) {
	if n.active.Load() > 0 {
		return
	}
	look := time.NewTimer(runIdleLook)
	defer look.Stop()
	select {
	case <-ctx.Done():
	case <-n.began:
	case <-look.C:
	}
}

// tellBegan ends awaitOne. It never waits.
func (n *runRunner) tellBegan() {
	select {
	case n.began <- struct{}{}:
	default:
	}
}

// runsIdle reports whether no run is under way.
func runsIdle(r storage.Reader) (bool, error) {
	for _, s := range pattern.States() {
		if s.Final() {
			continue
		}
		if n, err := storage.Counter(r, counterRuns+string(s)); err != nil || n > 0 {
			return false, err
		}
	}
	return true, nil
}

// read reads entries, and says what they mean.
func (f *runFollower) read(r storage.Reader, news *runNews) (at uint64, err error) {
	h := f.hub
	at = f.at
	seen := map[TwinID]bool{}
	read := 0
	for e, err := range changeLog.Read(r, f.at) {
		if err != nil {
			return at, err
		}
		at = e.Position
		if c, err := peekChange(e.Data); err != nil {
			h.log.Error("an entry of the change log can't be read", slog.Any("error", err))
		} else if err := f.concern(r, c, news, seen); err != nil {
			return at, err
		}
		if read++; read == runEntries || news.len() >= runEntries {
			break
		}
	}
	return at, nil
}

// concern takes what one entry means.
func (f *runFollower) concern(r storage.Reader, c changePeek, news *runNews, seen map[TwinID]bool) (err error) {
	id := TwinID{c.device, c.module}
	switch c.kind {
	case changeRun, changeRunStep, changePatternEvent, changeExecution, changeMethodQueued, changeMethodSending, changeMethodFinished:
		return nil // of no twin
	case changeIdentityDeleted:
		news.gone, err = runsOnDevice(r, id, news.gone)
		return err
	case changeJobStatus, changeJobDeleted:
		var data struct {
			Job string `json:"job"`
		}
		if json.Unmarshal(c.data, &data) != nil {
			return nil
		}
		news.jobs, err = f.hub.runsOfJob(r, data.Job, news.jobs)
		return err
	}
	if c.device == "" || seen[id] || !f.hub.runs.waits.has(id) {
		return nil
	}
	seen[id] = true
	news.matches, err = f.hub.matches(r, id, news.matches)
	return err
}

// runsOnDevice returns the runs on a device that have not ended.
func runsOnDevice(r storage.Reader, id TwinID, into []string) ([]string, error) {
	for item, err := range runTable.Lookup(r, "device", storage.Range{Prefix: storage.Tuple(id.DeviceID, id.ModuleID)}) {
		if err != nil {
			return into, err
		}
		if item.Value.State.State.Final() {
			continue
		}
		run, err := runOfKey(item.Key)
		if err != nil {
			return into, err
		}
		into = append(into, run)
	}
	return into, nil
}

// settle moves the runs that something has come for, and the cursor with the last
// of them.
func (f *runFollower) settle(ctx context.Context, n *runNews, at uint64) error {
	for {
		var part runNews
		part.matches, n.matches = cut(n.matches)
		part.gone, n.gone = cut(n.gone)
		part.jobs, n.jobs = cut(n.jobs)
		last := n.len() == 0
		err := f.hub.step(ctx, "run.follow", f.hub.inRuns(func(t *runTx) error {
			if last && at > 0 {
				t.SetCursor(cursorRuns, at)
			}
			return t.takeNews(&part)
		}))
		if err != nil || last {
			return err
		}
	}
}

func cut[T any](list []T) (some, rest []T) {
	n := min(len(list), runSettleBatch)
	return list[:n], list[n:]
}

func (t *runTx) takeNews(n *runNews) error {
	for _, list := range [][]runMatch{n.matches, n.jobs} {
		for _, m := range list {
			r, err := t.load(m.id)
			if isRunGone(err) {
				continue
			}
			if err != nil {
				return err
			}
			if !r.State.Settle(m.ref, m.result, nil, t.Now()) {
				continue // it waits for something else
			}
			if err := t.store(r); err != nil {
				return err
			}
		}
	}
	for _, id := range n.gone {
		if err := t.stopLater(id, "the device was deleted", false); err != nil {
			return err
		}
	}
	return nil
}

// again looks at all runs that wait, since entries of the change log are gone that
// were not read.
func (f *runFollower) again(ctx context.Context, at uint64) error {
	h := f.hub
	h.log.Warn("changes were dropped before runs had followed them; all runs are looked at")
	var after storage.Key
	for done := false; !done; {
		var news runNews
		err := h.view(ctx, "look at runs", func(r storage.Reader) error {
			news, done = runNews{}, true
			n := 0
			seen := map[TwinID]bool{}
			for item, err := range runTable.Lookup(r, "state", storage.Range{Prefix: storage.Tuple(string(pattern.Waiting)), After: after}) {
				if err != nil {
					return err
				}
				if err := f.lookAgain(r, item, &news, seen); err != nil {
					return err
				}
				if n++; n == runPage {
					after, done = append(storage.Tuple(string(pattern.Waiting)), item.Key...), false
					return nil
				}
			}
			return nil
		})
		if err == nil && news.len() > 0 {
			err = f.settle(ctx, &news, 0)
		}
		if err != nil {
			return err
		}
	}
	f.at = at
	return f.store(ctx)
}

func (f *runFollower) lookAgain(r storage.Reader, item storage.Item[runRecord], news *runNews, seen map[TwinID]bool) error {
	run, err := runOfKey(item.Key)
	if err != nil {
		return err
	}
	id := item.Value.device()
	if item.Value.Device != "" {
		identity, err := loadIdentity(r, id)
		if err != nil && !isGone(err) {
			return err
		}
		if err != nil || identity.GenerationID != item.Value.Generation {
			news.gone = append(news.gone, run)
			return nil
		}
	}
	s := item.Value.State.Open()
	switch {
	case s == nil:
	case s.Op == opWait && !seen[id]:
		seen[id] = true
		news.matches, err = f.hub.matches(r, id, news.matches)
	case runAsks(s) == asksJob:
		var m runMatch
		if m, err = f.hub.jobEnd(r, run, s.Ref); m.id != "" {
			news.jobs = append(news.jobs, m)
		}
	}
	return err
}

// store stores how far the change log was followed.
func (f *runFollower) store(ctx context.Context) error {
	if f.at == f.stored {
		return nil
	}
	at := f.at
	err := f.hub.step(ctx, "run.cursor", func(tx *storage.Tx) error {
		tx.SetCursor(cursorRuns, at)
		return nil
	})
	if err == nil {
		f.stored, f.when = at, time.Now()
	}
	return err
}

// runsKeep is the last entry of the change log that runs have followed.
func (h *Hub) runsKeep(ctx context.Context) (keep uint64, err error) {
	keep = math.MaxUint64
	err = h.view(ctx, "read runs", func(r storage.Reader) error {
		idle, err := runsIdle(r)
		if err == nil && !idle {
			keep, err = storage.Cursor(r, cursorRuns)
		}
		return err
	})
	return keep, err
}
