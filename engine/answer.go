package engine

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/muster-hub/muster/storage"
)

// Bounds of the answers that are kept; the oldest go first.
const (
	answerAge   = 24 * time.Hour
	answersMost = 10_000
	// What a queued method call with the largest payload is answered with fits.
	answerBytes = 192 << 10
	// A large answer counts as several toward answersMost.
	answerUnit = 128 << 10
)

// counterAnswers counts the answers that are kept.
const counterAnswers = "answers"

// Answer is what an edge said to a request that carried an idempotency key,
// so that a client that did not hear it can ask again without a second effect.
type Answer struct {
	Request [32]byte // hash of the request's body: a key stands for one request
	Status  int
	Header  map[string][]string
	Content []byte
	Kept    time.Time // set by KeepAnswer
}

// answerRecord is a stored answer, sealed since it may hold keys.
type answerRecord struct {
	Kept   time.Time `json:"t"`
	Sealed []byte    `json:"s"`
}

// weight is what the answer counts toward answersMost.
func (r answerRecord) weight() int64 { return 1 + int64(len(r.Sealed))/answerUnit }

func answerKey(c Caller, operation, key string) storage.Key {
	return storage.Tuple(c.Principal.String(), operation, key)
}

func answerContext(c Caller, operation string) string {
	return "answer:" + c.Principal.String() + ":" + operation
}

// KeepAnswer stores the answer to the caller's request with a key. An answer
// above 192 KiB is CodeTooLarge.
func (h *Hub) KeepAnswer(ctx context.Context, c Caller, operation, key string, a Answer) error {
	if len(a.Content) > answerBytes {
		return errf(CodeTooLarge, "the answer has %d bytes, at most %d are kept", len(a.Content), answerBytes)
	}
	b, err := json.Marshal(a)
	if err != nil {
		return AsError(err)
	}
	sealed, err := h.db.Seal(b, answerContext(c, operation))
	if err != nil {
		return AsError(err)
	}
	return h.update(ctx, "keep answer", func(tx *storage.Tx) error {
		n, err := storage.Counter(tx, counterAnswers)
		if err != nil {
			return err
		}
		r := answerRecord{tx.Now(), sealed}
		if n += r.weight(); n > answersMost {
			if err := dropAnswersTx(tx, time.Time{}, int(n-answersMost)); err != nil {
				return err
			}
		}
		k := answerKey(c, operation, key)
		switch old, err := answerTable.Get(tx, k); {
		case errors.Is(err, storage.ErrNotFound):
			tx.Add(counterAnswers, r.weight())
		case err != nil:
			return err
		default:
			tx.Add(counterAnswers, r.weight()-old.weight())
		}
		return answerTable.Put(tx, k, r)
	})
}

// DropAnswer forgets the answer that was kept for the caller's key.
func (h *Hub) DropAnswer(ctx context.Context, c Caller, operation, key string) error {
	return h.update(ctx, "drop answer", func(tx *storage.Tx) error {
		k := answerKey(c, operation, key)
		old, err := answerTable.Get(tx, k)
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		tx.Add(counterAnswers, -old.weight())
		return errors.Join(err, answerTable.Delete(tx, k))
	})
}

// FindAnswer returns the answer that was kept for the caller's key, if there
// is one that is not older than answerAge.
func (h *Hub) FindAnswer(ctx context.Context, c Caller, operation, key string) (a Answer, found bool, err error) {
	err = h.view(ctx, "find answer", func(r storage.Reader) error {
		record, err := answerTable.Get(r, answerKey(c, operation, key))
		if errors.Is(err, storage.ErrNotFound) || err == nil && time.Since(record.Kept) >= answerAge {
			return nil
		}
		if err != nil {
			return err
		}
		b, err := h.db.Unseal(record.Sealed, answerContext(c, operation))
		if err != nil {
			return err
		}
		found = true
		if err := json.Unmarshal(b, &a); err != nil {
			return err
		}
		a.Kept = record.Kept
		return nil
	})
	return a, found, err
}

// dropAnswersTx deletes up to limit answers that were kept before a time, the
// oldest first; the zero time means any.
func dropAnswersTx(tx *storage.Tx, before time.Time, limit int) error {
	var old []storage.Key
	weight := int64(0)
	for item, err := range answerTable.Lookup(tx, "kept", storage.Range{}) {
		if err != nil {
			return err
		}
		if len(old) == limit || !before.IsZero() && !item.Value.Kept.Before(before) {
			break
		}
		old = append(old, append(storage.Key(nil), item.Key...))
		weight += item.Value.weight()
	}
	for _, k := range old {
		if err := answerTable.Delete(tx, k); err != nil {
			return err
		}
	}
	tx.Add(counterAnswers, -weight)
	return nil
}

func (h *Hub) retainAnswers(ctx context.Context, now time.Time) error {
	return h.db.Update(ctx, func(tx *storage.Tx) error { return dropAnswersTx(tx, now.Add(-answerAge), retainBatch) })
}
