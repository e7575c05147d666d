package wire

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// maxRemaining is the largest remaining length that four bytes can express.
const maxRemaining = 1<<28 - 1

// Message is what AppendPublish writes.
type Message struct {
	Topic   string
	Payload []byte
	QoS     byte   // 0 or 1
	ID      uint16 // above QoS 0
	Dup     bool
	Retain  bool
}

func appendHeader(dst []byte, first byte, remaining int) []byte {
	dst = append(dst, first)
	for remaining >= 0x80 {
		dst = append(dst, byte(remaining)|0x80)
		remaining >>= 7
	}
	return append(dst, byte(remaining))
}

func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}

func checkString(what, s string) error {
	if len(s) > MaxTopic {
		return fmt.Errorf("%w: %s of %d bytes, at most %d are allowed", ErrTooLarge, what, len(s), MaxTopic)
	}
	if !validString(s) {
		return fmt.Errorf("%w: %s is not valid UTF-8 or holds U+0000", ErrMalformed, what)
	}
	return nil
}

func validString(s string) bool {
	for i := range len(s) {
		if s[i] == 0 {
			return false
		}
	}
	return utf8.ValidString(s)
}

// AppendConnect appends a CONNECT of protocol level 4. Username and password
// are left out when they are empty. It fails with ErrTooLarge or ErrMalformed
// when a field can't be expressed.
func AppendConnect(dst []byte, c *Connect) ([]byte, error) {
	size := 10 + 2 + len(c.ClientID)
	flags := byte(0)
	if c.Clean {
		flags |= 1 << 1
	}
	fields := []struct{ what, s string }{{"client id", c.ClientID}, {"user name", c.Username}}
	if w := c.Will; w != nil {
		if w.QoS > 2 {
			return dst, fmt.Errorf("%w: will with QoS %d", ErrMalformed, w.QoS)
		}
		flags |= 1<<2 | w.QoS<<3
		if w.Retain {
			flags |= 1 << 5
		}
		if len(w.Payload) > MaxTopic {
			return dst, fmt.Errorf("%w: will payload of %d bytes, at most %d are allowed", ErrTooLarge, len(w.Payload), MaxTopic)
		}
		size += 4 + len(w.Topic) + len(w.Payload)
		fields = append(fields, struct{ what, s string }{"will topic", w.Topic})
	}
	for _, f := range fields {
		if err := checkString(f.what, f.s); err != nil {
			return dst, err
		}
	}
	if c.Username != "" {
		flags |= 1 << 7
		size += 2 + len(c.Username)
	}
	if c.Password != "" {
		if c.Username == "" {
			return dst, fmt.Errorf("%w: a password needs a user name [MQTT-3.1.2-22]", ErrMalformed)
		}
		if len(c.Password) > MaxTopic {
			return dst, fmt.Errorf("%w: password of %d bytes, at most %d are allowed", ErrTooLarge, len(c.Password), MaxTopic)
		}
		flags |= 1 << 6
		size += 2 + len(c.Password)
	}
	dst = appendHeader(dst, byte(TypeConnect)<<4, size)
	dst = appendString(dst, "MQTT")
	dst = append(dst, 4, flags)
	dst = binary.BigEndian.AppendUint16(dst, c.KeepAlive)
	dst = appendString(dst, c.ClientID)
	if w := c.Will; w != nil {
		dst = appendString(dst, w.Topic)
		dst = appendString(dst, w.Payload)
	}
	if c.Username != "" {
		dst = appendString(dst, c.Username)
	}
	if c.Password != "" {
		dst = appendString(dst, c.Password)
	}
	return dst, nil
}

// AppendConnack appends a CONNACK. present must be false when code is not
// ConnackAccepted [MQTT-3.2.2-4].
func AppendConnack(dst []byte, present bool, code byte) []byte {
	flags := byte(0)
	if present {
		flags = 1
	}
	return append(dst, byte(TypeConnack)<<4, 2, flags, code)
}

