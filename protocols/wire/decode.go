package wire

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Decode decodes the packet at the start of b into p, and returns how many
// bytes it took; 0 without an error means that b ends before the packet does.
// limit bounds the remaining length. Strings are copies; Payload and Codes
// point into b. Errors wrap ErrMalformed, ErrTooLarge, ErrProtocolLevel or
// ErrUnsupported.
func Decode(b []byte, limit int, p *Packet) (n int, err error) {
	h, err := parseHeader(b, limit)
	if err != nil || h.size == 0 || len(b)-h.size < h.body {
		return 0, err
	}
	n = h.size + h.body
	*p = Packet{Type: h.typ()}
	return n, decodeBody(h, b[h.size:n], p)
}

// decodeBody validates what the codec lets through, then decodes.
//
// A '+' or '#' in the topic of a PUBLISH passes on purpose, against
// [MQTT-3.3.2-2]: some SDKs put property bags there without encoding them.
//
// waiting reader
//
//go:noinline so that the codec's large struct stays off the stack of a
func decodeBody(h header, body []byte, p *Packet) (err error) {
	defer func() {
		if v := recover(); v != nil { // a fault of the codec must cost no more than this packet
			err = fmt.Errorf("%w: the codec failed: %v", ErrMalformed, v)
		}
	}()
	var pk packets.Packet
	pk.FixedHeader.Remaining = h.body
	pk.ProtocolVersion = 4
	if err := pk.FixedHeader.Decode(h.first); err != nil {
		return malformed(p.Type, err)
	}
	switch p.Type {
	case TypePublish:
		err = decodePublish(&pk, body, p)
	case TypeConnect:
		err = decodeConnect(&pk, body, p)
	case TypeSubscribe, TypeUnsubscribe:
		err = decodeFilters(&pk, body, p)
	case TypePuback:
		err = pk.PubackDecode(body)
	case TypeUnsuback:
		err = pk.UnsubackDecode(body)
	case TypeSuback:
		err = decodeSuback(&pk, body, p)
	case TypeConnack:
		if body[0] > 1 {
			return fmt.Errorf("%w: flags of CONNACK are %08b", ErrMalformed, body[0])
		}
		err = pk.ConnackDecode(body)
		p.SessionPresent, p.Code = pk.SessionPresent, pk.ReasonCode
	case TypePingreq, TypePingresp, TypeDisconnect:
	}
	p.ID = pk.PacketID
	return err
}

func malformed(t Type, cause error) error {
	return fmt.Errorf("%w: %s: %v", ErrMalformed, t, cause)
}

func decodePublish(pk *packets.Packet, body []byte, p *Packet) error {
	if err := pk.PublishDecode(body); err != nil {
		return malformed(TypePublish, err)
	}
	if pk.TopicName == "" {
		return fmt.Errorf("%w: PUBLISH without a topic", ErrMalformed)
	}
	p.QoS, p.Dup, p.Retain = pk.FixedHeader.Qos, pk.FixedHeader.Dup, pk.FixedHeader.Retain
	if p.QoS > 0 && pk.PacketID == 0 {
		return fmt.Errorf("%w: PUBLISH with packet id 0 [MQTT-2.3.1-1]", ErrMalformed)
	}
	p.Topic = strings.Clone(pk.TopicName) // the codec's string is the buffer itself
	p.Payload = pk.Payload
	return nil
}

func decodeSuback(pk *packets.Packet, body []byte, p *Packet) error {
	if err := pk.SubackDecode(body); err != nil {
		return malformed(TypeSuback, err)
	}
	for _, c := range pk.ReasonCodes {
		if c > 2 && c != SubackFailure {
			return fmt.Errorf("%w: SUBACK with code %#x [MQTT-3.9.3-2]", ErrMalformed, c)
		}
	}
	p.Codes = pk.ReasonCodes
	return nil
}

