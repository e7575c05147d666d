package engine

import (
	"context"
	"errors"
	"sync"

	"github.com/muster-hub/muster/storage"
)

// ImportMode says what a bulk item does; the texts are IoT Hub's.
type ImportMode string

// The import modes.
const (
	ImportCreate                ImportMode = "create"
	ImportUpdate                ImportMode = "update"
	ImportUpdateIfMatch         ImportMode = "updateIfMatchETag"
	ImportDelete                ImportMode = "delete"
	ImportDeleteIfMatch         ImportMode = "deleteIfMatchETag"
	ImportCreateOrUpdate        ImportMode = "createOrUpdate"
	ImportCreateOrUpdateIfMatch ImportMode = "createOrUpdateIfMatchETag"
	ImportUpdateTwin            ImportMode = "updateTwin"
	ImportUpdateTwinIfMatch     ImportMode = "updateTwinIfMatchETag"
)

// BulkItem is one identity of a bulk request.
type BulkItem struct {
	Identity Identity // ETag is the condition of the IfMatch modes
	Mode     ImportMode
	TwinETag string
	Tags     []byte // JSON object, or nil
	Desired  []byte // JSON object, or nil
}

// BulkError says why an item was not applied.
type BulkError struct {
	ID        TwinID
	Operation ImportMode
	Err       *Error
}

// Bulk applies up to Limits.BulkIdentities items, each in its own
// transaction: items that succeed stay applied when others fail. The items of
// one device and its modules run in order, so that a module may follow its
// device. An error is returned only when nothing was tried. It needs
// RegistryWrite.
func (h *Hub) Bulk(ctx context.Context, c Caller, items []BulkItem) ([]BulkError, error) {
	if err := h.authorize(ctx, c, opIdentityUpdate, "*"); err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, errf(CodeArgumentInvalid, "the request has no devices, expected 1 to %d", h.limits.BulkIdentities)
	}
	if len(items) > h.limits.BulkIdentities {
		return nil, errf(CodeTooManyDevices, "the request has %d devices, at most %d are allowed", len(items), h.limits.BulkIdentities)
	}
	times := map[TwinID]int{}
	ofDevice := map[string][]int{}
	for i := range items {
		id := items[i].Identity.ID()
		times[id]++
		ofDevice[id.DeviceID] = append(ofDevice[id.DeviceID], i)
	}
	// Each item is durable before the answer, and no device waits for another:
	// they share the store's groups.
	outcome := make([]error, len(items))
	var wg sync.WaitGroup
	for _, list := range ofDevice {
		wg.Go(func() {
			for _, i := range list {
				if id := items[i].Identity.ID(); times[id] > 1 {
					outcome[i] = definedMultipleTimes(id, times[id])
					continue
				}
				outcome[i] = h.bulkItem(ctx, c, items[i])
			}
		})
	}
	wg.Wait()
	var failed []BulkError
	for i, err := range outcome {
		if err != nil {
			failed = append(failed, BulkError{items[i].Identity.ID(), items[i].Mode, AsError(err)})
		}
	}
	return failed, nil
}

func definedMultipleTimes(id TwinID, times int) *Error {
	return errf(CodeDeviceDefinedMultipleTimes, "%q appears %d times in the request", id, times)
}

func (h *Hub) bulkItem(ctx context.Context, c Caller, it BulkItem) error {
	id, u := it.Identity.ID(), TwinUpdate{it.Tags, it.Desired}
	matchAny := IfMatch{Present: true, Any: true}
	exact := ParseIfMatch(it.Identity.ETag)
	needETag := func(m IfMatch) error {
		if !m.Present {
			return errf(CodePreconditionFailed, "importMode %s needs an ETag", it.Mode)
		}
		return nil
	}
	switch it.Mode {
	case ImportCreate:
		_, err := h.createIdentity(ctx, c, it.Identity, u)
		return err
	case ImportUpdate:
		return h.replaceIdentity(ctx, c, it.Identity, matchAny, u)
	case ImportUpdateIfMatch:
		if err := needETag(exact); err != nil {
			return err
		}
		return h.replaceIdentity(ctx, c, it.Identity, exact, u)
	case ImportCreateOrUpdate, ImportCreateOrUpdateIfMatch:
		m := matchAny
		if it.Mode == ImportCreateOrUpdateIfMatch && exact.Present {
			m = exact
		}
		return h.createOrReplaceIdentity(ctx, c, it.Identity, m, u)
	case ImportDelete:
		return h.deleteIdentity(ctx, c, id, matchAny)
	case ImportDeleteIfMatch:
		if err := needETag(exact); err != nil {
			return err
		}
		return h.deleteIdentity(ctx, c, id, exact)
	case ImportUpdateTwin, ImportUpdateTwinIfMatch:
		m := matchAny
		if it.Mode == ImportUpdateTwinIfMatch {
			m = ParseIfMatch(it.TwinETag)
			if err := needETag(m); err != nil {
				return err
			}
		}
		_, err := h.changeTwin(ctx, c, id, u, m, opTwinUpdate)
		return err
	default:
		return errf(CodeArgumentInvalid, "importMode %q is not known", string(it.Mode))
	}
}

// createOrReplaceIdentity decides in one transaction which of the two it is.
func (h *Hub) createOrReplaceIdentity(ctx context.Context, c Caller, i Identity, m IfMatch, u TwinUpdate) error {
	replacement := i
	if err := h.checkIdentity(&replacement, false); err != nil {
		return err
	}
	refusal := h.checkIdentity(&i, true) // of a new one; system modules exist already
	fillKeys(&i)
	fillKeys(&replacement)
	return h.update(ctx, "create or update identity", func(tx *storage.Tx) error {
		_, err := identityTable(i.ID()).Get(tx, identityKey(i.ID()))
		switch {
		case err == nil:
			return h.replaceIdentityTx(tx, c, replacement, m, u)
		case !errors.Is(err, storage.ErrNotFound):
			return err
		case refusal != nil:
			return refusal
		}
		_, err = h.createIdentityTx(tx, c, i, u)
		return err
	})
}

// replaceIdentity updates an identity and, when the item holds twin content,
// its twin in the same transaction.
func (h *Hub) replaceIdentity(ctx context.Context, c Caller, i Identity, m IfMatch, u TwinUpdate) error {
	if err := h.checkIdentity(&i, false); err != nil {
		return err
	}
	fillKeys(&i)
	return h.update(ctx, "update identity", func(tx *storage.Tx) error {
		return h.replaceIdentityTx(tx, c, i, m, u)
	})
}

func (h *Hub) replaceIdentityTx(tx *storage.Tx, c Caller, i Identity, m IfMatch, u TwinUpdate) error {
	if _, err := h.updateIdentityTx(tx, c, i, m); err != nil {
		return err
	}
	if u.Tags == nil && u.Desired == nil {
		return nil
	}
	_, record, err := h.loadTwin(tx, i.ID())
	if err != nil {
		return err
	}
	return h.changeTwinTx(tx, c, i.ID(), &record, u, IfMatch{}, opTwinUpdate)
}
