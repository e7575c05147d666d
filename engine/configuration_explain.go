package engine

import (
	"context"
	"encoding/json"
	"time"
)

// DeviceExplanation says why a twin has the desired properties that it has.
type DeviceExplanation struct {
	ID             TwinID
	Configurations []ExplainedConfiguration // all whose condition holds, or that it has; the strongest first
	Paths          []ExplainedPath          // by path
	Error          string                   // why the configurations can't be applied; empty: they are
}

// ExplainedConfiguration is a configuration of a twin.
type ExplainedConfiguration struct {
	ID       string
	Priority int
	Created  time.Time
	Revision uint64 // that the twin has; 0: none yet
	Matches  bool   // its condition holds now
	Status   string // Targeted or Applied, as the twin shows it; empty: not yet
	Reason   string // why it sets nothing although it matches; empty otherwise
}

// ExplainedPath is one desired property: a value that is no object, or an empty
// object.
type ExplainedPath struct {
	Path          string          // dotted, below desired
	Value         json.RawMessage // nil: a configuration keeps it away
	Configuration string          // that sets it; empty: none does
	Principal     string          // who wrote the value; empty: longer ago than history is kept
	Cause         string          // on whose behalf: "job:ID", "configuration:ID", ...; empty: the principal itself
	Time          time.Time       // when; zero: longer ago than history is kept
	History       string          // id of the history entry
	Lost          []LostSetting   // of other configurations that would set it, the strongest first
}

// LostSetting is what a configuration would set, if it were not for another one.
type LostSetting struct {
	Configuration string
	Path          string          // that it would set: this one, or one above or below it
	Value         json.RawMessage // null: it would remove it
	Winner        string          // the configuration that it lost to
	Reason        string          // one sentence
}

// ExplainDevice says, for each desired property of a device or module, which
// configuration, job, run or person set it and when, and which configurations
// lost and why. It needs ServiceConnect.
func (h *Hub) ExplainDevice(ctx context.Context, c Caller, id TwinID) (DeviceExplanation, error) {
	return DeviceExplanation{}, errf(CodeUnavailable, "configurations are not built yet")
}

// WhatIfResult says what a change of tags would do to a twin.
type WhatIfResult struct {
	Gained []string // configurations whose condition would begin to hold
	Lost   []string // whose condition would no longer hold
	Paths  []WhatIfPath
}

// WhatIfPath is a desired property that would change.
type WhatIfPath struct {
	Path          string
	Before, After json.RawMessage // nil: not there
	Configuration string          // that would set it; empty: it would be removed
}

// WhatIf says which configurations a device or module would have, and which of
// its desired properties would change, if tags were merged into its own. Nothing
// is changed. tags is a JSON object, null removes. It needs ServiceConnect.
func (h *Hub) WhatIf(ctx context.Context, c Caller, id TwinID, tags []byte) (WhatIfResult, error) {
	return WhatIfResult{}, errf(CodeUnavailable, "configurations are not built yet")
}
