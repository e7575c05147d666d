package engine

import (
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/muster-hub/muster/storage"
)

// StoredMessage is a device-to-cloud message as the hub keeps it.
type StoredMessage struct {
	Position   uint64
	ID         TwinID
	Enqueued   time.Time // UTC
	Body       []byte
	Properties []Property // the application's
	// System holds the device's and the hub's own, by IoT Hub's names
	// ("message-id", "iothub-connection-device-id", "iothub-enqueuedtime", ...).
	System []Property
}

// messageRecord is the head of a stored message; the body follows it as it
// came. Names never change their meaning.
type messageRecord struct {
	DeviceID   string     `json:"d"`
	ModuleID   string     `json:"m,omitempty"`
	Generation string     `json:"g,omitempty"`
	Method     string     `json:"a,omitempty"` // of authentication
	ModelID    string     `json:"i,omitempty"` // announced by the session
	Properties []Property `json:"p,omitempty"`
	System     []Property `json:"s,omitempty"`
}

const messageVersion = 1

// encodeMessage is a version byte, the length of the head, the head as JSON
// and the body.
func encodeMessage(g Grant, modelID string, m Message) ([]byte, error) {
	head, err := json.Marshal(messageRecord{
		DeviceID: g.ID.DeviceID, ModuleID: g.ID.ModuleID, Generation: g.GenerationID, Method: g.Method, ModelID: modelID,
		Properties: m.Properties, System: m.System,
	})
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, 1+binary.MaxVarintLen64+len(head)+len(m.Body))
	b = binary.AppendUvarint(append(b, messageVersion), uint64(len(head)))
	return append(append(b, head...), m.Body...), nil
}

// decodeMessage reads an entry of the message log. The body aliases it.
func decodeMessage(e storage.Entry) (StoredMessage, error) {
	bad := errf(CodeInternal, "message %d of the message log has a shape that this program does not know", e.Position)
	if len(e.Data) == 0 || e.Data[0] != messageVersion {
		return StoredMessage{}, bad
	}
	n, w := binary.Uvarint(e.Data[1:])
	if w <= 0 || n > uint64(len(e.Data)-1-w) {
		return StoredMessage{}, bad
	}
	rest := e.Data[1+w:]
	var r messageRecord
	if err := json.Unmarshal(rest[:n], &r); err != nil {
		return StoredMessage{}, wrapf(CodeInternal, err, "message %d of the message log: %v", e.Position, err)
	}
	m := StoredMessage{
		Position: e.Position, ID: TwinID{r.DeviceID, r.ModuleID}, Enqueued: e.Time, Body: rest[n:],
		Properties: r.Properties, System: r.System,
	}
	for _, p := range []Property{
		{Name: "iothub-connection-device-id", Value: r.DeviceID},
		{Name: "iothub-connection-module-id", Value: r.ModuleID},
		{Name: "iothub-connection-auth-generation-id", Value: r.Generation},
		{Name: "iothub-connection-auth-method", Value: r.Method},
		{Name: "iothub-enqueuedtime", Value: e.Time.Format("2006-01-02T15:04:05.000Z")},
		{Name: "iothub-message-source", Value: "Telemetry"},
		{Name: "dt-dataschema", Value: r.ModelID},
	} {
		if p.Value != "" {
			m.System = append(m.System, p)
		}
	}
	return m, nil
}
