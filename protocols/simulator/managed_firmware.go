package simulator

import (
	"context"
	"encoding/json"
	"strings"
)

// update is a desired firmware.
type update struct {
	Job     string `json:"job"`
	URL     string `json:"url"`
	SHA256  string `json:"sha256"`
	Version string `json:"version"`
}

// wants notes the job of the desired firmware at once, so that an installation
// that is under way sees when it is not wanted any more.
func (m *managed) wants(value json.RawMessage) {
	var u update
	_ = json.Unmarshal(value, &u) // anything else is no job
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wish = u.Job
}

// install follows a desired firmware up to its trial. A job that the device has
// worked on before it does not begin again.
func (m *managed) install(ctx context.Context, version int64, value json.RawMessage) {
	var u update
	if json.Unmarshal(value, &u) != nil || u.Job == "" || u.Version == "" {
		return
	}
	m.mu.Lock()
	known := m.firmware.Job == u.Job
	m.mu.Unlock()
	if known || !m.takes("desired", "firmware", u.Job, version) {
		return
	}
	for _, stage := range []struct {
		state   string
		percent int
	}{{"downloading", 0}, {"downloading", 35}, {"downloading", 70}, {"downloading", 100}, {"verifying", 100}, {"applying", 100}} {
		if stage.state == "applying" && strings.HasPrefix(u.SHA256, "bad") {
			m.stage(ctx, func(f *firmware) { f.State, f.Message = "failed", "the image's SHA-256 is another one" })
			return
		}
		if !m.stage(ctx, func(f *firmware) {
			f.Job, f.State, f.Percent, f.Message = u.Job, stage.state, stage.percent, ""
		}) || !wait(ctx, m.span(m.d.load.o.Behaviour.Stage)) {
			return
		}
		m.mu.Lock()
		wanted := m.wish == u.Job
		m.mu.Unlock()
		if !wanted {
			m.stage(ctx, func(f *firmware) { f.State, f.Message = "failed", "it is not wanted any more" })
			return
		}
	}
	m.mu.Lock()
	f := &m.firmware
	f.Previous, f.Version, f.Slot, f.State = f.Version, u.Version, f.otherSlot(), "trying"
	m.mu.Unlock()
	m.restart(ctx, "firmware "+u.Version)
}

// stage changes what the device says of its firmware, and reports it.
func (m *managed) stage(ctx context.Context, change func(*firmware)) bool {
	m.mu.Lock()
	change(&m.firmware)
	patch := map[string]any{"firmware": m.firmware.report()}
	m.mu.Unlock()
	return m.tell(ctx, patch)
}

// confirm makes the firmware that is tried the one that stays.
func (m *managed) confirm(job string) (status int, answer any) {
	m.mu.Lock()
	f := &m.firmware
	mine, state := f.Job == job && job != "", f.State
	m.mu.Unlock()
	switch {
	case mine && state == "good":
		return 200, map[string]any{}
	case !mine || state != "trying":
		return 409, map[string]string{"message": "no trial of this job is under way"}
	case !m.order(func(ctx context.Context) { m.stage(ctx, func(f *firmware) { f.State = "good" }) }):
		return busy()
	}
	return 200, map[string]any{}
}

// revert goes back to what the other slot holds.
func (m *managed) revert(job string) (status int, answer any) {
	m.mu.Lock()
	f := &m.firmware
	mine, state, previous := f.Job == job && job != "", f.State, f.Previous
	m.mu.Unlock()
	switch {
	case mine && state == "failed":
		return 200, map[string]any{}
	case !mine || state != "trying" && state != "good" || previous == "":
		return 409, map[string]string{"message": "there is nothing to go back to"}
	}
	if !m.order(func(ctx context.Context) {
		m.mu.Lock()
		f := &m.firmware
		f.Version, f.Previous, f.Slot, f.State, f.Message = f.Previous, f.Version, f.otherSlot(), "failed", "went back on request"
		m.mu.Unlock()
		m.restart(ctx, "firmware went back")
	}) {
		return busy()
	}
	return 200, map[string]any{}
}
