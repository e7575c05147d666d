package engine

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// wantedTrigger is one that should work.
type wantedTrigger struct {
	trigger pattern.Trigger
	pattern patternRecord
}

// wantedTriggers are those of the default versions that are enabled.
func (h *Hub) wantedTriggers(r storage.Reader) (map[triggerID]wantedTrigger, error) {
	list := map[triggerID]wantedTrigger{}
	for item, err := range patternNameTable.Scan(r, storage.Range{}) {
		if err != nil {
			return nil, err
		}
		name, err := firstPart(item.Key)
		if err != nil {
			return nil, err
		}
		record, err := patternTable.Get(r, patternKey(name, item.Value.Default))
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return nil, err
		}
		if err != nil || !record.Enabled {
			continue
		}
		for _, t := range record.Manifest.Triggers {
			list[newTriggerID(name, &t)] = wantedTrigger{t, record}
		}
	}
	return list, nil
}

// wantedTx returns the version of which a trigger works; errTriggersChanged when it
// does no more.
func (h *Hub) wantedTx(tx *storage.Tx, id triggerID) (patternRecord, pattern.Trigger, error) {
	record, err := h.pattern(tx, id.pattern, "")
	if e, ok := errors.AsType[*Error](err); ok && e.Code == CodePatternNotFound || err == nil && !record.Enabled {
		return record, pattern.Trigger{}, errTriggersChanged
	}
	if err != nil {
		return record, pattern.Trigger{}, err
	}
	for _, t := range record.Manifest.Triggers {
		if newTriggerID(id.pattern, &t) == id {
			return record, t, nil
		}
	}
	return record, pattern.Trigger{}, errTriggersChanged
}

