package pattern

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/muster-hub/muster/engine/rollout"
)

// Events that a trigger may have.
const (
	EventConnected    = "connected"
	EventDisconnected = "disconnected"
	EventCreated      = "created"
)

// Kind is the member that says when a trigger starts runs: "when", "event",
// "cron", "alert" or "enrolled"; empty if there is none.
func (t *Trigger) Kind() string {
	if kinds := t.kinds(); len(kinds) > 0 {
		return kinds[0]
	}
	return ""
}

func (t *Trigger) kinds() []string {
	var list []string
	for _, k := range []struct {
		name string
		have bool
	}{{"when", t.When != ""}, {"event", t.Event != ""}, {"cron", t.Cron != ""}, {"alert", t.Alert != ""}, {"enrolled", t.Enrolled}} {
		if k.have {
			list = append(list, k.name)
		}
	}
	return list
}

func (c *manifestCheck) triggers() {
	if n := len(c.m.Triggers); n > triggersMost {
		c.wrong("triggers", fmt.Sprintf("are %d", n), fmt.Sprintf("at most %d", triggersMost))
		return
	}
	for i := range c.m.Triggers {
		path := fmt.Sprintf("triggers[%d]", i)
		before := len(c.faults)
		c.trigger(path+".", &c.m.Triggers[i])
		for k := range i {
			if len(c.faults) == before && reflect.DeepEqual(c.m.Triggers[k], c.m.Triggers[i]) {
				c.wrong(path, fmt.Sprintf("is the same as triggers[%d]", k), "")
			}
		}
	}
}

func (c *manifestCheck) trigger(path string, t *Trigger) {
	const kinds = "exactly one of when, event, cron, alert and enrolled"
	at := path[:len(path)-1]
	switch list := t.kinds(); len(list) {
	case 0:
		c.wrong(at, "doesn't say when it starts runs", kinds)
		return
	case 1:
	default:
		c.wrong(at, "has "+list[0]+" and "+list[1], kinds)
		return
	}
	if t.When != "" {
		c.predicate(path+"when", t.When)
	}
	if t.Event != "" {
		among(c, path+"event", t.Event, EventConnected, EventDisconnected, EventCreated)
	}
	if t.Cron != "" {
		if _, err := rollout.ParseCron(t.Cron); err != nil {
			c.fault(path+"cron", err)
		}
	}
	if t.Zone != "" {
		if _, err := rollout.LoadZone(t.Zone); err != nil {
			c.fault(path+"zone", err)
		}
		if t.Cron == "" {
			c.wrong(path+"zone", "is there without cron", "none")
		}
	}
	if t.Where != "" && t.Where != everything {
		c.predicate(path+"where", t.Where)
	}
	if c.m.Scope == ScopeFleet {
		if t.Cron == "" {
			c.wrong(at, "is of kind "+t.Kind()+", and the scope is fleet", "cron: the others are of one device")
		}
		if t.Where != "" {
			c.wrong(path+"where", "is there, and the scope is fleet", "none")
		}
	}
	if !c.unknown {
		_, err := c.m.Complete(t.Params)
		c.add(path+"params.", err)
	}
}

// fault takes over a fault without path.
func (c *manifestCheck) fault(path string, err error) {
	if f, ok := errors.AsType[rollout.Fault](err); ok {
		c.wrong(path, f.Reason, f.Expected)
		return
	}
	c.wrong(path, err.Error(), "")
}
