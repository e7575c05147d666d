package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// Targets are laid out in two phases. First they are collected: the rows that the
// condition selects, in their order, become blocks, in the wave when there is
// only one and else in stagedWave. Then, when their number is known, the staged
// blocks are dealt out into the waves (see job_wave.go). Each step is one
// transaction that moves the plan's cursor with what it wrote, so that a kill
// costs at most one step; the memory is that of a step, and of the candidates
// of diverse waves.

// planTable holds how far the targets of a job are laid out: (job).
var planTable = storage.NewTable("job_plan", 1, storage.JSON[planRecord]())

// planRecord is how far the targets of a run are laid out.
type planRecord struct {
	Run   uint64    `json:"r"`
	Phase planPhase `json:"p,omitempty"`
	After string    `json:"a,omitempty"` // the row behind which collecting goes on
	Found int64     `json:"f,omitempty"`
	// Expect is the sum of the targets that a preview had, and Sum that of those
	// collected so far; nil: there was no preview.
	Expect []byte `json:"e,omitempty"`
	Sum    []byte `json:"s,omitempty"`
	// Picked are the numbers of the targets that were chosen for diverse waves.
	Picked [][]int64 `json:"d,omitempty"`
	Dealt  int64     `json:"n,omitempty"` // targets dealt out so far
}

type planPhase int

const (
	planCollect planPhase = iota
	planDeal
	planDone
)

// stagedWave is behind all waves.
const stagedWave = 1 << 20

const (
	// layOutSlice is for how long one call lays targets out: who calls has more
	// to do.
	layOutSlice = 100 * time.Millisecond
	// A step's targets; ids are up to 256 bytes long, and a group of the store
	// holds some hundred kilobytes.
	layOutTargets = 4000
	layOutBytes   = 128 << 10
)

// errLaidOutElsewhere says that another caller has done a step meanwhile.
var errLaidOutElsewhere = errors.New("the targets were laid out by another caller meanwhile")

// layout is a job whose targets are being laid out.
type layout struct {
	hub     *Hub
	job     string
	record  jobRecord
	spec    jobSpecRecord
	plan    planRecord
	targets *jobTargets
	sum     *targetSum // nil: there was no preview
}

