package engine

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

// systemModules are what an edge device has from the start.
var systemModules = [...]string{"$edgeAgent", "$edgeHub"}

func isSystemModule(id string) bool { return id == systemModules[0] || id == systemModules[1] }

const edgeScopePrefix = "ms-azure-iot-edge://"

func edgeScope(id string, now time.Time) string {
	const ticksToUnixEpoch = 621355968000000000
	return edgeScopePrefix + id + "-" + strconv.FormatInt(now.UnixNano()/100+ticksToUnixEpoch, 10)
}

// isEdgeScope reports whether a hub may have given the scope to this edge device.
func isEdgeScope(scope, id string) bool {
	ticks, ok := strings.CutPrefix(scope, edgeScopePrefix+id)
	return ok && (ticks == "" || ticks[0] == '-' && strings.Trim(ticks[1:], "0123456789") == "" && len(ticks) < 24)
}

// checkIdentity applies the registry's rules to what a caller sent and
// normalises it.
func (h *Hub) checkIdentity(i *Identity, create bool) error {
	if err := checkID("deviceId", i.DeviceID, h.limits.IdentityIDBytes); err != nil {
		return err
	}
	if i.DeviceID[0] == '$' && create {
		return errf(CodeArgumentInvalid, "deviceId %q begins with $, which is reserved", i.DeviceID)
	}
	a := &i.Authentication
	if a.Type == "" {
		a.Type = AuthSAS
	}
	if i.ModuleID != "" {
		if err := checkID("moduleId", i.ModuleID, h.limits.IdentityIDBytes); err != nil {
			return err
		}
		if i.ModuleID[0] == '$' && (create || !isSystemModule(i.ModuleID)) {
			return errf(CodeArgumentInvalid, "moduleId %q begins with $, which is reserved for system modules", i.ModuleID)
		}
		if a.Type == AuthNone && !isSystemModule(i.ModuleID) {
			a.Type = AuthSAS
		}
		i.Disabled, i.StatusReason, i.Edge, i.DeviceScope, i.ParentScopes = false, "", false, "", nil
		if len(i.ManagedBy) > h.limits.StatusReasonBytes {
			return errf(CodeArgumentInvalid, "managedBy is %d bytes long, at most %d are allowed", len(i.ManagedBy), h.limits.StatusReasonBytes)
		}
	} else {
		i.ManagedBy = ""
		if len(i.StatusReason) > h.limits.StatusReasonBytes {
			return errf(CodeArgumentInvalid, "statusReason is %d bytes long, at most %d are allowed", len(i.StatusReason), h.limits.StatusReasonBytes)
		}
		if a.Type == AuthNone {
			return errf(CodeArgumentInvalid, "DeviceAuthenticationTypeIsMissing: a device needs the authentication type sas, selfSigned or certificateAuthority")
		}
		if len(i.ParentScopes) > 1 {
			return errf(CodeInvalidDeviceScope, "parentScopes has %d entries, at most one parent is allowed", len(i.ParentScopes))
		}
	}
	return checkAuthentication(a)
}

func checkAuthentication(a *Authentication) error {
	switch a.Type {
	case AuthSAS:
		a.PrimaryThumbprint, a.SecondaryThumbprint = "", ""
		if (a.PrimaryKey == "") != (a.SecondaryKey == "") {
			return errf(CodeArgumentInvalid, "Either no keys or both keys can be set: send both primaryKey and secondaryKey, or neither to have them generated")
		}
		for name, key := range map[string]auth.Secret{"primaryKey": a.PrimaryKey, "secondaryKey": a.SecondaryKey} {
			if key == "" {
				continue
			}
			if err := auth.CheckKey(key.Reveal()); err != nil {
				return wrapf(CodeArgumentInvalid, err, "Invalid device key length or encoding in %s: expected base64 of 16 to 64 bytes", name)
			}
		}
	case AuthSelfSigned:
		a.PrimaryKey, a.SecondaryKey = "", ""
		for _, t := range []string{a.PrimaryThumbprint, a.SecondaryThumbprint} {
			if t != "" && !isThumbprint(t) {
				return errf(CodeArgumentInvalid, "StringIsNotThumbprint: a thumbprint is 40 (SHA-1) or 64 (SHA-256) hexadecimal digits without separators, got %d characters", len(t))
			}
		}
	case AuthCertificateAuthority, AuthNone:
		*a = Authentication{Type: a.Type}
	default:
		return errf(CodeArgumentInvalid, "authentication type %q is not known, expected sas, selfSigned, certificateAuthority or none", string(a.Type))
	}
	return nil
}

