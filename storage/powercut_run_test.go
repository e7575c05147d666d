//go:build powercut

package storage

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-hub/muster/test/powercut/disk"
)

var (
	cutSeed   = flag.Uint64("powercut.seed", 1, "seed of the run")
	cutImages = flag.Int("powercut.images", 4, "images to make under load")
	cutWork   = flag.String("powercut.work", "", "existing directory for the run's data; what is bad stays there")
	cutOut    = flag.String("powercut.out", "", "file for a JSON line per image")
	cutLie    = flag.Bool("powercut.lie", false, "known-bad variant: syncs of the journal do nothing")
)

// cutReport is one image, as test/powercut reads it.
type cutReport struct {
	Phase       string      `json:"phase"`  // load, close, or open: power ends during recovery
	Moment      string      `json:"moment"` // the event of the cut
	Image       *disk.Image `json:"image,omitempty"`
	Rotations   int         `json:"rotations"`
	Flushes     int         `json:"flushes"`
	Compactions int         `json:"compactions"` // tables that compaction removed
	Checkpoints uint64      `json:"checkpoints"`
	Acked       int         `json:"acked"`
	Issued      int         `json:"issued"`
	Bad         string      `json:"bad,omitempty"`
	Dir         string      `json:"dir,omitempty"`
}

// cutRun is one directory that lives through several power cuts.
type cutRun struct {
	t      *testing.T
	rng    *rand.Rand
	ctx    context.Context
	work   string
	out    *os.File
	tune   tuning
	model  *cutModel
	record atomic.Pointer[disk.Disk]
	inodes *inodes
	names  int

	manifest manifestWatch // guarded by the record's lock
}

// manifestWatch counts writes to MANIFEST, to find moments at which one is not synced.
type manifestWatch struct{ written, syncing, synced int }

func (m *manifestWatch) watch(e disk.Event) {
	switch {
	case !strings.HasSuffix(e.Path, "MANIFEST"):
	case e.Op == "write" && e.After:
		m.written++
	case e.Op == "sync" && !e.After:
		m.syncing = m.written
	case e.Op == "sync":
		m.synced = m.syncing
	}
}

