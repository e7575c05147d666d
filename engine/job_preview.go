package engine

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// JobPreview is what a job would do if it were made now.
type JobPreview struct {
	Spec     JobSpec // with the defaults of its policy
	Kind     JobKind
	Count    int64 // targets, exactly
	Sample   []JobTarget
	Excluded []JobExclusion
	Waves    []JobWavePreview
	First    time.Time // when its first attempt could start; zero: never
	// Active are the jobs that still have something to do on some of the sample, too:
	// one device does one job's work at a time.
	Active   []JobConflict
	Warnings []rollout.Fault
	// Confirm is what whoever starts the job is to type first, since that is
	// dangerous or reaches many; empty: nothing. CreateJob needs the token then.
	Confirm string
	Token   string    // for CreateJob
	Expires time.Time // of the token
}

// JobTarget is one target of a preview, and what the job would do to it.
type JobTarget struct {
	ID     TwinID
	Wave   int
	Effect JobEffect
}

// JobExclusion says how many targets are left out for one reason, and some of them.
type JobExclusion struct {
	Reason string // "exclude", "excludeWhere", "the pattern does not apply", or "notFound" of ids that there are not
	Count  int64
	Sample []TwinID
}

// JobWavePreview is what would be in a wave.
type JobWavePreview struct {
	Size     int
	Diverse  bool
	Approval bool
	Targets  []TwinID // all of a small wave before the last, such as the canary; else none
}

// JobConflict is a job that is busy with the same devices, or will be.
type JobConflict struct {
	Job      string
	Kind     JobKind
	Status   rollout.JobStatus
	Priority int
	Targets  int // on how many of the sample's it still has something to do
}

// Bounds of a preview.
const (
	previewSample    = 100
	previewMost      = 1000
	previewExcluded  = 20  // shown of each reason
	previewWave      = 100 // targets of a wave that are shown one by one
	previewConflicts = 50  // active jobs that are compared with the sample
)

// PreviewJob says what a job would do, exactly to how many targets, and gives a
// token that binds CreateJob to it. sample bounds the targets that are shown, which
// are those of the first small wave and others by chance; 0 is 100, at most
// 1000. Errors are those of CreateJob, and a bad condition is always one. It needs
// ServiceConnect.
func (h *Hub) PreviewJob(ctx context.Context, c Caller, s JobSpec, sample int) (JobPreview, error) {
	if err := h.authorize(ctx, c, opJobRead, s.ID); err != nil {
		return JobPreview{}, err
	}
	now := time.Now().UTC()
	checked, err := h.prepareJob(ctx, c, s, now)
	if err == nil {
		err = checked.fault
	}
	if err != nil {
		return JobPreview{}, err
	}
	if sample <= 0 {
		sample = previewSample
	}
	if err := h.queries.waitReady(ctx); err != nil {
		return JobPreview{}, err
	}
	leave, err := h.queries.enter(ctx)
	if err != nil {
		return JobPreview{}, err
	}
	defer leave()
	p := &preview{hub: h, checked: checked, sum: h.newTargetSum(), most: min(sample, previewMost), zones: map[string]int64{}, left: map[string]*JobExclusion{}}
	if err := p.look(ctx); err != nil {
		return JobPreview{}, err
	}
	if p.sum.Count == 0 && !s.AllowEmpty {
		left := map[string]int{}
		for reason, e := range p.left {
			left[reason] = int(e.Count)
		}
		return JobPreview{}, noTargets(checked, left)
	}
	return p.show(ctx, now)
}

// preview looks at all targets once, and remembers what it has to show.
type preview struct {
	hub       *Hub
	checked   *checkedJob
	most      int
	sum       *targetSum
	zones     map[string]int64 // targets by zone
	left      map[string]*JobExclusion
	chance    []sampled  // those with the lowest numbers by chance
	limit     uint64     // above it nobody gets among them
	rows      [][]string // all targets in order, when waves need them; 16 bytes each
	diversity *diversity
}

// sampled is a target that may be shown.
type sampled struct {
	numbered
	chance uint64
}

