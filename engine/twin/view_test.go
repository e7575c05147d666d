package twin

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
)

// plainView is what a View shows, as JSON.
func plainView(v View) any {
	switch v.Form() {
	case 't', 'f':
		return v.Form() == 't'
	case '0':
		return json.Number(v.Text())
	case '"':
		return v.Text()
	case '[':
		list := []any{}
		for i := range v.Len() {
			_, e := v.At(i)
			list = append(list, plainView(e))
		}
		return list
	case '{':
		m := map[string]any{}
		for i := range v.Len() {
			key, e := v.At(i)
			m[key] = plainView(e)
		}
		return m
	}
	return nil
}

// What Compare tells turns the section before into the one after.
func TestCompareTellsAll(t *testing.T) {
	told, unchanged := 0, 0
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 17))
		s := New([]Kind{Tags, Desired, Reported}[seed%3])
		model := map[string]any{}
		for range 8 {
			text := randomJSON(r, 3, true)
			write := s.Merge
			if r.IntN(4) == 0 {
				write = s.Replace
			}
			next, _, err := write(patch(t, text), noon, azure)
			if err != nil {
				t.Fatal(err)
			}
			before := plain(s)
			if r.IntN(3) == 0 { // nothing is shared with what was read from the store
				if s, err = Decode(Encode(nil, s)); err != nil {
					t.Fatal(err)
				}
			}
			n := 0
			Compare(s, next, func(path []string, v View, ok bool) {
				n++
				at := model
				for _, key := range path[:len(path)-1] {
					sub, isObject := at[key].(map[string]any)
					if !isObject {
						t.Fatalf("%v: %q is no object before the change", path, key)
					}
					at = sub
				}
				if key := path[len(path)-1]; ok {
					at[key] = plainView(v)
				} else {
					delete(at, key)
				}
			})
			got, err := json.Marshal(model)
			if err != nil {
				t.Fatal(err)
			}
			sameJSON(t, text+" after "+before, string(got), plain(next))
			if before == plain(next) {
				unchanged++
				if n > 0 {
					t.Errorf("%s changes nothing in %s, and %d places are told", text, before, n)
				}
			}
			told += n
			s = next
		}
	}
	t.Logf("%d places, %d changes of nothing", told, unchanged)
}

// BenchmarkCompare finds one property among twenty.
func BenchmarkCompare(b *testing.B) {
	var text strings.Builder
	text.WriteString(`{"a":1`)
	for i := range 20 {
		text.WriteString(`,"property` + string(rune('a'+i)) + `":"value"`)
	}
	s := section(b, Reported, text.String()+"}")
	next, _, err := s.Merge(patch(b, `{"propertyj":"other"}`), noon, azure)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		Compare(s, next, func([]string, View, bool) {})
	}
}
