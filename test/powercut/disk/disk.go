// Package disk models what a disk holds after a power cut.
//
// A Disk is told of every operation that creates, resizes, syncs, renames or
// removes a file below one directory. For each file it keeps the content at
// its last completed sync, page by page; what was written since is read from
// the live file when a cut is made, so writes through mappings are seen as
// well. Changes of names and sizes form one ordered list, as a journaling file
// system has it: a sync of a file makes certain all changes up to the last one
// that concerns the file, a sync of a directory those up to the last one in
// the directory.
//
// An image is one state that the disk could show after the cut: a prefix of
// the uncertain changes, and of each file the synced pages with any subset of
// the later ones, some of them torn between sectors.
//
// Not modelled: file systems that order names more weakly (POSIX alone allows
// it), drives that lose what they reported as synced (Lie aside), sectors that
// are torn or damaged, and states of a page between its sync and the cut other
// than mixtures of both by sector.
package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Event is one operation on the directory. Paths are relative to it.
type Event struct {
	Op    string // open, create, truncate, write, sync, syncdir, rename, remove
	Path  string
	To    string // of rename
	After bool   // the operation is done; else it is about to start
}

// Disk records. Its methods may be called by several goroutines.
type Disk struct {
	// Watch is called at each event, while every other operation waits.
	// It may make images; it must not call other methods of the Disk.
	Watch func(e Event, c *Cut)
	// Stall is called before each operation, outside the lock, and may wait:
	// a slow disk.
	Stall func(e Event)
	// Lie names files whose syncs are reported and not done.
	Lie func(path string) bool
	// Unseen names files that need no modelling and are left out of images.
	Unseen func(path string) bool

	root string

	mu      sync.Mutex
	stopped bool
	live    map[string]*Node // names as the processes see them
	certain map[string]*Node // names after a cut that loses all uncertain changes
	changes []change         // uncertain, oldest first
	serial  uint64           // of the newest change or sync
	counts  map[string]int
	err     error
}

// Node is a file, whatever its name.
type Node struct {
	path    string   // newest name
	f       *os.File // the Disk's own, for reading
	synced  content  // certain
	takenAt uint64   // serial when synced was taken
	resizes []change // certain and later than takenAt
	gone    bool     // it has no name any more, now and after a cut
}

type change struct {
	op       string // create, resize, rename, remove
	node     *Node
	path, to string
	size     int64
	before   content // what a resize found
	serial   uint64
}

// New starts a record of root, whose present content counts as certain.
// The fields of the Disk must be set before the first operation.
func New(root string) (*Disk, error) {
	d := &Disk{root: filepath.Clean(root), live: map[string]*Node{}, counts: map[string]int{}}
	err := d.walk(func(path string) error {
		n, err := d.newNode(path)
		if err != nil {
			return err
		}
		n.synced, err = readContent(n.f, content{})
		d.live[path] = n
		return err
	})
	d.certain = maps.Clone(d.live)
	return d, err
}

// Stop ends the record: from now on operations only run.
func (d *Disk) Stop() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return d.err
	}
	d.stopped = true
	open := map[*Node]bool{}
	for _, n := range d.live {
		open[n] = true
	}
	for _, n := range d.certain {
		open[n] = true
	}
	for _, c := range d.changes {
		open[c.node] = true
	}
	for n := range open {
		_ = n.f.Close()
	}
	return d.err
}

// Counts returns how often each operation was done to files of each
// extension: "create .sst" and so on.
func (d *Disk) Counts() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.counts)
}

// rel returns path relative to the root, false if it is not below it.
func (d *Disk) rel(path string) (string, bool) {
	r, err := filepath.Rel(d.root, path)
	if err != nil || r == ".." || strings.HasPrefix(r, "../") {
		return "", false
	}
	return r, true
}

// walk calls f with each regular file that is to be modelled.
func (d *Disk) walk(f func(path string) error) error {
	return filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		r, _ := d.rel(path)
		if d.Unseen != nil && d.Unseen(r) {
			return nil
		}
		return f(r)
	})
}

