package client

import (
	"context"
	"iter"
)

// ConnectionEnd is an ended connection of an identity, and why it ended.
type ConnectionEnd struct {
	Number   uint64  `json:"number"`
	Began    Time    `json:"beganTime"`
	Ended    Time    `json:"endedTime"`
	Seconds  float64 `json:"seconds"`
	Protocol string  `json:"protocol"`
	Address  string  `json:"address"`
	Code     string  `json:"code"`
	Reason   string  `json:"reason"`
	Refused  int     `json:"refused,omitempty"` // attempts in a row; 0 for a connection
}

// Connections walks the ended connections of an identity, newest first.
func (s *Service) Connections(ctx context.Context, deviceID, moduleID string) iter.Seq2[ConnectionEnd, error] {
	return pages[ConnectionEnd](ctx, s, identityPath("/api/v1/devices", deviceID, moduleID)+"/connections", nil, 50)
}
