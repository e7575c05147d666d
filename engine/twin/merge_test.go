package twin

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMerge(t *testing.T) {
	for _, c := range []struct{ name, before, patch, after, undo, paths string }{
		{"nothing", `{"a":1}`, `{}`, `{"a":1}`, `{}`, ""},
		{"add", `{"a":1}`, `{"b":2}`, `{"a":1,"b":2}`, `{"b":null}`, "b"},
		{"set keeps the place", `{"a":1,"b":2}`, `{"a":3}`, `{"a":3,"b":2}`, `{"a":1}`, "a"},
		{"same value", `{"a":1}`, `{"a":1}`, `{"a":1}`, `{"a":1}`, "a"},
		{"number text", `{"a":1}`, `{"a":1.0}`, `{"a":1.0}`, `{"a":1}`, "a"},
		{"remove", `{"a":1,"b":2}`, `{"a":null}`, `{"b":2}`, `{"a":1}`, "a"},
		{"remove what is not there", `{"a":1}`, `{"b":null}`, `{"a":1}`, `{}`, ""},
		{"remove the last key", `{"a":{"b":1}}`, `{"a":{"b":null}}`, `{"a":{}}`, `{"a":{"b":1}}`, "a.b"},
		{"remove an object", `{"a":{"b":1},"c":2}`, `{"a":null}`, `{"c":2}`, `{"a":{"b":1}}`, "a"},
		{"siblings stay", `{"a":{"b":1,"c":2}}`, `{"a":{"b":3}}`, `{"a":{"b":3,"c":2}}`, `{"a":{"b":1}}`, "a.b"},
		{"empty object over nothing", `{}`, `{"a":{}}`, `{"a":{}}`, `{"a":null}`, "a"},
		{"empty object over an object", `{"a":{"b":1}}`, `{"a":{}}`, `{"a":{"b":1}}`, `{}`, ""},
		{"empty object over a scalar", `{"a":1}`, `{"a":{}}`, `{"a":{}}`, `{"a":1}`, "a"},
		{"empty object over an array", `{"a":[1]}`, `{"a":{}}`, `{"a":{}}`, `{"a":[1]}`, "a"},
		{"null in a new object", `{}`, `{"a":{"b":null,"c":{"d":null}}}`, `{"a":{"c":{}}}`, `{"a":null}`, "a"},
		{"object over a scalar", `{"a":1}`, `{"a":{"b":2,"c":null}}`, `{"a":{"b":2}}`, `{"a":1}`, "a"},
		{"scalar over an object", `{"a":{"b":{"c":1}}}`, `{"a":"x"}`, `{"a":"x"}`, `{"a":{"b":{"c":1}}}`, "a"},
		{"array over an object", `{"a":{"b":1}}`, `{"a":[]}`, `{"a":[]}`, `{"a":{"b":1}}`, "a"},
		{"arrays never merge", `{"a":[1,2,3]}`, `{"a":[4]}`, `{"a":[4]}`, `{"a":[1,2,3]}`, "a"},
		{"objects in arrays are whole", `{"a":[{"b":1}]}`, `{"a":[{"c":2}]}`, `{"a":[{"c":2}]}`, `{"a":[{"b":1}]}`, "a"},
		{"empty key", `{"":1,"a":{"":2}}`, `{"":3,"a":{"":null}}`, `{"":3,"a":{}}`, `{"":1,"a":{"":2}}`, " a."},
		{"many at once", `{"a":1,"b":{"c":2,"d":3},"e":4}`, `{"e":null,"b":{"d":null,"f":5},"g":{"h":6}}`, `{"a":1,"b":{"c":2,"f":5},"g":{"h":6}}`, `{"e":4,"b":{"d":3,"f":null},"g":null}`, "e b.d b.f g"},
		{"component", `{}`, `{"c":{"__t":"c","p":1}}`, `{"c":{"__t":"c","p":1}}`, `{"c":null}`, "c"},
		{"case matters", `{"a":1}`, `{"A":null}`, `{"a":1}`, `{}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, k := range []Kind{Tags, Desired, Reported} {
				before := section(t, k, c.before)
				old := string(before.JSON(nil, true))
				after, change, err := before.Merge(patch(t, c.patch), noon.Add(time.Hour), azure)
				if err != nil {
					t.Fatal(err)
				}
				same(t, "after", plain(after), c.after)
				same(t, "forward", string(change.Forward.JSON(nil)), c.patch)
				same(t, "undo", string(change.Undo.JSON(nil)), c.undo)
				same(t, "paths", strings.Join(change.Paths, " "), c.paths)
				same(t, "the section before", string(before.JSON(nil, true)), old)
				if after.Version() != before.Version()+1 {
					t.Errorf("version %d after %d", after.Version(), before.Version())
				}
				back := after.Apply(patch(t, string(change.Undo.JSON(nil))))
				sameJSON(t, "undone", plain(back), c.before)
				if back.Version() != before.Version() || back.Bytes() != before.Bytes() {
					t.Errorf("undone: version %d, %d bytes; want %d, %d", back.Version(), back.Bytes(), before.Version(), before.Bytes())
				}
			}
		})
	}
}

func TestReplace(t *testing.T) {
	for _, c := range []struct{ name, before, patch, after, forward, undo, paths string }{
		{"nothing with nothing", `{}`, `{}`, `{}`, `{}`, `{}`, ""},
		{"clear", `{"a":1,"b":{"c":2}}`, `{}`, `{}`, `{"a":null,"b":null}`, `{"a":1,"b":{"c":2}}`, "a b"},
		{"fill", `{}`, `{"a":1,"b":{"c":2}}`, `{"a":1,"b":{"c":2}}`, `{"a":1,"b":{"c":2}}`, `{"a":null,"b":null}`, "a b"},
		{"same", `{"a":1,"b":{"c":2}}`, `{"a":1,"b":{"c":2}}`, `{"a":1,"b":{"c":2}}`, `{"a":1,"b":{"c":2}}`, `{}`, "a b.c"},
		{"vanished at the top", `{"a":1,"b":2}`, `{"b":3}`, `{"b":3}`, `{"b":3,"a":null}`, `{"a":1,"b":2}`, "b a"},
		{"vanished inside", `{"a":{"b":1,"c":{"d":2,"e":3}}}`, `{"a":{"c":{"e":3}}}`, `{"a":{"c":{"e":3}}}`, `{"a":{"c":{"e":3,"d":null},"b":null}}`, `{"a":{"b":1,"c":{"d":2}}}`, "a.c.e a.c.d a.b"},
		{"empty object", `{"a":{"b":1}}`, `{"a":{}}`, `{"a":{}}`, `{"a":{"b":null}}`, `{"a":{"b":1}}`, "a.b"},
		{"object for a scalar", `{"a":1}`, `{"a":{"b":1}}`, `{"a":{"b":1}}`, `{"a":{"b":1}}`, `{"a":1}`, "a"},
		{"scalar for an object", `{"a":{"b":1}}`, `{"a":1}`, `{"a":1}`, `{"a":1}`, `{"a":{"b":1}}`, "a"},
		{"array for an array", `{"a":[1,2]}`, `{"a":[1]}`, `{"a":[1]}`, `{"a":[1]}`, `{"a":[1,2]}`, "a"},
		{"order is the new one", `{"a":1,"b":2}`, `{"b":2,"a":1}`, `{"b":2,"a":1}`, `{"b":2,"a":1}`, `{}`, "b a"},
		{"nulls are nothing", `{"a":1}`, `{"a":null,"b":{"c":null}}`, `{"b":{}}`, `{"b":{},"a":null}`, `{"a":1,"b":null}`, "b a"},
		{"special keys", `{"a":1}`, `{"$version":3,"a":1,"$metadata":{"$lastUpdated":"x"}}`, `{"a":1}`, `{"a":1}`, `{}`, "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := section(t, Desired, c.before)
			after, change, err := before.Replace(patch(t, c.patch), noon, azure)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "after", plain(after), c.after)
			same(t, "forward", string(change.Forward.JSON(nil)), c.forward)
			sameJSON(t, "undo", string(change.Undo.JSON(nil)), c.undo)
			same(t, "paths", strings.Join(change.Paths, " "), c.paths)
			sameJSON(t, "undone", plain(after.Apply(change.Undo)), c.before)
			copied, _, err := before.Merge(change.Forward, noon, azure)
			if err != nil {
				t.Fatal(err)
			}
			sameJSON(t, "a device's copy", plain(copied), c.after)
			if after.Version() != before.Version()+1 {
				t.Errorf("version %d after %d", after.Version(), before.Version())
			}
		})
	}
}

func TestMergeNullClears(t *testing.T) {
	doc := patch(t, `{"tags":null}`)
	null, ok, err := doc.Object("tags")
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	after, c, err := section(t, Tags, `{"a":1,"b":{"c":2}}`).Merge(null, noon, azure)
	if err != nil {
		t.Fatal(err)
	}
	if !after.Empty() {
		t.Errorf("left %s", plain(after))
	}
	same(t, "forward", string(c.Forward.JSON(nil)), `{"a":null,"b":null}`)
	same(t, "undo", string(c.Undo.JSON(nil)), `{"a":1,"b":{"c":2}}`)
}

func TestMergeSpecialKeys(t *testing.T) {
	for _, c := range []struct{ name, patch, after, forward string }{
		{"at the top", `{"$version":99,"a":2,"$metadata":{"$lastUpdated":"x","a":{}}}`, `{"a":2}`, `{"a":2}`},
		{"nested", `{"b":{"$metadata":{"x y":null},"c":1}}`, `{"a":1,"b":{"c":1}}`, `{"b":{"c":1}}`},
		{"in arrays", `{"b":[{"$version":1,"c":[{"$metadata":1}]}]}`, `{"a":1,"b":[{"c":[{}]}]}`, `{"b":[{"c":[{}]}]}`},
		{"alone", `{"$metadata":null}`, `{"a":1}`, `{}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := section(t, Desired, `{"a":1}`)
			p := patch(t, c.patch)
			after, change, err := s.Merge(p, noon, azure)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "after", plain(after), c.after)
			same(t, "forward", string(change.Forward.JSON(nil)), c.forward)
			same(t, "the patch itself", string(p.JSON(nil)), c.patch)
			strict := azure
			strict.Special = RefuseSpecial
			_, _, err = section(t, Reported, `{}`).Merge(p, noon, strict)
			if e := invalid(t, err); !strings.HasPrefix(e.Path, "reported") || !strings.Contains(e.Reason, `"$`) {
				t.Errorf("refused with %v", e)
			}
		})
	}
	_, _, err := New(Desired).Merge(patch(t, `{"$lastUpdated":1}`), noon, azure)
	invalid(t, err)
}

