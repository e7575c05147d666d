package engine

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

// size is what counts against the limit: the body, the values of system
// properties, and the application's properties with their names.
func (m *Message) size() int {
	n := len(m.Body)
	for _, p := range m.System {
		n += len(p.Value)
	}
	for _, p := range m.Properties {
		n += len(p.Name) + len(p.Value)
	}
	return n
}

// SubmitTelemetry queues a device-to-cloud message for the store. done, when
// not nil, is called once it is durable or could not be stored; it must not
// block. The messages of one session are answered in the order in which they
// came. A will is also taken from a session that has ended, since that is when
// it is published.
// CodeThrottled means that the queue is full: nothing was taken.
func (s *Session) SubmitTelemetry(m Message, done func(error)) error {
	if err := s.Err(); err != nil && !m.Will {
		return err
	}
	s.announce()
	size := m.size()
	if most := s.hub.limits.MessageBytes; size > most {
		return errf(CodeTooLarge, "the message has %d bytes with its properties, at most %d are allowed", size, most)
	}
	data, err := encodeMessage(s.connection.Grant, s.connection.ModelID, m)
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
