package engine

import (
	"context"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// KeySlot says which key of a pair is meant.
type KeySlot string

// The key slots.
const (
	KeyPrimary   KeySlot = "primaryKey"
	KeySecondary KeySlot = "secondaryKey"
	KeyBoth      KeySlot = "both"
)

// rotate replaces the keys of a slot.
func (k KeySlot) rotate(primary, secondary *auth.Secret) error {
	switch k {
	case KeyPrimary:
		*primary = auth.NewKey()
	case KeySecondary:
		*secondary = auth.NewKey()
	case KeyBoth:
		*primary, *secondary = auth.NewKey(), auth.NewKey()
	default:
		return errf(CodeArgumentInvalid, "policyKey %q is not known, expected %s, %s or %s", string(k), KeyPrimary, KeySecondary, KeyBoth)
	}
	return nil
}

// choose returns one key of a pair.
func (k KeySlot) choose(primary, secondary auth.Secret) (auth.Secret, error) {
	switch k {
	case KeyPrimary, "":
		return primary, nil
	case KeySecondary:
		return secondary, nil
	case KeyBoth:
	}
	return "", errf(CodeArgumentInvalid, "key %q is not known, expected %s or %s", string(k), KeyPrimary, KeySecondary)
}

// RegenerateKeys gives SAS identities new keys in the slot named, and ends
// their sessions. It returns the identities changed, in order, and an error
// for each other one; one that is named twice is not changed. It needs
// RegistryWrite.
func (h *Hub) RegenerateKeys(ctx context.Context, c Caller, slot KeySlot, ids []TwinID) ([]Identity, []BulkError, error) {
	if err := h.authorize(ctx, c, opIdentityKeys, "*"); err != nil {
		return nil, nil, err
	}
	if len(ids) == 0 {
		return nil, nil, errf(CodeArgumentInvalid, "the request has no devices, expected 1 to %d", h.limits.BulkIdentities)
	}
	if len(ids) > h.limits.BulkIdentities {
		return nil, nil, errf(CodeTooManyDevices, "the request has %d devices, at most %d are allowed", len(ids), h.limits.BulkIdentities)
	}
	var a, b auth.Secret
	if err := slot.rotate(&a, &b); err != nil {
		return nil, nil, err
	}
	times := map[TwinID]int{}
	for _, id := range ids {
		times[id]++
	}
	var changed []Identity
	var failed []BulkError
	for _, id := range ids {
		if times[id] > 1 {
			// The second turn would make a dead key of the one that the first answers.
			failed = append(failed, BulkError{id, ImportUpdate, definedMultipleTimes(id, times[id])})
			continue
		}
		i, err := h.regenerateKeys(ctx, c, slot, id)
		if err != nil {
			failed = append(failed, BulkError{id, ImportUpdate, AsError(err)})
			continue
		}
		changed = append(changed, i)
	}
	return changed, failed, nil
}

func (h *Hub) regenerateKeys(ctx context.Context, c Caller, slot KeySlot, id TwinID) (Identity, error) {
	var next identityRecord
	err := h.update(ctx, "regenerate keys", func(tx *storage.Tx) (err error) {
		next, err = h.regenerateKeysTx(tx, c, slot, id)
		return err
	})
	if err != nil {
		return Identity{}, err
	}
	return h.fromRecord(id, next, true)
}

func (h *Hub) regenerateKeysTx(tx *storage.Tx, c Caller, slot KeySlot, id TwinID) (next identityRecord, err error) {
	before, err := loadIdentity(tx, id)
	if err != nil {
		return next, err
	}
	if before.Type != AuthSAS {
		return next, errf(CodeArgumentInvalid, "%q authenticates by %s and has no keys", id, before.Type)
	}
	primary, secondary, err := h.unsealKeys(sealContext(id), before.SealedKeys)
	if err != nil {
		return next, err
	}
	if err := slot.rotate(&primary, &secondary); err != nil {
		return next, err
	}
	next = before
	next.Revision++
	next.Updated = tx.Now()
	if next.SealedKeys, err = h.sealKeys(sealContext(id), primary, secondary); err != nil {
		return next, err
	}
	return next, h.storeIdentityTx(tx, c, opIdentityKeys, changeIdentityUpdated, id, before, &next)
}

// IdentityConnectionString returns IoT Hub's connection string of a SAS
// identity with the key in the slot (primary when empty). It needs
// RegistryWrite: the string holds a key.
func (h *Hub) IdentityConnectionString(ctx context.Context, c Caller, id TwinID, slot KeySlot) (auth.ConnectionString, error) {
	if err := h.authorize(ctx, c, opIdentityKeys, id.String()); err != nil {
		return auth.ConnectionString{}, err
	}
	var record identityRecord
	err := h.view(ctx, "read identity", func(r storage.Reader) error {
		var err error
		record, err = loadIdentity(r, id)
		return err
	})
	if err != nil {
		return auth.ConnectionString{}, err
	}
	if record.Type != AuthSAS {
		return auth.ConnectionString{}, errf(CodeArgumentInvalid, "%q authenticates by %s and has no keys", id, record.Type)
	}
	i, err := h.fromRecord(id, record, true)
	if err != nil {
		return auth.ConnectionString{}, AsError(err)
	}
	key, err := slot.choose(i.Authentication.PrimaryKey, i.Authentication.SecondaryKey)
	if err != nil {
		return auth.ConnectionString{}, err
	}
	return auth.ConnectionString{HostName: h.about.hosts[0], DeviceID: id.DeviceID, ModuleID: id.ModuleID, SharedAccessKey: key}, nil
}
