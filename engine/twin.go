package engine

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"

	"github.com/muster-hub/muster/engine/twin"
	"github.com/muster-hub/muster/storage"
)

// Twin is a device's or module's twin with what its identity contributes.
type Twin struct {
	Identity Identity // keys are blank
	ETag     string   // without quotes; moves with tags and desired properties only
	Version  int64    // grows with every change of the twin
	ModelID  string
	Tags     *twin.Section
	Desired  *twin.Section
	Reported *twin.Section
	// Configurations are those that select the twin, by id; nil when there are none.
	Configurations map[string]ConfigurationStatus
}

// TwinUpdate is a service's change of a twin: JSON objects, nil = absent.
type TwinUpdate struct {
	Tags    []byte
	Desired []byte
}

// Twin returns a twin. It needs ServiceConnect.
func (h *Hub) Twin(ctx context.Context, c Caller, id TwinID) (Twin, error) {
	if err := h.authorize(ctx, c, opTwinRead, id.String()); err != nil {
		return Twin{}, err
	}
	h.count.twinReads.Add(1)
	var t Twin
	err := h.view(ctx, "read twin", func(r storage.Reader) error {
		identity, record, err := h.loadTwin(r, id)
		if err != nil {
			return err
		}
		t, err = h.twinView(r, id, identity, record)
		return err
	})
	return t, err
}

// PatchTwin merges tags and desired properties; a connected device that has
// subscribed is told before the call returns. An absent condition means any.
// It needs ServiceConnect.
func (h *Hub) PatchTwin(ctx context.Context, c Caller, id TwinID, u TwinUpdate, m IfMatch) (Twin, error) {
	if err := h.authorize(ctx, c, opTwinUpdate, id.String()); err != nil {
		return Twin{}, err
	}
	return h.changeTwin(ctx, c, id, u, m, opTwinUpdate)
}

// ReplaceTwin replaces each section that is present. It needs ServiceConnect.
func (h *Hub) ReplaceTwin(ctx context.Context, c Caller, id TwinID, u TwinUpdate, m IfMatch) (Twin, error) {
	if err := h.authorize(ctx, c, opTwinReplace, id.String()); err != nil {
		return Twin{}, err
	}
	return h.changeTwin(ctx, c, id, u, m, opTwinReplace)
}

func (h *Hub) changeTwin(ctx context.Context, c Caller, id TwinID, u TwinUpdate, m IfMatch, op operation) (Twin, error) {
	var t Twin
	err := h.update(ctx, "update twin", func(tx *storage.Tx) error {
		identity, record, err := h.loadTwin(tx, id)
		if err != nil {
			return err
		}
		if err := h.changeTwinTx(tx, c, id, &record, u, m, op); err != nil {
			return err
		}
		t, err = h.twinView(tx, id, identity, record)
		return err
	})
	return t, err
}

func (h *Hub) changeTwinTx(tx *storage.Tx, c Caller, id TwinID, r *twinRecord, u TwinUpdate, m IfMatch, op operation) error {
	if !m.matches(twinETag(h.db.Epoch().Ordinal, r.Revision)) {
		return errf(CodePreconditionFailed, "PreconditionFailed, ETag may be invalid.")
	}
	changed, err := h.applyTwinUpdateTx(tx, c, id, r, u, op != opTwinReplace)
	if err != nil || !changed {
		return err
	}
	r.Revision++
	r.Version++
	return errors.Join(
		twinTable.Put(tx, id.key(), *r),
		h.auditTx(tx, c, op, id.String(), auditSections(u)),
	)
}

func auditSections(u TwinUpdate) []byte {
	switch {
	case u.Tags != nil && u.Desired != nil:
		return []byte(`{"sections":["tags","desired"]}`)
	case u.Tags != nil:
		return []byte(`{"sections":["tags"]}`)
	default:
		return []byte(`{"sections":["desired"]}`)
	}
}

// applyTwinUpdateTx changes the sections that u holds, with their history and
// change-log entries, and tells a connected device of its new desired
// properties once that is durable. The caller stores the record.
func (h *Hub) applyTwinUpdateTx(tx *storage.Tx, c Caller, id TwinID, r *twinRecord, u TwinUpdate, merge bool) (changed bool, err error) {
	for _, part := range []struct {
		kind twin.Kind
		body []byte
	}{{twin.Tags, u.Tags}, {twin.Desired, u.Desired}} {
		if part.body == nil {
			continue
		}
		last := part.kind == twin.Desired || u.Desired == nil
		change, err := h.applySectionTx(tx, c, id, r, part.kind, part.body, sectionRule{merge: merge, special: twin.DropSpecial, whole: last && !merge})
		if err != nil {
			return false, err
		}
		changed = true
		if part.kind == twin.Desired {
			h.tellDesiredTx(tx, id, r.Desired.Version(), change)
		}
	}
	return changed, nil
}

