package service

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

const tagMessages = "Cloud-to-device messages"

type messageProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type messageBody struct {
	Body       string `json:"body,omitempty" doc:"Base64."`
	MessageID  string `json:"messageId,omitempty" doc:"Made up when absent."`
	Ack        string `json:"ack,omitempty" enum:"none,positive,negative,full"`
	TimeToLive int    `json:"timeToLiveSeconds,omitempty" doc:"1 to 172800; 3600 when absent."`

	CorrelationID   string            `json:"correlationId,omitempty"`
	ContentType     string            `json:"contentType,omitempty"`
	ContentEncoding string            `json:"contentEncoding,omitempty"`
	Properties      []messageProperty `json:"properties,omitempty"`
}

type messageDocument struct {
	Sequence      uint64            `json:"sequence"`
	MessageID     string            `json:"messageId"`
	EnqueuedTime  time.Time         `json:"enqueuedTime"`
	ExpiryTime    time.Time         `json:"expiryTime"`
	DeliveryCount int               `json:"deliveryCount"`
	Invisible     bool              `json:"invisible" doc:"Handed out, not completed yet."`
	Ack           string            `json:"ack"`
	Body          string            `json:"body" doc:"Base64."`
	Properties    []messageProperty `json:"properties"`

	CorrelationID   string `json:"correlationId,omitempty"`
	ContentType     string `json:"contentType,omitempty"`
	ContentEncoding string `json:"contentEncoding,omitempty"`
}

type purgeResult struct {
	Purged   int     `json:"totalMessagesPurged"`
	DeviceID string  `json:"deviceId"`
	ModuleID *string `json:"moduleId"`
}

type feedbackResult struct {
	LockToken string            `json:"lockToken" doc:"Empty when there is no feedback."`
	Items     []engine.Feedback `json:"items"`
}

