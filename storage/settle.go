package storage

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
)

// A group is visible, and its transactions are answered, once the journal holds it: Badger gets
// it later, together with others. Until then every snapshot that is taken keeps it as a layer over
// Badger. So a flush or compaction that holds Badger up holds nobody else up, and what
// Badger costs for each call is shared by many groups.

// overlay is what a new snapshot sees above Badger. It never changes.
type overlay struct {
	seq    uint64   // newest visible sequence
	groups []*group // visible, and not known to be in Badger; oldest first
}

// settling is the state between the goroutine that publishes groups and the one that writes
// them to Badger.
type settling struct {
	most    int // bytes that may be in view
	view    atomic.Pointer[overlay]
	applied atomic.Uint64 // Badger holds everything up to here
	kick    chan struct{} // capacity 1: there is a group to write
	room    chan struct{} // capacity 1: groups were written
	last    chan struct{} // closed when no more groups will come
	given   chan struct{} // closed when nothing will be written anymore

	mu    sync.Mutex // of changes of view
	bytes int        // in view
}

// Groups gather for tuning.settleRest, or until they hold a quarter of tuning.settleBytes. What a
// busy device writes again and again meanwhile goes into Badger once, and is neither flushed nor
// compacted more often than that.
const (
	// Groups that may wait for Badger, however small they are.
	settleGroups = 4096
	// From so many writes on, writing them in the order of their keys is worth sorting them.
	settleSorted = 128
	// From so many on, Badger's loader is cheaper than a transaction: it allocates most of a
	// megabyte whatever it loads, where a transaction costs about a microsecond for each.
	settleLoaded = 512
	// A group's bytes are used again for another group when they are no more than those of one that
	// holds a step of an import.
	pooledBody = 4 << 20
)

func newSettling() settling {
	return settling{
		kick: make(chan struct{}, 1), room: make(chan struct{}, 1),
		last: make(chan struct{}), given: make(chan struct{}),
	}
}

// settleAt says that everything up to seq lies in Badger and is visible; no goroutine runs yet.
func (db *DB) settleAt(seq uint64) {
	db.settling.view.Store(&overlay{seq: seq})
	db.settling.applied.Store(seq)
	db.visible.Store(seq)
}

// add makes a group visible to all snapshots from now on.
func (s *settling) add(g *group) {
	s.mu.Lock()
	v := s.view.Load()
	// The array may be shared with older views; they are shorter and never see the new element.
	s.view.Store(&overlay{g.seq, append(v.groups, g)})
	s.bytes += g.size
	needed := len(v.groups) == 0 || s.bytes >= s.most/4 // else the writer rests, and looks by itself
	s.mu.Unlock()
	if needed {
		wake(s.kick)
	}
}

func (s *settling) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes > s.most || len(s.view.Load().groups) > settleGroups
}