// tellDesiredTx tells a connected device of its new desired properties once
// they are durable.
func (h *Hub) tellDesiredTx(tx *storage.Tx, id TwinID, version int64, change twin.Change) {
	notice := change.Forward.JSONWithVersion(nil, version)
	tx.OnCommit(func(uint64) {
		h.count.desiredUpdates.Add(1)
		h.notifyDesired(id, version, notice)
	})
}

// sectionRules says where a section's history, version and change kind are.
func sectionRules(k twin.Kind) (slot int, number historyNumber, change string) {
	switch k {
	case twin.Tags:
		return 0, historyTags, changeTags
	case twin.Desired:
		return 1, historyDesired, changeDesired
	default:
		return 2, historyReported, changeReported
	}
}

// sectionRule says how a change is applied to a section.
type sectionRule struct {
	merge   bool // else the section is replaced
	special twin.SpecialKeys
	whole   bool // the change log tells the whole twin
	stamps  bool // merged with the stamps of its metadata
}

// applySectionTx changes one section, with its history and change-log entry.
// The caller counts up the twin's version, and its revision where a service
// changed it, and stores the record.
func (h *Hub) applySectionTx(tx *storage.Tx, c Caller, id TwinID, r *twinRecord, k twin.Kind, body []byte, rule sectionRule) (twin.Change, error) {
	// The bound on the text is generous: a whole document that is sent back
	// holds metadata, which the size formula does not count.
	p, err := twin.ParseSection(k, body, 24*h.limits.twinLimits(k).MaxBytes+64*kib)
	if err != nil {
		return twin.Change{}, twinError(err)
	}
	return h.applyPatchTx(tx, c, id, r, k, p, rule)
}

// applyPatchTx is applySectionTx of a patch that was read already.
func (h *Hub) applyPatchTx(tx *storage.Tx, c Caller, id TwinID, r *twinRecord, k twin.Kind, p twin.Patch, rule sectionRule) (twin.Change, error) {
	m, err := h.mergeSection(*r.section(k), p, tx.Now(), rule)
	if err != nil {
		return twin.Change{}, err
	}
	return m.change, h.storeSectionTx(tx, c, id, r, m, rule)
}

// sectionMerge is a change of a section, ready to be stored.
type sectionMerge struct {
	next          *twin.Section
	change        twin.Change
	forward, undo []byte
}

// mergeSection makes a change of a section. It needs no transaction.
func (h *Hub) mergeSection(section *twin.Section, p twin.Patch, now time.Time, rule sectionRule) (sectionMerge, error) {
	limits := h.limits.twinLimits(section.Kind())
	limits.Special = rule.special
	apply := section.Merge
	switch {
	case rule.stamps:
		apply = section.Import
	case !rule.merge:
		apply = section.Replace
	}
	next, change, err := apply(p, now, limits)
	if err != nil {
		return sectionMerge{}, twinError(err)
	}
	return sectionMerge{next, change, change.Forward.JSON(nil), change.Undo.JSON(nil)}, nil
}

// storeSectionTx takes a change of a section over, with its history and
// change-log entry.
func (h *Hub) storeSectionTx(tx *storage.Tx, c Caller, id TwinID, r *twinRecord, m sectionMerge, rule sectionRule) error {
	k, next := m.next.Kind(), m.next
	section := r.section(k)
	wrong, err := h.checkDeclared(tx.Now(), id, *section, next)
	if err != nil {
		return err
	}
	h.queries.sectionTx(tx, id, k, *section, next)
	*section = next
	slot, number, kind := sectionRules(k)
	r.History[slot]++
	version := next.Version()
	if k == twin.Tags {
		version = int64(r.History[slot])
	}
	after := *r
	after.Version++
	var whole []byte
	if rule.whole {
		after.Revision++
		whole = h.wholeTwin(&after)
	}
	return errors.Join(
		h.recordHistoryTx(tx, c, id, r.Generation, number, r.History[slot], version, m.forward, m.undo),
		appendTwinChange(tx, c, kind, id, version, m.forward, after.Version, whole),
		h.tellViolationsTx(tx, c, id, next, wrong),
	)
}

func twinError(err error) error {
	if e, ok := errors.AsType[*twin.InvalidError](err); ok {
		// Also for a section that is too large: IoT Hub answers 400, not 413.
		return wrapf(CodeArgumentInvalid, err, "%s", e.Error())
	}
	return err
}

