package engine

import (
	"math"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/twin"
)

// rowPaths are the paths of what a twin has beside the content of its sections.
// Nobody changes them.
var rowPaths = struct {
	deviceID, moduleID, status, statusReason, statusUpdateTime, authenticationType, primaryThumbprint, secondaryThumbprint,
	iotEdge, deviceScope, parentScopes, connectionState, lastActivityTime, modelID, etag, deviceETag, version, messageCount, configurations query.Path
}{
	deviceID: query.Path{"deviceId"}, moduleID: query.Path{"moduleId"}, status: query.Path{"status"}, statusReason: query.Path{"statusReason"},
	statusUpdateTime: query.Path{"statusUpdateTime"}, authenticationType: query.Path{"authenticationType"},
	primaryThumbprint: query.Path{"x509Thumbprint", "primaryThumbprint"}, secondaryThumbprint: query.Path{"x509Thumbprint", "secondaryThumbprint"},
	iotEdge: query.Path{"capabilities", "iotEdge"}, deviceScope: query.Path{"deviceScope"}, parentScopes: query.Path{"parentScopes"},
	connectionState: query.Path{"connectionState"}, lastActivityTime: query.Path{"lastActivityTime"}, modelID: query.Path{"modelId"},
	etag: query.Path{"etag"}, deviceETag: query.Path{"deviceEtag"}, version: query.Path{"version"}, messageCount: query.Path{"cloudToDeviceMessageCount"},
	configurations: query.Path{"configurations"},
}

// sectionPaths are those of a section: itself, its $version and its $metadata.
type sectionPaths struct{ root, version, metadata query.Path }

var sectionRows = map[twin.Kind]sectionPaths{
	twin.Tags:     {root: query.Path{"tags"}},
	twin.Desired:  {query.Path{"properties", "desired"}, query.Path{"properties", "desired", "$version"}, query.Path{"properties", "desired", "$metadata"}},
	twin.Reported: {query.Path{"properties", "reported"}, query.Path{"properties", "reported", "$version"}, query.Path{"properties", "reported", "$metadata"}},
}

// outsidePaths are those of which columns are told nothing: they change with
// every write or message, and few ask about them.
func outsidePaths() []query.Path {
	return []query.Path{
		rowPaths.etag, rowPaths.deviceETag, rowPaths.version, rowPaths.messageCount,
		sectionRows[twin.Desired].metadata, sectionRows[twin.Reported].metadata,
	}
}

// rowFields collects what a row has at paths. Values are spelled as a twin
// read shows them; a test of that edge compares the two.
type rowFields struct {
	list   []query.Field
	values *query.TwinValues // nil: what is added may be kept
}

// newRow begins with room for all that a usual row has.
func newRow() rowFields { return rowFields{list: make([]query.Field, 0, rowFieldsUsual)} }

// reset begins with the next row; what the list had is no more.
func (f *rowFields) reset() {
	f.list = f.list[:0]
	f.values.Reset()
}

// rowFieldsUsual is how many a new row has.
const rowFieldsUsual = 22

func (f *rowFields) add(path query.Path, v query.Value) {
	f.list = append(f.list, query.Field{Path: path, Value: v})
}

func (f *rowFields) text(path query.Path, s string) { f.add(path, query.StringValue(s)) }

// textOrNull adds a text that a twin shows as null when there is none.
func (f *rowFields) textOrNull(path query.Path, s string) {
	v := query.NullValue()
	if s != "" {
		v = query.StringValue(s)
	}
	f.add(path, v)
}

func (f *rowFields) time(path query.Path, t time.Time) {
	s := "0001-01-01T00:00:00Z" // most times of a fleet are of things that never were
	if !t.IsZero() {
		s = t.UTC().Format(twinTimeLayout)
	}
	f.text(path, s)
}

// twinTimeLayout has at most seven digits of a second, as IoT Hub's twins have.
const twinTimeLayout = "2006-01-02T15:04:05.9999999Z"