func decodeFilters(pk *packets.Packet, body []byte, p *Packet) error {
	// The codec builds a large struct for each filter: count first.
	c := cursor{b: body}
	if c.uint16() == 0 {
		return fmt.Errorf("%w: %s with packet id 0 [MQTT-2.3.1-1]", ErrMalformed, p.Type)
	}
	count := 0
	for len(c.b) > 0 && !c.short {
		if c.bytes(); p.Type == TypeSubscribe {
			if qos := c.byte(); qos > 2 && !c.short {
				return fmt.Errorf("%w: SUBSCRIBE with QoS byte %#x [MQTT-3.8.3-4]", ErrMalformed, qos)
			}
		}
		count++
	}
	if c.short || count == 0 {
		return fmt.Errorf("%w: %s is cut short", ErrMalformed, p.Type)
	}
	if count > MaxFilters {
		return fmt.Errorf("%w: %s with %d filters, at most %d are allowed", ErrTooLarge, p.Type, count, MaxFilters)
	}
	decode := pk.SubscribeDecode
	if p.Type == TypeUnsubscribe {
		decode = pk.UnsubscribeDecode
	}
	if err := decode(body); err != nil {
		return malformed(p.Type, err)
	}
	p.Filters = make([]Filter, len(pk.Filters))
	for i, f := range pk.Filters {
		if f.Filter == "" {
			return fmt.Errorf("%w: empty topic filter [MQTT-4.7.3-1]", ErrMalformed)
		}
		p.Filters[i] = Filter{Topic: strings.Clone(f.Filter), QoS: f.Qos}
	}
	return nil
}

func decodeConnect(pk *packets.Packet, body []byte, p *Packet) error {
	if err := checkConnect(body); err != nil {
		return err
	}
	if err := pk.ConnectDecode(body); err != nil {
		return malformed(TypeConnect, err)
	}
	c := &pk.Connect
	p.Connect = &Connect{
		ClientID:  strings.Clone(c.ClientIdentifier),
		Username:  string(c.Username),
		Password:  string(c.Password),
		KeepAlive: c.Keepalive,
		Clean:     c.Clean,
	}
	if c.WillFlag {
		p.Connect.Will = &Will{
			Topic:   strings.Clone(c.WillTopic),
			Payload: append([]byte(nil), c.WillPayload...),
			QoS:     c.WillQos,
			Retain:  c.WillRetain,
		}
	}
	return nil
}

// checkConnect checks the structure of a CONNECT, flags and trailing bytes
// included [MQTT-3.1.2]. It stops at another protocol level, whose packets
// look different behind that byte.
func checkConnect(body []byte) error {
	c := cursor{b: body}
	name := string(c.bytes())
	level := c.byte()
	if c.short || name != "MQTT" && name != "MQIsdp" {
		return fmt.Errorf("%w: CONNECT without the protocol name MQTT [MQTT-3.1.2-1]", ErrMalformed)
	}
	if name != "MQTT" || level != 4 {
		return fmt.Errorf("%w: the client asked for %s level %d", ErrProtocolLevel, name, level)
	}
	flags := c.byte()
	c.uint16() // keep alive
	will, willQoS, user, password := flags&(1<<2) != 0, flags>>3&3, flags&(1<<7) != 0, flags&(1<<6) != 0
	switch {
	case c.short:
		return fmt.Errorf("%w: CONNECT is cut short", ErrMalformed)
	case flags&1 != 0:
		return fmt.Errorf("%w: reserved flag of CONNECT is set [MQTT-3.1.2-3]", ErrMalformed)
	case willQoS == 3 || !will && flags&(1<<5|3<<3) != 0:
		return fmt.Errorf("%w: will flags of CONNECT contradict each other [MQTT-3.1.2-11]", ErrMalformed)
	case password && !user:
		return fmt.Errorf("%w: password without user name [MQTT-3.1.2-22]", ErrMalformed)
	}
	texts := [][]byte{c.bytes()}
	if will {
		topic := c.bytes()
		if len(topic) == 0 {
			return fmt.Errorf("%w: will without a topic", ErrMalformed)
		}
		texts = append(texts, topic)
		c.bytes()
	}
	if user {
		texts = append(texts, c.bytes())
	}
	if password {
		c.bytes()
	}
	if c.short || len(c.b) != 0 {
		return fmt.Errorf("%w: CONNECT does not end where its fields do", ErrMalformed)
	}
	for _, t := range texts {
		if !utf8.Valid(t) {
			return fmt.Errorf("%w: a text of CONNECT is not valid UTF-8 [MQTT-1.5.3-1]", ErrMalformed)
		}
	}
	return nil
}

// cursor walks over a packet's fields; short tells that they ended too soon.
type cursor struct {
	b     []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if n > len(c.b) {
		c.b, c.short = nil, true
		return nil
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) byte() byte {
	if v := c.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if v := c.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (c *cursor) bytes() []byte { return c.take(int(c.uint16())) }
