package engine

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// policiesMost bounds how many policies a hub keeps: they are held in memory.
const policiesMost = 1000

// openPolicies makes the standard policies at the first start and loads all.
func (h *Hub) openPolicies(ctx context.Context) error {
	err := h.update(ctx, "make standard policies", func(tx *storage.Tx) error {
		for _, p := range auth.StandardPolicies() {
			_, err := policyTable.Get(tx, storage.Tuple(p.Name))
			if err == nil {
				continue
			}
			if !errors.Is(err, storage.ErrNotFound) {
				return err
			}
			p.PrimaryKey, p.SecondaryKey = auth.NewKey(), auth.NewKey()
			if err := h.storePolicyTx(tx, p, policyRecord{Created: tx.Now()}); err != nil {
				return err
			}
		}
		return nil
	})
	// A store that takes no writes still serves who exists already. At the first start
	// nobody does, and a hub that came up so would stay without policies, patterns and
	// keys until the next start.
	if e, ok := errors.AsType[*Error](err); err != nil && (!ok || e.Code != CodeReadOnly && e.Code != CodeUnavailable) {
		return err
	}
	if missing := h.loadPolicies(ctx); missing != nil || len(*h.policies.Load()) > 0 {
		return missing
	}
	return err
}

func (h *Hub) storePolicyTx(tx *storage.Tx, p auth.SharedAccessPolicy, r policyRecord) error {
	sealed, err := h.sealKeys("policy:"+p.Name, p.PrimaryKey, p.SecondaryKey)
	if err != nil {
		return err
	}
	r.Permissions, r.SealedKeys, r.Updated = p.Permissions, sealed, tx.Now()
	return policyTable.Put(tx, storage.Tuple(p.Name), r)
}

// loadPolicies reads all policies into memory; every authentication uses them.
// From then on the transactions that change a policy keep them in step.
func (h *Hub) loadPolicies(ctx context.Context) error {
	all := map[string]auth.SharedAccessPolicy{}
	err := h.view(ctx, "read policies", func(r storage.Reader) error {
		for item, err := range policyTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			parts, err := item.Key.Parts()
			if err != nil {
				return err
			}
			name, _ := parts[0].(string)
			primary, secondary, err := h.unsealKeys("policy:"+name, item.Value.SealedKeys)
			if err != nil {
				return err
			}
			all[name] = auth.SharedAccessPolicy{Name: name, Permissions: item.Value.Permissions, PrimaryKey: primary, SecondaryKey: secondary}
		}
		return nil
	})
	if err == nil {
		h.policies.Store(&all)
	}
	return err
}

// policyStoredTx makes a change of a policy effective when it is durable, also
// for a caller who did not wait for that: a key that was revoked must never go
// on opening the hub. A nil policy is one that was deleted.
func (h *Hub) policyStoredTx(tx *storage.Tx, name string, p *auth.SharedAccessPolicy) {
	tx.OnCommit(func(uint64) { // the only writer after the start, in commit order
		all := maps.Clone(*h.policies.Load())
		if p == nil {
			delete(all, name)
		} else {
			all[name] = *p
		}
		h.policies.Store(&all)
	})
}

// mayManage refuses a caller who holds less than a policy: whoever reads or
// sets its keys can act as it.
func mayManage(c Caller, name string, p auth.Permission) error {
	if c.Permissions.Has(p) {
		return nil
	}
	return errf(CodeForbidden, "%s holds only %s and can't manage the policy %q with %s", c.Principal, c.Permissions, name, p)
}

// Policies lists the shared access policies by name, with the keys of those
// that grant no more than the caller holds. It needs PolicyManage.
func (h *Hub) Policies(ctx context.Context, c Caller) ([]auth.SharedAccessPolicy, error) {
	if err := h.authorize(ctx, c, opPolicyRead, "*"); err != nil {
		return nil, err
	}
	all := *h.policies.Load()
	list := make([]auth.SharedAccessPolicy, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		p := all[name]
		if !c.Permissions.Has(p.Permissions) {
			p.PrimaryKey, p.SecondaryKey = "", ""
		}
		list = append(list, p)
	}
	return list, nil
}

