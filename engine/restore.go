package engine

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/muster-hub/muster/engine/twin"
	"github.com/muster-hub/muster/storage"
)

// momentBytes bounds the text of a moment: a time or the id of a history entry.
const momentBytes = 64

func checkMoment(at string) error {
	if at == "" {
		return errf(CodeArgumentNull, "the moment is missing; expected an RFC 3339 time or the id of a history entry")
	}
	if len(at) > momentBytes {
		return errf(CodeArgumentInvalid, "the moment has %d characters; expected an RFC 3339 time or the id of a history entry", len(at))
	}
	return nil
}

// TwinAsOf returns a twin's sections as they were at a moment: an RFC 3339
// time, or the id of a history entry (right after it). Identity, ETag and
// Version are today's; the metadata of the sections is not
// kept by the history and means nothing. A moment that the history does not
// reach is CodeHistoryNotFound. It needs ServiceConnect.
func (h *Hub) TwinAsOf(ctx context.Context, c Caller, id TwinID, at string) (Twin, error) {
	if err := h.authorize(ctx, c, opTwinRead, id.String()); err != nil {
		return Twin{}, err
	}
	if err := checkMoment(at); err != nil {
		return Twin{}, err
	}
	var t Twin
	err := h.view(ctx, "read twin as of", func(r storage.Reader) error {
		identity, now, err := h.loadTwin(r, id)
		if err != nil {
			return err
		}
		was, err := h.twinAt(r, id, identity, now, at, twinKinds[:]...)
		if err != nil {
			return err
		}
		t, err = h.twinView(r, id, identity, was)
		return err
	})
	return t, err
}

// Restoration asks for an earlier state of a twin.
type Restoration struct {
	To      string // RFC 3339 time, or the id of a history entry
	Tags    bool
	Desired bool
	DryRun  bool // only say what would change
}

// RestoreTwin takes sections of a twin back to a moment, in one transaction,
// and returns what that changes; nothing is written when nothing differs. The
// change's cause is "restore:" and the moment unless the caller has one. It
// needs ServiceConnect.
func (h *Hub) RestoreTwin(ctx context.Context, c Caller, id TwinID, o Restoration, m IfMatch) ([]twin.Difference, Twin, error) {
	if err := h.authorize(ctx, c, opTwinRestore, id.String()); err != nil {
		return nil, Twin{}, err
	}
	if err := checkMoment(o.To); err != nil {
		return nil, Twin{}, err
	}
	var kinds []twin.Kind
	if o.Tags {
		kinds = append(kinds, twin.Tags)
	}
	if o.Desired {
		kinds = append(kinds, twin.Desired)
	}
	if len(kinds) == 0 {
		return nil, Twin{}, errf(CodeArgumentInvalid, "no section is named; expected tags, desired or both (only a device writes its reported properties)")
	}
	if c.Cause == "" {
		c.Cause = "restore:" + o.To
	}
	var found []twin.Difference
	var t Twin
	plan := func(r storage.Reader) (now twinRecord, identity identityRecord, u TwinUpdate, err error) {
		if identity, now, err = h.loadTwin(r, id); err != nil {
			return now, identity, u, err
		}
		if !m.matches(twinETag(h.db.Epoch().Ordinal, now.Revision)) {
			return now, identity, u, errf(CodePreconditionFailed, "PreconditionFailed, ETag may be invalid.")
		}
		was, err := h.twinAt(r, id, identity, now, o.To, kinds...)
		found = []twin.Difference{}
		for _, k := range kinds {
			if err != nil {
				break
			}
			list := twin.Diff(*now.section(k), *was.section(k))
			for _, d := range list {
				d.Path = k.String() + "." + d.Path
				found = append(found, d)
			}
			if len(list) == 0 {
				continue
			}
			body := (*was.section(k)).JSON(nil, false)
			if k == twin.Tags {
				u.Tags = body
			} else {
				u.Desired = body
			}
		}
		return now, identity, u, err
	}
	if o.DryRun {
		err := h.view(ctx, "plan restore", func(r storage.Reader) error {
			now, identity, _, err := plan(r)
			if err == nil {
				t, err = h.twinView(r, id, identity, now)
			}
			return err
		})
		return found, t, err
	}
	err := h.update(ctx, "restore twin", func(tx *storage.Tx) error {
		now, identity, u, err := plan(tx)
		if err != nil {
			return err
		}
		changed, err := h.applyTwinUpdateTx(tx, c, id, &now, u, false)
		if err != nil {
			return err
		}
		if changed {
			now.Revision++
			now.Version++
			details, err := json.Marshal(struct {
				To      string `json:"to"`
				Tags    bool   `json:"tags"`
				Desired bool   `json:"desired"`
			}{o.To, u.Tags != nil, u.Desired != nil})
			if err := errors.Join(err, twinTable.Put(tx, id.key(), now), h.auditTx(tx, c, opTwinRestore, id.String(), details)); err != nil {
				return err
			}
		}
		t, err = h.twinView(tx, id, identity, now)
		return err
	})
	return found, t, err
}
