package engine

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/rollout"
)

// runWorld is the world on which the steps of a run act: a transaction. What goes
// on a wire goes there after it; see queued_delivery.go and run_task.go.
type runWorld struct {
	t      *runTx
	r      *runInTx
	caller *Caller // once it was needed
}

// Begin implements pattern.World.
func (w *runWorld) Begin(_ *pattern.Run, s *pattern.Step) (a pattern.Answer, err error) {
	op, _ := pattern.Find(s.Op)
	switch {
	case op.Scope == pattern.ScopeDevice && w.r.Device == "":
		return fail(pattern.FaultInvalid, "%s is of a device, and the run has none", s.Op), nil
	case op.Scope == pattern.ScopeFleet && w.r.Device != "":
		return fail(pattern.FaultInvalid, "%s is of the fleet, and the run is of a device", s.Op), nil
	case op.Scope != "" && op.Scope != pattern.ScopeDevice && op.Scope != pattern.ScopeFleet:
		return fail(pattern.FaultInvalid, "%s can't be used here", s.Op), nil
	}
	if _, needed := stepOperation(s.Op); needed {
		c, fault := w.acts()
		if fault == nil {
			fault = mayStep(c, s.Op)
		}
		if fault != nil {
			return pattern.Answer{Fault: fault}, nil
		}
	}
	// What a step did that is refused halfway must not stay.
	var refused *pattern.Fault
	err = w.t.Try(func() error {
		var err error
		if a, err = w.begin(s); err == nil {
			return nil
		}
		fault, other := runFault(err)
		refused = fault
		if other != nil {
			return other
		}
		return err
	})
	if err != nil && refused != nil {
		return pattern.Answer{Fault: refused}, nil
	}
	return a, err
}

// acts returns the caller as whom the run acts.
func (w *runWorld) acts() (Caller, *pattern.Fault) {
	if w.caller != nil {
		return *w.caller, nil
	}
	c, fault := w.t.hub.runCaller(w.r.id, &w.r.runRecord)
	if fault == nil {
		w.caller = &c
	}
	return c, fault
}

func fail(code pattern.FaultCode, format string, args ...any) pattern.Answer {
	return pattern.Answer{Fault: faultf(code, format, args...)}
}

// result makes an answer of a value.
func result(v any) (pattern.Answer, error) {
	b, err := marshal(v)
	return pattern.Answer{Result: b}, err
}

func (w *runWorld) begin(s *pattern.Step) (pattern.Answer, error) {
	switch s.Op {
	case "dev.desire", "dev.tag":
		return w.patch(s)
	case opCall:
		return w.call(s)
	case "dev.send":
		return w.send(s)
	case opWait:
		return w.wait(s)
	case "dev.rotate_key":
		return w.rotate(s)
	case "dev.quarantine":
		return w.quarantine(s)
	case "dev.release":
		return w.release()
	case "dev.replace":
		return w.replace(s)
	case opChild:
		return w.child(s)
	case opHTTP, opFleetQuery, opFleetCount, opFleetGroup, opFleetRun:
		return w.work(s)
	case "ctx.sleep", "ctx.until_":
		return w.sleep(s)
	case opApprove:
		return w.approve(s)
	case "ctx.event":
		return w.event(s)
	case "kv.get", "kv.set", "kv.incr", "kv.cas":
		return w.keyValue(s)
	}
	return fail(pattern.FaultUnavailable, "this hub does not have %s", s.Op), nil
}

// Withdraw implements pattern.World.
func (w *runWorld) Withdraw(_ *pattern.Run, s *pattern.Step) error {
	switch s.Op {
	case opCall:
		return w.t.withdrawCall(w.r, s.Ref)
	case opFleetRun:
		return w.t.withdrawJob(w.r, s)
	case opChild:
		return w.t.stopLater(s.Ref, "the run that started it waits for it no more", false)
	}
	return nil // what is answered after this finds nobody who waits
}

// patch changes desired properties or tags.
func (w *runWorld) patch(s *pattern.Step) (a pattern.Answer, err error) {
	args, fault := readArgs[pattern.PatchArgs](s)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	record, err := w.twin()
	if err != nil {
		return a, err
	}
	c, _ := w.acts()
	id := w.r.device()
	if s.Op == "dev.tag" {
		return a, w.t.hub.changeTwinTx(w.t.Tx, c, id, &record, TwinUpdate{Tags: args.Patch}, IfMatch{}, opTwinUpdate)
	}
	if err := w.t.hub.changeTwinTx(w.t.Tx, c, id, &record, TwinUpdate{Desired: args.Patch}, IfMatch{}, opTwinUpdate); err != nil {
		return a, err
	}
	return result(map[string]int64{"version": record.Desired.Version()})
}

// twin returns the device's twin; one of another device of the same name is not
// the run's.
func (w *runWorld) twin() (twinRecord, error) {
	identity, record, err := w.t.hub.loadTwin(w.t.Tx, w.r.device())
	if err == nil && identity.GenerationID != w.r.Generation {
		err = errf(CodeDeviceNotFound, "%s", w.r.device())
	}
	return record, err
}

