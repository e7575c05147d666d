package engine

import (
	"encoding/json"
	"strings"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/rollout"
)

// Caller says who asks for an operation, and on whose behalf. Every exported
// operation of the Hub takes one.
type Caller struct {
	auth.Principal
	Cause     string // the job, configuration, run or enrollment behind it, "job:ID"; empty when the principal acts itself
	RequestID string
	Address   string // remote address, for the audit
}

// TwinID names a device (ModuleID empty) or a module of it.
type TwinID struct {
	DeviceID string
	ModuleID string
}

// String returns "device" or "device/module".
func (id TwinID) String() string {
	if id.ModuleID == "" {
		return id.DeviceID
	}
	return id.DeviceID + "/" + id.ModuleID
}

// MarshalText writes the form of String.
func (id TwinID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalJSON reads the form of String. Whether there may be such an id it
// does not say.
func (id *TwinID) UnmarshalJSON(text []byte) error {
	var s string
	if json.Unmarshal(text, &s) != nil {
		return rollout.Fault{Reason: "found " + clip(string(text)), Expected: "a text, DEVICE or DEVICE/MODULE"}
	}
	id.DeviceID, id.ModuleID, _ = strings.Cut(s, "/")
	return nil
}

// path returns the identity's path as scopes of tokens spell it, decoded.
func (id TwinID) path() string {
	if id.ModuleID == "" {
		return "/devices/" + id.DeviceID
	}
	return "/devices/" + id.DeviceID + "/modules/" + id.ModuleID
}

const idMarks = "-:.+%_#*?!(),=@;$'"

// checkID applies IoT Hub's rule for device and module ids: up to max ASCII
// letters, digits and a fixed set of marks, case-sensitive.
func checkID(what, id string, max int) error {
	if id == "" {
		return errf(CodeArgumentNull, "%s is missing", what)
	}
	if len(id) > max {
		return errf(CodeArgumentInvalid, "%s is %d characters long, at most %d are allowed", what, len(id), max)
	}
	for i, c := range id {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(idMarks, c) {
			continue
		}
		return errf(CodeArgumentInvalid, "%s has the character %q at position %d; allowed are ASCII letters, digits and %s", what, c, i, idMarks)
	}
	return nil
}