// An application that reads a twin, edits it and sends all of it back changes
// nothing but what it edited.
func TestMergeOwnDocument(t *testing.T) {
	for _, k := range []Kind{Tags, Desired} {
		s := fleetTwin(t, k)
		whole := patch(t, string(s.JSON(nil, true)))
		for name, write := range map[string]func(Patch, time.Time, Limits) (*Section, Change, error){"merge": s.Merge, "replace": s.Replace} {
			after, c, err := write(whole, noon, azure)
			if err != nil {
				t.Fatalf("%v %s: %v", k, name, err)
			}
			if d := Diff(s, after); len(d) != 0 {
				t.Errorf("%v %s: differs in %v", k, name, d)
			}
			same(t, name, plain(after), plain(s))
			if c.Forward.Has(keyVersion) || c.Forward.Has(keyMetadata) {
				t.Errorf("%v %s: special keys go to the device", k, name)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	nested := func(n int, open, shut string) string {
		return `{"k":` + strings.Repeat(open, n) + strings.Repeat(shut, n) + `}`
	}
	objects := func(n int) string { return strings.Repeat(`{"o":`, n) + `{"p":"v"}` + strings.Repeat(`}`, n) }
	for _, c := range []struct{ name, patch, path, reason string }{
		{"fine", `{"a":{"":1,"ключ":"x","_-@,;":[1,"x",{"y":true}]}}`, "", ""},
		{"dot", `{"x":{"a.b":1}}`, "desired.x", `found the key "a.b"`},
		{"dollar", `{"$a":1}`, "desired", `found the key "$a"`},
		{"dollar inside", `{"a$":1}`, "desired", `found the key "a$"`},
		{"space", `{"a b":1}`, "desired", `found the key "a b"`},
		{"hash", `{"a#":1}`, "desired", `found the key "a#"`},
		{"C0", `{"a\u0000":1}`, "desired", `found the key "a\x00"`},
		{"DEL", `{"a\u007f":1}`, "desired", `found the key "a\x7f"`},
		{"C1", `{"a\u0085":1}`, "desired", `found the key "a\u0085"`},
		{"after C1", `{"a\u00a0":1}`, "", ""},
		{"removed key", `{"a b":null}`, "desired", `found the key "a b"`},
		{"key in an array", `{"l":[[{"a b":1}]]}`, "desired.l", `found the key "a b"`},
		{"longest key", `{"` + strings.Repeat("k", 1024) + `":1}`, "", ""},
		{"key too long", `{"` + strings.Repeat("é", 513) + `":1}`, "desired", `found the key "` + strings.Repeat("é", 40) + `"... of 1026 bytes`},
		{"longest string", `{"a":"` + strings.Repeat("é", 2048) + `"}`, "", ""},
		{"string too long", `{"a":["` + strings.Repeat("é", 2048) + `x"]}`, "desired.a", "found a string of 4097 bytes"},
		{"lowest integer", `{"a":-4503599627370496}`, "", ""},
		{"highest integer", `{"a":4503599627370495}`, "", ""},
		{"integer too low", `{"a":-4503599627370497}`, "desired.a", "found the integer -4503599627370497"},
		{"integer too high", `{"a":[4503599627370496]}`, "desired.a", "found the integer 4503599627370496"},
		{"integer beyond 64 bits", `{"a":99999999999999999999}`, "desired.a", "found the integer 99999999999999999999"},
		{"float with an integer's value", `{"a":1e300,"b":4503599627370497.0}`, "", ""},
		{"ten objects", objects(10), "", ""},
		{"eleven objects", objects(11), "desired" + strings.Repeat(".o", 11), "found more than 10 nested objects and arrays"},
		{"ten arrays", nested(10, "[", "]"), "", ""},
		{"eleven arrays", nested(11, "[", "]"), "desired.k", "found more than 10 nested objects and arrays"},
		{"null in an array", `{"a":{"b":[1,null]}}`, "desired.a.b", "found null in an array"},
		{"null in an array's object", `{"a":[{"b":null}]}`, "desired.a.b", "found null in an array"},
		{"null in an array's array", `{"a":[[null]]}`, "desired.a", "found null in an array"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := New(Desired)
			for _, write := range []func(Patch, time.Time, Limits) (*Section, Change, error){s.Merge, s.Replace} {
				next, _, err := write(patch(t, c.patch), noon, azure)
				if c.reason == "" {
					if err != nil {
						t.Errorf("refused: %v", err)
					}
					continue
				}
				e := invalid(t, err)
				same(t, "path", e.Path, c.path)
				same(t, "reason", e.Reason, c.reason)
				if next != nil || e.TooLarge {
					t.Error("a section came back, or the error is marked as too large")
				}
			}
		})
	}
}

func TestNoLimits(t *testing.T) {
	big := `{"` + strings.Repeat("k", 5000) + `":"` + strings.Repeat("s", 70000) + `","n":99999999999999999999}`
	if _, _, err := New(Reported).Merge(patch(t, big), noon, Limits{}); err != nil {
		t.Errorf("no limits: %v", err)
	}
	for _, text := range []string{`{"a.b":1}`, `{"a":[null]}`} {
		_, _, err := New(Reported).Merge(patch(t, text), noon, Limits{})
		invalid(t, err)
	}
	deep := `{"a":` + strings.Repeat(`[`, 57) + strings.Repeat(`]`, 57) + `}`
	_, _, err := New(Reported).Merge(patch(t, deep), noon, Limits{MaxDepth: math.MaxInt})
	invalid(t, err)
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]int{
		`{}`:                              0,
		`{"a":1}`:                         9,
		`{"a":1.25e-3}`:                   9,
		`{"ab":true,"c":false}`:           11,
		`{"é":"é"}`:                       4,
		`{"a":"x\u0000\n\u007fy"}`:        3,
		`{"a":"\u0085\u009f\u00a0"}`:      3,
		`{"a":{}}`:                        1,
		`{"a":[]}`:                        1,
		`{"a":[1,true,"xy",[2],{"b":3}]}`: 1 + 8 + 4 + 2 + 8 + 1 + 8,
		`{"a":{"b":{"c":"d"}}}`:           4,
	} {
		if got := section(t, Reported, text).Bytes(); got != want {
			t.Errorf("%s: got %d bytes, want %d", text, got, want)
		}
	}
}

func TestMaxBytes(t *testing.T) {
	l := Limits{MaxBytes: 20}
	s := section(t, Desired, `{"a":"0123456789"}`)
	if _, _, err := s.Merge(patch(t, `{"b":1}`), noon, l); err != nil {
		t.Errorf("exactly the limit: %v", err)
	}
	_, _, err := s.Merge(patch(t, `{"bb":1}`), noon, l)
	e := invalid(t, err)
	if !e.TooLarge || e.Path != "desired" || e.Reason != "found 21 bytes after the change" {
		t.Errorf("got %+v", e)
	}
	if _, _, err = s.Replace(patch(t, `{"bb":"0123456789abcdef"}`), noon, l); err != nil {
		t.Errorf("the old content counts in a replacement: %v", err)
	}
	_, _, err = s.Replace(patch(t, `{"bb":"0123456789abcdefghi"}`), noon, l)
	invalid(t, err)

	// A section from before the limit was lowered can be emptied step by step.
	large := section(t, Desired, `{"a":"0123456789","b":"0123456789","c":"0123456789"}`)
	if _, _, err := large.Merge(patch(t, `{"a":null}`), noon, l); err != nil {
		t.Errorf("smaller: %v", err)
	}
	_, _, err = large.Merge(patch(t, `{"a":"9876543210"}`), noon, l)
	invalid(t, err)
}

func TestJSON(t *testing.T) {
	same(t, "fresh desired", string(New(Desired).JSON(nil, true)), `{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00Z"},"$version":1}`)
	same(t, "fresh reported", string(New(Reported).JSON(nil, true)), `{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00Z"},"$version":1}`)
	same(t, "fresh for the device", string(New(Reported).JSON(nil, false)), `{"$version":1}`)
	same(t, "fresh tags", string(New(Tags).JSON(nil, true)), `{}`)

	step := func(s *Section, text string, at time.Time) *Section {
		t.Helper()
		next, _, err := s.Merge(patch(t, text), at, azure)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	later := noon.Add(1500*time.Millisecond + 123456700)
	d := step(step(New(Desired), `{"a":1,"b":{"c":[{"x":1}],"d":{}}}`, noon), `{"b":{"d":{"e":"x"}}}`, later)
	same(t, "desired", string(d.JSON([]byte(">"), true)), `>{"a":1,"b":{"c":[{"x":1}],"d":{"e":"x"}},"$metadata":{"$lastUpdated":"2026-03-04T12:00:01.6234567Z","$lastUpdatedVersion":3,`+
		`"a":{"$lastUpdated":"2026-03-04T12:00:00Z","$lastUpdatedVersion":2},`+
		`"b":{"$lastUpdated":"2026-03-04T12:00:01.6234567Z","$lastUpdatedVersion":3,`+
		`"c":{"$lastUpdated":"2026-03-04T12:00:00Z","$lastUpdatedVersion":2},`+
		`"d":{"$lastUpdated":"2026-03-04T12:00:01.6234567Z","$lastUpdatedVersion":3,`+
		`"e":{"$lastUpdated":"2026-03-04T12:00:01.6234567Z","$lastUpdatedVersion":3}}}},"$version":3}`)
	same(t, "desired for the device", string(d.JSON(nil, false)), `{"a":1,"b":{"c":[{"x":1}],"d":{"e":"x"}},"$version":3}`)

	r := step(step(New(Reported), `{"a":{"b":1,"c":2}}`, noon), `{"a":{"b":null}}`, noon.Add(time.Minute))
	same(t, "reported", string(r.JSON(nil, true)), `{"a":{"c":2},"$metadata":{"$lastUpdated":"2026-03-04T12:01:00Z",`+
		`"a":{"$lastUpdated":"2026-03-04T12:01:00Z","c":{"$lastUpdated":"2026-03-04T12:00:00Z"}}},"$version":3}`)
	same(t, "tags", string(step(New(Tags), `{"a":{"b":1}}`, noon).JSON(nil, true)), `{"a":{"b":1}}`)
}

func TestReplaceStampsAll(t *testing.T) {
	s := section(t, Desired, `{"a":{"b":1}}`)
	s, _, err := s.Replace(patch(t, `{"a":{"b":1}}`), noon.Add(time.Second), azure)
	if err != nil {
		t.Fatal(err)
	}
	const stamp = `"$lastUpdated":"2026-03-04T12:00:01Z","$lastUpdatedVersion":3`
	same(t, "JSON", string(s.JSON(nil, true)), `{"a":{"b":1},"$metadata":{`+stamp+`,"a":{`+stamp+`,"b":{`+stamp+`}}},"$version":3}`)
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		at   time.Time
		want string
	}{
		{time.Time{}, "0001-01-01T00:00:00Z"},
		{time.Time{}.Add(-time.Hour), "0001-01-01T00:00:00Z"},
		{time.Unix(0, 0), "1970-01-01T00:00:00Z"},
		{time.Unix(-1, 999_999_999), "1969-12-31T23:59:59.9999999Z"},
		{time.Date(2026, 1, 2, 3, 4, 5, 120_000_000, time.FixedZone("", 3600)), "2026-01-02T02:04:05.12Z"},
		{time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC), "9999-12-31T23:59:59.9999999Z"},
		{time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), "9999-12-31T23:59:59.9999999Z"},
	} {
		same(t, c.at.String(), string(appendTime(nil, ticks(c.at))), c.want)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for unit := range 20_000 {
		n := r.Int64N(maxTicks + 1)
		if unit%8 < 7 { // fewer digits of a second
			for range unit % 8 {
				n = n / 10 * 10
			}
		}
		want := time.Unix(n/ticksPerSec-yearOneToUnix, n%ticksPerSec*100).UTC().Format("2006-01-02T15:04:05.9999999Z")
		same(t, fmt.Sprint(n), string(appendTime(nil, n)), want)
	}
}

