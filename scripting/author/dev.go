package author

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/scripting/scenario"
)

// DevOptions are of Dev.
type DevOptions struct {
	Trace string        // regular expression: the trace of the first test that it matches is shown
	Every time.Duration // between two looks; 0: 200 ms
	Once  bool          // do it once and end
	Out   io.Writer
	// Passed, unless nil, is given what has passed its tests, as a version of its
	// own ("0.1.0-dev.1767225600"); what it returns is shown.
	Passed func(b *pattern.Bundle) (string, error)
}

// Dev watches a pattern's folder until ctx ends: at first, and whenever a file
// has changed, it checks the source, runs the tests, and shows what a run of one
// of them did on its device. It looks at times and sizes of the few files that a
// pattern has instead of having the system tell it: that is the same everywhere,
// on shared folders and in containers, too, and costs nothing that one could see.
func Dev(ctx context.Context, dir string, o DevOptions) error {
	if o.Every <= 0 {
		o.Every = 200 * time.Millisecond
	}
	only, err := regexp.Compile(o.Trace)
	if err != nil {
		return fmt.Errorf("the name of a test %q is no regular expression: %w", o.Trace, err)
	}
	if _, err := os.Stat(filepath.Join(dir, pattern.MainFile)); err != nil {
		return fmt.Errorf("%s: %w", dir, ErrNoPattern)
	}
	tick := time.NewTicker(o.Every)
	defer tick.Stop()
	for last := (stamp{}); ; {
		now, err := stampOf(dir)
		if err != nil {
			return err
		}
		if now != last {
			last = now
			if err := look(ctx, dir, only, o); err != nil || o.Once {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// stamp is what a folder's files look like from outside.
type stamp [sha256.Size]byte

func stampOf(dir string) (stamp, error) {
	h := sha256.New()
	err := walk(dir, func(name, file string) error {
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it goes away just now
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(h, "%s %d %d\n", name, info.Size(), info.ModTime().UnixNano())
		return err
	})
	return stamp(h.Sum(nil)), err
}

// look checks, tests and shows.
func look(ctx context.Context, dir string, only *regexp.Regexp, o DevOptions) error {
	began := time.Now()
	say := func(format string, args ...any) error {
		_, err := fmt.Fprintf(o.Out, format, args...)
		return err
	}
	if err := say("%s\n", strings.Repeat("-", 72)); err != nil {
		return err
	}
	b, _, err := Read(dir)
	if err != nil { // what is half written is complete a moment later
		return say("%v\n", err)
	}
	findings, m := Check(b)
	if len(findings) > 0 {
		if err := Text(o.Out, dir, b, findings); err != nil {
			return err
		}
	}
	if m == nil {
		return nil
	}
	r, err := scenario.Test(ctx, b, scenario.Options{Find: Neighbours(dir)})
	if err != nil {
		return say("%v\n", Placed(b, err))
	}
	if err := r.Text(o.Out, false); err != nil {
		return err
	}
	for i := range r.Tests {
		t := &r.Tests[i]
		if !only.MatchString(t.Name) || len(t.Runs) == 0 || t.Failure != nil {
			continue
		}
		if err := say("%s\n", t.Name); err != nil {
			return err
		}
		for n := range t.Runs {
			if err := t.Runs[n].Text(o.Out); err != nil {
				return err
			}
		}
		break
	}
	if o.Passed != nil && r.Passed() && !slices.ContainsFunc(findings, func(f Finding) bool { return f.Level == LevelError }) {
		text, err := o.Passed(versioned(b, m.Version, began))
		if err != nil {
			text = "not installed: " + err.Error()
		}
		if err := say("%s\n", text); err != nil {
			return err
		}
	}
	return say("%s %s: looked in %s\n", m.Name, m.Version, time.Since(began).Round(time.Millisecond))
}

// versioned is a bundle with a version of the moment, after the one that the
// source has written out; as it is, if that is not to be found.
func versioned(b *pattern.Bundle, version string, now time.Time) *pattern.Bundle {
	mark := "-"
	if strings.Contains(version, "-") {
		mark = "."
	}
	plain, _, _ := strings.Cut(version, "+")
	find := regexp.MustCompile(`(\bversion\s*=\s*["'])` + regexp.QuoteMeta(version) + `(["'])`)
	done := false
	out := &pattern.Bundle{Files: maps.Clone(b.Files)}
	out.Files[pattern.MainFile] = find.ReplaceAllFunc(b.Files[pattern.MainFile], func(text []byte) []byte {
		if done {
			return text
		}
		done = true
		return find.ReplaceAll(text, fmt.Appendf(nil, "${1}%s%sdev.%d${2}", plain, mark, now.UnixMilli()))
	})
	return out
}