func messageRoutes() []*route {
	const connect = auth.ServiceConnect
	own := "/api/v1/devices/{id}/messages/devicebound"
	table := []*route{
		{method: http.MethodPost, pattern: own, operation: "sendMessage", tag: tagMessages, permission: connect, idempotent: true,
			summary: "Puts a message into the device's queue.", request: messageBody{}, response: messageDocument{}, held: true, handle: sendMessage},
		{method: http.MethodGet, pattern: own, operation: "listMessages", tag: tagMessages, permission: connect,
			summary: "Lists the device's waiting messages in order.", response: page[messageDocument]{}, handle: listMessages,
			query: []parameter{{name: "limit", kind: "integer", text: "At most so many, 1 to 50; 50 when absent."}, {name: "cursor", kind: "string", text: "The cursor of the page before."}}},
		{method: http.MethodDelete, pattern: own, operation: "purgeOwnMessages", tag: tagMessages, permission: connect,
			summary: "Removes the device's messages.", response: purgeResult{}, handle: purgeMessages},
		{method: http.MethodPost, pattern: "/api/v1/feedback/receive", operation: "receiveFeedback", tag: tagMessages, permission: connect, idempotent: true,
			summary: "Hands out at most 64 records of feedback for 60 s.", response: feedbackResult{}, handle: receiveFeedback},
		{method: http.MethodDelete, pattern: "/api/v1/feedback/{token}", operation: "completeFeedback", tag: tagMessages, permission: connect,
			summary: "Removes feedback that was received.", status: http.StatusNoContent, handle: completeFeedback},
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	const batch = "/messages/serviceBound/feedback"
	return append(table,
		&route{method: http.MethodGet, pattern: batch, operation: "receiveFeedbackBatch", tag: tagMessages, permission: connect,
			summary: "Hands out a batch of feedback for 60 s; the ETag is its lock token. 204 when there is none.", response: []engine.Feedback{}, handle: receiveBatch},
		&route{method: http.MethodDelete, pattern: batch + "/{token}", operation: "completeFeedbackBatch", tag: tagMessages, permission: connect,
			summary: "Removes a batch of feedback.", status: http.StatusNoContent, handle: completeFeedback},
		&route{method: http.MethodPost, pattern: batch + "/{token}/abandon", operation: "abandonFeedbackBatch", tag: tagMessages, permission: connect,
			summary: "Lets a batch of feedback be received again.", status: http.StatusNoContent, handle: abandonFeedback},
		&route{method: http.MethodDelete, pattern: "/devices/{id}/commands", operation: "purgeMessages", tag: tagMessages, permission: connect,
			summary: "Removes the device's messages.", response: purgeResult{}, handle: purgeMessages})
}

func sendMessage(c *call) (answer, error) {
	f, err := c.members("body", "messageId", "ack", "timeToLiveSeconds", "correlationId", "contentType", "contentEncoding", "properties")
	if err != nil {
		return answer{}, err
	}
	var m engine.DeviceboundMessage
	var encoded string
	for _, t := range []struct {
		key string
		to  *string
	}{
		{"body", &encoded}, {"messageId", &m.MessageID}, {"correlationId", &m.CorrelationID}, {"ack", &m.Ack},
		{"contentType", &m.ContentType}, {"contentEncoding", &m.ContentEncoding},
	} {
		if *t.to, err = f.text(t.key); err != nil {
			return answer{}, err
		}
	}
	if m.Body, err = base64.StdEncoding.DecodeString(encoded); err != nil {
		return answer{}, badFormat("body is not base64")
	}
	if n, ok, err := f.integer("timeToLiveSeconds"); err != nil {
		return answer{}, err
	} else if ok {
		if n < 1 || n > 172800 {
			return answer{}, invalid("timeToLiveSeconds is %d; expected 1 to 172800", n)
		}
		m.Expires = time.Now().Add(time.Duration(n) * time.Second)
	}
	if raw, ok := f.get("properties"); ok {
		list, err := elements(raw, "properties", 100)
		if err != nil {
			return answer{}, err
		}
		for _, e := range list {
			p, err := object(e, "properties")
			if err != nil {
				return answer{}, err
			}
			name, err := p.text("name")
			if err != nil {
				return answer{}, err
			}
			value, err := p.text("value")
			if err != nil {
				return answer{}, err
			}
			m.Properties = append(m.Properties, engine.Property{Name: name, Value: value})
		}
	}
	q, err := c.hub.SendMessage(c.r.Context(), c.caller, c.target().DeviceID, m)
	return answer{body: showMessage(q)}, err
}

func showMessage(q engine.QueuedMessage) messageDocument {
	d := messageDocument{
		Sequence: q.Sequence, MessageID: q.MessageID, EnqueuedTime: q.Enqueued, ExpiryTime: q.Expires, DeliveryCount: q.Deliveries,
		Invisible: q.Invisible, Ack: q.Ack, Body: base64.StdEncoding.EncodeToString(q.Body), Properties: []messageProperty{},
		CorrelationID: q.CorrelationID, ContentType: q.ContentType, ContentEncoding: q.ContentEncoding,
	}
	for _, p := range q.Properties {
		d.Properties = append(d.Properties, messageProperty{p.Name, p.Value})
	}
	return d
}

func listMessages(c *call) (answer, error) {
	limit, err := c.integer("limit", 50, 1, 50)
	if err != nil {
		return answer{}, err
	}
	after := uint64(0)
	if t := c.query.Get("cursor"); t != "" {
		n, err := strconv.ParseUint(t, 10, 64)
		if err != nil {
			return answer{}, invalid("cursor is not one of this list")
		}
		after = n
	}
	list, _, err := c.hub.Messages(c.r.Context(), c.caller, c.target().DeviceID, after, limit)
	p := page[messageDocument]{Items: show(list, showMessage)}
	if len(list) == limit {
		p.Cursor = strconv.FormatUint(list[limit-1].Sequence, 10)
	}
	return answer{body: p}, err
}

func purgeMessages(c *call) (answer, error) {
	id := c.target().DeviceID
	n, err := c.hub.PurgeMessages(c.r.Context(), c.caller, id)
	return answer{body: purgeResult{Purged: n, DeviceID: id}}, err
}

func receiveFeedback(c *call) (answer, error) {
	list, token, err := c.hub.ReceiveFeedback(c.r.Context(), c.caller)
	if list == nil {
		list = []engine.Feedback{}
	}
	return answer{body: feedbackResult{token, list}}, err
}

func completeFeedback(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.CompleteFeedback(c.r.Context(), c.caller, c.params[0])
}

func abandonFeedback(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.AbandonFeedback(c.r.Context(), c.caller, c.params[0])
}

func receiveBatch(c *call) (answer, error) {
	list, token, err := c.hub.ReceiveFeedback(c.r.Context(), c.caller)
	if err == nil && token == "" {
		return answer{status: http.StatusNoContent}, nil
	}
	return answer{body: list, etag: token, header: map[string]string{"Content-Type": "application/vnd.microsoft.iothub.feedback.json"}}, err
}
