package engine

import (
	"context"
	"errors"
	"unicode/utf8"

	"github.com/muster-hub/muster/storage"
)

// secretNameMarks stand in names of secrets beside letters and digits: they are
// parts of needs and of paths.
const secretNameMarks = "-_."

func checkSecretName(name string) error {
	if err := checkID("name of a secret", name, patternNameBytes); err != nil {
		return err
	}
	for _, r := range name {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' {
			continue
		}
		return errf(CodeArgumentInvalid, "name of a secret has the character %q; allowed are ASCII letters, digits and %s", r, secretNameMarks)
	}
	return nil
}

func patternSecretContext(name string) string { return "patternsecret:" + name }

// PatternSecrets lists the secrets of patterns by name, without their values. It
// needs HubManage.
func (h *Hub) PatternSecrets(ctx context.Context, c Caller) ([]PatternSecret, error) {
	if err := h.authorize(ctx, c, opPatternSecret, "*"); err != nil {
		return nil, err
	}
	list := []PatternSecret{}
	err := h.view(ctx, "list secrets of patterns", func(r storage.Reader) error {
		list = list[:0]
		for item, err := range patternSecretTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			name, err := firstPart(item.Key)
			if err != nil {
				return err
			}
			list = append(list, PatternSecret{name, item.Value.Updated.UTC(), item.Value.By})
		}
		return nil
	})
	return list, err
}

// SetPatternSecret sets a secret, UTF-8 text, that patterns may use by its name if
// that was granted: in requests and in payloads of methods, without seeing it.
// Runs under way use it from their next step on. CodeTooLarge, CodeQuotaExceeded.
// It needs HubManage.
func (h *Hub) SetPatternSecret(ctx context.Context, c Caller, name string, value []byte) error {
	if err := h.authorize(ctx, c, opPatternSecret, name); err != nil {
		return err
	}
	if err := checkSecretName(name); err != nil {
		return err
	}
	switch most := h.limits.PatternSecretBytes; {
	case len(value) == 0:
		return errf(CodeArgumentNull, "the secret %q has no value", name)
	case len(value) > most:
		return errf(CodeTooLarge, "the secret %q has %d bytes; expected at most %d", name, len(value), most)
	case !utf8.Valid(value):
		return errf(CodeArgumentInvalid, "the secret %q is not UTF-8; expected text, such as base64 of its bytes", name)
	}
	sealed, err := h.db.Seal(value, patternSecretContext(name))
	if err != nil {
		return storeError(err, "seal a secret")
	}
	return h.step(ctx, "pattern.secret", func(tx *storage.Tx) error {
		known, err := patternSecretTable.Has(tx, storage.Tuple(name))
		if err != nil {
			return err
		}
		if !known {
			n, err := storage.Counter(tx, counterPatternSecrets)
			if err != nil {
				return err
			}
			if most := h.limits.PatternSecrets; n >= int64(most) {
				return errf(CodeQuotaExceeded, "patterns have %d secrets, and the limit is %d", n, most)
			}
			tx.Add(counterPatternSecrets, 1)
		}
		return errors.Join(
			patternSecretTable.Put(tx, storage.Tuple(name), patternSecretRecord{sealed, tx.Now(), c.Principal.String()}),
			h.auditTx(tx, c, opPatternSecret, name, jobDetails(map[string]any{"set": true})),
		)
	})
}

// DeletePatternSecret deletes a secret: steps that use it fail from then on.
// CodeSecretNotFound. It needs HubManage.
func (h *Hub) DeletePatternSecret(ctx context.Context, c Caller, name string) error {
	if err := h.authorize(ctx, c, opPatternSecret, name); err != nil {
		return err
	}
	return h.step(ctx, "pattern.secretDelete", func(tx *storage.Tx) error {
		known, err := patternSecretTable.Has(tx, storage.Tuple(name))
		if err != nil {
			return err
		}
		if !known {
			return errf(CodeSecretNotFound, "there is no secret %q", clip(name))
		}
		tx.Add(counterPatternSecrets, -1)
		return errors.Join(
			patternSecretTable.Delete(tx, storage.Tuple(name)),
			h.auditTx(tx, c, opPatternSecret, name, jobDetails(map[string]any{"set": false})),
		)
	})
}

// secret returns the value of a secret of patterns; CodeSecretNotFound.
func (h *Hub) secret(r storage.Reader, name string) (string, error) {
	record, err := patternSecretTable.Get(r, storage.Tuple(name))
	if errors.Is(err, storage.ErrNotFound) {
		return "", errf(CodeSecretNotFound, "there is no secret %q", clip(name))
	}
	if err != nil {
		return "", err
	}
	value, err := h.db.Unseal(record.Sealed, patternSecretContext(name))
	return string(value), err
}
