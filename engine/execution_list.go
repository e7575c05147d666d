package engine

import (
	"context"
	"encoding/hex"
	"errors"
	"iter"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// What one page of executions holds and looks at, at most.
const (
	executionPage     = 1000
	executionScan     = 20_000
	executionJobsMost = 200 // active jobs that are asked whether a device is still to come
)

// ExecutionFilter selects executions; what is empty selects all.
type ExecutionFilter struct {
	Run    uint64 // 0: the newest
	Status rollout.ExecutionStatus
	Wave   *int
}

// executionCursor is the place in a list of executions: those that have begun
// come first, then the targets in blocks.
type executionCursor struct {
	run     uint64 // of the first page, also when another one has begun since
	pending bool
	after   storage.Key // of the last execution, or of the block's
	skip    int         // targets of that block that were given
}

func (c executionCursor) String() string {
	return hex.EncodeToString(storage.Tuple(c.run, c.pending, []byte(c.after), uint64(c.skip)))
}

func parseExecutionCursor(text string) (c executionCursor, err error) {
	foreign := errf(CodeArgumentInvalid, "the cursor is not one that this list gave; start again without a cursor")
	b, err := hex.DecodeString(text)
	if err != nil {
		return c, foreign
	}
	parts, err := storage.Key(b).Parts()
	if err != nil || len(parts) != 4 {
		return c, foreign
	}
	run, ok1 := parts[0].(uint64)
	pending, ok2 := parts[1].(bool)
	after, ok3 := parts[2].([]byte)
	skip, ok4 := parts[3].(uint64)
	if !ok1 || !ok2 || !ok3 || !ok4 || skip > targetBlockSize {
		return c, foreign
	}
	return executionCursor{run, pending, after, int(skip)}, nil
}

// Executions lists the executions of a job by device, those that have begun
// before those that are pending. A page may hold fewer than limit; next is empty
// at the end. It needs ServiceConnect. CodeArgumentInvalid for a run or a wave that the job does
// not have.
func (h *Hub) Executions(ctx context.Context, c Caller, job string, f ExecutionFilter, cursor string, limit int) (list []Execution, next string, err error) {
	if err := h.authorize(ctx, c, opJobRead, job); err != nil {
		return nil, "", err
	}
	if f.Status != "" && !slices.Contains(rollout.ExecutionStatuses(), f.Status) {
		return nil, "", errf(CodeArgumentInvalid, "status %q is not known; expected one of %s", clip(string(f.Status)), words(rollout.ExecutionStatuses()))
	}
	if limit <= 0 || limit > executionPage {
		limit = executionPage
	}
	var from executionCursor
	if cursor != "" {
		if from, err = parseExecutionCursor(cursor); err != nil {
			return nil, "", err
		}
	}
	err = h.view(ctx, "list executions", func(r storage.Reader) error {
		record, err := loadJob(r, job)
		if err != nil {
			return err
		}
		if f.Run > record.Run {
			return errf(CodeArgumentInvalid, "the job %q has no run %d; its newest is %d", clip(job), f.Run, record.Run)
		}
		if f.Wave != nil {
			if err := checkWave(r, job, &record, *f.Wave); err != nil {
				return err
			}
		}
		l := &executionLister{r: r, job: job, record: &record, filter: f, at: from, limit: limit, list: []Execution{}}
		if l.at.run == 0 {
			l.at.run = record.Run
			if f.Run != 0 {
				l.at.run = f.Run
			}
		}
		more, err := l.page()
		list, next = l.list, ""
		if more {
			next = l.at.String()
		}
		return err
	})
	return list, next, err
}

// checkWave refuses a wave, from 0, that a job does not have: that none of its
// executions are in it would be no answer.
func checkWave(r storage.Reader, job string, record *jobRecord, wave int) error {
	waves := len(record.State.Waves)
	if !record.State.LaidOut { // those of the state come with the targets
		spec, err := loadJobSpec(r, job)
		if err != nil {
			return err
		}
		waves = len(spec.Spec.Policy.Waves)
	}
	if wave >= 0 && wave < waves {
		return nil
	}
	expected := "1, its only one"
	if waves > 1 {
		expected = "1 to " + strconv.Itoa(waves)
	}
	return errf(CodeArgumentInvalid, "the job %q has no wave %d; expected %s", clip(job), wave+1, expected)
}

// executionLister makes one page.
type executionLister struct {
	r      storage.Reader
	job    string
	record *jobRecord
	filter ExecutionFilter
	at     executionCursor
	limit  int
	list   []Execution
	places []executionCursor // behind each of list, when track is set
	track  bool
	seen   int
	size   int
}

// add lists an execution behind which a page may end there.
func (l *executionLister) add(e Execution, place executionCursor) {
	l.list = append(l.list, e)
	if l.track {
		place.run, place.after = l.at.run, slices.Clone(place.after)
		l.places = append(l.places, place)
	}
}

func (l *executionLister) page() (more bool, err error) {
	if !l.at.pending {
		if l.filter.Status != rollout.ExecutionPending {
			if full, err := l.begun(); err != nil || full {
				return full, err
			}
		}
		l.at.pending, l.at.after = true, nil
	}
	if l.filter.Status != "" && l.filter.Status != rollout.ExecutionPending || l.at.run != l.record.Run || !l.record.State.LaidOut {
		return false, nil
	}
	return l.pending()
}

// begun lists executions that are stored; full says that the page is.
func (l *executionLister) begun() (full bool, err error) {
	// Those of one status have an index, but most have succeeded, and have not.
	prefix, items := storage.Tuple(l.job, l.at.run), executionTable.Scan
	if s := l.filter.Status; s != "" && s != rollout.ExecutionSucceeded {
		prefix = storage.Tuple(l.job, l.at.run, string(s))
		items = func(r storage.Reader, g storage.Range) iter.Seq2[storage.Item[executionRecord], error] {
			return executionTable.Lookup(r, "status", g)
		}
	}
	g := storage.Range{Prefix: prefix}
	if len(l.at.after) > 0 {
		g.After = l.at.after
	}
	for item, err := range items(l.r, g) {
		if err != nil {
			return false, err
		}
		_, _, id, err := executionOfKey(item.Key)
		if err != nil {
			return false, err
		}
		e := &item.Value
		if (l.filter.Status == "" || l.filter.Status == e.Status) && (l.filter.Wave == nil || *l.filter.Wave == e.Wave) {
			l.add(e.show(l.job, l.at.run, l.record.Kind, id), executionCursor{after: item.Key})
			l.size += 256 + len(e.Answer) + len(e.Message)
		}
		if l.seen++; l.full() {
			l.at.after = slices.Clone(item.Key)
			if l.filter.Status != "" && l.filter.Status != rollout.ExecutionSucceeded {
				l.at.after = slices.Concat(prefix, item.Key)
			}
			return true, nil
		}
	}
	return false, nil
}

func (l *executionLister) full() bool {
	return len(l.list) >= l.limit || l.seen >= executionScan || l.size >= historyBytes
}

// pending lists targets in blocks.
func (l *executionLister) pending() (more bool, err error) {
	g := storage.Range{Prefix: storage.Tuple(l.job, l.at.run), End: storage.Tuple(l.job, l.at.run, uint64(stagedWave))}
	if l.filter.Wave != nil {
		g = storage.Range{Prefix: storage.Tuple(l.job, l.at.run, uint64(max(0, *l.filter.Wave)))}
	}
	if len(l.at.after) > 0 {
		g.Start = l.at.after
	}
	for item, err := range targetTable.Scan(l.r, g) {
		if err != nil {
			return false, err
		}
		place, err := placeOfKey(item.Key)
		if err != nil {
			return false, err
		}
		block := item.Value
		skip := 0
		if slices.Equal(item.Key, l.at.after) {
			skip = min(l.at.skip, len(block))
		}
		for i := skip; i < len(block); i++ {
			taken := false
			if l.record.State.Dynamic {
				if taken, err = executionTable.Has(l.r, executionKey(l.job, l.at.run, block[i])); err != nil {
					return false, err
				}
			}
			if !taken {
				l.add(pendingExecution(l.job, l.record, place.wave, block[i]), executionCursor{pending: true, after: item.Key, skip: i + 1})
			}
			if l.seen++; l.full() {
				l.at.after, l.at.skip = slices.Clone(item.Key), i+1
				return true, nil
			}
		}
	}
	return false, nil
}

// Execution returns how a job stands with one device or module; run 0 is the
// newest. CodeJobNotFound when the device is none of its targets. It needs
// ServiceConnect.
func (h *Hub) Execution(ctx context.Context, c Caller, job string, run uint64, id TwinID) (e Execution, err error) {
	if err := h.authorize(ctx, c, opJobRead, job); err != nil {
		return e, err
	}
	err = h.view(ctx, "read execution", func(r storage.Reader) error {
		record, err := loadJob(r, job)
		if err != nil {
			return err
		}
		if run == 0 {
			run = record.Run
		}
		found := false
		if e, found, err = executionOn(r, job, run, &record, id); err == nil && !found {
			err = errf(CodeJobNotFound, "%q is none of the targets of the job %q", id, clip(job))
		}
		return err
	})
	return e, err
}

// executionOn returns how a run of a job stands with an identity; found is false
// when that is none of its targets.
func executionOn(r storage.Reader, job string, run uint64, record *jobRecord, id TwinID) (e Execution, found bool, err error) {
	stored, err := executionTable.Get(r, executionKey(job, run, id))
	if err == nil {
		return stored.show(job, run, record.Kind, id), true, nil
	}
	if !errors.Is(err, storage.ErrNotFound) || run != record.Run {
		return e, false, ignoreNotFound(err)
	}
	wave, pending, err := pendingIn(r, job, record, id)
	if err != nil || !pending {
		return e, false, err
	}
	return pendingExecution(job, record, wave, id), true, nil
}

func ignoreNotFound(err error) error {
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	return err
}

// pendingIn reports whether an identity is a pending target of a job, and in
// which wave. Queues are in the order of rows, beside what came to match later:
// that is at their end, and is looked through.
func pendingIn(r storage.Reader, job string, record *jobRecord, id TwinID) (wave int, pending bool, err error) {
	if !record.State.LaidOut {
		return 0, false, nil
	}
	_, row := id.row()
	rowOf := func(id TwinID) string { _, row := id.row(); return row }
	for item, err := range targetQueueTable.Scan(r, storage.Range{Prefix: storage.Tuple(job, record.Run)}) {
		if err != nil {
			return 0, false, err
		}
		p, err := placeOfKey(item.Key)
		if err != nil {
			return 0, false, err
		}
		q := item.Value
		found := false
		look := func(n uint64) (first string) {
			var block targetBlock
			if block, err = targetTable.Get(r, p.block(n)); err != nil || len(block) == 0 {
				return ""
			}
			found = found || slices.Contains(block, id)
			return rowOf(block[0])
		}
		if record.State.Dynamic {
			for n := q.First; n < q.Next && !found && err == nil; n++ {
				look(n)
			}
		} else {
			// The block before the first one that begins behind the row.
			behind := sort.Search(int(q.Next-q.First), func(i int) bool { return err != nil || look(q.First+uint64(i)) > row })
			if behind > 0 && !found && err == nil {
				look(q.First + uint64(behind) - 1)
			}
		}
		if err != nil || found {
			return p.wave, found, err
		}
	}
	return 0, false, nil
}

// DeviceJobs lists the executions of all jobs on a device or module, by job,
// those that are stored before those of active jobs that are still to come to it.
// It needs ServiceConnect.
func (h *Hub) DeviceJobs(ctx context.Context, c Caller, id TwinID, cursor string, limit int) (list []Execution, next string, err error) {
	if err := h.authorize(ctx, c, opJobRead, id.String()); err != nil {
		return nil, "", err
	}
	if limit <= 0 || limit > executionPage {
		limit = executionPage
	}
	var from executionCursor
	if cursor != "" {
		if from, err = parseExecutionCursor(cursor); err != nil {
			return nil, "", err
		}
	}
	list = []Execution{}
	err = h.view(ctx, "list the jobs of a device", func(r storage.Reader) error {
		list, next = list[:0], ""
		if _, err := loadIdentity(r, id); err != nil {
			return err
		}
		if !from.pending {
			g := storage.Range{Prefix: id.key()}
			if len(from.after) > 0 {
				g.After = from.after
			}
			size := 0
			for item, err := range executionTable.Lookup(r, "device", g) {
				if err != nil {
					return err
				}
				job, run, _, err := executionOfKey(item.Key)
				if err != nil {
					return err
				}
				record, err := loadJob(r, job)
				if isGoneJob(err) {
					continue // it is being removed
				}
				if err != nil {
					return err
				}
				list = append(list, item.Value.show(job, run, record.Kind, id))
				if size += 256 + len(item.Value.Answer); len(list) == limit || size >= historyBytes {
					next = executionCursor{after: slices.Concat(id.key(), item.Key)}.String()
					return nil
				}
			}
		}
		return eachActive(r, executionJobsMost, func(job string, record *jobRecord) error {
			if has, err := executionTable.Has(r, executionKey(job, record.Run, id)); err != nil || has {
				return err
			}
			wave, pending, err := pendingIn(r, job, record, id)
			if pending {
				list = append(list, pendingExecution(job, record, wave, id))
			}
			return err
		})
	})
	return list, next, err
}

func isGoneJob(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == CodeJobNotFound
}

// eachActive calls f with the jobs that have not ended, at most most of them.
func eachActive(r storage.Reader, most int, f func(job string, record *jobRecord) error) error {
	for _, status := range rollout.JobStatuses() {
		if status.Final() {
			continue
		}
		for item, err := range jobTable.Lookup(r, "status", storage.Range{Prefix: storage.Tuple(string(status))}) {
			if err != nil {
				return err
			}
			if most--; most < 0 {
				return nil
			}
			parts, err := item.Key.Parts()
			if err != nil {
				return err
			}
			id, _ := parts[0].(string)
			if err := f(strings.Clone(id), &item.Value); err != nil {
				return err
			}
		}
	}
	return nil
}
