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
	Name  string
	Value string
	Null  bool
}

// Telemetry takes a device-to-cloud message: bounded and counted. It is not
// stored yet. A will is also taken from a session that has ended, since that
// is when it is published.
func (s *Session) Telemetry(_ context.Context, m Message) error {
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
	s.Touch()
	s.hub.count.messages.Add(1)
	s.hub.count.messageBytes.Add(int64(size))
	return nil
}
