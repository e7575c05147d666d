package device

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/muster-hub/muster/engine"
)

// operation is what a device asks for by the topic of a PUBLISH.
type operation uint8

const (
	opTelemetry operation = iota
	opTwinGet
	opTwinPatch
	opMethodResponse
)

// publishTopic is a parsed topic of a device's PUBLISH.
type publishTopic struct {
	op     operation
	bag    string // telemetry: the property bag, not decoded
	rid    string // others: $rid, byte for byte
	status int    // method response

	// expected is the $version of a reported patch: -1 when absent, -2 when
	// it is not a number.
	expected int64
}

// The longest $rid that is echoed, in bytes; no SDK's exceeds 36.
const maxRequestID = 256

// parsePublish reads the topic of a PUBLISH of id, one of those that
// docs/reference/protocol-mqtt.md lists. Topics are matched to the letter; ids
// in them are literal.
func parsePublish(topic string, id engine.TwinID) (publishTopic, error) {
	t := publishTopic{expected: -1}
	if rest, ok := strings.CutPrefix(topic, "$iothub/"); ok {
		if query, ok := strings.CutPrefix(rest, "twin/GET/?"); ok {
			t.op = opTwinGet
			return t, t.query(topic, query)
		}
		if query, ok := strings.CutPrefix(rest, "twin/PATCH/properties/reported/?"); ok {
			t.op = opTwinPatch
			return t, t.query(topic, query)
		}
		if rest, ok := strings.CutPrefix(rest, "methods/res/"); ok {
			t.op = opMethodResponse
			return t, t.methodResponse(topic, rest)
		}
		return t, topicError(topic)
	}
	rest, ok := cutIdentity(topic, id)
	if !ok {
		return t, topicError(topic)
	}
	if rest, ok = strings.CutPrefix(rest, "messages/events"); !ok || rest != "" && rest[0] != '/' {
		return t, topicError(topic)
	}
	t.op, t.bag = opTelemetry, strings.TrimPrefix(rest, "/")
	return t, nil
}

// cutIdentity removes devices/D/[modules/M/] of the identity itself.
func cutIdentity(topic string, id engine.TwinID) (rest string, ok bool) {
	if rest, ok = strings.CutPrefix(topic, "devices/"); !ok {
		return "", false
	}
	if rest, ok = strings.CutPrefix(rest, id.DeviceID); !ok {
		return "", false
	}
	if rest, ok = strings.CutPrefix(rest, "/"); !ok || id.ModuleID == "" {
		return rest, ok
	}
	if rest, ok = strings.CutPrefix(rest, "modules/"); !ok {
		return "", false
	}
	if rest, ok = strings.CutPrefix(rest, id.ModuleID); !ok {
		return "", false
	}
	return strings.CutPrefix(rest, "/")
}

func (t *publishTopic) query(topic, query string) error {
	found := false
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		switch unescape(name) {
		case "$rid":
			t.rid, found = value, true
		case "$version":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n < 0 {
				n = -2
			}
			t.expected = n
		}
	}
	// Without an id the answer could not be told from others.
	if !found {
		return topicFault(topic, "has no $rid")
	}
	return t.checkRequestID(topic)
}

func (t *publishTopic) checkRequestID(topic string) error {
	if len(t.rid) > maxRequestID {
		return topicFault(topic, "has a $rid of %d bytes, at most %d are allowed", len(t.rid), maxRequestID)
	}
	return nil
}

func (t *publishTopic) methodResponse(topic, rest string) error {
	status, rid, ok := strings.Cut(rest, "/?$rid=")
	if !ok {
		return topicFault(topic, "is not $iothub/methods/res/{status}/?$rid={rid}")
	}
	// Who called reads the status as an int: C#, Java and Go's clients have 32 bits.
	n, err := strconv.ParseInt(status, 10, 32)
	if err != nil {
		return topicFault(topic, "has the status %q, expected an integer of 32 bits", clip(status, 40))
	}
	t.rid, t.status = rid, int(n)
	return t.checkRequestID(topic)
}

// topicFault says what is wrong with a topic that is nearly one of a device's.
func topicFault(topic, format string, args ...any) error {
	return fmt.Errorf("the topic %q "+format, append([]any{clip(topic, 200)}, args...)...)
}

func topicError(topic string) error {
	return fmt.Errorf("the topic %q is none that this device may publish to", clip(topic, 200))
}

// parseFilter returns which endpoint of id a topic filter subscribes. The hub
// is no broker: the filters that docs/reference/protocol-mqtt.md lists are all
// that there are.
func parseFilter(filter string, id engine.TwinID) (engine.Endpoint, error) {
	switch filter {
	case "$iothub/twin/res/#":
		return engine.EndpointTwinResponse, nil
	case "$iothub/twin/PATCH/properties/desired/#":
		return engine.EndpointDesired, nil
	case "$iothub/methods/POST/#":
		return engine.EndpointMethod, nil
	case "devices/+/messages/devicebound/#":
		if id.ModuleID == "" {
			return engine.EndpointMessage, nil
		}
	}
	rest, ok := cutIdentity(filter, id)
	switch {
	case ok && rest == "messages/devicebound/#":
		return engine.EndpointMessage, nil
	case ok && id.ModuleID != "" && (rest == "#" || rest == "inputs/#"):
		return engine.EndpointInput, nil
	}
	return 0, fmt.Errorf("the filter %q is none that this device may subscribe to", clip(filter, 200))
}

// appendTwinResponse appends $iothub/twin/res/{status}/?$rid={rid}, with the
// new version behind it when version is not negative.
func appendTwinResponse(dst []byte, status int, rid string, version int64) []byte {
	dst = append(dst, "$iothub/twin/res/"...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, "/?$rid="...)
	dst = append(dst, rid...)
	if version >= 0 {
		dst = append(dst, "&$version="...)
		dst = strconv.AppendInt(dst, version, 10)
	}
	return dst
}

func desiredTopic(version int64) string {
	return "$iothub/twin/PATCH/properties/desired/?$version=" + strconv.FormatInt(version, 10)
}

// methodTopic ends with the request id: several SDKs take the rest of the
// topic for it.
func methodTopic(name, requestID string) string {
	return "$iothub/methods/POST/" + name + "/?$rid=" + requestID
}
