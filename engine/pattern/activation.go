package pattern

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"
)

// Activation is all that a worker gets to run a program from its top. It holds
// no secret and nothing of another device.
type Activation struct {
	Run     string          `json:"run"`              // ctx.id
	Key     string          `json:"key,omitempty"`    // ctx.key: the id of the first of the runs that retries link; empty: Run
	Attempt int             `json:"attempt"`          // ctx.attempt, from 1
	Entry   Entry           `json:"entry"`            // which function is called
	Device  string          `json:"device,omitempty"` // dev.id; empty for scope fleet
	Module  string          `json:"module,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"` // checked, with defaults
	// Twin is the device's twin as a query shows it (deviceId, connected, tags,
	// properties), of the moment of the activation; nil when the program may not
	// read it.
	Twin json.RawMessage `json:"twin,omitempty"`
	// Steps are those of this entry; the last may have been answered just now, and
	// none is open.
	Steps []Step `json:"steps,omitempty"`
	// Kept is what run kept, for undo. In run it is empty: replay keeps again what
	// was kept, and ctx:kept finds what was kept before it.
	Kept map[string]json.RawMessage `json:"kept,omitempty"`
	Now  time.Time                  `json:"now"`
	Seed uint64                     `json:"seed"` // of random and uuid steps
	// Cancel, when there is one, is raised by each step from number CancelAt on
	// that a deferred function does not make. Such steps are not journaled.
	Cancel   *Fault `json:"cancel,omitempty"`
	CancelAt int    `json:"cancelAt,omitempty"`
	// Wave is what gate is told: {number, size, succeeded, failed, ...}.
	Wave json.RawMessage `json:"wave,omitempty"`
	// Trace asks for the lines that were run, for coverage.
	Trace bool `json:"trace,omitempty"`
}

// Ending is how an activation ended.
type Ending string

// How an activation may end.
const (
	EndSuspended Ending = "suspended" // at its last new step
	EndReturned  Ending = "returned"
	EndSkipped   Ending = "skipped" // ctx:skip
	EndFailed    Ending = "failed"
	EndDiverged  Ending = "diverged" // Fault tells both versions of the step
)

// Outcome is what an activation did. Its new steps are local and assumed ones
// and, at the end of a suspended one, one that is neither.
type Outcome struct {
	Ending Ending                     `json:"ending"`
	Steps  []Step                     `json:"steps,omitempty"` // new ones, in order
	Result json.RawMessage            `json:"result,omitempty"`
	Fault  *Fault                     `json:"fault,omitempty"`
	Kept   map[string]json.RawMessage `json:"kept,omitempty"` // by ctx:keep from the top of the program to its end
	Report Report                     `json:"report"`
	Logs   []LogLine                  `json:"logs,omitempty"` // of code that has not run before
	Cost   Cost                       `json:"cost"`
	Lines  map[string][]int           `json:"lines,omitempty"` // run, by file, if Trace asked for it
	// Hot are the lines that ran most of the instructions, the hottest first, of an
	// activation that ran many. They are sampled, the same on each replay.
	Hot []HotLine `json:"hot,omitempty"`
}

// HotLine is how many instructions a line ran, about, those that its host and
// library calls count as included.
type HotLine struct {
	Line         string `json:"line"` // "pattern.lua:44"
	Instructions int64  `json:"instructions"`
}

// HotMost is how many hot lines an outcome tells, and a run keeps.
const HotMost = 8

// AddHot adds hot lines to others, of which it keeps most at the most: of lines
// that do not fit, the coolest go. It keeps the hottest first.
func AddHot(list, more []HotLine, most int) []HotLine {
	for _, hot := range more {
		i := slices.IndexFunc(list, func(h HotLine) bool { return h.Line == hot.Line })
		switch {
		case i >= 0:
			list[i].Instructions += hot.Instructions
		case len(list) < most:
			list = append(list, hot)
		default:
			if last := &list[len(list)-1]; last.Instructions < hot.Instructions {
				*last = hot
			}
		}
		SortHot(list)
	}
	return list
}

// SortHot brings hot lines in their order: the hottest first.
func SortHot(list []HotLine) {
	slices.SortFunc(list, func(a, b HotLine) int {
		return cmp.Or(cmp.Compare(b.Instructions, a.Instructions), cmp.Compare(a.Line, b.Line))
	})
}

// Report is what a program last said of how far it is.
type Report struct {
	Phase    string  `json:"phase,omitempty"`
	Progress float64 `json:"progress,omitempty"` // 0 to 1
	Text     string  `json:"text,omitempty"`
	Follow   string  `json:"follow,omitempty"` // path of a reported percentage that is the progress
}

// LogLine is one call of ctx:log.
type LogLine struct {
	Time time.Time `json:"t,omitzero"`
	Step int       `json:"s,omitempty"` // how many steps of its entry were taken before it
	Line string    `json:"l,omitempty"` // "pattern.lua:44"
	Text string    `json:"m"`
}

// Cost is what activations took.
type Cost struct {
	Activations  int           `json:"n,omitempty"`
	Instructions int64         `json:"i,omitempty"`
	Calls        int64         `json:"c,omitempty"` // host calls, those answered from the journal included
	Time         time.Duration `json:"t,omitempty"` // in workers
	Peak         int64         `json:"p,omitempty"` // most instructions of one activation
}

func (c *Cost) add(o Cost) {
	c.Activations++
	c.Instructions += o.Instructions
	c.Calls += o.Calls
	c.Time += o.Time
	c.Peak = max(c.Peak, o.Instructions)
}
