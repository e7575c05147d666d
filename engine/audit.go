package engine

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/muster-hub/muster/storage"
)

// AuditEntry is one link of the audit chain: a change, a method call, or a
// call that was refused, by a principal that is not a device.
type AuditEntry struct {
	Position  uint64          `json:"position"`
	Time      time.Time       `json:"time"`
	Principal string          `json:"principal"`
	Cause     string          `json:"cause,omitempty"`
	Operation string          `json:"operation"` // permission table's name, "identity.create"
	Target    string          `json:"target"`
	Outcome   string          `json:"outcome"` // "done", "refused", "failed"
	Code      string          `json:"code,omitempty"`
	RequestID string          `json:"requestId,omitempty"`
	Address   string          `json:"address,omitempty"`
	Details   json.RawMessage `json:"details,omitempty"`
	Hash      []byte          `json:"hash"` // SHA-256 over the previous hash and this entry
}

// Audit returns entries newest first: the newest when before is 0, else those
// below position before, at most limit (1 to 1000). next is 0 at the end. It
// needs AuditRead.
func (h *Hub) Audit(ctx context.Context, c Caller, before uint64, limit int) (list []AuditEntry, next uint64, err error) {
	if err := h.authorize(ctx, c, opAuditRead, "*"); err != nil {
		return nil, 0, err
	}
	if limit <= 0 || limit > 1000 {
		limit = 1000
	}
	list = []AuditEntry{}
	err = h.view(ctx, "read audit", func(r storage.Reader) error {
		first, last, err := auditLog.Bounds(r)
		if err != nil || last == 0 {
			return err
		}
		end := last + 1
		if before > 0 && before < end {
			end = before
		}
		start := max(first, end-min(end, uint64(limit)))
		if start > first {
			next = start
		}
		for e, err := range auditLog.Read(r, start-1) {
			if err != nil {
				return err
			}
			if e.Position >= end {
				break
			}
			entry, err := decodeAudit(e)
			if err != nil {
				return err
			}
			list = append(list, entry)
		}
		slices.Reverse(list)
		return nil
	})
	return list, next, err
}

func decodeAudit(e storage.Entry) (AuditEntry, error) {
	var r auditRecord
	if err := json.Unmarshal(e.Data, &r); err != nil {
		return AuditEntry{}, err
	}
	return AuditEntry{
		Position: e.Position, Time: e.Time.UTC(), Principal: r.Principal, Cause: r.Cause, Operation: r.Operation, Target: r.Target,
		Outcome: r.Outcome, Code: r.Code, RequestID: r.RequestID, Address: r.Address, Details: r.Details, Hash: e.Hash,
	}, nil
}

// AuditCheck is the outcome of VerifyAudit.
type AuditCheck struct {
	Entries  uint64 `json:"entries"`
	OK       bool   `json:"ok"`
	FirstBad uint64 `json:"firstBad,omitempty"`
}

// VerifyAudit walks the whole chain and recomputes every hash, once at a time:
// it is long work, and another call meanwhile is CodeThrottled. It needs AuditRead.
func (h *Hub) VerifyAudit(ctx context.Context, c Caller) (AuditCheck, error) {
	if err := h.authorize(ctx, c, opAuditRead, "*"); err != nil {
		return AuditCheck{}, err
	}
	if !h.audits.verifying.CompareAndSwap(false, true) {
		return AuditCheck{}, errf(CodeThrottled, "the audit chain is being verified already")
	}
	defer h.audits.verifying.Store(false)
	var check AuditCheck
	err := h.view(ctx, "verify audit", func(r storage.Reader) error {
		var err error
		check.Entries, check.FirstBad, err = auditLog.Verify(ctx, r)
		return err
	})
	check.OK = err == nil && check.FirstBad == 0
	return check, err
}
