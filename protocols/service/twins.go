package service

import (
	"encoding/json"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/twin"
)

// twinDocument is a twin as IoT Hub shows it. Sections are JSON as the twin
// package writes it: the text of numbers must come out as it went in.
type twinDocument struct {
	twinHead
	Tags       json.RawMessage `json:"tags,omitempty" schema:"object" doc:"Absent when there are none."`
	Properties twinProperties  `json:"properties"`
	twinTail
}

// twinHead is what comes before the sections, and twinTail what comes after.
type twinHead struct {
	DeviceID                  string      `json:"deviceId"`
	ModuleID                  string      `json:"moduleId,omitempty"`
	ETag                      string      `json:"etag" doc:"Moves with tags and desired properties; without quotes."`
	DeviceETag                string      `json:"deviceEtag" doc:"The identity's etag."`
	Status                    string      `json:"status" enum:"enabled,disabled"`
	StatusReason              *string     `json:"statusReason"`
	StatusUpdateTime          string      `json:"statusUpdateTime"`
	ConnectionState           string      `json:"connectionState" enum:"Connected,Disconnected"`
	LastActivityTime          string      `json:"lastActivityTime"`
	CloudToDeviceMessageCount int         `json:"cloudToDeviceMessageCount"`
	AuthenticationType        string      `json:"authenticationType" enum:"sas,selfSigned,certificateAuthority,none"`
	X509Thumbprint            thumbprints `json:"x509Thumbprint"`
	ModelID                   string      `json:"modelId"`
	Version                   int64       `json:"version" doc:"Grows with every change of the twin."`
}

type twinTail struct {
	Capabilities capabilities `json:"capabilities"`
	DeviceScope  string       `json:"deviceScope,omitempty"`
	ParentScopes []string     `json:"parentScopes,omitempty"`

	Configurations map[string]configurationStatus `json:"configurations,omitempty" doc:"Those that select it, by id; absent when there are none."`
}

type configurationStatus struct {
	Status engine.ConfigurationStatus `json:"status" enum:"Targeted,Applied" doc:"Targeted: others set all that it would."`
}

type twinProperties struct {
	Desired  json.RawMessage `json:"desired" schema:"object" doc:"With $metadata and $version."`
	Reported json.RawMessage `json:"reported" schema:"object" doc:"With $metadata and $version."`
}

// twinBody is what a client may change; every other member is ignored, so
// that a whole document can be sent back.
type twinBody struct {
	Tags       map[string]any `json:"tags,omitempty"`
	Properties *desiredBody   `json:"properties,omitempty"`
}

type desiredBody struct {
	Desired map[string]any `json:"desired,omitempty"`
}

func showTwin(t engine.Twin) twinDocument {
	head, tail := showTwinAround(&t)
	d := twinDocument{twinHead: head, twinTail: tail, Properties: twinProperties{Desired: sectionJSON(t.Desired), Reported: sectionJSON(t.Reported)}}
	if t.Tags != nil && !t.Tags.Empty() {
		d.Tags = t.Tags.JSON(nil, false)
	}
	return d
}

// showTwinAround is a twin without its sections.
func showTwinAround(t *engine.Twin) (twinHead, twinTail) {
	i := &t.Identity
	a := showAuthentication(i.Authentication)
	head := twinHead{
		DeviceID: i.DeviceID, ModuleID: i.ModuleID, ETag: t.ETag, DeviceETag: i.ETag,
		Status: statusText(i), StatusReason: orNull(i.StatusReason), StatusUpdateTime: twinTime(i.StatusUpdated),
		ConnectionState: connectionState(i), LastActivityTime: twinTime(i.LastActivity),
		CloudToDeviceMessageCount: i.CloudToDeviceMessages,
		AuthenticationType:        a.Type, X509Thumbprint: a.X509Thumbprint,
		ModelID: t.ModelID, Version: t.Version,
	}
	tail := twinTail{Capabilities: capabilities{i.Edge}, DeviceScope: i.DeviceScope, ParentScopes: i.ParentScopes}
	if len(t.Configurations) > 0 {
		tail.Configurations = make(map[string]configurationStatus, len(t.Configurations))
		for id, status := range t.Configurations {
			tail.Configurations[id] = configurationStatus{status}
		}
	}
	return head, tail
}

// appendTwin writes what encode makes of showTwin. Sections are most of it, and
// are written compact already: encoding/json would read each of their bytes again,
// which on a page of whole twins takes longer than finding them.
func appendTwin(dst []byte, t *engine.Twin) []byte {
	around, after := showTwinAround(t)
	head, tail := encode(around), encode(after)
	dst = append(dst, head[:len(head)-1]...)
	if t.Tags != nil && !t.Tags.Empty() {
		dst = t.Tags.JSON(append(dst, `,"tags":`...), false)
	}
	dst = appendSection(append(dst, `,"properties":{"desired":`...), t.Desired)
	dst = appendSection(append(dst, `,"reported":`...), t.Reported)
	return append(append(dst, "},"...), tail[1:]...)
}

func sectionJSON(s *twin.Section) json.RawMessage { return appendSection(nil, s) }

func appendSection(dst []byte, s *twin.Section) []byte {
	if s == nil {
		return append(dst, "{}"...)
	}
	return s.JSON(dst, true)
}

func getTwin(c *call) (answer, error) {
	t, err := c.hub.Twin(c.r.Context(), c.caller, c.target())
	if err != nil {
		return answer{}, err
	}
	return answer{body: showTwin(t), etag: t.ETag}, nil
}

func patchTwin(c *call) (answer, error)   { return c.changeTwin(false, c.hub.PatchTwin) }
func replaceTwin(c *call) (answer, error) { return c.changeTwin(true, c.hub.ReplaceTwin) }

func (c *call) changeTwin(replace bool, change twinChange) (answer, error) {
	body, err := c.body()
	if err != nil {
		return answer{}, err
	}
	u, err := parseTwinUpdate(body, replace)
	if err != nil {
		return answer{}, err
	}
	t, err := change(c.r.Context(), c.caller, c.target(), u, c.ifMatch())
	if err != nil {
		return answer{}, err
	}
	return answer{body: showTwin(t), etag: t.ETag}, nil
}

// parseTwinUpdate takes tags and properties.desired out of a body and ignores
// everything else. The sections stay as text: the engine validates them.
func parseTwinUpdate(body []byte, replace bool) (engine.TwinUpdate, error) {
	f, err := object(body, "")
	if err != nil {
		return engine.TwinUpdate{}, err
	}
	tags, desired, err := sections(f, replace)
	return engine.TwinUpdate{Tags: tags, Desired: desired}, err
}

// sections returns the JSON objects of tags and properties.desired, nil when
// absent. A null means absent too, since many clients write one for a member
// that they did not set; in a replacement it means empty.
func sections(f fields, replace bool) (tags, desired []byte, err error) {
	if tags, err = section(f, "tags", replace); err != nil {
		return nil, nil, err
	}
	p, err := f.object("properties")
	if err != nil {
		return nil, nil, err
	}
	desired, err = section(p, "desired", replace)
	return tags, desired, err
}

func section(f fields, key string, replace bool) ([]byte, error) {
	raw, ok := f.members[key]
	switch {
	case !ok, raw[0] == 'n' && !replace:
		return nil, nil
	case raw[0] == 'n':
		return []byte("{}"), nil
	case raw[0] != '{':
		return nil, badFormat("%s is %s; expected a JSON object", f.name(key), kindOf(raw))
	}
	return raw, nil
}
