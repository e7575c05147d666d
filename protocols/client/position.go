package client

import (
	"context"
	"net/http"
)

// Position says how far a hub's stores have come: what was acknowledged before
// it was asked for lies at or before it, what is sent after the answer behind.
type Position struct {
	Epoch         string `json:"epoch"`
	EpochNumber   uint32 `json:"epochNumber"`
	Sequence      uint64 `json:"sequence"`
	OldestMessage uint64 `json:"oldestMessage"`
	NewestMessage uint64 `json:"newestMessage"`
}

// Position asks how far the hub's stores have come.
func (s *Service) Position(ctx context.Context) (Position, error) {
	var p Position
	err := s.Do(ctx, Request{Method: http.MethodGet, Path: "/api/v1/position"}, &p)
	return p, err
}
