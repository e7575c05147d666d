package pattern

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Way is how a step comes to its answer; see the package's page.
type Way uint8

// The ways of a step.
const (
	Local Way = iota
	Assumed
	Immediate
	Open
)

// Operation is a host call that is a step. Its arguments are one JSON object,
// whose shape is a type of this package named after it (CallArgs and so on).
type Operation struct {
	Name  string // "dev.call": the object that has it, and its method
	Way   Way
	Timer bool // the moment at which it is due is its answer, not a fault
	Scope Scope
	// Needs are the capabilities that a call with these arguments takes; nil: none.
	Needs func(args json.RawMessage) ([]Need, error)
}

// Find returns the operation of a name.
func Find(name string) (Operation, bool) {
	for i := range operations {
		if operations[i].Name == name {
			return operations[i], true
		}
	}
	return Operation{}, false
}

// Operations lists every operation.
func Operations() []Operation { return slices.Clone(operations) }

// scopeWave is of what gate may do.
const scopeWave Scope = "gate"

// operations is a table; one without scope is for every program.
var operations = []Operation{
	{Name: "dev.get", Way: Local, Scope: ScopeDevice, Needs: always("twin:read")},
	{Name: "dev.twin", Way: Local, Scope: ScopeDevice, Needs: always("twin:read")},
	{Name: "dev.desire", Way: Immediate, Scope: ScopeDevice, Needs: paths("twin:desired")},
	{Name: "dev.tag", Way: Assumed, Scope: ScopeDevice, Needs: paths("twin:tags")},
	{Name: "dev.call", Way: Open, Scope: ScopeDevice, Needs: needsOf(func(a CallArgs) []Need {
		return append(secrets(a.Payload), Need("method:"+a.Method))
	})},
	{Name: "dev.send", Way: Assumed, Scope: ScopeDevice, Needs: always("message")},
	{Name: "dev.wait", Way: Open, Scope: ScopeDevice, Needs: always("twin:read")},
	{Name: "dev.rotate_key", Way: Immediate, Scope: ScopeDevice, Needs: always("identity:rotate")},
	{Name: "dev.quarantine", Way: Immediate, Scope: ScopeDevice, Needs: always("identity:disable")},
	{Name: "dev.release", Way: Immediate, Scope: ScopeDevice, Needs: always("identity:disable")},
	{Name: "dev.replace", Way: Immediate, Scope: ScopeDevice, Needs: always("identity:replace")},
	{Name: "dev.run", Way: Open, Scope: ScopeDevice, Needs: always("run:start")},
	{Name: "dev.sign", Way: Open, Scope: ScopeDevice, Needs: always("identity:sign")},
	{Name: "dev.revoke", Way: Immediate, Scope: ScopeDevice, Needs: always("identity:revoke")},

	{Name: "fleet.query", Way: Open, Scope: ScopeFleet, Needs: always("query")},
	{Name: "fleet.count", Way: Open, Scope: ScopeFleet, Needs: always("query")},
	{Name: "fleet.group_by", Way: Open, Scope: ScopeFleet, Needs: always("query")},
	{Name: "fleet.run", Way: Open, Scope: ScopeFleet, Needs: always("run:start")},
	{Name: "run.count", Way: Open, Scope: scopeWave}, // of gate: among the devices of its own runs

	{Name: "ctx.now", Way: Local},
	{Name: "ctx.random", Way: Local},
	{Name: "ctx.uuid", Way: Local},
	{Name: "ctx.sleep", Way: Open, Timer: true},
	{Name: "ctx.until_", Way: Open, Timer: true},
	{Name: "ctx.approve", Way: Open},
	{Name: "ctx.event", Way: Assumed},
	{Name: "ctx.alert", Way: Assumed, Needs: always("alert")},
	{Name: "ctx.release", Way: Open, Needs: always("release:read")},
	{Name: "ctx.http", Way: Open, Needs: needsOf(func(a HTTPArgs) []Need {
		host := a.URL
		if u, err := url.Parse(a.URL); err == nil {
			host = u.Host
		}
		list := []Need{Need("http:" + strings.ToLower(host))}
		for _, v := range a.Headers {
			list = append(list, secrets(v)...)
		}
		return append(list, secrets(a.JSON)...)
	})},
	{Name: "kv.get", Way: Immediate},
	{Name: "kv.set", Way: Assumed},
	{Name: "kv.incr", Way: Immediate},
	{Name: "kv.cas", Way: Immediate},
}

