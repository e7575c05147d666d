package simulator

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/client"
)

const (
	defaultRestart = 2 * time.Second
	defaultStage   = 300 * time.Millisecond
	maxOrders      = 16 // that a managed device takes before it says that it is busy
	maxIDs         = 64 // of commands that it remembers
	// answerTime is how long a device stays after an answer that it leaves behind:
	// what was written must have gone out.
	answerTime = 250 * time.Millisecond
	// keyTime is how long it tries a new key before it takes the old one again.
	keyTime = 30 * time.Second
)

// managed is the part of a device with which it can be managed: what patterns
// ask of it, it really does. Its methods answer at once and leave an order
// behind, which its one worker carries out, in turn. See
// docs/reference/behaviours.md for what it understands.
type managed struct {
	d      *loadDevice
	orders chan func(ctx context.Context)
	awake  chan struct{} // holds one when the device has connected

	mu       sync.Mutex
	rng      *rand.Rand
	booted   time.Time
	boots    int
	reason   string    // of the last boot
	unsaid   bool      // that boot was not reported yet
	until    time.Time // the device is away until then
	key      auth.Secret
	slot     string // of the key
	firmware firmware
	wish     string          // job of the desired firmware
	sections map[string]bool // that were configured
	heard    int64           // newest $version of the desired properties that was acted upon
	times    map[string]int  // how often a command came, by its name and id
	ids      []string        // keys of times, oldest first
}

// firmware is what a managed device reports of its firmware.
type firmware struct {
	Job     string `json:"job,omitempty"`
	State   string `json:"state"` // good, downloading, verifying, applying, trying or failed
	Percent int    `json:"percent"`
	Version string `json:"version"`
	Slot    string `json:"slot"` // a or b
	Slots   int    `json:"slots"`
	Message string `json:"message,omitempty"`
	// Previous is what the other slot holds.
	Previous string `json:"previous,omitempty"`
}

// otherSlot is the idle one.
func (f *firmware) otherSlot() string {
	if f.Slot == "a" {
		return "b"
	}
	return "a"
}

func newManaged(d *loadDevice, i int, key auth.Secret) *managed {
	return &managed{
		d: d, orders: make(chan func(context.Context), maxOrders), awake: make(chan struct{}, 1),
		rng: rand.New(rand.NewPCG(d.load.o.Seed, 1<<32+uint64(i))), //nolint:gosec // repeatable on purpose, and not below 0
		key: key, slot: "primary", sections: map[string]bool{}, times: map[string]int{},
		firmware: firmware{State: "good", Percent: 100, Version: d.load.o.Behaviour.Firmware, Slot: "a", Slots: 2},
	}
}

// dial waits until the device is back before it connects.
func (m *managed) dial(ctx context.Context, network, address string) (net.Conn, error) {
	m.mu.Lock()
	away := time.Until(m.until)
	m.mu.Unlock()
	if away > 0 && !wait(ctx, away) {
		return nil, context.Cause(ctx)
	}
	if dial := m.d.load.o.Dial; dial != nil {
		return dial(ctx, network, address)
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// told is a change of the desired properties. One for which there is no room is
// found again when the device reads all of them, and so is one that comes after
// others that were missed.
func (m *managed) told(version int64, patch json.RawMessage) {
	var members map[string]json.RawMessage
	if json.Unmarshal(patch, &members) != nil {
		return
	}
	if value, ok := members["firmware"]; ok {
		m.wants(value)
	}
	if !m.order(func(ctx context.Context) { m.follow(ctx, version, patch, nil) }) {
		m.connected()
	}
}

// connected wakes the worker, which then reads what the device has missed.
func (m *managed) connected() {
	select {
	case m.awake <- struct{}{}:
	default:
	}
}

// span varies a duration by half of itself either way.
func (m *managed) span(d time.Duration) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return d/2 + time.Duration(m.rng.Int64N(int64(d)+1))
}

// restore takes over what the device reported before its simulator began.
func (m *managed) restore(reported json.RawMessage) {
	var have struct {
		Boot struct {
			Count int `json:"count"`
		} `json:"boot"`
		Firmware firmware `json:"firmware"`
		Key      struct {
			Slot string `json:"slot"`
		} `json:"key"`
		Configuration map[string]json.RawMessage `json:"configuration"`
	}
	_ = json.Unmarshal(reported, &have) // foreign properties: as a new device
	m.mu.Lock()
	defer m.mu.Unlock()
	m.boots = have.Boot.Count
	if have.Firmware.Slots == 2 && have.Firmware.Slot != "" {
		m.firmware = have.Firmware
	}
	if have.Key.Slot != "" {
		m.slot = have.Key.Slot
	}
	for section := range have.Configuration {
		m.sections[section] = true
	}
	m.bootLocked("power on")
}

func (m *managed) bootLocked(reason string) {
	m.boots++
	m.reason, m.unsaid, m.booted = reason, true, time.Now()
}

// run carries out orders until ctx ends.
func (m *managed) run(ctx context.Context) {
	m.connected()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.awake:
			m.arrive(ctx)
		case order := <-m.orders:
			order(ctx)
		}
	}
}

