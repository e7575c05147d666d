package twin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

var (
	noon  = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	azure = Limits{
		MaxBytes: 32 << 10, MaxDepth: 10, MaxKeyBytes: 1024, MaxStringBytes: 4096,
		MinInteger: -4503599627370496, MaxInteger: 4503599627370495,
	}
)

func patch(t testing.TB, text string) Patch {
	t.Helper()
	p, err := ParsePatch([]byte(text), 0)
	if err != nil {
		t.Fatalf("ParsePatch(%.200s): %v", text, err)
	}
	return p
}

// section makes one by merging text into an empty section at noon.
func section(t testing.TB, k Kind, text string) *Section {
	t.Helper()
	s, _, err := New(k).Merge(patch(t, text), noon, Limits{})
	if err != nil {
		t.Fatalf("Merge(%.200s): %v", text, err)
	}
	return s
}

// plain is the section's content alone.
func plain(s *Section) string {
	return string(s.root.appendJSON(nil))
}

func same(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

// sameJSON compares without regard to the order of members.
func sameJSON(t testing.TB, what, got, want string) {
	t.Helper()
	if !reflect.DeepEqual(loose(t, got), loose(t, want)) {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

func loose(t testing.TB, text string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber() // numbers compare by their text
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("not JSON: %v: %.200s", err, text)
	}
	return v
}

func invalid(t testing.TB, err error) *InvalidError {
	t.Helper()
	e, ok := errors.AsType[*InvalidError](err)
	if !ok {
		t.Fatalf("got error %v, want an *InvalidError", err)
	}
	if e.Reason == "" || e.Expected == "" || len(e.Error()) > 1500 {
		t.Errorf("the error lacks what was found or expected, or is long: %q", e.Error())
	}
	return e
}

// mergeReference is RFC 7396 written over generic values.
func mergeReference(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	result := map[string]any{}
	if old, ok := target.(map[string]any); ok {
		maps.Copy(result, old)
	}
	for k, v := range p {
		if v == nil {
			delete(result, k)
		} else {
			result[k] = mergeReference(result[k], v)
		}
	}
	return result
}

// randomJSON writes a random object whose keys collide often with others'.
func randomJSON(r *rand.Rand, depth int, nulls bool) string {
	var b bytes.Buffer
	b.WriteByte('{')
	keys := r.Perm(6)[:r.IntN(6)]
	for i, k := range keys {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:", []string{"a", "b", "c", "", "é", "long key"[:4]}[k])
		switch n := r.IntN(9); {
		case n < 3 && depth > 0:
			b.WriteString(randomJSON(r, depth-1, nulls))
		case n < 5 && nulls:
			b.WriteString("null")
		case n == 5:
			b.WriteString([]string{`[]`, `[1,{"x":[true]}]`, `["a","b"]`}[r.IntN(3)])
		case n == 6:
			b.WriteString([]string{`"x"`, `""`, `"\u0001é\n\"\\"`}[r.IntN(3)])
		case n == 7:
			b.WriteString([]string{"true", "false"}[r.IntN(2)])
		default:
			b.WriteString([]string{"1", "1.0", "-0", "2e3", "4503599627370495"}[r.IntN(5)])
		}
	}
	b.WriteByte('}')
	return b.String()
}

// fleetTwin is a section of about 955 bytes of JSON with twenty properties,
// the size that the hub's measurements use.
func fleetTwin(t testing.TB, k Kind) *Section {
	t.Helper()
	var b strings.Builder
	b.WriteString(`{"firmware":{"version":"3.14.15","build":"a1b2c3d4e5f6","channel":"stable","installedAt":"2026-02-03T04:05:06Z","next":{"version":"3.15.0","state":"pending"}},`)
	b.WriteString(`"network":{"kind":"lte","operator":"Example Mobile","signal":-87,"addresses":["10.0.0.7","fe80::1"]},"battery":{"percent":83.5,"charging":false,"cycles":211}`)
	for i := range 9 {
		fmt.Fprintf(&b, `,"setting%02d":{"value":%d,"unit":"seconds","source":"default profile %d"}`, i, i*37, i)
	}
	b.WriteString(`,"note":"the quick brown fox"}`)
	s := section(t, k, b.String())
	for i := range 5 { // metadata of several ages, as in life
		var err error
		s, _, err = s.Merge(patch(t, fmt.Sprintf(`{"battery":{"percent":%d.5}}`, i)), noon.Add(time.Duration(i)*time.Minute), azure)
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}
