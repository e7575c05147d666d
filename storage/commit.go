package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// The way of a transaction: its first half runs in the caller's goroutine against a snapshot;
// then it waits in the queue. The committer takes what waits, verifies that nothing it read has
// changed (else it prepares again, seeing the groups under way), and adds it to the group that
// it is building. While one group is written and synced by the journal's goroutine, the next
// one gathers; while that one syncs, the one before is made visible and acknowledged by the third
// goroutine. The fourth writes to Badger what was published (settle.go). Order is the order of the
// groups in all four.

// request is one transaction on its way.
type request struct {
	prepare func(tx *Tx) error
	tx      *Tx        // of the newest attempt
	done    chan error // capacity 1; nil for a submitted one
	first   firstHalf  // what most transactions need, in one allocation

	mu       sync.Mutex // held while the committer prepares
	canceled bool
	taken    bool
}

// firstHalf is a transaction's first attempt with room for what a small one reads and writes.
type firstHalf struct {
	tx      Tx
	snap    snapshot
	reads   [4]uint64
	known   [2]knownValue
	writes  [6]pair
	appends [2]logAppend
}

func (r *request) finish(db *DB, err error) {
	if r.done != nil {
		r.done <- err
	} else if err != nil {
		db.count.dropped.Add(1)
	}
	db.commits.answer(1)
}

// group is what becomes one journal record. After it was handed over, writes and index do not
// change, and readers use them.
type group struct {
	seq       uint64
	time      int64
	size      int       // of the record's body, once it is complete
	body      []byte    // the record so far, with room for its header
	writes    []pair    // one a key, the last value
	index     []int32   // places in writes, and 1; where one lies follows from the hash of its key, 0 is none
	packs     []logPack // log entries that are not among writes yet
	sealed    sync.Once // puts them there for good
	db        *DB
	requests  []*request
	until     time.Time // all of them may wait until then; zero: not at all
	callbacks []func(seq uint64)
	logs      map[string]uint64 // new last positions
	err       error
}

// put adds a write, and sets the pair's hash.
func (g *group) put(p pair) {
	p.hash = hashKey(g.db.hash, p.key)
	g.body = appendOp(g.body, p.key, p.value)
	if 2*len(g.writes) >= len(g.index) {
		g.grow()
	}
	at, slot := g.look(p.hash, p.key)
	if at >= 0 {
		g.writes[at].value = p.value
		g.writes[at].hot = g.writes[at].hot || p.hot
		g.writes[at].fresh = g.writes[at].fresh || p.fresh
		return
	}
	g.writes = append(g.writes, p)
	g.index[slot] = int32(len(g.writes))
	g.db.recent.add(p.hash, g.seq)
}

// grow doubles the index, which is never more than half full.
func (g *group) grow() {
	g.index = make([]int32, max(64, 2*len(g.index)))
	for i := range g.writes {
		mask := uint64(len(g.index) - 1)
		slot := g.writes[i].hash & mask
		for g.index[slot] != 0 {
			slot = (slot + 1) & mask
		}
		g.index[slot] = int32(i + 1)
	}
}

// look returns the place of a key in writes, or -1 and the slot of the index where it belongs.
func (g *group) look(hash uint64, key []byte) (at int, slot uint64) {
	for slot = hash & uint64(len(g.index)-1); ; slot = (slot + 1) & uint64(len(g.index)-1) {
		i := int(g.index[slot]) - 1
		if i < 0 || g.writes[i].hash == hash && bytes.Equal(g.writes[i].key, key) {
			return i, slot
		}
	}
}

// seal completes a group that was handed over. The journal's goroutine does it, unless the
// committer has to look at the group before.
func (g *group) seal() { g.sealed.Do(g.closePacks) }

// find returns the place of a key in writes, -1 when it has none.
func (g *group) find(hash uint64, key []byte) int {
	if len(g.index) == 0 {
		return -1
	}
	at, _ := g.look(hash, key)
	return at
}

// limits follow from the sizes of memtable and segment.
type limits struct {
	value      int // bytes of a framed value
	groupBytes int
	groupOps   int
}

