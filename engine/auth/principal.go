package auth

import "strings"

// Kind says what sort of caller a Principal is.
type Kind uint8

// The kinds of principal. The zero Kind is nobody.
const (
	Device Kind = iota + 1 // a device, by its own key or certificate
	Module                 // a module of a device, by its own key or certificate
	Policy                 // the holder of a shared access policy's key
	Local                  // a process of this machine, by its user id
)

// String returns the kind's name in lower case; "nobody" for any other value.
func (k Kind) String() string {
	switch k {
	case Device:
		return "device"
	case Module:
		return "module"
	case Policy:
		return "policy"
	case Local:
		return "local"
	default:
		return "nobody"
	}
}

// Principal is who asks: the result of authentication, and an argument of
// every call on the hub. The zero Principal may do nothing.
type Principal struct {
	Kind        Kind
	Name        string // policy name, "uid=1000", or device id
	DeviceID    string // devices and modules only
	ModuleID    string // modules only
	Permissions Permission
	// Scope narrows the caller to a part of the hub: "" is all of it, else a
	// path such as "/devices" or "/devices/d1" with decoded segments.
	Scope string
}

// String names the principal for logs, history and the audit log:
// "policy:service", "device:d1", "module:d1/m1", "local:uid=0".
func (p Principal) String() string {
	switch p.Kind {
	case Device:
		return "device:" + p.DeviceID
	case Module:
		return "module:" + p.DeviceID + "/" + p.ModuleID
	case Policy, Local:
		return p.Kind.String() + ":" + p.Name
	default:
		return p.Kind.String()
	}
}

// Covers reports whether the principal's scope holds path, a path with decoded
// segments such as "/devices/d1". The comparison is by whole segments:
// "/devices/d1" covers "/devices/d1/modules/m" but not "/devices/d10". Only the
// scope is looked at, not the permissions.
func (p Principal) Covers(path string) bool {
	return covers(p.Scope, path)
}

func covers(scope, path string) bool {
	scope = strings.TrimSuffix(scope, "/")
	rest, ok := strings.CutPrefix(path, scope)
	return ok && (scope == "" || rest == "" || rest[0] == '/')
}
