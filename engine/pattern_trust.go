package engine

import (
	"context"
	"errors"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// trustedName returns the name under which a key is trusted; empty: it is not.
func trustedName(r storage.Reader, key string) (name string, err error) {
	for item, err := range patternKeyTable.Lookup(r, "key", storage.Range{Prefix: storage.Tuple(key)}) {
		if err != nil {
			return "", err
		}
		return firstPart(item.Key)
	}
	return "", nil
}

// firstPart returns the name with which a key begins.
func firstPart(k storage.Key) (string, error) {
	parts, err := k.Parts()
	if err != nil || len(parts) == 0 {
		return "", errors.Join(err, errors.New("key has no parts"))
	}
	name, _ := parts[0].(string)
	return name, nil
}

// TrustedKeys lists the keys whose signatures of patterns are trusted, by name. It
// needs HubManage.
func (h *Hub) TrustedKeys(ctx context.Context, c Caller) ([]TrustedKey, error) {
	if err := h.authorize(ctx, c, opPatternTrust, "*"); err != nil {
		return nil, err
	}
	list := []TrustedKey{}
	err := h.view(ctx, "list trusted keys", func(r storage.Reader) error {
		list = list[:0]
		for item, err := range patternKeyTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			name, err := firstPart(item.Key)
			if err != nil {
				return err
			}
			list = append(list, TrustedKey{name, item.Value.Key, item.Value.Created.UTC()})
		}
		return nil
	})
	return list, err
}

// TrustKey trusts an ed25519 public key, base64, under a name from now on.
// CodeArgumentInvalid for what is no key, or if the name or the key is taken. It
// needs HubManage.
func (h *Hub) TrustKey(ctx context.Context, c Caller, name, key string) (TrustedKey, error) {
	if err := h.authorize(ctx, c, opPatternTrust, name); err != nil {
		return TrustedKey{}, err
	}
	if err := checkID("name of a key", name, patternNameBytes); err != nil {
		return TrustedKey{}, err
	}
	if err := pattern.CheckKey(key); err != nil {
		return TrustedKey{}, wrapf(CodeArgumentInvalid, err, "the key can't be used: %v", err)
	}
	var out TrustedKey
	err := h.step(ctx, "pattern.trust", func(tx *storage.Tx) error {
		other, err := trustedName(tx, key)
		if err != nil {
			return err
		}
		if other != "" && other != name {
			return errf(CodeArgumentInvalid, "the key is trusted already, as %q", other)
		}
		switch old, err := patternKeyTable.Get(tx, storage.Tuple(name)); {
		case err == nil && old.Key == key:
			out = TrustedKey{name, key, old.Created.UTC()}
			return nil
		case err == nil:
			return errf(CodeArgumentInvalid, "another key is trusted as %q; choose another name, or trust that one no more first", name)
		case !errors.Is(err, storage.ErrNotFound):
			return err
		}
		n, err := storage.Counter(tx, counterPatternKeys)
		if err != nil {
			return err
		}
		if most := h.limits.PatternKeys; n >= int64(most) {
			return errf(CodeQuotaExceeded, "%d keys are trusted, and the limit is %d", n, most)
		}
		tx.Add(counterPatternKeys, 1)
		out = TrustedKey{name, key, tx.Now().UTC()}
		return errors.Join(
			patternKeyTable.Put(tx, storage.Tuple(name), trustedKeyRecord{key, tx.Now()}),
			h.auditTx(tx, c, opPatternTrust, name, jobDetails(map[string]any{"key": key, "trusted": true})),
		)
	})
	return out, err
}

// DistrustKey trusts a key no more: nothing that it signed can be installed; what
// is installed stays. CodeArgumentInvalid if no key has the name. It needs
// HubManage.
func (h *Hub) DistrustKey(ctx context.Context, c Caller, name string) error {
	if err := h.authorize(ctx, c, opPatternTrust, name); err != nil {
		return err
	}
	return h.step(ctx, "pattern.distrust", func(tx *storage.Tx) error {
		old, err := patternKeyTable.Get(tx, storage.Tuple(name))
		if errors.Is(err, storage.ErrNotFound) {
			return errf(CodeArgumentInvalid, "no key is trusted as %q", clip(name))
		}
		if err != nil {
			return err
		}
		tx.Add(counterPatternKeys, -1)
		return errors.Join(
			patternKeyTable.Delete(tx, storage.Tuple(name)),
			h.auditTx(tx, c, opPatternTrust, name, jobDetails(map[string]any{"key": old.Key, "trusted": false})),
		)
	})
}