// committer is the state of the goroutine that gathers groups; nobody else touches it.
type committer struct {
	db        *DB
	last      uint64 // newest sequence that was given away
	expected  int    // writes of the next group
	current   *group
	under     []*group // handed over and not yet visible when last looked, oldest first
	heads     map[string]*logHead
	counters  map[string]int64
	journal   chan *group
	published chan *group
	bodies    sync.Pool
	patience  *time.Timer // runs while a group waits for others
}

func newCommitter(db *DB, last uint64, heads map[string]*logHead) *committer {
	patience := time.NewTimer(time.Hour)
	patience.Stop()
	return &committer{
		db: db, last: last, heads: heads, counters: map[string]int64{},
		journal: make(chan *group), published: make(chan *group, 1), patience: patience,
	}
}

func (c *committer) run() {
	defer close(c.journal)
	defer c.patience.Stop()
	db := c.db
	for {
		select { // first what waits
		case r := <-db.queue:
			c.take(r)
			continue
		default:
		}
		if c.current != nil && c.mayWait() {
			select {
			case r := <-db.queue:
				c.take(r)
			case <-c.patience.C:
				c.current.until = time.Time{}
			case <-db.closing:
				c.current.until = time.Time{}
			}
			continue
		}
		if c.current != nil {
			select {
			case r := <-db.queue:
				c.take(r)
			case c.journal <- c.current:
				c.handedOver()
			}
			continue
		}
		select {
		case r := <-db.queue:
			c.take(r)
		case <-db.closing:
			for c.drain() {
			}
			if c.current != nil {
				c.handOver()
			}
			return
		}
	}
}

// mayWait reports whether the group that gathers may do so for longer, and sets the timer.
func (c *committer) mayWait() bool {
	if c.current.until.IsZero() {
		return false
	}
	c.patience.Reset(time.Until(c.current.until)) // which may have passed
	return true
}

// drain takes what was queued before the store closed.
func (c *committer) drain() bool {
	select {
	case r := <-c.db.queue:
		c.take(r)
		return true
	default:
		return false
	}
}

func (c *committer) handOver() {
	c.journal <- c.current
	c.handedOver()
}

func (c *committer) handedOver() {
	c.last = c.current.seq
	c.under = append(c.under, c.current)
	c.current = nil
	visible := c.db.visible.Load()
	for len(c.under) > 0 && c.under[0].seq <= visible {
		c.under[0] = nil
		c.under = c.under[1:]
	}
}

// take runs the second half of one transaction.
func (c *committer) take(r *request) {
	if !c.settle(r) {
		return
	}
	tx := r.tx
	if g := c.current; g != nil && (len(g.body)+g.packedBytes()+tx.size > c.db.limits.groupBytes ||
		len(g.writes)+len(tx.writes)+len(tx.appends)+len(tx.adds) > c.db.limits.groupOps) {
		c.handOver()
	}
	var until time.Time
	if tx.patience > 0 {
		until = time.Now().Add(tx.patience)
	}
	if c.current == nil {
		c.current = c.newGroup()
		c.current.until = until
	}
	g := c.current
	if until.Before(g.until) {
		g.until = until
	}
	if err := c.add(g, tx); err != nil { // only reading a counter can fail, before anything is added
		r.finish(c.db, err)
		if len(g.requests) == 0 {
			c.current = nil
		}
		return
	}
	g.requests = append(g.requests, r)
	c.expected = len(g.writes) + len(g.writes)/8
	c.db.count.commits.Add(1)
}

// settle verifies what the transaction read, and prepares it again when that has changed. It
// answers the request itself when there is nothing to commit.
func (c *committer) settle(r *request) (commit bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.canceled {
		c.db.commits.answer(1)
		return false
	}
	r.taken = true
	err := c.db.failure()
	if err == nil && c.stale(r.tx) {
		c.db.count.reprepared.Add(1)
		err = c.prepareAgain(r)
	}
	if err == nil {
		err = r.tx.checkSize()
	}
	if err != nil || r.tx.empty() {
		r.finish(c.db, err)
		return false
	}
	return true
}

func (c *committer) stale(tx *Tx) bool {
	seq := tx.snap.seq
	newest := c.last
	if c.current != nil {
		newest = c.current.seq
	}
	switch {
	case seq == newest:
		return false
	case tx.scanned:
		return true
	case len(tx.reads) == 0:
		return false
	}
	for _, key := range tx.reads {
		if c.db.recent.after(key, seq) {
			c.db.count.conflicts.Add(1)
			return true
		}
	}
	return false
}

