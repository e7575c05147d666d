package twin

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math"
	"testing"
	"time"
)

func checkCodec(t testing.TB, s *Section) {
	t.Helper()
	b := Encode(nil, s)
	got, err := Decode(b)
	if err != nil {
		t.Fatalf("%v in %x", err, b)
	}
	same(t, "decoded", string(got.JSON(nil, true)), string(s.JSON(nil, true)))
	if got.Kind() != s.Kind() || got.Version() != s.Version() || got.Bytes() != s.Bytes() {
		t.Errorf("got %v %d %d, want %v %d %d", got.Kind(), got.Version(), got.Bytes(), s.Kind(), s.Version(), s.Bytes())
	}
	same(t, "encoded again", string(Encode(nil, got)), string(b))
}

func TestCodec(t *testing.T) {
	for _, k := range []Kind{Tags, Desired, Reported} {
		checkCodec(t, New(k))
		checkCodec(t, New(k).WithVersion(math.MaxInt64))
		checkCodec(t, section(t, k, `{"a":null,"b":{},"c":[],"d":[[],{}],"":"","e":true,"f":false,"g":-1.50,"h":"0123456789012345678901234567890123456789"}`))
		checkCodec(t, fleetTwin(t, k))
	}
	back, _, err := section(t, Desired, `{"a":1}`).Merge(patch(t, `{"b":1}`), noon.Add(-24*time.Hour), azure)
	if err != nil {
		t.Fatal(err)
	}
	checkCodec(t, back) // a clock that went back: stamps fall and rise
	checkCodec(t, back.WithVersion(1))
}

// The stored form is read for ever: format 1 must stay what it is.
func TestCodecGolden(t *testing.T) {
	s := section(t, Desired, `{"a":{"b":[1,true]},"c":"xyz"}`)
	s, _, err := s.Merge(patch(t, `{"c":"xy"}`), noon.Add(time.Microsecond), azure)
	if err != nil {
		t.Fatal(err)
	}
	const golden = "0102031105" + "16" + "0161" + "0e" + "0162" + "15" + "0b31" + "02" + "0163" + "147879" +
		"9480cbfcb1f9bcde11" + "13" + "00" + "14" + "06" + "01" + "00" + "02"
	got := hex.EncodeToString(Encode(nil, s))
	same(t, "encoded", got, golden)
	b, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	old, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "decoded", string(old.JSON(nil, true)), string(s.JSON(nil, true)))
}

func TestDecodeRefuses(t *testing.T) {
	good := Encode(nil, fleetTwin(t, Desired))
	for n := range good {
		if _, err := Decode(good[:n]); err == nil {
			t.Fatalf("accepted the first %d of %d bytes", n, len(good))
		}
	}
	if _, err := Decode(append(good, 0)); err == nil {
		t.Error("accepted a byte too many")
	}
	for name, text := range map[string]string{
		"format":               "02010100000600",
		"kind 0":               "01000100000600",
		"kind 4":               "01040100000600",
		"root array":           "010101000005",
		"root string":          "010101000004",
		"null inside":          "0101010001" + "0e" + "0161" + "00",
		"gone inside":          "0101010001" + "0e" + "0161" + "07",
		"sized true":           "0101010401" + "0e" + "0161" + "0a",
		"bad number":           "0101010801" + "0e" + "0161" + "0b2d",
		"bad text":             "0101010101" + "0e" + "0161" + "0cff",
		"bad key":              "0101010501" + "0e" + "01ff" + "02",
		"huge count":           "01010100ffffffffffffffff7f06",
		"overlong integer":     "0101ffffffffffffffffffff0100" + "0006",
		"long form of zero":    "0101818000" + "000006",
		"huge string":          "0101010001" + "0e" + "0161" + "fcffffffffffffffffff01",
		"negative version":     "0101ffffffffffffffffff01" + "000006",
		"members left over":    "010101000106",
		"time before year 1":   "0103010000" + "06" + "01",
		"year 10000":           "0103010000" + "06" + "feffffffffffffff7f",
		"negative stamp":       "0102010000" + "06" + "00" + "01",
		"time wraps":           "0103010001" + "0e" + "0161" + "02" + "02" + "feffffffffffffffff01",
		"string longer":        "0101010101" + "0e" + "0161" + "2c61",
		"more members than is": "0101010001" + "1e" + "0161" + "02",
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(name, err)
		}
		if s, err := Decode(b); err == nil {
			t.Errorf("%s: accepted as %s", name, s.JSON(nil, true))
		}
	}
}

func TestDecodeDeep(t *testing.T) {
	b := []byte{codecFormat, byte(Tags), 1, 0, 200, byte(kindObject) | 1<<kindBits}
	for range 100 {
		b = append(b, 0, byte(kindObject)|1<<kindBits)
	}
	if _, err := Decode(b); err == nil {
		t.Error("accepted a hundred levels")
	}
}

func FuzzDecode(f *testing.F) {
	for _, k := range []Kind{Tags, Desired, Reported} {
		f.Add(Encode(nil, New(k)))
		f.Add(Encode(nil, fleetTwin(f, k)))
		f.Add(Encode(nil, section(f, k, `{"a":[1,{"b":"x"}],"c":{"d":{}},"e":true}`)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil {
			return
		}
		if text := s.JSON(nil, true); !json.Valid(text) {
			t.Fatalf("decoded to what is not JSON: %q", text)
		}
		checkCodec(t, s)
		if again := Encode(nil, s); !bytes.Equal(again, b) {
			t.Fatalf("two stored forms of one section: %x and %x", b, again)
		}
	})
}

func TestAllocations(t *testing.T) {
	s := fleetTwin(t, Reported)
	b := Encode(nil, s)
	buf := make([]byte, 0, 2*len(b))
	if n := testing.AllocsPerRun(100, func() { Encode(buf, s) }); n > 0 {
		t.Errorf("Encode allocates %v times, want none", n)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = Decode(b) }); n > 3 {
		t.Errorf("Decode allocates %v times, want at most 3: section, text, members", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	data := Encode(nil, fleetTwin(b, Reported))
	b.ReportMetric(float64(len(data)), "bytes")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	s := fleetTwin(b, Reported)
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = Encode(buf[:0], s)
	}
}

func BenchmarkMerge(b *testing.B) {
	s := fleetTwin(b, Reported)
	p := patch(b, `{"battery":{"percent":81.5,"charging":true},"network":{"signal":-90}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.Merge(p, noon, azure); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParsePatch(b *testing.B) {
	data := fleetTwin(b, Reported).JSON(nil, false)
	b.ReportMetric(float64(len(data)), "bytes")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParsePatch(data, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJSON(b *testing.B) {
	s := fleetTwin(b, Desired)
	buf := make([]byte, 0, 16<<10)
	b.ReportAllocs()
	for b.Loop() {
		buf = s.JSON(buf[:0], true)
	}
}
