package simulator_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/simulator"
)

// logText is a log of one device over two marks: before the first, between
// them, and behind the second.
func logText(run string, ended bool) string {
	lines := []string{
		`{"kind":"begin","run":"` + run + `","format":1}`,
		`{"kind":"ask","mark":1}`,
		`{"kind":"mark","mark":1,"epoch":"e","epochNumber":1,"sequence":10,"messages":100}`,
		`{"kind":"telemetry","device":"d-1","n":1,"since":1,"acked":true}`,
		`{"kind":"reported","device":"d-1","n":1,"version":2,"since":1,"acked":true}`,
		`{"kind":"telemetry","device":"d-1","n":2,"since":1}`,
		`{"kind":"desired","device":"d-1","version":2,"acked":true}`,
		`{"kind":"ask","mark":2}`,
		`{"kind":"telemetry","device":"d-1","n":3,"since":1,"acked":true}`,
		`{"kind":"mark","mark":2,"epoch":"e","epochNumber":1,"sequence":20,"messages":102}`,
		`{"kind":"telemetry","device":"d-1","n":4,"since":2,"acked":true}`,
		`{"kind":"reported","device":"d-1","n":2,"version":3,"desired":2,"since":2,"acked":true}`,
		`{"kind":"method","device":"d-1","method":"reboot","acked":true}`,
	}
	text := strings.Join(lines, "\n") + "\n"
	if ended {
		text += fmt.Sprintf(`{"kind":"end","run":%q,"lines":%d,"sum":"%08x"}`+"\n", run, len(lines), crc32.Checksum([]byte(text), crc32.MakeTable(crc32.Castagnoli)))
	}
	return text
}

// fake is a hub that holds what a test says.
type fake struct {
	position          client.Position
	reported, desired string
	messages          []string
	gone              bool
}

func (f fake) Position(context.Context) (client.Position, error) { return f.position, nil }

func (f fake) Twin(context.Context, string) (reported, desired json.RawMessage, err error) {
	if f.gone {
		return nil, nil, simulator.ErrNoDevice
	}
	return json.RawMessage(f.reported), json.RawMessage(f.desired), nil
}

func (f fake) Messages(_ context.Context, see func(device, id string) error) error {
	for _, id := range f.messages {
		if err := see("d-1", id); err != nil {
			return err
		}
	}
	return nil
}

// whole is a hub that holds all that logText says.
func whole() fake {
	return fake{
		position: client.Position{Epoch: "e", EpochNumber: 1, Sequence: 30, OldestMessage: 1, NewestMessage: 110},
		reported: `{"sim":{"n":2,"desired":2},"$version":3}`, desired: `{"$version":2}`,
		messages: []string{"d-1-r-1", "d-1-r-3", "d-1-r-4", "others", "d-2-other-7"},
	}
}

