package simulator

import (
	"context"
	"encoding/json"

	"github.com/muster-hub/muster/protocols/client"
)

// HubSource is a running hub as a Source.
func HubSource(s *client.Service) Source { return hubSource{s} }

type hubSource struct{ s *client.Service }

// Position asks the hub.
func (h hubSource) Position(ctx context.Context) (client.Position, error) { return h.s.Position(ctx) }

// Twin asks the hub.
func (h hubSource) Twin(ctx context.Context, device string) (reported, desired json.RawMessage, err error) {
	t, err := h.s.Twin(ctx, device, "")
	if client.IsNotFound(err) {
		err = ErrNoDevice
	}
	return t.Properties.Reported, t.Properties.Desired, err
}

// Messages reads pages of events until it comes to where the log of messages
// ended when it began.
func (h hubSource) Messages(ctx context.Context, see func(device, id string) error) error {
	_, end, err := h.s.Events(ctx, client.EventQuery{Limit: 1}) // now
	if err != nil {
		return err
	}
	q := client.EventQuery{Kinds: []string{"telemetry"}, Cursor: "start", Limit: 1000}
	for {
		list, next, err := h.s.Events(ctx, q)
		if err != nil {
			return err
		}
		for _, e := range list {
			if e.Message == nil {
				continue
			}
			if err := see(e.DeviceID, e.Message.System["message-id"]); err != nil {
				return err
			}
		}
		if next == q.Cursor || client.CursorCovers(next, end) {
			return nil
		}
		q.Cursor = next
	}
}
