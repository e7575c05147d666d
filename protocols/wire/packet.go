package wire

import "errors"

// Type is the packet type in the upper half of a packet's first byte [MQTT-2.2.1].
type Type byte

// The packet types of MQTT 3.1.1.
const (
	TypeConnect     Type = 1
	TypeConnack     Type = 2
	TypePublish     Type = 3
	TypePuback      Type = 4
	TypePubrec      Type = 5 // QoS 2: never decoded
	TypePubrel      Type = 6 // QoS 2: never decoded
	TypePubcomp     Type = 7 // QoS 2: never decoded
	TypeSubscribe   Type = 8
	TypeSuback      Type = 9
	TypeUnsubscribe Type = 10
	TypeUnsuback    Type = 11
	TypePingreq     Type = 12
	TypePingresp    Type = 13
	TypeDisconnect  Type = 14
)

// String returns the type's name as the standard spells it.
func (t Type) String() string {
	names := [...]string{"0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "15"}
	return names[t&15]
}

// The return codes of CONNACK [MQTT-3.2.2.3].
const (
	ConnackAccepted       byte = 0
	ConnackBadProtocol    byte = 1
	ConnackBadClientID    byte = 2
	ConnackUnavailable    byte = 3
	ConnackBadCredentials byte = 4
	ConnackNotAuthorized  byte = 5
)

// SubackFailure is the return code of a filter that was refused [MQTT-3.9.3].
const SubackFailure byte = 0x80

// MaxConnect is the largest CONNECT that a server should read: its remaining
// length, in bytes.
const MaxConnect = 64 << 10

// MaxTopic is the longest topic that the format can hold, in bytes.
const MaxTopic = 1<<16 - 1

// MaxFilters is how many filters one SUBSCRIBE or UNSUBSCRIBE may hold.
const MaxFilters = 64

// Packet is a decoded packet. Which fields mean something depends on Type.
type Packet struct {
	Type Type

	// PUBLISH
	QoS     byte // 0, 1 or 2
	Dup     bool
	Retain  bool
	Topic   string
	Payload []byte // points into the buffer that was decoded

	// ID is the packet id of PUBLISH above QoS 0, SUBSCRIBE and UNSUBSCRIBE
	// (never 0), and of acknowledgements (anything).
	ID uint16

	// CONNACK
	SessionPresent bool
	Code           byte

	Connect *Connect // CONNECT
	Filters []Filter // SUBSCRIBE, UNSUBSCRIBE
	Codes   []byte   // SUBACK; points into the buffer that was decoded
}

// Connect is the content of a CONNECT packet of protocol level 4.
type Connect struct {
	ClientID  string
	Username  string // empty: absent
	Password  string // empty: absent or empty
	KeepAlive uint16 // seconds, 0 = none
	Clean     bool
	Will      *Will // nil without one
}

// Will is a message that the server publishes when the connection is lost.
type Will struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
}

// Filter is one entry of SUBSCRIBE; UNSUBSCRIBE has no QoS.
type Filter struct {
	Topic string
	QoS   byte
}

// What can be wrong with a packet. Errors of this package wrap one of them
// and say more.
var (
	// ErrMalformed marks bytes that are not MQTT 3.1.1.
	ErrMalformed = errors.New("malformed MQTT packet")
	// ErrTooLarge marks a packet above the reader's limit.
	ErrTooLarge = errors.New("MQTT packet too large")
	// ErrProtocolLevel marks a CONNECT of another version of MQTT; a server
	// answers with ConnackBadProtocol.
	ErrProtocolLevel = errors.New("MQTT protocol level is not 4")
	// ErrUnsupported marks a packet of the QoS 2 handshake.
	ErrUnsupported = errors.New("MQTT packet type is not supported")
)
