package engine

import (
	"errors"
	"time"

	"github.com/muster-hub/muster/engine/twin"
	"github.com/muster-hub/muster/storage"
)

// lineOutcome is what a line of an import has done.
type lineOutcome uint8

const (
	lineCreated lineOutcome = iota + 1
	lineUpdated
	lineDeleted
)

// prepareLine does what needs no store: it is done outside of the transaction,
// and beside the one before it.
func (h *Hub) prepareLine(l *identityLine, now time.Time) error {
	l.identity.imported = true
	create := l.mode == ImportCreate
	switch l.mode {
	case ImportDelete, ImportDeleteIfMatch, ImportUpdateTwin, ImportUpdateTwinIfMatch:
		// Only the name counts.
		l.identity = Identity{DeviceID: l.identity.DeviceID, ModuleID: l.identity.ModuleID, ETag: l.identity.ETag, imported: true}
		if l.identity.ModuleID == "" {
			l.identity.Authentication.Type = AuthSAS
		}
	}
	if err := h.checkIdentity(&l.identity, create); err != nil {
		return err
	}
	switch l.mode {
	case ImportUpdateIfMatch, ImportDeleteIfMatch:
		if l.identity.ETag == "" {
			return errf(CodePreconditionFailed, "importMode %s needs an eTag", l.mode)
		}
	case ImportUpdateTwinIfMatch:
		if l.twinETag == "" {
			return errf(CodePreconditionFailed, "importMode %s needs a twinETag", l.mode)
		}
	case ImportCreate, ImportCreateOrUpdate, ImportCreateOrUpdateIfMatch:
		for _, part := range l.sectionParts() {
			if part.p == nil || empty(*part.p) {
				continue
			}
			m, err := h.mergeSection(twin.New(part.kind), *part.p, now, importRule)
			if err != nil {
				if l.mode == ImportCreate {
					return err
				}
				l.fresh = nil // what is there already may make it right
				return nil
			}
			l.fresh = append(l.fresh, m)
		}
	}
	return nil
}

// sectionPart is a section of a line; p is nil when the line has none.
type sectionPart struct {
	kind twin.Kind
	p    *twin.Patch
}

func (l *identityLine) sectionParts() [3]sectionPart {
	return [...]sectionPart{{twin.Tags, l.tags}, {twin.Desired, l.desired}, {twin.Reported, l.reported}}
}

// applyLineTx does what a line says. With an error some of it may be done: the
// caller takes that back.
func (h *Hub) applyLineTx(tx *storage.Tx, c Caller, l *identityLine) (lineOutcome, error) {
	id := l.id()
	matchAny := IfMatch{Present: true, Any: true}
	exact := ParseIfMatch(l.identity.ETag)
	switch l.mode {
	case ImportCreate:
		return lineCreated, h.createLineTx(tx, c, l)
	case ImportUpdate:
		return lineUpdated, h.updateLineTx(tx, c, l, matchAny)
	case ImportUpdateIfMatch:
		return lineUpdated, h.updateLineTx(tx, c, l, exact)
	case ImportCreateOrUpdate, ImportCreateOrUpdateIfMatch:
		known, err := identityTable(id).Has(tx, identityKey(id))
		if err != nil {
			return 0, err
		}
		if !known {
			return lineCreated, h.createLineTx(tx, c, l)
		}
		if l.mode == ImportCreateOrUpdate {
			exact = matchAny
		}
		return lineUpdated, h.updateLineTx(tx, c, l, exact)
	case ImportDelete:
		return lineDeleted, h.deleteWithModulesTx(tx, c, id, matchAny)
	case ImportDeleteIfMatch:
		return lineDeleted, h.deleteWithModulesTx(tx, c, id, exact)
	case ImportUpdateTwin, ImportUpdateTwinIfMatch:
		return lineUpdated, h.updateTwinLineTx(tx, c, l)
	default:
		return 0, errf(CodeArgumentInvalid, "importMode %q is not known", string(l.mode))
	}
}

