// Command powercut tests the storage package against power cuts: it builds the
// package's power-cut run with hooked copies of Badger and ristretto, makes
// images in which unsynced pages are missing or torn, opens each and compares
// it with what was acknowledged. To show that it would notice, it then does the
// same with variants that are known to be bad, and fails if it finds nothing.
//
//	go run ./test/powercut -images 200 -seed 1
//
// It exits with 1 when an image is bad, and leaves that image on disk, or when
// a known-bad variant passes.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/muster-hub/muster/test/powercut/hooked"
)

// imagesPerRun is how many images one process makes, each from the one before.
const imagesPerRun = 4

func main() {
	var o options
	flag.IntVar(&o.images, "images", 200, "images to make under load")
	flag.IntVar(&o.badImages, "bad-images", 80, "images at most until a known-bad variant must have shown itself; 0 leaves the variants out")
	flag.Uint64Var(&o.seed, "seed", 1, "first seed; each run takes the next one")
	flag.IntVar(&o.parallel, "parallel", 2, "runs at a time")
	flag.StringVar(&o.only, "variant", "", "only the known-bad variant of this name")
	flag.BoolVar(&o.verbose, "v", false, "print every image")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "powercut:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to clean up
	}
}

type options struct {
	images, badImages, parallel int
	seed                        uint64
	only                        string
	verbose                     bool
}

// report is what a run says of an image.
type report struct {
	Phase  string `json:"phase"`
	Moment string `json:"moment"`
	Image  struct {
		Changes     int `json:"changes"`
		ChangesLost int `json:"changesLost"`
		Pages       int `json:"pages"`
		PagesLost   int `json:"pagesLost"`
		PagesTorn   int `json:"pagesTorn"`
	} `json:"image"`
	Rotations   int    `json:"rotations"`
	Flushes     int    `json:"flushes"`
	Compactions int    `json:"compactions"`
	Checkpoints int    `json:"checkpoints"`
	Bad         string `json:"bad"`
	Dir         string `json:"dir"`
}

// total is the sum over the images of a variant.
type total struct {
	verbose  bool
	mu       sync.Mutex
	images   int // under load and during Close, each with rotation, flush and compaction
	recovery int // during recovery from another cut
	bad      []string
	sum      report
	unproven int // images without rotation, flush or compaction
}

func (t *total) add(r report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.verbose {
		fmt.Printf("  %+v\n", r)
	}
	if r.Phase == "open" {
		t.recovery++
	} else {
		t.images++
		if r.Rotations == 0 || r.Flushes == 0 || r.Compactions == 0 {
			t.unproven++
		}
	}
	t.sum.Image.Changes += r.Image.Changes
	t.sum.Image.ChangesLost += r.Image.ChangesLost
	t.sum.Image.Pages += r.Image.Pages
	t.sum.Image.PagesLost += r.Image.PagesLost
	t.sum.Image.PagesTorn += r.Image.PagesTorn
	t.sum.Rotations += r.Rotations
	t.sum.Flushes += r.Flushes
	t.sum.Compactions += r.Compactions
	t.sum.Checkpoints += r.Checkpoints
	if r.Bad != "" {
		t.bad = append(t.bad, fmt.Sprintf("%s (%s): %s\n    image: %s", r.Moment, r.Phase, r.Bad, r.Dir))
	}
}

func (t *total) fail(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bad = append(t.bad, text)
}

func (t *total) found() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.bad) > 0
}

func (t *total) print(w io.Writer, name string, took time.Duration) {
	fmt.Fprintf(w, "%-14s %d images + %d of recovery, %d bad; %d memtables rotated, %d flushed, %d tables compacted away, %d checkpoints; pages written since their sync %d, of these %d lost, %d torn; names and sizes %d, of these %d lost; %.0f s\n",
		name, t.images, t.recovery, len(t.bad), t.sum.Rotations, t.sum.Flushes, t.sum.Compactions, t.sum.Checkpoints,
		t.sum.Image.Pages, t.sum.Image.PagesLost, t.sum.Image.PagesTorn, t.sum.Image.Changes, t.sum.Image.ChangesLost, took.Seconds())
}

