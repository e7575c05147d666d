package engine

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/muster-hub/muster/storage"
)

// changeRecord is an entry of the change log. Readers (live queries,
// webhooks, configurations, runs) depend on its shape: names never change
// their meaning.
type changeRecord struct {
	Kind      string          `json:"k"`
	DeviceID  string          `json:"d"`
	ModuleID  string          `json:"m,omitempty"`
	Principal string          `json:"p,omitempty"`
	Cause     string          `json:"c,omitempty"`
	Version   int64           `json:"v,omitempty"`
	Data      json.RawMessage `json:"x,omitempty"`

	TwinVersion int64           `json:"tv,omitempty"` // of the whole twin, after the change
	Twin        json.RawMessage `json:"t,omitempty"`  // the whole twin; see Event
}

// Kinds of change.
const (
	changeIdentityCreated = "identity.created"
	changeIdentityUpdated = "identity.updated"
	changeIdentityDeleted = "identity.deleted"
	changeTags            = "twin.tags"
	changeDesired         = "twin.desired"
	changeReported        = "twin.reported"
	changeModel           = "twin.modelId"
	changeConnected       = "session.connected"
	changeDisconnected    = "session.disconnected"
	changeFileUploaded    = "file.uploaded"
	changeFileFailed      = "file.failed" // an upload that ended without a file
	changeFileDeleted     = "file.deleted"
	changeWebhookPaused   = "webhook.paused" // by the hub, of no device
	changeQuerySaved      = "query.saved"    // of no device, as those below
	changeQueryDeleted    = "query.deleted"
	changeSchemaDeclared  = "schema.declared"
	changeSchemaDropped   = "schema.dropped"
	changeSchemaViolated  = "schema.violated" // of the device
	changeJobCreated      = "job.created"     // of no device, as the other two of a job
	changeJobStatus       = "job.status"      // also by the hub: a threshold, a gate, the end
	changeJobDeleted      = "job.deleted"
	changeExecution       = "job.execution"     // of the device: one of its executions ended
	changePattern         = "pattern.installed" // of no device, as the other two of a pattern
	changePatternState    = "pattern.state"     // signed, enabled, disabled, made the default
	changePatternRemoved  = "pattern.removed"
	changeRun             = "run.status" // of the device, if it has one: a run began, waits for a person, or ended
	changeRunStep         = "run.step"   // of the device, if it has one: a phase, or progress
	changePatternEvent    = "pattern.event"
	changeConfiguration   = "configuration.saved"
	changeConfigDeleted   = "configuration.deleted"
	changeConfigured      = "configuration.applied" // of the device: which configurations it has
)

func appendChange(tx *storage.Tx, c Caller, kind string, id TwinID, version int64, data json.RawMessage) error {
	return appendTwinChange(tx, c, kind, id, version, data, 0, nil)
}

// appendTwinChange is appendChange with what a change of a twin adds.
func appendTwinChange(tx *storage.Tx, c Caller, kind string, id TwinID, version int64, data json.RawMessage, twinVersion int64, whole json.RawMessage) error {
	r := changeRecord{
		Kind: kind, DeviceID: id.DeviceID, ModuleID: id.ModuleID, Principal: c.Principal.String(),
		Cause: c.Cause, Version: version, Data: data, TwinVersion: twinVersion, Twin: whole,
	}
	return changeLog.Append(tx, r.append(make([]byte, 0, 192+len(data)+len(whole))))
}

// append is what encoding/json makes of the record, without the escapes for
// HTML.
func (r *changeRecord) append(dst []byte) []byte {
	m := beginMembers(dst)
	m.text("k", r.Kind)
	m.text("d", r.DeviceID)
	m.textUnlessEmpty("m", r.ModuleID)
	m.textUnlessEmpty("p", r.Principal)
	m.textUnlessEmpty("c", r.Cause)
	m.numberUnlessZero("v", r.Version)
	m.rawUnlessEmpty("x", r.Data)
	m.numberUnlessZero("tv", r.TwinVersion)
	m.rawUnlessEmpty("t", r.Twin)
	return m.end()
}

// wholeTwinBytes bounds the twin in an entry of the change log.
const wholeTwinBytes = 16 << 10

// wholeTwin is a twin as an entry of the change log holds it, nil when it is
// too large.
func (h *Hub) wholeTwin(t *twinRecord) json.RawMessage {
	if t.Tags.Bytes()+t.Desired.Bytes()+t.Reported.Bytes() > wholeTwinBytes {
		return nil
	}
	b := append(make([]byte, 0, 1024), `{"etag":"`...)
	b = append(b, twinETag(h.db.Epoch().Ordinal, t.Revision)...)
	b = append(b, `","version":`...)
	b = strconv.AppendInt(b, t.Version, 10)
	if !t.Tags.Empty() {
		b = append(b, `,"tags":`...)
		b = t.Tags.JSON(b, true)
	}
	b = append(b, `,"properties":{"desired":`...)
	b = t.Desired.JSON(b, true)
	b = append(b, `,"reported":`...)
	b = t.Reported.JSON(b, true)
	if b = append(b, "}}"...); len(b) > wholeTwinBytes {
		return nil
	}
	return b
}

// NewTwin is the twin that every identity begins with, in the form of
// Event.Twin.
func (h *Hub) NewTwin() json.RawMessage {
	t := newTwinRecord("")
	return h.wholeTwin(&t)
}

func decodeChange(e storage.Entry) (Change, error) {
	var r changeRecord
	if err := json.Unmarshal(e.Data, &r); err != nil {
		return Change{}, err
	}
	return Change{
		Position: e.Position, Time: e.Time.UTC(), Kind: r.Kind, ID: TwinID{r.DeviceID, r.ModuleID},
		Principal: r.Principal, Cause: r.Cause, Version: r.Version, Data: r.Data, TwinVersion: r.TwinVersion, Twin: r.Twin,
	}, nil
}

// recordHistoryTx writes entry n of a section and drops the one that falls
// out of the bound; age is bounded by the retention sweep.
func (h *Hub) recordHistoryTx(tx *storage.Tx, c Caller, id TwinID, generation string, s historyNumber, n uint64, version int64, patch, undo json.RawMessage) error {
	if keep, _ := h.limits.history(s); n > keep {
		if err := historyTable.Delete(tx, historyKey(id, generation, s, n-keep)); err != nil {
			return err
		}
	}
	return historyTable.Put(tx, historyKey(id, generation, s, n), historyRecord{
		Version: version, Time: tx.Now().UTC().Truncate(time.Microsecond), Principal: c.Principal.String(),
		Cause: c.Cause, RequestID: c.RequestID, Patch: patch, Undo: undo,
	})
}
