package simulator

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/auth"
)

// maxLogLines is how many lines the log of a managed device has.
const maxLogLines = 1000

func busy() (status int, answer any) {
	return 503, map[string]string{"message": "the device is busy"}
}

// methodNames are those that a managed device knows.
func methodNames() []string {
	return []string{"factoryReset", "firmwareConfirm", "firmwareRevert", "healthCheck", "installKey", "ping", "reboot", "reportStatus", "uploadLogs"}
}

// ask is what payloads of methods hold, each some of it.
type ask struct {
	ID          string      `json:"id"`
	Job         string      `json:"job"`
	Delay       float64     `json:"delay"` // seconds
	KeepNetwork bool        `json:"keepNetwork"`
	Key         auth.Secret `json:"key"`
	Slot        string      `json:"slot"`
	Lines       int         `json:"lines"`
}

// heardOf notes a method in the log before anything is done about it.
func (m *managed) heardOf(name string, payload json.RawMessage) (a ask, fresh, ok bool) {
	ok = len(payload) == 0 || json.Unmarshal(payload, &a) == nil
	id := a.ID
	if id == "" {
		id = a.Job
	}
	return a, m.takes("method", name, id, 0), ok
}

// method answers a method that was noted. A command that came before under its id is answered as
// before, and not obeyed again.
func (m *managed) method(name string, a ask, fresh, ok bool) (status int, answer any) {
	if !ok {
		return 400, map[string]string{"message": "the payload is not what the method takes"}
	}
	// obey leaves the rest to the worker.
	obey := func(status int, f func(ctx context.Context)) (int, any) {
		if fresh && !m.order(f) {
			return busy()
		}
		return status, map[string]any{}
	}
	switch name {
	case "reboot":
		if a.Delay < 0 || a.Delay > 3600 {
			return 400, map[string]string{"message": "delay is 0 to 3600 seconds"}
		}
		return obey(200, func(ctx context.Context) {
			if wait(ctx, time.Duration(a.Delay*float64(time.Second))) {
				m.restart(ctx, "reboot")
			}
		})
	case "factoryReset":
		return obey(202, func(ctx context.Context) { m.reset(ctx, a.ID) })
	case "firmwareConfirm":
		return m.confirm(a.Job)
	case "firmwareRevert":
		return m.revert(a.Job)
	case "reportStatus":
		said := m.status(a.ID)
		if fresh && !m.order(func(ctx context.Context) { m.tell(ctx, map[string]any{"status": said}) }) {
			return busy()
		}
		return 200, said
	case "healthCheck":
		return 200, map[string]any{"healthy": !m.ill(), "checks": map[string]string{"sensor": m.health(), "link": "good"}}
	case "ping":
		return obey(200, func(ctx context.Context) {
			m.tell(ctx, map[string]any{"ping": map[string]any{"id": a.ID, "at": time.Now().Add(m.d.load.o.Behaviour.ClockSkew).UTC()}})
		})
	case "installKey":
		if _, err := a.Key.Bytes(); err != nil || a.Key == "" || a.Slot != "primary" && a.Slot != "secondary" {
			return 400, map[string]string{"message": "expected key in base64, and slot as primary or secondary"}
		}
		return obey(200, func(ctx context.Context) { m.installKey(ctx, a) })
	case "uploadLogs":
		return obey(202, func(ctx context.Context) { m.uploadLogs(ctx, a) })
	}
	return 404, map[string]any{"message": fmt.Sprintf("the method %.100q is not known here", name), "methods": methodNames()}
}

// status is what the device answers and reports of itself.
func (m *managed) status(id string) map[string]any {
	health := m.health()
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now().Add(m.d.load.o.Behaviour.ClockSkew)
	return map[string]any{
		"id": id, "uptime": int(now.Sub(m.booted).Seconds()), "health": health,
		"version": m.firmware.Version, "time": now.UTC(),
	}
}

// reset takes the device back to how it came: its settings go, its firmware and
// its key stay.
func (m *managed) reset(ctx context.Context, id string) {
	if !m.tell(ctx, map[string]any{"factoryReset": map[string]any{"id": id, "status": "running"}}) {
		return
	}
	m.mu.Lock()
	patch := map[string]any{"configuration": nil, "logs": nil, "status": nil}
	for section := range m.sections {
		patch[section] = nil
	}
	clear(m.sections)
	m.mu.Unlock()
	m.restart(ctx, "factory reset")
	patch["factoryReset"] = map[string]any{"id": id, "status": "done"}
	m.tell(ctx, patch)
}

// installKey connects anew with another key, and goes back to the old one if that
// does not let it in.
func (m *managed) installKey(ctx context.Context, a ask) {
	wait(ctx, answerTime)
	m.mu.Lock()
	old, slot := m.key, a.Slot
	m.mu.Unlock()
	if m.d.client.SetKey(a.Key) != nil {
		return
	}
	kctx, stop := context.WithTimeout(ctx, keyTime)
	defer stop()
	m.d.client.Restart(kctx)
	if m.d.client.WaitConnected(kctx) != nil {
		_ = m.d.client.SetKey(old) // it was good before
		return
	}
	m.mu.Lock()
	m.key, m.slot = a.Key, slot
	m.mu.Unlock()
	m.tell(ctx, map[string]any{"key": map[string]any{"id": a.ID, "slot": slot}})
}

// uploadLogs uploads the newest lines of a made-up log as a file.
func (m *managed) uploadLogs(ctx context.Context, a ask) {
	m.mu.Lock()
	now, line := time.Now().UTC(), fmt.Sprintf("boot %d: %s, firmware %s\n", m.boots, m.reason, m.firmware.Version)
	device := auth.ConnectionString{HostName: m.d.load.o.Hub, DeviceID: m.d.id, SharedAccessKey: m.key}
	m.mu.Unlock()
	var b strings.Builder
	for i := range max(1, min(a.Lines, maxLogLines)) {
		b.WriteString(now.Add(time.Duration(i-a.Lines)*time.Second).Format(time.RFC3339) + " " + line)
	}
	logs := map[string]any{"id": a.ID, "status": "uploaded", "file": "logs/" + a.ID + ".txt", "size": b.Len(), "message": nil}
	if err := m.d.load.uploads.Upload(ctx, device, "logs/"+a.ID+".txt", []byte(b.String())); err != nil {
		m.d.failed(ctx, "upload logs", err)
		logs = map[string]any{"id": a.ID, "status": "failed", "message": fmt.Sprintf("%.200s", err), "file": nil, "size": nil}
	}
	m.tell(ctx, map[string]any{"logs": logs})
}