// TestPowerCutRun makes images and opens them. Without a bad one it says so in its last line of
// output; anything else, the end of the process included, is a bad image.
func TestPowerCutRun(t *testing.T) {
	if *cutWork == "" || *cutOut == "" {
		t.Fatal("run this through: go run ./test/powercut")
	}
	out, err := os.OpenFile(*cutOut, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	r := &cutRun{
		t: t, rng: rand.New(rand.NewPCG(*cutSeed, 0x6d7573746572)), ctx: t.Context(), work: *cutWork, out: out,
		tune: tuning{
			memTable: 256 << 10, numMemtables: 3, tableSize: 128 << 10, baseLevelSize: 256 << 10, levels: 4,
			blockCache: 1 << 20, indexCache: 1 << 20, segmentSize: 256 << 10, segments: 8, settleRest: time.Millisecond,
		},
		model: newCutModel(), inodes: &inodes{number: map[uint64]uint64{}},
	}
	hookBadger(r.record.Load)
	dir := r.newDir("life")
	for range *cutImages {
		image, err := r.life(dir)
		if err != nil {
			t.Fatal(err)
		}
		if image == "" {
			return // bad; what follows would only repeat it
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		dir = image
	}
}

func (r *cutRun) newDir(what string) string {
	r.names++
	return filepath.Join(r.work, fmt.Sprintf("%s-%d", what, r.names))
}

func (r *cutRun) options(dir string) Options {
	o := Options{
		Dir: dir, Reserve: 1,
		CheckpointEvery: time.Duration(5+r.rng.IntN(60)) * time.Millisecond,
		CheckpointBytes: int64(64+r.rng.IntN(512)) << 10,
	}
	if r.rng.IntN(3) == 0 { // seldom: more is unsynced when power ends
		o.CheckpointEvery *= 10
		o.CheckpointBytes = 1536 << 10
	}
	return o
}

// cutPlan is when power ends.
type cutPlan struct {
	phase string
	match func(e disk.Event) bool
	count int // matching events to let pass
}

// plans are the moments worth a cut, chosen with equal chance.
func (r *cutRun) plan() cutPlan {
	ext := func(op string, after bool, exts ...string) func(disk.Event) bool {
		return func(e disk.Event) bool {
			return e.Op == op && e.After == after && slices.Contains(exts, filepath.Ext(e.Path))
		}
	}
	journal := func(op string, after bool) func(disk.Event) bool {
		return func(e disk.Event) bool {
			return e.Op == op && e.After == after && strings.HasPrefix(e.Path, journalDir+"/")
		}
	}
	checkpoint := func(op string, after bool) func(disk.Event) bool {
		return func(e disk.Event) bool {
			switch op {
			case "rename":
				return e.Op == op && e.After == after && e.To == checkpointFile
			case "syncdir":
				return e.Op == op && e.After == after && e.Path == "."
			}
			return e.Op == op && e.After == after && strings.HasPrefix(e.Path, checkpointFile)
		}
	}
	manifest := func(op string, after bool) func(disk.Event) bool {
		return func(e disk.Event) bool {
			return e.Op == op && e.After == after && strings.HasSuffix(e.Path, "MANIFEST")
		}
	}
	rewrite := func(e disk.Event) bool { return strings.HasSuffix(e.Path, "MANIFEST-REWRITE") }
	behindManifest := func(e disk.Event) bool {
		return r.manifest.written > r.manifest.synced && checkpoint("syncdir", true)(e)
	}
	all := func(disk.Event) bool { return true }
	plans := []cutPlan{
		{"load", all, 400},
		{"load", journal("write", false), 60},
		{"load", journal("write", true), 60},
		{"load", journal("sync", false), 60},
		{"load", journal("sync", true), 60},
		{"load", journal("rename", true), 1},
		{"load", ext("sync", false, ".mem"), 8},
		{"load", ext("sync", true, ".mem"), 8},
		{"load", ext("create", true, ".mem"), 4},
		{"load", ext("truncate", true, ".mem"), 6}, // created, or about to be removed
		{"load", ext("remove", true, ".mem"), 4},
		{"load", ext("create", true, ".sst"), 8},
		{"load", ext("sync", false, ".sst"), 8},
		{"load", ext("sync", true, ".sst"), 8},
		{"load", ext("truncate", true, ".sst"), 8},
		{"load", ext("remove", true, ".sst"), 8},
		{"load", manifest("write", false), 8},
		{"load", manifest("write", true), 8},
		{"load", manifest("sync", true), 8},
		{"load", rewrite, 8},
		{"load", behindManifest, 2},
		{"load", checkpoint("sync", true), 6},
		{"load", checkpoint("rename", false), 6},
		{"load", checkpoint("rename", true), 6},
		{"load", checkpoint("syncdir", true), 6},
		{"load", checkpoint("syncdir", true), 6},
		{"close", all, 60},
		{"close", all, 60},
	}
	p := plans[r.rng.IntN(len(plans))]
	p.count = r.rng.IntN(p.count + 1)
	return p
}

// camera takes an image at the planned event.
type camera struct {
	r    *cutRun
	rng  *rand.Rand
	dir  string
	plan cutPlan

	phase   atomic.Value  // of the life: open, load, close
	armed   atomic.Bool   // what the run must have shown before is there
	hurry   atomic.Bool   // the planned moment does not come: take any
	taken   chan struct{} // closed when it is
	once    bool          // guarded by the record's lock, as all below
	acked   [cutWriters]int
	issued  [cutWriters]int
	moment  string
	image   disk.Image
	problem error
}

func (r *cutRun) camera(p cutPlan) *camera {
	c := &camera{r: r, rng: rand.New(rand.NewPCG(r.rng.Uint64(), 1)), dir: r.newDir("image"), plan: p, taken: make(chan struct{})}
	c.phase.Store("")
	return c
}

func (c *camera) watch(e disk.Event, cut *disk.Cut) {
	if c.once || !c.armed.Load() || c.phase.Load() != c.plan.phase || !c.plan.match(e) && !c.hurry.Load() {
		return
	}
	if c.plan.count > 0 && !c.hurry.Load() {
		c.plan.count--
		return
	}
	c.once = true
	c.moment = fmt.Sprintf("%s %s, after: %t", e.Op, e.Path, e.After)
	// What was acknowledged before the image must be in it; what was not even issued when it
	// is complete must not.
	c.acked = c.r.model.acked()
	c.image, c.problem = cut.Image(c.dir, c.rng)
	c.issued = c.r.model.issued()
	close(c.taken)
}

func (c *camera) done() bool {
	select {
	case <-c.taken:
		return true
	default:
		return false
	}
}

// slow makes some flushes and syncs of MANIFEST take long, so that checkpoints pass while rotated
// memtables wait and while MANIFEST has a record that is written and not synced. It waits for a number of journal syncs, or a bounded time when nobody writes.
func (r *cutRun) slow(syncs func() uint64) func(disk.Event) {
	seed := r.rng.Uint64()
	var n atomic.Uint64
	return func(e disk.Event) {
		switch {
		case e.Op == "open" && filepath.Ext(e.Path) == ".sst":
		case e.Op == "sync" && strings.HasSuffix(e.Path, "MANIFEST"):
		case e.Op == "sync" && filepath.Ext(e.Path) == ".mem":
		case e.Op == "syncdir" && e.Path == badgerDir:
		default:
			return
		}
		rng := rand.New(rand.NewPCG(seed, n.Add(1)))
		if rng.IntN(3) != 0 {
			return
		}
		until, tick := syncs()+uint64(rng.IntN(60)), time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for range 40 {
			if syncs() >= until {
				return
			}
			<-tick.C
		}
	}
}

// life opens dir under a record, loads it until the planned cut and returns the image, which has
// been verified on a copy; "" when it was bad.
func (r *cutRun) life(dir string) (image string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	d, err := disk.New(dir)
	if err != nil {
		return "", err
	}
	cam := r.camera(r.plan())
	// Every other life begins with a cut during its open: of a new directory, or of an image, which is
	// a second power cut during recovery.
	recovery := r.camera(cutPlan{"open", func(disk.Event) bool { return true }, r.rng.IntN(200)})
	recovery.armed.Store(r.rng.IntN(2) == 0)
	var journalSyncs atomic.Uint64
	d.Unseen = cutUnseen
	d.Stall = r.slow(journalSyncs.Load)
	if *cutLie {
		d.Lie = func(path string) bool { return strings.HasPrefix(path, journalDir+"/") }
	}
	d.Watch = func(e disk.Event, c *disk.Cut) {
		if e.Op == "sync" && e.After && strings.HasPrefix(e.Path, journalDir+"/") {
			journalSyncs.Add(1)
		}
		r.manifest.watch(e)
		if e.Op == "create" && e.After {
			if st, err := os.Stat(filepath.Join(dir, e.Path)); err == nil {
				r.inodes.fresh(inodeOf(st))
			}
		}
		recovery.watch(e, c)
		cam.watch(e, c)
	}
	r.record.Store(d)
	defer r.record.Store(nil)
	phase := func(p string) { cam.phase.Store(p); recovery.phase.Store(p) }

	phase("open")
	db, err := openWith(r.ctx, r.options(dir), recordedFS{imageFS{inodes: r.inodes}, d}, r.tune)
	if err != nil {
		return "", errors.Join(fmt.Errorf("open under the record: %w", err), d.Stop())
	}
	if all, err := readImage(r.ctx, db); err != nil {
		return "", fmt.Errorf("just opened under the record: %w", err)
	} else if _, err := r.model.match(all, [cutWriters]int{}, [cutWriters]int{}); err != nil {
		return "", fmt.Errorf("just opened under the record: %w", err)
	}
	if recovery.done() {
		rep := cutReport{Phase: "open"}
		if ok, err := r.verify(recovery, &rep, r.model.clone()); err != nil || !ok {
			return "", errors.Join(err, d.Stop(), db.Close())
		}
	}
	before := d.Counts()
	phase("load")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	failed := make(chan error, cutWriters)
	for _, w := range r.model {
		rng := rand.New(rand.NewPCG(r.rng.Uint64(), 2))
		wg.Go(func() {
			if err := w.run(r.ctx, db, rng, stop); err != nil {
				failed <- err
			}
		})
	}
	rep := cutReport{Phase: cam.plan.phase}
	err = r.await(cam, d, db, before, &rep, failed)
	close(stop)
	wg.Wait()
	phase("close")
	if cam.plan.phase == "load" {
		err = errors.Join(err, d.Stop())
		_ = db.Close() // of what power has ended already
	} else if err == nil {
		if err = db.Close(); err == nil && !cam.done() {
			// The planned event lies behind the end: cut right after it.
			cam.plan.count = 0
			err = d.SyncDir(dir, noSync)
		}
		err = errors.Join(err, d.Stop())
	}
	if err != nil {
		return "", err
	}
	if !cam.done() {
		return "", errors.New("the planned moment did not come")
	}
	ok, err := r.verify(cam, &rep, r.model)
	if !ok {
		return "", err
	}
	return cam.dir, err
}

// await waits until the life has rotated, flushed and compacted, arms the camera, and waits for
// the cut; for one during Close only until that may begin.
func (r *cutRun) await(cam *camera, d *disk.Disk, db *DB, before map[string]int, rep *cutReport, failed <-chan error) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	atLeast := 1 + r.rng.IntN(3)
	late := time.Now().Add(3 * time.Second)
	for {
		if cam.armed.Load() && time.Now().After(late) {
			cam.hurry.Store(true)
		}
		select {
		case <-cam.taken:
			return nil
		case err := <-failed:
			return err
		case <-limit.C:
			return fmt.Errorf("after 30 s of load: %d rotations, %d flushes, %d compactions, armed %t, waiting for %d more events; make the sizes smaller",
				rep.Rotations, rep.Flushes, rep.Compactions, cam.armed.Load(), cam.plan.count)
		case <-tick.C:
		}
		if cam.armed.Load() {
			if cam.plan.phase == "close" {
				return nil
			}
			continue
		}
		now := d.Counts()
		since := func(what string) int { return now[what] - before[what] }
		rep.Rotations, rep.Flushes, rep.Compactions = since("create .mem"), since("remove .mem"), since("remove .sst")
		rep.Checkpoints = db.Stats().Checkpoints
		if rep.Rotations >= atLeast && rep.Flushes >= atLeast && rep.Compactions >= atLeast && rep.Checkpoints > 1 {
			cam.armed.Store(true)
		}
	}
}

// verify opens a copy of the image, compares, writes more, opens again and compares again. It
// settles the model on what the image holds. A bad image stays on disk.
func (r *cutRun) verify(cam *camera, rep *cutReport, m *cutModel) (ok bool, err error) {
	rep.Moment, rep.Image = cam.moment, &cam.image
	for i := range cam.acked {
		rep.Acked += cam.acked[i]
		rep.Issued += cam.issued[i]
	}
	if cam.problem != nil {
		return false, cam.problem
	}
	for path, from := range cam.image.From {
		st, err := os.Stat(filepath.Join(cam.dir, path))
		if err != nil {
			return false, err
		}
		r.inodes.same(from, inodeOf(st))
	}
	copied := r.newDir("copy")
	if err := copyImage(cam.dir, copied, r.inodes); err != nil {
		return false, err
	}
	bad := r.inspect(copied, m, cam.acked, cam.issued)
	if bad != nil {
		rep.Bad, rep.Dir = bad.Error(), cam.dir
	}
	b, err := json.Marshal(rep)
	if err != nil {
		return false, err
	}
	if _, err := r.out.Write(append(b, '\n')); err != nil {
		return false, err
	}
	if bad != nil {
		return false, nil
	}
	if rep.Phase == "open" {
		err = os.RemoveAll(cam.dir)
	}
	return true, errors.Join(err, os.RemoveAll(copied))
}

// inspect is the judgement on an image: an error is a bad image.
func (r *cutRun) inspect(dir string, m *cutModel, acked, issued [cutWriters]int) error {
	o := r.options(dir)
	db, err := openWith(r.ctx, o, imageFS{inodes: r.inodes}, r.tune)
	if err != nil {
		return fmt.Errorf("open refused: %w", err)
	}
	all, err := readImage(r.ctx, db)
	if err == nil {
		var n [cutWriters]int
		if n, err = m.match(all, acked, issued); err == nil {
			m.settle(n)
			more := m.clone()
			if err = r.writeMore(db, more); err == nil {
				return r.reopen(db, o, more)
			}
		}
	}
	return errors.Join(err, db.Close())
}

// writeMore writes enough for another rotation, and now and then for compactions.
func (r *cutRun) writeMore(db *DB, m *cutModel) error {
	count := 60
	if r.rng.IntN(4) == 0 {
		count = 300
	}
	failed := make([]error, cutWriters)
	var wg sync.WaitGroup
	for i, w := range m {
		rng := rand.New(rand.NewPCG(r.rng.Uint64(), 3))
		wg.Go(func() {
			for range count {
				w.mu.Lock()
				o := w.draw(rng)
				w.ops = append(w.ops, o)
				w.mu.Unlock()
				if failed[i] = db.Update(r.ctx, func(tx *Tx) error { return w.do(tx, o, nil, 7) }); failed[i] != nil {
					return
				}
				w.mu.Lock()
				w.acked++
				w.mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("writing after the power cut: %w", err)
	}
	return nil
}

func (r *cutRun) reopen(db *DB, o Options, m *cutModel) error {
	if err := db.Close(); err != nil {
		return fmt.Errorf("close after the power cut: %w", err)
	}
	report, err := Verify(r.ctx, o)
	if err != nil || len(report.Problems) > 0 {
		return fmt.Errorf("Verify after the power cut: %v, %w", report.Problems, err)
	}
	if db, err = openWith(r.ctx, o, imageFS{inodes: r.inodes}, r.tune); err != nil {
		return fmt.Errorf("second open: %w", err)
	}
	all, err := readImage(r.ctx, db)
	if err == nil {
		_, err = m.match(all, m.acked(), m.issued())
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("after the second open: %w", err)
	}
	return nil
}
