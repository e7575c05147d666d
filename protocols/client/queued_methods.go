package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// QueuedMethod is a direct method call that may wait for its device.
type QueuedMethod struct {
	ID              string          `json:"id"`
	DeviceID        string          `json:"deviceId"`
	ModuleID        string          `json:"moduleId,omitempty"`
	Name            string          `json:"methodName"`
	Payload         json.RawMessage `json:"payload,omitempty"`
	ResponseTimeout int             `json:"responseTimeoutInSeconds"`
	Status          string          `json:"status"` // queued, sending, succeeded, failed, expired, canceled, uncertain
	Attempt         int             `json:"attempt"`
	Created         Time            `json:"createdTime"`
	Deadline        Time            `json:"deadlineTime"`
	Sent            Time            `json:"sentTime,omitzero"`
	Finished        Time            `json:"finishedTime,omitzero"`
	Response        *MethodResult   `json:"response,omitempty"`
	Code            string          `json:"code,omitempty"`
	Message         string          `json:"message,omitempty"`
	Principal       string          `json:"principal"`
	Cause           string          `json:"cause,omitempty"`
}

// Final reports whether the call has ended.
func (q *QueuedMethod) Final() bool { return q.Status != "queued" && q.Status != "sending" }

func queuedPath(deviceID, moduleID string) string {
	return identityPath("/api/v1/devices", deviceID, moduleID) + "/method-calls"
}

// QueueMethod queues a call for at most wait, in whole seconds. key makes a
// repetition harmless; empty sends none.
func (s *Service) QueueMethod(ctx context.Context, deviceID, moduleID string, c MethodCall, wait time.Duration, key string) (QueuedMethod, error) {
	body := struct {
		Name            string          `json:"methodName"`
		Payload         json.RawMessage `json:"payload,omitempty"`
		ResponseTimeout int             `json:"responseTimeoutInSeconds,omitempty"`
		Wait            int             `json:"waitForDeviceInSeconds"`
	}{c.Name, c.Payload, int(c.ResponseTimeout / time.Second), int(wait / time.Second)}
	var q QueuedMethod
	err := s.Do(ctx, Request{Method: http.MethodPost, Path: queuedPath(deviceID, moduleID), Key: key, Body: body}, &q)
	return q, err
}

// QueuedMethod returns a queued call: at once, or when it ends within wait,
// at most a minute.
func (s *Service) QueuedMethod(ctx context.Context, deviceID, moduleID, id string, wait time.Duration) (QueuedMethod, error) {
	var q QueuedMethod
	err := s.Do(ctx, Request{
		Method: http.MethodGet, Path: queuedPath(deviceID, moduleID) + "/" + url.PathEscape(id),
		Query: url.Values{"wait": {strconv.Itoa(int(wait / time.Second))}},
	}, &q)
	return q, err
}

// CancelQueuedMethod takes back a call that was not sent yet.
func (s *Service) CancelQueuedMethod(ctx context.Context, deviceID, moduleID, id string) (QueuedMethod, error) {
	var q QueuedMethod
	err := s.Do(ctx, Request{Method: http.MethodPost, Path: queuedPath(deviceID, moduleID) + "/" + url.PathEscape(id) + "/cancel"}, &q)
	return q, err
}

// QueuedMethods walks the queued calls of an identity, the oldest first, or of
// the whole hub when deviceID is empty; of one status when it is not empty.
func (s *Service) QueuedMethods(ctx context.Context, deviceID, moduleID, status string) iter.Seq2[QueuedMethod, error] {
	path := "/api/v1/method-calls"
	if deviceID != "" {
		path = queuedPath(deviceID, moduleID)
	}
	q := url.Values{}
	if status != "" {
		q.Set("status", status)
	}
	return pages[QueuedMethod](ctx, s, path, q, 100)
}