// layers returns the groups that a snapshot does not see yet, oldest first.
func (c *committer) layers(visible uint64) []*group {
	var layers []*group
	for _, g := range c.under {
		if g.seq > visible {
			g.seal()
			layers = append(layers, g)
		}
	}
	if c.current != nil {
		c.current.closePacks()
		layers = append(layers, c.current)
	}
	return layers
}

func (c *committer) prepareAgain(r *request) (err error) {
	snap, err := c.db.newSnapshot()
	if err != nil {
		return err
	}
	r.tx = &Tx{db: c.db, snap: snap, now: time.Now().UTC(), layers: c.layers(snap.seq)}
	defer r.tx.end()
	defer func() {
		// A panic here must not end the goroutine that everybody waits for.
		if p := recover(); p != nil {
			c.db.opt.Logger.Error("a transaction panicked in the committer", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("storage: the transaction's function panicked: %v", p)
		}
	}()
	return r.prepare(r.tx)
}

func (c *committer) newGroup() *group {
	// The next group tends to be as large as the last one.
	g := &group{seq: c.last + 1, db: c.db, time: time.Now().UnixNano(), writes: make([]pair, 0, c.expected)}
	if c.expected > 0 {
		g.index = make([]int32, 1<<bits.Len(uint(2*c.expected)))
	}
	if b, ok := c.bodies.Get().(*[]byte); ok {
		g.body = (*b)[:recordHeader]
	} else {
		g.body = make([]byte, recordHeader, 64<<10)
	}
	return g
}

// add puts the transaction's operations into the group. Counters come first because reading
// one can fail.
func (c *committer) add(g *group, tx *Tx) error {
	if len(c.counters)+len(tx.adds) > maxCounters {
		clear(c.counters)
	}
	for _, a := range tx.adds {
		if _, err := c.counter(a.name); err != nil {
			return err
		}
	}
	for _, a := range tx.adds {
		c.counters[a.name] += a.delta
		key := counterKey(a.name)
		g.put(pair{key: key, value: frame(key, 1, binary.BigEndian.AppendUint64(nil, uint64(c.counters[a.name])))})
	}
	g.body = slices.Grow(g.body, tx.size) // at once for a large one, instead of step by step
	for _, w := range tx.writes {
		g.put(w)
	}
	for _, a := range tx.appends {
		head := c.heads[a.log.name]
		if head == nil {
			head = &logHead{}
			c.heads[a.log.name] = head
		}
		e := head.next(a.log, tx.now.UnixNano(), a.data)
		g.pack(a.log, head.position, e)
		if g.logs == nil {
			g.logs = map[string]uint64{}
		}
		g.logs[a.log.name] = head.position
	}
	g.callbacks = append(g.callbacks, tx.callbacks...)
	return nil
}

// maxCounters bounds the counters kept in memory; above it they are read again.
const maxCounters = 10_000

func (c *committer) counter(name string) (int64, error) {
	if n, ok := c.counters[name]; ok {
		return n, nil
	}
	snap, err := c.db.newSnapshot()
	if err != nil {
		return 0, err
	}
	defer snap.end()
	n, err := number(&Tx{db: c.db, snap: snap, layers: c.layers(snap.seq)}, counterKey(name))
	if err != nil {
		return 0, err
	}
	c.counters[name] = n
	return n, nil
}

// sync is the second goroutine: one write and one sync a group.
func (c *committer) sync() {
	defer close(c.published)
	db := c.db
	for g := range c.journal {
		if err := db.failure(); err != nil {
			g.err = err
			c.published <- g
			continue
		}
		g.seal()
		g.size = len(g.body)
		rec := sealRecord(g.body, g.seq, g.time)
		written, err := db.journal.append(rec, g.seq, db.waitForSegment)
		switch {
		case err == nil:
			db.count.groups.Add(1)
			db.count.syncs.Add(1)
			db.count.bytes.Add(uint64(len(rec)))
			db.wrote(int64(len(rec)))
		case !written && errors.Is(err, ErrReadOnly):
			g.err = err
		default:
			// The sync is never tried again: the kernel may have dropped the pages and say yes.
			db.fail(fmt.Errorf("writing the journal: %w", err))
			g.err = fmt.Errorf("%w: writing the journal failed (%w); the store takes no more writes: look at the disk, then restart", ErrUncertain, err)
		}
		c.published <- g
	}
}

func (db *DB) callback(f func(uint64), seq uint64) {
	defer func() {
		if p := recover(); p != nil {
			db.raise(fmt.Errorf("a commit callback panicked: %v", p))
			db.opt.Logger.Error("a commit callback panicked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	f(seq)
}

// begin begins a first half.
func (db *DB) begin(h *firstHalf) (*Tx, error) {
	if err := db.openSnapshot(&h.snap); err != nil {
		return nil, err
	}
	h.tx = Tx{
		db: db, snap: &h.snap, now: time.Now().UTC(), // never before what the snapshot holds
		reads: h.reads[:0], known: h.known[:0], writes: h.writes[:0], appends: h.appends[:0],
	}
	return &h.tx, nil
}

// prepare runs the first half and the checks that need no committer. The request is nil when
// there is nothing to commit.
func (db *DB) prepare(f func(tx *Tx) error, wait bool) (*request, error) {
	now := time.Now()
	if err := db.writable(now); err != nil {
		return nil, err
	}
	r := &request{prepare: f}
	tx, err := db.begin(&r.first)
	if err != nil {
		return nil, err
	}
	defer tx.end()
	if err := f(tx); err != nil {
		return nil, err
	}
	if tx.empty() {
		return nil, nil
	}
	if err := tx.checkSize(); err != nil {
		return nil, err
	}
	if err := db.space.check(now, tx.frees()); err != nil {
		return nil, err
	}
	r.tx = tx
	if wait {
		r.done = db.answer()
	}
	return r, nil
}

// Update runs prepare as one transaction and returns when its effects are durable and visible.
// prepare runs outside the committer first, and once more inside it when what it read has changed,
// so it must have no effects but those on tx and must not call Update. Its error ends the
// transaction and is returned as it is. When ctx ends before the committer took the transaction,
// nothing is stored and its error is returned; later the answer is ErrUncertain.
func (db *DB) Update(ctx context.Context, prepare func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, err := db.prepare(prepare, true)
	if r == nil || err != nil {
		return err
	}
	if err := db.enqueue(ctx, r); err != nil {
		return err
	}
	return db.await(ctx, r)
}

// answer returns a channel for an answer, if possible one that another request is done with.
func (db *DB) answer() chan error {
	if c, ok := db.answers.Get().(chan error); ok {
		return c
	}
	return make(chan error, 1)
}

func (db *DB) enqueue(ctx context.Context, r *request) error {
	db.commits.take()
	select { // one channel costs much less than three
	case db.queue <- r:
		return nil
	default:
	}
	select {
	case db.queue <- r:
		return nil
	case <-ctx.Done():
		db.commits.open.Add(-1) // that it gave up is no sign of life
		return ctx.Err()
	case <-db.closing:
		db.commits.open.Add(-1)
		return ErrClosed
	}
}

func (db *DB) await(ctx context.Context, r *request) error {
	select {
	case err := <-r.done:
		db.answers.Put(r.done)
		return err
	case <-ctx.Done():
		r.mu.Lock()
		taken := r.taken
		r.canceled = true
		r.mu.Unlock()
		if !taken {
			return ctx.Err()
		}
		select {
		case err := <-r.done:
			return err
		default:
			return fmt.Errorf("%w: the caller stopped waiting: %w", ErrUncertain, ctx.Err())
		}
	case <-db.stopped:
		select {
		case err := <-r.done:
			return err
		default:
			return ErrClosed // queued after the committer had drained
		}
	}
}

// Submit is Update without waiting: it prepares, joins the next group and returns. ErrBusy when
// the queue is full. What fails afterwards is counted in Stats.DroppedSubmits.
func (db *DB) Submit(prepare func(tx *Tx) error) error {
	r, err := db.prepare(prepare, false)
	if err != nil {
		db.count.dropped.Add(1)
		return err
	}
	if r == nil {
		return nil
	}
	select {
	case <-db.closing:
		return ErrClosed
	default:
	}
	db.commits.take()
	select {
	case db.queue <- r:
		return nil
	default:
		db.commits.open.Add(-1)
		db.count.dropped.Add(1)
		return fmt.Errorf("%w: %d transactions wait already", ErrBusy, cap(db.queue))
	}
}