func TestVerifyAcks(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*fake)
		until   uint64
		missing []string // a part of each
		check   func(simulator.Verdict) bool
	}{
		"whole": {check: func(v simulator.Verdict) bool {
			return v.Reported.Checked == 2 && v.Telemetry.Checked == 3 && v.Desired.Checked == 1 && v.Arrived == 0
		}},
		"a message is missing": {
			change:  func(f *fake) { f.messages = slices.Delete(f.messages, 1, 2) },
			missing: []string{"d-1-r-3"},
		},
		"a twin version is missing": {
			change:  func(f *fake) { f.reported = `{"sim":{"n":1},"$version":2}` },
			missing: []string{"version 3 with value 2"},
		},
		"a twin lost its value":      {change: func(f *fake) { f.reported = `{"sim":{"n":1,"desired":2},"$version":3}` }, missing: []string{"value 1"}},
		"a twin went on":             {change: func(f *fake) { f.reported = `{"sim":{"n":5,"desired":2},"$version":6}` }},
		"a twin has no values":       {change: func(f *fake) { f.reported = `{"$version":9}` }, missing: []string{"value 0"}},
		"a twin cannot be read":      {change: func(f *fake) { f.reported = `nonsense` }, missing: []string{"cannot be read"}},
		"an acknowledgement is lost": {change: func(f *fake) { f.reported = `{"sim":{"n":2,"desired":1},"$version":3}` }, missing: []string{"acknowledges 1"}},
		"a desired version is lost":  {change: func(f *fake) { f.desired = `{"$version":1}` }, missing: []string{"was told of version 2"}},
		"the device is gone":         {change: func(f *fake) { f.gone = true }, missing: []string{"d-1: the device is not there"}},
		"messages arrive unanswered, and twice": {
			change: func(f *fake) { f.messages = append(f.messages, "d-1-r-2", "d-1-r-3", "d-1-r-9") },
			check: func(v simulator.Verdict) bool {
				return v.Arrived == 1 && v.Duplicates == 1 && v.Strangers == 1
			},
		},
		"retention took the older ones": {
			change: func(f *fake) { f.position.OldestMessage, f.messages = 103, nil },
			check:  func(v simulator.Verdict) bool { return v.Telemetry.Dropped == 1 && v.Telemetry.MayDrop == 1 },
			// The third lies before or behind the second mark; the fourth behind it, at 103 or later.
			missing: []string{"d-1-r-4"},
		},
		"until the first mark": {
			until: 10, change: func(f *fake) { f.messages, f.reported, f.desired = nil, `{"$version":1}`, `{"$version":1}` },
			check: func(v simulator.Verdict) bool {
				return v.Telemetry.After == 3 && v.Reported.After == 2 && v.Desired.Undecided == 1 && v.Telemetry.Checked == 0
			},
		},
		"until the second mark": {
			until: 20, change: func(f *fake) { f.messages, f.reported = nil, `{"$version":1}` },
			check: func(v simulator.Verdict) bool {
				// Messages do not move the sequence: the first may lie behind a backup of 20.
				return v.Reported.Checked == 1 && v.Reported.After == 1 && v.Telemetry.Undecided == 2 && v.Telemetry.After == 1
			},
			missing: []string{"version 2 with value 1"},
		},
		"until behind the second mark": {
			until: 21, change: func(f *fake) { f.messages = nil },
			check:   func(v simulator.Verdict) bool { return v.Telemetry.Checked == 1 && v.Telemetry.Undecided == 2 },
			missing: []string{"d-1-r-1"},
		},
		"restored": {
			until: 30, change: func(f *fake) { f.position.Epoch, f.position.EpochNumber, f.desired = "f", 2, `{"$version":1000001}` },
			check:   func(v simulator.Verdict) bool { return v.OtherEpoch },
			missing: []string{"was told of version 1000002"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			acks, err := simulator.ReadAcks(strings.NewReader(logText("r", true)))
			if err != nil || acks.Unknown != 1 || acks.Methods != 1 || len(acks.Broken)+len(acks.Backwards) > 0 {
				t.Fatalf("%+v, %v", acks, err)
			}
			f := whole()
			if c.change != nil {
				c.change(&f)
			}
			v, err := acks.Verify(t.Context(), f, c.until)
			if err != nil {
				t.Fatal(err)
			}
			if len(v.Missing) != len(c.missing) {
				t.Errorf("missing %q, want %q", v.Missing, c.missing)
			}
			for i, want := range c.missing {
				if i < len(v.Missing) && !strings.Contains(v.Missing[i], want) {
					t.Errorf("missing %q, want %q", v.Missing[i], want)
				}
			}
			if c.check != nil && !c.check(v) {
				t.Errorf("%+v", v)
			}
		})
	}
}

