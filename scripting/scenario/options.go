package scenario

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
)

// Options say how tests are run.
type Options struct {
	// Run is a regular expression: only tests whose name it matches are run. Empty:
	// all.
	Run string
	// CrashEverywhere repeats each test with a crash at every commit.
	CrashEverywhere bool
	// Cover gathers the lines that were run.
	Cover bool
	// Find returns another pattern that a test names with t:pattern. nil: there is
	// none.
	Find func(name string) (*pattern.Bundle, error)
	// Ended, unless nil, is told of each test when it has ended.
	Ended func(Result)
}

// Report is what came of the tests of a pattern.
type Report struct {
	Pattern string        `json:"pattern"`
	Version string        `json:"version"`
	Tests   []Result      `json:"tests"`
	Cover   []FileCover   `json:"cover,omitempty"`
	Time    time.Duration `json:"time"` // of the wall clock, in nanoseconds
}

// Result is what came of one test.
type Result struct {
	Name    string        `json:"name"`
	File    string        `json:"file"`
	Line    int           `json:"line"`
	Failure *Failure      `json:"failure,omitempty"` // nil: it passed
	Skipped string        `json:"skipped,omitempty"` // why it was not run
	Time    time.Duration `json:"time"`              // of the wall clock, crashes included
	Virtual time.Duration `json:"virtual"`           // that passed in the test
	Crashes int           `json:"crashes,omitempty"` // how many repetitions with a crash there were
	Runs    []Trace       `json:"runs,omitempty"`    // of the test without a crash
}

// Failure says why a test failed.
type Failure struct {
	Message string   `json:"message"`          // one or more lines
	Place   string   `json:"place,omitempty"`  // "test/reboot_test.lua:12"
	Source  []string `json:"source,omitempty"` // the lines around it, with numbers, that one marked
	Trace   []string `json:"trace,omitempty"`
	// Crash is at which point the hub had crashed; empty: it had not.
	Crash string  `json:"crash,omitempty"`
	Diff  string  `json:"diff,omitempty"` // lines with - (wanted) and + (found)
	Runs  []Trace `json:"runs,omitempty"` // of the attempt that failed
}

// Trace is what one run did.
type Trace struct {
	ID      string            `json:"id"`
	Pattern string            `json:"pattern"`
	Device  string            `json:"device,omitempty"`
	State   pattern.State     `json:"state"`
	Report  pattern.Report    `json:"report"`
	Steps   []pattern.Step    `json:"steps"`
	Logs    []pattern.LogLine `json:"logs,omitempty"`
	Result  json.RawMessage   `json:"result,omitempty"` // what the program returned
	Fault   *pattern.Fault    `json:"fault,omitempty"`
	Cost    pattern.Cost      `json:"cost"`
	Hot     []pattern.HotLine `json:"hot,omitempty"` // of slow activations, sampled, the hottest first
	Started time.Time         `json:"started"`
	Ended   time.Time         `json:"ended,omitzero"`
}

// FileCover says which lines of a file ran in at least one test.
type FileCover struct {
	File   string `json:"file"`
	Lines  int    `json:"lines"` // that can run
	Ran    int    `json:"ran"`
	Missed []int  `json:"missed,omitempty"` // those that did not
}

// Passed reports whether no test has failed.
func (r *Report) Passed() bool {
	return !slices.ContainsFunc(r.Tests, func(t Result) bool { return t.Failure != nil })
}
