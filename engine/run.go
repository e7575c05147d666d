package engine

import (
	"encoding/json"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
)

// Run is a run of a pattern as it stands: one program on one device, or of scope
// fleet on none.
type Run struct {
	ID      string // in order of time
	Pattern string
	Version string
	Hash    string // of the bundle, to which the run keeps
	Device  TwinID // empty for scope fleet
	Params  json.RawMessage
	Attempt int    // from 1; higher when it was retried
	Job     string // whose execution it is; empty: none
	Parent  string // the run that started it; empty: none
	Of      string // the run of which it is a retry; empty: none
	Trigger string // that started it, "when", "cron" and so on; empty: none

	State     pattern.State
	Entry     pattern.Entry
	Waits     string    // for what, in words: "approval", "method reboot", "the device to connect, for method reboot", "reported.boot.count > before", ...
	Due       time.Time // of what it waits for; zero: never
	Question  string    // that a person is to answer; empty: none
	Report    pattern.Report
	Step      int // how many steps it took
	Result    json.RawMessage
	Fault     *pattern.Fault
	Canceling bool

	Principal string // whose permissions it acts with
	Created   time.Time
	Started   time.Time // zero: not yet
	Updated   time.Time
	Ended     time.Time // zero: not yet
	ETag      string
	Cost      pattern.Cost
	Hot       []pattern.HotLine // lines of its slow activations, sampled, the hottest first
	Journal   int               // bytes
}

// RunTrace is a run with what it did.
type RunTrace struct {
	Run
	Steps []pattern.Step
	Logs  []pattern.LogLine
	Kept  map[string]json.RawMessage
}

// RunSpec is a run to be started without a job.
type RunSpec struct {
	Pattern string          `json:"pattern"`
	Version string          `json:"version,omitempty"`
	Device  TwinID          `json:"device,omitzero"`
	Params  json.RawMessage `json:"params,omitempty"`
}

// RunFilter selects runs; empty members select all.
type RunFilter struct {
	Pattern string
	Device  TwinID
	Job     string
	States  []pattern.State
	Active  bool // not ended
	Asks    bool // a person is to decide
}
