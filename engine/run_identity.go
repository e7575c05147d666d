package engine

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/pattern"
)

// rotate gives the identity a new key, which nobody sees: it stands in method
// payloads under a name.
func (w *runWorld) rotate(s *pattern.Step) (a pattern.Answer, err error) {
	args, fault := readArgs[pattern.RotateArgs](s)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	slot, name := KeySecondary, "secondary"
	switch args.Slot {
	case "", "secondary":
	case "primary":
		slot, name = KeyPrimary, "primary"
	default:
		return fail(pattern.FaultInvalid, "%s: the slot %q is not known, expected primary or secondary", s.Op, clip(args.Slot)), nil
	}
	if _, err := w.twin(); err != nil {
		return a, err
	}
	c, _ := w.acts()
	if _, err := w.t.hub.regenerateKeysTx(w.t.Tx, c, slot, w.r.device()); err != nil {
		return a, err
	}
	return result(map[string]string{secretMember: secretKeyPrefix + name})
}

// quarantineTag is what the tag quarantine holds: what is needed to take it back.
type quarantineTag struct {
	Reason       string    `json:"reason"`
	Since        time.Time `json:"since"`
	Run          string    `json:"run"`
	Status       string    `json:"status"` // before
	StatusReason string    `json:"statusReason,omitempty"`
}

// quarantine disables the identity; release takes back just that.
func (w *runWorld) quarantine(s *pattern.Step) (a pattern.Answer, err error) {
	args, fault := readArgs[pattern.ReasonArgs](s)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	if args.Reason == "" || len(args.Reason) > w.t.hub.limits.StatusReasonBytes {
		return fail(pattern.FaultInvalid, "%s: a reason of 1 to %d bytes is needed", s.Op, w.t.hub.limits.StatusReasonBytes), nil
	}
	record, before, err := w.identity(s)
	if err != nil {
		return a, err
	}
	if _, found := record.Tags.Get("quarantine"); found {
		return fail(pattern.FaultConflict, "%s: the device is in quarantine already", s.Op), nil
	}
	tag := quarantineTag{Reason: args.Reason, Since: w.t.Now().UTC().Truncate(time.Second), Run: w.r.id, Status: "enabled", StatusReason: before.StatusReason}
	if before.Disabled {
		tag.Status = "disabled"
	}
	patch, err := marshal(map[string]any{"quarantine": tag})
	if err != nil {
		return a, err
	}
	next := before
	next.Disabled, next.StatusReason = true, args.Reason
	return a, w.restate(&record, before, next, patch)
}

// release takes a device out of quarantine.
func (w *runWorld) release() (a pattern.Answer, err error) {
	record, before, err := w.identity(&pattern.Step{Op: "dev.release"})
	if err != nil {
		return a, err
	}
	text, found := record.Tags.Get("quarantine")
	if !found {
		return fail(pattern.FaultConflict, "dev.release: the device is not in quarantine"), nil
	}
	var tag quarantineTag
	if json.Unmarshal(text, &tag) != nil || tag.Status == "" {
		return fail(pattern.FaultConflict, "dev.release: the tag quarantine does not say how the device stood before"), nil
	}
	next := before
	next.Disabled, next.StatusReason = tag.Status == "disabled", tag.StatusReason
	return a, w.restate(&record, before, next, []byte(`{"quarantine":null}`))
}

// identity returns the device's twin and identity, for steps that change both.
func (w *runWorld) identity(s *pattern.Step) (record twinRecord, identity identityRecord, err error) {
	if w.r.Module != "" {
		return record, identity, errf(CodeArgumentInvalid, "%s: it is of devices, not of modules", s.Op)
	}
	if record, err = w.twin(); err != nil {
		return record, identity, err
	}
	identity, err = loadIdentity(w.t.Tx, w.r.device())
	return record, identity, err
}

