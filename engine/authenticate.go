package engine

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// Credentials is what a device shows when it connects.
type Credentials struct {
	ID           TwinID
	Host         string // host name the client used; informative
	Token        string // SAS token, empty without one
	Certificates []*x509.Certificate
	Protocol     string // for the identity's connection log, as Connection.Protocol
	Address      string // remote address, for that too
}

// Grant is the outcome of a successful device authentication.
type Grant struct {
	Principal    auth.Principal
	ID           TwinID
	GenerationID string
	Expires      time.Time // of the token; the session ends a grace time later
	Method       string    // JSON for iothub-connection-auth-method

	revision uint64 // of the identity that was authenticated
	seen     uint64 // the sequence at which it was read
	endings  uint64 // of its sessions, before it was read
}

// AuthenticateDevice checks a device's or module's credentials. It fails with
// CodeUnauthorized for anything wrong with them (unknown, disabled, expired,
// wrong key; the message says which, for the log only), and with another code
// when the hub can't tell now, which an edge must never turn into a refusal
// for good.
func (h *Hub) AuthenticateDevice(ctx context.Context, cr Credentials) (Grant, error) {
	g, err := h.authenticateDevice(ctx, cr)
	if err != nil {
		h.count.connectsRefused.Add(1)
		h.RecordRefusal(cr, AsError(err))
	}
	return g, err
}

func (h *Hub) authenticateDevice(ctx context.Context, cr Credentials) (Grant, error) {
	if h.draining.Load() {
		return Grant{}, errf(CodeClosed, "the hub is shutting down")
	}
	if err := h.checkClock(); err != nil {
		return Grant{}, err
	}
	if cr.Token == "" {
		if len(cr.Certificates) > 0 {
			return Grant{}, errf(CodeUnauthorized, "X.509 devices are not served yet: %q needs a SAS token", cr.ID)
		}
		return Grant{}, errf(CodeUnauthorized, "no password: %q needs a SAS token", cr.ID)
	}
	token, err := auth.ParseToken(cr.Token)
	if err != nil {
		return Grant{}, wrapf(CodeUnauthorized, err, "the token of %q can't be read: %v", cr.ID, err)
	}
	if token.Expired(time.Now(), h.limits.TokenClockSkew) {
		return Grant{}, errf(CodeUnauthorized, "the token of %q expired at %s", cr.ID, token.Expiry.UTC().Format(time.RFC3339))
	}
	endings := h.sessions.endings(cr.ID.DeviceID)
	record, parent, seen, err := h.credentialsOf(ctx, cr.ID)
	if err != nil {
		return Grant{}, err
	}
	if record.Disabled || parent.Disabled {
		return Grant{}, errf(CodeUnauthorized, "%q is disabled", cr.ID)
	}
	if record.Type != AuthSAS {
		return Grant{}, errf(CodeUnauthorized, "%q authenticates by %s, which a SAS token does not satisfy", cr.ID, record.Type)
	}
	g := Grant{ID: cr.ID, GenerationID: record.GenerationID, Expires: token.Expiry, revision: record.Revision, seen: seen, endings: endings}
	if token.Policy != "" {
		g.Method = `{"scope":"hub","type":"sas","issuer":"iothub"}`
		return g, h.grantByPolicy(&g, token)
	}
	primary, secondary, err := h.unsealKeys(sealContext(cr.ID), record.SealedKeys)
	if err != nil {
		return Grant{}, wrapf(CodeInternal, err, "the keys of %q can't be read", cr.ID)
	}
	if !token.Opens(h.about.hosts, cr.ID.DeviceID, cr.ID.ModuleID) {
		return Grant{}, errf(CodeUnauthorized, "the token's resource %q does not name %q on this hub", token.Resource, cr.ID)
	}
	if !token.VerifyKeys(primary, secondary) {
		return Grant{}, errf(CodeUnauthorized, "the token of %q is signed with another key", cr.ID)
	}
	g.Principal = auth.Principal{Kind: auth.Device, Name: cr.ID.DeviceID, DeviceID: cr.ID.DeviceID}
	g.Method = `{"scope":"device","type":"sas","issuer":"iothub"}`
	if cr.ID.ModuleID != "" {
		g.Principal = auth.Principal{Kind: auth.Module, Name: cr.ID.String(), DeviceID: cr.ID.DeviceID, ModuleID: cr.ID.ModuleID}
		g.Method = `{"scope":"module","type":"sas","issuer":"iothub"}`
	}
	return g, nil
}

// checkClock refuses to authenticate by a wrong clock: nobody can say what has
// expired. Other troubles of the store are no reason to turn callers away, who
// may only want to read.
func (h *Hub) checkClock() error {
	if err := h.db.Health(); errors.Is(err, storage.ErrClock) {
		return storeError(err, "authenticate")
	}
	return nil
}

// credentialRecord is what a session needs of an identityRecord. A device's
// connecting and subscribing read it several times, and the whole record takes
// three times as long to decode.
type credentialRecord struct {
	GenerationID string             `json:"g"`
	Revision     uint64             `json:"n"`
	Disabled     bool               `json:"x"`
	Type         AuthenticationType `json:"at"`
	SealedKeys   []byte             `json:"k"`
}

// The tables of identities, read as credentials. Never written.
var (
	credentials       = credentialCodec{storage.JSON[credentialRecord]()}
	deviceCredentials = storage.NewTable[credentialRecord]("device", 1, credentials)
	moduleCredentials = storage.NewTable[credentialRecord]("module", 1, credentials)
)

