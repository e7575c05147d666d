package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

const (
	monitorWait  = 30 * time.Second // of one request
	monitorLimit = 500
	backoffMost  = 15 * time.Second
)

type monitorCmd struct {
	WhichHub
	Device []string `help:"Only this device and its modules; repeatable; PREFIX* for many." placeholder:"ID"`
	Kind   []string `help:"Only this kind, such as telemetry or twin.reported; repeatable; twin.* for many."`
	From   string   `help:"Where to begin: now, start (the oldest kept), or a cursor." default:"now"`
	Count  int      `help:"End after so many events; 0 goes on." default:"0"`
	Output string   `short:"o" enum:"text,jsonl" default:"text" help:"text or jsonl."`
}

// Run shows events until it is interrupted. A hub that goes away is waited
// for, and nothing is missed: the cursor says where to go on.
func (c *monitorCmd) Run(a *app) error {
	s, err := a.service(HubFlags{WhichHub: c.WhichHub})
	if err != nil {
		return err
	}
	cursor, seen, pause, reached := c.From, 0, time.Duration(0), false
	if cursor == "now" {
		cursor = ""
	}
	for {
		list, next, err := s.Events(a.ctx, client.EventQuery{Devices: c.Device, Kinds: c.Kind, Cursor: cursor, Wait: monitorWait, Limit: monitorLimit})
		if a.ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if !reached || !comesBack(err) {
				return err
			}
			if pause == 0 {
				a.note("The hub does not answer; going on when it is back.")
			}
			pause = min(max(2*pause, 500*time.Millisecond), backoffMost)
			select {
			case <-a.ctx.Done():
				return nil
			case <-time.After(pause):
			}
			continue
		}
		if pause > 0 {
			a.note("The hub is back.")
		}
		cursor, pause, reached = next, 0, true
		for _, e := range list {
			if err := c.show(a, e); err != nil {
				return err
			}
			if seen++; c.Count > 0 && seen == c.Count {
				return nil
			}
		}
	}
}

// comesBack reports whether an error is one that passes by itself.
func comesBack(err error) bool {
	if _, ok := errors.AsType[*client.ConnectError](err); ok {
		return true
	}
	e, ok := errors.AsType[*client.Error](err)
	return ok && (e.Status >= 500 || e.Status == 429)
}

func (c *monitorCmd) show(a *app, e client.Event) error {
	if c.Output == "jsonl" {
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		_, err = a.io.Out.Write(append(b, '\n'))
		return err
	}
	id := e.DeviceID
	if e.ModuleID != "" {
		id += "/" + e.ModuleID
	}
	var detail string
	switch {
	case e.Kind == "gap":
		detail = "events are gone: the cursor was behind what is kept"
	case e.Message != nil:
		detail = string(e.Message.Body)
		var names []string
		for name := range e.Message.Properties {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			detail += "  " + name + "=" + e.Message.Properties[name]
		}
	default:
		if e.Version > 0 {
			detail = fmt.Sprintf("v%d ", e.Version)
		}
		detail += string(e.Data)
		if e.Principal != "" && e.Principal != "device:"+id {
			detail += "  by " + e.Principal
		}
	}
	line := fmt.Sprintf("%s  %-22s  %-24s  %s", e.Time.In(a.zone).Format("15:04:05.000"), e.Kind, printable(id), printable(detail))
	if a.width > 0 && displayWidth(line) > a.width {
		line = string([]rune(line)[:max(a.width-1, 1)]) + "…"
	}
	_, err := io.WriteString(a.io.Out, strings.TrimRight(line, " ")+"\n")
	return err
}