// order hands one to the worker; false when it has too many.
func (m *managed) order(f func(ctx context.Context)) bool {
	select {
	case m.orders <- f:
		return true
	default:
		return false
	}
}

// arrive says what a device says that has connected, and acts upon desired
// properties that it was not told of.
func (m *managed) arrive(ctx context.Context) {
	select {
	case <-m.awake: // this is it
	default:
	}
	m.mu.Lock()
	patch := map[string]any{}
	if m.unsaid {
		patch["boot"] = map[string]any{"count": m.boots, "reason": m.reason, "time": m.booted.UTC()}
		patch["firmware"] = m.firmware.report()
		patch["key"] = map[string]any{"slot": m.slot}
	}
	boot := m.boots
	m.mu.Unlock()
	if len(patch) > 0 && !m.tell(ctx, patch) {
		return
	}
	m.mu.Lock()
	m.unsaid = m.boots != boot
	m.mu.Unlock()
	octx, stop := context.WithTimeout(ctx, operationTimeout)
	defer stop()
	t, err := m.d.client.Twin(octx)
	if err != nil {
		m.d.failed(ctx, "read twin", err)
		if ctx.Err() == nil && m.d.client.Connected() {
			m.connected() // again
		}
		return
	}
	m.follow(ctx, versionOf(t.Desired), t.Desired, t.Reported)
}

// report is the firmware as it is reported: what is not there any more is null.
func (f *firmware) report() map[string]any {
	or := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	return map[string]any{
		"job": or(f.Job), "state": f.State, "percent": f.Percent, "version": f.Version,
		"slot": f.Slot, "slots": f.Slots, "message": or(f.Message), "previous": or(f.Previous),
	}
}

// tell reports properties, again and again until the hub has taken them; false:
// ctx ended first.
func (m *managed) tell(ctx context.Context, patch map[string]any) bool {
	for ctx.Err() == nil {
		octx, stop := context.WithTimeout(ctx, operationTimeout)
		_, err := m.d.client.PatchReported(octx, patch)
		stop()
		if err == nil {
			m.d.load.count(func(r *LoadReport) { r.TwinPatches++ })
			return true
		}
		m.d.failed(ctx, "report properties", err)
		if refused, ok := errors.AsType[*client.Error](err); ok && refused.Status < 429 {
			return true // said again it would be refused again
		}
		wait(ctx, m.span(m.d.load.o.Behaviour.Stage))
	}
	return false
}

// restart has the device go away and boot.
func (m *managed) restart(ctx context.Context, reason string) {
	wait(ctx, answerTime)
	away := m.span(m.d.load.o.Behaviour.Restart)
	m.mu.Lock()
	m.until = time.Now().Add(away)
	m.mu.Unlock()
	m.d.client.Restart(ctx)
	wait(ctx, away)
	m.mu.Lock()
	m.bootLocked(reason)
	m.mu.Unlock()
	if m.d.client.WaitConnected(ctx) == nil {
		m.arrive(ctx)
	}
}

// takes notes a command in the log, and reports whether it is new. One that came
// before was, or is being, obeyed.
func (m *managed) takes(kind, name, id string, version int64) bool {
	c := Command{Device: m.d.id, Kind: kind, Name: name, ID: id, Version: version}
	if id != "" {
		key := kind + " " + name + " " + id
		m.mu.Lock()
		if m.times[key]++; m.times[key] == 1 {
			m.ids = append(m.ids, key)
		}
		if len(m.ids) > maxIDs {
			delete(m.times, m.ids[0])
			m.ids = slices.Delete(m.ids, 0, 1)
		}
		c.Times = m.times[key]
		m.mu.Unlock()
	}
	m.d.load.o.Commands.add(c)
	return c.Times <= 1
}