func (d *Disk) newNode(path string) (*Node, error) {
	f, err := os.Open(filepath.Join(d.root, path))
	if err != nil {
		return nil, err
	}
	return &Node{path: path, f: f, synced: content{pages: map[int64][]byte{}}}, nil
}

// begin takes the lock, unless the operation is none of the record's.
func (d *Disk) begin(e Event, known bool) bool {
	if !known || d.Unseen != nil && d.Unseen(e.Path) {
		return false
	}
	if d.Stall != nil {
		d.Stall(e)
	}
	d.mu.Lock()
	if d.stopped {
		d.mu.Unlock()
		return false
	}
	d.event(e)
	return true
}

func (d *Disk) event(e Event) {
	if d.stopped {
		return
	}
	if e.After {
		d.counts[e.Op+" "+filepath.Ext(e.Path)]++
	}
	if d.Watch != nil {
		d.Watch(e, &Cut{d})
	}
}

// fail keeps the first error of the record itself.
func (d *Disk) fail(err error) {
	if d.err == nil && err != nil {
		d.err = fmt.Errorf("power-cut record: %w", err)
	}
}

func (d *Disk) add(c change) {
	d.serial++
	c.serial = d.serial
	d.changes = append(d.changes, c)
}

// Open runs do, which opens path with these flags, and returns the node; nil
// for files outside the directory.
func (d *Disk) Open(path string, flag int, do func() error) (*Node, error) {
	r, ok := d.rel(path)
	e := Event{Op: "open", Path: r}
	if !d.begin(e, ok) {
		return nil, do()
	}
	defer d.mu.Unlock()
	n := d.live[r]
	var before content
	if n != nil && flag&os.O_TRUNC != 0 {
		before = d.read(n)
	}
	if err := do(); err != nil {
		return nil, err
	}
	switch {
	case n == nil:
		var err error
		if n, err = d.newNode(r); err != nil {
			d.fail(err)
			return nil, nil
		}
		if flag&os.O_CREATE == 0 {
			d.fail(fmt.Errorf("%s was created unseen", r))
		}
		d.live[r] = n
		d.add(change{op: "create", node: n, path: r})
		e.Op = "create"
	case before.size > 0:
		d.add(change{op: "resize", node: n, before: before})
		e.Op = "truncate"
	}
	e.After = true
	d.event(e)
	return n, nil
}

// Find returns the node that path names now, nil if there is none.
func (d *Disk) Find(path string) *Node {
	r, _ := d.rel(path)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.live[r]
}

