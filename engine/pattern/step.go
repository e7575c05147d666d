package pattern

import (
	"encoding/json"
	"time"
)

// Entry is the function of a program that an activation calls.
type Entry string

// The entries.
const (
	EntryRun   Entry = "run"   // run(dev, p, ctx), or run(fleet, p, ctx)
	EntryUndo  Entry = "undo"  // undo(dev, p, ctx): takes back what run did
	EntryGate  Entry = "gate"  // gate(run, wave, ctx), once before each further wave; never stored
	EntryCheck Entry = "check" // check(dev, p): why the device is left out, in a preview; never stored
)

// Step is one host call of a run that left the sandbox. Its position among the
// steps of its entry is its number, from 1.
type Step struct {
	Entry Entry           `json:"e,omitempty"` // empty: EntryRun
	Op    string          `json:"op"`          // of [Operations]
	Args  json.RawMessage `json:"a,omitempty"`
	Line  string          `json:"l,omitempty"` // "pattern.lua:44" of the call
	// Deferred says that a function that was handed to ctx:defer made it.
	Deferred bool `json:"x,omitempty"`

	Open   bool            `json:"o,omitempty"` // its answer has not come
	Result json.RawMessage `json:"r,omitempty"` // nil: nothing, which Lua sees as nil
	Fault  *Fault          `json:"f,omitempty"`
	Begun  time.Time       `json:"b,omitzero"`
	Ended  time.Time       `json:"n,omitzero"` // zero while Open
	// Due is when an open step ends by itself; zero: never.
	Due time.Time `json:"d,omitzero"`
	// Ref is what its World calls it: a queued call, a child run, a job.
	Ref string `json:"i,omitempty"`
	// Tries counts the attempts that were made of it, from 1.
	Tries int `json:"t,omitempty"`
}

// entry is the step's entry.
func (s *Step) entry() Entry {
	if s.Entry == "" {
		return EntryRun
	}
	return s.Entry
}

// FaultCode says what went wrong, for programs to tell one from another.
type FaultCode string

// The codes. A program may raise others of its own.
const (
	FaultTimeout          FaultCode = "timeout"          // what was awaited did not come in time
	FaultOffline          FaultCode = "offline"          // the device was not there in time; nothing was sent
	FaultStatus           FaultCode = "status"           // the device answered with a status of 400 or more
	FaultUncertain        FaultCode = "uncertain"        // it was sent, perhaps; nobody knows whether it took effect
	FaultRejected         FaultCode = "rejected"         // the device, a person or the hub refused
	FaultCanceled         FaultCode = "canceled"         // the run was canceled
	FaultConflict         FaultCode = "conflict"         // something changed meanwhile, or is in the way
	FaultDenied           FaultCode = "denied"           // the manifest does not declare it, it was not granted, or the owner may not
	FaultInvalid          FaultCode = "invalid"          // the call's arguments are not what it takes
	FaultGone             FaultCode = "gone"             // the device, or what was named, does not exist
	FaultTooBig           FaultCode = "too-big"          // a value is larger than it may be
	FaultTooCostly        FaultCode = "too-costly"       // one operation would cost too much
	FaultBudget           FaultCode = "budget"           // the activation used up a budget, which the message names
	FaultJournalFull      FaultCode = "journal-full"     // the run has taken as many steps as it may
	FaultNondeterministic FaultCode = "nondeterministic" // the program did something else than its journal says
	FaultLua              FaultCode = "lua"              // an error of the program itself
	FaultUnavailable      FaultCode = "unavailable"      // this hub does not have what was asked for
)

// Fault is an error as a program sees it, and as it ends one: a table with these
// members in Lua.
type Fault struct {
	Code    FaultCode       `json:"code"`
	Message string          `json:"message"`
	Status  int             `json:"status,omitempty"` // of the device's or a server's answer
	Cause   json.RawMessage `json:"cause,omitempty"`  // whatever the program gave
	Payload json.RawMessage `json:"payload,omitempty"`
	// Line and Trace are where it was raised, when it ended a program.
	Line  string   `json:"line,omitempty"`
	Trace []string `json:"trace,omitempty"`
}

// Error implements error.
func (f *Fault) Error() string { return string(f.Code) + ": " + f.Message }
