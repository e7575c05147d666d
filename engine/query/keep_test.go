package query

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// restart gives the rows to new columns, as a hub does that was stopped and started.
func (f *fleet) restart(t testing.TB) error {
	t.Helper()
	var b bytes.Buffer
	if err := f.columns.Keep(&b); err != nil {
		return err
	}
	b.WriteString("behind")
	next := NewColumns(f.columns.options)
	if err := next.Restore(&b); err != nil {
		t.Fatal(err)
	}
	if b.String() != "behind" {
		t.Fatalf("Restore left %q", b.String())
	}
	f.columns = next
	return nil
}

func TestKeepKeepsAll(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	f := newFleet(ColumnOptions{})
	var changes []Change
	for range 3000 {
		changes = append(changes, randomChange(r, 2000))
	}
	f.apply(changes...)
	before := f.columns.Stats()
	if err := f.restart(t); err != nil {
		t.Fatal(err)
	}
	after := f.columns.Stats()
	if before.Rows != after.Rows || before.Columns != after.Columns || after.Rows == 0 {
		t.Fatalf("%+v, before %+v", after, before)
	}
	f.check(t)
	f.columns.checkCounts(t)
	// What comes afterwards is taken as if nothing had been.
	for round := range 20 {
		changes = nil
		for range 300 {
			changes = append(changes, randomChange(r, 2000+round*100))
		}
		f.apply(changes...)
		f.check(t)
		f.columns.checkCounts(t)
	}
}

func TestKeepNothingPartial(t *testing.T) {
	f := newFleet(ColumnOptions{MaxColumns: 2})
	for i := range 5 {
		f.apply(Change{ID: "d", Fields: []Field{{Path{"tags", fmt.Sprint("t", i)}, NumberValue(1)}}})
	}
	if err := f.restart(t); !errors.Is(err, ErrPartial) {
		t.Fatal(err)
	}
	f = newFleet(ColumnOptions{})
	b := f.columns.Build()
	if err := f.restart(t); !errors.Is(err, ErrPartial) {
		t.Fatal("while rows are loaded:", err)
	}
	b.Done()
}

// keptFleet is a small fleet with cells of every form, as Keep writes it.
func keptFleet(t testing.TB) (*fleet, []byte) {
	f := newFleet(ColumnOptions{})
	for i := range 1200 {
		f.apply(Change{ID: fmt.Sprintf("d%04d", i), Noted: true, Note: uint32(i), Fields: []Field{
			{Path{"tags"}, ObjectValue([]Member{{"site", StringValue(fmt.Sprint("s", i%3))}, {"serial", StringValue(fmt.Sprint(i))}})},
			{Path{"properties", "reported", "t"}, NumberValue(float64(i) / 3)},
			{Path{"properties", "reported", "list"}, ArrayValue([]Value{NumberValue(float64(i % 5)), NullValue()})},
			{Path{"properties", "reported", "on"}, BoolValue(i%2 == 0)},
		}})
	}
	f.apply(Change{ID: "d0007", Gone: true})
	var b bytes.Buffer
	if err := f.columns.Keep(&b); err != nil {
		t.Fatal(err)
	}
	return f, b.Bytes()
}

func TestRestoreRefusesHalves(t *testing.T) {
	f, kept := keptFleet(t)
	query := "SELECT COUNT() AS n FROM devices WHERE tags.site = 's1' AND properties.reported.t > 100"
	want, _ := f.all(t, query, 10)
	for n := 0; n < len(kept); n += 1 + n/50 {
		if err := f.columns.Restore(bytes.NewReader(kept[:n])); err == nil {
			t.Fatalf("took %d bytes of %d", n, len(kept))
		}
	}
	if got, _ := f.all(t, query, 10); !slices.Equal(got, want) {
		t.Fatalf("a restore that failed changed rows: %s, want %s", got, want)
	}
}

func TestRestoreRefusesWhatTakesTooMuch(t *testing.T) {
	_, kept := keptFleet(t)
	if err := newFleet(ColumnOptions{Memory: 4 << 10}).columns.Restore(bytes.NewReader(kept)); err == nil {
		t.Fatal("no error")
	}
}

// checkCounts counts what columns have counted.
func (c *Columns) checkCounts(t testing.TB) {
	t.Helper()
	s := c.store
	s.each(func(n *node) {
		counts, used, kinds := map[uint32]uint32{}, 0, [Object + 1]int{}
		for number, stripe := range n.column.stripes {
			if stripe == nil {
				continue
			}
			in := 0
			stripe.each(func(at uint32, x cell) {
				in++
				if !s.isAlive(uint32(number)<<stripeBits + at) {
					t.Fatalf("%q has a value for a row that is gone", n.path())
				}
				kind := Number
				if x.coded() {
					counts[x.code()]++
					kind = n.column.entries[x.code()].kind()
				}
				kinds[kind]++
			})
			if in != stripe.used {
				t.Fatalf("%q, stripe %d: %d rows, not %d", n.path(), number, in, stripe.used)
			}
			used += in
		}
		kinds[Undefined] = n.column.kinds[Undefined]
		if used != n.column.used || kinds != n.column.kinds {
			t.Fatalf("%q: %d rows of kinds %v, not %d of %v", n.path(), used, kinds, n.column.used, n.column.kinds)
		}
		live := 0
		for code, e := range n.column.entries {
			if e.count() != counts[uint32(code)] {
				t.Fatalf("%q: code %d is counted %d times, and there %d times", n.path(), code, e.count(), counts[uint32(code)])
			}
			if uint32(code) >= firstCode && e.count() > 0 {
				live++
				if got, ok := n.column.find(n.column.value(uint32(code))); !ok || got != uint32(code) {
					t.Fatalf("%q: code %d is not found by its value", n.path(), code)
				}
			}
		}
		if live != n.column.live {
			t.Fatalf("%q: %d values, not %d", n.path(), live, n.column.live)
		}
	})
}

// FuzzRestore: whatever is read, it is refused or is columns that answer.
func FuzzRestore(f *testing.F) {
	_, kept := keptFleet(f)
	f.Add(kept)
	small := newFleet(ColumnOptions{})
	small.apply(Change{ID: "a", Fields: []Field{{Path{"tags", "x"}, ArrayValue(nil)}, {Path{"tags", "y"}, NumberValue(2)}}}, Change{ID: "b"})
	var b bytes.Buffer
	if err := small.columns.Keep(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, kept []byte) {
		x := newFleet(ColumnOptions{})
		if x.columns.Restore(bytes.NewReader(kept)) != nil {
			return
		}
		x.columns.checkCounts(t)
		for _, text := range []string{
			"SELECT COUNT() AS n FROM devices WHERE tags.x = 's1' OR properties.reported.t > 100",
			"SELECT tags.site AS s, COUNT() AS n FROM devices GROUP BY tags.site",
			"SELECT deviceId, properties.reported.list AS l FROM devices",
		} {
			x.all(t, text, 1000)
		}
		x.columns.Apply([]Change{{ID: "a", Gone: true}, {ID: "d0001", Fields: []Field{{Path{"tags"}, NullValue()}}}, {ID: "new", Fields: []Field{{Path{"tags", "site"}, StringValue("s1")}}}})
		x.columns.Apply(nil)
	})
}