// remove takes the oldest n groups out of the view: Badger has them.
func (s *settling) remove(n int) {
	s.mu.Lock()
	v := s.view.Load()
	for _, g := range v.groups[:n] {
		s.bytes -= g.size
	}
	s.applied.Store(v.groups[n-1].seq)
	s.view.Store(&overlay{v.seq, slices.Clone(v.groups[n:])}) // a copy, so that the old ones can go
	s.mu.Unlock()
	wake(s.room)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// publish is the third goroutine of a group's way: visibility, callbacks, answers.
func (c *committer) publish() {
	db := c.db
	s := &db.settling
	defer close(db.stopped)
	defer close(s.last)
	for g := range c.published {
		for g.err == nil && s.full() {
			select {
			case <-s.room:
			case <-s.given: // Badger failed; the group is in the journal all the same
				g.err = fmt.Errorf("%w: it is in the journal, but Badger takes nothing more; restart the program", ErrUncertain)
			}
		}
		if g.err == nil {
			if g.time > db.newest.Load() {
				db.newest.Store(g.time)
			}
			db.cache.apply(g.writes, g.seq) // before a snapshot can be as young as the group
			s.add(g)
			db.visible.Store(g.seq)
			db.count.lastGroup.Store(int64(len(g.requests)))
			for name, last := range g.logs {
				db.tails.publish(name, last)
			}
			for _, f := range g.callbacks {
				db.callback(f, g.seq)
			}
			if db.opt.Published != nil {
				db.callback(db.opt.Published, g.seq)
			}
		}
		requests := g.requests
		g.requests, g.callbacks = nil, nil // snapshots may keep the group for long
		for _, r := range requests {
			r.finish(db, g.err)
		}
		if body := g.body; cap(body) <= pooledBody {
			c.bodies.Put(&body)
		}
		g.body = nil
	}
}

// apply is the fourth goroutine: it writes to Badger what was published.
func (db *DB) apply() {
	s := &db.settling
	defer close(s.given)
	rest := time.NewTimer(db.tune.settleRest)
	defer rest.Stop()
	var batch gathered
	for {
		groups := s.view.Load().groups
		if len(groups) == 0 {
			select {
			case <-s.kick:
				continue
			case <-s.last:
			}
			if groups = s.view.Load().groups; len(groups) == 0 {
				return
			}
		}
		n, writes := batch.gather(groups, &db.limits)
		seq := groups[n-1].seq
		if err := db.settleWrites(seq, writes); err != nil {
			// It is in the journal: a restart brings it.
			db.fail(fmt.Errorf("applying a group to Badger: %w", err))
			return
		}
		s.remove(n)
		if _, starved := db.journal.wants(); starved {
			db.kickKeeper() // its checkpoint may free a segment now
		}
		rest.Reset(db.tune.settleRest)
		for resting := true; resting && !s.worth(); {
			select {
			case <-s.kick:
			case <-rest.C:
				resting = false
			case <-s.last:
				resting = false
			}
		}
	}
}

// settleWrites hands writes over to Badger.
func (db *DB) settleWrites(seq uint64, writes []pair) error {
	if f := db.tune.beforeSettle; f != nil {
		if err := f(seq); err != nil {
			return err
		}
	}
	return db.applyToBadger(seq, writes)
}

// worth reports whether what waits need not wait for more.
func (s *settling) worth() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes >= s.most/4 || len(s.view.Load().groups) > settleGroups/2
}

// gathered holds what is written to Badger at once; it is used again and again.
type gathered struct {
	all    []gatheredWrite
	writes []pair
}

type gatheredWrite struct {
	*pair
	at int
}

// gather takes as many of the oldest groups as Badger takes at once, and returns what is left to
// write of them, the newest value of each key. Snapshots that are older than the last of them do
// not miss what is written only at its sequence: they keep the groups.
func (b *gathered) gather(groups []*group, most *limits) (n int, writes []pair) {
	clear(b.all) // lets go of the values of the call before
	clear(b.writes)
	b.all, b.writes = b.all[:0], b.writes[:0]
	size := 0
	for n = 0; n < len(groups); n++ {
		g := groups[n]
		if n > 0 && (size+g.size > most.groupBytes || len(b.all)+len(g.writes) > most.groupOps) {
			break
		}
		size += g.size
		for i := range g.writes {
			b.all = append(b.all, gatheredWrite{&g.writes[i], len(b.all)})
		}
	}
	if len(b.all) < settleSorted && n == 1 {
		return n, groups[0].writes
	}
	// Badger's memtable takes neighbors more cheaply. Of equal keys the newest comes first.
	slices.SortFunc(b.all, func(x, y gatheredWrite) int {
		if c := bytes.Compare(x.key, y.key); c != 0 {
			return c
		}
		return y.at - x.at
	})
	for _, w := range b.all {
		if k := len(b.writes); k == 0 || !bytes.Equal(b.writes[k-1].key, w.key) {
			b.writes = append(b.writes, *w.pair)
		}
	}
	return n, b.writes
}

// badgerDelete is the mark of a deleted key in Badger's files.
const badgerDelete = 1

