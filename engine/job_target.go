package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// The targets of jobs whose turn has not come lie in blocks, in a queue for each
// wave and zone of a run. No execution exists of them yet, which keeps a job over
// a whole fleet cheap. A target that has an execution all the same (of a
// dynamic job, that came to match twice) is dropped when it is taken.
var (
	// targetTable: (job, run, wave, zone, n).
	targetTable = storage.NewTable[targetBlock]("job_target", 1, targetCodec{})
	// targetQueueTable: (job, run, wave, zone). A queue that is empty has no record.
	targetQueueTable = storage.NewTable("job_target_queue", 1, storage.JSON[targetQueue]())
)

// targetBlock is a run of targets.
type targetBlock []TwinID

// targetBlockSize is how many targets a block holds at most.
const targetBlockSize = 500

// targetQueue says which blocks a queue has: nobody has to look for them in a
// transaction, which would have to be prepared again for each commit beside it.
type targetQueue struct {
	First uint64 `json:"f"`
	Next  uint64 `json:"n"` // of the block that comes next; First when there is none
}

// targetPlace names a queue.
type targetPlace struct {
	job  string
	run  uint64
	wave int
	zone string
}

func (p targetPlace) key() storage.Key {
	return storage.Tuple(p.job, p.run, uint64(p.wave), p.zone)
}

func (p targetPlace) block(n uint64) storage.Key {
	return storage.Tuple(p.job, p.run, uint64(p.wave), p.zone, n)
}

// queue returns the place's queue.
func (p targetPlace) queue(r storage.Reader) (targetQueue, error) {
	q, err := targetQueueTable.Get(r, p.key())
	if errors.Is(err, storage.ErrNotFound) {
		return targetQueue{}, nil
	}
	return q, err
}

// storeTx writes a queue, or its end.
func (p targetPlace) storeTx(tx *storage.Tx, q targetQueue) error {
	if q.First == q.Next {
		return targetQueueTable.Delete(tx, p.key())
	}
	return targetQueueTable.Put(tx, p.key(), q)
}

// putTx adds targets at the queue's end.
func (p targetPlace) putTx(tx *storage.Tx, ids []TwinID) error {
	q, err := p.queue(tx)
	if err != nil {
		return err
	}
	for some := range slices.Chunk(ids, targetBlockSize) {
		if err := targetTable.Put(tx, p.block(q.Next), some); err != nil {
			return err
		}
		q.Next++
	}
	return p.storeTx(tx, q)
}

// takeTx takes up to most targets from the queue's beginning.
func (p targetPlace) takeTx(tx *storage.Tx, most int) ([]TwinID, error) {
	q, err := p.queue(tx)
	if err != nil || q.First == q.Next {
		return nil, err
	}
	var ids []TwinID
	for q.First < q.Next && len(ids) < most {
		block, err := targetTable.Get(tx, p.block(q.First))
		if err != nil {
			return nil, err
		}
		if room := most - len(ids); room < len(block) {
			ids = append(ids, block[:room]...)
			return ids, errors.Join(targetTable.Put(tx, p.block(q.First), block[room:]), p.storeTx(tx, q))
		}
		ids = append(ids, block...)
		if err := targetTable.Delete(tx, p.block(q.First)); err != nil {
			return nil, err
		}
		q.First++
	}
	return ids, p.storeTx(tx, q)
}

// placeOfKey reads a queue's key.
func placeOfKey(k storage.Key) (p targetPlace, err error) {
	parts, err := k.Parts()
	if err != nil || len(parts) < 4 {
		return p, errTargetKey
	}
	job, ok1 := parts[0].(string)
	run, ok2 := parts[1].(uint64)
	wave, ok3 := parts[2].(uint64)
	zone, ok4 := parts[3].(string)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return p, errTargetKey
	}
	return targetPlace{job, run, int(wave), zone}, nil
}

var errTargetKey = errors.New("key is not that of a job's targets")

