package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
)

// LiveAsk is a query whose result is to be followed.
type LiveAsk struct {
	Query  string // SELECT ...; it, Where or Name
	Where  string // a bare predicate
	Source string // of Where: devices (when empty) or modules
	Name   string // of a saved query
	Cursor string // of the event after which to go on; "" = from a snapshot
}

// LiveEvent is one step of a result.
type LiveEvent struct {
	Cursor   string          `json:"cursor"`
	Kind     string          `json:"kind"` // row, current, enter, change, leave, reset
	Time     Time            `json:"time"`
	DeviceID string          `json:"deviceId"`
	ModuleID string          `json:"moduleId"`
	Position uint64          `json:"position"` // of the newest commit when this was so
	Row      json.RawMessage `json:"row"`      // of row, enter and change: what the query shows

	Raw json.RawMessage `json:"-"` // as it came
}

// FollowQuery reads the live result of a query until see returns an error, or
// the stream ends; errors and cursor are as Follow has them. After an event of
// the kind reset the cursor is empty: what was folded so far is void.
func (s *Service) FollowQuery(ctx context.Context, q LiveAsk, see func(LiveEvent) error) (cursor string, err error) {
	values := url.Values{}
	for name, value := range map[string]string{"query": q.Query, "where": q.Where, "source": q.Source, "name": q.Name, "cursor": q.Cursor} {
		if value != "" {
			values.Set(name, value)
		}
	}
	return s.follow(ctx, "/api/v1/query/live", values, func(data []byte) (string, error) {
		e := LiveEvent{Raw: data}
		if err := json.Unmarshal(data, &e); err != nil {
			return "", fmt.Errorf("read the hub's event: %w", err)
		}
		return e.Cursor, see(e)
	})
}
