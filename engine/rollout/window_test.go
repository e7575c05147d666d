package rollout

import (
	"testing"
	"time"
)

func moment(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestWindows(t *testing.T) {
	t.Parallel()
	const night = `{"windows":[{"cron":"0 22 * * 1-5","duration":"6h","timeZone":"Europe/Paris","zoneTag":"tags.timezone"}]}`
	const two = `{"windows":[{"cron":"0 8 * * *","duration":"4h"},{"cron":"0 10 * * *","duration":"1h"}]}`
	const again = `{"windows":[{"cron":"0 * * * *","duration":"90m"}]}`
	const skipped = `{"windows":[{"cron":"30 2 * * *","duration":"1h","timeZone":"Europe/Paris"}]}`
	for _, c := range []struct {
		policy, at, zone string
		open             bool
		change           string
	}{
		{`{}`, "2026-11-30T12:00:00Z", "", true, ""},
		{night, "2026-11-30T20:59:59Z", "", false, "2026-11-30T21:00:00Z"},
		{night, "2026-11-30T21:00:00Z", "", true, "2026-12-01T03:00:00Z"},
		{night, "2026-12-01T02:59:59Z", "", true, "2026-12-01T03:00:00Z"},
		{night, "2026-12-01T03:00:00Z", "", false, "2026-12-01T21:00:00Z"},
		{night, "2026-12-05T12:00:00Z", "", false, "2026-12-07T21:00:00Z"}, // a weekend
		{night, "2026-11-30T21:00:00Z", "Asia/Tokyo", false, "2026-12-01T13:00:00Z"},
		{night, "2026-11-30T13:30:00Z", "Asia/Tokyo", true, "2026-11-30T19:00:00Z"},
		{night, "2026-11-30T21:00:00Z", "Nowhere/Land", true, "2026-12-01T03:00:00Z"},
		{night, "2026-11-30T21:00:00Z", "Local", true, "2026-12-01T03:00:00Z"},
		{two, "2026-11-30T09:00:00Z", "Asia/Tokyo", true, "2026-11-30T12:00:00Z"}, // no tag: UTC for all
		{two, "2026-11-30T12:00:00Z", "", false, "2026-12-01T08:00:00Z"},
		{skipped, "2026-03-29T00:59:00Z", "", false, "2026-03-29T01:00:00Z"}, // opens at the change
		{skipped, "2026-03-29T01:59:00Z", "", true, "2026-03-29T02:00:00Z"},
		{skipped, "2026-10-25T00:29:00Z", "", false, "2026-10-25T00:30:00Z"},
		{skipped, "2026-10-25T01:30:00Z", "", false, "2026-10-26T01:30:00Z"}, // the second 2:30 opens nothing
	} {
		p := plan(t, c.policy)
		open, change := p.Open(moment(t, c.at), c.zone)
		got := ""
		if !change.IsZero() {
			got = change.UTC().Format(time.RFC3339)
		}
		if open != c.open || got != c.change {
			t.Errorf("%s at %s in %q: open %t until %s, want %t until %s", c.policy, c.at, c.zone, open, got, c.open, c.change)
		}
	}
	// One that opens before it has closed doesn't close in the time that is looked
	// at, and a plan that was asked about later times still answers for earlier.
	p := plan(t, again)
	if open, change := p.Open(base(), ""); !open || change.Before(base().AddDate(0, 0, 2)) {
		t.Errorf("windows that overlap: %t until %s", open, change)
	}
	p = plan(t, night)
	for _, at := range []string{"2026-11-30T21:00:00Z", "2026-11-30T20:30:00Z", "2026-11-30T21:30:00Z", "2026-11-30T20:30:00Z"} {
		open, _ := p.Open(moment(t, at), "")
		if want := !moment(t, at).Before(moment(t, "2026-11-30T21:00:00Z")); open != want {
			t.Errorf("after a jump of the clock to %s: open %t", at, open)
		}
	}
}

// TestWindowOfDevices starts devices in the zones that are open, and tells of
// those that are no zones.
func TestWindowOfDevices(t *testing.T) {
	t.Parallel()
	p := plan(t, `{"windows":[{"cron":"0 22 * * *","duration":"6h","zoneTag":"tags.timezone"}]}`)
	s := laidOut(t, p, 10)
	in := Input{Now: moment(t, "2026-11-30T13:30:00Z"), Room: -1, Zones: []Zone{{Name: "Europe/Paris", Pending: true}, {Name: "Asia/Tokyo", Pending: true}, {Name: "mars", Pending: true}}}
	d := p.Advance(s, in)
	if d.Start != 10 || len(d.Open) != 1 || d.Open[0] != "Asia/Tokyo" || len(d.Unknown) != 1 || d.Unknown[0] != "mars" {
		t.Fatalf("in Tokyo it is night: %+v", d)
	}
	if !d.Wake.Equal(moment(t, "2026-11-30T19:00:00Z")) { // Tokyo's closes before another opens
		t.Errorf("asks for a look at %s", d.Wake)
	}
	in.Zones = in.Zones[:1]
	if d := p.Advance(s, in); d.Start != 0 || s.WaitsFor != WaitsForWindow || s.Reason != "the next window opens at 2026-11-30T21:00:00Z" || !d.Wake.Equal(moment(t, "2026-11-30T21:00:00Z")) {
		t.Errorf("in Paris it is day: %+v, %+v", d, s)
	}
}

func TestOccurrence(t *testing.T) {
	t.Parallel()
	weekly := plan(t, `{"repeat":"0 3 * * 0","repeatZone":"Europe/Paris","end":"2027-02-01T00:00:00Z"}`)
	for _, c := range []struct {
		last, now, want string
		due             bool
	}{
		{"2026-11-30T12:00:00Z", "2026-11-30T12:00:00Z", "2026-12-06T02:00:00Z", false},
		{"2026-11-30T12:00:00Z", "2026-12-06T02:00:00Z", "2026-12-06T02:00:00Z", true},
		{"2026-12-06T02:00:00Z", "2026-12-06T01:30:00Z", "2026-12-13T02:00:00Z", false}, // the clock went back: not again
		{"2026-12-06T02:00:00Z", "2026-12-06T02:00:01Z", "2026-12-13T02:00:00Z", false},
		{"2026-12-06T02:00:00Z", "2027-01-05T00:00:00Z", "2027-01-03T02:00:00Z", true}, // the latest of four
		{"2027-01-24T02:00:00Z", "2027-01-25T00:00:00Z", "2027-01-31T02:00:00Z", false},
		{"2027-01-31T02:00:00Z", "2027-01-31T03:00:00Z", "", false}, // the end is before the next
	} {
		at, due := weekly.Occurrence(moment(t, c.last), moment(t, c.now))
		got := ""
		if !at.IsZero() {
			got = at.UTC().Format(time.RFC3339)
		}
		if got != c.want || due != c.due {
			t.Errorf("after %s at %s: got %s, due %t, want %s, %t", c.last, c.now, got, due, c.want, c.due)
		}
	}
	if at, due := plan(t, `{}`).Occurrence(base(), base()); due || !at.IsZero() {
		t.Errorf("a job that doesn't recur: %s, %t", at, due)
	}
	minutes := plan(t, `{"repeat":"* * * * *"}`)
	if at, due := minutes.Occurrence(base(), base().AddDate(1, 0, 0).Add(30*time.Second)); !due || !at.Equal(base().AddDate(1, 0, 0)) {
		t.Errorf("after a year of minutes: %s, %t", at, due)
	}
	later := plan(t, `{"repeat":"0 3 * * *","start":"2026-12-24T00:00:00Z"}`)
	if at, due := later.Occurrence(base(), base()); due || !at.Equal(moment(t, "2026-12-24T03:00:00Z")) {
		t.Errorf("before the start: %s, %t", at, due)
	}
}

// TestWindowsAreBounded asks about the most windows that open the most often, up
// to a distant end.
func TestWindowsAreBounded(t *testing.T) {
	t.Parallel()
	p := Policy{End: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), Rate: &Rate{PerMinute: 1}}
	for range windowsMost {
		p.Windows = append(p.Windows, Window{Cron: "* * * * *", Duration: windowMost, TimeZone: "America/New_York"})
	}
	p.SetDefaults()
	began := time.Now()
	if _, err := p.Validate("policy", base(), 1_000_000); err != nil {
		t.Fatal(err)
	}
	// It takes some 0.3 s; with all openings of 8,000 years it would be hours.
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %s", took)
	}
}
