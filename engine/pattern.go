package engine

import (
	"context"
	"encoding/json"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
)

// Interpreter runs programs, somewhere where they can do no harm. It is safe for
// concurrent use.
type Interpreter interface {
	// Load runs a bundle's main file and returns its manifest, or what is wrong with
	// it as a *pattern.Fault or as another error.
	Load(ctx context.Context, b *pattern.Bundle) (*pattern.Manifest, error)
	// Activate runs activations of one program, each by itself, and returns their
	// outcomes in the same order. One that took too long or too much has an outcome
	// that failed with FaultBudget; the error is for what has nothing to do with
	// the program, and says that it may be tried again.
	Activate(ctx context.Context, b *pattern.Bundle, list []pattern.Activation) ([]pattern.Outcome, error)
}

// Fetch sends a request of an http step. It returns when ctx ends, follows no
// redirect, connects to no private address, and is safe for concurrent use.
// sent says whether the server may have got it, if there is an error.
type Fetch func(ctx context.Context, r FetchRequest) (a FetchAnswer, sent bool, err error)

// FetchRequest is a request of an http step, with its secrets in their place.
type FetchRequest struct {
	Method, URL string
	Header      map[string]string
	Body        []byte
}

// FetchAnswer is its answer; at most pattern.MaxHTTPBody of the body.
type FetchAnswer struct {
	Status int
	Type   string // its Content-Type
	Body   []byte
}

// PatternOrigin says where a pattern came from.
type PatternOrigin string

// The origins.
const (
	PatternShipped  PatternOrigin = "shipped"  // inside the binary
	PatternSigned   PatternOrigin = "signed"   // by a key that was trusted then
	PatternUnsigned PatternOrigin = "unsigned" // by an operator's word
)

// Pattern is an installed version of a pattern. Versions of a name lie side by
// side; Default is what is run when no version is named.
type Pattern struct {
	Manifest  pattern.Manifest
	Hash      string // of its bundle
	Origin    PatternOrigin
	Signer    string // name of the key
	Granted   pattern.Needs
	Enabled   bool // its triggers work, and runs may start
	Default   bool
	Missing   []string // parts of Muster without which it can't be enabled
	Active    int64    // runs that have not ended
	Triggers  []TriggerState
	Installed time.Time
	Principal string // who installed it
	ETag      string
	Cost      PatternCost
}

// PatternCost is what the runs of a version took, since the start of the hub.
type PatternCost struct {
	Runs         int64 // that ended
	Ended        map[pattern.State]int64
	Activations  int64
	Instructions int64
	Calls        int64
	Journal      int64 // bytes of runs that ended
	Time         time.Duration
	Slowest      time.Duration // activation
	SlowestRun   string
	Hot          []pattern.HotLine // lines of slow activations, sampled, the hottest first
}

// PatternInstall is a pattern to be installed.
type PatternInstall struct {
	Bundle    *pattern.Bundle
	Signature *pattern.Signature // nil: unsigned
	Unsigned  bool               // it may be
	Grant     pattern.Needs      // all that it needs, or it is refused with CodePatternGrant
	Disabled  bool               // it is not enabled
}

// TrustedKey is an ed25519 key whose signatures an operator trusts.
type TrustedKey struct {
	Name    string
	Key     string // base64
	Created time.Time
}

// PatternSecret is a secret that patterns may use; nobody can read its value.
type PatternSecret struct {
	Name    string
	Updated time.Time
	By      string
}

// JobRun is the action of a job that runs a pattern on each target.
type JobRun struct {
	Pattern string          `json:"pattern"`
	Version string          `json:"version,omitempty"` // empty: the default; the job keeps to the one it began with
	Params  json.RawMessage `json:"params,omitempty"`
}
