package engine

import "context"

// Message is a device-to-cloud message.
type Message struct {
	Body       []byte
	Properties []Property // application properties in order; a later duplicate wins
	System     []Property // "message-id", "content-type", ... by their service-side names
	QoS        byte
	Duplicate  bool
	Retain     bool
	Will       bool
}

// Property is a name with a value. Null marks a bare key of a property bag.
type Property struct {
	Name  string `json:"n"`
	Value string `json:"v,omitempty"`
	Null  bool   `json:"z,omitempty"`
}

// Telemetry stores a device-to-cloud message and returns when it is durable;
// one at QoS 0 it only queues. A will is also taken from a session that has
// ended, since that is when it is published. When ctx ends first, whether the
// message was stored is not known.
func (s *Session) Telemetry(ctx context.Context, m Message) error {
	if m.QoS == 0 {
		return s.SubmitTelemetry(m, nil)
	}
	stored := make(chan error, 1)
	if err := s.SubmitTelemetry(m, func(err error) { stored <- err }); err != nil {
		return err
	}
	select {
	case err := <-stored:
		return err
	case <-ctx.Done():
		return storeError(ctx.Err(), "store telemetry")
	}
}

// SubmitTelemetry queues a message for the store. done, when not nil, is
// called once it is durable or could not be stored; it must not block. The
// messages of one session are answered in the order in which they came.
// CodeThrottled means that the queue is full: nothing was taken.
func (s *Session) SubmitTelemetry(m Message, done func(error)) error {
	if err := s.Err(); err != nil && !m.Will {
		return err
	}
	size := len(m.Body)
	for _, p := range m.System {
		size += len(p.Value)
	}
	for _, p := range m.Properties {
		size += len(p.Name) + len(p.Value)
	}
	if most := s.hub.limits.MessageBytes; size > most {
		return errf(CodeTooLarge, "the message has %d bytes with its properties, at most %d are allowed", size, most)
	}
	data, err := encodeMessage(s.connection.Grant, m)
	if err != nil {
		return storeError(err, "store telemetry")
	}
	err = s.hub.db.Messages().Append(data, func(_ uint64, err error) {
		if done != nil {
			done(storeError(err, "store telemetry"))
		}
	})
	if err != nil {
		return storeError(err, "store telemetry")
	}
	s.Touch()
	s.hub.count.messages.Add(1)
	s.hub.count.messageBytes.Add(int64(size))
	return nil
}
