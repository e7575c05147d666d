package engine_test

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/pattern"
)

func TestDoctorLooksAtPatterns(t *testing.T) {
	level := func(h *engine.Hub, after time.Duration, check, want, text string) {
		t.Helper()
		list := h.DoctorPatterns(t.Context(), time.Now().Add(after))
		i := slices.IndexFunc(list, func(f engine.Finding) bool { return f.Check == check })
		if f := list[i]; f.Level != want || !strings.Contains(f.Text, text) || f.Level != "ok" && f.Next == "" {
			t.Errorf("%+v, want %s with %q", f, want, text)
		}
	}
	level(enginetest.New(t), 0, "pattern workers", "warn", "runs no programs")

	var broken atomic.Bool
	failed := make(chan struct{}, 1)
	scripts := enginetest.NewScripts(
		script("ask", nil, func(p *enginetest.Play) (any, error) { return p.Approve("Go on?") }),
		enginetest.Script{Manifest: pattern.Manifest{Name: "nightly", Triggers: []pattern.Trigger{{Cron: "0 3 * * *"}}}, Run: func(*enginetest.Play) (any, error) { return nil, nil }},
	)
	scripts.Fail = func([]pattern.Activation) error {
		if !broken.Load() {
			return nil
		}
		select {
		case failed <- struct{}{}:
		default:
		}
		return errors.New("no process could be started")
	}
	f := newRunFixture(t, scripts)
	level(f.Hub, 0, "pattern workers", "ok", "0 activations")
	level(f.Hub, 0, "patterns", "ok", "2 versions of patterns are installed")
	level(f.Hub, 0, "approvals", "ok", "0 runs")
	if _, err := f.DisablePattern(t.Context(), enginetest.Owner(), "nightly", "", ""); err != nil {
		t.Fatal(err)
	}
	level(f.Hub, 0, "patterns", "warn", "nightly")

	f.state(f.start("ask", f.device("d"), "").ID, pattern.Waiting)
	level(f.Hub, 23*time.Hour, "approvals", "ok", "1 run of patterns is waiting")
	level(f.Hub, 25*time.Hour, "approvals", "warn", "1 run of patterns is waiting")
	broken.Store(true)
	f.start("ask", f.device("e"), "")
	<-failed
	<-failed // the first one is counted by then
	level(f.Hub, 0, "pattern workers", "fail", "no process could be started")
	level(f.Hub, 2*time.Hour, "pattern workers", "ok", "")
}
