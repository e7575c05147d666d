package pattern

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine/wording"
)

// Need is a capability that a manifest declares and an operator grants when the
// pattern is installed, such as "twin:read", "twin:desired:firmware",
// "method:reboot", "http:hooks.example.net" or "secret:smtp". The hub, not Lua,
// enforces it.
type Need string

// Needs are a manifest's, or those that were granted.
type Needs []Need

// NeedInfo is a row of the table of capabilities.
type NeedInfo struct {
	Need  string // what stands before the argument
	Arg   string // what the argument is; empty: there is none
	Maybe bool   // the argument may be left out, and stands for all then
	Text  string // what an operator grants with it
	// Missing is the part of Muster that has yet to come; a pattern that needs it
	// can be installed and not enabled. Empty: it is here.
	Missing string
}

// NeedTable lists every capability, in the order of documents.
func NeedTable() []NeedInfo { return slices.Clone(needTable) }

var needTable = []NeedInfo{
	{Need: "twin:read", Text: "Read the device's twin and wait for it to change."},
	{Need: "twin:desired", Arg: "path", Maybe: true, Text: "Write the device's desired properties, all or below the path."},
	{Need: "twin:tags", Arg: "path", Maybe: true, Text: "Write the device's tags, all or below the path."},
	{Need: "method", Arg: "name", Text: "Call this direct method of the device."},
	{Need: "message", Text: "Send cloud-to-device messages."},
	{Need: "query", Text: "Query the whole fleet and count devices."},
	{Need: "http", Arg: "host", Text: "Send requests to this host, from the hub."},
	{Need: "secret", Arg: "name", Text: "Use this secret in requests and method payloads, without seeing it."},
	{Need: "identity:rotate", Text: "Give the device's identity new keys, and use them in method payloads."},
	{Need: "identity:disable", Text: "Put the device into quarantine, and release it from there."},
	{Need: "identity:replace", Text: "Make a new identity in the device's place."},
	{Need: "run:start", Text: "Start runs of other patterns."},
	{Need: "identity:sign", Text: "Sign the device's certificate requests.", Missing: "certificates"},
	{Need: "identity:revoke", Text: "Revoke the device's certificates.", Missing: "certificates"},
	{Need: "release:read", Text: "Read releases of updates.", Missing: missingReleases},
	{Need: "alert", Text: "Raise alerts.", Missing: missingAlerts},
}

// Parse splits a need into its row of the table and its argument; the error says
// what was expected.
func (n Need) Parse() (NeedInfo, string, error) {
	for _, i := range needTable {
		rest, ok := strings.CutPrefix(string(n), i.Need)
		switch {
		case !ok || rest != "" && rest[0] != ':':
			continue
		case rest == "" && (i.Arg == "" || i.Maybe):
			return i, "", nil
		case rest == "":
			return i, "", fmt.Errorf("%q lacks what it is for; expected %s:%s", n, i.Need, strings.ToUpper(i.Arg))
		case i.Arg == "":
			continue
		case len(rest) > 1:
			return i, rest[1:], nil
		}
	}
	word, _, _ := strings.Cut(string(n), ":")
	var near, all []string
	for _, i := range needTable {
		all = append(all, i.Need)
		if first, _, _ := strings.Cut(i.Need, ":"); first == word {
			near = append(near, i.Need)
		}
	}
	if near == nil {
		near = all
	}
	return NeedInfo{}, "", fmt.Errorf("%s is not a capability; expected %s", quote(string(n)), wording.OneOf(near))
}

// Allows reports whether what is needed is among the needs: itself, the same
// without an argument, or for paths one above.
func (list Needs) Allows(wanted Need) bool {
	for _, n := range list {
		if n == wanted {
			return true
		}
		if i, arg, err := n.Parse(); err == nil && i.Maybe {
			switch {
			case arg == "" && (string(wanted) == i.Need || strings.HasPrefix(string(wanted), i.Need+":")):
				return true
			case arg != "" && strings.HasPrefix(string(wanted), string(n)+"."):
				return true
			}
		}
	}
	return false
}

// refuse says why a step may not be taken; nil: it may.
func (list Needs) refuse(op Operation, args json.RawMessage) *Fault {
	if op.Needs == nil {
		return nil
	}
	wanted, err := op.Needs(args)
	if err != nil {
		return &Fault{Code: FaultInvalid, Message: op.Name + ": " + err.Error()}
	}
	for _, n := range wanted {
		if !list.Allows(n) {
			return &Fault{Code: FaultDenied, Message: fmt.Sprintf("%s needs %q: add it to needs in the manifest, and have it granted", op.Name, n)}
		}
	}
	return nil
}