func (p *preview) look(ctx context.Context) error {
	t, policy := p.checked.targets, &p.checked.spec.Policy
	p.limit = 1<<64 - 1
	p.diversity = newDiversity(t, policy, p.hub.queries.known)
	ask := targetAsk{left: p.leave}
	if t.zone != nil {
		ask.paths = append(ask.paths, t.zone)
	}
	from := len(ask.paths)
	if p.diversity != nil {
		ask.paths = append(ask.paths, p.diversity.paths...)
	}
	// One goroutine finds the targets, another one adds them up: each takes as long.
	found := make(chan []string, 4)
	var adding sync.WaitGroup
	adding.Go(func() {
		number := int64(0)
		for ids := range found {
			for _, row := range ids {
				if chance := p.sum.add(row); chance < p.limit {
					p.draw(sampled{numbered{row, number}, chance})
				}
				number++
			}
		}
	})
	number := int64(0)
	err := p.hub.eachTarget(ctx, t, ask, func(rows []query.Row) bool {
		ids := make([]string, len(rows))
		for i := range rows {
			ids[i] = rows[i].ID
		}
		found <- ids
		if len(policy.Waves) > 1 {
			p.rows = append(p.rows, ids)
		}
		for i := range rows {
			row := &rows[i]
			if t.zone != nil {
				p.zones[p.hub.zones.name(row.Values[0])]++
			}
			if p.diversity != nil {
				p.diversity.add(row.ID, number, row.Values[from:])
			}
			number++
		}
		return number <= int64(p.hub.limits.JobTargets)
	})
	close(found)
	adding.Wait()
	if err != nil {
		return err
	}
	if most := p.hub.limits.JobTargets; number > int64(most) {
		return tooManyTargets(most)
	}
	if t.zone == nil {
		p.zones[""] = number
	}
	p.prune(p.most)
	return nil
}

// draw takes a target among those that may be shown.
func (p *preview) draw(s sampled) {
	p.chance = append(p.chance, s)
	if len(p.chance) >= 4*p.most {
		p.prune(p.most)
		p.limit = p.chance[len(p.chance)-1].chance
	}
}

func (p *preview) prune(most int) {
	slices.SortFunc(p.chance, func(a, b sampled) int { return cmp.Compare(a.chance, b.chance) })
	p.chance = p.chance[:min(len(p.chance), most)]
}

func (p *preview) leave(reason, row string) {
	e := p.left[reason]
	if e == nil {
		e = &JobExclusion{Reason: reason}
		p.left[reason] = e
	}
	e.Count++
	if len(e.Sample) < previewExcluded {
		e.Sample = append(e.Sample, twinIDOfRow(row))
	}
}

// row returns the target with a number; all of them must have been kept.
func (p *preview) row(n int64) string {
	for _, rows := range p.rows {
		if n < int64(len(rows)) {
			return rows[n]
		}
		n -= int64(len(rows))
	}
	return ""
}

