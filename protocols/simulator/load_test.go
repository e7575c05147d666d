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

func FuzzReadAcks(f *testing.F) {
	f.Add(`{"device":"d","kind":"reported","n":1,"version":2,"acked":true}` + "\n")
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = simulator.ReadAcks(strings.NewReader(text)) // must only end
	})
}

func TestAcks(t *testing.T) {
	const one = `{"device":"d","kind":"reported","n":4,"version":7,"acked":true}` + "\n"
	acks, err := simulator.ReadAcks(strings.NewReader(one + `{"device":"d","kind":"telemetry","acked":false}` + "\n" + `{"device":"d","ki`))
	if err != nil || acks.Reported != 1 || acks.Unknown != 1 || len(acks.Backwards) != 0 {
		t.Fatalf("%+v, %v", acks, err)
	}
	for _, c := range []struct {
		reported string
		missing  bool
	}{
		{`{"sim":{"n":4},"$version":7}`, false},
		{`{"sim":{"n":5},"$version":8}`, false},
		{`{"sim":{"n":4},"$version":6}`, true},
		{`{"sim":{"n":3},"$version":7}`, true},
		{`{"sim":{"n":5},"$version":7}`, true},
		{`{"$version":9}`, true},
		{`nonsense`, true},
	} {
		if text := acks.Devices["d"].Missing([]byte(c.reported)); (text != "") != c.missing {
			t.Errorf("%s: %q", c.reported, text)
		}
	}
	if acks, err = simulator.ReadAcks(strings.NewReader(one + one)); err != nil || len(acks.Backwards) != 1 {
		t.Errorf("a version twice: %+v, %v", acks, err)
	}
	if _, err = simulator.ReadAcks(strings.NewReader(one + "{}\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a line without a device: %v", err)
	}
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
	eventually(ctx, t, "five devices came back", func() bool { return l.Report().Reconnects >= 5 && l.Report().TwinPatches > 50 })
	end()
	<-done
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	acks, err := simulator.ReadAcks(f)
	r := l.Report()
	if err != nil || acks.Reported != r.TwinPatches || acks.Telemetry != r.Messages || len(acks.Devices) != 5 || len(acks.Backwards) > 0 || r.Online != 0 {
		t.Fatalf("%+v, %v; report %+v", acks, err, r)
	}
	for id, want := range acks.Devices {
		tw, err := h.Service.Twin(ctx, id, "")
		if err != nil {
			t.Fatal(err)
		}
		if text := want.Missing(tw.Properties.Reported); text != "" {
			t.Errorf("%s: %s", id, text)
		}
		want.Version += 10
		if want.Missing(tw.Properties.Reported) == "" {
			t.Errorf("%s: a version that never was is not missed", id)
		}
	}
}