// ill reports whether the device is to report bad health.
func (m *managed) ill() bool {
	c := m.d.troubled()
	return c != nil && c.Ill
}

func (m *managed) health() string {
	if m.ill() {
		return "bad"
	}
	return "good"
}

// own are the properties that a managed device reports for itself: no settings.
func (m *managed) own(name string) bool {
	return slices.Contains([]string{"boot", "configuration", "factoryReset", "firmware", "health", "key", "logs", "ping", "sim", "status"}, name)
}

// follow acts upon desired properties, each section once for each version of
// them. With what the device has reported these are all there are, and what it has
// beside them is not wanted any more; without it they are a change.
func (m *managed) follow(ctx context.Context, version int64, patch, reported json.RawMessage) {
	var wanted, have map[string]json.RawMessage
	if json.Unmarshal(patch, &wanted) != nil {
		return
	}
	whole := reported != nil && json.Unmarshal(reported, &have) == nil
	m.mu.Lock()
	known, gap := version <= m.heard, version > m.heard+1 && !whole
	if !gap {
		m.heard = max(m.heard, version)
	}
	m.mu.Unlock()
	if gap {
		m.connected()
	}
	if known || gap {
		return
	}
	delete(wanted, "$version")
	update, firmware := wanted["firmware"]
	if !firmware && whole {
		update, firmware = json.RawMessage("null"), true
	}
	if whole {
		m.missing(wanted, have)
	}
	answers := map[string]any{}
	for _, section := range slices.Sorted(maps.Keys(wanted)) {
		if !m.own(section) {
			m.configure(section, version, wanted[section], answers)
		}
	}
	if len(answers) > 0 {
		if !m.tell(ctx, answers) {
			return
		}
	}
	if firmware {
		m.wants(update)
		m.install(ctx, version, update)
	}
}

// missing adds to the sections that are wanted, as null, what the device has and
// nobody wants any more.
func (m *managed) missing(wanted, have map[string]json.RawMessage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for section := range m.sections {
		if _, ok := wanted[section]; !ok && have[section] != nil {
			wanted[section] = json.RawMessage("null")
		}
	}
	for section, value := range wanted {
		if have[section] != nil && !m.own(section) {
			wanted[section] = without(value, have[section])
		}
	}
}

// without is a value with null for each member that it does not have, and that
// which is there does.
func without(value, there json.RawMessage) json.RawMessage {
	var members, old map[string]json.RawMessage
	if json.Unmarshal(value, &members) != nil || json.Unmarshal(there, &old) != nil || members == nil {
		return value
	}
	for name, o := range old {
		v, ok := members[name]
		if !ok {
			members[name] = json.RawMessage("null")
			continue
		}
		members[name] = without(v, o)
	}
	text, err := json.Marshal(members)
	if err != nil {
		return value
	}
	return text
}

// configure answers a section: what to report of it goes into answers.
func (m *managed) configure(section string, version int64, value json.RawMessage, answers map[string]any) {
	said, _ := answers["configuration"].(map[string]any)
	if said == nil {
		said = map[string]any{}
		answers["configuration"] = said
	}
	if string(value) == "null" {
		said[section] = map[string]any{"version": version, "status": "removed", "message": nil}
		answers[section] = nil
		return
	}
	m.takes("desired", section, "", version)
	m.mu.Lock()
	m.sections[section] = true
	m.mu.Unlock()
	if why := m.refuses(section, value); why != "" {
		said[section] = map[string]any{"version": version, "status": "rejected", "message": why}
		return
	}
	said[section] = map[string]any{"version": version, "status": "applied", "message": nil}
	answers[section] = value
}

// refuses says why the device does not take a setting: it is of a cohort that
// refuses the section, or the section holds "reject": true.
func (m *managed) refuses(section string, value json.RawMessage) string {
	if c := m.d.troubled(); c != nil && slices.Contains(c.Refuse, section) {
		return "this device does not take " + section
	}
	var members struct {
		Reject bool `json:"reject"`
	}
	if json.Unmarshal(value, &members) == nil && members.Reject {
		return "the settings ask to be rejected"
	}
	return ""
}
