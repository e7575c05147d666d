package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// queue stores the call in the hub and waits for its end. Whoever stops
// waiting leaves it queued.
func (c *methodInvokeCmd) queue(a *app, s *client.Service, device, module string, payload json.RawMessage) error {
	ctx, stop := context.WithTimeout(a.ctx, 30*time.Second)
	q, err := s.QueueMethod(ctx, device, module, client.MethodCall{Name: c.Method, Payload: payload, ResponseTimeout: c.Timeout}, c.WaitForDevice, rand.Text())
	stop()
	if err != nil {
		return err
	}
	a.note("Queued as %s until %s. Ctrl-C stops the waiting, not the call.", q.ID, a.cell(q.Deadline))
	keep := following{app: a, reached: true}
	for last := q.Status; !q.Final(); {
		ctx, stop := context.WithTimeout(a.ctx, 75*time.Second)
		next, err := s.QueuedMethod(ctx, device, module, q.ID, 60*time.Second)
		stop()
		if late := time.Now().After(q.Deadline.Add(c.Timeout)); err != nil && !late && keep.wait(err) == nil && a.ctx.Err() == nil {
			continue // the call outlives the hub's restart
		}
		if err != nil {
			return &problem{
				exit: ExitCancelled, what: "the waiting for the call " + q.ID + " has ended; in the hub it goes on", why: err.Error(),
				next: fmt.Sprintf("muster method show %s %s tells what became of it; muster method cancel %s %s takes it back.", c.ID, q.ID, c.ID, q.ID),
			}
		}
		keep.heard()
		if q = next; q.Status != last {
			last = q.Status
			a.note("%s is %s.", q.ID, last)
		}
	}
	return a.printQueued(c.OutputFlags, q)
}

// printQueued prints a call, and fails when it did not end well.
func (a *app) printQueued(o OutputFlags, q client.QueuedMethod) error {
	id := q.DeviceID
	if q.ModuleID != "" {
		id += "/" + q.ModuleID
	}
	fields := []field{
		{"id", q.ID}, {"for", id}, {"method", q.Name}, {"status", q.Status}, {"created", q.Created}, {"deadline", q.Deadline},
		{"sent", q.Sent}, {"finished", q.Finished}, {"by", q.Principal},
	}
	if q.Response != nil {
		fields = append(fields, field{"answer status", q.Response.Status}, field{"answer", q.Response.Payload})
	}
	if q.Message != "" {
		fields = append(fields, field{"message", q.Message})
	}
	if err := a.printRecord(o, q, fields); err != nil {
		return err
	}
	switch {
	case q.Status == "succeeded" && (q.Response == nil || q.Response.Status < 200 || q.Response.Status > 299):
		return &problem{exit: ExitFailed, what: "the device answered with a status other than 2xx", next: "Its answer above says more."}
	case q.Status == "uncertain":
		return &problem{exit: ExitFailed, what: "the call was taken for sending and no answer came: whether the device acted is not known", next: "Look at the device's reported properties before you repeat it."}
	case q.Status == "failed":
		return &problem{exit: ExitFailed, what: "the device's answer could not be taken", why: q.Message, next: "Mend the method handler on the device."}
	case q.Status == "expired":
		return &problem{exit: ExitTimeout, what: "the device did not come before the deadline; the call was never sent", next: "Queue it again with a longer --wait-for-device."}
	}
	return nil
}

type methodListCmd struct {
	HubFlags
	OutputFlags
	Status string `help:"Only calls of this status." enum:",queued,sending,succeeded,failed,expired,canceled,uncertain" default:"" placeholder:"STATUS"`
	Limit  int    `help:"At most so many; 0 lists all." default:"100"`
	ID     string `arg:"" optional:"" name:"id" help:"DEVICE, or DEVICE/MODULE; without it the whole hub's calls."`
}

// Run lists queued calls.
func (c *methodListCmd) Run(a *app) error {
	var device, module string
	if c.ID != "" {
		var err error
		if device, module, err = splitID(c.ID); err != nil {
			return err
		}
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	sh := &sheet{columns: []string{"ID", "FOR", "METHOD", "STATUS", "CREATED", "DEADLINE", "BY"}, empty: "No method calls are queued or kept."}
	for q, err := range s.QueuedMethods(ctx, device, module, c.Status) {
		if err != nil {
			return err
		}
		if c.Limit > 0 && len(sh.rows) == c.Limit {
			a.note("There are more than %d; --limit 0 lists all.", c.Limit)
			break
		}
		id := q.DeviceID
		if q.ModuleID != "" {
			id += "/" + q.ModuleID
		}
		sh.add(q, q.ID, id, q.Name, q.Status, q.Created, q.Deadline, q.Principal)
	}
	return a.print(c.OutputFlags, sh)
}

type methodShowCmd struct {
	HubFlags
	OutputFlags
	ID   string `arg:"" name:"id" help:"DEVICE, or DEVICE/MODULE."`
	Call string `arg:"" name:"call" help:"The call's id."`
}

// Run shows a queued call.
func (c *methodShowCmd) Run(a *app) error {
	return a.oneQueued(c.HubFlags, c.OutputFlags, c.ID, func(ctx context.Context, s *client.Service, device, module string) (client.QueuedMethod, error) {
		return s.QueuedMethod(ctx, device, module, c.Call, 0)
	})
}

type methodCancelCmd struct {
	HubFlags
	OutputFlags
	ID   string `arg:"" name:"id" help:"DEVICE, or DEVICE/MODULE."`
	Call string `arg:"" name:"call" help:"The call's id."`
}

// Run cancels a queued call.
func (c *methodCancelCmd) Run(a *app) error {
	return a.oneQueued(c.HubFlags, c.OutputFlags, c.ID, func(ctx context.Context, s *client.Service, device, module string) (client.QueuedMethod, error) {
		return s.CancelQueuedMethod(ctx, device, module, c.Call)
	})
}

func (a *app) oneQueued(h HubFlags, o OutputFlags, id string, f func(ctx context.Context, s *client.Service, device, module string) (client.QueuedMethod, error)) error {
	device, module, err := splitID(id)
	if err != nil {
		return err
	}
	s, err := a.service(h)
	if err != nil {
		return err
	}
	ctx, stop := a.with(h)
	defer stop()
	q, err := f(ctx, s, device, module)
	if err != nil {
		return err
	}
	return a.printQueued(o, q)
}