// Policy returns one policy with its keys. It needs PolicyManage and all that
// the policy grants.
func (h *Hub) Policy(ctx context.Context, c Caller, name string) (auth.SharedAccessPolicy, error) {
	if err := h.authorize(ctx, c, opPolicyRead, name); err != nil {
		return auth.SharedAccessPolicy{}, err
	}
	p, err := h.findPolicy(c, name)
	return p, h.auditForbidden(c, opPolicyRead, name, err)
}

func (h *Hub) findPolicy(c Caller, name string) (auth.SharedAccessPolicy, error) {
	p, ok := (*h.policies.Load())[name]
	if !ok {
		return p, errf(CodePolicyNotFound, "there is no shared access policy %q", name)
	}
	if err := mayManage(c, name, p.Permissions); err != nil {
		return auth.SharedAccessPolicy{}, err
	}
	return p, nil
}

// PutPolicy makes or changes a policy. Missing keys are kept, or generated
// for a new one. It needs PolicyManage; nobody grants more than they hold,
// and the permissions of the standard policies are fixed.
func (h *Hub) PutPolicy(ctx context.Context, c Caller, p auth.SharedAccessPolicy) (auth.SharedAccessPolicy, error) {
	if err := h.authorize(ctx, c, opPolicyWrite, p.Name); err != nil {
		return p, err
	}
	if err := h.checkPolicy(c, p); err != nil {
		return p, h.auditForbidden(c, opPolicyWrite, p.Name, err)
	}
	return h.changePolicy(ctx, c, opPolicyWrite, p.Name, func(before auth.SharedAccessPolicy, known bool) (auth.SharedAccessPolicy, error) {
		if !known && len(*h.policies.Load()) >= policiesMost {
			return p, errf(CodeArgumentInvalid, "the hub has %d shared access policies, which is the limit", policiesMost)
		}
		if p.PrimaryKey != "" {
			return p, nil
		}
		next := p
		next.PrimaryKey, next.SecondaryKey = before.PrimaryKey, before.SecondaryKey
		if !known {
			next.PrimaryKey, next.SecondaryKey = auth.NewKey(), auth.NewKey()
		}
		return next, nil
	})
}

func (h *Hub) checkPolicy(c Caller, p auth.SharedAccessPolicy) error {
	if err := checkID("policy name", p.Name, 64); err != nil {
		return err
	}
	if p.Permissions == 0 {
		return errf(CodeArgumentInvalid, "policy %q has no permission", p.Name)
	}
	if err := mayManage(c, p.Name, p.Permissions); err != nil {
		return err
	}
	for _, s := range auth.StandardPolicies() {
		if s.Name == p.Name && s.Permissions != p.Permissions {
			// Nobody may, whatever permissions he has.
			e := errf(CodeForbidden, "the permissions of the standard policy %q are fixed", p.Name)
			e.Next = "Make a policy of another name: `muster policy create NAME PERMISSIONS`."
			return e
		}
	}
	if (p.PrimaryKey == "") != (p.SecondaryKey == "") {
		return errf(CodeArgumentInvalid, "send both keys of policy %q, or neither", p.Name)
	}
	for _, k := range []auth.Secret{p.PrimaryKey, p.SecondaryKey} {
		if k == "" {
			continue
		}
		if err := auth.CheckKey(k.Reveal()); err != nil {
			return wrapf(CodeArgumentInvalid, err, "a key of policy %q is not base64 of 16 to 64 bytes", p.Name)
		}
	}
	return nil
}

// RotatePolicyKey gives a policy a new key in one slot, or both. It needs
// PolicyManage and all that the policy grants.
func (h *Hub) RotatePolicyKey(ctx context.Context, c Caller, name string, slot KeySlot) (auth.SharedAccessPolicy, error) {
	if err := h.authorize(ctx, c, opPolicyRotate, name); err != nil {
		return auth.SharedAccessPolicy{}, err
	}
	return h.changePolicy(ctx, c, opPolicyRotate, name, func(p auth.SharedAccessPolicy, known bool) (auth.SharedAccessPolicy, error) {
		if !known {
			return p, errf(CodePolicyNotFound, "there is no shared access policy %q", name)
		}
		return p, slot.rotate(&p.PrimaryKey, &p.SecondaryKey)
	})
}