// loadCredentials fails with storage.ErrNotFound for an unknown identity.
func loadCredentials(r storage.Reader, id TwinID) (credentialRecord, error) {
	if id.ModuleID != "" {
		return moduleCredentials.Get(r, id.key())
	}
	return deviceCredentials.Get(r, deviceKey(id.DeviceID))
}

// sameCredentials reports whether an identity is certainly as it was at a sequence;
// when false, loadCredentials tells.
func sameCredentials(tx *storage.Tx, id TwinID, since uint64) bool {
	if id.ModuleID != "" {
		return moduleCredentials.Unchanged(tx, id.key(), since)
	}
	return deviceCredentials.Unchanged(tx, deviceKey(id.DeviceID), since)
}

// credentialsOf loads an identity and, for a module, its device, and tells as of which
// sequence. Unknown ones are CodeUnauthorized: who may not connect does not learn what exists.
func (h *Hub) credentialsOf(ctx context.Context, id TwinID) (record, parent credentialRecord, seen uint64, err error) {
	err = h.view(ctx, "authenticate", func(r storage.Reader) error {
		storage.Remember(r) // who connects will do so again
		var err error
		seen = storage.SequenceOf(r)
		record, err = loadCredentials(r, id)
		if err == nil && id.ModuleID != "" {
			parent, err = loadCredentials(r, TwinID{DeviceID: id.DeviceID})
		}
		if errors.Is(err, storage.ErrNotFound) {
			return errf(CodeUnauthorized, "%q is not a known identity", id)
		}
		return err
	})
	return record, parent, seen, err
}

// grantByPolicy lets a shared access policy with DeviceConnect open any
// identity that its token's resource covers.
func (h *Hub) grantByPolicy(g *Grant, token auth.Token) error {
	p, err := h.verifyPolicy(token)
	if err != nil {
		return err
	}
	if !p.Permissions.Has(auth.DeviceConnect) {
		return errf(CodeUnauthorized, "policy %q lacks the permission %s", p.Name, auth.DeviceConnect)
	}
	scope, ok := token.Target(h.about.hosts)
	principal := auth.Principal{Kind: auth.Device, Name: g.ID.DeviceID, DeviceID: g.ID.DeviceID, ModuleID: g.ID.ModuleID, Scope: scope}
	if g.ID.ModuleID != "" {
		principal.Kind, principal.Name = auth.Module, g.ID.String()
	}
	if !ok || !principal.Covers(g.ID.path()) {
		return errf(CodeUnauthorized, "the token's resource %q does not cover %q on this hub", token.Resource, g.ID)
	}
	principal.Scope = ""
	g.Principal = principal
	return nil
}

// recheck looks at the identity again after its session became visible.
func (h *Hub) recheck(ctx context.Context, g Grant) error {
	record, parent, _, err := h.credentialsOf(ctx, g.ID)
	if err != nil {
		return err
	}
	if record.GenerationID != g.GenerationID || record.Disabled || parent.Disabled {
		return errf(CodeUnauthorized, "%q was changed while it connected", g.ID)
	}
	if record.Revision != g.revision {
		// Any change of the identity may have changed its keys: the device
		// only has to connect again.
		return errf(CodeUnavailable, "%q was changed while it connected", g.ID)
	}
	return nil
}

// AuthenticateService checks a service's SharedAccessSignature for a request
// path (decoded, "/devices/x"). It fails with CodeUnauthorized, which the
// audit records with the caller's address and request id, or with
// CodeUnavailable while the hub's clock is wrong.
func (h *Hub) AuthenticateService(_ context.Context, c Caller, token, path string) (auth.Principal, error) {
	if err := h.checkClock(); err != nil {
		return auth.Principal{}, err
	}
	p, claimed, err := h.verifyService(token, path)
	if err != nil {
		c.Principal = auth.Principal{Kind: auth.Policy, Name: claimed}
		h.auditRefused(c, opAuthenticate, path, err)
		return auth.Principal{}, err
	}
	return p, nil
}

// verifyService returns the principal, or with an error the name that the
// token claims.
func (h *Hub) verifyService(token, path string) (p auth.Principal, claimed string, refusal *Error) {
	if token == "" {
		return p, "", errf(CodeUnauthorized, "Unauthorized: the request has no Authorization header; send a SharedAccessSignature")
	}
	t, err := auth.ParseToken(token)
	if err != nil {
		return p, "", wrapf(CodeUnauthorized, err, "Unauthorized: %v", err)
	}
	if t.Expired(time.Now(), h.limits.TokenClockSkew) {
		return p, t.Policy, errf(CodeUnauthorized, "Unauthorized: the token expired at %s", t.Expiry.UTC().Format(time.RFC3339))
	}
	if t.Policy == "" {
		return p, "", errf(CodeUnauthorized, "Unauthorized: the token names no shared access policy (skn)")
	}
	policy, err := h.verifyPolicy(t)
	if err != nil {
		return p, t.Policy, AsError(err)
	}
	scope, ok := t.Target(h.about.hosts)
	p = auth.Principal{Kind: auth.Policy, Name: policy.Name, Permissions: policy.Permissions, Scope: scope}
	if !ok || !p.Covers(path) {
		return p, t.Policy, errf(CodeUnauthorized, "Unauthorized: the token's resource does not cover %s on this hub", path)
	}
	return p, t.Policy, nil
}

// verifyPolicy finds the token's policy and checks its signature. The refusal
// of an unknown policy is that of a wrong key.
func (h *Hub) verifyPolicy(t auth.Token) (auth.SharedAccessPolicy, error) {
	p, known := (*h.policies.Load())[t.Policy]
	if !p.Verify(t) || !known {
		return auth.SharedAccessPolicy{}, errf(CodeUnauthorized, "Unauthorized: the policy is not known, or the token is signed with another key")
	}
	return p, nil
}
