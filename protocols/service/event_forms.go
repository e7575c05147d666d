package service

import (
	"bytes"
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/muster-hub/muster/engine"
)

// eventForm is a schema in which events are told. Its number is that of the
// form that readers of one event share.
type eventForm struct {
	name   string
	number int
	encode func(*engine.Event) []byte // the whole server-sent event
}

// eventForms are the schemas by name; the first is that of who names none.
func eventForms(hub *engine.Hub) []eventForm {
	i := newIoTHub(hub)
	return []eventForm{
		{name: "muster", number: 0, encode: func(e *engine.Event) []byte { return eventText(e, showEvent(e)) }},
		{name: "iothub", number: 1, encode: func(e *engine.Event) []byte {
			if d, ok := i.show(e); ok {
				return eventText(e, d)
			}
			return nil
		}},
	}
}

// appendText adds the event as a server-sent event, unless the schema has no
// words for it.
func (f eventForm) appendText(b []byte, e *engine.Event) []byte {
	return append(b, e.Form(f.number, f.encode)...)
}

// appendDocument adds the document in that.
func (f eventForm) appendDocument(b []byte, e *engine.Event) []byte {
	return append(b, eventJSON(e.Form(f.number, f.encode))...)
}

// eventList is events in a schema.
type eventList struct {
	form eventForm
	list []*engine.Event
}

func (l eventList) count() int                            { return len(l.list) }
func (l eventList) appendText(b []byte, i int) []byte     { return l.form.appendText(b, l.list[i]) }
func (l eventList) appendDocument(b []byte, i int) []byte { return l.form.appendDocument(b, l.list[i]) }

// eventText is a server-sent event.
func eventText(e *engine.Event, document any) []byte {
	data, err := encodeEvent(document)
	if err != nil {
		// A change whose data is no JSON can't have been stored; it is told without.
		data, _ = encodeEvent(eventDocument{Cursor: e.Cursor, Kind: e.Kind, Time: e.Time, DeviceID: e.ID.DeviceID, ModuleID: e.ID.ModuleID})
	}
	b := make([]byte, 0, len(e.Cursor)+len(e.Kind)+len(data)+32)
	b = append(append(b, "id: "...), e.Cursor...)
	b = append(append(b, "\nevent: "...), e.Kind...)
	b = append(append(b, dataField...), data...)
	return append(b, "\n\n"...)
}

// encodeEvent is json.Marshal without the escapes for HTML, which make markup
// six times as long.
func encodeEvent(document any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(document)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

const dataField = "\ndata: "

// eventJSON is the document in a server-sent event that eventText made.
func eventJSON(text []byte) []byte {
	i := bytes.Index(text, []byte(dataField))
	if i < 0 {
		return nil
	}
	return text[i+len(dataField) : len(text)-2]
}

// appendPage adds events as a page in JSON. shown is how many the schema has
// words for.
func appendPage(b []byte, list tellable, cursor string) (page []byte, shown int) {
	b = append(b, `{"events":[`...)
	for i := range list.count() {
		from := len(b)
		if shown > 0 {
			b = append(b, ',')
		}
		begin := len(b)
		if b = list.appendDocument(b, i); len(b) == begin {
			b = b[:from]
			continue
		}
		shown++
	}
	b = append(append(b, `],"cursor":"`...), cursor...)
	return append(b, `"}`...), shown
}

type eventPage struct {
	Events []eventDocument `json:"events"`
	Cursor string          `json:"cursor" doc:"Where the next page begins."`
}

type eventDocument struct {
	Cursor    string             `json:"cursor" doc:"Resumes right after this event."`
	Kind      string             `json:"kind" doc:"telemetry, twin.reported, identity.created, session.connected and so on; gap where events are gone."`
	Time      time.Time          `json:"time"`
	DeviceID  string             `json:"deviceId,omitempty"`
	ModuleID  string             `json:"moduleId,omitempty"`
	Principal string             `json:"principal,omitempty"`
	Cause     string             `json:"cause,omitempty"`
	Version   int64              `json:"version,omitempty"`
	Data      json.RawMessage    `json:"data,omitempty" doc:"What was written."`
	Twin      json.RawMessage    `json:"twin,omitempty" doc:"The whole twin, after a change that replaced it, or as it was when its identity was deleted, up to 16 KiB."`
	Message   *telemetryDocument `json:"message,omitempty" doc:"Of telemetry."`
}

type telemetryDocument struct {
	Body       any               `json:"body" doc:"JSON as it came, text as a string, anything else as base64, also text that is mostly control characters."`
	Encoding   string            `json:"encoding" enum:"json,text,base64"`
	Properties map[string]string `json:"properties" doc:"The application's."`
	System     map[string]string `json:"systemProperties" doc:"By IoT Hub's names."`
}

func showEvent(e *engine.Event) eventDocument {
	d := eventDocument{
		Cursor: e.Cursor, Kind: e.Kind, Time: e.Time, DeviceID: e.ID.DeviceID, ModuleID: e.ID.ModuleID,
		Principal: e.Principal, Cause: e.Cause, Version: e.Version, Data: e.Data, Twin: e.Twin,
	}
	if m := e.Message; m != nil {
		d.Message = &telemetryDocument{Properties: propertyMap(m.Properties), System: propertyMap(m.System)}
		d.Message.Body, d.Message.Encoding = showBody(m.Body)
	}
	return d
}

// showBody is a message's body as JSON, and how it was made so. Text whose
// escapes would make it several times as long goes as base64, so that a page
// stays about as large as what it tells.
func showBody(body []byte) (shown any, encoding string) {
	switch {
	case json.Valid(body):
		return json.RawMessage(body), "json"
	case utf8.Valid(body) && controls(body) <= len(body)/5:
		return string(body), "text"
	default:
		return body, "base64"
	}
}

// controls counts the bytes that JSON writes as six.
func controls(text []byte) (n int) {
	for _, c := range text {
		if c < ' ' && c != '\n' && c != '\r' && c != '\t' {
			n++
		}
	}
	return n
}

func propertyMap(list []engine.Property) map[string]string {
	m := make(map[string]string, len(list))
	for _, p := range list {
		m[p.Name] = p.Value
	}
	return m
}