func run(ctx context.Context, o options, w io.Writer) (err error) {
	root, err := mainModule()
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "powercut-")
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	modfile, err := hooked.Prepare(root, work)
	if err != nil {
		return err
	}
	good, err := build(ctx, root, work, modfile, variant{name: "storage"})
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "power cuts: seed %d, %d at a time\n", o.seed, o.parallel)
	if o.only == "" {
		t := &total{verbose: o.verbose}
		start := time.Now()
		o.spread(ctx, t, good, work, o.images, false)
		t.print(w, "storage", time.Since(start))
		switch {
		case len(t.bad) > 0:
			keep = true
			return fmt.Errorf("%d bad images, kept below %s:\n%s", len(t.bad), work, strings.Join(t.bad, "\n"))
		case t.images < o.images || t.unproven > 0:
			return fmt.Errorf("%d of %d images made, %d of them without rotation, flush or compaction", t.images, o.images, t.unproven)
		}
	}
	if o.badImages == 0 {
		return ctx.Err()
	}
	for _, v := range variants() {
		if o.only != "" && v.name != o.only {
			continue
		}
		bin, err := good, error(nil)
		if len(v.patches) > 0 {
			if bin, err = build(ctx, root, work, modfile, v); err != nil {
				return err
			}
		}
		t := &total{verbose: o.verbose}
		start := time.Now()
		o.spread(ctx, t, bin, work, o.badImages, true, v.args...)
		t.print(w, v.name, time.Since(start))
		if len(t.bad) == 0 {
			return fmt.Errorf("the known-bad variant %q (%s) passed %d images: the harness is blind to it", v.name, v.text, t.images)
		}
		fmt.Fprintf(w, "  found, as it must be: %s\n", t.bad[0])
	}
	return ctx.Err()
}

// spread runs enough processes for so many images, several at a time; with
// untilBad only until the first bad one.
func (o options) spread(ctx context.Context, t *total, bin, work string, images int, untilBad bool, args ...string) {
	seeds := make(chan uint64)
	var wg sync.WaitGroup
	for range o.parallel {
		wg.Go(func() {
			for seed := range seeds {
				one(ctx, t, bin, work, seed, args...)
			}
		})
	}
	for i := range uint64((images + imagesPerRun - 1) / imagesPerRun) {
		if ctx.Err() != nil || untilBad && t.found() {
			break
		}
		seeds <- o.seed + i
	}
	close(seeds)
	wg.Wait()
}

// one is one run in a process of its own, which a broken store may end.
func one(ctx context.Context, t *total, bin, work string, seed uint64, args ...string) {
	dir, err := os.MkdirTemp(work, "run-"+strconv.FormatUint(seed, 10)+"-")
	if err != nil {
		t.fail(err.Error())
		return
	}
	out := filepath.Join(dir, "images.jsonl")
	cmd := exec.CommandContext(ctx, bin, append([]string{
		"-test.run=^TestPowerCutRun$", "-test.timeout=180s",
		"-powercut.seed=" + strconv.FormatUint(seed, 10), "-powercut.images=" + strconv.Itoa(imagesPerRun),
		"-powercut.work=" + dir, "-powercut.out=" + out,
	}, args...)...)
	cmd.Env = append(os.Environ(), "GOGC=400") // short lives, small heaps
	text, err := cmd.CombinedOutput()
	bad, rerr := read(t, out)
	if ctx.Err() != nil {
		return
	}
	if err = errors.Join(err, rerr); err != nil {
		t.fail(fmt.Sprintf("seed %d: %v: %s\n    directory: %s", seed, err, firstLines(text), dir))
		return
	}
	if !bad {
		if err := os.RemoveAll(dir); err != nil {
			t.fail(err.Error())
		}
	}
}

func firstLines(b []byte) string {
	lines := strings.SplitN(strings.TrimSpace(string(b)), "\n", 25)
	return strings.Join(lines[:min(len(lines), 24)], "\n")
}

// read adds the reports of a run.
func read(t *total, path string) (bad bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var r report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return bad, err
		}
		t.add(r)
		bad = bad || r.Bad != ""
	}
	return bad, lines.Err()
}

func mainModule() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("go list -m: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// build compiles the run of a variant.
func build(ctx context.Context, root, work, modfile string, v variant) (string, error) {
	dir := filepath.Join(work, "build-"+v.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	overlay, err := hooked.Overlay(root, dir, v.patches)
	if err != nil {
		return "", fmt.Errorf("variant %s: %w", v.name, err)
	}
	bin := filepath.Join(dir, "run.test")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-tags=powercut", "-trimpath", "-modfile="+modfile, "-overlay="+overlay, "-o", bin, "./storage")
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build of %s: %w\n%s", v.name, err, text)
	}
	return bin, nil
}