// The arguments of operations, and what they give. Durations are texts such as
// "90s", "5m", "6h" or "2d", as everywhere; times are RFC 3339.
type (
	// GetArgs are arguments: dev.get gives the value at a path ("reported.boot.count",
	// "desired.x", "tags.site", "connected"), or Default.
	GetArgs struct {
		Path    string          `json:"path"`
		Default json.RawMessage `json:"default,omitempty"`
	}
	// PatchArgs are arguments: dev.desire gives {"version": n}, the new $version of the desired
	// properties; dev.tag gives nothing.
	PatchArgs struct {
		Patch json.RawMessage `json:"patch"`
	}
	// CallArgs are arguments: dev.call gives {"status": 200, "payload": ...}. Online is how long
	// the call waits for its device, by default not at all (FaultOffline then);
	// Timeout is that of the answer, 30 s by default. Retry is how many more
	// attempts are made of one that was not answered, FaultOffline and FaultTimeout,
	// and only with Idempotent of one of which nobody knows whether it was taken.
	// A status of 400 or more is FaultStatus, with Status and Payload.
	CallArgs struct {
		Method     string          `json:"method"`
		Payload    json.RawMessage `json:"payload,omitempty"`
		Timeout    string          `json:"timeout,omitempty"`
		Online     string          `json:"online,omitempty"`
		Retry      int             `json:"retry,omitempty"`
		Idempotent bool            `json:"idempotent,omitempty"`
	}
	// SendArgs are arguments: dev.send gives nothing.
	SendArgs struct {
		Body       json.RawMessage   `json:"body"`
		Properties map[string]string `json:"props,omitempty"`
	}
	// WaitArgs are arguments: dev.wait gives the reported properties as they are when the bare
	// predicate Where is true, in which the names of Vars stand for their values.
	// dev:wait_online is dev.wait for "connected". Timeout is MaxWait by default.
	WaitArgs struct {
		Where   string                     `json:"where"`
		Vars    map[string]json.RawMessage `json:"vars,omitempty"`
		Timeout string                     `json:"timeout,omitempty"`
	}
	// RotateArgs are arguments: dev.rotate_key gives the new key as a secret, {"$secret":
	// "key:primary"}, which stands for the key of this device in method payloads.
	// Slot is "primary" or "secondary", the default.
	RotateArgs struct {
		Slot string `json:"slot,omitempty"`
	}
	// ReasonArgs are of dev.quarantine, which disables the identity with a reason
	// and the tag quarantine, and gives nothing; dev.release (without arguments)
	// takes back just that.
	ReasonArgs struct {
		Reason string `json:"reason"`
	}
	// ReplaceArgs are arguments: dev.replace makes the identity ID with this device's tags and
	// desired properties and the tag replaces; this one is disabled and gets the tag
	// replacedBy. It gives {"id": ID}.
	ReplaceArgs struct {
		ID string `json:"id"`
	}
	// RunArgs are arguments: dev.run starts another pattern on the same device and gives its
	// result when it has succeeded, else its fault. fleet.run starts a job over
	// what Where selects ("*": all) and gives {"job": ID} at once, or with Wait
	// {"job", "succeeded", "failed", "total"} when it has ended.
	RunArgs struct {
		Pattern string          `json:"pattern"`
		Params  json.RawMessage `json:"params,omitempty"`
		Timeout string          `json:"timeout,omitempty"`
		Where   string          `json:"where,omitempty"`
		Wait    bool            `json:"wait,omitempty"`
	}
	// FleetArgs are arguments: fleet.query gives a list of objects with the paths of Select
	// (deviceId by default), at most Limit (100) of them; fleet.count and run.count
	// give a number; fleet.group_by gives {"groups": {value: n}, "total": n}, where
	// devices without Path count for the total alone.
	FleetArgs struct {
		Where  string   `json:"where,omitempty"`
		Select []string `json:"select,omitempty"`
		Limit  int      `json:"limit,omitempty"`
		Path   string   `json:"path,omitempty"`
	}
	// RandomArgs are arguments: ctx.random gives a whole number from Low to High.
	RandomArgs struct {
		Low  int64 `json:"lo"`
		High int64 `json:"hi"`
	}
	// SleepArgs are of ctx.sleep (For) and ctx.until_ (Until, a time); both give
	// nothing. ctx.now gives a time as text.
	SleepArgs struct {
		For   string `json:"for,omitempty"`
		Until string `json:"until,omitempty"`
	}
	// ApproveArgs are arguments: ctx.approve gives who approved. A person who declines is
	// FaultRejected with the reason; Timeout (24h by default) is FaultTimeout. By is
	// the shared access policy or user that may decide; empty: whoever may control
	// runs.
	ApproveArgs struct {
		Question string `json:"question"`
		Timeout  string `json:"timeout,omitempty"`
		By       string `json:"by,omitempty"`
	}
	// EventArgs are of ctx.event, which writes an event of the device; it gives
	// nothing.
	EventArgs struct {
		Type string          `json:"type"`
		Data json.RawMessage `json:"data,omitempty"`
	}
	// HTTPArgs are arguments: ctx.http gives {"status": 200, "json": ...} or {"status": 200,
	// "body": "text"}. A status of 400 or more is no fault. Values of Headers and
	// in JSON may be secrets. A request other than GET and HEAD of which nobody knows whether it
	// was taken is FaultUncertain unless Idempotent.
	HTTPArgs struct {
		Method     string                     `json:"method,omitempty"` // GET
		URL        string                     `json:"url"`
		Headers    map[string]json.RawMessage `json:"headers,omitempty"`
		JSON       json.RawMessage            `json:"json,omitempty"`
		Body       string                     `json:"body,omitempty"`
		Timeout    string                     `json:"timeout,omitempty"`
		Idempotent bool                       `json:"idempotent,omitempty"`
	}
	// KeyValueArgs are of the operations of ctx:kv(scope): kv.get gives a value,
	// kv.set nothing, kv.incr the number after adding By (1), kv.cas whether the
	// value was Old and is Value now. Scope is "run" or "pattern", which is shared
	// by all runs of the pattern.
	KeyValueArgs struct {
		Scope string          `json:"scope"`
		Key   string          `json:"key"`
		Value json.RawMessage `json:"value,omitempty"`
		Old   json.RawMessage `json:"old,omitempty"`
		By    float64         `json:"by,omitempty"`
	}
)

