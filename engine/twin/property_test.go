package twin

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// stamps is the reference for $metadata: a tree of its own, changed by rules
// written down a second time and in another way than in the package.
type stamps struct {
	at       string
	version  int64
	children map[string]*stamps // nil for leaves
}

func (s *stamps) stamp(at string, version int64) { s.at, s.version = at, version }

func (s *stamps) merge(content, patch map[string]any, at string, version int64) {
	s.stamp(at, version)
	if s.children == nil {
		s.children = map[string]*stamps{}
	}
	for k, v := range patch {
		if v == nil {
			delete(s.children, k)
			continue
		}
		p, isObject := v.(map[string]any)
		old, hadObject := content[k].(map[string]any)
		if !isObject || !hadObject {
			s.children[k], old = &stamps{}, nil
		}
		if isObject {
			s.children[k].merge(old, p, at, version)
		} else {
			s.children[k].stamp(at, version)
		}
	}
}

func (s *stamps) want(versions bool) map[string]any {
	m := map[string]any{"$lastUpdated": s.at}
	if versions && s.version > 0 {
		m["$lastUpdatedVersion"] = json.Number(fmt.Sprint(s.version))
	}
	for k, c := range s.children {
		m[k] = c.want(versions)
	}
	return m
}

func TestMetadataAgainstReference(t *testing.T) {
	for seed := range uint64(300) {
		k := []Kind{Desired, Reported}[seed%2]
		r := rand.New(rand.NewPCG(seed, 11))
		s := New(k)
		ref := &stamps{at: "0001-01-01T00:00:00Z"}
		for i := range 8 {
			text := randomJSON(r, 3, true)
			now := noon.Add(time.Duration(i) * 1234567 * time.Microsecond)
			at := now.Format("2006-01-02T15:04:05.9999999Z")
			content, isObject := loose(t, plain(s)).(map[string]any)
			change, isChange := loose(t, text).(map[string]any)
			if !isObject || !isChange {
				t.Fatal("no objects")
			}
			write := s.Merge
			if r.IntN(5) == 0 {
				write, ref, content = s.Replace, &stamps{}, nil
			}
			next, _, err := write(patch(t, text), now, azure)
			if err != nil {
				t.Fatal(err)
			}
			ref.merge(content, change, at, next.Version())
			s = next
			if r.IntN(2) == 0 { // the stamps live in the stored form too
				if s, err = Decode(Encode(nil, s)); err != nil {
					t.Fatal(err)
				}
			}
			whole, isObject := loose(t, string(s.JSON(nil, true))).(map[string]any)
			if want := ref.want(k == Desired); !isObject || !reflect.DeepEqual(whole["$metadata"], want) {
				t.Fatalf("seed %d step %d, %s:\n got %v\nwant %v", seed, i, text, whole["$metadata"], want)
			}
		}
	}
}

// Sections share what did not change, so that a change of one would show in
// another. None may ever show.
func TestSectionsNeverChange(t *testing.T) {
	type witness struct {
		s    *Section
		text string
	}
	type spoken struct {
		p    Patch
		text string
	}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 13))
		var seen []witness
		var said []spoken
		pool := []*Section{New(Desired)}
		for i := range 40 {
			s := pool[r.IntN(len(pool))]
			p := patch(t, randomJSON(r, 3, true))
			write := s.Merge
			if r.IntN(4) == 0 {
				write = s.Replace
			}
			next, c, err := write(p, noon.Add(time.Duration(i)*time.Second), azure)
			if err != nil {
				t.Fatal(err)
			}
			for _, q := range []Patch{p, c.Forward, c.Undo} {
				said = append(said, spoken{q, string(q.JSON(nil))})
			}
			pool = append(pool, next, next.Apply(c.Undo), s.Apply(c.Forward))
			// Patches that share nodes with sections go on into other sections.
			again, _, err := pool[r.IntN(len(pool))].Merge(c.Undo, noon, azure)
			if err != nil {
				t.Fatal(err)
			}
			pool = append(pool, again)
			for _, s := range pool[len(pool)-4:] {
				seen = append(seen, witness{s, string(s.JSON(nil, true))})
			}
		}
		for _, w := range seen {
			if got := string(w.s.JSON(nil, true)); got != w.text {
				t.Fatalf("seed %d: a section changed:\n was %s\n now %s", seed, w.text, got)
			}
		}
		for _, w := range said {
			if got := string(w.p.JSON(nil)); got != w.text {
				t.Fatalf("seed %d: a patch changed:\n was %s\n now %s", seed, w.text, got)
			}
		}
	}
}