// targetZones returns the zones of which pending targets of a wave are left, at
// most most of them, in order.
func targetZones(r storage.Reader, job string, run uint64, wave, most int) ([]string, error) {
	var zones []string
	for item, err := range targetQueueTable.Scan(r, storage.Range{Prefix: storage.Tuple(job, run, uint64(wave))}) {
		if err != nil {
			return nil, err
		}
		p, err := placeOfKey(item.Key)
		if err != nil {
			return nil, err
		}
		if zones = append(zones, p.zone); len(zones) == most {
			break
		}
	}
	return zones, nil
}

// takeTargetsTx takes up to most pending targets of a wave and a zone, in order:
// they are pending no more. Whoever takes them writes their executions and
// says State.Move in the same transaction.
func takeTargetsTx(tx *storage.Tx, job string, run uint64, wave int, zone string, most int) ([]TwinID, error) {
	return targetPlace{job, run, wave, zone}.takeTx(tx, most)
}

// dropTargetsTx takes up to most pending targets of whatever wave from wave on,
// for a job that is canceled or reaches its end: of one wave at a time, which is
// returned. No ids: none are left.
func dropTargetsTx(tx *storage.Tx, job string, run uint64, wave, most int) (of int, ids []TwinID, err error) {
	for item, err := range targetQueueTable.Scan(tx, storage.Range{Prefix: storage.Tuple(job, run), Start: storage.Tuple(job, run, uint64(wave))}) {
		if err != nil {
			return 0, nil, err
		}
		p, err := placeOfKey(item.Key)
		if err != nil {
			return 0, nil, err
		}
		ids, err := p.takeTx(tx, most)
		return p.wave, ids, err
	}
	return 0, nil, nil
}

// putTargetsTx adds pending targets to a wave and a zone, for dynamic jobs; the
// caller says State.Join.
func putTargetsTx(tx *storage.Tx, job string, run uint64, wave int, zone string, ids []TwinID) error {
	return targetPlace{job, run, wave, zone}.putTx(tx, ids)
}

// beginRunTx makes a job's record ready for its next run: the number, an empty
// state and plan. Its targets are laid out anew.
func beginRunTx(tx *storage.Tx, job string, r *jobRecord) error {
	r.Run++
	r.Ranked = true
	r.State = rollout.NewState(r.State.Dynamic)
	r.Started, r.Ended = time.Time{}, time.Time{}
	r.Revision++
	r.Updated = tx.Now()
	return errors.Join(dropOldRunTx(tx, job, r.Run), planTable.Put(tx, jobKey(job), planRecord{Run: r.Run}))
}

// targetMatches reports whether a twin belongs to the job's targets now, for
// dynamic ones.
func (h *Hub) targetMatches(s *jobSpecRecord, id TwinID, now time.Time) (yes bool, err error) {
	t, err := h.parseTargets(&s.Spec, s.Saved)
	if err != nil {
		return false, err
	}
	err = h.view(context.Background(), "look at a target", func(r storage.Reader) error {
		yes, err = t.matches(h, r, id, now)
		return err
	})
	return yes, err
}

// zoneOf returns the zone of a target by the policy's zone tag, "" when it has
// none that is known.
func (h *Hub) zoneOf(tag string, id TwinID) string {
	path, err := parsePath("zoneTag", tag)
	if err != nil {
		return ""
	}
	_, row := id.row()
	rows, err := h.lookUp(context.Background(), []string{row}, []query.Path{path})
	if err != nil || rows[0].Values == nil {
		return ""
	}
	return h.zones.name(rows[0].Values[0])
}

// zoneNames knows which texts are names of time zones. Only these divide a job's
// targets: a tag can hold anything. Safe for concurrent use.
type zoneNames struct {
	mu    sync.Mutex
	known map[string]bool
}

// Bounds of zoneNames.
const (
	zoneNameBytes  = 64
	zoneNamesKnown = 4096
)

// name returns the name that a value is, "" when it is none.
func (z *zoneNames) name(v query.Value) string {
	s := v.Text()
	if v.Kind() != query.String || s == "" || s == "Local" || len(s) > zoneNameBytes {
		return ""
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	is, seen := z.known[s]
	if !seen {
		if z.known == nil || len(z.known) >= zoneNamesKnown {
			z.known = map[string]bool{}
		}
		_, err := time.LoadLocation(s)
		is = err == nil
		z.known[strings.Clone(s)] = is
	}
	if !is {
		return ""
	}
	return s
}