func always(n Need) func(json.RawMessage) ([]Need, error) {
	return func(json.RawMessage) ([]Need, error) { return []Need{n}, nil }
}

// needsOf makes a function of arguments one of their JSON form.
func needsOf[A any](f func(A) []Need) func(json.RawMessage) ([]Need, error) {
	return func(text json.RawMessage) ([]Need, error) {
		var a A
		if err := json.Unmarshal(text, &a); err != nil {
			return nil, fmt.Errorf("its arguments are not what it takes: %w", err)
		}
		return f(a), nil
	}
}

// paths asks for a need for each member at the top of a patch, unless the whole
// section was granted.
func paths(section string) func(json.RawMessage) ([]Need, error) {
	return func(text json.RawMessage) ([]Need, error) {
		var a struct {
			Patch map[string]json.RawMessage `json:"patch"`
		}
		if err := json.Unmarshal(text, &a); err != nil {
			return nil, errors.New("its patch is not an object")
		}
		var list []Need
		for key, value := range a.Patch {
			list = append(list, leaves(section+":"+key, value)...)
		}
		slices.Sort(list)
		return list, nil
	}
}

// leaves are the paths that a patch writes.
func leaves(path string, value json.RawMessage) []Need {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(value, &members); err != nil || len(members) == 0 {
		return []Need{Need(path)}
	}
	var list []Need
	for key, v := range members {
		list = append(list, leaves(path+"."+key, v)...)
	}
	return list
}

// secretMember marks a secret in a value: {"$secret": "name"}.
const secretMember = "$secret"

// secrets are the needs of the secrets in a value. The key of the device itself,
// "key:primary" or "key:secondary", comes with identity:rotate.
func secrets(value json.RawMessage) []Need {
	var v any
	if json.Unmarshal(value, &v) != nil {
		return nil
	}
	var list []Need
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if name, ok := v[secretMember].(string); ok && len(v) == 1 {
				if strings.HasPrefix(name, "key:") {
					list = append(list, "identity:rotate")
				} else {
					list = append(list, Need("secret:"+name))
				}
				return
			}
			for _, inner := range v {
				walk(inner)
			}
		case []any:
			for _, inner := range v {
				walk(inner)
			}
		}
	}
	walk(v)
	return list
}