// The race detector watches many goroutines use one section and one patch.
func TestConcurrentUse(t *testing.T) {
	s := fleetTwin(t, Desired)
	p := patch(t, `{"battery":{"percent":1,"$version":3},"network":null,"new":{"a":[1]}}`)
	want := ""
	var wg sync.WaitGroup
	results := make([]string, 8)
	for i := range results {
		wg.Go(func() {
			next, c, err := s.Merge(p, noon, azure)
			if err != nil {
				t.Error(err)
				return
			}
			back, err := Decode(Encode(nil, next.Apply(c.Undo)))
			if err != nil || len(Diff(s, back)) != 0 {
				t.Errorf("%v, %v", err, Diff(s, back))
			}
			results[i] = string(next.JSON(nil, true)) + string(c.Forward.JSONWithVersion(nil, next.Version()))
		})
	}
	wg.Wait()
	for _, r := range results {
		if want == "" {
			want = r
		}
		same(t, "result", r, want)
	}
}

// What a change does not touch is shared, not copied.
func TestStructuralSharing(t *testing.T) {
	s := fleetTwin(t, Reported)
	next, _, err := s.Merge(patch(t, `{"battery":{"percent":1}}`), noon, azure)
	if err != nil {
		t.Fatal(err)
	}
	shared := 0
	for i, m := range s.root.members {
		n := next.root.members[i]
		if m.key != n.key {
			t.Fatalf("the order changed: %s, %s", m.key, n.key)
		}
		if m.key != "battery" && len(m.value.members) > 0 {
			if &m.value.members[0] != &n.value.members[0] {
				t.Errorf("%s was copied", m.key)
			}
			shared++
		}
	}
	if shared < 10 {
		t.Errorf("only %d objects to share", shared)
	}
}

func TestNumbersAgainstEncodingJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 17))
	const letters = "0019.-+eE"
	for range 50_000 {
		b := make([]byte, 1+r.IntN(7))
		for i := range b {
			b[i] = letters[r.IntN(len(letters))]
		}
		s := string(b)
		var f float64
		want := json.Unmarshal(b, &f) == nil
		if got := numberFault(s) == ""; got != want {
			t.Fatalf("%s: got %v, want %v", s, got, want)
		}
		if got := patchAccepts(s); got != want {
			t.Fatalf("%s in a patch: got %v, want %v", s, got, want)
		}
	}
}

func patchAccepts(value string) bool {
	_, err := ParsePatch([]byte(`{"a":`+value+`}`), 0)
	return err == nil
}

func TestStringsAgainstEncodingJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 19))
	pieces := []string{
		"a", "é", "\u0085", "\u2028", "😀", "\x7f", `\n`, `\\`, `\"`, `\/`, `\u0000`, `\u00e9`, `\ud83d\ude00`, `\uD83D\uDE00`,
		`\u`, `\u12`, `\x`, "\n", "\x00", `"`, `\ufffd`, "\ufffd",
	}
	for range 50_000 {
		var b strings.Builder
		b.WriteByte('"')
		for range r.IntN(6) {
			b.WriteString(pieces[r.IntN(len(pieces))])
		}
		b.WriteByte('"')
		text := `{"a":` + b.String() + `}`
		var want map[string]string
		err := json.Unmarshal([]byte(text), &want)
		p, got := ParsePatch([]byte(text), 0)
		if (err == nil) != (got == nil) {
			t.Fatalf("%s: encoding/json says %v, this says %v", text, err, got)
		}
		if err == nil && p.root.members[0].value.text != want["a"] {
			t.Fatalf("%s: got %q, want %q", text, p.root.members[0].value.text, want["a"])
		}
	}
}

