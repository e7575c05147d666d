package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func unhexed(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// must returns what an Append function returned.
func must(t testing.TB) func([]byte, error) []byte {
	return func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

// TestGolden pins the bytes of each packet, and that decoding gives back what
// was encoded.
func TestGolden(t *testing.T) {
	ok := must(t)
	tests := map[string]struct {
		got  []byte
		want string
		p    Packet
	}{
		"connect": {
			ok(AppendConnect(nil, &Connect{ClientID: "d1", Username: "h/d1/", Password: "p", KeepAlive: 180})),
			"10 18 0004 4d515454 04 c0 00b4 0002 6431 0005 682f64312f 0001 70",
			Packet{Type: TypeConnect, Connect: &Connect{ClientID: "d1", Username: "h/d1/", Password: "p", KeepAlive: 180}},
		},
		"connect with will": {
			ok(AppendConnect(nil, &Connect{ClientID: "d", Clean: true, Will: &Will{Topic: "t", Payload: []byte("w"), QoS: 1, Retain: true}})),
			"10 13 0004 4d515454 04 2e 0000 0001 64 0001 74 0001 77",
			Packet{Type: TypeConnect, Connect: &Connect{ClientID: "d", Clean: true, Will: &Will{Topic: "t", Payload: []byte("w"), QoS: 1, Retain: true}}},
		},
		"connack":         {AppendConnack(nil, true, 0), "20 02 01 00", Packet{Type: TypeConnack, SessionPresent: true}},
		"connack refused": {AppendConnack(nil, false, 5), "20 02 00 05", Packet{Type: TypeConnack, Code: 5}},
		"publish":         {ok(AppendPublish(nil, Message{Topic: "a/b", Payload: []byte("x")})), "30 06 0003 612f62 78", Packet{Type: TypePublish, Topic: "a/b", Payload: []byte("x")}},
		"publish at least once": {
			ok(AppendPublish(nil, Message{Topic: "a", QoS: 1, ID: 0x102, Dup: true, Retain: true})),
			"3b 05 0001 61 0102",
			Packet{Type: TypePublish, Topic: "a", Payload: []byte{}, QoS: 1, ID: 0x102, Dup: true, Retain: true},
		},
		"puback":      {AppendPuback(nil, 7), "40 02 0007", Packet{Type: TypePuback, ID: 7}},
		"puback of 0": {AppendPuback(nil, 0), "40 02 0000", Packet{Type: TypePuback}},
		"subscribe": {
			ok(AppendSubscribe(nil, 1, Filter{"a/#", 1}, Filter{"b", 0})),
			"82 0c 0001 0003 612f23 01 0001 62 00",
			Packet{Type: TypeSubscribe, ID: 1, Filters: []Filter{{"a/#", 1}, {"b", 0}}},
		},
		"suback":      {AppendSuback(nil, 1, 1, 0, SubackFailure), "90 05 0001 01 00 80", Packet{Type: TypeSuback, ID: 1, Codes: []byte{1, 0, 0x80}}},
		"unsubscribe": {ok(AppendUnsubscribe(nil, 2, Filter{Topic: "a"})), "a2 05 0002 0001 61", Packet{Type: TypeUnsubscribe, ID: 2, Filters: []Filter{{"a", 0}}}},
		"unsuback":    {AppendUnsuback(nil, 2), "b0 02 0002", Packet{Type: TypeUnsuback, ID: 2}},
		"pingreq":     {AppendPingreq(nil), "c0 00", Packet{Type: TypePingreq}},
		"pingresp":    {AppendPingresp(nil), "d0 00", Packet{Type: TypePingresp}},
		"disconnect":  {AppendDisconnect(nil), "e0 00", Packet{Type: TypeDisconnect}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if want := unhexed(t, test.want); !bytes.Equal(test.got, want) {
				t.Fatalf("encoded as %x, want %x", test.got, want)
			}
			var p Packet
			n, err := Decode(test.got, MaxConnect, &p)
			if err != nil || n != len(test.got) {
				t.Fatalf("Decode = %d, %v, want %d bytes", n, err, len(test.got))
			}
			if !reflect.DeepEqual(p, test.p) {
				t.Errorf("decoded as %+v, want %+v", p, test.p)
			}
			for i := range test.got { // each prefix is only incomplete
				if n, err := Decode(test.got[:i], MaxConnect, &p); n != 0 || err != nil {
					t.Fatalf("the first %d bytes: Decode = %d, %v, want incomplete", i, n, err)
				}
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	tests := map[string]struct {
		in   string
		want error
	}{
		"reserved type 0":             {"00 00", ErrMalformed},
		"reserved type 15":            {"f0 00", ErrMalformed},
		"QoS 3":                       {"36", ErrMalformed},
		"DUP at QoS 0":                {"38 03 0001 61", ErrMalformed},
		"PUBREL":                      {"62 02 0001", ErrUnsupported},
		"PUBREC":                      {"50 02 0001", ErrUnsupported},
		"flags of CONNECT":            {"11 00", ErrMalformed},
		"flags of SUBSCRIBE":          {"80 00", ErrMalformed},
		"flags of PINGREQ":            {"c1 00", ErrMalformed},
		"PINGREQ with a body":         {"c0 01 00", ErrMalformed},
		"five length bytes":           {"30 ff ff ff ff 01", ErrMalformed},
		"five length bytes, so far":   {"30 ff ff ff ff", ErrMalformed},
		"too large, header only":      {"30 ff ff 7f", ErrTooLarge},
		"CONNECT above 64 KiB":        {"10 81 80 04", ErrTooLarge},
		"PUBACK of three bytes":       {"40 03 000100", ErrMalformed},
		"PUBLISH without topic":       {"30 02 0000", ErrMalformed},
		"PUBLISH with empty topic":    {"30 03 0000 61", ErrMalformed},
		"PUBLISH with short topic":    {"30 03 0005 61", ErrMalformed},
		"PUBLISH with id 0":           {"32 05 0001 61 0000", ErrMalformed},
		"PUBLISH without its id":      {"32 03 0001 61", ErrMalformed},
		"topic with NUL":              {"30 03 0001 00", ErrMalformed},
		"topic not UTF-8":             {"30 03 0001 ff", ErrMalformed},
		"topic with surrogate":        {"30 05 0003 eda080", ErrMalformed},
		"SUBSCRIBE with id 0":         {"82 06 0000 0001 61 00", ErrMalformed},
		"SUBSCRIBE with empty filter": {"82 06 0001 0000 00 61", ErrMalformed},
		"SUBSCRIBE with QoS 3":        {"82 06 0001 0001 61 03", ErrMalformed},
		"SUBSCRIBE with QoS bits":     {"82 06 0001 0001 61 41", ErrMalformed},
		"SUBSCRIBE without QoS":       {"82 06 0001 0002 6162", ErrMalformed},
		"UNSUBSCRIBE cut short":       {"a2 05 0001 0002 61", ErrMalformed},
		"SUBACK with code 3":          {"90 03 0001 03", ErrMalformed},
		"CONNACK flags":               {"20 02 02 00", ErrMalformed},
		"CONNECT of another protocol": {"10 0c 0004 4d515458 04 02 0000 0000", ErrMalformed},
		"CONNECT of MQTT 5":           {"10 0d 0004 4d515454 05 02 0000 00 0000", ErrProtocolLevel},
		"CONNECT of MQTT 3.1":         {"10 0e 0006 4d5149736470 03 02 0000 0000", ErrProtocolLevel},
		"CONNECT of level 132":        {"10 0c 0004 4d515454 84 02 0000 0000", ErrProtocolLevel},
		"CONNECT reserved flag":       {"10 0c 0004 4d515454 04 03 0000 0000", ErrMalformed},
		"CONNECT will QoS, no will":   {"10 0c 0004 4d515454 04 0a 0000 0000", ErrMalformed},
		"CONNECT will retain no will": {"10 0c 0004 4d515454 04 22 0000 0000", ErrMalformed},
		"CONNECT will QoS 3":          {"10 12 0004 4d515454 04 1e 0000 0000 0001 61 0001 61", ErrMalformed},
		"CONNECT will without topic":  {"10 10 0004 4d515454 04 06 0000 0000 0000 0000", ErrMalformed},
		"CONNECT password, no user":   {"10 0f 0004 4d515454 04 42 0000 0000 0001 61", ErrMalformed},
		"CONNECT trailing byte":       {"10 0d 0004 4d515454 04 02 0000 0000 00", ErrMalformed},
		"CONNECT user not UTF-8":      {"10 0f 0004 4d515454 04 82 0000 0000 0001 ff", ErrMalformed},
		"CONNECT client id not UTF-8": {"10 0d 0004 4d515454 04 02 0000 0001 ff", ErrMalformed},
		"CONNECT client id with NUL":  {"10 0d 0004 4d515454 04 02 0000 0001 00", ErrMalformed},
		"CONNECT short":               {"10 0c 0004 4d515454 04 82 0000 0000", ErrMalformed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var p Packet
			n, err := Decode(unhexed(t, test.in), 1<<20, &p)
			if !errors.Is(err, test.want) {
				t.Errorf("Decode = %d, %v, want %v", n, err, test.want)
			}
		})
	}
}

func TestDecodeBoundsFilters(t *testing.T) {
	filters := make([]Filter, MaxFilters)
	for i := range filters {
		filters[i].Topic = "t"
	}
	b := must(t)(AppendSubscribe(nil, 1, filters...))
	var p Packet
	if _, err := Decode(b, MaxConnect, &p); err != nil || len(p.Filters) != MaxFilters {
		t.Errorf("%d filters: %d decoded, %v", MaxFilters, len(p.Filters), err)
	}
	body := append(b[3:len(b):len(b)], 0, 1, 't', 0) // one more; the length takes two bytes
	more := append(appendHeader(nil, b[0], len(body)), body...)
	if _, err := Decode(more, MaxConnect, &p); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%d filters: %v, want ErrTooLarge", MaxFilters+1, err)
	}
}

// A topic with wildcard characters passes: SDKs send property bags unescaped.
func TestDecodeKeepsOddTopics(t *testing.T) {
	for _, topic := range []string{"devices/a+b#/messages/events/", "d/x=c/d+e&a b=#", "ü/\U0010ffff", strings.Repeat("t", MaxTopic)} {
		b := must(t)(AppendPublish(nil, Message{Topic: topic}))
		var p Packet
		if _, err := Decode(b, 1<<20, &p); err != nil || p.Topic != topic {
			t.Errorf("topic %.20q...: %v", topic, err)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	long := strings.Repeat("x", MaxTopic+1)
	tests := map[string]func() ([]byte, error){
		"long client id":        func() ([]byte, error) { return AppendConnect(nil, &Connect{ClientID: long}) },
		"long password":         func() ([]byte, error) { return AppendConnect(nil, &Connect{Username: "u", Password: long}) },
		"password without user": func() ([]byte, error) { return AppendConnect(nil, &Connect{Password: "p"}) },
		"user not UTF-8":        func() ([]byte, error) { return AppendConnect(nil, &Connect{Username: "\xff"}) },
		"long will": func() ([]byte, error) {
			return AppendConnect(nil, &Connect{Will: &Will{Topic: "t", Payload: []byte(long)}})
		},
		"will QoS":               func() ([]byte, error) { return AppendConnect(nil, &Connect{Will: &Will{Topic: "t", QoS: 3}}) },
		"empty topic":            func() ([]byte, error) { return AppendPublish(nil, Message{}) },
		"topic with NUL":         func() ([]byte, error) { return AppendPublish(nil, Message{Topic: "a\x00"}) },
		"long topic":             func() ([]byte, error) { return AppendPublish(nil, Message{Topic: long}) },
		"QoS 2":                  func() ([]byte, error) { return AppendPublish(nil, Message{Topic: "t", QoS: 2, ID: 1}) },
		"QoS 1 without id":       func() ([]byte, error) { return AppendPublish(nil, Message{Topic: "t", QoS: 1}) },
		"no filters":             func() ([]byte, error) { return AppendSubscribe(nil, 1) },
		"subscribe with id 0":    func() ([]byte, error) { return AppendSubscribe(nil, 0, Filter{Topic: "a"}) },
		"empty filter":           func() ([]byte, error) { return AppendUnsubscribe(nil, 1, Filter{}) },
		"filter with QoS 3":      func() ([]byte, error) { return AppendSubscribe(nil, 1, Filter{"a", 3}) },
		"filter that is no text": func() ([]byte, error) { return AppendSubscribe(nil, 1, Filter{"\xff", 0}) },
	}
	for name, f := range tests {
		if b, err := f(); err == nil || len(b) != 0 {
			t.Errorf("%s: %x, %v, want an error and nothing written", name, b, err)
		}
	}
}

// stream is a few packets of many sizes, as a device would send them.
func stream(t testing.TB) (b []byte, packets []Packet) {
	ok := must(t)
	b = ok(AppendConnect(nil, &Connect{ClientID: "d", Username: "h/d/", Password: strings.Repeat("p", 3000)}))
	for _, size := range []int{0, 1, 10, 200, 5000, 17_000, 70_000, 1} {
		b = AppendPingreq(b)
		b = ok(AppendPublish(b, Message{Topic: "devices/d/messages/events/", Payload: bytes.Repeat([]byte{byte(size)}, size), QoS: 1, ID: 9}))
		b = AppendPuback(b, 3)
	}
	for rest := b; len(rest) > 0; {
		var p Packet
		n, err := Decode(rest, 1<<20, &p)
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
		packets = append(packets, p)
		rest = rest[n:]
	}
	return b, packets
}

// TestReader reads the same stream in pieces of any size.
func TestReader(t *testing.T) {
	b, want := stream(t)
	for _, chunk := range []int{1, 2, 3, 5, 15, 16, 17, 100, 1000, 4095, 16 << 10, len(b)} {
		rd := NewReader(&chunks{b: b, n: chunk}, NewBuffers(), 1<<20)
		for i := range want {
			var p Packet
			if err := rd.ReadPacket(&p); err != nil {
				t.Fatalf("chunks of %d: packet %d: %v", chunk, i, err)
			}
			if !reflect.DeepEqual(p, want[i]) {
				t.Fatalf("chunks of %d: packet %d differs", chunk, i)
			}
		}
		if rd.Buffered() != 0 {
			t.Errorf("chunks of %d: %d bytes are left", chunk, rd.Buffered())
		}
		if err := rd.Fill(); err == nil {
			t.Errorf("chunks of %d: read beyond the end", chunk)
		}
		rd.Close()
	}
}

type chunks struct {
	b []byte
	n int
}

func (c *chunks) Read(p []byte) (int, error) {
	r := bytes.NewReader(c.b)
	n, err := r.Read(p[:min(len(p), c.n)])
	c.b = c.b[n:]
	return n, err
}

// An idle reader holds no buffer, and one with a packet begun holds no more
// than a few times what arrived, whatever length was announced.
func TestReaderMemory(t *testing.T) {
	huge := append([]byte{0x30, 0xff, 0xff, 0x3f}, make([]byte, 100)...) // announces 1 MiB
	rd := NewReader(&chunks{b: huge, n: 1000}, NewBuffers(), 1<<20)
	var p Packet
	for range 8 {
		if err := rd.Fill(); err != nil {
			break
		}
		if ok, err := rd.Next(&p); ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	if got := cap(rd.buf.B); got > workingBuffer {
		t.Errorf("104 bytes of a packet hold a buffer of %d", got)
	}
	rd = NewReader(&chunks{b: AppendPingreq(nil), n: 1000}, NewBuffers(), 1<<20)
	if err := rd.ReadPacket(&p); err != nil || rd.buf != nil {
		t.Errorf("a PINGREQ borrowed a buffer: %v", err)
	}
}

func TestReaderEnds(t *testing.T) {
	b := must(t)(AppendPublish(nil, Message{Topic: "t", Payload: make([]byte, 50)}))
	rd := NewReader(iotest.DataErrReader(bytes.NewReader(b)), NewBuffers(), 1<<20)
	var p Packet
	if err := rd.ReadPacket(&p); err != nil {
		t.Errorf("data that comes with the end of the stream: %v", err)
	}
	if err := rd.ReadPacket(&p); err == nil || err.Error() != "EOF" {
		t.Errorf("end between packets: %v, want EOF", err)
	}
	rd = NewReader(bytes.NewReader(b[:20]), NewBuffers(), 1<<20)
	if err := rd.ReadPacket(&p); err == nil || err.Error() != "unexpected EOF" {
		t.Errorf("end inside a packet: %v, want unexpected EOF", err)
	}
	rd = NewReader(bytes.NewReader(b), NewBuffers(), 20)
	if err := rd.ReadPacket(&p); !errors.Is(err, ErrTooLarge) {
		t.Errorf("packet above the limit: %v", err)
	}
}

// FuzzDecode checks that nothing panics, that a decoded packet encodes to
// bytes that decode to the same, and that splitting the input changes nothing.
func FuzzDecode(f *testing.F) {
	b, _ := stream(f)
	f.Add(b[:4000], uint8(3))
	f.Add([]byte{0x82, 0x0c, 0, 1, 0, 3, 'a', '/', '#', 1, 0, 1, 'b', 0}, uint8(1))
	f.Add(AppendSuback(AppendConnack(nil, true, 0), 1, 0x80), uint8(2))
	f.Add([]byte{0x10, 0x0d, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 0, 0, 0, 0}, uint8(4))
	f.Fuzz(func(t *testing.T, in []byte, chunk uint8) {
		const limit = 1 << 17
		var want []Packet
		var wantErr error
		for rest := in; len(rest) > 0; {
			var p Packet
			n, err := Decode(rest, limit, &p)
			if err != nil || n == 0 {
				wantErr = err
				break
			}
			checkAgain(t, p)
			want = append(want, p)
			rest = rest[n:]
		}
		rd := NewReader(&chunks{b: in, n: int(chunk) + 1}, NewBuffers(), limit)
		for i := range want {
			var p Packet
			if err := rd.ReadPacket(&p); err != nil || !reflect.DeepEqual(p, want[i]) {
				t.Fatalf("split: packet %d is %+v, %v; whole: %+v", i, p, err, want[i])
			}
		}
		var p Packet
		if err := rd.ReadPacket(&p); err == nil || wantErr != nil && err.Error() != wantErr.Error() {
			t.Fatalf("split: %v, whole: %v", err, wantErr)
		}
	})
}

func checkAgain(t *testing.T, p Packet) {
	var b []byte
	var err error
	switch p.Type {
	case TypeConnect:
		if p.Connect.Password != "" && p.Connect.Username == "" {
			return // an empty user name is not written again
		}
		b, err = AppendConnect(nil, p.Connect)
	case TypePublish:
		if p.QoS == 2 {
			return
		}
		b, err = AppendPublish(nil, Message{Topic: p.Topic, Payload: p.Payload, QoS: p.QoS, ID: p.ID, Dup: p.Dup, Retain: p.Retain})
	case TypeSubscribe:
		b, err = AppendSubscribe(nil, p.ID, p.Filters...)
	case TypeUnsubscribe:
		b, err = AppendUnsubscribe(nil, p.ID, p.Filters...)
	case TypeSuback:
		b = AppendSuback(nil, p.ID, p.Codes...)
	default:
		return
	}
	if err != nil {
		t.Fatalf("%+v does not encode again: %v", p, err)
	}
	var again Packet
	if _, err := Decode(b, 1<<18, &again); err != nil || !reflect.DeepEqual(p, again) {
		t.Fatalf("%+v decodes again as %+v, %v", p, again, err)
	}
}

func BenchmarkDecodePublish(b *testing.B) {
	in := must(b)(AppendPublish(nil, Message{Topic: "devices/device-00001/messages/events/%24.ct=application%2Fjson", Payload: make([]byte, 256), QoS: 1, ID: 1}))
	var p Packet
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(in, 1<<20, &p); err != nil {
			b.Fatal(err)
		}
	}
}
