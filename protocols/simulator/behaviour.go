package simulator

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// method answers a direct method.
func (d *Device) method(ctx context.Context, orders chan<- order, name string, payload json.RawMessage) (status int, answer any) {
	if d.profile.trouble == Slow && !wait(ctx, d.span(3, 5)) {
		return 503, map[string]string{"message": "the connection ended"}
	}
	d.mu.Lock()
	d.noteLocked("method " + name)
	uptime := int(time.Since(d.state.booted).Seconds())
	d.mu.Unlock()
	switch name {
	case "ping":
		return 200, map[string]any{"pong": true, "uptime": uptime, "time": time.Now().UTC().Format(time.RFC3339Nano)}
	case "reboot":
		return d.accept(orders, order{reboot: d.span(3, 8)})
	case "factoryReset":
		return d.accept(orders, order{reset: true, id: idOf(payload), reboot: d.span(4, 9)})
	case "reportStatus":
		status := d.status(idOf(payload))
		if !give(orders, order{report: map[string]any{"status": status}}) {
			return busy()
		}
		return 200, status
	case "healthCheck":
		return 200, map[string]any{"healthy": d.healthy(), "checks": map[string]string{"power": d.health()}}
	case "getLog":
		return d.logLines(payload)
	}
	return 404, map[string]any{"message": fmt.Sprintf("the method %q is not known here", name), "methods": []string{"factoryReset", "getLog", "healthCheck", "ping", "reboot", "reportStatus"}}
}

// idOf is the id in the payload of a method, by which a pattern finds its command
// again in what the device reports.
func idOf(payload json.RawMessage) string {
	var a struct {
		ID string `json:"id"`
	}
	_ = json.Unmarshal(payload, &a) // any payload will do
	return a.ID
}

// healthy reports whether the battery will last.
func (d *Device) healthy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.battery >= 5
}

func (d *Device) health() string {
	if d.healthy() {
		return "good"
	}
	return "bad"
}

// status is what the device answers and reports of itself.
func (d *Device) status(id string) map[string]any {
	health := d.health()
	d.mu.Lock()
	defer d.mu.Unlock()
	return map[string]any{
		"id": id, "uptime": int(time.Since(d.state.booted).Seconds()), "health": health, "version": d.state.firmware, "time": time.Now().UTC(),
	}
}

func (d *Device) accept(orders chan<- order, o order) (int, any) {
	if !give(orders, o) {
		return 503, map[string]string{"message": "the device is busy"}
	}
	return 202, map[string]any{"accepted": true, "awaySeconds": int(o.reboot.Round(time.Second).Seconds())}
}