// Every path of a change leads to where the section before and after differ,
// unless the same value was written again.
func TestPaths(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 23))
		before := section(t, Reported, randomJSON(r, 3, false))
		after, c, err := before.Merge(patch(t, randomJSON(r, 3, true)), noon, azure)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range Diff(before, after) {
			covered := false
			for _, p := range c.Paths {
				covered = covered || p == d.Path || strings.HasPrefix(d.Path, p+".") || strings.HasPrefix(p, d.Path+".")
			}
			if !covered {
				t.Errorf("seed %d: %s differs and is not among %q", seed, d.Path, c.Paths)
			}
		}
	}
	var b strings.Builder
	for i := range 500 {
		fmt.Fprintf(&b, `,"k%d":1`, i)
	}
	_, c, err := New(Tags).Merge(patch(t, "{"+b.String()[1:]+"}"), noon, azure)
	if err != nil || len(c.Paths) != maxPaths || c.Paths[99] != "k99" {
		t.Errorf("got %d paths, %v", len(c.Paths), err)
	}
	if c.Undo.Len() != 500 {
		t.Errorf("the undo has %d members, want 500", c.Undo.Len())
	}
}

func TestLimitTexts(t *testing.T) {
	l := Limits{MaxBytes: 10, MaxDepth: 1, MaxKeyBytes: 3, MaxStringBytes: 4, MinInteger: -5, MaxInteger: 5}
	for in, want := range map[string]string{
		`{"abcd":1}`:           `reported: found the key "abcd" of 4 bytes; expected at most 3`,
		`{"a":{"b c":1}}`:      `reported.a: found the key "b c"; expected a key without '.', '$', '#', space and control characters`,
		`{"a":"12345"}`:        `reported.a: found a string of 5 bytes; expected at most 4`,
		`{"a":6}`:              `reported.a: found the integer 6; expected one from -5 to 5`,
		`{"a":{"b":{}}}`:       `reported.a.b: found more than 1 nested objects and arrays; expected a flatter document`,
		`{"a":[null]}`:         `reported.a: found null in an array; expected a string, number, boolean, object or array`,
		`{"a":"1234","b":1.5}`: `reported: found 14 bytes after the change; expected at most 10, counting keys and strings in UTF-8, numbers as 8, booleans as 4`,
	} {
		_, _, err := New(Reported).Merge(patch(t, in), noon, l)
		same(t, in, invalid(t, err).Error(), want)
	}
	if _, _, err := New(Reported).Merge(patch(t, `{"a":-5}`), noon, l); err != nil {
		t.Error(err)
	}
	positive := Limits{MaxInteger: 5}
	_, _, err := New(Reported).Merge(patch(t, `{"a":-1}`), noon, positive)
	same(t, "one bound", invalid(t, err).Error(), `reported.a: found the integer -1; expected one from 0 to 5`)
}

func TestKindString(t *testing.T) {
	same(t, "kinds", fmt.Sprint(Tags, Desired, Reported, Kind(0), Kind(9)), "tags desired reported section section")
}

func BenchmarkMergeLarge(b *testing.B) { // a section at the default limit of 256 KiB
	var text strings.Builder
	for i := range 12_000 {
		fmt.Fprintf(&text, `,"key%05d":%d`, i, i)
	}
	s := section(b, Reported, "{"+text.String()[1:]+"}")
	p := patch(b, `{"key11999":1}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.Merge(p, noon, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
