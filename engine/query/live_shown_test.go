package query

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestLiveShownIsBounded: events of a query of which little comes, kept among those
// of one of which much comes and goes, are still what they were, and hold no more
// memory than they count for. A row that is large stands alone.
func TestLiveShownIsBounded(t *testing.T) {
	l := NewLive(NewColumns(ColumnOptions{ID: Path{"deviceId"}}), LiveOptions{
		Queries: 2, Bytes: 8 << 20, Linger: time.Minute, Instance: "i",
		Text: func(b []byte, id string, position uint64, _ time.Time, row LiveRowText) []byte {
			return fmt.Appendf(b, "%s at %d, %t: ", id, position, row == WholeRow)
		},
	})
	now, large := time.Unix(1000, 0), strings.Repeat("x", 2*largeText)
	set := func(key string, v Value) {
		l.Apply(l.position+1, now, []Change{{ID: "d", Fields: []Field{{Path{"properties", "reported", key}, v}}}})
	}
	open := func(key string) *LiveReader {
		q, err := Parse("SELECT reported."+key+" FROM devices", Options{})
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Open(q, "")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	read := func(r *LiveReader, see func(e *LiveEvent)) {
		for {
			list, more, err := r.Next(100, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(list) == 0 && more != l.ready {
				return
			}
			for i := range list {
				see(&list[i])
			}
		}
	}
	none := func(*LiveEvent) {}
	set("few", NumberValue(0))
	set("many", NumberValue(0))
	few, many := open("few"), open("many")
	read(few, none)
	read(many, none)
	const each, rounds = 500, 400 // a chunk of texts holds fewer than each
	most := int64(0)
	positions := map[int]uint64{}
	for i := 1; i <= each*rounds; i++ {
		set("many", NumberValue(float64(i)))
		if i%each == 0 {
			set("few", NumberValue(float64(i)))
			positions[i] = l.position
			if i%(50*each) == 0 {
				set("few", StringValue(large))
			}
			// The ring of many has reached its share, and its oldest events go.
			most = max(most, l.shown.texts.size()-int64(l.shown.bytes))
		}
	}
	if most > shownSlack+compactions*chunkMost {
		t.Errorf("texts took %d bytes more than they count for", most)
	}
	if l.shown.bytes > l.room() {
		t.Errorf("%d bytes of events, at most %d", l.shown.bytes, l.room())
	}
	next := each
	read(few, func(e *LiveEvent) {
		switch {
		case e.Row() == `{"few":"`+large+`"}`:
		case e.Kind != LiveChange || e.ID() != "d" || e.Row() != `{"few":`+strconv.Itoa(next)+`}` || e.Position != positions[next] ||
			e.Text() != fmt.Sprintf("d at %d, true: ", positions[next])+e.Row() || !e.Time().Equal(now):
			t.Fatalf("%s of %s at %d: %s, want %d", e.Kind, e.ID(), e.Position, e.Text(), next)
		default:
			next += each
		}
	})
	if next != each*(rounds+1) {
		t.Errorf("the last event is %d of %d", next/each, rounds)
	}
	few.Close()
	many.Close()
	l.Tell(now.Add(time.Hour))
	if l.shown.used != 0 || l.shown.bytes != 0 || l.shown.texts.size() != 0 {
		t.Errorf("%d records, %d bytes, %d of texts are left of queries that are gone", l.shown.used, l.shown.bytes, l.shown.texts.size())
	}
}
