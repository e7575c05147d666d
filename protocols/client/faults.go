package client

import (
	"context"
	"iter"
	"net/http"
)

// Fault makes one identity's connection bad on purpose, for a while.
type Fault struct {
	DeviceID        string  `json:"deviceId,omitempty"`
	ModuleID        string  `json:"moduleId,omitempty"`
	Drop            float64 `json:"drop"`                   // share of messages, 0 to 1
	Delay           float64 `json:"delaySeconds"`           // of what the device sends
	DisconnectEvery float64 `json:"disconnectEverySeconds"` // 0: never
	For             float64 `json:"-"`                      // only when adding; 0: 10 minutes
	Created         Time    `json:"createdTime,omitzero"`
	Expires         Time    `json:"expiresTime,omitzero"`
	Principal       string  `json:"principal,omitempty"`
}

// AddFault puts a fault in force.
func (s *Service) AddFault(ctx context.Context, f Fault) (Fault, error) {
	body := struct {
		Drop            float64 `json:"drop"`
		Delay           float64 `json:"delaySeconds"`
		DisconnectEvery float64 `json:"disconnectEverySeconds"`
		For             float64 `json:"forSeconds,omitempty"`
	}{f.Drop, f.Delay, f.DisconnectEvery, f.For}
	var out Fault
	err := s.Do(ctx, Request{Method: http.MethodPut, Path: identityPath("/api/v1/devices", f.DeviceID, f.ModuleID) + "/fault", Body: body}, &out)
	return out, err
}

// RemoveFault ends a fault.
func (s *Service) RemoveFault(ctx context.Context, deviceID, moduleID string) error {
	return s.Do(ctx, Request{Method: http.MethodDelete, Path: identityPath("/api/v1/devices", deviceID, moduleID) + "/fault"}, nil)
}

// Faults walks the faults in force.
func (s *Service) Faults(ctx context.Context) iter.Seq2[Fault, error] {
	return pages[Fault](ctx, s, "/api/v1/faults", nil, 100)
}
