package device

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/wire"
)

// handle does what one packet asks for. An error ends the connection: MQTT
// 3.1.1 has no other way to refuse.
func (s *session) handle(p *wire.Packet) error {
	if p.Type != wire.TypePublish { // answers follow those to what came before
		if err := s.settle(); err != nil {
			return err
		}
	}
	switch p.Type {
	case wire.TypePublish:
		return s.publish(p)
	case wire.TypePuback:
		s.es.AcknowledgeMessage(p.ID)
		return nil
	case wire.TypeSubscribe:
		return s.subscribe(p)
	case wire.TypeUnsubscribe:
		return s.unsubscribe(p)
	case wire.TypePingreq:
		return s.out.add(2, func(dst []byte) ([]byte, error) { return wire.AppendPingresp(dst), nil })
	case wire.TypeDisconnect:
		return end(reasonGraceful, nil)
	}
	return end(reasonProtocol, fmt.Errorf("%s is not for a device to send now", p.Type))
}

func (s *session) publish(p *wire.Packet) error {
	if p.QoS > 1 {
		return end(reasonProtocol, errors.New("PUBLISH with QoS 2, which is not offered"))
	}
	t, err := parsePublish(p.Topic, s.id)
	if err != nil {
		return end(reasonProtocol, err)
	}
	switch t.op {
	case opTelemetry:
		return s.telemetry(p, t.bag)
	case opTwinGet:
		return s.twinGet(p, t)
	case opTwinPatch:
		return s.twinPatch(p, t)
	case opMethodResponse:
		s.es.CompleteMethod(t.rid, t.status, p.Payload)
	}
	if err != nil {
		return err
	}
	return s.acknowledge(p)
}

// acknowledge queues the PUBACK of a publish at QoS 1.
func (s *session) acknowledge(p *wire.Packet) error {
	if p.QoS == 0 {
		return nil
	}
	if err := s.settle(); err != nil { // PUBACKs keep the order of the PUBLISHes [MQTT-4.6.0-2]
		return err
	}
	return s.out.add(4, func(dst []byte) ([]byte, error) { return wire.AppendPuback(dst, p.ID), nil })
}

func (s *session) telemetry(p *wire.Packet, bag string) error {
	m := engine.Message{Body: bytes.Clone(p.Payload), QoS: p.QoS, Duplicate: p.Dup, Retain: p.Retain}
	if err := parseBag(bag, &m); err != nil {
		return end(reasonTooLarge, err)
	}
	if p.Retain {
		// Nothing is retained: IoT Hub passes the wish on.
		m.Properties = append(m.Properties, engine.Property{Name: "mqtt-retain", Value: "true"})
	}
	return s.store(p, m)
}

// sendWill publishes the will of a connection that was lost.
func (s *session) sendWill() {
	w := s.will
	if w == nil {
		return
	}
	s.will = nil
	t, err := parsePublish(w.Topic, s.id)
	if err == nil {
		m := engine.Message{Body: w.Payload, QoS: w.QoS, Retain: w.Retain, Will: true}
		if err = parseBag(t.bag, &m); err == nil {
			m.Properties = append(m.Properties, engine.Property{Name: "iothub-MessageType", Value: "Will"})
			if w.Retain {
				m.Properties = append(m.Properties, engine.Property{Name: "mqtt-retain", Value: "true"})
			}
			err = s.es.SubmitTelemetry(m, nil) // nobody waits for a will
		}
	}
	if err != nil {
		s.h.log.WarnContext(s.h.ctx, "the will of a device was not published", slog.String("device", s.id.String()), slog.String("error", err.Error()))
	}
}

// twinGet answers with the twin. A device without a subscription to responses
// gets none, and nothing else happens to it.
func (s *session) twinGet(p *wire.Packet, t publishTopic) error {
	if !s.es.Subscriptions().Has(engine.EndpointTwinResponse) {
		return s.acknowledge(p)
	}
	// A notification of a version that the answer already has, or of the
	// next, must not come before it.
	s.out.deferNotifications()
	defer s.out.release()
	document, err := s.es.Twin(s.h.ctx)
	if err != nil {
		return s.replyError(p, t, err)
	}
	return errors.Join(s.acknowledge(p), s.reply(200, t.rid, -1, document))
}

