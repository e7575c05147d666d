package engine

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/twin"
)

// jobAction is what a job does to each of its targets, beyond which neither
// targets nor policies know anything.
type jobAction interface {
	kind() JobKind
	// operation is what the job's owner must be allowed to do.
	operation() operation
	// check says what is wrong with the action whatever the target.
	check(h *Hub) error
	// preview says what it would do to a target.
	preview(h *Hub, t *Twin) JobEffect
}

// JobEffect is what an action would do to one target.
type JobEffect struct {
	Changes   []JobDifference // of the twin, at most previewChanges
	More      int             // changes that are not listed
	Method    string          // that would be called
	Pattern   string          // that would run, with its version: "reboot 1.0.0"
	Behind    string          // the run that is under way on the target: what the pattern says of conflicts would be done
	Conflict  string          // what that is, in words
	Connected bool
	Fault     string // why it would fail, or the pattern's own word why it leaves the target out; empty: it would not, as far as one can tell
}

// JobDifference is one value that would change.
type JobDifference struct {
	Path   string          // dotted, from the section on: "desired.fw.version"
	Before json.RawMessage // nil: it is not there
	After  json.RawMessage // nil: it would be removed
}

// previewChanges is how many changes of one twin a preview lists.
const previewChanges = 100

// action returns what the job does, or why that is not exactly one thing.
func (a *JobAction) action() (jobAction, error) {
	switch {
	case a.Configuration != nil:
		return (*configurationAction)(a.Configuration), nil
	case a.Twin != nil && a.Method != nil:
		return nil, errf(CodeArgumentInvalid, "action has twin and method; expected one of them")
	case a.Run != nil:
		return a.runAction()
	case a.Twin != nil:
		if a.Offline != "" || a.AnyAnswer {
			return nil, errf(CodeArgumentInvalid, "action.offline and action.anyAnswer say what becomes of a method; a twin is written whether its device is there or not")
		}
		return (*twinAction)(a.Twin), nil
	case a.Method != nil:
		return methodAction{a.Method, a.Offline}, nil
	}
	return nil, errf(CodeArgumentNull, "action is missing; expected twin or method, or run")
}

// twinAction patches a twin.
type twinAction JobTwinPatch

func (*twinAction) kind() JobKind        { return JobTwin }
func (*twinAction) operation() operation { return opTwinUpdate }

// sections returns the patches that there are.
func (a *twinAction) sections() []twinPatch {
	var list []twinPatch
	if a.Tags != nil {
		list = append(list, twinPatch{twin.Tags, a.Tags})
	}
	if a.Desired != nil {
		list = append(list, twinPatch{twin.Desired, a.Desired})
	}
	return list
}

type twinPatch struct {
	kind twin.Kind
	body []byte
}

// apply merges the patch into a section.
func (p twinPatch) apply(h *Hub, s *twin.Section, now time.Time) (*twin.Section, error) {
	limits := h.limits.twinLimits(p.kind)
	limits.Special = twin.DropSpecial
	patch, err := twin.ParseSection(p.kind, p.body, 24*limits.MaxBytes+64*kib)
	if err != nil {
		return nil, twinError(err)
	}
	next, _, err := s.Merge(patch, now, limits)
	if err != nil {
		return nil, twinError(err)
	}
	return next, nil
}

// check implements jobAction. A patch that an empty twin does not take, none
// takes: null removes nothing there, and all else is checked alike.
func (a *twinAction) check(h *Hub) error {
	list := a.sections()
	if len(list) == 0 {
		return errf(CodeArgumentNull, "action.twin has neither tags nor desired; expected a JSON object of one of them, or of both")
	}
	for _, p := range list {
		if _, err := p.apply(h, twin.New(p.kind), time.Unix(0, 0)); err != nil {
			e := AsError(err)
			return &Error{Code: e.Code, Message: "action.twin: " + e.Message, cause: e.cause}
		}
	}
	return nil
}

// preview implements jobAction.
func (a *twinAction) preview(h *Hub, t *Twin) JobEffect {
	effect := JobEffect{Connected: t.Identity.Connected}
	now := time.Now()
	for _, p := range a.sections() {
		before := t.Tags
		if p.kind == twin.Desired {
			before = t.Desired
		}
		after, err := p.apply(h, before, now)
		if err == nil {
			_, err = h.compareDeclared(t.Identity.ID(), before, after)
		}
		if err != nil {
			effect.Fault = AsError(err).Message
			continue
		}
		for _, d := range twin.Diff(before, after) {
			if len(effect.Changes) == previewChanges {
				effect.More++
				continue
			}
			effect.Changes = append(effect.Changes, JobDifference{p.kind.String() + "." + d.Path, d.Before, d.After})
		}
	}
	return effect
}

// methodAction invokes a direct method.
type methodAction struct {
	*JobMethodCall
	offline JobOffline
}

func (methodAction) kind() JobKind        { return JobMethod }
func (methodAction) operation() operation { return opMethodInvoke }

// call returns the call as the device gets it.
func (a methodAction) call() MethodCall {
	m := MethodCall{Name: a.Name, Payload: a.Payload, ResponseTimeout: time.Duration(a.ResponseTimeout), ConnectTimeout: time.Duration(a.ConnectTimeout)}
	if m.ResponseTimeout == 0 {
		m.ResponseTimeout = defaultResponseTimeout
	}
	return m
}

// check implements jobAction.
func (a methodAction) check(h *Hub) error {
	if !slices.Contains([]JobOffline{"", JobOfflineWait, JobOfflineFail}, a.offline) {
		return errf(CodeArgumentInvalid, "action.offline is %q; expected %q or %q", clip(string(a.offline)), JobOfflineWait, JobOfflineFail)
	}
	if a.ConnectTimeout != 0 && a.offline != JobOfflineFail {
		return errf(CodeArgumentInvalid, "action.method.connectTimeout counts with offline %q only; without it a job waits for a device until its timeout", JobOfflineFail)
	}
	if a.Payload != nil && !json.Valid(a.Payload) {
		return errf(CodeFormat, "action.method.payload is not JSON")
	}
	if err := h.checkMethod(a.call()); err != nil {
		e := AsError(err)
		return &Error{Code: e.Code, Message: "action.method: " + e.Message, cause: e.cause}
	}
	return nil
}

// preview implements jobAction.
func (a methodAction) preview(_ *Hub, t *Twin) JobEffect {
	effect := JobEffect{Method: a.Name, Connected: t.Identity.Connected}
	switch {
	case t.Identity.Disabled:
		effect.Fault = fmt.Sprintf("%s is disabled and can't connect", t.Identity.ID())
	case !effect.Connected && a.offline == JobOfflineFail && a.ConnectTimeout == 0:
		effect.Fault = "it is not connected, and the job does not wait"
	}
	return effect
}