// Lookup returns the node that path names now, nil outside the directory. A
// name below it that the record does not know is an error of the record.
func (d *Disk) Lookup(path string) *Node {
	r, ok := d.rel(path)
	if !ok || d.Unseen != nil && d.Unseen(r) {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.live[r]
	if n == nil && !d.stopped {
		d.fail(fmt.Errorf("%s is used but was created unseen", r))
	}
	return n
}

// Truncate runs do, which gives the file this size.
func (d *Disk) Truncate(n *Node, size int64, do func() error) error {
	e := d.nodeEvent("truncate", n)
	if !d.begin(e, n != nil) {
		return do()
	}
	defer d.mu.Unlock()
	before := d.read(n)
	if err := do(); err != nil {
		return err
	}
	if before.size != size {
		d.add(change{op: "resize", node: n, size: size, before: before})
	}
	e.After = true
	d.event(e)
	return nil
}

// Write runs do, which writes to the file without a change of the record: it
// is only a moment at which power may end.
func (d *Disk) Write(n *Node, do func() error) error {
	e := d.nodeEvent("write", n)
	if !d.begin(e, n != nil) {
		return do()
	}
	d.mu.Unlock()
	if err := do(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e.After = true
	d.event(e)
	return nil
}

// Sync runs do, which makes the file's content durable. Only what was written
// before the start of the sync counts as synced by it.
func (d *Disk) Sync(n *Node, do func() error) error {
	e := d.nodeEvent("sync", n)
	if !d.begin(e, n != nil) {
		return do()
	}
	lie := d.Lie != nil && d.Lie(e.Path)
	now := d.read(n)
	d.serial++
	at, last := d.serial, uint64(0)
	for _, c := range d.changes {
		if c.node == n {
			last = c.serial
		}
	}
	d.mu.Unlock()
	if err := do(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return nil
	}
	if !lie {
		d.commit(last)
		if at > n.takenAt {
			n.synced, n.takenAt = now, at
			// A later resize may have become certain while do ran.
			n.resizes = slices.DeleteFunc(n.resizes, func(c change) bool { return c.serial < at })
			for _, c := range n.resizes {
				n.synced = n.synced.resized(c.size)
			}
		}
	}
	e.After = true
	d.event(e)
	return nil
}

// SyncDir runs do, which makes the names in the directory durable.
func (d *Disk) SyncDir(dir string, do func() error) error {
	r, ok := d.rel(dir)
	e := Event{Op: "syncdir", Path: r}
	if !d.begin(e, ok) {
		return do()
	}
	last := uint64(0)
	for _, c := range d.changes {
		if c.op != "resize" && (filepath.Dir(c.path) == r || c.op == "rename" && filepath.Dir(c.to) == r) {
			last = c.serial
		}
	}
	d.mu.Unlock()
	if err := do(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return nil
	}
	d.commit(last)
	e.After = true
	d.event(e)
	return nil
}

// Remove runs do, which removes the name.
func (d *Disk) Remove(path string, do func() error) error {
	r, ok := d.rel(path)
	e := Event{Op: "remove", Path: r}
	if !d.begin(e, ok) {
		return do()
	}
	defer d.mu.Unlock()
	if err := do(); err != nil {
		return err
	}
	if n := d.live[r]; n != nil {
		delete(d.live, r)
		d.add(change{op: "remove", node: n, path: r})
	}
	e.After = true
	d.event(e)
	return nil
}

// Rename runs do, which renames a file.
func (d *Disk) Rename(from, to string, do func() error) error {
	r, ok := d.rel(from)
	rto, okTo := d.rel(to)
	e := Event{Op: "rename", Path: r, To: rto}
	if !d.begin(e, ok && okTo) {
		return do()
	}
	defer d.mu.Unlock()
	if err := do(); err != nil {
		return err
	}
	n := d.live[r]
	if n == nil {
		d.fail(fmt.Errorf("rename of %s, which was created unseen", r))
		return nil
	}
	delete(d.live, r)
	d.live[rto] = n
	n.path = rto
	d.add(change{op: "rename", node: n, path: r, to: rto})
	e.After = true
	d.event(e)
	return nil
}

func (d *Disk) nodeEvent(op string, n *Node) Event {
	if n == nil {
		return Event{Op: op}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return Event{Op: op, Path: n.path}
}

// read returns the live content of n.
func (d *Disk) read(n *Node) content {
	if n.gone {
		return n.synced // an open file without a name: no image will show it
	}
	c, err := readContent(n.f, n.synced)
	d.fail(err)
	return c
}

// commit makes all changes up to and with serial certain.
func (d *Disk) commit(serial uint64) {
	for len(d.changes) > 0 && d.changes[0].serial <= serial {
		c := d.changes[0]
		d.changes = d.changes[1:]
		if gone := c.apply(d.certain); gone != nil && !d.named(gone) {
			gone.gone = true
			_ = gone.f.Close()
		}
		if c.op == "resize" && c.serial > c.node.takenAt {
			c.node.synced = c.node.synced.resized(c.size)
			c.before = content{}
			c.node.resizes = append(c.node.resizes, c)
		}
	}
}

// named says whether n has a name still, now or after a cut.
func (d *Disk) named(n *Node) bool {
	for _, names := range []map[string]*Node{d.live, d.certain} {
		for _, o := range names {
			if o == n {
				return true
			}
		}
	}
	return false
}

// apply makes the change in a set of names and returns the node that lost
// its name by it.
func (c change) apply(names map[string]*Node) (gone *Node) {
	switch c.op {
	case "create":
		gone = names[c.path]
		names[c.path] = c.node
	case "rename":
		gone = names[c.to]
		names[c.to] = c.node
		delete(names, c.path)
	case "remove":
		gone = c.node
		delete(names, c.path)
	}
	return gone
}