// restate stores another status of the identity, and tags.
func (w *runWorld) restate(record *twinRecord, before, next identityRecord, tags []byte) error {
	h, id, now := w.t.hub, w.r.device(), w.t.Now()
	c, _ := w.acts()
	if err := h.changeTwinTx(w.t.Tx, c, id, record, TwinUpdate{Tags: tags}, IfMatch{}, opTwinUpdate); err != nil {
		return err
	}
	if next.Disabled == before.Disabled && next.StatusReason == before.StatusReason {
		return nil
	}
	if next.Disabled != before.Disabled {
		w.t.Add(counterDisabled, map[bool]int64{true: 1, false: -1}[next.Disabled])
	}
	next.Revision++
	next.StatusUpdated, next.Updated = now, now
	return h.storeIdentityTx(w.t.Tx, c, opIdentityUpdate, changeIdentityUpdated, id, before, &next)
}

// replace makes a new identity in the device's place.
func (w *runWorld) replace(s *pattern.Step) (a pattern.Answer, err error) {
	args, fault := readArgs[pattern.ReplaceArgs](s)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	record, before, err := w.identity(s)
	if err != nil {
		return a, err
	}
	h, tx, id := w.t.hub, w.t.Tx, w.r.device()
	c, _ := w.acts()
	i := Identity{DeviceID: args.ID, Authentication: Authentication{Type: AuthSAS}, Edge: before.Edge}
	if before.Type == AuthCertificateAuthority {
		i.Authentication.Type = before.Type
	}
	if err := h.checkIdentity(&i, true); err != nil {
		return a, err
	}
	fillKeys(&i)
	var tags map[string]json.RawMessage
	if err := json.Unmarshal(record.Tags.Plain(nil), &tags); err != nil {
		return a, err
	}
	if tags["replaces"], err = marshal(id.DeviceID); err != nil {
		return a, err
	}
	delete(tags, "quarantine")
	delete(tags, "replacedBy")
	all, err := marshal(tags)
	if err != nil {
		return a, err
	}
	u := TwinUpdate{Tags: all}
	if !record.Desired.Empty() {
		u.Desired = record.Desired.Plain(nil)
	}
	if _, err := h.createIdentityTx(tx, c, i, u); err != nil {
		return a, err
	}
	patch, err := marshal(map[string]string{"replacedBy": args.ID})
	if err != nil {
		return a, err
	}
	next := before
	next.Disabled, next.StatusReason = true, clip("replaced by "+args.ID)
	if err := w.restate(&record, before, next, patch); err != nil {
		return a, err
	}
	return result(map[string]string{"id": args.ID})
}

// secretMember marks a secret in a value: {"$secret": name}; the device's own keys
// have names that begin with secretKeyPrefix.
const (
	secretMember    = "$secret"
	secretKeyPrefix = "key:"
)

// fillSecrets puts secrets into the places of a value that name them. What comes
// out is for a wire, and nothing else.
func (h *Hub) fillSecrets(value json.RawMessage, secret func(name string) (string, error)) (json.RawMessage, error) {
	var v any
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return value, nil
	}
	found := false
	var walk func(v any) (any, error)
	walk = func(v any) (any, error) {
		switch v := v.(type) {
		case map[string]any:
			if name, ok := v[secretMember].(string); ok && len(v) == 1 {
				found = true
				return secret(name)
			}
			for key, inner := range v {
				is, err := walk(inner)
				if err != nil {
					return nil, err
				}
				v[key] = is
			}
		case []any:
			for i := range v {
				is, err := walk(v[i])
				if err != nil {
					return nil, err
				}
				v[i] = is
			}
		}
		return v, nil
	}
	filled, err := walk(v)
	if err != nil || !found {
		return value, err // as it is: numbers keep their spelling
	}
	return marshal(filled)
}

// deviceSecret returns the key that a name such as key:primary stands for.
func (h *Hub) deviceSecret(name string, id TwinID, r identityRecord) (string, error) {
	primary, secondary, err := h.unsealKeys(sealContext(id), r.SealedKeys)
	if err != nil {
		return "", err
	}
	var key auth.Secret
	switch name {
	case secretKeyPrefix + "primary":
		key = primary
	case secretKeyPrefix + "secondary":
		key = secondary
	}
	if key == "" {
		return "", errf(CodeSecretNotFound, "the device has no %q", clip(name))
	}
	return key.Reveal(), nil
}