// show makes the preview of what was seen.
func (p *preview) show(ctx context.Context, now time.Time) (JobPreview, error) {
	spec := &p.checked.spec
	policy := &spec.Policy
	out := JobPreview{Spec: *spec, Kind: p.checked.action.kind(), Count: p.sum.Count, Excluded: []JobExclusion{}, Expires: now.Add(previewLifetime).Truncate(time.Second)}
	hash, err := jobHash(spec, p.checked.saved)
	if err != nil {
		return out, err
	}
	out.Token = p.hub.previewToken(hash, p.sum, out.Expires)
	for _, reason := range []string{leftExclude, leftExcludeWhere, leftApplies, leftNotFound} {
		if e := p.left[reason]; e != nil {
			out.Excluded = append(out.Excluded, *e)
		}
	}
	var dealer *deal
	out.Waves, dealer = p.waves(jobSeed(spec, p.checked.saved))
	var shown []sampled
	if len(out.Waves) > 1 {
		for _, id := range out.Waves[0].Targets[:min(len(out.Waves[0].Targets), p.most)] {
			_, row := id.row()
			shown = append(shown, sampled{numbered: numbered{row, -1}})
		}
	}
	for _, s := range p.chance {
		if len(shown) < p.most && !slices.ContainsFunc(shown, func(o sampled) bool { return o.row == s.row }) {
			shown = append(shown, s)
		}
	}
	offline, faulty, idle := 0, 0, 0
	twins, err := p.twins(ctx, shown)
	if err != nil {
		return out, err
	}
	effects, err := p.effects(ctx, twins)
	if err != nil {
		return out, err
	}
	for i, t := range twins {
		if t.Tags == nil {
			continue // gone since
		}
		target := JobTarget{ID: t.Identity.ID(), Effect: effects[i]}
		if shown[i].n >= 0 {
			target.Wave = dealer.of(shown[i].n)
		}
		out.Sample = append(out.Sample, target)
		switch {
		case target.Effect.Fault != "":
			faulty++
		case out.Kind == JobTwin && len(target.Effect.Changes) == 0:
			idle++
		case out.Kind != JobTwin && !target.Effect.Connected:
			offline++
		}
	}
	plan, err := rollout.NewPlan(*policy)
	if err != nil {
		return out, wrapf(CodeArgumentInvalid, err, "%s", err.Error())
	}
	out.First = p.first(plan, now)
	if out.Active, err = p.conflicts(ctx, out.Sample); err != nil {
		return out, err
	}
	if out.Warnings, err = p.checked.sizedWarnings(now, int(p.sum.Count)); err != nil {
		return out, err
	}
	out.Warnings = append(out.Warnings, p.warnings(&out, offline, faulty, idle)...)
	out.Confirm = p.checked.confirm(p.sum.Count)
	return out, nil
}

// waves returns what would be in each wave, and who deals the targets out.
func (p *preview) waves(seed uint64) ([]JobWavePreview, *deal) {
	policy := &p.checked.spec.Policy
	sizes := policy.WaveSizes(int(p.sum.Count))
	var picked [][]numbered
	if p.diversity != nil && len(policy.Waves) > 1 {
		picked = p.diversity.choose(policy, sizes)
	}
	dealer := newDeal(seed, p.sum.Count, sizes, picked)
	list := make([]JobWavePreview, len(sizes))
	for w, size := range sizes {
		list[w] = JobWavePreview{Size: size}
		if w < len(policy.Waves) {
			list[w].Diverse, list[w].Approval = policy.Waves[w].Diverse, policy.Waves[w].Approval
		}
		if w == len(sizes)-1 || size > previewWave {
			continue
		}
		if w < len(picked) {
			for _, one := range picked[w] {
				list[w].Targets = append(list[w].Targets, twinIDOfRow(one.row))
			}
		}
		for _, n := range dealer.dealt(w) {
			list[w].Targets = append(list[w].Targets, twinIDOfRow(p.row(n)))
		}
	}
	return list, dealer
}

// effects says what the job would do to each twin of the sample.
func (p *preview) effects(ctx context.Context, twins []Twin) ([]JobEffect, error) {
	if p.checked.pattern != nil {
		return p.hub.previewRuns(ctx, p.checked, twins)
	}
	list := make([]JobEffect, len(twins))
	for i := range twins {
		if twins[i].Tags != nil {
			list[i] = p.checked.action.preview(p.hub, &twins[i])
		}
	}
	return list, nil
}

func (p *preview) twins(ctx context.Context, shown []sampled) (list []Twin, err error) {
	rows := make([]string, len(shown))
	for i, s := range shown {
		rows[i] = s.row
	}
	err = p.hub.view(ctx, "read twins", func(r storage.Reader) error {
		list, err = p.hub.readTwins(r, rows, make([]uint32, len(rows)))
		return err
	})
	return list, err
}