// TestBrokenAckLog cuts a log at every byte, and takes each line out of it:
// nothing of that may pass for whole.
func TestBrokenAckLog(t *testing.T) {
	text := logText("r", true)
	for n := 1; n < len(text); n++ {
		acks, err := simulator.ReadAcks(strings.NewReader(text[:n]))
		if err == nil && len(acks.Broken) == 0 {
			t.Errorf("cut after %d bytes: nothing was found", n)
		}
	}
	lines := strings.SplitAfter(text, "\n")
	for i := range lines[:len(lines)-1] {
		acks, err := simulator.ReadAcks(strings.NewReader(strings.Join(slices.Delete(slices.Clone(lines), i, i+1), "")))
		if err == nil && len(acks.Broken) == 0 {
			t.Errorf("without line %d: nothing was found", i+1)
		}
	}
	two, err := simulator.ReadAcks(strings.NewReader(logText("a", false) + logText("b", true)))
	if err != nil || len(two.Broken) != 1 || !strings.Contains(two.Broken[0], "the run a") || len(two.Backwards) != 3 {
		t.Errorf("%+v, %v", two, err) // the second run repeats the versions and goes back to the first mark
	}
	for text, want := range map[string]string{
		`{"kind":"telemetry","device":"d","n":1,"acked":true}`: "outside of any run",
		`{"kind":"begin","run":"r","format":2}`:                "format 2",
		`{"kind":"begin"}`:                                     "format 0",
		`nonsense`:                                             "line 1",
		`{"kind":"begin","run":"r","format":1,"more":1}`:       "more",
	} {
		if _, err := simulator.ReadAcks(strings.NewReader(text + "\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	begin := `{"kind":"begin","run":"r","format":1}` + "\n"
	for text, want := range map[string]string{
		begin: "is there already",
		`{"kind":"mark","mark":1,"epoch":"e","sequence":1,"messages":1}`: "answers no question",
		`{"kind":"ask","mark":2}`:                                            "where 1 was expected",
		`{"kind":"telemetry","n":1,"acked":true}`:                            "the device is missing",
		`{"kind":"telemetry","device":"d","n":0,"acked":true}`:               "does not follow",
		`{"kind":"reported","device":"d","since":1}`:                         "mark 1 is not there yet",
		`{"kind":"other","device":"d","acked":true}`:                         "not known",
		`{"kind":"telemetry","device":"d","n":4294967296}`:                   "does not follow",
		`{"kind":"reported","device":"` + strings.Repeat("d", 65<<10) + `"}`: "line 2",
	} {
		if _, err := simulator.ReadAcks(strings.NewReader(begin + strings.TrimSuffix(text, "\n") + "\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want %s", text, err, want)
		}
	}
}

// TestAckLogFile writes a log, leaves a line unfinished as a killed simulator
// does, and goes on.
func TestAckLogFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "acks")
	for range 2 {
		log, err := simulator.OpenAckLog(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := simulator.OpenAckLog(name); err == nil || !strings.Contains(err.Error(), "another simulator") {
			t.Errorf("two writers: %v", err)
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(`{"kind":"tele`)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if acks := readAcks(t, name); len(acks.Runs) != 2 || !slices.Equal(acks.Broken, []string{"line 5 is not finished"}) {
		t.Errorf("%+v", acks)
	}
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := simulator.OpenAckLog(big); err == nil {
		t.Error("a file that is no log was taken")
	} else if st, err := os.Stat(big); err != nil || st.Size() != 1<<20 {
		t.Errorf("it was changed: %v, %v", st, err)
	}
}

func FuzzReadAcks(f *testing.F) {
	f.Add(logText("r", true))
	f.Add(logText("a", false) + logText("b", true))
	f.Fuzz(func(t *testing.T, text string) {
		acks, err := simulator.ReadAcks(strings.NewReader(text))
		if err != nil {
			return
		}
		v, err := acks.Verify(t.Context(), whole(), 15)
		if err != nil {
			t.Fatal(err)
		}
		if n := v.Telemetry.Checked + v.Telemetry.After + v.Telemetry.Undecided; n != acks.Telemetry {
			t.Errorf("%d of %d messages are accounted for: %v", n, acks.Telemetry, maps.Collect(slices.All(acks.Runs)))
		}
	})
}
