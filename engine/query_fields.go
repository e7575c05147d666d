package engine

import (
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/twin"
)

// rowFields collects what a row has at paths. Values are spelled as a twin
// read shows them; a test of that edge compares the two.
type rowFields struct {
	list []query.Field
	keys []string // of the paths, cut from one piece
}

func (f *rowFields) add(v query.Value, path ...string) {
	at := len(f.keys)
	f.keys = append(f.keys, path...)
	f.list = append(f.list, query.Field{Path: f.keys[at:len(f.keys):len(f.keys)], Value: v})
}

func (f *rowFields) text(v string, path ...string) { f.add(query.StringValue(v), path...) }

// textOrNull adds a text that a twin shows as null when there is none.
func (f *rowFields) textOrNull(v string, path ...string) { f.add(orNull(v), path...) }

func orNull(s string) query.Value {
	if s == "" {
		return query.NullValue()
	}
	return query.StringValue(s)
}

func (f *rowFields) time(t time.Time, path ...string) {
	f.text(t.UTC().Format(twinTimeLayout), path...)
}

// twinTimeLayout has at most seven digits of a second, as IoT Hub's twins have.
const twinTimeLayout = "2006-01-02T15:04:05.9999999Z"

// identity adds what the row has of its identity; what a twin leaves out is
// undefined, so that a change removes it.
func (f *rowFields) identity(id TwinID, r *identityRecord) {
	f.text(id.DeviceID, "deviceId")
	if id.ModuleID != "" {
		f.text(id.ModuleID, "moduleId")
	}
	status := "enabled"
	if r.Disabled {
		status = "disabled"
	}
	f.text(status, "status")
	f.textOrNull(r.StatusReason, "statusReason")
	f.time(r.StatusUpdated, "statusUpdateTime")
	f.text(string(r.Type), "authenticationType")
	var prints [2]string
	if r.Type == AuthSelfSigned {
		prints = r.Thumbprints
	}
	f.textOrNull(prints[0], "x509Thumbprint", "primaryThumbprint")
	f.textOrNull(prints[1], "x509Thumbprint", "secondaryThumbprint")
	f.add(query.BoolValue(r.Edge), "capabilities", "iotEdge")
	var scope, parents query.Value // undefined
	if r.DeviceScope != "" {
		scope = query.StringValue(r.DeviceScope)
	}
	if len(r.ParentScopes) > 0 {
		list := make([]query.Value, len(r.ParentScopes))
		for i, s := range r.ParentScopes {
			list[i] = query.StringValue(s)
		}
		parents = query.ArrayValue(list)
	}
	f.add(scope, "deviceScope")
	f.add(parents, "parentScopes")
}

// twin adds what the row has of its twin.
func (f *rowFields) twin(t *twinRecord) {
	f.text(t.ModelID, "modelId")
	for _, s := range [...]*twin.Section{t.Tags, t.Desired, t.Reported} {
		f.section(s)
	}
}

// section adds a whole section.
func (f *rowFields) section(s *twin.Section) {
	v := query.TwinValue(s.View())
	if s.Kind() == twin.Tags {
		if s.Empty() {
			v = query.Value{} // a twin without tags shows none
		}
		f.add(v, "tags")
		return
	}
	f.add(v, "properties", s.Kind().String())
	f.version(s)
}

func (f *rowFields) version(s *twin.Section) {
	f.add(query.NumberValue(float64(s.Version())), "properties", s.Kind().String(), "$version")
}

// sectionChange adds what differs after a change of a section.
func (f *rowFields) sectionChange(k twin.Kind, before, after *twin.Section) {
	if k == twin.Tags && (before.Empty() || after.Empty()) {
		f.section(after)
		return
	}
	f.list, f.keys = make([]query.Field, 0, 4), make([]string, 0, 16)
	var prefix [2]string
	root := append(prefix[:0], "properties", k.String())
	if k == twin.Tags {
		root = append(prefix[:0], "tags")
	}
	twin.Compare(before, after, func(path []string, v twin.View, ok bool) {
		var value query.Value
		if ok {
			value = query.TwinValue(v)
		}
		at := len(f.keys)
		f.keys = append(append(f.keys, root...), path...)
		f.list = append(f.list, query.Field{Path: f.keys[at:len(f.keys):len(f.keys)], Value: value})
	})
	if k != twin.Tags {
		f.version(after)
	}
}

// presence adds what is known of the identity's connection.
func (f *rowFields) presence(p presenceRecord, connected bool) {
	state := "Disconnected"
	if connected {
		state = "Connected"
	}
	f.text(state, "connectionState")
	f.time(p.Activity, "lastActivityTime")
}

// presenceNow returns what memory knows of an identity's connection; its times
// are zero when that is nothing.
func (h *Hub) presenceNow(id TwinID) (p presenceRecord, connected bool) {
	if s := h.sessions.get(id); s != nil {
		return s.presence(s.since), true
	}
	return presenceRecord{Activity: h.sessions.activity.latest(id, time.Time{})}, false
}

// outsidePaths are those of which columns are told nothing: they change with
// every write or message, and few ask about them.
func outsidePaths() []query.Path {
	return []query.Path{
		{"etag"}, {"deviceEtag"}, {"version"}, {"cloudToDeviceMessageCount"},
		{"properties", "desired", "$metadata"}, {"properties", "reported", "$metadata"},
	}
}