func (h *Hub) createLineTx(tx *storage.Tx, c Caller, l *identityLine) error {
	i := l.identity
	if err := h.checkIdentity(&i, true); err != nil { // createOrUpdate has let a system module pass
		return err
	}
	fillKeys(&i)
	_, err := h.createWithTwinTx(tx, c, i, func(t *twinRecord) error {
		if len(l.fresh) == 0 {
			_, err := h.takeSectionsTx(tx, c, l, t)
			return err
		}
		for _, m := range l.fresh {
			if err := h.storeSectionTx(tx, c, l.id(), t, m, importRule); err != nil {
				return err
			}
		}
		return nil // nobody is connected yet who could be told
	})
	return err
}

// updateLineTx replaces an identity and merges its twin. Keys that the line
// lacks stay as they are: an export without keys must not lock devices out.
func (h *Hub) updateLineTx(tx *storage.Tx, c Caller, l *identityLine, m IfMatch) error {
	i := l.identity
	before, err := loadIdentity(tx, i.ID())
	if err != nil {
		return err
	}
	if i.Authentication.Type == AuthSAS && !l.hasKeys && before.Type == AuthSAS {
		if i.Authentication.PrimaryKey, i.Authentication.SecondaryKey, err = h.unsealKeys(sealContext(i.ID()), before.SealedKeys); err != nil {
			return err
		}
	}
	if isSystemModule(i.ModuleID) && before.Type == AuthNone && !l.hasKeys {
		i.Authentication = Authentication{Type: AuthNone}
	}
	fillKeys(&i)
	if _, err := h.updateIdentityTx(tx, c, i, m); err != nil {
		return err
	}
	if l.tags == nil && l.desired == nil && l.reported == nil {
		return nil
	}
	return h.updateTwinLineTx(tx, c, l)
}

func (h *Hub) updateTwinLineTx(tx *storage.Tx, c Caller, l *identityLine) error {
	_, record, err := h.loadTwin(tx, l.id())
	if err != nil {
		return err
	}
	switch l.mode {
	case ImportUpdateTwinIfMatch, ImportUpdateIfMatch, ImportCreateOrUpdateIfMatch:
		// Beside the identity's ETag, when there is one.
		if !ParseIfMatch(l.twinETag).matches(twinETag(h.db.Epoch().Ordinal, record.Revision)) {
			return errf(CodePreconditionFailed, "PreconditionFailed, twinETag may be invalid.")
		}
	}
	changed, err := h.takeSectionsTx(tx, c, l, &record)
	if err != nil || !changed {
		return err
	}
	record.Revision++
	record.Version++
	return errors.Join(
		twinTable.Put(tx, l.id().key(), record),
		h.auditTx(tx, c, opTwinUpdate, l.id().String(), l.auditDetails()),
	)
}

func (l *identityLine) auditDetails() []byte {
	details := `{"sections":[`
	for _, part := range l.sectionParts() {
		if part.p == nil {
			continue
		}
		if details[len(details)-1] == '"' {
			details += ","
		}
		details += `"` + part.kind.String() + `"`
	}
	return []byte(details + "]}")
}

// takeSectionsTx merges the line's sections into a twin, with the stamps that
// they have.
func (h *Hub) takeSectionsTx(tx *storage.Tx, c Caller, l *identityLine, t *twinRecord) (changed bool, err error) {
	for _, part := range l.sectionParts() {
		// A section without members changes nothing, and is on each line of an export.
		if part.p == nil || empty(*part.p) {
			continue
		}
		change, err := h.applyPatchTx(tx, c, l.id(), t, part.kind, *part.p, importRule)
		if err != nil {
			return false, err
		}
		changed = true
		if part.kind == twin.Desired {
			h.tellDesiredTx(tx, l.id(), t.Desired.Version(), change)
		}
	}
	return changed, nil
}

// empty reports whether a section has no members beside those of the hub.
func empty(p twin.Patch) bool {
	v := p.View()
	for i := range v.Len() {
		if key, _ := v.At(i); key != "$metadata" && key != "$version" {
			return false
		}
	}
	return true
}
