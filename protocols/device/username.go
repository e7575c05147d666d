package device

import (
	"errors"
	"fmt"
	"strings"

	"github.com/muster-hub/muster/engine"
)

// username is what a CONNECT's user name says (docs/reference/protocol-mqtt.md, CONNECT).
type username struct {
	host       string
	id         engine.TwinID
	apiVersion string // empty: a client from before twins
	product    string // DeviceClientType
	modelID    string
}

const (
	maxProduct = 512  // bytes of DeviceClientType that are kept
	maxModelID = 2048 // the longest DTMI
)

var (
	errUsername     = errors.New("the user name must be {host}/{deviceId}[/{moduleId}]/?api-version=VERSION")
	errProvisioning = errors.New("the user name is one of the provisioning service, which is not offered here")
)

// parseUsername reads {host}/{deviceId}[/{moduleId}]/?{params} and the older
// forms without "?" or without parameters. Ids are as they are, not encoded.
// Parameters are read leniently: order, unknown names and broken escapes
// don't matter. maxID bounds the ids, in bytes.
func parseUsername(s string, maxID int) (username, error) {
	var u username
	var rest string
	var more bool
	if u.host, rest, more = strings.Cut(s, "/"); !more || u.host == "" {
		return u, errUsername
	}
	u.host = strings.Clone(u.host)
	var params string
	if u.id.DeviceID, rest, more = strings.Cut(rest, "/"); more {
		if params, more = parameters(rest); !more {
			u.id.ModuleID, rest, more = strings.Cut(rest, "/")
			if u.id.ModuleID == "" {
				return u, errUsername
			}
			if u.id.DeviceID == "registrations" && strings.HasPrefix(rest, "api-version=") {
				return u, errProvisioning
			}
			if more {
				if params, more = parameters(rest); !more {
					return u, errUsername
				}
			}
		}
	}
	if u.id.DeviceID == "" || len(u.id.DeviceID) > maxID || len(u.id.ModuleID) > maxID {
		return u, fmt.Errorf("%w, with ids of 1 to %d characters", errUsername, maxID)
	}
	u.id.DeviceID, u.id.ModuleID = strings.Clone(u.id.DeviceID), strings.Clone(u.id.ModuleID)
	for pair := range strings.SplitSeq(params, "&") {
		name, value, _ := strings.Cut(pair, "=")
		switch name {
		case "api-version":
			u.apiVersion = clip(unescape(value), 64)
		case "DeviceClientType":
			u.product = clip(unescape(value), maxProduct)
		case "model-id":
			if m := unescape(value); len(m) <= maxModelID {
				u.modelID = strings.Clone(m)
			}
		}
	}
	return u, nil
}

// parameters returns the parameters when s is that part of a user name.
func parameters(s string) (params string, ok bool) {
	if strings.HasPrefix(s, "?") {
		return s[1:], true
	}
	return s, s == "" || strings.HasPrefix(s, "api-version=")
}

// clip returns a copy of at most n bytes, cut between characters.
func clip(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return strings.Clone(s)
}
