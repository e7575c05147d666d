package twin

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// step is one write to a section and what everybody sees afterwards. An empty
// expectation is not checked.
type step struct {
	merge   string // one of merge and replace
	replace string
	refused string // the start of the error; then nothing has changed
	service string // JSON with metadata
	device  string // JSON without
	notify  string // what the device is told
	undo    string
}

func run(t *testing.T, k Kind, limits Limits, steps []step) {
	t.Helper()
	s := New(k)
	for i, st := range steps {
		text, write := st.merge, s.Merge
		if st.replace != "" {
			text, write = st.replace, s.Replace
		}
		now := noon.Add(time.Duration(i) * time.Minute)
		before := string(s.JSON(nil, true))
		next, c, err := write(patch(t, text), now, limits)
		if st.refused != "" {
			if e := invalid(t, err); !strings.HasPrefix(e.Error(), st.refused) {
				t.Errorf("step %d: got %q, want %q", i, e.Error(), st.refused)
			}
			same(t, "after a refusal", string(s.JSON(nil, true)), before)
			continue
		}
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		for _, check := range []struct{ what, got, want string }{
			{"service sees", string(next.JSON(nil, true)), st.service},
			{"device sees", string(next.JSON(nil, false)), st.device},
			{"device is told", string(c.Forward.JSONWithVersion(nil, next.Version())), st.notify},
			{"undo", string(c.Undo.JSON(nil)), st.undo},
		} {
			if check.want != "" && check.got != check.want {
				t.Errorf("step %d, %s:\n got %s\nwant %s", i, check.what, check.got, check.want)
			}
		}
		if s, err = Decode(Encode(nil, next)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestScenarioDesired(t *testing.T) {
	run(t, Desired, azure, []step{
		{
			merge:   `{"fan":{"speed":3,"mode":"auto"}}`,
			service: `{"fan":{"speed":3,"mode":"auto"},"$metadata":{"$lastUpdated":"2026-03-04T12:00:00Z","$lastUpdatedVersion":2,"fan":{"$lastUpdated":"2026-03-04T12:00:00Z","$lastUpdatedVersion":2,"speed":{"$lastUpdated":"2026-03-04T12:00:00Z","$lastUpdatedVersion":2},"mode":{"$lastUpdated":"2026-03-04T12:00:00Z","$lastUpdatedVersion":2}}},"$version":2}`,
			device:  `{"fan":{"speed":3,"mode":"auto"},"$version":2}`,
			notify:  `{"fan":{"speed":3,"mode":"auto"},"$version":2}`,
			undo:    `{"fan":null}`,
		},
		{
			merge:   `{"fan":{"speed":4}}`,
			service: `{"fan":{"speed":4,"mode":"auto"},"$metadata":{"$lastUpdated":"2026-03-04T12:01:00Z","$lastUpdatedVersion":3,"fan":{"$lastUpdated":"2026-03-04T12:01:00Z","$lastUpdatedVersion":3,"speed":{"$lastUpdated":"2026-03-04T12:01:00Z","$lastUpdatedVersion":3},"mode":{"$lastUpdated":"2026-03-04T12:00:00Z","$lastUpdatedVersion":2}}},"$version":3}`,
			notify:  `{"fan":{"speed":4},"$version":3}`,
			undo:    `{"fan":{"speed":3}}`,
		},
		{
			merge:   `{"fan":{"speed":null,"mode":null}}`,
			service: `{"fan":{},"$metadata":{"$lastUpdated":"2026-03-04T12:02:00Z","$lastUpdatedVersion":4,"fan":{"$lastUpdated":"2026-03-04T12:02:00Z","$lastUpdatedVersion":4}},"$version":4}`,
			notify:  `{"fan":{"speed":null,"mode":null},"$version":4}`,
			undo:    `{"fan":{"speed":4,"mode":"auto"}}`,
		},
		{
			merge:   `{"fan":{"a b":1}}`,
			refused: `desired.fan: found the key "a b"`,
		},
		{
			merge:  `{}`,
			device: `{"fan":{},"$version":5}`,
			notify: `{"$version":5}`,
			undo:   `{}`,
		},
		{
			merge:   `{"list":[{"x":[1,2]}],"fan":"none"}`,
			service: `{"fan":"none","list":[{"x":[1,2]}],"$metadata":{"$lastUpdated":"2026-03-04T12:05:00Z","$lastUpdatedVersion":6,"fan":{"$lastUpdated":"2026-03-04T12:05:00Z","$lastUpdatedVersion":6},"list":{"$lastUpdated":"2026-03-04T12:05:00Z","$lastUpdatedVersion":6}},"$version":6}`,
			undo:    `{"list":null,"fan":{}}`,
		},
		{
			replace: `{"$version":1,"fan":"none","heat":{"on":true}}`,
			device:  `{"fan":"none","heat":{"on":true},"$version":7}`,
			notify:  `{"fan":"none","heat":{"on":true},"list":null,"$version":7}`,
			undo:    `{"list":[{"x":[1,2]}],"heat":null}`,
		},
		{
			replace: `{}`,
			service: `{"$metadata":{"$lastUpdated":"2026-03-04T12:07:00Z","$lastUpdatedVersion":8},"$version":8}`,
			notify:  `{"fan":null,"heat":null,"$version":8}`,
			undo:    `{"fan":"none","heat":{"on":true}}`,
		},
	})
}

func TestScenarioReported(t *testing.T) {
	limits := azure
	limits.Special, limits.MaxBytes = RefuseSpecial, 40
	run(t, Reported, limits, []step{
		{
			merge:   `{"$version":4,"a":1}`,
			refused: `reported: found the key "$version"`,
		},
		{
			merge:   `{"a":{"$metadata":{}}}`,
			refused: `reported.a: found the key "$metadata"`,
		},
		{
			merge:   `{"state":"idle","":{"":[]}}`,
			service: `{"state":"idle","":{"":[]},"$metadata":{"$lastUpdated":"2026-03-04T12:02:00Z","state":{"$lastUpdated":"2026-03-04T12:02:00Z"},"":{"$lastUpdated":"2026-03-04T12:02:00Z","":{"$lastUpdated":"2026-03-04T12:02:00Z"}}},"$version":2}`,
			device:  `{"state":"idle","":{"":[]},"$version":2}`,
		},
		{
			merge:   `{"log":"0123456789012345678901234567890123456789"}`,
			refused: `reported: found 52 bytes after the change; expected at most 40`,
		},
		{
			merge:  `{"state":null,"":{"":null},"log":"012345678901234567890123456789"}`,
			device: `{"":{},"log":"012345678901234567890123456789","$version":3}`,
			undo:   `{"state":"idle","":{"":[]},"log":null}`,
		},
		{
			merge:   `{"c":{"__t":"c","p":1.0}}`,
			refused: `reported: found 47 bytes after the change`,
		},
		{
			merge:  `{"log":null,"c":{"__t":"c","p":1.0}}`,
			device: `{"":{},"c":{"__t":"c","p":1.0},"$version":4}`,
			undo:   `{"log":"012345678901234567890123456789","c":null}`,
		},
	})
}

func TestScenarioTags(t *testing.T) {
	run(t, Tags, azure, []step{
		{
			merge:   `{"a":{"b":1}}`,
			service: `{"a":{"b":1}}`,
			device:  `{"a":{"b":1}}`,
			undo:    `{"a":null}`,
		},
		{
			merge:   `{"a":{"c":2}}`,
			service: `{"a":{"b":1,"c":2}}`,
			undo:    `{"a":{"c":null}}`,
		},
		{
			merge:   `{"a":{"b":null},"ort":"Köln \"Süd\"\n","x":[]}`,
			service: `{"a":{"c":2},"ort":"Köln \"Süd\"\n","x":[]}`,
			undo:    `{"a":{"b":1},"ort":null,"x":null}`,
		},
		{
			merge:   `{"x":[1,null]}`,
			refused: `tags.x: found null in an array`,
		},
		{
			replace: `{"a":{"c":2}}`,
			service: `{"a":{"c":2}}`,
			undo:    `{"ort":"Köln \"Süd\"\n","x":[]}`,
		},
		{
			merge:   `{"a":null}`,
			service: `{}`,
			undo:    `{"a":{"c":2}}`,
		},
	})
}

// History keeps content only: what it brings back has no stamp, and what was
// not touched keeps its own.
func TestApplyMetadata(t *testing.T) {
	s := section(t, Desired, `{"a":1,"b":2}`)
	next, c, err := s.Merge(patch(t, `{"a":3}`), noon.Add(time.Minute), azure)
	if err != nil {
		t.Fatal(err)
	}
	back := next.Apply(c.Undo)
	same(t, "restored", string(back.JSON(nil, true)), `{"a":1,"b":2,"$metadata":{"$lastUpdated":"2026-03-04T12:01:00Z","$lastUpdatedVersion":3,`+
		`"a":{"$lastUpdated":"0001-01-01T00:00:00Z"},`+
		`"b":{"$lastUpdated":"2026-03-04T12:00:00Z","$lastUpdatedVersion":2}},"$version":2}`)
	checkCodec(t, back)
	same(t, "zero undo", plain(next.Apply(Patch{})), plain(next))
}

// One damaged byte may go unnoticed here (the store has checksums), but it
// must neither panic nor come out as what is not JSON.
func TestDecodeDamaged(t *testing.T) {
	for _, k := range []Kind{Tags, Desired, Reported} {
		good := Encode(nil, fleetTwin(t, k))
		for i := range good {
			for _, flip := range []byte{0x01, 0x88} {
				bad := append([]byte(nil), good...)
				bad[i] ^= flip
				s, err := Decode(bad)
				if err != nil {
					continue
				}
				if text := s.JSON(nil, true); !json.Valid(text) {
					t.Fatalf("byte %d ^ %#x: %q", i, flip, text)
				}
			}
		}
	}
}

func TestStoredSize(t *testing.T) {
	s := fleetTwin(t, Desired)
	document, stored := len(s.JSON(nil, false)), len(Encode(nil, s))
	if whole := len(s.JSON(nil, true)); stored > document*11/10 || stored > whole/3 {
		t.Errorf("stored in %d bytes, JSON %d, with metadata %d", stored, document, whole)
	}
}

func TestDiffIsSymmetric(t *testing.T) {
	a := section(t, Tags, `{"a":1,"b":{"c":[1],"d":{}},"e":"x"}`)
	b := section(t, Tags, `{"b":{"c":[2],"f":null,"g":1},"e":{"x":"y"},"h":true}`)
	there, back := Diff(a, b), Diff(b, a)
	if len(there) != len(back) || len(there) != 6 {
		t.Fatalf("%d differences there, %d back, want 6", len(there), len(back))
	}
	byPath := map[string]Difference{}
	for _, d := range back {
		byPath[d.Path] = d
	}
	for _, d := range there {
		r, ok := byPath[d.Path]
		if !ok {
			t.Errorf("%s is missing on the way back", d.Path)
		}
		same(t, d.Path+" before", string(d.Before), string(r.After))
		same(t, d.Path+" after", string(d.After), string(r.Before))
	}
	b2, err := json.Marshal(there)
	if err != nil || !strings.Contains(string(b2), `"Before":null`) {
		t.Errorf("as JSON: %s, %v", b2, err)
	}
}