// applyToBadger writes a group, or several, at one sequence. It has one value for each key.
func (db *DB) applyToBadger(seq uint64, writes []pair) error {
	defer db.builders.settled(writes)
	if len(writes) >= settleLoaded {
		return loadBadger(db.badger, seq, writes)
	}
	txn := db.badger.NewTransactionAt(seq, true)
	defer txn.Discard()
	entries := make([]badger.Entry, len(writes))
	for i, w := range writes {
		if w.value == nil {
			if err := txn.Delete(w.key); err != nil {
				return err
			}
			continue
		}
		e := &entries[i]
		e.Key, e.Value = w.key, w.value
		if err := txn.SetEntry(e); err != nil {
			return err
		}
	}
	return txn.CommitAt(seq, nil)
}

// loadBadger writes in the order given, without the map and the marks of a transaction.
func loadBadger(b *badger.DB, seq uint64, writes []pair) error {
	l := b.NewKVLoader(4)
	kv := pb.KV{Version: seq}
	deleted := []byte{badgerDelete}
	var errs [2]error
	for _, w := range writes {
		kv.Key, kv.Value, kv.Meta = w.key, w.value, nil
		if w.value == nil {
			kv.Meta = deleted
		}
		if errs[0] = l.Set(&kv); errs[0] != nil {
			break
		}
	}
	errs[1] = l.Finish()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// layered yields what Badger has in a range with the layers over it.
func layered(layers []*group, own []pair, lo, hi []byte, reverse bool, base iter.Seq2[pair, error]) iter.Seq2[pair, error] {
	over := above(layers, own, lo, hi)
	if len(over) == 0 {
		return base
	}
	if reverse {
		slices.Reverse(over)
	}
	return merge(over, base, reverse)
}

// above collects what own and the layers (oldest first) hold inside a range, sorted; own wins over
// all layers, and a newer layer over an older one.
func above(layers []*group, own []pair, lo, hi []byte) []pair {
	var over []pair
	var seen map[string]bool
	add := func(writes []pair) {
		for i := range writes {
			w := &writes[i]
			if bytes.Compare(w.key, lo) < 0 || hi != nil && bytes.Compare(w.key, hi) >= 0 || seen[string(w.key)] {
				continue
			}
			if seen == nil {
				seen = map[string]bool{}
			}
			seen[string(w.key)] = true
			over = append(over, *w)
		}
	}
	add(own)
	for _, g := range slices.Backward(layers) {
		add(g.writes)
	}
	slices.SortFunc(over, func(a, b pair) int { return bytes.Compare(a.key, b.key) })
	return over
}

// merge yields both sorted sequences; where both have a key, over wins, and its deletes hide.
func merge(over []pair, base iter.Seq2[pair, error], reverse bool) iter.Seq2[pair, error] {
	return func(yield func(pair, error) bool) {
		rest := over
		for p, err := range base {
			if err != nil {
				yield(p, err)
				return
			}
			for len(rest) > 0 {
				c := bytes.Compare(rest[0].key, p.key)
				if reverse {
					c = -c
				}
				if c > 0 {
					break
				}
				w := rest[0]
				rest = rest[1:]
				if w.value != nil && !yield(w, nil) {
					return
				}
				if c == 0 {
					p.key = nil
					break
				}
			}
			if p.key != nil && !yield(p, nil) {
				return
			}
		}
		for _, w := range rest {
			if w.value != nil && !yield(w, nil) {
				return
			}
		}
	}
}

// recent remembers when keys were written last. Keys share places by their hashes, so it may name
// a later time, and never an earlier one: a place only goes up. The committer writes it, and the
// journal's goroutine when it seals a group while the next one gathers already; both before the
// group can be seen. Everybody reads it.
type recent [recentKeys]atomic.Uint64

const recentKeys = 1 << 17

func (r *recent) add(key, seq uint64) {
	place := &r[key%recentKeys]
	for old := place.Load(); old < seq && !place.CompareAndSwap(old, seq); old = place.Load() {
	}
}

// after reports whether the key may have been written after a sequence.
func (r *recent) after(key, seq uint64) bool { return r[key%recentKeys].Load() > seq }

// lookup finds a key in layers, oldest first; ok is false when none of them has it.
func lookup(layers []*group, hash uint64, key []byte) (value []byte, ok bool) {
	for i := len(layers) - 1; i >= 0; i-- {
		if at := layers[i].find(hash, key); at >= 0 {
			return layers[i].writes[at].value, true
		}
	}
	return nil, false
}