// changePolicy runs one change of a policy in a transaction; it is effective
// before the call returns. Sessions opened by the former keys live on
// until their token expires, as on IoT Hub.
func (h *Hub) changePolicy(ctx context.Context, c Caller, op operation, name string, change func(p auth.SharedAccessPolicy, known bool) (auth.SharedAccessPolicy, error)) (auth.SharedAccessPolicy, error) {
	var next auth.SharedAccessPolicy
	err := h.update(ctx, "change policy", func(tx *storage.Tx) error {
		r, err := policyTable.Get(tx, storage.Tuple(name))
		known := err == nil
		before := auth.SharedAccessPolicy{Name: name, Permissions: r.Permissions}
		switch {
		case known:
			if err := mayManage(c, name, r.Permissions); err != nil {
				return err
			}
			if before.PrimaryKey, before.SecondaryKey, err = h.unsealKeys("policy:"+name, r.SealedKeys); err != nil {
				return err
			}
		case errors.Is(err, storage.ErrNotFound):
			r.Created = tx.Now()
		default:
			return err
		}
		if next, err = change(before, known); err != nil {
			return err
		}
		stored := next
		h.policyStoredTx(tx, name, &stored)
		details := []byte(`{"permissions":"` + next.Permissions.String() + `"}`)
		return errors.Join(h.storePolicyTx(tx, next, r), h.auditTx(tx, c, op, name, details))
	})
	return next, h.auditForbidden(c, op, name, err)
}

// DeletePolicy removes a policy; the standard ones stay. It needs PolicyManage
// and all that the policy grants.
func (h *Hub) DeletePolicy(ctx context.Context, c Caller, name string) error {
	if err := h.authorize(ctx, c, opPolicyDelete, name); err != nil {
		return err
	}
	for _, s := range auth.StandardPolicies() {
		if s.Name == name {
			e := errf(CodeForbidden, "the standard policy %q can't be deleted", name)
			e.Next = "Rotate its keys instead, which ends what they open: `muster policy rotate " + name + "`."
			return h.auditForbidden(c, opPolicyDelete, name, e)
		}
	}
	err := h.update(ctx, "delete policy", func(tx *storage.Tx) error {
		r, err := policyTable.Get(tx, storage.Tuple(name))
		if errors.Is(err, storage.ErrNotFound) {
			return errf(CodePolicyNotFound, "there is no shared access policy %q", name)
		}
		if err != nil {
			return err
		}
		if err := mayManage(c, name, r.Permissions); err != nil {
			return err
		}
		h.policyStoredTx(tx, name, nil)
		return errors.Join(policyTable.Delete(tx, storage.Tuple(name)), h.auditTx(tx, c, opPolicyDelete, name, nil))
	})
	return h.auditForbidden(c, opPolicyDelete, name, err)
}

// PolicyConnectionString returns IoT Hub's connection string of a policy with
// the key in the slot (primary when empty). It needs PolicyManage and all that
// the policy grants.
func (h *Hub) PolicyConnectionString(ctx context.Context, c Caller, name string, slot KeySlot) (auth.ConnectionString, error) {
	if err := h.authorize(ctx, c, opPolicyRead, name); err != nil {
		return auth.ConnectionString{}, err
	}
	p, err := h.findPolicy(c, name)
	if err != nil {
		return auth.ConnectionString{}, h.auditForbidden(c, opPolicyRead, name, err)
	}
	key, err := slot.choose(p.PrimaryKey, p.SecondaryKey)
	if err != nil {
		return auth.ConnectionString{}, err
	}
	return auth.ConnectionString{HostName: h.about.hosts[0], SharedAccessKeyName: name, SharedAccessKey: key}, nil
}
