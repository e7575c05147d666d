package engine

import (
	"math"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

func TestFaults(t *testing.T) {
	dir := t.TempDir()
	open := func() *Hub {
		t.Helper()
		h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: dir, Memory: 64 << 20}})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	h := open()
	c := Caller{Principal: auth.Principal{Kind: auth.Local, Name: "uid=0", Permissions: ^auth.Permission(0)}}
	id := TwinID{DeviceID: "pump"}
	if _, err := h.CreateIdentity(t.Context(), c, Identity{DeviceID: "pump"}); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]struct {
		f       Fault
		lasting time.Duration
		want    Code
	}{
		"nothing":         {Fault{Target: id}, 0, CodeArgumentInvalid},
		"drop above one":  {Fault{Target: id, Drop: 1.1}, 0, CodeArgumentInvalid},
		"drop no number":  {Fault{Target: id, Drop: math.NaN()}, 0, CodeArgumentInvalid},
		"negative delay":  {Fault{Target: id, Delay: -1}, 0, CodeArgumentInvalid},
		"long delay":      {Fault{Target: id, Delay: time.Minute}, 0, CodeArgumentInvalid},
		"fast disconnect": {Fault{Target: id, DisconnectEvery: time.Millisecond}, 0, CodeArgumentInvalid},
		"too long":        {Fault{Target: id, Drop: 1}, 25 * time.Hour, CodeArgumentInvalid},
		"unknown device":  {Fault{Target: TwinID{DeviceID: "x"}, Drop: 1}, 0, CodeDeviceNotFound},
	} {
		if _, err := h.AddFault(t.Context(), c, bad.f, bad.lasting); AsError(err) == nil || AsError(err).Code != bad.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	weak := c
	weak.Permissions = auth.ServiceConnect
	if _, err := h.AddFault(t.Context(), weak, Fault{Target: id, Drop: 1}, 0); AsError(err) == nil || AsError(err).Code != CodeForbidden {
		t.Errorf("without permission: %v", err)
	}
	if _, ok := h.Fault(id); ok {
		t.Error("a fault that was refused is in force")
	}
	f, err := h.AddFault(t.Context(), c, Fault{Target: id, Drop: 0.1, DisconnectEvery: time.Minute}, 0)
	if err != nil || f.Expires.Sub(f.Created) != FaultDefault {
		t.Fatalf("%+v, %v", f, err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h = open() // durable
	defer func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}()
	if got, ok := h.Fault(id); !ok || got != f {
		t.Errorf("after a restart: %+v, %v", got, ok)
	}
	if d := h.doctorFaults(); d.Level != "warn" {
		t.Errorf("doctor says %+v", d)
	}
	s := connect(t, h, id)
	for _, step := range []struct {
		at    time.Duration
		ended bool
	}{{30 * time.Second, false}, {61 * time.Second, true}} {
		if err := h.runFaults(t.Context(), s.since.Add(step.at)); err != nil {
			t.Fatal(err)
		}
		if ended := s.Err() != nil; ended != step.ended {
			t.Errorf("after %s: ended %v", step.at, s.Err())
		}
	}
	if e := AsError(s.Err()); e == nil || e.Code != CodeFaultInjected {
		t.Errorf("the session ended with %v", e)
	}
	if err := h.runFaults(t.Context(), f.Expires); err != nil {
		t.Fatal(err)
	}
	list, _, err := h.Faults(t.Context(), c, "", 0)
	if _, ok := h.Fault(id); ok || err != nil || len(list) != 0 || h.Totals().Faults != 0 {
		t.Errorf("after it expired: %+v, %v", list, err)
	}
}
