package device

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/wire"
)

// topicSlack is what a packet may have above the message limit: the topic,
// its length and the packet id.
const topicSlack = 64<<10 + 4

// What the connection log calls the ways in.
const (
	protocolMQTT   = "mqtt"
	protocolMQTTWS = "mqtt-ws"
	protocolHTTPS  = "https"
)

// refusal is a CONNACK other than 0.
type refusal struct {
	connack byte
	number  int
	err     error
}

func refuse(connack byte, number int, err error) *refusal {
	return &refusal{connack: connack, number: number, err: err}
}

// connect reads the CONNECT, attaches the session and sends the CONNACK
// (docs/reference/protocol-mqtt.md, CONNECT). It returns nil when the session
// is live.
func (s *session) connect() *ending {
	if err := s.st.SetReadDeadline(time.Now().Add(connectTimeout)); err != nil {
		return s.endingOf(err)
	}
	var p wire.Packet
	err := s.rd.ReadPacket(&p)
	switch {
	case errors.Is(err, wire.ErrProtocolLevel):
		return s.refuse(refuse(wire.ConnackBadProtocol, 400000, err))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return end(reasonConnectLate, fmt.Errorf("no CONNECT within %s", connectTimeout))
	case err != nil:
		return s.endingOf(err)
	case p.Type != wire.TypeConnect:
		return end(reasonProtocol, fmt.Errorf("the first packet is %s, must be CONNECT [MQTT-3.1.0-1]", p.Type))
	}
	if r := s.attach(p.Connect); r != nil {
		return s.refuse(r)
	}
	s.h.vouch(s.st.NetConn())
	s.rd.SetLimit(s.h.limits.MessageBytes + topicSlack)
	s.h.count.pending.Add(-1)
	s.h.count.sessions.Add(1)
	s.h.count.accepted.Add(1)
	connack := wire.AppendConnack(nil, s.es.Resumed() && !p.Connect.Clean, wire.ConnackAccepted)
	if err := s.out.open(connack); err != nil {
		return s.endingOf(err)
	}
	s.h.log.DebugContext(s.h.ctx, "device connected", slog.String("device", s.id.String()), slog.String("address", s.st.RemoteAddr().String()), slog.Bool("resumed", s.es.Resumed()), slog.Bool("websocket", s.st.WebSocket()))
	return nil
}

// refuse sends the CONNACK of a refusal; the connection is then closed.
func (s *session) refuse(r *refusal) *ending {
	s.h.count.refused[r.connack].Add(1)
	if r.connack == wire.ConnackBadCredentials || r.connack == wire.ConnackNotAuthorized {
		s.h.blame(s.st.NetConn())
	}
	// A failed write changes nothing: the connection ends either way.
	_, _ = s.st.Write(wire.AppendConnack(nil, false, r.connack))
	return &ending{reason: reasonRefused, number: r.number, err: fmt.Errorf("CONNACK %d: %w", r.connack, r.err)}
}

// attach checks a CONNECT and makes the connection the identity's session.
func (s *session) attach(c *wire.Connect) *refusal {
	u, err := parseUsername(c.Username, s.h.limits.IdentityIDBytes)
	if errors.Is(err, errProvisioning) {
		return refuse(wire.ConnackNotAuthorized, 401003, err)
	}
	if err != nil {
		return refuse(wire.ConnackBadCredentials, 400004, err)
	}
	s.id = u.id
	protocol := protocolMQTT
	if s.st.WebSocket() {
		protocol = protocolMQTTWS
	}
	credentials := engine.Credentials{
		ID:           u.id,
		Host:         u.host,
		Token:        c.Password,
		Certificates: s.st.PeerCertificates(),
		Protocol:     protocol,
		Address:      s.st.RemoteAddr().String(),
	}
	if r := s.checkConnect(c); r != nil {
		s.h.hub.RecordRefusal(credentials, &engine.Error{Code: r.code(), Message: r.err.Error()})
		return r
	}
	if s.h.isDraining() {
		return refuse(wire.ConnackUnavailable, 503001, errDraining)
	}
	grant, err := s.h.hub.AuthenticateDevice(s.h.ctx, credentials)
	if err != nil {
		return s.refusalOf(err)
	}
	s.will = c.Will
	s.idle = idleLimit(c.KeepAlive, s.h.limits.KeepAliveMax)
	if !grant.Expires.IsZero() {
		s.expires = grant.Expires.Add(s.h.limits.TokenExpiryGrace)
	}
	s.out.deviceID = s.id.DeviceID
	s.out.lose = s.loses
	es, err := s.h.hub.Connect(s.h.ctx, engine.Connection{
		Grant:    grant,
		Clean:    c.Clean,
		Protocol: protocol,
		Address:  s.st.RemoteAddr().String(),
		ModelID:  u.modelID,
		Product:  u.product,
		Outbox:   s.out,
	})
	if err != nil {
		return s.refusalOf(err)
	}
	s.es = es
	return nil
}

// checkConnect refuses a CONNECT that contradicts itself, or holds what nobody
// could read.
func (s *session) checkConnect(c *wire.Connect) *refusal {
	if c.ClientID != s.id.String() {
		return refuse(wire.ConnackBadClientID, 400004, fmt.Errorf("the client id %q is not the identity of the user name", clip(c.ClientID, 300)))
	}
	if r := s.checkWill(c.Will); r != nil {
		return r
	}
	if c.Password != "" {
		if _, err := auth.ParseToken(c.Password); err != nil {
			return refuse(wire.ConnackBadCredentials, 401003, err)
		}
	}
	return nil
}

// code is what the connection log calls a refusal of checkConnect.
func (r *refusal) code() engine.Code {
	if r.connack == wire.ConnackBadCredentials {
		return engine.CodeUnauthorized
	}
	return engine.CodeArgumentInvalid
}

func (s *session) refusalOf(err error) *refusal {
	c := s.h.code(engine.AsError(err))
	return refuse(c.connack, c.number, err)
}

// checkWill refuses a will that could not be published as telemetry of this
// connection, as IoT Hub does.
func (s *session) checkWill(w *wire.Will) *refusal {
	if w == nil {
		return nil
	}
	t, err := parsePublish(w.Topic, s.id)
	if err == nil && t.op != opTelemetry {
		err = topicError(w.Topic)
	}
	if err == nil && w.QoS > 1 {
		err = errors.New("QoS 2 is not offered")
	}
	if err == nil {
		var m engine.Message
		err = parseBag(t.bag, &m)
	}
	if err != nil {
		return refuse(wire.ConnackNotAuthorized, 400004, fmt.Errorf("the will is refused: %w", err))
	}
	return nil
}

// idleLimit is how long a connection may be silent: 1.5 times its keep-alive,
// at most most, which also stands for a keep-alive of 0.
func idleLimit(keepAlive uint16, most time.Duration) time.Duration {
	d := time.Duration(keepAlive) * time.Second * 3 / 2
	if d == 0 || d > most {
		return most
	}
	return d
}