func TestGet(t *testing.T) {
	s := section(t, Desired, `{"a":{"b":[1,{"c":2}],"d":"x"},"":{"":3},"n":1.0}`)
	for path, want := range map[string]string{
		"a": `{"b":[1,{"c":2}],"d":"x"}`, "a.b": `[1,{"c":2}]`, "a.d": `"x"`, "n": "1.0", "": `{"":3}`, ".": "3",
	} {
		got, ok := s.Get(path)
		if !ok {
			t.Errorf("%q is absent", path)
		}
		same(t, path, string(got), want)
	}
	for _, path := range []string{"x", "a.x", "a.d.x", "a.b.0", "a.b.c", "..", "$version"} {
		if got, ok := s.Get(path); ok || got != nil {
			t.Errorf("%q: got %s, want nothing", path, got)
		}
	}
}

func TestWithVersion(t *testing.T) {
	s := section(t, Desired, `{"a":1}`)
	same(t, "JSON", string(s.WithVersion(1000002).JSON(nil, false)), `{"a":1,"$version":1000002}`)
	if s.Version() != 2 {
		t.Error("the section itself changed")
	}
	last, _, err := s.WithVersion(math.MaxInt64).Merge(Patch{}, noon, azure)
	if err != nil || last.Version() != math.MaxInt64 {
		t.Errorf("the version wraps: %v, %v", last.Version(), err)
	}
}

