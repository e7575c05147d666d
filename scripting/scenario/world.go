package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
)

// world is what the steps of one run act on.
type world struct {
	*hub
	run *run
}

// verb performs an operation, or begins it.
type verb func(w *world, s *pattern.Step) (pattern.Answer, error)

// verbs has a row for each operation that is not local.
func verbs() map[string]verb {
	return map[string]verb{
		"dev.desire":     taking((*world).desire),
		"dev.tag":        taking((*world).tag),
		"dev.call":       taking((*world).call),
		"dev.send":       taking((*world).send),
		"dev.wait":       taking((*world).wait),
		"dev.rotate_key": taking((*world).rotateKey),
		"dev.quarantine": taking((*world).quarantine),
		"dev.release":    taking((*world).release),
		"dev.replace":    taking((*world).replace),
		"dev.run":        taking((*world).child),
		"fleet.query":    taking((*world).query),
		"fleet.count":    taking((*world).count),
		"fleet.group_by": taking((*world).groupBy),
		"fleet.run":      taking((*world).fleetRun),
		"run.count":      taking((*world).count),
		"ctx.sleep":      taking((*world).sleep),
		"ctx.until_":     taking((*world).sleep),
		"ctx.approve":    taking((*world).approve),
		"ctx.event":      taking((*world).event),
		"ctx.alert":      taking((*world).alert),
		"ctx.http":       taking((*world).http),
		"kv.get":         taking((*world).kvGet),
		"kv.set":         taking((*world).kvSet),
		"kv.incr":        taking((*world).kvIncr),
		"kv.cas":         taking((*world).kvCas),
	}
}

// taking makes a verb of one that takes its arguments decoded.
func taking[A any](f func(w *world, s *pattern.Step, a A) (pattern.Answer, error)) verb {
	return func(w *world, s *pattern.Step) (pattern.Answer, error) {
		var a A
		if len(s.Args) > 0 {
			if err := json.Unmarshal(s.Args, &a); err != nil {
				return invalid("its arguments are not what %s takes: %v", s.Op, err), nil
			}
		}
		return f(w, s, a)
	}
}

// Begin implements pattern.World.
func (w *world) Begin(_ *pattern.Run, s *pattern.Step) (pattern.Answer, error) {
	f := verbs()[s.Op]
	if f == nil {
		return fault(pattern.FaultUnavailable, "%s can't be tested here", s.Op), nil
	}
	op, _ := pattern.Find(s.Op)
	if op.Scope == pattern.ScopeDevice && w.device() == nil {
		return fault(pattern.FaultGone, "the device %q does not exist", w.run.Device), nil
	}
	return f(w, s)
}

