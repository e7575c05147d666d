package engine

import "context"

// SendTelemetry stores messages of a device that has no session, as the HTTPS
// device API takes them, and returns when all of them are durable. It looks at
// the size of all together before it stores the first. With an error a part of
// a batch may be stored.
func (h *Hub) SendTelemetry(ctx context.Context, g Grant, list []Message) error {
	size := 0
	encoded := make([][]byte, 0, len(list))
	for _, m := range list {
		size += m.size()
		data, err := encodeMessage(g, "", m)
		if err != nil {
			return storeError(err, "store telemetry")
		}
		encoded = append(encoded, data)
	}
	if most := h.limits.MessageBytes; size > most {
		return errf(CodeTooLarge, "the request has %d bytes of messages with their properties, at most %d are allowed", size, most)
	}
	stored := make(chan error, len(encoded))
	for _, data := range encoded {
		if err := h.db.Messages().Append(data, func(_ uint64, err error) { stored <- err }); err != nil {
			return storeError(err, "store telemetry")
		}
	}
	for range encoded {
		select {
		case err := <-stored:
			if err != nil {
				return storeError(err, "store telemetry")
			}
		case <-ctx.Done():
			return storeError(ctx.Err(), "store telemetry")
		}
	}
	h.sessions.activity.note(g.ID)
	h.count.messages.Add(int64(len(list)))
	h.count.messageBytes.Add(int64(size))
	return nil
}