func TestDiff(t *testing.T) {
	for _, c := range []struct{ name, a, b, want string }{
		{"same", `{"a":1,"b":{"c":[1]}}`, `{"b":{"c":[1]},"a":1}`, ""},
		{"text", `{"a":1}`, `{"a":1.0}`, "a 1 1.0"},
		{"set, added, removed", `{"a":1,"b":2}`, `{"c":3,"b":4}`, "a 1 -|b 2 4|c - 3"},
		{"inside", `{"a":{"b":{"c":1,"d":2}}}`, `{"a":{"b":{"c":1,"d":3}}}`, "a.b.d 2 3"},
		{"kinds", `{"a":{"b":1},"c":[1]}`, `{"a":1,"c":[2]}`, `a {"b":1} 1|c [1] [2]`},
		{"objects come and go whole", `{"a":{"b":1}}`, `{"c":{"d":{}}}`, `a {"b":1} -|c - {"d":{}}`},
		{"empty object", `{"a":{}}`, `{}`, `a {} -`},
		{"in arrays", `{"a":[{"x":1,"y":2}]}`, `{"a":[{"y":2,"x":1}]}`, ""},
		{"array length", `{"a":[1,2]}`, `{"a":[1]}`, "a [1,2] [1]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			text := func(b []byte) string {
				if b == nil {
					return "-"
				}
				return string(b)
			}
			for _, d := range Diff(section(t, Tags, c.a), section(t, Tags, c.b)) {
				got = append(got, d.Path+" "+text(d.Before)+" "+text(d.After))
			}
			same(t, "differences", strings.Join(got, "|"), c.want)
		})
	}
	if d := Diff(nil, section(t, Tags, `{"a":1}`)); len(d) != 1 || d[0].Before != nil {
		t.Errorf("from nothing: %v", d)
	}
	if d := Diff(section(t, Tags, `{"a":1}`), nil); len(d) != 1 || d[0].After != nil {
		t.Errorf("to nothing: %v", d)
	}
}