// identity adds what the row has of its identity; what a twin leaves out is
// undefined, so that a change removes it.
func (f *rowFields) identity(id TwinID, r *identityRecord) {
	f.text(rowPaths.deviceID, id.DeviceID)
	if id.ModuleID != "" {
		f.text(rowPaths.moduleID, id.ModuleID)
	}
	status := "enabled"
	if r.Disabled {
		status = "disabled"
	}
	f.text(rowPaths.status, status)
	f.textOrNull(rowPaths.statusReason, r.StatusReason)
	f.time(rowPaths.statusUpdateTime, r.StatusUpdated)
	f.text(rowPaths.authenticationType, string(r.Type))
	var prints [2]string
	if r.Type == AuthSelfSigned {
		prints = r.Thumbprints
	}
	f.textOrNull(rowPaths.primaryThumbprint, prints[0])
	f.textOrNull(rowPaths.secondaryThumbprint, prints[1])
	f.add(rowPaths.iotEdge, query.BoolValue(r.Edge))
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
	f.add(rowPaths.deviceScope, scope)
	f.add(rowPaths.parentScopes, parents)
}

// note is what fits in a row's note of what a twin shows of its identity: the revision
// of an enabled one with keys that has nothing special, as nearly all are; else 0.
func (r *identityRecord) note() uint32 {
	if r.Type != AuthSAS || r.Disabled || r.StatusReason != "" || !r.StatusUpdated.IsZero() || r.Thumbprints != [2]string{} ||
		r.Edge || r.DeviceScope != "" || len(r.ParentScopes) > 0 || r.ManagedBy != "" || r.Revision > math.MaxUint32 {
		return 0
	}
	return uint32(r.Revision)
}

// notedIdentity is as much of an identity as a twin shows.
func notedIdentity(note uint32) (r identityRecord, ok bool) {
	return identityRecord{Revision: uint64(note), Type: AuthSAS}, note != 0
}

// twin adds what the row has of its twin.
func (f *rowFields) twin(t *twinRecord) {
	f.text(rowPaths.modelID, t.ModelID)
	for _, s := range [...]*twin.Section{t.Tags, t.Desired, t.Reported} {
		f.section(s)
	}
}

// section adds a whole section.
func (f *rowFields) section(s *twin.Section) {
	v := f.values.Of(s.View())
	if s.Kind() == twin.Tags && s.Empty() {
		v = query.Value{} // a twin without tags shows none
	}
	f.add(sectionRows[s.Kind()].root, v)
	f.version(s)
}

func (f *rowFields) version(s *twin.Section) {
	if s.Kind() != twin.Tags {
		f.add(sectionRows[s.Kind()].version, query.NumberValue(float64(s.Version())))
	}
}

// sectionChange adds what differs after a change of a section.
func (f *rowFields) sectionChange(k twin.Kind, before, after *twin.Section) {
	if k == twin.Tags && (before.Empty() || after.Empty()) {
		f.section(after)
		return
	}
	root := sectionRows[k].root
	f.list = make([]query.Field, 0, 4)
	keys := make([]string, 0, 16) // of all paths
	twin.Compare(before, after, func(path []string, v twin.View, ok bool) {
		var value query.Value
		if ok {
			value = query.TwinValue(v)
		}
		at := len(keys)
		keys = append(append(keys, root...), path...)
		f.add(keys[at:len(keys):len(keys)], value)
	})
	f.version(after)
}

// What connectionState may be.
const (
	stateConnected    = "Connected"
	stateDisconnected = "Disconnected"
)

// presence adds what is known of the identity's connection.
func (f *rowFields) presence(p presenceRecord, connected bool) {
	state := stateDisconnected
	if connected {
		state = stateConnected
	}
	f.text(rowPaths.connectionState, state)
	f.time(rowPaths.lastActivityTime, p.Activity)
}

// presenceNow returns what memory knows of an identity's connection; its times
// are zero when that is nothing.
func (h *Hub) presenceNow(id TwinID) (p presenceRecord, connected bool) {
	if s := h.sessions.get(id); s != nil {
		return s.presence(s.since), true
	}
	return presenceRecord{Activity: h.sessions.activity.latest(id, time.Time{})}, false
}
