package pattern

import (
	"encoding/json"
	"slices"

	"github.com/muster-hub/muster/engine/rollout"
)

// API is the version of the host API that this Muster has.
const API = 1

// Scope says what a run is of.
type Scope string

// The scopes.
const (
	ScopeDevice Scope = "device" // one device; the default
	ScopeFleet  Scope = "fleet"  // the fleet as a whole: one run
)

// Conflict says what becomes of a run whose device has another one under way.
type Conflict string

// The conflicts.
const (
	ConflictQueue   Conflict = "queue"   // it waits for its turn; the default
	ConflictSkip    Conflict = "skip"    // it ends as Skipped
	ConflictReject  Conflict = "reject"  // it ends as Failed, with FaultConflict
	ConflictReplace Conflict = "replace" // the other one is canceled, and it begins when that has ended
	ConflictShare   Conflict = "share"   // it runs beside any other: for patterns that only look
)

// Manifest is what a pattern declares: the argument of pattern{} in Lua, whose
// member names are these. It does not change once it was loaded.
type Manifest struct {
	Name    string `json:"name"`    // kebab-case
	Version string `json:"version"` // semantic version
	API     int    `json:"api"`     // 1
	Title   string `json:"title,omitempty"`
	Summary string `json:"summary,omitempty"`
	Author  string `json:"author,omitempty"`

	// Params and Required are properties and required of a JSON Schema of the
	// parameters. Besides JSON Schema's formats there are "duration", "query",
	// "secret" and "regex".
	Params   json.RawMessage `json:"params,omitempty"`
	Required []string        `json:"required,omitempty"`

	Needs     []Need   `json:"needs,omitempty"`
	Applies   string   `json:"applies,omitempty"` // bare predicate: devices that it can work on
	Scope     Scope    `json:"scope,omitempty"`
	Conflicts Conflict `json:"conflicts,omitempty"`
	// Timeout bounds a run from its start to its end; 0 is MaxRun.
	Timeout rollout.Duration `json:"timeout,omitempty"`
	// Danger asks whoever starts it over a fleet to type the pattern's name.
	Danger bool `json:"danger,omitempty"`
	// Most is how many devices one job may have without a word; 0: any number.
	Most int `json:"most,omitempty"`
	// Resumable lets a run be retried from a step instead of from its start.
	Resumable bool `json:"resumable,omitempty"`
	// Rollout is the policy of jobs of the pattern unless they bring their own; see
	// docs/how-to/rollouts.md for its members.
	Rollout  *rollout.Policy `json:"rollout,omitempty"`
	Triggers []Trigger       `json:"triggers,omitempty"`

	// What the program has, found by whoever loads it.
	HasUndo  bool `json:"hasUndo,omitempty"`
	HasGate  bool `json:"hasGate,omitempty"`
	HasCheck bool `json:"hasCheck,omitempty"`
}

// Trigger starts runs by itself while its pattern is enabled. Exactly one of
// When, Event, Cron, Alert and Enrolled is set.
type Trigger struct {
	When  string `json:"when,omitempty"`  // bare predicate: a device whose twin comes to match it
	Event string `json:"event,omitempty"` // "connected", "disconnected" or "created"
	Cron  string `json:"cron,omitempty"`  // five fields, as rollout.ParseCron takes them
	Zone  string `json:"zone,omitempty"`  // of Cron; UTC
	Alert string `json:"alert,omitempty"` // not yet
	// Enrolled: when a device has been provisioned; not yet.
	Enrolled bool            `json:"enrolled,omitempty"`
	Where    string          `json:"where,omitempty"` // which devices; all of them
	Params   json.RawMessage `json:"params,omitempty"`
}

// What has yet to come, for Missing.
const (
	missingAlerts    = "alerts"
	missingEnrolment = "provisioning"
	missingReleases  = "releases"
)

// Missing lists the parts of Muster that the pattern needs and that are not here
// yet: it can't be enabled.
func (m *Manifest) Missing() []string {
	var list []string
	add := func(what string) {
		if what != "" && !slices.Contains(list, what) {
			list = append(list, what)
		}
	}
	for _, n := range m.Needs {
		if i, _, err := n.Parse(); err == nil {
			add(i.Missing)
		}
	}
	for _, t := range m.Triggers {
		if t.Alert != "" {
			add(missingAlerts)
		}
		if t.Enrolled {
			add(missingEnrolment)
		}
	}
	for _, p := range m.Parameters() {
		if p.Format == "release" {
			add(missingReleases)
		}
	}
	return list
}