// TestHistories walks random histories forward and back.
func TestHistories(t *testing.T) {
	for seed := range uint64(400) {
		history(t, seed, []Kind{Tags, Desired, Reported}[seed%3], 12)
	}
}

func history(t *testing.T, seed uint64, k Kind, steps int) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 7))
	s := New(k)
	states, undos := []*Section{s}, []Patch{}
	for i := range steps {
		p := patch(t, randomJSON(r, 3, true))
		before := plain(s)
		write, want := s.Merge, mergeReference(loose(t, before), loose(t, string(p.JSON(nil))))
		if r.IntN(4) == 0 {
			write, want = s.Replace, mergeReference(nil, loose(t, string(p.JSON(nil))))
		}
		next, c, err := write(p, noon.Add(time.Duration(i)*time.Second), azure)
		if err != nil {
			t.Fatalf("seed %d step %d: %v", seed, i, err)
		}
		if got := loose(t, plain(next)); !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d step %d: %s and %s\n got %v\nwant %v", seed, i, before, p.JSON(nil), got, want)
		}
		if next.Bytes() != next.root.size() {
			t.Fatalf("seed %d step %d: %d bytes, want %d", seed, i, next.Bytes(), next.root.size())
		}
		for _, path := range c.Paths {
			if strings.Contains(path, "$") {
				t.Fatalf("seed %d: path %q", seed, path)
			}
		}
		checkDiff(t, s, next)
		checkCodec(t, next)
		s = next
		states, undos = append(states, s), append(undos, c.Undo)
	}
	for i, undo := range slices.Backward(undos) {
		s = s.Apply(patch(t, string(undo.JSON(nil))))
		want := states[i]
		sameJSON(t, fmt.Sprintf("seed %d, back to %d", seed, i), plain(s), plain(want))
		if s.Version() != want.Version() || s.Bytes() != want.Bytes() {
			t.Fatalf("seed %d, back to %d: version %d, %d bytes", seed, i, s.Version(), s.Bytes())
		}
	}
}

