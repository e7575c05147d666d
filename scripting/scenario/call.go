package scenario

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/rollout"
)

// call is a method call that has not ended.
type call struct {
	Ref        string          `json:"ref"`
	Run        string          `json:"run"`
	Device     string          `json:"device"`
	Method     string          `json:"method"`
	Payload    json.RawMessage `json:"payload"`
	Timeout    time.Duration   `json:"timeout"`
	Online     time.Duration   `json:"online"`
	Retry      int             `json:"retry"`
	Idempotent bool            `json:"idempotent"`
	Line       string          `json:"line"`
	Number     int             `json:"number"` // of the step

	Tries    int       `json:"tries"`    // attempts that were begun
	Deadline time.Time `json:"deadline"` // until when it waits for the device
	Sending  bool      `json:"sending"`  // it may be on the wire
}

// takenPoint is where a crash loses the answer to what was taken.
const takenPoint = ", when it had been taken and the answer was lost"

// As the engine has them.
const (
	defaultAnswer = 30 * time.Second // how long a device may take to answer
	answerLeast   = 5 * time.Second
	answerMost    = 300 * time.Second
	retryMost     = 100              // further attempts that a program may ask for
	retryWait     = 5 * time.Second  // for which each waits at least, times its number
	pickup        = 30 * time.Second // how long one waits whose device was there
)

func (w *world) call(s *pattern.Step, a pattern.CallArgs) (pattern.Answer, error) {
	timeout, f := spanOf(s, "timeout", a.Timeout, defaultAnswer, answerMost)
	if f != nil {
		return pattern.Answer{Fault: f}, nil
	}
	online, f := spanOf(s, "online", a.Online, 0, pattern.MaxWait)
	if f != nil {
		return pattern.Answer{Fault: f}, nil
	}
	payload, err := w.lab.revealed(a.Payload, w.run.Device)
	if err != nil {
		return fault(pattern.FaultDenied, "%v", err), nil
	}
	switch {
	case a.Retry < 0 || a.Retry > retryMost:
		return invalid("%s: retry is %d, allowed are 0 to %d", s.Op, a.Retry, retryMost), nil
	case timeout <= 0:
		return invalid("%s: timeout is %s, expected more", s.Op, rollout.Duration(timeout)), nil
	case !w.lab.reachable(w.run.Device) && online == 0 && a.Retry == 0:
		return fault(pattern.FaultOffline, "the device is not connected, or takes no methods; nothing was sent"), nil
	}
	c := &call{
		Ref: w.memory.named("call-"), Run: w.run.ID, Device: w.run.Device, Method: a.Method, Payload: payload, Timeout: max(timeout, answerLeast), Online: online,
		Retry: a.Retry, Idempotent: a.Idempotent, Line: s.Line, Number: len(w.run.State.Of(entryOf(w.run))) + 1,
	}
	w.lab.again(c.Run, "dev.call "+c.Method, canonical(c.Payload), c.Line, c.Idempotent)
	w.memory.Calls = append(w.memory.Calls, c)
	w.attempt(c)
	return pattern.Answer{Open: true, Ref: c.Ref}, nil
}

// again takes note of a command that a program gives anew although nobody knows
// whether the device took it when it was given before.
func (l *lab) again(run, what, payload, line string, idempotent bool) {
	if u := l.unsure; u != nil && u.run == run && u.what == what && u.payload == payload && !idempotent && l.twice == "" {
		l.twice = line
	}
}

func (c *call) String() string {
	return fmt.Sprintf("step %d, dev.call %s (%s)", c.Number, c.Method, c.Line)
}

// attempt begins the next attempt of a call. A further one waits a while for its
// device whatever the program says, as in a hub.
func (h *hub) attempt(c *call) {
	c.Tries++
	wait := c.Online
	switch {
	case h.lab.reachable(c.Device):
		wait = max(wait, pickup)
	case c.Tries > 1 || wait == 0:
		wait = max(wait, time.Duration(c.Tries)*retryWait)
	}
	c.Sending, c.Deadline = false, h.lab.now.Add(wait)
	if r := h.memory.run(c.Run); r != nil && r.State.Open() != nil {
		r.State.Open().Tries = c.Tries
	}
	h.watchCall(c)
}