// notifyDesired hands a change to the live session, in commit order: it runs
// in the committer. A full outbox ends the session; the device reads its twin
// when it is back.
func (h *Hub) notifyDesired(id TwinID, version int64, notice []byte) {
	s := h.sessions.get(id)
	if s == nil || !s.Subscriptions().Has(EndpointDesired) {
		return
	}
	if err := s.connection.Outbox.Desired(version, notice); err != nil {
		s.end(wrapf(CodeThrottled, err, "the device %q reads too slowly", id))
	}
}

func (h *Hub) loadTwin(r storage.Reader, id TwinID) (identityRecord, twinRecord, error) {
	identity, err := loadIdentity(r, id)
	if err != nil {
		return identity, twinRecord{}, err
	}
	record, err := h.getTwin(r, id)
	if errors.Is(err, storage.ErrNotFound) {
		return identity, record, wrapf(CodeInternal, err, "identity %q has no twin", id)
	}
	return identity, record, err
}

func (h *Hub) twinView(r storage.Reader, id TwinID, identity identityRecord, t twinRecord) (Twin, error) {
	i, err := h.fromRecord(id, identity, false)
	if err != nil {
		return Twin{}, err
	}
	if err := h.addPresence(r, &i); err != nil {
		return Twin{}, err
	}
	configured, err := h.configured(r, id)
	if err != nil {
		return Twin{}, err
	}
	return h.twinOf(&i, t, configured), nil
}

func (h *Hub) twinOf(i *Identity, t twinRecord, configured configuredRecord) Twin {
	return Twin{
		Identity: *i, ETag: twinETag(h.db.Epoch().Ordinal, t.Revision), Version: t.Version, ModelID: t.ModelID,
		Tags: t.Tags, Desired: t.Desired, Reported: t.Reported, Configurations: configured.statuses(),
	}
}

// twinETag spells a twin's revision as IoT Hub does, with the epoch in its
// high bytes, so that an ETag from before a restore never matches.
func twinETag(epoch uint32, revision uint64) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, uint64(epoch-1)<<48|revision))
}

// Twin returns the twin as devices see it:
// {"desired":{..,"$version":n},"reported":{..,"$version":m}}.
func (s *Session) Twin(ctx context.Context) ([]byte, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	h := s.hub
	if err := h.throttles.wait(ctx, throttleTwinRead, "twin.read"); err != nil {
		return nil, err
	}
	h.count.twinReads.Add(1)
	var t twinRecord
	err := h.view(ctx, "read twin", func(r storage.Reader) error {
		var err error
		t, err = h.getTwin(r, s.id)
		if errors.Is(err, storage.ErrNotFound) {
			return errf(CodeDeviceNotFound, "%s", s.id)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	doc := append(make([]byte, 0, 1024), `{"desired":`...)
	doc = t.Desired.JSON(doc, false)
	doc = append(doc, `,"reported":`...)
	doc = t.Reported.JSON(doc, false)
	return append(doc, '}'), nil
}

// PatchReported merges a JSON object into the reported properties and returns
// their new version when that is durable. expected is -1, or the version that
// the device believes current (CodePreconditionFailed when it is not).
func (s *Session) PatchReported(ctx context.Context, patch []byte, expected int64) (version int64, err error) {
	if err := s.Err(); err != nil {
		return 0, err
	}
	h := s.hub
	if err := h.throttles.wait(ctx, throttleTwinUpdate, "twin.update"); err != nil {
		return 0, err
	}
	s.Touch()
	s.announce()
	err = h.update(ctx, "update reported properties", func(tx *storage.Tx) error {
		if err := s.Err(); err != nil { // it may have ended while the patch was held back
			return err
		}
		r, err := h.getTwin(tx, s.id)
		if errors.Is(err, storage.ErrNotFound) || err == nil && r.Generation != s.connection.Grant.GenerationID {
			return errf(CodeDeviceNotFound, "%s", s.id)
		}
		if err != nil {
			return err
		}
		if expected >= 0 && expected != r.Reported.Version() {
			e := errf(CodePreconditionFailed, "reported properties have version %d, the request expects %d", r.Reported.Version(), expected)
			e.Next = "Read the twin again and send its reported $version, or send none to overwrite." // a device has no ETag
			return e
		}
		if _, err := h.applySectionTx(tx, Caller{Principal: s.connection.Grant.Principal}, s.id, &r, twin.Reported, patch, sectionRule{merge: true, special: twin.RefuseSpecial}); err != nil {
			return err
		}
		r.Version++
		version = r.Reported.Version()
		return twinTable.Put(tx, s.id.key(), r)
	})
	if err == nil {
		h.count.reportedUpdates.Add(1)
	}
	return version, err
}
