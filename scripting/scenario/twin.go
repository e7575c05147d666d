package scenario

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/twin"
)

// twinLimits are the structural rules that hubs have.
func twinLimits() twin.Limits {
	return twin.Limits{MaxBytes: 256 << 10, MaxDepth: 10, MaxKeyBytes: 1024, MaxStringBytes: 4096, MinInteger: -1 << 52, MaxInteger: 1<<52 - 1}
}

// merge applies a patch to a section.
func (i *identity) merge(n int, patch json.RawMessage, now time.Time) error {
	p, err := twin.ParsePatch(patch, 0)
	if err != nil {
		return err
	}
	next, _, err := i.sections[n].Merge(p, now, twinLimits())
	if err != nil {
		return err
	}
	i.sections[n] = next
	return nil
}

// refusal is what a program finds when a twin does not take its patch.
func refusal(err error) *pattern.Fault {
	f := &pattern.Fault{Code: pattern.FaultInvalid, Message: err.Error()}
	if e, ok := errors.AsType[*twin.InvalidError](err); ok && e.TooLarge {
		f.Code = pattern.FaultTooBig
	}
	return f
}

func (i *identity) plain(n int) json.RawMessage { return i.sections[n].Plain(nil) }

func (i *identity) state() string {
	if i.Connected {
		return "Connected"
	}
	return "Disconnected"
}

// json is the twin as a program reads it.
func (i *identity) document() json.RawMessage {
	out, err := json.Marshal(map[string]any{
		"deviceId": i.ID, "status": i.Status, "statusReason": i.Reason, "connectionState": i.state(), "connected": i.Connected,
		"tags": i.plain(tags),
		"properties": map[string]json.RawMessage{
			"desired": i.sections[desired].JSON(nil, false), "reported": i.sections[reported].JSON(nil, false),
		},
	})
	if err != nil {
		return json.RawMessage(`{}`) // sections are always JSON
	}
	return out
}

// value is the twin as predicates see it.
func (i *identity) value() query.Value {
	object := func(n int) query.Value {
		v := query.TwinValue(i.sections[n].View())
		if n == tags {
			return v
		}
		return query.ObjectValue(append(v.Members(), query.Member{Key: "$version", Value: query.NumberValue(float64(i.sections[n].Version()))}))
	}
	return query.ObjectValue([]query.Member{
		{Key: "deviceId", Value: query.StringValue(i.ID)}, {Key: "status", Value: query.StringValue(i.Status)}, {Key: "statusReason", Value: query.StringValue(i.Reason)},
		{Key: "connectionState", Value: query.StringValue(i.state())}, {Key: "tags", Value: object(tags)},
		{Key: "properties", Value: query.ObjectValue([]query.Member{{Key: "desired", Value: object(desired)}, {Key: "reported", Value: object(reported)}})},
	})
}