// twinPatch merges into the reported properties. The PUBACK and the answer
// come after the change is durable, and before any later notification.
func (s *session) twinPatch(p *wire.Packet, t publishTopic) error {
	if t.expected == -2 {
		return s.replyError(p, t, &engine.Error{Code: engine.CodeArgumentInvalid, Message: "$version in the topic is not a version number"})
	}
	// This waits for the disk: what is ready goes first.
	if err := s.out.flush(); err != nil {
		return err
	}
	s.out.deferNotifications()
	defer s.out.release()
	version, err := s.es.PatchReported(s.h.ctx, bytes.Clone(p.Payload), t.expected)
	if err != nil {
		return s.replyError(p, t, err)
	}
	err = s.acknowledge(p)
	if s.es.Subscriptions().Has(engine.EndpointTwinResponse) {
		err = errors.Join(err, s.reply(204, t.rid, version, nil))
	}
	return err
}

// replyError answers a twin request that failed. Where nobody would hear the
// answer to a fault of the hub, the connection ends instead, so that the
// device tries again.
func (s *session) replyError(p *wire.Packet, t publishTopic, err error) error {
	e := engine.AsError(err)
	c := s.h.code(e)
	if s.es.Err() != nil {
		return err
	}
	heard := s.es.Subscriptions().Has(engine.EndpointTwinResponse)
	if !heard && c.status >= 500 {
		return err
	}
	message := e.Message
	if next := e.NextStep(); next != "" {
		message += ". " + next
	}
	body, tracking := newErrorBody(c.number, message, time.Now())
	level := slog.LevelDebug
	if c.status >= 500 {
		level = slog.LevelWarn
	}
	s.h.log.LogAttrs(s.h.ctx, level, "twin request refused", slog.String("device", s.id.String()), slog.Int("status", c.status), slog.Int("code", c.number), slog.String("tracking_id", tracking), slog.Any("error", err))
	err = s.acknowledge(p)
	if heard {
		err = errors.Join(err, s.reply(c.status, t.rid, -1, body))
	}
	return err
}

// reply queues an answer to a twin request, at QoS 0 as all that goes down.
func (s *session) reply(status int, rid string, version int64, body []byte) error {
	if s.loses() {
		return nil
	}
	if err := s.out.pace(); err != nil {
		return err
	}
	topic := string(appendTwinResponse(nil, status, rid, version))
	return s.out.add(len(topic)+len(body)+8, func(dst []byte) ([]byte, error) {
		return wire.AppendPublish(dst, wire.Message{Topic: topic, Payload: body})
	})
}

// subscribe stores the subscriptions before it acknowledges them: the SDKs do
// not subscribe again.
func (s *session) subscribe(p *wire.Packet) error {
	add := engine.NoSubscriptions()
	codes := make([]byte, len(p.Filters))
	for i, f := range p.Filters {
		endpoint, err := parseFilter(f.Topic, s.id)
		if err != nil {
			return end(reasonProtocol, err)
		}
		codes[i] = min(f.QoS, 1)
		add[endpoint] = int8(codes[i])
	}
	if err := s.change(func() error { return s.es.Subscribe(s.h.ctx, add) }); err != nil {
		return err
	}
	return s.out.add(8+len(codes), func(dst []byte) ([]byte, error) { return wire.AppendSuback(dst, p.ID, codes...), nil })
}

// unsubscribe acknowledges every filter, also one that was never held.
func (s *session) unsubscribe(p *wire.Packet) error {
	var remove []engine.Endpoint
	for _, f := range p.Filters {
		if endpoint, err := parseFilter(f.Topic, s.id); err == nil {
			remove = append(remove, endpoint)
		}
	}
	if len(remove) > 0 {
		if err := s.change(func() error { return s.es.Unsubscribe(s.h.ctx, remove...) }); err != nil {
			return err
		}
	}
	return s.out.add(4, func(dst []byte) ([]byte, error) { return wire.AppendUnsuback(dst, p.ID), nil })
}

// change runs a change of the subscriptions, which may wait for the disk.
func (s *session) change(f func() error) error {
	if err := s.out.flush(); err != nil {
		return err
	}
	return f()
}
