package engine

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// Jobs follow two conditions: that of dynamic targets, which devices come to
// match while the job runs, and the evidence that an action took effect. Both
// are live queries: a change of a twin costs what it costs anyway, and the job
// hears of those devices alone that match now and did not before. After a
// restart the result as a whole says what happened meanwhile.

// followWhat is what a follower looks for.
type followWhat uint8

const (
	followTargets followWhat = iota // that join a dynamic job
	followEvidence
)

// jobFollowers are the conditions that are followed, one goroutine each. All but
// those goroutines is the loop's.
type jobFollowers struct {
	loop  *jobLoop
	list  map[*activeJob][]*jobFollower
	pages chan matchPage // unbuffered: who follows waits until the loop has time
	got   []matchPage    // that woke the loop
	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup
	seed  maphash.Seed
}

// jobFollower follows one condition of a job, of devices or of modules.
type jobFollower struct {
	what   followWhat
	job    *activeJob
	run    uint64
	source query.Source
	asked  *query.Query
	stop   context.CancelFunc

	pending map[uint64]struct{} // of a snapshot: hashes of the targets that are pending
	joined  map[uint64]struct{} // hashes of those that joined, so that one that comes and goes does so once
}

// matchPage is a part of what a follower found.
type matchPage struct {
	of       *jobFollower
	ids      []TwinID
	snapshot bool // not only what came to match, but whatever matches
	whole    bool // the snapshot ends with this page
}

const (
	followTake   = 256
	followPoll   = 30 * time.Second // how often a condition is looked at that can't be followed
	followJoined = 100_000          // ids remembered of those that joined
)

func (f *jobFollowers) open(ctx context.Context, l *jobLoop) {
	f.loop, f.list, f.pages, f.seed = l, map[*activeJob][]*jobFollower{}, make(chan matchPage), maphash.MakeSeed()
	f.ctx, f.stop = context.WithCancel(ctx)
}

// close ends all following and waits for it.
func (f *jobFollowers) close() {
	f.stop()
	f.wg.Wait()
}

// note begins to follow what a job needs, and ends what it needs no more.
func (f *jobFollowers) note(a *activeJob, s *rollout.State) {
	going := s.LaidOut && !s.Status.Final()
	list := f.list[a]
	if len(list) > 0 && (!going || list[0].run != a.run) {
		f.drop(a)
		list = nil
	}
	if !going || len(list) > 0 || !a.follows {
		return
	}
	h := f.loop.hub
	var wanted []*jobFollower
	err := h.view(f.ctx, "read a job", func(r storage.Reader) error {
		wanted = nil
		record, err := loadJob(r, a.id)
		if err != nil {
			return err
		}
		w, err := h.jobs.works.get(h, r, a.id, &record)
		if err != nil {
			return err
		}
		t, err := w.targets(h)
		if err != nil {
			return err
		}
		if s.Dynamic && t.query != nil {
			wanted = append(wanted, &jobFollower{what: followTargets, source: t.source, asked: query.SelectID(t.source, t.where)})
		}
		if w.confirm == nil {
			return nil
		}
		for source := range query.Source(querySources) {
			if t.query == nil || t.source == source {
				wanted = append(wanted, &jobFollower{what: followEvidence, source: source, asked: query.SelectID(source, w.confirm)})
			}
		}
		return nil
	})
	if err != nil {
		f.loop.tell("the conditions of a job can't be followed", a.id, err)
		return
	}
	for _, one := range wanted {
		one.job, one.run = a, a.run
		var own context.Context
		own, one.stop = context.WithCancel(f.ctx)
		f.list[a] = append(f.list[a], one)
		f.wg.Go(func() { f.follow(own, one) })
	}
}

// drop ends what is followed for a job.
func (f *jobFollowers) drop(a *activeJob) {
	for _, one := range f.list[a] {
		one.stop()
	}
	delete(f.list, a)
}

