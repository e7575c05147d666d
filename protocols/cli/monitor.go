package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

const (
	monitorWait  = 30 * time.Second // of one request
	monitorLimit = 500
)

type monitorCmd struct {
	WhichHub
	Device    []string `help:"Only this device and its modules; repeatable; PREFIX* for many." placeholder:"ID"`
	Kind      []string `help:"Only this kind, such as telemetry or twin.reported; repeatable; twin.* for many."`
	From      string   `help:"Where to begin: now, start (the oldest kept), a time (RFC 3339), how long ago (90m, 24h), or a cursor." default:"now"`
	Count     int      `help:"End after so many events; 0 goes on." default:"0"`
	Schema    string   `help:"muster, or iothub: as IoT Hub's own endpoint tells events." enum:"muster,iothub" default:"muster"`
	Transport string   `help:"stream, or pages: one request after the other, where something between holds streams back." enum:"stream,pages" default:"stream"`
	Output    string   `short:"o" enum:"text,jsonl" default:"text" help:"text or jsonl."`
}

// errEnough ends a stream after --count events.
var errEnough = errors.New("as many events as asked for")

// Run shows events until it is interrupted. A hub that goes away is waited
// for, and nothing is missed: the cursor says where to go on.
func (c *monitorCmd) Run(a *app) error {
	s, err := a.service(HubFlags{WhichHub: c.WhichHub})
	if err != nil {
		return err
	}
	q := client.EventQuery{Devices: c.Device, Kinds: c.Kind, Schema: c.Schema, Cursor: c.From, Wait: monitorWait, Limit: monitorLimit}
	if at, ok := ago(c.From); ok {
		q.Cursor = at
	}
	if q.Cursor == "now" {
		// The first page says where now is, so that a stream that breaks before
		// its first event misses nothing.
		q.Cursor = ""
	}
	seen, keep := 0, following{app: a}
	see := func(e client.Event) error {
		keep.heard()
		if err := c.show(a, e); err != nil {
			return err
		}
		if seen++; c.Count > 0 && seen == c.Count {
			return errEnough
		}
		return nil
	}
	for {
		before := q.Cursor
		err := c.read(a, s, &q, see)
		if a.ctx.Err() != nil || errors.Is(err, errEnough) {
			return nil
		}
		if err == nil || q.Cursor != before {
			keep.heard()
		}
		if err := keep.wait(err); err != nil {
			return err
		}
	}
}

// read reads a page, or the stream until it ends, and moves the query on.
func (c *monitorCmd) read(a *app, s *client.Service, q *client.EventQuery, see func(client.Event) error) error {
	if c.Transport == "stream" && q.Cursor != "" {
		cursor, err := s.Follow(a.ctx, *q, see)
		q.Cursor = cursor
		return err
	}
	page := *q
	if c.Transport == "stream" {
		page.Wait = 0 // only where now is
	}
	list, next, err := s.Events(a.ctx, page)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := see(e); err != nil {
			return err
		}
	}
	q.Cursor = next
	return nil
}

func (c *monitorCmd) show(a *app, e client.Event) error {
	if c.Output == "jsonl" {
		_, err := a.io.Out.Write(append(slices.Clip(plainJSON(e.Raw)), '\n'))
		return err
	}
	at, kind, id, detail := e.Time, e.Kind, e.DeviceID, ""
	if e.IoTHub != nil {
		at, kind, id, detail = iotHubLine(e.IoTHub)
	} else {
		if e.ModuleID != "" {
			id += "/" + e.ModuleID
		}
		detail = eventDetail(e, id)
	}
	line := fmt.Sprintf("%s  %-22s  %-24s  %s", at.In(a.zone).Format("15:04:05.000"), kind, printable(id), printable(detail))
	if a.width > 0 && displayWidth(line) > a.width {
		line = string([]rune(line)[:max(a.width-1, 1)]) + "…"
	}
	_, err := io.WriteString(a.io.Out, strings.TrimRight(line, " ")+"\n")
	return err
}

const gapText = "events are gone: the cursor was behind what is kept"

// eventDetail is what an event says, for people.
func eventDetail(e client.Event, id string) string {
	switch {
	case e.Kind == "gap":
		return gapText
	case e.Message != nil:
		return string(e.Message.Body) + properties(e.Message.Properties)
	}
	var why struct{ Reason string }
	detail := string(e.Data)
	if e.Kind == "session.disconnected" && json.Unmarshal(e.Data, &why) == nil && why.Reason != "" {
		return why.Reason
	}
	if e.Version > 0 {
		detail = fmt.Sprintf("v%d %s", e.Version, detail)
	}
	if e.Principal != "" && e.Principal != "device:"+id && e.Principal != "module:"+id {
		detail += "  by " + e.Principal
	}
	if e.Cause != "" {
		detail += "  for " + e.Cause
	}
	return detail
}

// iotHubLine is an event in IoT Hub's words, for people.
func iotHubLine(e *client.IoTHubEvent) (at client.Time, kind, id, detail string) {
	text := func(name string) string { s, _ := e.System[name].(string); return s }
	kind, id, detail = e.Properties["opType"], text("iothub-connection-device-id"), string(e.Body)
	if module := text("iothub-connection-module-id"); module != "" {
		id += "/" + module
	}
	switch source := text("iothub-message-source"); source {
	case "gap":
		kind, detail = source, gapText
	case "Telemetry":
		kind = source
		detail += properties(e.Properties)
	}
	return e.Enqueued, kind, id, detail
}

func properties(m map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(m)) {
		b.WriteString("  " + name + "=" + m[name])
	}
	return b.String()
}
