package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// MessageProperty is an application property of a cloud-to-device message.
type MessageProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// DeviceboundMessage is a cloud-to-device message to send.
type DeviceboundMessage struct {
	Body            []byte            `json:"body,omitempty"`
	MessageID       string            `json:"messageId,omitempty"`
	CorrelationID   string            `json:"correlationId,omitempty"`
	ContentType     string            `json:"contentType,omitempty"`
	ContentEncoding string            `json:"contentEncoding,omitempty"`
	Ack             string            `json:"ack,omitempty"`
	TimeToLive      int64             `json:"timeToLiveSeconds,omitempty"`
	Properties      []MessageProperty `json:"properties,omitempty"`
}

// QueuedMessage is a message that waits for its device.
type QueuedMessage struct {
	Sequence      uint64            `json:"sequence"`
	MessageID     string            `json:"messageId"`
	EnqueuedTime  time.Time         `json:"enqueuedTime"`
	ExpiryTime    time.Time         `json:"expiryTime"`
	DeliveryCount int               `json:"deliveryCount"`
	Invisible     bool              `json:"invisible"`
	Ack           string            `json:"ack"`
	Body          []byte            `json:"body"`
	Properties    []MessageProperty `json:"properties"`
}

// Feedback says what became of a message.
type Feedback struct {
	MessageID    string    `json:"originalMessageId"`
	Time         time.Time `json:"enqueuedTimeUtc"`
	Status       string    `json:"statusCode"`
	Description  string    `json:"description"`
	DeviceID     string    `json:"deviceId"`
	GenerationID string    `json:"deviceGenerationId"`
}

func messagesPath(deviceID string) string {
	return "/api/v1/devices/" + url.PathEscape(deviceID) + "/messages/devicebound"
}

// SendMessage puts a message into the device's queue.
func (s *Service) SendMessage(ctx context.Context, deviceID string, m DeviceboundMessage) (QueuedMessage, error) {
	var out QueuedMessage
	err := s.Do(ctx, Request{Method: http.MethodPost, Path: messagesPath(deviceID), Body: m}, &out)
	return out, err
}

// Messages lists up to limit (at most 50) of a device's waiting messages.
func (s *Service) Messages(ctx context.Context, deviceID string, limit int) ([]QueuedMessage, error) {
	var out struct {
		Items []QueuedMessage `json:"items"`
	}
	err := s.Do(ctx, Request{Method: http.MethodGet, Path: messagesPath(deviceID), Query: url.Values{"limit": {strconv.Itoa(limit)}}}, &out)
	return out.Items, err
}

// PurgeMessages removes a device's messages and returns how many there were.
func (s *Service) PurgeMessages(ctx context.Context, deviceID string) (int, error) {
	var out struct {
		Purged int `json:"totalMessagesPurged"`
	}
	err := s.Do(ctx, Request{Method: http.MethodDelete, Path: messagesPath(deviceID)}, &out)
	return out.Purged, err
}

// ReceiveFeedback hands out at most 64 records of feedback for 60 s; token is
// empty when there are none.
func (s *Service) ReceiveFeedback(ctx context.Context) (list []Feedback, token string, err error) {
	var out struct {
		LockToken string     `json:"lockToken"`
		Items     []Feedback `json:"items"`
	}
	err = s.Do(ctx, Request{Method: http.MethodPost, Path: "/api/v1/feedback/receive"}, &out)
	return out.Items, out.LockToken, err
}

// CompleteFeedback removes feedback that was received.
func (s *Service) CompleteFeedback(ctx context.Context, token string) error {
	return s.Do(ctx, Request{Method: http.MethodDelete, Path: "/api/v1/feedback/" + url.PathEscape(token)}, nil)
}
