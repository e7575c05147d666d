package service

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
)

// iotHub tells events in IoT Hub's words: as its built-in endpoint gives them
// to a reader of Event Hubs, with message routes for every source.
type iotHub struct {
	name    string // hubName: the host's first label
	epoch   string
	ordinal uint32
	fresh   json.RawMessage // the twin of a new identity
}

func newIoTHub(hub *engine.Hub) iotHub {
	name, _, _ := strings.Cut(hub.Hosts()[0], ".")
	info := hub.Info(context.Background()) //nolint:contextcheck // it asks nobody
	return iotHub{name: name, epoch: info.Epoch, ordinal: info.EpochNumber, fresh: hub.NewTwin()}
}

// iotHubEvent has the names that the Event Hubs clients use.
type iotHubEvent struct {
	Cursor   string            `json:"cursor"`
	Enqueued time.Time         `json:"enqueuedTimeUtc"`
	System   map[string]any    `json:"systemProperties"`
	Props    map[string]string `json:"properties"`
	Body     any               `json:"body"`
	Encoding string            `json:"bodyEncoding"`
}

// The sources of events, in the system property iothub-message-source.
const (
	sourceProperty   = "iothub-message-source"
	sourceTelemetry  = "Telemetry"
	sourceTwin       = "twinChangeEvents"
	sourceLifecycle  = "deviceLifecycleEvents"
	sourceConnection = "deviceConnectionStateEvents"
	sourceGap        = "gap" // Muster's own
)

// show returns false for what IoT Hub has no event for.
func (h iotHub) show(e *engine.Event) (iotHubEvent, bool) {
	d := iotHubEvent{Cursor: e.Cursor, Enqueued: ticks(e.Time), System: map[string]any{}, Props: map[string]string{}, Encoding: "json"}
	module := e.ID.ModuleID != ""
	pick := func(device, ofModule string) string {
		if module {
			return ofModule
		}
		return device
	}
	var source, schema, op string
	switch e.Kind {
	case engine.EventTelemetry:
		return h.telemetry(d, e.Message), true
	case engine.EventGap:
		d.System[sourceProperty] = sourceGap
		return d, true
	case "session.connected", "session.disconnected":
		source, schema = sourceConnection, "deviceConnectionStateNotification"
		op = pick("device", "module") + map[bool]string{true: "Connected", false: "Disconnected"}[e.Kind == "session.connected"]
		// 256 bits that grow: the epoch's number, then the place in the change log.
		d.Body = map[string]string{"sequenceNumber": fmt.Sprintf("%032X%032X", h.ordinal, e.Position)}
	case "identity.created", "identity.deleted":
		source, schema = sourceLifecycle, pick("deviceLifecycleNotification", "moduleLifecycleNotification")
		op = map[bool]string{true: "create", false: "delete"}[e.Kind == "identity.created"] + pick("Device", "Module") + "Identity"
		twin := e.Twin
		if twin == nil {
			twin = h.fresh
		}
		if e.Kind == "identity.deleted" && e.Twin == nil {
			twin = fmt.Appendf(nil, `{"version":%d}`, e.TwinVersion) // too large to be kept
		}
		d.Body = withIDs(e.ID, twin)
	case "twin.tags", "twin.desired", "twin.reported":
		source, schema, op = sourceTwin, "twinChangeNotification", "updateTwin"
		if e.Twin != nil {
			op, d.Body = "replaceTwin", withIDs(e.ID, e.Twin)
		} else {
			d.Body = sectionChange(e)
		}
	default:
		return d, false
	}
	at := e.Time.Format("2006-01-02T15:04:05.0000000Z")
	d.System["content-type"], d.System["content-encoding"] = "application/json", "utf-8"
	d.System["correlation-id"], d.System["user-id"] = h.epoch[:8]+"-"+strconv.FormatUint(e.Position, 16), h.name
	d.System["iothub-connection-device-id"] = e.ID.DeviceID
	d.System["iothub-enqueuedtime"], d.System[sourceProperty] = e.Time.UnixMilli(), source
	d.Props["hubName"], d.Props["deviceId"], d.Props["operationTimestamp"] = h.name, e.ID.DeviceID, at
	d.Props["iothub-message-schema"], d.Props["opType"] = schema, op
	if module {
		d.System["iothub-connection-module-id"], d.Props["moduleId"] = e.ID.ModuleID, e.ID.ModuleID
	}
	return d, true
}

func (h iotHub) telemetry(d iotHubEvent, m *engine.StoredMessage) iotHubEvent {
	for _, p := range m.System {
		d.System[p.Name] = p.Value
	}
	d.System["iothub-enqueuedtime"], d.System[sourceProperty] = m.Enqueued.UnixMilli(), sourceTelemetry
	d.Props = propertyMap(m.Properties)
	d.Body, d.Encoding = showBody(m.Body)
	return d
}

// withIDs puts the ids in front of a twin.
func withIDs(id engine.TwinID, twin json.RawMessage) json.RawMessage {
	b := append([]byte(`{"deviceId":`), encode(id.DeviceID)...)
	if id.ModuleID != "" {
		b = append(append(b, `,"moduleId":`...), encode(id.ModuleID)...)
	}
	return append(append(b, ','), twin[1:]...)
}

// sectionChange is what was written into one section, with its metadata.
func sectionChange(e *engine.Event) json.RawMessage {
	b := []byte{'{'}
	if e.TwinVersion > 0 {
		b = fmt.Appendf(b, `"version":%d,`, e.TwinVersion)
	}
	data := e.Data
	if len(data) == 0 {
		data = json.RawMessage("{}")
	}
	if e.Kind == "twin.tags" {
		return append(append(append(b, `"tags":`...), data...), '}')
	}
	section := strings.TrimPrefix(e.Kind, "twin.")
	version := int64(0)
	if section == "desired" {
		version = e.Version
	}
	b = fmt.Appendf(b, `"properties":{%q:`, section)
	b = append(b, data[:len(data)-1]...)
	if len(data) > 2 {
		b = append(b, ',')
	}
	b = append(b, `"$metadata":`...)
	b = appendMetadata(b, data, e.Time, version)
	return fmt.Appendf(b, `,"$version":%d}}}`, e.Version)
}

// appendMetadata writes the stamps of all that a patch sets; what it deletes
// has none.
func appendMetadata(b []byte, value json.RawMessage, at time.Time, version int64) []byte {
	b = append(b, `{"$lastUpdated":"`...)
	b = at.AppendFormat(b, "2006-01-02T15:04:05.9999999Z")
	b = append(b, '"')
	if version > 0 {
		b = fmt.Appendf(b, `,"$lastUpdatedVersion":%d`, version)
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(value, &members) != nil {
		members = nil // a leaf
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if string(members[name]) != "null" {
			b = append(append(append(b, ','), encode(name)...), ':')
			b = appendMetadata(b, members[name], at, version)
		}
	}
	return append(b, '}')
}
