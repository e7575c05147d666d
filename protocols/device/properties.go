package device

import (
	"fmt"
	"strings"

	"github.com/muster-hub/muster/engine"
)

// maxProperties is how many properties one message may have.
const maxProperties = 1024

// systemName returns the service-side name of a system property's wire key
// (docs/reference/protocol-mqtt.md has the table); "$.x" that is not known keeps its name.
func systemName(key string) (name string, ok bool) {
	switch key {
	case "$.mid":
		return "message-id", true
	case "$.cid":
		return "correlation-id", true
	case "$.uid":
		return "user-id", true
	case "$.to":
		return "to", true
	case "$.ct":
		return "content-type", true
	case "$.ce":
		return "content-encoding", true
	case "$.exp":
		return "absolute-expiry-time", true
	case "$.ctime":
		return "creation-time-utc", true
	case "$.on":
		return "output-name", true
	case "$.ifid":
		return "interface-id", true
	case "$.sub":
		return "dt-subject", true
	case "$.cdid":
		return "connection-device-id", true
	case "$.cmid":
		return "connection-module-id", true
	case "$.schema":
		return "message-schema", true
	case "$.diagid":
		return "diagnostic-id", true
	case "$.diagctx":
		return "diagnostic-context", true
	case "iothub-ack":
		return "ack", true
	case "iothub-operation":
		return "operation", true
	}
	return key, strings.HasPrefix(key, "$.")
}

// parseBag reads the property bag of a telemetry topic: pairs joined with
// '&', everything percent-encoded or, by some SDKs, nothing; so the bag is
// all that follows the topic, and at most one '/' at its end is not part of
// it. Names that only the hub may stamp are dropped.
func parseBag(bag string, m *engine.Message) error {
	bag = strings.TrimSuffix(bag, "/")
	if bag == "" {
		return nil
	}
	if n := strings.Count(bag, "&") + 1; n > maxProperties {
		return fmt.Errorf("the message has %d properties, at most %d are allowed", n, maxProperties)
	}
	for pair := range strings.SplitSeq(bag, "&") {
		key, value, valued := strings.Cut(pair, "=")
		if key == "" {
			continue
		}
		p := engine.Property{Name: unescape(key), Value: unescape(value), Null: !valued}
		name, system := systemName(p.Name)
		switch {
		case system:
			p.Name = name
			m.System = setProperty(m.System, p)
		case strings.HasPrefix(p.Name, "iothub-"):
		default:
			m.Properties = setProperty(m.Properties, p)
		}
	}
	return nil
}

// setProperty appends p. Of two with the same name the later wins; in a long
// list the earlier one stays before it, which says the same.
func setProperty(list []engine.Property, p engine.Property) []engine.Property {
	if len(list) <= 16 {
		for i := range list {
			if list[i].Name == p.Name {
				list[i] = p
				return list
			}
		}
	}
	return append(list, p)
}
