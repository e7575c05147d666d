package engine

import (
	"encoding/json"
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
)

func appendChange(tx *storage.Tx, c Caller, kind string, id TwinID, version int64, data json.RawMessage) error {
	b, err := marshal(changeRecord{
		Kind: kind, DeviceID: id.DeviceID, ModuleID: id.ModuleID, Principal: c.Principal.String(),
		Cause: c.Cause, Version: version, Data: data,
	})
	if err != nil {
		return err
	}
	return changeLog.Append(tx, b)
}

func decodeChange(e storage.Entry) (Change, error) {
	var r changeRecord
	if err := json.Unmarshal(e.Data, &r); err != nil {
		return Change{}, err
	}
	return Change{
		Position: e.Position, Time: e.Time.UTC(), Kind: r.Kind, ID: TwinID{r.DeviceID, r.ModuleID},
		Principal: r.Principal, Cause: r.Cause, Version: r.Version, Data: r.Data,
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
