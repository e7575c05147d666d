package wire

import "fmt"

// maxHeader is the largest fixed header: the type and a length of four bytes.
const maxHeader = 5

// header is a fixed header [MQTT-2.2].
type header struct {
	first byte
	size  int // of the header itself; 0 when b ended before it did
	body  int // remaining length
}

func (h header) typ() Type { return Type(h.first >> 4) }

// parseHeader reads a fixed header and checks all that it alone tells,
// so that nothing is allocated or waited for in vain. limit bounds the
// remaining length.
func parseHeader(b []byte, limit int) (header, error) {
	if len(b) == 0 {
		return header{}, nil
	}
	h := header{first: b[0]}
	if err := checkFlags(b[0]); err != nil {
		return header{}, err
	}
	for i, c := range b[1:min(len(b), maxHeader)] {
		h.body |= int(c&0x7f) << (7 * i)
		if c&0x80 == 0 {
			h.size = i + 2
			return h, checkLength(h, limit)
		}
	}
	if len(b) >= maxHeader {
		return header{}, fmt.Errorf("%w: the remaining length has more than four bytes [MQTT-2.2.3]", ErrMalformed)
	}
	return header{}, nil
}

// checkFlags checks the lower half of the first byte [MQTT-2.2.2-2]; PUBLISH
// keeps its own flags there.
func checkFlags(first byte) error {
	t, flags := Type(first>>4), first&15
	want := byte(0)
	switch t {
	case TypePublish:
		if flags&0b110 == 0b110 {
			return fmt.Errorf("%w: PUBLISH with QoS 3 [MQTT-3.3.1-4]", ErrMalformed)
		}
		return nil
	case TypePubrec, TypePubrel, TypePubcomp:
		return fmt.Errorf("%w: %s belongs to QoS 2", ErrUnsupported, t)
	case TypeSubscribe, TypeUnsubscribe:
		want = 0b0010
	case 0, 15:
		return fmt.Errorf("%w: packet type %d is reserved", ErrMalformed, t)
	}
	if flags != want {
		return fmt.Errorf("%w: flags of %s are %04b, must be %04b", ErrMalformed, t, flags, want)
	}
	return nil
}

func checkLength(h header, limit int) error {
	if h.body > limit {
		return fmt.Errorf("%w: %s of %d bytes, at most %d are allowed", ErrTooLarge, h.typ(), h.body, limit)
	}
	lowest, highest := 0, h.body
	switch h.typ() {
	case TypeConnack, TypePuback, TypeUnsuback:
		lowest, highest = 2, 2
	case TypePingreq, TypePingresp, TypeDisconnect:
		highest = 0
	case TypeConnect:
		lowest = 12
		if h.body > MaxConnect {
			return fmt.Errorf("%w: CONNECT of %d bytes, at most %d are allowed", ErrTooLarge, h.body, MaxConnect)
		}
	case TypePublish:
		lowest = 3
	case TypeSuback:
		lowest = 3
	case TypeSubscribe:
		lowest = 6
	case TypeUnsubscribe:
		lowest = 5
	}
	if h.body < lowest || h.body > highest {
		return fmt.Errorf("%w: %s has a remaining length of %d", ErrMalformed, h.typ(), h.body)
	}
	return nil
}