// follow hands the loop what matches, until ctx ends: from a live query, or by
// looking again and again where there can't be one.
func (f *jobFollowers) follow(ctx context.Context, one *jobFollower) {
	told := false
	for ctx.Err() == nil {
		err := f.live(ctx, one)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !told {
			told = true
			f.loop.hub.log.Info("a condition of a job can't be followed; it is looked at twice a minute instead",
				slog.String("job", one.job.id), slog.Any("reason", err))
		}
		if err = f.poll(ctx, one); err != nil && ctx.Err() == nil {
			f.loop.hub.log.Warn("a condition of a job could not be looked at; it will be tried again", slog.String("job", one.job.id), slog.Any("error", err))
		}
		t := time.NewTimer(followPoll)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// live follows until ctx ends, or tells why that is not possible.
func (f *jobFollowers) live(ctx context.Context, one *jobFollower) error {
	q := f.loop.hub.queries
	select {
	case <-q.ready:
	case <-ctx.Done():
		return nil
	}
	q.following.tell(time.Now(), one.source, false)
	reader, err := q.following.sets[one.source].Open(one.asked, "")
	if err != nil {
		return err
	}
	defer reader.Close()
	snapshot := true
	for {
		list, more, err := reader.Next(followTake, nil)
		if err != nil {
			return err
		}
		page := matchPage{of: one, snapshot: snapshot}
		for _, e := range list {
			switch e.Kind {
			case query.LiveRow, query.LiveEnter:
				page.ids = append(page.ids, twinIDOfRow(strings.Clone(e.ID()))) // it lies among others
			case query.LiveReset:
				snapshot, page.snapshot = true, true
			case query.LiveCurrent:
				page.whole, snapshot = page.snapshot, false
			}
		}
		if len(page.ids) > 0 || page.whole {
			if !f.hand(ctx, page) {
				return nil
			}
		}
		if len(list) > 0 {
			continue
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		}
	}
}

// poll looks once at what matches.
func (f *jobFollowers) poll(ctx context.Context, one *jobFollower) error {
	q := f.loop.hub.queries
	leave, err := q.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	err = q.selectRows(ctx, one.asked, targetAsk{}, func(rows []query.Row) bool {
		page := matchPage{of: one, snapshot: true}
		for i := range rows {
			page.ids = append(page.ids, twinIDOfRow(rows[i].ID))
		}
		return f.hand(ctx, page)
	})
	if err == nil {
		f.hand(ctx, matchPage{of: one, snapshot: true, whole: true})
	}
	return err
}

func (f *jobFollowers) hand(ctx context.Context, p matchPage) bool {
	select {
	case f.pages <- p:
		return true
	case <-ctx.Done():
		return false
	}
}

// take does what one page asks for, if there is one.
func (f *jobFollowers) take(ctx context.Context) error {
	if len(f.got) == 0 {
		select {
		case p := <-f.pages:
			f.got = append(f.got, p)
		default:
			return nil
		}
	}
	p := f.got[0]
	one := p.of
	if one.job.run == one.run && f.loop.active[one.job.id] == one.job {
		var err error
		if one.what == followTargets {
			err = f.join(ctx, &p)
		} else {
			err = f.confirm(ctx, &p)
		}
		if err != nil {
			return err // the page stays
		}
	}
	f.got = f.got[1:]
	return nil
}

func (f *jobFollowers) hash(id TwinID) uint64 {
	return maphash.String(f.seed, id.DeviceID+rowSeparator+id.ModuleID)
}

// join adds devices to a dynamic job that match now and are not among its targets.
func (f *jobFollowers) join(ctx context.Context, p *matchPage) error {
	h, one, a := f.loop.hub, p.of, p.of.job
	var fresh []TwinID
	err := h.view(ctx, "look for targets that join", func(r storage.Reader) error {
		fresh = nil
		if p.snapshot && one.pending == nil {
			one.pending = map[uint64]struct{}{}
			for item, err := range targetTable.Scan(r, storage.Range{Prefix: storage.Tuple(a.id, a.run)}) {
				if err != nil {
					one.pending = nil
					return err
				}
				for _, id := range item.Value {
					one.pending[f.hash(id)] = struct{}{}
				}
			}
		}
		for _, id := range p.ids {
			n := f.hash(id)
			if _, known := one.pending[n]; known {
				continue
			}
			if _, known := one.joined[n]; known {
				continue
			}
			known, err := executionTable.Has(r, executionKey(a.id, a.run, id))
			if err != nil {
				return err
			}
			if !known {
				fresh = append(fresh, id)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if p.whole {
		one.pending = nil
	}
	if len(fresh) == 0 {
		return nil
	}
	h.jobs.writing.Lock()
	err = h.step(ctx, "job.join", h.inJobs(func(t *jobTx) error { return t.join(a, fresh) }))
	h.jobs.writing.Unlock()
	if err != nil {
		return err
	}
	if one.joined == nil || len(one.joined) > followJoined {
		one.joined = map[uint64]struct{}{}
	}
	for _, id := range fresh {
		one.joined[f.hash(id)] = struct{}{}
	}
	return nil
}

// join adds targets to a job, unless it takes none any more.
func (t *jobTx) join(a *activeJob, ids []TwinID) error {
	j, err := t.job(a.id)
	if err != nil || j.Run != a.run {
		return err
	}
	targets, err := j.work.targets(t.hub)
	if err != nil {
		return err
	}
	zones := map[string][]TwinID{}
	tag := j.work.policy.ZoneTag()
	n := 0
	for _, id := range ids {
		// What the condition alone doesn't say: exclusions.
		matches, err := targets.matches(t.hub, t.Tx, id, t.Now())
		if err != nil {
			return err
		}
		if !matches {
			continue
		}
		zone := ""
		if tag != "" {
			zone = t.hub.zoneOf(tag, id)
		}
		zones[zone] = append(zones[zone], id)
		n++
	}
	if n == 0 {
		return nil
	}
	wave, err := j.State.Join(n)
	if err != nil {
		return nil // it is ending: nobody joins any more
	}
	j.changed = true
	for zone, some := range zones {
		if err := putTargetsTx(t.Tx, a.id, a.run, wave, zone, some); err != nil {
			return err
		}
	}
	return nil
}

// confirm settles executions of devices that show the evidence now.
func (f *jobFollowers) confirm(ctx context.Context, p *matchPage) error {
	h, a := f.loop.hub, p.of.job
	var settled []TwinID
	err := h.view(ctx, "look for evidence", func(r storage.Reader) error {
		settled = nil
		for _, id := range p.ids {
			e, err := executionTable.Get(r, executionKey(a.id, a.run, id))
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if awaitsEvidence(&e) {
				settled = append(settled, id)
			}
		}
		return nil
	})
	if err != nil || len(settled) == 0 {
		return err
	}
	h.jobs.writing.Lock()
	defer h.jobs.writing.Unlock()
	return h.step(ctx, "execution.confirm", h.inJobs(func(t *jobTx) error {
		j, err := t.job(a.id)
		if err != nil || j.Run != a.run {
			return err
		}
		for _, id := range settled {
			e, found, err := t.load(j.ref(id))
			if err != nil {
				return err
			}
			if !found || !awaitsEvidence(&e) {
				continue
			}
			seen, err := t.confirmed(j, id) // it may have changed again
			if err != nil {
				return err
			}
			if !seen {
				continue
			}
			if err := t.settle(j, id, &e, rollout.AttemptSucceeded, "", ""); err != nil {
				return err
			}
		}
		return nil
	}))
}

// awaitsEvidence reports whether the twin may settle what came of an execution:
// one of which nobody knows, and that is not just being answered.
func awaitsEvidence(e *executionRecord) bool {
	switch e.Status {
	case rollout.ExecutionConfirming, rollout.ExecutionUncertain, rollout.ExecutionTimedOut, rollout.ExecutionRetrying:
		return len(e.Last) > 0
	}
	return false
}
