package engine

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// cloudEvent is a CloudEvent 1.0 in its JSON form.
type cloudEvent struct {
	SpecVersion string         `json:"specversion"`
	ID          string         `json:"id"`
	Source      string         `json:"source"`
	Type        string         `json:"type"`
	Subject     string         `json:"subject,omitempty"`
	Time        time.Time      `json:"time"`
	ContentType string         `json:"datacontenttype"`
	Data        cloudEventData `json:"data"`
}

// cloudEventData is a change, or a device-to-cloud message.
type cloudEventData struct {
	DeviceID  string          `json:"deviceId,omitempty"`
	ModuleID  string          `json:"moduleId,omitempty"`
	Principal string          `json:"principal,omitempty"`
	Cause     string          `json:"cause,omitempty"`
	Version   int64           `json:"version,omitempty"`
	Change    json.RawMessage `json:"change,omitempty"`

	Body       json.RawMessage   `json:"body,omitempty"`     // of a message
	Encoding   string            `json:"encoding,omitempty"` // of the body: json, text or base64
	Properties map[string]string `json:"properties,omitempty"`
	System     map[string]string `json:"systemProperties,omitempty"`
}

// Encodings of a message's body in JSON.
const (
	bodyJSON   = "json"
	bodyText   = "text"
	bodyBase64 = "base64"
)

// cloudEvent makes the event that is posted. Its id is unique together with
// its source, also after a restore.
func (h *Hub) cloudEvent(e *Event) cloudEvent {
	epoch := h.db.Epoch().ID
	id := epoch[:min(len(epoch), 8)]
	switch {
	case e.Message != nil:
		id += "-m" + strconv.FormatUint(e.Message.Position, 10)
	case e.Position > 0:
		id += "-c" + strconv.FormatUint(e.Position, 10)
	default:
		id += "-g" + strconv.FormatUint(e.at.change, 10) + "." + strconv.FormatUint(e.at.message, 10)
	}
	c := cloudEvent{
		SpecVersion: "1.0", ID: id, Source: "muster://" + h.about.hosts[0], Type: "muster." + e.Kind,
		Time: e.Time.UTC(), ContentType: "application/json",
		Data: cloudEventData{DeviceID: e.ID.DeviceID, ModuleID: e.ID.ModuleID, Principal: e.Principal, Cause: e.Cause, Version: e.Version, Change: e.Data},
	}
	if e.ID.DeviceID != "" {
		c.Subject = "devices/" + e.ID.DeviceID
		if e.ID.ModuleID != "" {
			c.Subject += "/modules/" + e.ID.ModuleID
		}
	}
	if m := e.Message; m != nil {
		c.Data.Body, c.Data.Encoding = webhookBody(m.Body)
		c.Data.Properties, c.Data.System = propertyMap(m.Properties), propertyMap(m.System)
	}
	return c
}

// webhookBody is a message's body as a JSON value. Text whose escapes would
// make it several times as long goes as base64.
func webhookBody(body []byte) (json.RawMessage, string) {
	if len(body) > 0 && json.Valid(body) {
		return body, bodyJSON
	}
	if utf8.Valid(body) {
		if text, err := marshal(string(body)); err == nil && len(text) <= 2*len(body)+2 {
			return text, bodyText
		}
	}
	text := make([]byte, base64.StdEncoding.EncodedLen(len(body))+2)
	base64.StdEncoding.Encode(text[1:], body)
	text[0], text[len(text)-1] = '"', '"'
	return text, bodyBase64
}

// raw is a message's body as it came.
func (d *cloudEventData) raw() ([]byte, error) {
	if d.Encoding == bodyJSON {
		return d.Body, nil
	}
	var text string
	if err := json.Unmarshal(d.Body, &text); err != nil {
		return nil, err
	}
	if d.Encoding == bodyBase64 {
		return base64.StdEncoding.DecodeString(text)
	}
	return []byte(text), nil
}

func propertyMap(list []Property) map[string]string {
	if len(list) == 0 {
		return nil
	}
	m := make(map[string]string, len(list))
	for _, p := range list {
		m[p.Name] = p.Value
	}
	return m
}

// webhookPropertyBytes bounds the header of a message's properties in binary mode.
const webhookPropertyBytes = 4 << 10

// webhookRequest is the body of a request and the headers that describe it.
func webhookRequest(mode WebhookMode, list []cloudEvent) (id string, header map[string]string, body []byte, err error) {
	header = map[string]string{}
	switch mode {
	case WebhookBatch:
		header["Content-Type"] = "application/cloudevents-batch+json"
		sum := sha256.New()
		body = []byte{'['}
		for i, e := range list {
			text, err := marshal(e)
			if err != nil {
				return "", nil, nil, err
			}
			if i > 0 {
				body = append(body, ',')
			}
			body = append(body, text...)
			sum.Write([]byte(e.ID + "\n"))
		}
		return hex.EncodeToString(sum.Sum(nil)[:16]), header, append(body, ']'), nil
	case WebhookBinary:
		e := list[0]
		binaryHeaders(header, e)
		if e.Data.Encoding == "" {
			header["Content-Type"] = e.ContentType
			body, err = marshal(e.Data)
			return e.ID, header, body, err
		}
		header["Content-Type"] = messageType(&e.Data)
		body, err = e.Data.raw()
		return e.ID, header, body, err
	default:
		header["Content-Type"] = "application/cloudevents+json"
		body, err = marshal(list[0])
		return list[0].ID, header, body, err
	}
}

// binaryHeaders writes the attributes of an event as headers, with the device
// as extension attributes.
func binaryHeaders(header map[string]string, e cloudEvent) {
	for name, value := range map[string]string{
		"Ce-Specversion": e.SpecVersion, "Ce-Id": e.ID, "Ce-Source": e.Source, "Ce-Type": e.Type, "Ce-Subject": e.Subject,
		"Ce-Time": e.Time.Format(time.RFC3339Nano), "Ce-Deviceid": e.Data.DeviceID, "Ce-Moduleid": e.Data.ModuleID,
	} {
		if value != "" {
			header[name] = percentEncode(value)
		}
	}
	q := url.Values{}
	for name, value := range e.Data.Properties {
		q.Set(name, value)
	}
	if text := q.Encode(); text != "" && len(text) <= webhookPropertyBytes {
		header["Muster-Properties"] = text
	}
}

// percentEncode is the encoding of CloudEvents' HTTP binding for what a header
// can't hold.
func percentEncode(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '%' }) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || c == '"' || c == '%' {
			b.WriteString("%" + strings.ToUpper(hex.EncodeToString([]byte{c})))
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// messageType is the content type that the device named, when it can stand in
// a header, else what the body is.
func messageType(d *cloudEventData) string {
	t := d.System["content-type"]
	plain := !strings.ContainsFunc(t, func(r rune) bool { return r < ' ' || r > '~' })
	switch {
	case plain && strings.Contains(t, "/") && len(t) <= 128 && !strings.HasPrefix(strings.ToLower(t), "application/cloudevents"):
		return t
	case d.Encoding == bodyJSON:
		return "application/json"
	case d.Encoding == bodyText:
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// signWebhook is the signature of Standard Webhooks, version 1.
func signWebhook(secret []byte, id string, at time.Time, body []byte) string {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
	m.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil))
}