// first is when the first attempt could start.
func (p *preview) first(plan *rollout.Plan, now time.Time) (first time.Time) {
	begin := now
	if start := plan.Policy().Start; start.After(now) {
		begin = start
	}
	for zone := range p.zones {
		at := begin
		if open, change := plan.Open(begin, zone); !open {
			at = change
		}
		if !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// conflicts returns the jobs that still have something to do on some of the sample.
func (p *preview) conflicts(ctx context.Context, sample []JobTarget) (list []JobConflict, err error) {
	h, now := p.hub, time.Now()
	err = h.view(ctx, "compare with other jobs", func(r storage.Reader) error {
		list = []JobConflict{}
		var docs []query.Value
		compared := 0
		for _, status := range []rollout.JobStatus{rollout.JobRunning, rollout.JobPaused, rollout.JobQueued, rollout.JobScheduled, rollout.JobCanceling} {
			for item, err := range jobTable.Lookup(r, "status", storage.Range{Prefix: storage.Tuple(string(status))}) {
				if err != nil {
					return err
				}
				if compared++; compared > previewConflicts {
					return nil
				}
				parts, err := item.Key.Parts()
				if err != nil {
					return err
				}
				id, _ := parts[0].(string)
				spec, err := loadJobSpec(r, id)
				if err != nil {
					return err
				}
				targets, err := h.parseTargets(&spec.Spec, spec.Saved)
				if err != nil {
					continue // it will fail when it runs
				}
				for len(docs) < len(sample) {
					doc, _, err := hubDocuments{hub: h, metadata: true}.document(r, sample[len(docs)].ID)
					if err != nil && !isGone(err) {
						return err
					}
					docs = append(docs, doc)
				}
				conflict := JobConflict{Job: id, Kind: item.Value.Kind, Status: status, Priority: item.Value.Priority}
				for i, t := range sample {
					if !targets.has(t.ID, docs[i], now) {
						continue
					}
					left, err := leftToDo(r, id, &item.Value, t.ID)
					if err != nil {
						return err
					}
					if left {
						conflict.Targets++
					}
				}
				if conflict.Targets > 0 {
					list = append(list, conflict)
				}
			}
		}
		return nil
	})
	return list, err
}

// leftToDo reports whether a job that has not ended still has something to do on
// an identity that matches its targets. While targets are pending, one without an
// execution is taken for one of them: a preview has up to a thousand for each of fifty
// jobs, and to find one among them is a search through blocks of 500.
func leftToDo(r storage.Reader, job string, record *jobRecord, id TwinID) (bool, error) {
	s := &record.State
	if !s.LaidOut {
		return true, nil
	}
	e, err := executionTable.Get(r, executionKey(job, record.Run, id))
	if errors.Is(err, storage.ErrNotFound) {
		return s.Dynamic || s.Total().Pending > 0, nil
	}
	return err == nil && !e.final(), err
}

// warnings are those that only the targets tell.
func (p *preview) warnings(out *JobPreview, offline, faulty, idle int) (list []rollout.Fault) {
	warn := func(path, reason, expected string) {
		list = append(list, rollout.Fault{Path: path, Reason: reason, Expected: expected})
	}
	of := " of the " + strconv.Itoa(len(out.Sample)) + " that are shown"
	if p.checked.targets.all {
		warn("targets", "are all "+plural(int(out.Count), p.checked.targets.noun())+" of the hub", "")
	}
	if out.Count == 0 {
		warn("targets", "are none now", "")
	}
	if faulty > 0 {
		warn("action", "would fail on "+strconv.Itoa(faulty)+of, "")
	}
	if idle > 0 {
		warn("action", "would change nothing on "+strconv.Itoa(idle)+of, "")
	}
	if offline > 0 {
		warn("action", strconv.Itoa(offline)+of+" are not connected", "time enough for them to come: policy.timeout")
	}
	if p.checked.targets.zone != nil && p.zones[""] > 0 {
		warn("policy.windows", "have no zone of "+plural(int(p.zones[""]), "target")+": the tag is absent, or is none", "the window's own timeZone counts for them")
	}
	if out.First.IsZero() && out.Count > 0 {
		warn("policy.windows", "never open", "")
	}
	return list
}
