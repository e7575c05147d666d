package twin_test

import (
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/twin"
)

// What an export of a section holds comes back from an import with the same
// text, and imports only touch what they name.
func TestImport(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	const whole = `{"a":1,"b":{"c":"x","d":[1,2]},"$metadata":{"$lastUpdated":"2020-01-02T03:04:05.6789012Z","$lastUpdatedVersion":7,` +
		`"a":{"$lastUpdated":"2019-01-02T03:04:05.6789012Z","$lastUpdatedVersion":3},` +
		`"b":{"$lastUpdated":"2020-01-02T03:04:05.6789012Z","$lastUpdatedVersion":7,` +
		`"c":{"$lastUpdated":"2020-01-02T03:04:05.6789012Z","$lastUpdatedVersion":7},"d":{"$lastUpdated":"2019-06-02T03:04:05Z","$lastUpdatedVersion":6}}},"$version":7}`
	const changed = `{"a":1,"b":{"c":"x","d":[1,2]},"e":5,"$metadata":{"$lastUpdated":"2026-05-01T10:00:00Z","$lastUpdatedVersion":4,` +
		`"a":{"$lastUpdated":"2019-01-02T03:04:05.6789012Z","$lastUpdatedVersion":4},` +
		`"b":{"$lastUpdated":"2026-05-01T10:00:00Z","$lastUpdatedVersion":4,"c":{"$lastUpdated":"2026-05-01T10:00:00Z","$lastUpdatedVersion":3},"d":{"$lastUpdated":"2019-06-02T03:04:05Z","$lastUpdatedVersion":4}},` +
		`"e":{"$lastUpdated":"2026-05-01T10:00:00Z","$lastUpdatedVersion":3}},"$version":4}`
	for name, c := range map[string]struct{ before, in, want string }{
		"a new section takes all over": {"", whole, whole},
		"a section that exists keeps its versions and what is not named": {
			`[{"a":0},{"b":{"c":"x"},"e":5}]`,
			`{"a":1,"b":{"d":[1,2]},"gone":null,"$metadata":{"a":{"$lastUpdated":"2019-01-02T03:04:05.6789012Z","$lastUpdatedVersion":9},"b":{"d":{"$lastUpdated":"2019-06-02T03:04:05Z"}},"e":{"$lastUpdated":"2019-06-02T03:04:05Z"}},"$version":9}`,
			changed,
		},
		"without metadata all is of now": {"", `{"a":1}`, `{"a":1,"$metadata":{"$lastUpdated":"2026-05-01T10:00:00Z","$lastUpdatedVersion":2,"a":{"$lastUpdated":"2026-05-01T10:00:00Z","$lastUpdatedVersion":2}},"$version":2}`},
		"what is no stamp is none": {
			"", `{"a":1,"b":{"c":1},"$metadata":{"$lastUpdated":5,"$lastUpdatedVersion":"x","a":"no","b":{"$lastUpdated":"yesterday","$lastUpdatedVersion":99,"c":[]}},"$version":3.5}`,
			`{"a":1,"b":{"c":1},"$metadata":{"$lastUpdated":"2026-05-01T10:00:00Z","$lastUpdatedVersion":2,"a":{"$lastUpdated":"2026-05-01T10:00:00Z","$lastUpdatedVersion":2},"b":{"$lastUpdated":"2026-05-01T10:00:00Z","$lastUpdatedVersion":2,"c":{"$lastUpdated":"2026-05-01T10:00:00Z","$lastUpdatedVersion":2}}},"$version":2}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := twin.New(twin.Desired)
			if c.before != "" {
				for _, in := range []string{`{"a":0}`, `{"b":{"c":"x"},"e":5}`} {
					s = mustMerge(t, s, in, now)
				}
			}
			before := string(s.JSON(nil, true))
			p, err := twin.ParsePatch([]byte(c.in), 0)
			if err != nil {
				t.Fatal(err)
			}
			next, _, err := s.Import(p, now, twin.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if got := string(next.JSON(nil, true)); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if after := string(s.JSON(nil, true)); after != before {
				t.Errorf("the section before has changed: %s", after)
			}
			stored, err := twin.Decode(twin.Encode(nil, next))
			if err != nil || string(stored.JSON(nil, true)) != c.want {
				t.Errorf("it is stored as %s, %v", stored.JSON(nil, true), err)
			}
		})
	}
}

func mustMerge(t *testing.T, s *twin.Section, in string, now time.Time) *twin.Section {
	t.Helper()
	p, err := twin.ParsePatch([]byte(in), 0)
	if err != nil {
		t.Fatal(err)
	}
	next, _, err := s.Merge(p, now, twin.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func FuzzImport(f *testing.F) {
	f.Add(`{"a":{"b":[{"c":1}]},"$metadata":{"$lastUpdated":"2020-01-02T03:04:05Z","a":{"$lastUpdated":"x","b":{"$lastUpdatedVersion":9}}},"$version":12}`, true)
	f.Add(`{"$metadata":{"$metadata":{}},"$version":0}`, false)
	f.Fuzz(func(t *testing.T, in string, fresh bool) {
		p, err := twin.ParsePatch([]byte(in), 0)
		if err != nil {
			return
		}
		for _, kind := range []twin.Kind{twin.Tags, twin.Desired, twin.Reported} {
			s := twin.New(kind)
			if !fresh {
				s = s.WithVersion(5)
			}
			next, _, err := s.Import(p, time.Now(), twin.Limits{})
			if err != nil {
				continue
			}
			text := next.JSON(nil, true)
			stored, err := twin.Decode(twin.Encode(nil, next))
			if err != nil || string(stored.JSON(nil, true)) != string(text) {
				t.Fatalf("%s is stored as %s, %v", text, stored.JSON(nil, true), err)
			}
			if next.Version() <= s.Version() && kind == twin.Tags {
				t.Fatalf("version %d after %d", next.Version(), s.Version())
			}
		}
	})
}
