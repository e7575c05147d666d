package engine

import (
	"context"
	"encoding/base64"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

// AuthenticationType says how an identity proves itself; the texts are IoT Hub's.
type AuthenticationType string

// The authentication types. Thumbprint and certificate-authority identities
// are stored and shown, and refused at CONNECT until X.509 is built.
const (
	AuthSAS                  AuthenticationType = "sas"
	AuthSelfSigned           AuthenticationType = "selfSigned"
	AuthCertificateAuthority AuthenticationType = "certificateAuthority"
	AuthNone                 AuthenticationType = "none"
)

// Authentication holds an identity's credentials.
type Authentication struct {
	Type                AuthenticationType
	PrimaryKey          auth.Secret
	SecondaryKey        auth.Secret
	PrimaryThumbprint   string
	SecondaryThumbprint string
}

// Identity is a device identity, or a module identity when ModuleID is set.
// Fields under "set by the hub" are ignored on input. Times are UTC; the zero
// time means never.
type Identity struct {
	DeviceID string
	ModuleID string

	Disabled       bool   // devices only
	StatusReason   string // devices only
	Authentication Authentication
	Edge           bool     // capability iotEdge; devices only
	DeviceScope    string   // devices only
	ParentScopes   []string // devices only
	ManagedBy      string   // modules only

	// Set by the hub.
	GenerationID          string
	ETag                  string // without quotes
	StatusUpdated         time.Time
	Connected             bool
	ConnectionUpdated     time.Time
	LastActivity          time.Time
	CloudToDeviceMessages int
	Created               time.Time
	Updated               time.Time

	// imported: out of a file that another hub may have written. An edge device
	// keeps the scope that it had there, and a parent may come later.
	imported bool
}

// ID returns the identity's name.
func (i *Identity) ID() TwinID { return TwinID{i.DeviceID, i.ModuleID} }

// IfMatch is a parsed If-Match condition: absent, any, or one ETag.
type IfMatch struct {
	Present bool
	Any     bool
	ETag    string
}

// ParseIfMatch parses an If-Match header: absent, *, "*", or one ETag with or
// without quotes and weak prefix; IoT Hub's SDKs send all of these.
func ParseIfMatch(header string) IfMatch {
	t := strings.TrimSpace(header)
	if t == "" {
		return IfMatch{}
	}
	t = strings.TrimPrefix(t, "W/")
	if len(t) >= 2 && t[0] == '"' && t[len(t)-1] == '"' {
		t = t[1 : len(t)-1]
	}
	return IfMatch{Present: true, Any: t == "*", ETag: t}
}

func (m IfMatch) matches(etag string) bool { return !m.Present || m.Any || m.ETag == etag }

// CreateIdentity makes an identity with its twin. Missing keys of a SAS
// identity are generated. Creating an edge device also makes its modules
// $edgeAgent and $edgeHub. It needs RegistryWrite.
func (h *Hub) CreateIdentity(ctx context.Context, c Caller, i Identity) (Identity, error) {
	if err := h.authorize(ctx, c, opIdentityCreate, i.ID().String()); err != nil {
		return Identity{}, err
	}
	return h.createIdentity(ctx, c, i, TwinUpdate{})
}

func (h *Hub) createIdentity(ctx context.Context, c Caller, i Identity, u TwinUpdate) (Identity, error) {
	if err := h.checkIdentity(&i, true); err != nil {
		return Identity{}, err
	}
	fillKeys(&i)
	var made identityRecord
	err := h.update(ctx, "create identity", func(tx *storage.Tx) error {
		var err error
		made, err = h.createIdentityTx(tx, c, i, u)
		return err
	})
	if err != nil {
		return Identity{}, err
	}
	return h.fromRecord(i.ID(), made, true)
}

// createIdentityTx makes an identity that somebody asked for by its name: it is
// likely to connect next, unlike those of an import.
func (h *Hub) createIdentityTx(tx *storage.Tx, c Caller, i Identity, u TwinUpdate) (identityRecord, error) {
	storage.Remember(tx)
	return h.createWithTwinTx(tx, c, i, func(t *twinRecord) error {
		_, err := h.applyTwinUpdateTx(tx, c, i.ID(), t, u, true)
		return err
	})
}

// createWithTwinTx makes an identity whose twin begins with what fill changes
// of it.
func (h *Hub) createWithTwinTx(tx *storage.Tx, c Caller, i Identity, fill func(t *twinRecord) error) (identityRecord, error) {
	if i.ModuleID != "" {
		if _, err := loadDevice(tx, i.DeviceID); err != nil {
			return identityRecord{}, err
		}
		modules, err := countModules(tx, i.DeviceID, h.limits.ModulesPerDevice)
		if err != nil {
			return identityRecord{}, err
		}
		if modules >= h.limits.ModulesPerDevice && !isSystemModule(i.ModuleID) {
			return identityRecord{}, errf(CodeTooManyModules, "device %q has %d modules, at most %d are allowed", i.DeviceID, modules, h.limits.ModulesPerDevice)
		}
	}
	switch _, err := identityTable(i.ID()).Get(tx, identityKey(i.ID())); {
	case err == nil && i.ModuleID != "":
		return identityRecord{}, errf(CodeModuleAlreadyExists, "Device %s in IotHub %s already contains Module %s.", i.DeviceID, h.about.hosts[0], i.ModuleID)
	case err == nil:
		return identityRecord{}, errf(CodeDeviceAlreadyExists, "A device with ID '%s' is already registered.", i.DeviceID)
	case !errors.Is(err, storage.ErrNotFound):
		return identityRecord{}, err
	}
	now := tx.Now()
	r := identityRecord{
		GenerationID: newGenerationID(now), Revision: newRevision(), Created: now, Edge: i.Edge, DeviceScope: i.DeviceScope,
	}
	if i.Edge && !(i.imported && isEdgeScope(i.DeviceScope, i.DeviceID)) {
		r.DeviceScope = edgeScope(i.DeviceID, now)
	}
	if err := h.fillRecordTx(tx, &r, i, identityRecord{}); err != nil {
		return identityRecord{}, err
	}
	t := newTwinRecord(r.GenerationID)
	t.Epoch = h.db.Epoch().Ordinal
	// First the identity: who follows the changes hears of a twin after it.
	if err := h.storeIdentityTx(tx, c, opIdentityCreate, changeIdentityCreated, i.ID(), identityRecord{}, &r); err != nil {
		return identityRecord{}, err
	}
	t.Version-- // what it begins with is its first version
	if err := fill(&t); err != nil {
		return identityRecord{}, err
	}
	t.Version++
	if err := twinTable.Put(tx, i.ID().key(), t); err != nil {
		return identityRecord{}, err
	}
	countIdentity(tx, i.ID(), 1, r.Disabled)
	if i.Edge {
		return r, h.createSystemModulesTx(tx, c, i.DeviceID)
	}
	return r, nil
}

func countIdentity(tx *storage.Tx, id TwinID, delta int64, disabled bool) {
	if id.ModuleID != "" {
		tx.Add(counterModules, delta)
		return
	}
	tx.Add(counterDevices, delta)
	if disabled {
		tx.Add(counterDisabled, delta)
	}
}

func countModules(r storage.Reader, deviceID string, enough int) (int, error) {
	n := 0
	for _, err := range moduleTable.Scan(r, storage.Range{Prefix: storage.Tuple(deviceID)}) {
		if err != nil {
			return 0, err
		}
		if n++; n > enough {
			break
		}
	}
	return n, nil
}

// UpdateIdentity replaces an identity: keys that are absent are made anew, as
// IoT Hub does. The condition must be present. Disabling it, or changing its
// keys, ends a live session. It needs RegistryWrite.
func (h *Hub) UpdateIdentity(ctx context.Context, c Caller, i Identity, m IfMatch) (Identity, error) {
	if err := h.authorize(ctx, c, opIdentityUpdate, i.ID().String()); err != nil {
		return Identity{}, err
	}
	return h.updateIdentity(ctx, c, i, m)
}

func (h *Hub) updateIdentity(ctx context.Context, c Caller, i Identity, m IfMatch) (Identity, error) {
	if !m.Present {
		return Identity{}, errf(CodePreconditionFailed, "an update needs an If-Match header: the identity's ETag, or *")
	}
	if err := h.checkIdentity(&i, false); err != nil {
		return Identity{}, err
	}
	fillKeys(&i)
	var next identityRecord
	err := h.update(ctx, "update identity", func(tx *storage.Tx) error {
		var err error
		next, err = h.updateIdentityTx(tx, c, i, m)
		return err
	})
	if err != nil {
		return Identity{}, err
	}
	return h.fromRecord(i.ID(), next, true)
}

func (h *Hub) updateIdentityTx(tx *storage.Tx, c Caller, i Identity, m IfMatch) (identityRecord, error) {
	before, err := loadIdentity(tx, i.ID())
	if err != nil {
		return identityRecord{}, err
	}
	if !m.matches(identityETag(h.db.Epoch().Ordinal, before.Revision)) {
		return identityRecord{}, errf(CodePreconditionFailed, "PreconditionFailed, ETag may be invalid.")
	}
	next := before
	next.Revision++
	next.Edge, next.DeviceScope = i.Edge, i.DeviceScope
	switch {
	case i.Edge && before.Edge:
		if i.imported {
			next.DeviceScope = before.DeviceScope
		} else if i.DeviceScope != before.DeviceScope {
			return identityRecord{}, errf(CodeInvalidDeviceScope, "Device scope is immutable: %q must be sent back as it is", before.DeviceScope)
		}
	case i.Edge:
		next.DeviceScope = edgeScopePrefix + i.DeviceID
	case before.Edge:
		next.DeviceScope, i.ParentScopes = "", nil
	}
	if err := h.fillRecordTx(tx, &next, i, before); err != nil {
		return identityRecord{}, err
	}
	if i.ModuleID == "" && before.Disabled != next.Disabled {
		tx.Add(counterDisabled, map[bool]int64{true: 1, false: -1}[next.Disabled])
	}
	if err := h.storeIdentityTx(tx, c, opIdentityUpdate, changeIdentityUpdated, i.ID(), before, &next); err != nil {
		return identityRecord{}, err
	}
	switch {
	case i.ModuleID != "" || i.Edge == before.Edge:
		return next, nil
	case i.Edge:
		return next, h.createSystemModulesTx(tx, c, i.DeviceID)
	default:
		return next, h.deleteSystemModulesTx(tx, c, i.DeviceID)
	}
}

func (h *Hub) createSystemModulesTx(tx *storage.Tx, c Caller, deviceID string) error {
	for _, m := range systemModules {
		module := Identity{DeviceID: deviceID, ModuleID: m, ManagedBy: "iotEdge", Authentication: Authentication{Type: AuthNone}}
		if _, err := h.createIdentityTx(tx, c, module, TwinUpdate{}); err != nil {
			return err
		}
	}
	return nil
}

func (h *Hub) deleteSystemModulesTx(tx *storage.Tx, c Caller, deviceID string) error {
	for _, m := range systemModules {
		id := TwinID{deviceID, m}
		r, err := moduleTable.Get(tx, id.key())
		if errors.Is(err, storage.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if err := h.deleteIdentityTx(tx, c, id, r); err != nil {
			return err
		}
	}
	return nil
}

// fillRecordTx takes over what a caller may set; before is the record so far.
func (h *Hub) fillRecordTx(tx *storage.Tx, r *identityRecord, i Identity, before identityRecord) error {
	now := tx.Now()
	if i.Disabled != r.Disabled || i.StatusReason != r.StatusReason {
		r.StatusUpdated = now
	}
	r.Disabled, r.StatusReason, r.ManagedBy, r.Updated = i.Disabled, i.StatusReason, i.ManagedBy, now
	r.Type, r.SealedKeys, r.Thumbprints = i.Authentication.Type, nil, [2]string{}
	switch r.Type {
	case AuthSAS:
		sealed, err := h.sealKeys(sealContext(i.ID()), i.Authentication.PrimaryKey, i.Authentication.SecondaryKey)
		if err != nil {
			return err
		}
		r.SealedKeys = sealed
	case AuthSelfSigned:
		r.Thumbprints = [2]string{i.Authentication.PrimaryThumbprint, i.Authentication.SecondaryThumbprint}
	case AuthCertificateAuthority, AuthNone:
	}
	if i.ModuleID != "" {
		return nil
	}
	parents, err := parentScopesTx(tx, r, i)
	if err != nil {
		return err
	}
	r.ParentScopes = parents
	return h.checkLayersTx(tx, i, before, r)
}

func sealContext(id TwinID) string { return "identity:" + id.String() }

// DeleteIdentity removes an identity, its twin, its modules and its session.
// An absent condition answers CodePreconditionFailed, a system module of an
// edge device CodeSystemModule. It needs RegistryWrite.
func (h *Hub) DeleteIdentity(ctx context.Context, c Caller, id TwinID, m IfMatch) error {
	if err := h.authorize(ctx, c, opIdentityDelete, id.String()); err != nil {
		return err
	}
	return h.deleteIdentity(ctx, c, id, m)
}

func (h *Hub) deleteIdentity(ctx context.Context, c Caller, id TwinID, m IfMatch) error {
	if !m.Present {
		return errf(CodePreconditionFailed, "Etag missing: a delete needs an If-Match header with the identity's ETag, or *")
	}
	return h.update(ctx, "delete identity", func(tx *storage.Tx) error { return h.deleteWithModulesTx(tx, c, id, m) })
}

func (h *Hub) deleteWithModulesTx(tx *storage.Tx, c Caller, id TwinID, m IfMatch) error {
	r, err := loadIdentity(tx, id)
	if err != nil {
		return err
	}
	if !m.matches(identityETag(h.db.Epoch().Ordinal, r.Revision)) {
		return errf(CodePreconditionFailed, "PreconditionFailed, ETag may be invalid.")
	}
	if isSystemModule(id.ModuleID) {
		// Nobody could make it again, not even an import: it goes with its device,
		// or when its device stops being an edge device.
		return errf(CodeSystemModule, "the module %q belongs to the system and goes only with its edge device", id)
	}
	if id.ModuleID == "" {
		for item, err := range moduleTable.Scan(tx, storage.Range{Prefix: storage.Tuple(id.DeviceID)}) {
			if err != nil {
				return err
			}
			module, err := (TwinID{}).fromKey(item.Key)
			if err != nil {
				return err
			}
			if err := h.deleteIdentityTx(tx, c, module, item.Value); err != nil {
				return err
			}
		}
	}
	return h.deleteIdentityTx(tx, c, id, r)
}

func (h *Hub) deleteIdentityTx(tx *storage.Tx, c Caller, id TwinID, r identityRecord) error {
	if id.ModuleID == "" {
		if _, err := h.purgeMessagesTx(tx, id.DeviceID, false); err != nil {
			return err
		}
		if err := feedbackQueue.dropTx(tx, feedbackTable.Lookup(tx, "device", storage.Range{Prefix: storage.Tuple(id.DeviceID)}), retainBatch); err != nil {
			return err
		}
		if err := forgetFilesTx(tx, id.DeviceID, r.GenerationID); err != nil {
			return err
		}
	}
	t, err := h.getTwin(tx, id)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	var whole []byte
	if err == nil {
		whole = h.wholeTwin(&t)
	}
	if err := h.leaveTx(tx, id, "the identity was deleted"); err != nil {
		return err
	}
	_, dropFault := h.removeFaultTx(tx, c, id, time.Time{})
	if err := errors.Join(
		identityTable(id).Delete(tx, identityKey(id)),
		twinTable.Delete(tx, id.key()),
		presenceTable.Delete(tx, id.key()),
		subscriptionTable.Delete(tx, id.key()),
		h.dropQueueTx(tx, id),
		dropConnectionsTx(tx, id),
		forgetConfiguredTx(tx, id),
		dropFault,
		appendTwinChange(tx, c, changeIdentityDeleted, id, 0, nil, t.Version, whole),
		h.auditTx(tx, c, opIdentityDelete, id.String(), nil),
	); err != nil {
		return err
	}
	countIdentity(tx, id, -1, r.Disabled)
	h.queries.changeTx(tx, id, query.Change{Gone: true})
	tx.OnCommit(func(uint64) {
		if h.jobs.stats.active.Load() > 0 {
			h.jobs.attendAll(id) // its executions are removed
		}
		h.endSession(id, errf(CodeDeviceNotFound, "the identity %q was deleted", id))
	})
	return nil
}

// Identity returns an identity with its presence. It needs RegistryRead.
func (h *Hub) Identity(ctx context.Context, c Caller, id TwinID) (Identity, error) {
	if err := h.authorize(ctx, c, opIdentityRead, id.String()); err != nil {
		return Identity{}, err
	}
	var found Identity
	err := h.view(ctx, "read identity", func(r storage.Reader) error {
		rec, err := loadIdentity(r, id)
		if err != nil {
			return err
		}
		if found, err = h.fromRecord(id, rec, true); err != nil {
			return err
		}
		return h.addPresence(r, &found)
	})
	return found, err
}

// Devices lists device identities in id order after the id given, at most
// limit, only those whose id begins with prefix. next is empty at the end.
// It needs RegistryRead.
func (h *Hub) Devices(ctx context.Context, c Caller, prefix, after string, limit int) (list []Identity, next string, err error) {
	if err := h.authorize(ctx, c, opIdentityRead, "*"); err != nil {
		return nil, "", err
	}
	if limit <= 0 || limit > h.limits.ListIdentities {
		limit = h.limits.ListIdentities
	}
	list = make([]Identity, 0, min(limit, 100))
	g := storage.Range{}
	if start := max(prefix, after); start != "" {
		if start == after {
			g.After = deviceKey(after)
		} else {
			g.Start = deviceKey(prefix)
		}
	}
	err = h.view(ctx, "list devices", func(r storage.Reader) error {
		for item, err := range deviceTable.Scan(r, g) {
			if err != nil {
				return err
			}
			parts, err := item.Key.Parts()
			if err != nil {
				return err
			}
			id, _ := parts[0].(string)
			if !strings.HasPrefix(id, prefix) {
				return nil
			}
			if len(list) == limit {
				next = list[limit-1].DeviceID
				return nil
			}
			found, err := h.fromRecord(TwinID{DeviceID: id}, item.Value, true)
			if err != nil {
				return err
			}
			if err := h.addPresence(r, &found); err != nil {
				return err
			}
			list = append(list, found)
		}
		return nil
	})
	return list, next, err
}

// Modules lists a device's module identities. It needs RegistryRead.
func (h *Hub) Modules(ctx context.Context, c Caller, deviceID string) ([]Identity, error) {
	if err := h.authorize(ctx, c, opIdentityRead, deviceID); err != nil {
		return nil, err
	}
	list := []Identity{}
	err := h.view(ctx, "list modules", func(r storage.Reader) error {
		if _, err := loadDevice(r, deviceID); err != nil {
			return err
		}
		for item, err := range moduleTable.Scan(r, storage.Range{Prefix: storage.Tuple(deviceID)}) {
			if err != nil {
				return err
			}
			id, err := (TwinID{}).fromKey(item.Key)
			if err != nil {
				return err
			}
			found, err := h.fromRecord(id, item.Value, true)
			if err != nil {
				return err
			}
			if err := h.addPresence(r, &found); err != nil {
				return err
			}
			list = append(list, found)
		}
		return nil
	})
	return list, err
}

func identityTable(id TwinID) *storage.Table[identityRecord] {
	if id.ModuleID != "" {
		return moduleTable
	}
	return deviceTable
}

func identityKey(id TwinID) storage.Key {
	if id.ModuleID != "" {
		return id.key()
	}
	return deviceKey(id.DeviceID)
}

func loadDevice(r storage.Reader, id string) (identityRecord, error) {
	rec, err := deviceTable.Get(r, deviceKey(id))
	if errors.Is(err, storage.ErrNotFound) {
		return rec, errf(CodeDeviceNotFound, "%s", id)
	}
	return rec, err
}

func loadIdentity(r storage.Reader, id TwinID) (identityRecord, error) {
	if id.ModuleID == "" {
		return loadDevice(r, id.DeviceID)
	}
	rec, err := moduleTable.Get(r, id.key())
	if !errors.Is(err, storage.ErrNotFound) {
		return rec, err
	}
	if _, err := loadDevice(r, id.DeviceID); err != nil {
		return rec, err
	}
	return rec, errf(CodeModuleNotFound, "%s", id)
}

func (h *Hub) fromRecord(id TwinID, r identityRecord, withKeys bool) (Identity, error) {
	i := Identity{
		DeviceID: id.DeviceID, ModuleID: id.ModuleID, Disabled: r.Disabled, StatusReason: r.StatusReason,
		Authentication: Authentication{Type: r.Type, PrimaryThumbprint: r.Thumbprints[0], SecondaryThumbprint: r.Thumbprints[1]},
		Edge:           r.Edge, DeviceScope: r.DeviceScope, ParentScopes: slices.Clone(r.ParentScopes), ManagedBy: r.ManagedBy,
		GenerationID: r.GenerationID, ETag: identityETag(h.db.Epoch().Ordinal, r.Revision), StatusUpdated: r.StatusUpdated, Created: r.Created, Updated: r.Updated,
	}
	if withKeys {
		var err error
		if i.Authentication.PrimaryKey, i.Authentication.SecondaryKey, err = h.unsealKeys(sealContext(id), r.SealedKeys); err != nil {
			return i, err
		}
	}
	return i, nil
}

// identityETag spells a revision as IoT Hub does, as base64 of decimal text,
// with the epoch in its high bits, so that an ETag from before a restore never
// matches.
func identityETag(epoch uint32, revision uint64) string {
	return base64.StdEncoding.EncodeToString(strconv.AppendUint(nil, uint64(epoch-1)<<40|revision, 10))
}

// newRevision starts an identity's ETags at random, so that a deleted
// namesake's does not match.
func newRevision() uint64 { return uint64(rand.Uint32() >> 1) }

// newGenerationID is the creation time in ticks of 100 ns since year 1, as
// IoT Hub's ids look, with the last three digits random.
func newGenerationID(now time.Time) string {
	const ticksToUnixEpoch = 621355968000000000
	ticks := now.UnixNano()/100 + ticksToUnixEpoch
	return strconv.FormatInt(ticks-ticks%1000+rand.Int64N(1000), 10)
}
