package rollout

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, ok := loadZone(name)
	if !ok {
		t.Fatalf("%s is not known", name)
	}
	return z
}

func TestCronNext(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cron, zone, after string
		want              string // each time, after the one before
	}{
		{"0 22 * * 1-5", "UTC", "2026-11-27T23:00:00Z", "2026-11-30T22:00:00Z 2026-12-01T22:00:00Z"},
		{"*/15 8-9 * * *", "UTC", "2026-11-30T08:50:30Z", "2026-11-30T09:00:00Z 2026-11-30T09:15:00Z"},
		{"5/20 * * * *", "UTC", "2026-11-30T08:00:00Z", "2026-11-30T08:05:00Z 2026-11-30T08:25:00Z 2026-11-30T08:45:00Z 2026-11-30T09:05:00Z"},
		{"0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z 2032-02-29T00:00:00Z"},
		{"0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"},
		{"0 0 31 2 *", "UTC", "2026-01-01T00:00:00Z", "never"},
		{"0 0 13 * 5", "UTC", "2026-11-10T00:00:00Z", "2026-11-13T00:00:00Z 2026-11-20T00:00:00Z"},                // a Friday or the 13th
		{"0 0 */10 * 5", "UTC", "2026-11-10T00:00:00Z", "2026-12-11T00:00:00Z 2027-01-01T00:00:00Z"},              // a Friday on the 1st, 11th, 21st or 31st
		{"0 0 * jan-mar,dec sun", "UTC", "2026-11-10T00:00:00Z", "2026-12-06T00:00:00Z"},                          //
		{"0 0 * * 7", "UTC", "2026-11-30T00:00:00Z", "2026-12-06T00:00:00Z"},                                      //
		{"@monthly", "Asia/Kolkata", "2026-11-30T00:00:00Z", "2026-11-30T18:30:00Z"},                              //
		{"30 2 * * *", "Europe/Paris", "2026-03-28T00:00:00Z", "2026-03-28T01:30:00Z 2026-03-29T01:00:00Z"},       // skipped: at the change
		{"*/20 2 * * *", "Europe/Paris", "2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z 2026-03-30T00:00:00Z"},     // all skipped ones are one
		{"30 2 * * *", "Europe/Paris", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z 2026-10-26T01:30:00Z"},       // comes twice: the first
		{"30 2 * * *", "Europe/Paris", "2026-10-25T00:45:00Z", "2026-10-26T01:30:00Z"},                            // asked between the two
		{"0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", "2018-11-04T03:00:00Z 2018-11-05T02:00:00Z"},   // midnight is skipped
		{"0 12 * * *", "Pacific/Apia", "2011-12-29T23:00:00Z", "2011-12-30T10:00:00Z 2011-12-30T22:00:00Z"},       // a whole day is skipped
		{"0 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", "2026-10-03T15:30:00Z 2026-10-04T15:00:00Z"}, // half an hour is skipped
	} {
		p, err := ParseCron(c.cron)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, c.after)
		if err != nil {
			t.Fatal(err)
		}
		for want := range strings.FieldsSeq(c.want) {
			at = p.Next(at, zone(t, c.zone))
			got := "never"
			if !at.IsZero() {
				got = at.UTC().Format(time.RFC3339)
			}
			if got != want {
				t.Errorf("%q in %s after %s: got %s, want %s", c.cron, c.zone, c.after, got, want)
				break
			}
		}
	}
}

func TestCronErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                        "0 fields",
		"* * * *":                 "4 fields",
		"0 0 * * * *":             "6 fields",
		"60 * * * *":              `the minute is "60"; expected 0 to 59`,
		"* 24 * * *":              `the hour is "24"; expected 0 to 23`,
		"* * 0 * *":               `the day of the month is "0"; expected 1 to 31`,
		"* * * 13 *":              `the month is "13"; expected 1 to 12 or jan to dec`,
		"* * * * 8":               `the day of the week is "8"`,
		"* * * * mon-sun":         `the day of the week is "mon-sun"`,
		"5-1 * * * *":             `the minute is "5-1"`,
		"*/0 * * * *":             `the minute is "*/0"`,
		"*/ * * * *":              `the minute is "*/"`,
		"1,,2 * * * *":            `the minute is ""`,
		"-1 * * * *":              `the minute is "-1"`,
		"+1 * * * *":              `the minute is "+1"`,
		"1/2/3 * * * *":           `the minute is "1/2/3"`,
		"a * * * *":               `the minute is "a"`,
		"@never":                  "1 fields",
		strings.Repeat("1,", 101): "202 bytes",
	} {
		if _, err := ParseCron(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// TestCronAgreesWithMinutes compares Next with a walk over the minutes in which
// a clock changes, where each minute is looked at as the clock shows it.
func TestCronAgreesWithMinutes(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	changes := map[string]string{
		"Europe/Paris": "2026-03-29T01:00:00Z 2026-10-25T01:00:00Z", "America/New_York": "2026-03-08T07:00:00Z 2026-11-01T06:00:00Z",
		"America/Sao_Paulo": "2018-11-04T03:00:00Z 2019-02-17T02:00:00Z", "Australia/Lord_Howe": "2026-04-04T15:00:00Z 2026-10-03T15:30:00Z",
		"Pacific/Apia": "2011-12-30T10:00:00Z", "Africa/Casablanca": "2026-02-15T02:00:00Z 2026-03-22T02:00:00Z", "Asia/Kathmandu": "2026-01-01T00:00:00Z",
	}
	for name, list := range changes {
		z := zone(t, name)
		for text := range strings.FieldsSeq(list) {
			change, err := time.Parse(time.RFC3339, text)
			if err != nil {
				t.Fatal(err)
			}
			for range 40 {
				cron := pick(r, "*", "0", "30", "*/15", "59", "7/20") + " " + pick(r, "*", "0", "1", "2", "3", "0-3", "*/2") + " * * " + pick(r, "*", "0", "6,0,1")
				c, err := ParseCron(cron)
				if err != nil {
					t.Fatal(err)
				}
				from := change.Add(-time.Duration(r.IntN(30*60)) * time.Minute)
				want := walk(c, from, z)
				if got := c.Next(from, z); !got.Equal(want) {
					t.Fatalf("%q in %s after %s: got %s, want %s", cron, name, from.In(z), got.In(z), want.In(z))
				}
			}
		}
	}
}

// walk looks at each minute after a moment. A local minute that was shown
// before, which is looked for in the last day and a half, does not count; if the
// clock jumped to a minute, all those that it jumped over count as well.
func walk(c *Cron, from time.Time, z *time.Location) time.Time {
	const span = 36 * 60
	plain := func(t time.Time) time.Time {
		return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), 0, 0, time.UTC)
	}
	at := from.Truncate(time.Minute).Add(-span * time.Minute)
	highest := plain(at.In(z))
	for range 12 * span {
		at = at.Add(time.Minute)
		shown := plain(at.In(z))
		for m := highest.Add(time.Minute); !m.After(shown); m = m.Add(time.Minute) {
			if at.After(from) && c.minute&(1<<m.Minute()) != 0 && c.hour&(1<<m.Hour()) != 0 && c.onDay(m.Day(), m.Weekday()) && c.month&(1<<m.Month()) != 0 {
				return at
			}
		}
		if shown.After(highest) {
			highest = shown
		}
	}
	return time.Time{}
}

func FuzzParseCron(f *testing.F) {
	for _, text := range []string{"0 22 * * 1-5", "*/15 8-18/2 1,15 jan-mar sun", "@daily", "1/2/3 * * * *", "0 0 31 2 *"} {
		f.Add(text, int64(1_790_000_000))
	}
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		c, err := ParseCron(text)
		if err != nil {
			return
		}
		after := time.Unix(unix%4_000_000_000, 0)
		next := c.Next(after, time.UTC)
		if next.IsZero() {
			return
		}
		if !next.After(after) || next.Second() != 0 {
			t.Fatalf("%q after %s is %s", text, after, next)
		}
		if c.minute&(1<<next.Minute()) == 0 || c.hour&(1<<next.Hour()) == 0 || c.month&(1<<next.Month()) == 0 || !c.onDay(next.Day(), next.Weekday()) {
			t.Fatalf("%q does not mean %s", text, next)
		}
	})
}