// sync brings the triggers that work in line with the patterns that are enabled.
func (l *triggerLoop) sync(ctx context.Context) error {
	h := l.hub
	var wanted map[triggerID]wantedTrigger
	known := map[triggerID]triggerRecord{}
	err := h.view(ctx, "read triggers", func(r storage.Reader) (err error) {
		clear(known)
		if wanted, err = h.wantedTriggers(r); err != nil {
			return err
		}
		for item, err := range triggerTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			id, _, err := triggerOfKey(item.Key)
			if err != nil {
				return err
			}
			known[id] = item.Value
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := l.storeCursors(ctx); err != nil {
		return err
	}
	before := map[triggerID]uint64{}
	for _, t := range l.list {
		before[t.triggerID] = t.at
	}
	l.list = nil
	for id, record := range known {
		// One that was disabled and enabled again begins anew.
		if w, is := wanted[id]; !is || record.Dropping || record.Version == w.pattern.Manifest.Version && record.Since != w.pattern.Since {
			if err := h.dropTrigger(ctx, id); err != nil {
				return err
			}
			delete(known, id)
			delete(before, id)
		}
	}
	for id, w := range wanted {
		record, is := known[id]
		if !is || record.Version != w.pattern.Manifest.Version {
			if record, err = h.addTrigger(ctx, id, w); err != nil {
				return err
			}
		}
		t, err := newTrigger(id, record, &w.pattern.Manifest)
		if err != nil { // it was checked when the pattern was installed
			h.log.Warn("a trigger can't be used", slog.String("trigger", id.String()), slog.Any("error", err))
			continue
		}
		t.at = max(t.at, before[id])
		l.list = append(l.list, t)
	}
	return nil
}

// addTrigger has a trigger work from now on, or with another version of its pattern.
func (h *Hub) addTrigger(ctx context.Context, id triggerID, w wantedTrigger) (out triggerRecord, err error) {
	var job *checkedJob
	var refused error
	device := w.pattern.Manifest.Scope != pattern.ScopeFleet
	caller, err := h.ownerCaller(w.pattern.Owner, opRunStart, "the trigger", "pattern:"+id.pattern)
	if err == nil && w.trigger.Cron != "" && device {
		job, err = h.cronJob(ctx, caller, id, w)
	}
	if e, ok := errors.AsType[*Error](err); ok && (e.Code == CodeReadOnly || e.Code == CodeClosed || e.Code == CodeCanceled || e.Code == CodeUnavailable || e.Code == CodeInternal) {
		return out, err
	}
	refused = err
	err = h.step(ctx, "trigger.add", func(tx *storage.Tx) error {
		record, t, err := h.wantedTx(tx, id)
		if err != nil {
			return err
		}
		old, err := triggerTable.Get(tx, id.key())
		isNew := errors.Is(err, storage.ErrNotFound)
		if err != nil && !isNew {
			return err
		}
		out = old
		out.Trigger, out.Version, out.Since = t, record.Manifest.Version, record.Since
		if isNew {
			if _, out.Cursor, err = changeLog.Bounds(tx); err != nil {
				return err
			}
			out.Marking = t.When != ""
		}
		if refused != nil {
			out.refuse(tx.Now(), AsError(refused).Message)
		}
		if t.Cron != "" && !device {
			out.Next = nextCron(&t, tx.Now())
		}
		if t.Cron != "" && device {
			if err := h.endTriggerJobTx(tx, out.Job, "another version of the pattern takes its place"); err != nil {
				return err
			}
			out.Job = ""
			if job != nil && job.pattern.Hash == record.Hash {
				out.Job = newJobID(tx.Now())
				if _, err := h.createJobTx(tx, caller, out.Job, job, planRecord{Run: 1}); err != nil {
					if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeTooManyJobs {
						return err
					}
					out.Job = ""
					out.refuse(tx.Now(), AsError(err).Message)
				}
			}
		}
		return triggerTable.Put(tx, id.key(), out)
	})
	return out, err
}

// nextCron is when a trigger's cron comes next.
func nextCron(t *pattern.Trigger, now time.Time) time.Time {
	cron, err := rollout.ParseCron(t.Cron)
	if err != nil {
		return time.Time{}
	}
	zone := time.UTC
	if t.Zone != "" {
		if zone, err = time.LoadLocation(t.Zone); err != nil {
			return time.Time{}
		}
	}
	return cron.Next(now, zone)
}

// cronJob is the job that runs a pattern when a cron says so, again and again.
func (h *Hub) cronJob(ctx context.Context, c Caller, id triggerID, w wantedTrigger) (*checkedJob, error) {
	t := &w.trigger
	where := t.Where
	if where == "" {
		where = "*"
	}
	zone := t.Zone
	if zone == "" {
		zone = "UTC"
	}
	now := time.Now().UTC()
	return h.prepareJob(ctx, c, JobSpec{
		Description: "trigger of the pattern " + id.pattern + ": " + t.Cron,
		Labels:      map[string]string{"pattern": id.pattern, "trigger": id.trigger},
		Targets:     JobTargets{Where: where},
		Action:      JobAction{Run: &JobRun{Pattern: id.pattern, Version: w.pattern.Manifest.Version, Params: t.Params}},
		Policy:      rollout.Policy{Start: nextCron(t, now), Repeat: t.Cron, RepeatZone: zone},
		AllowEmpty:  true,
	}, now)
}

// endTriggerJobTx cancels the job of a trigger, unless it has ended.
func (h *Hub) endTriggerJobTx(tx *storage.Tx, job, why string) error {
	if job == "" {
		return nil
	}
	r, err := loadJob(tx, job)
	if isGoneJob(err) || err == nil && r.ended() {
		return nil
	}
	if err != nil {
		return err
	}
	r.NextRun = time.Time{}
	switch {
	case r.State.Status.Final(): // between two runs
		r.State.Status, r.State.Reason = rollout.JobCanceled, why
	case r.State.Status != rollout.JobCanceling:
		if err := r.State.Cancel(why); err != nil {
			return jobState(job, err)
		}
	}
	return h.storeJobTx(tx, hubCaller("job:"+job), job, &r)
}

// dropTrigger forgets a trigger that works no more, in steps: it may know a whole
// fleet. Once that has begun it is forgotten, also if it is to work again.
func (h *Hub) dropTrigger(ctx context.Context, id triggerID) error {
	for {
		var keys []storage.Key
		err := h.view(ctx, "read a trigger", func(r storage.Reader) (err error) {
			keys, err = firstKeys(triggerDeviceTable, r, storage.Range{Prefix: id.key()}, goneBatch)
			return err
		})
		if err != nil {
			return err
		}
		err = h.step(ctx, "trigger.drop", func(tx *storage.Tx) error {
			record, err := triggerTable.Get(tx, id.key())
			if errors.Is(err, storage.ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			for _, k := range keys {
				if err := triggerDeviceTable.Delete(tx, k); err != nil {
					return err
				}
			}
			if len(keys) == goneBatch {
				record.Dropping = true
				return triggerTable.Put(tx, id.key(), record)
			}
			const why = "the trigger works no more: its pattern was disabled, removed or changed"
			return errors.Join(h.endTriggerJobTx(tx, record.Job, why), triggerTable.Delete(tx, id.key()))
		})
		if err != nil || len(keys) < goneBatch {
			return err
		}
	}
}
