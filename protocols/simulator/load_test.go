package simulator_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/client/clienttest"
	"github.com/muster-hub/muster/protocols/simulator"
)

func TestBehaviours(t *testing.T) {
	for _, name := range simulator.BehaviourNames() {
		text, err := simulator.BehaviourText(name)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := simulator.ParseBehaviour(text); err != nil || b.Description == "" {
			t.Errorf("%s: %+v, %v", name, b, err)
		}
	}
	for _, c := range []struct{ text, err string }{
		{"interval: 1s\nintervall: 2s\n", "[2:1]"},
		{"description: x\nmethod_status: 5\n", "[2:1] method_status"},
		{"interval: soon\n", "[1:"},
		{"report_every: -1\n", "[1:1] report_every"},
		{strings.Repeat("#", 65<<10), "65536"},
	} {
		if _, err := simulator.ParseBehaviour([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%.40q: %v, want %s", c.text, err, c.err)
		}
	}
}

func FuzzParseBehaviour(f *testing.F) {
	f.Add([]byte("interval: 1s\ndrop_every: 3s\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := simulator.ParseBehaviour(text)
		if err == nil && (b.Interval <= 0 || b.ReportEvery < 1) {
			t.Errorf("%+v", b)
		}
	})
}

// TestLoad runs a load that drops its connections, and finds in the hub
// all that its log says, and misses what never was.
func TestLoad(t *testing.T) {
	h := clienttest.Start(t)
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	name := filepath.Join(t.TempDir(), "acks")
	log, err := simulator.OpenAckLog(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := simulator.ParseBehaviour([]byte("interval: 20ms\nreport_every: 1\ndrop_every: 1s\ntogether: true\n"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := simulator.NewLoad(simulator.LoadOptions{
		Service: h.Service, Hub: "localhost", Transport: client.WebSocket, Address: h.HTTPS, RootCAs: h.RootCAs,
		Prefix: "load-", Devices: 5, Behaviour: b, Acks: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{5, 0} {
		if made, err := l.Prepare(ctx); err != nil || made != want {
			t.Fatalf("prepare: %d, %v, want %d", made, err, want)
		}
	}
	run, end := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- l.Run(run) }()
	eventually(ctx, t, "a device is there", func() bool { return l.Report().Online > 0 })
	if _, err := h.Service.PatchTwin(ctx, "load-000001", "", []byte(`{"properties":{"desired":{"interval":5}}}`), ""); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, "five devices came back", func() bool { return l.Report().Reconnects >= 5 && l.Report().TwinPatches > 50 })
	end()
	<-done
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	acks := readAcks(t, name)
	r := l.Report()
	if acks.Reported != r.TwinPatches || acks.Telemetry != r.Messages || acks.Devices() != 5 || len(acks.Backwards)+len(acks.Broken) > 0 {
		t.Fatalf("%+v; report %+v", acks, r)
	}
	if n := len(acks.Marks); n < 2 || acks.Marks[n-1].Messages < uint64(r.Messages) {
		t.Errorf("%d marks, the last %+v, after %d messages", n, acks.Marks[n-1], r.Messages)
	}
	v, err := acks.Verify(ctx, simulator.HubSource(h.Service), 0)
	if err != nil || len(v.Missing) > 0 || v.Reported.Checked != r.TwinPatches || v.Telemetry.Checked != r.Messages || v.Desired.Checked == 0 || v.Strangers > 0 {
		t.Errorf("%+v, %v; report %+v", v, err, r)
	}
}

func readAcks(t *testing.T, name string) *simulator.Acks {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	acks, err := simulator.ReadAcks(f)
	if err != nil {
		t.Fatal(err)
	}
	return acks
}
