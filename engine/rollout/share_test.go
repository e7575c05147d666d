package rollout

import (
	"encoding/json"
	"testing"
	"time"
)

func TestDurations(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		d    time.Duration
		text string
	}{
		"90s": {90 * time.Second, "1m30s"}, "1h30m": {90 * time.Minute, "1h30m"}, "2d": {48 * time.Hour, "2d"}, "1d12h": {36 * time.Hour, "1d12h"},
		"48h": {48 * time.Hour, "2d"}, "0s": {0, "0s"}, "0": {0, "0s"}, "1h": {time.Hour, "1h"}, "20m": {20 * time.Minute, "20m"}, "1h0m5s": {time.Hour + 5*time.Second, "1h0m5s"},
		"250ms": {250 * time.Millisecond, "250ms"}, "365d": {365 * 24 * time.Hour, "365d"},
	} {
		d, err := ParseDuration(text)
		if err != nil || time.Duration(d) != want.d || d.String() != want.text {
			t.Errorf("%q: got %s (%d), %v, want %s", text, d, d, err, want.text)
		}
		if again, err := ParseDuration(d.String()); err != nil || again != d {
			t.Errorf("%q as %q: got %s, %v", text, d, again, err)
		}
	}
	for _, text := range []string{"", "5", "-1h", "1d-1h", "d", "1.5d", "1x", "366d", "8761h", "99999999999999d", "1d1d", " 1h", "2540400h10m10.000000000s"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("%q: got %s, want an error", text, d)
		}
	}
}

func TestShares(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text, shown string
		of          map[int]int // of a total, how many
	}{
		{"5", "5", map[int]int{0: 0, 3: 3, 5: 5, 100: 5}},
		{"0", "0", map[int]int{10: 0}},
		{"10%", "10%", map[int]int{0: 0, 1: 1, 10: 1, 11: 2, 1000: 100}},
		{"2.5%", "2.5%", map[int]int{40: 1, 41: 2, 1000: 25}},
		{"0.0001%", "0.0001%", map[int]int{1: 1, 1_000_000: 1, 1_000_001: 2}},
		{"100%", "100%", map[int]int{7: 7}},
		{"33.3300%", "33.33%", map[int]int{3: 1, 100: 34}},
	} {
		s, err := ParseShare(c.text)
		if err != nil || s.String() != c.shown {
			t.Errorf("%q: got %q, %v", c.text, s, err)
		}
		for total, want := range c.of {
			if got := s.Of(total); got != want {
				t.Errorf("%s of %d: got %d, want %d", c.text, total, got, want)
			}
		}
	}
	for _, text := range []string{"", "%", "-1", "-1%", "1e3", "5.5", "0x5", "1.00001%", "2.%", ".5%", "1001%", "99999999999", "1 %", "1_000", "NaN%"} {
		if s, err := ParseShare(text); err == nil {
			t.Errorf("%q: got %s, want an error", text, s)
		}
	}
	for text, want := range map[string]Share{`"5%"`: Percent(5), `"5"`: Count(5), `5`: Count(5)} {
		var s Share
		if err := json.Unmarshal([]byte(text), &s); err != nil || s != want {
			t.Errorf("%s: got %v, %v", text, s, err)
		}
	}
	for _, text := range []string{`5.5`, `-5`, `{}`, `true`, `""`} {
		var s Share
		if err := json.Unmarshal([]byte(text), &s); err == nil {
			t.Errorf("%s: got %v, want an error", text, s)
		}
	}
	if !Percent(5).reachedBy(1, 20) || Percent(5).reachedBy(1, 21) || Percent(5).reachedBy(0, 0) || !Count(2).reachedBy(2, 9) || Count(2).reachedBy(1, 1) {
		t.Error("a share is reached at exactly it, and never by nothing")
	}
	if Percent(5).exceededBy(1, 20) || !Percent(5).exceededBy(1, 19) || (Share{}).exceededBy(0, 5) || !(Share{}).exceededBy(1, 5) || Count(2).exceededBy(2, 9) {
		t.Error("a share is exceeded by more than it")
	}
}