// Withdraw implements pattern.World.
func (w *world) Withdraw(_ *pattern.Run, s *pattern.Step) error {
	w.memory.Calls = slices.DeleteFunc(w.memory.Calls, func(c *call) bool { return c.Ref == s.Ref })
	w.memory.Requests = slices.DeleteFunc(w.memory.Requests, func(q *request) bool { return q.Ref == s.Ref })
	for _, r := range w.memory.Runs {
		if r.Parent == w.run.ID && r.Ref == s.Ref && !r.State.State.Final() {
			if err := r.State.Stop(&world{w.hub, r}, "the run that started it waits for it no more", false, w.lab.now); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *world) device() *identity { return w.memory.Twins[w.run.Device] }

// fault is the answer of a step that failed.
func fault(code pattern.FaultCode, format string, args ...any) pattern.Answer {
	return pattern.Answer{Fault: &pattern.Fault{Code: code, Message: fmt.Sprintf(format, args...)}}
}

func invalid(format string, args ...any) pattern.Answer {
	return fault(pattern.FaultInvalid, format, args...)
}

// result is the answer of a step that gave a value.
func result(v any) pattern.Answer {
	text, err := json.Marshal(v)
	if err != nil {
		return invalid("its result is no JSON: %v", err)
	}
	return pattern.Answer{Result: text}
}

// span reads a duration, or gives another if there is none.
func span(text string, otherwise time.Duration) (time.Duration, error) {
	if text == "" {
		return otherwise, nil
	}
	d, err := rollout.ParseDuration(text)
	switch {
	case err != nil:
		return 0, err
	case time.Duration(d) > pattern.MaxWait:
		return 0, fmt.Errorf("%q is more than the %d days that anything may wait", text, int(pattern.MaxWait.Hours()/24))
	}
	return time.Duration(d), nil
}

// spanOf reads a duration among the arguments of a step, as the engine does.
func spanOf(s *pattern.Step, name, text string, otherwise, most time.Duration) (time.Duration, *pattern.Fault) {
	if text == "" {
		return otherwise, nil
	}
	d, err := rollout.ParseDuration(text)
	switch {
	case err != nil:
		return 0, &pattern.Fault{Code: pattern.FaultInvalid, Message: fmt.Sprintf("%s: %s: %v", s.Op, name, err)}
	case time.Duration(d) > most:
		return 0, &pattern.Fault{Code: pattern.FaultInvalid, Message: fmt.Sprintf("%s: %s is %s, at most %s are allowed", s.Op, name, d, rollout.Duration(most))}
	}
	return time.Duration(d), nil
}

func (w *world) desire(_ *pattern.Step, a pattern.PatchArgs) (pattern.Answer, error) {
	i := w.device()
	if err := i.merge(desired, a.Patch, w.lab.now); err != nil {
		return pattern.Answer{Fault: refusal(err)}, nil
	}
	w.lab.effect("%s: desired %s, version %d", i.ID, a.Patch, i.sections[desired].Version())
	if d := w.lab.device(i.ID); d != nil {
		d.told = d.online
	}
	return result(map[string]int64{"version": i.sections[desired].Version()}), nil
}

func (w *world) tag(_ *pattern.Step, a pattern.PatchArgs) (pattern.Answer, error) {
	if err := w.device().merge(tags, a.Patch, w.lab.now); err != nil {
		return pattern.Answer{Fault: refusal(err)}, nil
	}
	w.lab.effect("%s: tags %s", w.run.Device, a.Patch)
	return pattern.Answer{}, nil
}

func (w *world) send(_ *pattern.Step, a pattern.SendArgs) (pattern.Answer, error) {
	i := w.device()
	i.Messages = append(i.Messages, a.Body)
	w.lab.effect("%s: message %s", i.ID, a.Body)
	return pattern.Answer{}, nil
}

// predicateOf parses what a dev.wait waits for.
func predicateOf(args json.RawMessage) (*query.Predicate, error) {
	var a pattern.WaitArgs
	if err := json.Unmarshal(args, &a); err != nil {
		return nil, err
	}
	names := make(map[string]query.Value, len(a.Vars))
	for name, text := range a.Vars {
		v, err := query.ParseValue(text)
		if err != nil {
			return nil, err
		}
		names[name] = v
	}
	return query.ParseWait(a.Where, names)
}

func (w *world) wait(s *pattern.Step, a pattern.WaitArgs) (pattern.Answer, error) {
	timeout, f := spanOf(s, "timeout", a.Timeout, pattern.MaxWait, pattern.MaxWait)
	if f != nil {
		return pattern.Answer{Fault: f}, nil
	}
	p, err := predicateOf(s.Args)
	if err != nil {
		message := err.Error()
		if e, ok := errors.AsType[*query.Error](err); ok {
			message += "\n" + e.Caret()
		}
		return invalid("%s: the condition can't be read: %s", s.Op, message), nil
	}
	i := w.device()
	if p.Match(i.value(), w.lab.now) {
		return pattern.Answer{Result: i.plain(reported)}, nil
	}
	return pattern.Answer{Open: true, Due: w.lab.now.Add(timeout), Ref: w.memory.named("wait-")}, nil
}

func (w *world) rotateKey(_ *pattern.Step, a pattern.RotateArgs) (pattern.Answer, error) {
	slot := a.Slot
	if slot == "" {
		slot = "secondary"
	}
	if slot != "primary" && slot != "secondary" {
		return invalid("slot is %q, expected primary or secondary", a.Slot), nil
	}
	i := w.device()
	i.Keys++
	w.lab.secrets["key:"+slot+"/"+i.ID] = "key " + strconv.Itoa(i.Keys) + " of " + i.ID
	w.lab.effect("%s: a new %s key", i.ID, slot)
	return result(map[string]string{"$secret": "key:" + slot}), nil
}

// quarantined is what the tag quarantine holds, as in a hub.
type quarantined struct {
	Reason       string    `json:"reason"`
	Since        time.Time `json:"since"`
	Run          string    `json:"run"`
	Status       string    `json:"status"`
	StatusReason string    `json:"statusReason,omitempty"`
}

func (w *world) quarantine(s *pattern.Step, a pattern.ReasonArgs) (pattern.Answer, error) {
	i := w.device()
	if a.Reason == "" {
		return invalid("%s: a reason is needed", s.Op), nil
	}
	if _, there := i.sections[tags].Get("quarantine"); there {
		return fault(pattern.FaultConflict, "%s: the device is in quarantine already", s.Op), nil
	}
	patch, err := json.Marshal(map[string]any{"quarantine": quarantined{a.Reason, w.lab.now, w.run.ID, i.Status, i.Reason}})
	if err == nil {
		err = i.merge(tags, patch, w.lab.now)
	}
	if err != nil {
		return pattern.Answer{Fault: refusal(err)}, nil
	}
	i.Status, i.Reason = "disabled", a.Reason
	w.lab.effect("%s: quarantined: %s", i.ID, a.Reason)
	return pattern.Answer{}, w.hangUp(i)
}

// hangUp ends the connection of a device that is not to be there any more. What
// waits for its twin is told later: the run is just being changed.
func (w *world) hangUp(i *identity) error {
	if d := w.lab.device(i.ID); d != nil {
		w.lab.at(w.lab.now, 0, func() error { return d.refused() })
	}
	return nil
}

func (w *world) release(s *pattern.Step, _ struct{}) (pattern.Answer, error) {
	i := w.device()
	var before quarantined
	text, there := i.sections[tags].Get("quarantine")
	switch {
	case !there:
		return fault(pattern.FaultConflict, "%s: the device is not in quarantine", s.Op), nil
	case json.Unmarshal(text, &before) != nil || before.Status == "":
		return fault(pattern.FaultConflict, "%s: the tag quarantine does not say how the device stood before", s.Op), nil
	}
	if err := i.merge(tags, json.RawMessage(`{"quarantine":null}`), w.lab.now); err != nil {
		return pattern.Answer{Fault: refusal(err)}, nil
	}
	i.Status, i.Reason = before.Status, before.StatusReason
	w.lab.effect("%s: released", i.ID)
	if d := w.lab.device(i.ID); d != nil {
		w.lab.at(w.lab.now, 0, func() error { return d.welcome() })
	}
	return pattern.Answer{}, nil
}

func (w *world) replace(_ *pattern.Step, a pattern.ReplaceArgs) (pattern.Answer, error) {
	i := w.device()
	if a.ID == "" || w.memory.Twins[a.ID] != nil {
		return fault(pattern.FaultConflict, "the identity %q exists", a.ID), nil
	}
	other := newIdentity(a.ID)
	text := func(member, id string) json.RawMessage {
		b, err := json.Marshal(map[string]string{member: id})
		if err != nil {
			return json.RawMessage(`{}`) // strings are always JSON
		}
		return b
	}
	err := errors.Join(
		other.merge(tags, i.plain(tags), w.lab.now), other.merge(tags, json.RawMessage(`{"quarantine":null,"replacedBy":null}`), w.lab.now),
		other.merge(tags, text("replaces", i.ID), w.lab.now),
		other.merge(desired, i.plain(desired), w.lab.now), i.merge(tags, text("replacedBy", a.ID), w.lab.now),
	)
	if err != nil {
		return pattern.Answer{Fault: refusal(err)}, nil
	}
	i.Status, i.Reason = "disabled", "replaced by "+a.ID
	w.memory.Twins[a.ID] = other
	w.lab.effect("%s: replaced by %s", i.ID, a.ID)
	return result(map[string]string{"id": a.ID}), w.hangUp(i)
}

func (w *world) sleep(s *pattern.Step, a pattern.SleepArgs) (pattern.Answer, error) {
	due := w.lab.now
	if a.Until != "" {
		until, err := time.Parse(time.RFC3339, a.Until)
		switch {
		case err != nil:
			return invalid("%s: %q is no time; expected one as in 2030-01-31T12:00:00Z", s.Op, a.Until), nil
		case until.Sub(due) > pattern.MaxWait:
			return invalid("%s: %s is further ahead than %s", s.Op, a.Until, rollout.Duration(pattern.MaxWait)), nil
		}
		due = until
	} else {
		d, f := spanOf(s, "for", a.For, 0, pattern.MaxWait)
		if f != nil {
			return pattern.Answer{Fault: f}, nil
		}
		due = due.Add(d)
	}
	return pattern.Answer{Open: true, Due: due, Ref: w.memory.named("sleep-")}, nil
}

func (w *world) event(s *pattern.Step, a pattern.EventArgs) (pattern.Answer, error) {
	if a.Type == "" || len(a.Type) > 128 {
		return invalid("%s: a type of 1 to 128 bytes is needed", s.Op), nil
	}
	w.memory.Events = append(w.memory.Events, sent{w.run.Device, a.Type, a.Data})
	w.lab.effect("%s: event %s %s", w.run.Device, a.Type, a.Data)
	return pattern.Answer{}, nil
}

func (w *world) alert(s *pattern.Step, _ json.RawMessage) (pattern.Answer, error) {
	w.memory.Events = append(w.memory.Events, sent{w.run.Device, "alert", s.Args})
	w.lab.effect("%s: alert %s", w.run.Device, s.Args)
	return pattern.Answer{}, nil
}

// keyBytes bounds the keys of key-value stores, as the engine does.
const keyBytes = 256

// slot is where a key of a key-value store lies.
func (w *world) slot(s *pattern.Step, a pattern.KeyValueArgs) (string, *pattern.Fault) {
	owner := w.run.ID
	switch a.Scope {
	case "run":
	case "pattern":
		owner = "pattern:" + w.run.Pattern
	default:
		return "", invalid("%s: the scope %q is not known, expected run or pattern", s.Op, a.Scope).Fault
	}
	if a.Key == "" || len(a.Key) > keyBytes {
		return "", invalid("%s: a key of 1 to %d bytes is needed", s.Op, keyBytes).Fault
	}
	return owner + "\x00" + a.Key, nil
}

func (w *world) kvGet(s *pattern.Step, a pattern.KeyValueArgs) (pattern.Answer, error) {
	slot, f := w.slot(s, a)
	if f != nil {
		return pattern.Answer{Fault: f}, nil
	}
	return pattern.Answer{Result: w.memory.Values[slot]}, nil
}

func (w *world) kvSet(s *pattern.Step, a pattern.KeyValueArgs) (pattern.Answer, error) {
	slot, f := w.slot(s, a)
	if f != nil {
		return pattern.Answer{Fault: f}, nil
	}
	if len(a.Value) == 0 || string(a.Value) == "null" {
		delete(w.memory.Values, slot)
	} else {
		w.memory.Values[slot] = a.Value
	}
	return pattern.Answer{}, nil
}

func (w *world) kvIncr(s *pattern.Step, a pattern.KeyValueArgs) (pattern.Answer, error) {
	n := 0.0
	slot, f := w.slot(s, a)
	if f != nil {
		return pattern.Answer{Fault: f}, nil
	}
	if old := w.memory.Values[slot]; len(old) > 0 {
		if err := json.Unmarshal(old, &n); err != nil {
			return invalid("%s: what %q holds is no number", s.Op, a.Key), nil
		}
	}
	by := a.By
	if by == 0 {
		by = 1
	}
	answer := result(n + by)
	w.memory.Values[slot] = answer.Result
	return answer, nil
}

func (w *world) kvCas(s *pattern.Step, a pattern.KeyValueArgs) (pattern.Answer, error) {
	slot, f := w.slot(s, a)
	if f != nil {
		return pattern.Answer{Fault: f}, nil
	}
	if !sameJSON(w.memory.Values[slot], a.Old) {
		return result(false), nil
	}
	if len(a.Value) == 0 || string(a.Value) == "null" {
		delete(w.memory.Values, slot)
	} else {
		w.memory.Values[slot] = a.Value
	}
	return result(true), nil
}

// sameJSON compares two values; nothing and null are the same.
func sameJSON(a, b json.RawMessage) bool {
	return canonical(a) == canonical(b)
}

// canonical is a value with its keys sorted and without spaces.
func canonical(text json.RawMessage) string {
	if len(text) == 0 {
		return "null"
	}
	var v any
	if json.Unmarshal(text, &v) != nil {
		return string(text)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false) // people read it
	if err := e.Encode(v); err != nil {
		return string(text)
	}
	return strings.TrimSuffix(out.String(), "\n")
}