// logLines answers with the newest lines, {"lines":N} of them.
func (d *Device) logLines(payload json.RawMessage) (int, any) {
	var ask struct {
		Lines *int `json:"lines"`
	}
	n := maxLog
	if len(payload) > 0 && string(payload) != "null" {
		if err := json.Unmarshal(payload, &ask); err != nil || ask.Lines != nil && *ask.Lines < 0 {
			return 400, map[string]string{"message": `the payload is not {"lines":N} with N of 0 or more`}
		}
		if ask.Lines != nil {
			n = *ask.Lines
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return 200, map[string]any{"lines": slices.Clone(d.log[max(0, len(d.log)-n):])}
}

// obey does what a method or a desired property asked for; after some orders
// the device goes away for a while.
func (d *Device) obey(ctx context.Context, c *client.Device, o order) absence {
	if o.desired != nil {
		return d.follow(ctx, c, o.version, o.desired)
	}
	if o.report != nil {
		d.report(ctx, c, o.report)
	}
	if o.reset {
		d.reset(ctx, c, o.id)
	}
	if o.reboot == 0 {
		return absence{}
	}
	// The answer to the method is on its way already; leave it a moment.
	if !wait(ctx, 200*time.Millisecond) {
		return absence{}
	}
	return absence{o.reboot, "reboot on request"}
}

// reset wipes the reported properties to what a new device reports.
func (d *Device) reset(ctx context.Context, c *client.Device, id string) {
	octx, stop := context.WithTimeout(ctx, operationTimeout)
	defer stop()
	t, err := c.Twin(octx)
	if err != nil {
		d.failed(ctx, "read twin", err)
		return
	}
	var reported map[string]json.RawMessage
	if err := json.Unmarshal(t.Reported, &reported); err != nil {
		d.failed(ctx, "read twin", err)
		return
	}
	d.mu.Lock()
	d.interval = d.fleet.o.Interval
	d.state.boots = 0
	d.state.desired = 0
	d.log = nil
	d.noteLocked("factory reset")
	d.mu.Unlock()
	patch := map[string]any{}
	for key := range reported {
		if key != "$version" {
			patch[key] = nil
		}
	}
	d.report(octx, c, patch)
	all := d.all()
	if id != "" {
		all["factoryReset"] = map[string]string{"id": id, "status": "done"}
	}
	d.report(octx, c, all)
}

// acknowledgement is how a device says that it follows a desired property.
type acknowledgement struct {
	Value json.RawMessage `json:"value"`
	AC    int             `json:"ac"` // 200 done, 202 in progress, 400 refused
	AV    int64           `json:"av"` // $version of the desired properties
	AD    string          `json:"ad,omitempty"`
}

// follow acts upon desired properties and acknowledges each. Versions that
// were acted upon are skipped. For a firmware update the device goes away.
func (d *Device) follow(ctx context.Context, c *client.Device, version int64, patch json.RawMessage) absence {
	var wanted map[string]json.RawMessage
	if err := json.Unmarshal(patch, &wanted); err != nil {
		d.failed(ctx, "read desired properties", err)
		return absence{}
	}
	d.mu.Lock()
	known := version <= d.state.desired
	d.state.desired = max(version, d.state.desired)
	d.mu.Unlock()
	if known {
		return absence{}
	}
	answers, firmware := map[string]any{}, ""
	for key, value := range wanted {
		switch {
		case key == "$version":
		case string(value) == "null":
			if key != "firmware" {
				answers[key] = nil
			}
		case key == "telemetryInterval":
			answers[key] = d.setInterval(version, value)
		case key == "firmware":
			a, target := d.wantFirmware(version, value)
			answers["firmwareUpdate"], firmware = a, target
		default:
			answers[key] = acknowledgement{Value: value, AC: 200, AV: version, AD: "stored"}
		}
	}
	if len(answers) > 0 {
		d.report(ctx, c, answers)
	}
	if firmware == "" {
		return absence{}
	}
	return d.update(ctx, c, version, firmware)
}

func (d *Device) setInterval(version int64, value json.RawMessage) acknowledgement {
	var seconds float64
	if err := json.Unmarshal(value, &seconds); err != nil || seconds < 1 || seconds > 3600 {
		return acknowledgement{value, 400, version, "expected 1 to 3600 seconds"}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.interval = time.Duration(seconds * float64(time.Second))
	return acknowledgement{value, 200, version, "applied"}
}

// wantFirmware reads a target such as "2.0.1" or {"version":"2.0.1"}.
func (d *Device) wantFirmware(version int64, value json.RawMessage) (a acknowledgement, target string) {
	var object struct {
		Version string `json:"version"`
	}
	if json.Unmarshal(value, &target) != nil {
		if json.Unmarshal(value, &object) == nil {
			target = object.Version
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case target == "" || len(target) > 32:
		return acknowledgement{value, 400, version, `expected a version, or {"version":"2.0.1"}`}, ""
	case target == d.state.firmware:
		return acknowledgement{value, 200, version, "installed already"}, ""
	}
	return acknowledgement{value, 202, version, "downloading"}, target
}

// update takes some seconds, then the device comes back with other firmware.
func (d *Device) update(ctx context.Context, c *client.Device, version int64, target string) absence {
	for _, stage := range []string{"downloading", "verifying", "installing"} {
		value, err := json.Marshal(target)
		if err != nil || !wait(ctx, d.span(1, 3)) {
			return absence{}
		}
		d.report(ctx, c, map[string]any{"firmwareUpdate": acknowledgement{value, 202, version, stage}})
	}
	d.mu.Lock()
	d.state.firmware = target
	d.state.desired = version - 1 // the next start acknowledges the installed version
	d.mu.Unlock()
	return absence{d.span(3, 6), "firmware update"}
}