// AppendPublish appends a PUBLISH. It fails when the topic is empty, not
// UTF-8 or too long, the QoS above 1, or the packet id 0 above QoS 0.
func AppendPublish(dst []byte, m Message) ([]byte, error) {
	if m.Topic == "" {
		return dst, fmt.Errorf("%w: the topic is empty", ErrMalformed)
	}
	if err := checkString("topic", m.Topic); err != nil {
		return dst, err
	}
	size := 2 + len(m.Topic) + len(m.Payload)
	first := byte(TypePublish)<<4 | m.QoS<<1
	switch {
	case m.QoS > 1:
		return dst, fmt.Errorf("%w: QoS %d is not offered", ErrUnsupported, m.QoS)
	case m.QoS == 1 && m.ID == 0:
		return dst, fmt.Errorf("%w: packet id 0 [MQTT-2.3.1-1]", ErrMalformed)
	case m.QoS == 1:
		size += 2
		if m.Dup {
			first |= 1 << 3
		}
	}
	if m.Retain {
		first |= 1
	}
	if size > maxRemaining {
		return dst, fmt.Errorf("%w: PUBLISH of %d bytes", ErrTooLarge, size)
	}
	dst = appendHeader(dst, first, size)
	dst = appendString(dst, m.Topic)
	if m.QoS == 1 {
		dst = binary.BigEndian.AppendUint16(dst, m.ID)
	}
	return append(dst, m.Payload...), nil
}

// AppendPuback appends a PUBACK.
func AppendPuback(dst []byte, id uint16) []byte {
	return append(dst, byte(TypePuback)<<4, 2, byte(id>>8), byte(id))
}

// AppendSubscribe appends a SUBSCRIBE of at least one filter. It fails when
// the id is 0 or a filter can't be expressed.
func AppendSubscribe(dst []byte, id uint16, filters ...Filter) ([]byte, error) {
	return appendFilters(dst, TypeSubscribe, id, filters)
}

// AppendUnsubscribe appends an UNSUBSCRIBE of at least one filter, whose QoS
// does not matter. It fails as AppendSubscribe does.
func AppendUnsubscribe(dst []byte, id uint16, filters ...Filter) ([]byte, error) {
	return appendFilters(dst, TypeUnsubscribe, id, filters)
}

func appendFilters(dst []byte, t Type, id uint16, filters []Filter) ([]byte, error) {
	if id == 0 || len(filters) == 0 || len(filters) > MaxFilters {
		return dst, fmt.Errorf("%w: %s needs a packet id other than 0 and 1 to %d filters", ErrMalformed, t, MaxFilters)
	}
	size := 2
	for _, f := range filters {
		if f.Topic == "" || f.QoS > 2 {
			return dst, fmt.Errorf("%w: filter %q with QoS %d", ErrMalformed, f.Topic, f.QoS)
		}
		if err := checkString("filter", f.Topic); err != nil {
			return dst, err
		}
		size += 2 + len(f.Topic)
		if t == TypeSubscribe {
			size++
		}
	}
	dst = appendHeader(dst, byte(t)<<4|0b0010, size)
	dst = binary.BigEndian.AppendUint16(dst, id)
	for _, f := range filters {
		dst = appendString(dst, f.Topic)
		if t == TypeSubscribe {
			dst = append(dst, f.QoS)
		}
	}
	return dst, nil
}

// AppendSuback appends a SUBACK with one code for each filter, in their order.
func AppendSuback(dst []byte, id uint16, codes ...byte) []byte {
	dst = appendHeader(dst, byte(TypeSuback)<<4, 2+len(codes))
	dst = binary.BigEndian.AppendUint16(dst, id)
	return append(dst, codes...)
}

// AppendUnsuback appends an UNSUBACK.
func AppendUnsuback(dst []byte, id uint16) []byte {
	return append(dst, byte(TypeUnsuback)<<4, 2, byte(id>>8), byte(id))
}

// AppendPingreq appends a PINGREQ.
func AppendPingreq(dst []byte) []byte { return append(dst, byte(TypePingreq)<<4, 0) }

// AppendPingresp appends a PINGRESP.
func AppendPingresp(dst []byte) []byte { return append(dst, byte(TypePingresp)<<4, 0) }

// AppendDisconnect appends a DISCONNECT.
func AppendDisconnect(dst []byte) []byte { return append(dst, byte(TypeDisconnect)<<4, 0) }