// watchCall ends an attempt whose device does not come.
func (h *hub) watchCall(c *call) {
	if c.Sending {
		return
	}
	ref := c.Ref
	h.lab.at(c.Deadline, h.epoch, func() error {
		c := h.pending(ref)
		switch {
		case c == nil || c.Sending || h.lab.now.Before(c.Deadline):
			return nil
		case c.Tries <= c.Retry:
			h.attempt(c)
			return nil
		}
		return h.ended(c, nil, &pattern.Fault{Code: pattern.FaultOffline, Message: fmt.Sprintf("the device did not take the call %s in time; nothing was sent", c.Method)})
	})
}

func (h *hub) pending(ref string) *call {
	i := slices.IndexFunc(h.memory.Calls, func(c *call) bool { return c.Ref == ref })
	if i < 0 {
		return nil
	}
	return h.memory.Calls[i]
}

// ended ends a call.
func (h *hub) ended(c *call, result json.RawMessage, f *pattern.Fault) error {
	h.memory.Calls = slices.DeleteFunc(h.memory.Calls, func(o *call) bool { return o == c })
	return h.settle(c.Run, c.Ref, result, f)
}

// reachable reports whether a device takes calls now.
func (l *lab) reachable(id string) bool {
	d, i := l.device(id), l.hub.memory.Twins[id]
	return d != nil && i != nil && d.online && d.greeted && i.Connected && i.Status == "enabled"
}

// deliver sends a call to its device. That it does is stored first, so that a
// crash can't lead to a repetition.
func (h *hub) deliver(c *call) error {
	c.Sending = true
	if crashed, err := h.lab.point("%s, when it was about to be sent", c); crashed || err != nil {
		return err
	}
	d := h.lab.device(c.Device)
	session := d.session
	reply, err := d.invoke(c.Method, c.Payload)
	if err != nil {
		return err
	}
	if crashed, err := h.lab.point("%s%s", c, takenPoint); crashed || err != nil {
		return err
	}
	ref, try := c.Ref, c.Tries // what comes of an attempt is nothing to the next one
	if !reply.never {
		h.lab.at(h.lab.now.Add(reply.after), h.epoch, func() error {
			c := h.pending(ref)
			if c == nil || c.Tries != try || d.session != session {
				return nil
			}
			if err := h.answered(c, reply); err != nil {
				return err
			}
			return d.flush()
		})
	}
	h.lab.at(h.lab.now.Add(c.Timeout), h.epoch, func() error {
		if c := h.pending(ref); c != nil && c.Tries == try && c.Sending {
			return h.late(c, fmt.Sprintf("the device did not answer within %s; whether it acted is not known", c.Timeout))
		}
		return nil
	})
	return nil
}

func (h *hub) answered(c *call, reply reply) error {
	payload := reply.payload
	if len(payload) == 0 {
		payload = json.RawMessage("null")
	}
	if reply.status >= 400 {
		return h.ended(c, nil, &pattern.Fault{
			Code: pattern.FaultStatus, Message: fmt.Sprintf("the device answered %s with the status %d", c.Method, reply.status), Status: reply.status, Payload: payload,
		})
	}
	result, err := json.Marshal(map[string]any{"status": reply.status, "payload": payload})
	if err != nil {
		return fmt.Errorf("the answer to %s: %w", c.Method, err)
	}
	return h.ended(c, result, nil)
}

// late ends a call that was sent and not answered, or makes another attempt of
// one that may be repeated.
func (h *hub) late(c *call, why string) error {
	switch {
	case !c.Idempotent:
		return h.ended(c, nil, &pattern.Fault{Code: pattern.FaultUncertain, Message: "the call " + c.Method + ": " + why})
	case c.Tries <= c.Retry:
		h.attempt(c)
		return nil
	}
	return h.ended(c, nil, &pattern.Fault{Code: pattern.FaultTimeout, Message: "the call " + c.Method + ": " + why})
}

// interrupted is a call that was being sent when the hub crashed.
func (h *hub) interrupted(c *call) error {
	if !c.Idempotent || c.Tries > c.Retry {
		h.lab.unsure = &unsure{run: c.Run, what: "dev.call " + c.Method, payload: canonical(c.Payload), idempotent: c.Idempotent}
	} else if strings.HasSuffix(h.lab.crashed, takenPoint) {
		h.lab.repeated = true
	}
	return h.late(c, "the hub stopped after the call was taken for sending and before an answer; whether the device acted is not known")
}

// hungUp ends the calls that were sent to a device whose connection has ended.
func (h *hub) hungUp(id string) error {
	for _, c := range slices.Clone(h.memory.Calls) {
		if c.Device == id && c.Sending {
			if err := h.late(c, fmt.Sprintf("the connection of %q ended before it answered", id)); err != nil || h != h.lab.hub {
				return err
			}
		}
	}
	return nil
}
