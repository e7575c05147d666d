package scenario

import (
	"context"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/scripting"
)

// Folder is where the files of tests lie in a bundle.
const Folder = "test"

// Test runs the tests of a bundle, its files test/*.lua. An error means that
// they could not begin: the pattern does not load, a file of tests has an error
// of syntax, or ctx ended.
func Test(ctx context.Context, b *pattern.Bundle, o Options) (*Report, error) {
	return testWith(ctx, b, o, scripting.Execute)
}

// testWith is Test with another way to run programs.
func testWith(ctx context.Context, b *pattern.Bundle, o Options, x execute) (*Report, error) {
	began := time.Now()
	main, err := loadPattern("", b)
	if err != nil {
		return nil, err
	}
	r := &runner{options: o, execute: x, main: main, bundle: b, lines: map[string]map[int]bool{}, others: map[string]*loaded{}}
	if o.Run != "" {
		if r.only, err = regexp.Compile(o.Run); err != nil {
			return nil, fmt.Errorf("the name of tests %q is no regular expression: %w", o.Run, err)
		}
	}
	report := &Report{Pattern: main.name, Version: main.manifest.Version}
	for _, file := range slices.Sorted(maps.Keys(b.Files)) {
		if path.Dir(file) != Folder || !strings.HasSuffix(file, ".lua") {
			continue
		}
		list, err := r.file(ctx, file)
		if err != nil {
			return nil, err
		}
		report.Tests = append(report.Tests, list...)
	}
	if o.Cover {
		report.Cover = cover(b, r.lines)
	}
	report.Time = time.Since(began)
	return report, nil
}

// loadPattern makes a bundle a pattern that can be run; name is what it must be
// called, if that is not empty.
func loadPattern(name string, b *pattern.Bundle) (*loaded, error) {
	m, err := scripting.Load(b)
	if err != nil {
		return nil, err
	}
	if name != "" && m.Name != name {
		return nil, fmt.Errorf("the pattern is called %q, not %q", m.Name, name)
	}
	p, err := scripting.Compile(b)
	if err != nil {
		return nil, err
	}
	return &loaded{name: m.Name, bundle: b, manifest: m, program: p}, nil
}

// runner runs the tests of one pattern, one after another.
type runner struct {
	options Options
	execute execute
	only    *regexp.Regexp
	main    *loaded
	bundle  *pattern.Bundle
	made    func(*lab) // what tests of this package do to a lab; nil: nothing
	lines   map[string]map[int]bool

	finding sync.Mutex // guards others
	others  map[string]*loaded
}

// find loads another pattern of which a test speaks.
func (r *runner) find(name string) (*loaded, error) {
	r.finding.Lock()
	defer r.finding.Unlock()
	if p := r.others[name]; p != nil {
		return p, nil
	}
	if r.options.Find == nil {
		return nil, fmt.Errorf("the pattern %q is not here: give t:pattern a function that stands for it", name)
	}
	b, err := r.options.Find(name)
	if err != nil {
		return nil, err
	}
	p, err := loadPattern(name, b)
	if err != nil {
		return nil, err
	}
	r.others[name] = p
	return p, nil
}

// compileScript compiles a file of tests.
func compileScript(file string, source []byte) (*script, error) {
	proto, err := scripting.CompileFile(file, source)
	if err != nil {
		return nil, err
	}
	return &script{path: file, proto: proto}, nil
}

// file runs the tests of one file.
func (r *runner) file(ctx context.Context, file string) ([]Result, error) {
	s, err := compileScript(file, r.bundle.Files[file])
	if err != nil {
		return nil, err
	}
	l, tests, err := load(ctx, s)
	if err != nil {
		f := (&attempt{}).failureOf(err)
		return nil, &pattern.Fault{Code: pattern.FaultLua, Message: f.Message, Line: f.Place, Trace: f.Trace}
	}
	l.Close()
	var list []Result
	for n, d := range tests {
		if r.only != nil && !r.only.MatchString(d.name) {
			continue
		}
		result, err := r.test(ctx, s, n, d)
		if err != nil {
			return nil, err
		}
		list = append(list, result)
		if r.options.Ended != nil {
			r.options.Ended(result)
		}
	}
	return list, nil
}

// lab makes the lab of an attempt.
func (r *runner) lab(ctx context.Context) *lab {
	l := newLab(ctx, programs{r.main.name: r.main}, r.main.name, r.execute)
	l.trace = r.options.Cover
	if r.made != nil {
		r.made(l)
	}
	return l
}

// test runs one test: as it is, and with crashes if that is wanted.
func (r *runner) test(ctx context.Context, s *script, n int, d declared) (Result, error) {
	began := time.Now()
	result := Result{Name: d.name, File: d.file, Line: d.line}
	plain, err := perform(ctx, s, n, r.lab(ctx), r.find)
	if err != nil {
		return result, err
	}
	result.Virtual, result.Runs, result.Skipped = plain.now.Sub(plain.began), plain.traces(), plain.skip
	r.cover(plain)
	if result.Failure = plain.failure; result.Failure != nil {
		result.Failure.Runs = result.Runs
	} else if r.options.CrashEverywhere && plain.skip == "" {
		result.Failure, result.Crashes, err = r.crash(ctx, s, n, plain)
	}
	if result.Failure != nil {
		r.excerpt(result.Failure)
	}
	result.Time = time.Since(began)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return result, err
}

func (r *runner) cover(a *attempt) {
	for file, lines := range a.lines {
		if r.lines[file] == nil {
			r.lines[file] = map[int]bool{}
		}
		maps.Copy(r.lines[file], lines)
	}
}

// excerpt adds the source around the place of a failure.
func (r *runner) excerpt(f *Failure) {
	file, line, ok := strings.Cut(f.Place, ":")
	number := 0
	if _, err := fmt.Sscanf(line, "%d", &number); !ok || err != nil {
		return
	}
	f.Source = Excerpt(r.bundle, file, number)
}

// Excerpt is the lines of a file around one of them, which is marked; nil if
// there is no such line.
func Excerpt(b *pattern.Bundle, file string, line int) []string {
	source, ok := b.Files[file]
	lines := strings.Split(strings.TrimSuffix(string(source), "\n"), "\n")
	if !ok || line < 1 || line > len(lines) {
		return nil
	}
	var list []string
	for n := max(1, line-2); n <= min(len(lines), line+2); n++ {
		mark := " "
		if n == line {
			mark = ">"
		}
		list = append(list, fmt.Sprintf("%s %4d | %s", mark, n, strings.ReplaceAll(lines[n-1], "\t", "    ")))
	}
	return list
}