func isThumbprint(s string) bool {
	if len(s) != 40 && len(s) != 64 {
		return false
	}
	return strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

// fillKeys generates the keys that a SAS identity lacks.
func fillKeys(i *Identity) {
	if a := &i.Authentication; a.Type == AuthSAS && a.PrimaryKey == "" {
		a.PrimaryKey, a.SecondaryKey = auth.NewKey(), auth.NewKey()
	}
}

// storeIdentityTx writes a record with its history, change-log entry and
// audit entry, and ends the session that the change makes void.
func (h *Hub) storeIdentityTx(tx *storage.Tx, c Caller, op operation, kind string, id TwinID, before identityRecord, next *identityRecord) error {
	patch, undo, err := h.identityDelta(id, before, *next)
	if err != nil {
		return err
	}
	next.History++
	if err := errors.Join(
		h.recordHistoryTx(tx, c, id, next.GenerationID, historyIdentity, next.History, int64(next.History), patch, undo),
		identityTable(id).Put(tx, identityKey(id), *next),
		appendChange(tx, c, kind, id, int64(next.History), patch),
		h.auditTx(tx, c, op, id.String(), patch),
	); err != nil {
		return err
	}
	f := newRow()
	f.identity(id, next)
	if op == opIdentityCreate {
		t := newTwinRecord(next.GenerationID)
		f.twin(&t)
	}
	h.queries.changeTx(tx, id, query.Change{Replace: op == opIdentityCreate, Fields: f.list, Noted: true, Note: next.note()})
	if op == opIdentityCreate {
		return nil
	}
	keysChanged, err := h.keysDiffer(id, before, *next)
	if err != nil {
		return err
	}
	switch {
	case next.Disabled:
		tx.OnCommit(func(uint64) { h.endSessions(id, errf(CodeDeviceDisabled, "the identity %q was disabled", id)) })
	case keysChanged:
		tx.OnCommit(func(uint64) { h.endSession(id, errf(CodeUnauthorized, "the credentials of %q were changed", id)) })
	}
	return nil
}

func (h *Hub) keysDiffer(id TwinID, a, b identityRecord) (bool, error) {
	if a.Type != b.Type || a.Thumbprints != b.Thumbprints {
		return true, nil
	}
	p1, s1, err := h.unsealKeys(sealContext(id), a.SealedKeys)
	if err != nil {
		return false, err
	}
	p2, s2, err := h.unsealKeys(sealContext(id), b.SealedKeys)
	return p1 != p2 || s1 != s2, err
}

// identityDelta describes a change of an identity as a merge patch and its
// inverse. Keys never appear, only that they changed.
func (h *Hub) identityDelta(id TwinID, before, next identityRecord) (patch, undo json.RawMessage, err error) {
	f, u := beginMembers(make([]byte, 0, 128)), beginMembers(make([]byte, 0, 128))
	text := func(m *members, name, v string) {
		if v == "" {
			m.raw(name, nil)
		} else {
			m.text(name, v)
		}
	}
	put := func(name, a, b string) {
		if a != b {
			text(&f, name, b)
			text(&u, name, a)
		}
	}
	status := func(r identityRecord) string {
		switch {
		case r.GenerationID == "" || id.ModuleID != "":
			return ""
		case r.Disabled:
			return "disabled"
		default:
			return "enabled"
		}
	}
	// In the order of their names.
	put("authenticationType", string(before.Type), string(next.Type))
	put("deviceScope", before.DeviceScope, next.DeviceScope)
	if before.Edge != next.Edge {
		f.raw("iotEdge", strconv.AppendBool(nil, next.Edge))
		u.raw("iotEdge", strconv.AppendBool(nil, before.Edge))
	}
	if before.GenerationID != "" {
		changed, err := h.keysDiffer(id, before, next)
		if err != nil {
			return nil, nil, err
		}
		if changed {
			f.raw("keysChanged", []byte("true"))
		}
	}
	put("managedBy", before.ManagedBy, next.ManagedBy)
	put("parentScope", before.parent(), next.parent())
	put("primaryThumbprint", before.Thumbprints[0], next.Thumbprints[0])
	put("secondaryThumbprint", before.Thumbprints[1], next.Thumbprints[1])
	put("status", status(before), status(next))
	put("statusReason", before.StatusReason, next.StatusReason)
	return f.end(), u.end(), nil
}