// checkDiff applies the differences of a and b to a and wants b.
func checkDiff(t *testing.T, a, b *Section) {
	t.Helper()
	got := a
	for _, d := range Diff(a, b) {
		value := "null"
		if d.After != nil {
			value = string(d.After)
		}
		text := value
		keys := strings.Split(d.Path, ".")
		for _, k := range slices.Backward(keys) {
			text = "{" + string(AppendString(nil, k)) + ":" + text + "}"
		}
		if strings.HasPrefix(value, "{") && d.Before != nil && strings.HasPrefix(string(d.Before), "{") {
			t.Fatalf("an object on both sides is one difference: %+v", d)
		}
		var err error
		if got, _, err = got.Merge(patch(t, text), noon, Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	sameJSON(t, "the differences applied", plain(got), plain(b))
}

func FuzzMerge(f *testing.F) {
	f.Add([]byte(`{"a":{"b":1},"c":[1]}`), []byte(`{"a":{"b":null},"c":{"d":{}}}`))
	f.Add([]byte(`{"a":1}`), []byte(`{"$version":2,"a":{"$metadata":{}}}`))
	f.Add([]byte(`{"a":"x"}`), []byte(`{"a":{"b":{"c":{"d":[[1]]}}}}`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		p, err := ParsePatch(first, 4096)
		if err != nil {
			return
		}
		q, err := ParsePatch(second, 4096)
		if err != nil {
			return
		}
		before, _, err := New(Desired).Merge(p, noon, azure)
		if err != nil {
			invalid(t, err)
			return
		}
		for _, write := range []func(Patch, time.Time, Limits) (*Section, Change, error){before.Merge, before.Replace} {
			after, c, err := write(q, noon, azure)
			if err != nil {
				invalid(t, err)
				return
			}
			checkCodec(t, after)
			checkDiff(t, before, after)
			undo := patch(t, string(c.Undo.JSON(nil)))
			sameJSON(t, "undone", plain(after.Apply(undo)), plain(before))
			copied, _, err := before.Merge(patch(t, string(c.Forward.JSON(nil))), noon, azure)
			if err != nil {
				t.Fatalf("its own change is refused: %v", err)
			}
			sameJSON(t, "a device's copy", plain(copied), plain(after))
		}
	})
}