// layOutStep lays out a queued job's targets for some time, and reports
// whether that is done: then State.LayOut was said, or State.Fail with the reason
// why they can't be. It resumes where a kill left it. The columns must be ready
// (CodeUnavailable else).
func (h *Hub) layOutStep(ctx context.Context, job string) (done bool, err error) {
	if err := h.queries.waitReady(ctx); err != nil {
		return false, err
	}
	l := &layout{hub: h, job: job}
	if err := h.view(ctx, "read a job", l.load); err != nil {
		return false, err
	}
	if s := &l.record.State; s.LaidOut || s.Status.Final() || s.Status == rollout.JobCanceling {
		return true, nil
	}
	if l.targets, err = h.parseTargets(&l.spec.Spec, l.spec.Saved); err != nil {
		return true, l.fail(ctx, queryFault(err))
	}
	switch l.plan.Phase {
	case planCollect:
		done, err = l.collect(ctx)
	case planDeal:
		done, err = l.deal(ctx)
	default:
		return true, nil
	}
	if errors.Is(err, errLaidOutElsewhere) {
		return false, nil
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeQueryBudget {
		return true, l.fail(ctx, e.Message)
	}
	return done, err
}

func (l *layout) load(r storage.Reader) (err error) {
	if l.record, err = loadJob(r, l.job); err != nil {
		return err
	}
	if l.spec, err = loadJobSpec(r, l.job); err != nil {
		return err
	}
	l.plan, err = planTable.Get(r, jobKey(l.job))
	if errors.Is(err, storage.ErrNotFound) {
		l.plan, err = planRecord{Run: l.record.Run}, nil
	}
	if err != nil || l.plan.Expect == nil {
		return err
	}
	l.sum = l.hub.newTargetSum()
	if l.plan.Sum != nil {
		if _, ok := l.sum.read(l.plan.Sum); !ok {
			return errors.New("the sum of a job's targets is cut short")
		}
	}
	return nil
}

// step runs one transaction that does f and moves the plan on, unless another
// caller has done so.
func (l *layout) step(ctx context.Context, name string, next planRecord, f func(tx *storage.Tx) error) error {
	before := l.plan
	err := l.hub.step(ctx, name, func(tx *storage.Tx) error {
		now, err := planTable.Get(tx, jobKey(l.job))
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		if now.Phase != before.Phase || now.Found != before.Found || now.Dealt != before.Dealt || err == nil && now.Run != before.Run {
			return errLaidOutElsewhere
		}
		record, err := loadJob(tx, l.job)
		if err != nil {
			return err
		}
		if record.Run != before.Run || record.State.LaidOut || record.State.Status.Final() {
			return errLaidOutElsewhere
		}
		return errors.Join(f(tx), planTable.Put(tx, jobKey(l.job), next))
	})
	if err == nil {
		l.plan = next
	}
	return err
}

func (l *layout) waves() int { return max(1, len(l.spec.Spec.Policy.Waves)) }

// place returns where the targets of a wave and zone go.
func (l *layout) place(wave int, zone string) targetPlace {
	return targetPlace{l.job, l.record.Run, wave, zone}
}

// collect puts the next targets into blocks.
func (l *layout) collect(ctx context.Context) (done bool, err error) {
	begun := time.Now()
	ask := targetAsk{after: l.plan.After, limit: layOutTargets * 4}
	wave := stagedWave
	if l.waves() == 1 {
		wave = 0
		if l.targets.zone != nil {
			ask.paths = []query.Path{l.targets.zone}
		}
	}
	batch := map[string][]TwinID{} // by zone
	last, found, bytes := "", 0, 0
	flush := func() error {
		if found == 0 {
			return nil
		}
		next := l.plan
		next.After, next.Found = last, next.Found+int64(found)
		if next.Found > int64(l.hub.limits.JobTargets) {
			return errf(CodeQueryBudget, "the job has more than %d targets, which is the limit", l.hub.limits.JobTargets)
		}
		if l.sum != nil {
			next.Sum = l.sum.append(nil)
		}
		err := l.step(ctx, "job.collect", next, func(tx *storage.Tx) error {
			for zone, ids := range batch {
				if err := l.place(wave, zone).putTx(tx, ids); err != nil {
					return err
				}
			}
			return nil
		})
		clear(batch)
		found, bytes = 0, 0
		return err
	}
	slice := false
	var failed error
	err = l.hub.eachTarget(ctx, l.targets, ask, func(rows []query.Row) bool {
		for _, row := range rows {
			zone := ""
			if len(ask.paths) > 0 {
				zone = l.hub.zones.name(row.Values[0])
			}
			batch[zone] = append(batch[zone], twinIDOfRow(row.ID))
			if l.sum != nil {
				l.sum.add(row.ID)
			}
			last = row.ID
			found++
			bytes += len(row.ID)
		}
		if found < layOutTargets && bytes < layOutBytes {
			return true
		}
		if failed = flush(); failed != nil {
			return false
		}
		slice = time.Since(begun) >= layOutSlice
		return !slice
	})
	if err = errors.Join(err, failed); err != nil || slice {
		return false, err
	}
	if err := flush(); err != nil {
		return false, err
	}
	return l.collected(ctx)
}

// collected goes on to the next phase.
func (l *layout) collected(ctx context.Context) (done bool, err error) {
	if l.sum != nil {
		expect := l.hub.newTargetSum()
		if _, ok := expect.read(l.plan.Expect); !ok {
			return false, errors.New("the sum of a job's preview is cut short")
		}
		if !l.sum.same(expect) {
			return true, l.fail(ctx, fmt.Sprintf("the targets are no longer those of the preview: %s", l.sum.since(expect)))
		}
	}
	if l.waves() == 1 {
		return true, l.finish(ctx)
	}
	next := l.plan
	next.Phase = planDeal
	sizes := l.spec.Spec.Policy.WaveSizes(int(l.plan.Found))
	if d := newDiversity(l.targets, &l.spec.Spec.Policy, l.hub.queries.known); d != nil {
		if err := l.consider(ctx, d); err != nil {
			return false, err
		}
		for _, wave := range d.choose(&l.spec.Spec.Policy, sizes) {
			numbers := make([]int64, len(wave))
			for i, one := range wave {
				numbers[i] = one.n
			}
			next.Picked = append(next.Picked, numbers)
		}
	}
	return false, l.step(ctx, "job.choose", next, func(*storage.Tx) error { return nil })
}

// consider shows all staged targets to whoever chooses the diverse waves.
func (l *layout) consider(ctx context.Context, d *diversity) error {
	n := int64(0)
	place := l.place(stagedWave, "")
	return l.hub.view(ctx, "look at the targets of a job", func(r storage.Reader) error {
		for item, err := range targetTable.Scan(r, storage.Range{Prefix: place.key()}) {
			if err != nil {
				return err
			}
			rows, err := l.lookUp(ctx, item.Value, d.paths)
			if err != nil {
				return err
			}
			for _, row := range rows {
				if row.Values != nil {
					d.add(row.ID, n, row.Values)
				}
				n++
			}
		}
		return nil
	})
}

func (l *layout) lookUp(ctx context.Context, ids []TwinID, paths []query.Path) ([]query.Row, error) {
	rows := make([]string, len(ids))
	for i, id := range ids {
		_, rows[i] = id.row()
	}
	return l.hub.lookUp(ctx, rows, paths)
}

// deal deals the next staged blocks out.
func (l *layout) deal(ctx context.Context) (done bool, err error) {
	begun := time.Now()
	policy := &l.spec.Spec.Policy
	picked := make([][]numbered, len(l.plan.Picked))
	for w, numbers := range l.plan.Picked {
		for _, n := range numbers {
			picked[w] = append(picked[w], numbered{n: n})
		}
	}
	dealer := newDeal(jobSeed(&l.spec.Spec, l.spec.Saved), l.plan.Found, policy.WaveSizes(int(l.plan.Found)), picked)
	var paths []query.Path
	if l.targets.zone != nil {
		paths = []query.Path{l.targets.zone}
	}
	for time.Since(begun) < layOutSlice {
		var blocks []targetBlock
		err := l.hub.view(ctx, "read the targets of a job", func(r storage.Reader) error {
			size := 0
			for item, err := range targetTable.Scan(r, storage.Range{Prefix: l.place(stagedWave, "").key()}) {
				if err != nil {
					return err
				}
				blocks = append(blocks, item.Value)
				for _, id := range item.Value {
					size += len(id.DeviceID) + len(id.ModuleID)
				}
				if len(blocks)*targetBlockSize >= layOutTargets || size >= layOutBytes {
					return nil
				}
			}
			return nil
		})
		if err != nil {
			return false, err
		}
		if len(blocks) == 0 {
			return true, l.finish(ctx)
		}
		next := l.plan
		batch := map[targetPlace][]TwinID{}
		for _, block := range blocks {
			rows, err := l.lookUp(ctx, block, paths)
			if err != nil {
				return false, err
			}
			for i, id := range block {
				zone := ""
				if len(paths) > 0 && rows[i].Values != nil {
					zone = l.hub.zones.name(rows[i].Values[0])
				}
				p := l.place(dealer.of(next.Dealt), zone)
				batch[p] = append(batch[p], id)
				next.Dealt++
			}
		}
		err = l.step(ctx, "job.deal", next, func(tx *storage.Tx) error {
			n := 0
			for _, block := range blocks {
				n += len(block)
			}
			if ids, err := l.place(stagedWave, "").takeTx(tx, n); err != nil || len(ids) != n {
				return errors.Join(err, errLaidOutElsewhere)
			}
			for p, ids := range batch {
				if err := p.putTx(tx, ids); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// finish says that the targets are known.
func (l *layout) finish(ctx context.Context) error {
	next := planRecord{Run: l.plan.Run, Phase: planDone, Found: l.plan.Found, Dealt: l.plan.Dealt}
	return l.step(ctx, "job.laidOut", next, func(tx *storage.Tx) error {
		record, err := loadJob(tx, l.job)
		if err != nil {
			return err
		}
		s := &record.State
		if s.Status == rollout.JobScheduled { // it waits for its start
			s.Status = rollout.JobQueued
		}
		if err := s.LayOut(l.spec.Spec.Policy.WaveSizes(int(l.plan.Found))); err != nil {
			return err
		}
		return l.hub.storeJobTx(tx, hubCaller("job:"+l.job), l.job, &record)
	})
}

// fail says why the targets can't be found.
func (l *layout) fail(ctx context.Context, reason string) error {
	return l.hub.step(ctx, "job.layOutFailed", func(tx *storage.Tx) error {
		record, err := loadJob(tx, l.job)
		if err != nil || record.State.Status.Final() || record.State.LaidOut {
			return err
		}
		if err := record.State.Fail(reason); err != nil {
			return err
		}
		return l.hub.storeJobTx(tx, hubCaller("job:"+l.job), l.job, &record)
	})
}