// send queues a cloud-to-device message.
func (w *runWorld) send(s *pattern.Step) (a pattern.Answer, err error) {
	args, fault := readArgs[pattern.SendArgs](s)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	if w.r.Module != "" {
		return fail(pattern.FaultInvalid, "%s: messages go to devices, not to modules", s.Op), nil
	}
	m := DeviceboundMessage{Body: args.Body, ContentType: "application/json", ContentEncoding: "utf-8"}
	var text string
	if json.Unmarshal(args.Body, &text) == nil { // a text goes as it is
		m.Body, m.ContentType = []byte(text), "text/plain"
	}
	for _, key := range slices.Sorted(maps.Keys(args.Properties)) {
		m.Properties = append(m.Properties, Property{Name: key, Value: args.Properties[key]})
	}
	h := w.t.hub
	if err := h.checkDevicebound(&m); err != nil {
		return a, err
	}
	c, _ := w.acts()
	if _, err := h.sendMessageTx(w.t.Tx, c, w.r.Device, m); err != nil {
		return a, err
	}
	w.t.OnCommit(func(uint64) {
		h.count.deviceboundSent.Add(1)
		if s := h.sessions.get(w.r.device()); s != nil {
			s.deliverLater()
		}
	})
	return a, nil
}

// child starts a run of another pattern on the same device.
func (w *runWorld) child(s *pattern.Step) (a pattern.Answer, err error) {
	args, fault := readArgs[pattern.RunArgs](s)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	timeout, fault := stepDuration(s, "timeout", args.Timeout, pattern.MaxWait, pattern.MaxRun)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	c, _ := w.acts()
	id, err := w.t.startChild(c, w.r, args.Pattern, args.Params)
	if err != nil {
		return a, err
	}
	return pattern.Answer{Open: true, Ref: id, Due: w.t.Now().Add(timeout)}, nil
}

// sleep waits for a moment.
func (w *runWorld) sleep(s *pattern.Step) (pattern.Answer, error) {
	args, fault := readArgs[pattern.SleepArgs](s)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	now := w.t.Now()
	if args.Until != "" {
		until, err := time.Parse(time.RFC3339, args.Until)
		switch {
		case err != nil:
			return fail(pattern.FaultInvalid, "%s: %q is no time; expected one as in 2030-01-31T12:00:00Z", s.Op, clip(args.Until)), nil
		case until.Sub(now) > pattern.MaxWait:
			return fail(pattern.FaultInvalid, "%s: %s is further ahead than %s", s.Op, args.Until, rollout.Duration(pattern.MaxWait)), nil
		}
		return pattern.Answer{Open: true, Ref: w.r.newRef("s"), Due: until.UTC()}, nil
	}
	d, fault := stepDuration(s, "for", args.For, 0, pattern.MaxWait)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	return pattern.Answer{Open: true, Ref: w.r.newRef("s"), Due: s.Begun.Add(d)}, nil
}

// approveTime is how long a person has by default to decide.
const approveTime = 24 * time.Hour

// approve asks a person.
func (w *runWorld) approve(s *pattern.Step) (pattern.Answer, error) {
	args, fault := readArgs[pattern.ApproveArgs](s)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	if args.Question == "" || len(args.Question) > pattern.MaxLogLine {
		return fail(pattern.FaultInvalid, "%s: a question of 1 to %d bytes is needed", s.Op, pattern.MaxLogLine), nil
	}
	timeout, fault := stepDuration(s, "timeout", args.Timeout, approveTime, pattern.MaxWait)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	return pattern.Answer{Open: true, Ref: w.r.newRef("a"), Due: w.t.Now().Add(timeout)}, nil
}

// event writes an event of the device.
func (w *runWorld) event(s *pattern.Step) (a pattern.Answer, err error) {
	args, fault := readArgs[pattern.EventArgs](s)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	if args.Type == "" || len(args.Type) > 128 {
		return fail(pattern.FaultInvalid, "%s: a type of 1 to 128 bytes is needed", s.Op), nil
	}
	m := w.r.members()
	m.text("type", args.Type)
	m.rawUnlessEmpty("data", args.Data)
	c, fault := w.acts()
	if fault != nil {
		c = hubCaller(causeRun + w.r.id)
	}
	return a, appendChange(w.t.Tx, c, changePatternEvent, w.r.device(), 0, m.end())
}

// work leaves a step to a worker, who does it once this is durable.
func (w *runWorld) work(s *pattern.Step) (pattern.Answer, error) {
	if fault := checkRunWork(s); fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	w.r.Taken = false
	a := pattern.Answer{Open: true, Ref: w.r.newRef("t")}
	if s.Op == opFleetRun {
		args, fault := readArgs[pattern.RunArgs](s)
		timeout, late := stepDuration(s, "timeout", args.Timeout, pattern.MaxWait, pattern.MaxRun)
		if fault = cmp.Or(fault, late); fault != nil {
			return pattern.Answer{Fault: fault}, nil
		}
		if args.Wait {
			a.Due = w.t.Now().Add(timeout)
		}
	}
	return a, nil
}

var _ pattern.World = (*runWorld)(nil)
