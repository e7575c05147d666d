package engine

import (
	"context"
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/muster-hub/muster/storage"
)

// connectionsKept is how many ended connections of an identity are kept.
const connectionsKept = 50

// ConnectionEnd is an ended connection of an identity, and why it ended.
type ConnectionEnd struct {
	Number   uint64 // counts the identity's ended connections
	Began    time.Time
	Ended    time.Time
	Protocol string
	Address  string
	Code     string // of the error that ended it
	Reason   string
	Refused  int // 0: a connection; else so many refused attempts in a row, of which this is the last
}

// connectionRecord is a stored end of a connection.
type connectionRecord struct {
	Began    time.Time `json:"b"`
	Ended    time.Time `json:"e"`
	Protocol string    `json:"p"`
	Address  string    `json:"a"`
	Code     string    `json:"c"`
	Reason   string    `json:"r"`
	Refused  int       `json:"n,omitempty"`
}

var (
	connectionTable = storage.NewTable("connection", 1, storage.JSON[connectionRecord]())
	// connectionHead counts what was ever written, which makes trimming a point delete.
	connectionHead = storage.NewTable("connection_head", 1, storage.JSON[uint64]())
)

func connectionKey(id TwinID, n uint64) storage.Key {
	return storage.Tuple(id.DeviceID, id.ModuleID, n)
}

// recordConnection stores the end of a session. Nobody waits for it; what the
// store can't take is counted as presence that was lost.
func (h *Hub) recordConnection(s *Session, cause *Error) {
	r := connectionRecord{
		Began: s.since, Ended: time.Now().UTC(), Protocol: s.connection.Protocol, Address: s.connection.Address,
		Code: cause.Code.String(), Reason: clip(cause.Message),
	}
	h.appendConnection(s.id, s.connection.Grant.GenerationID, r)
}

// What refusals may cost: anybody who knows an id can be refused.
const (
	refusedPerSecond = 10
	refusedBurst     = 100
)

// RecordRefusal stores that a device was turned away for what it is, shows or
// does: not for the hub's own state, which passes and is the same for all.
// AuthenticateDevice and Connect do so themselves; it is for edges that refuse before.
// Refusals in a row share one entry, so that they can't push out what ended before.
func (h *Hub) RecordRefusal(cr Credentials, cause *Error) {
	switch cause.Code {
	case CodeUnauthorized, CodeForbidden, CodeArgumentInvalid, CodeDeviceDisabled, CodeThrottled, CodeQuotaExceeded, CodeTooLarge:
	default:
		return
	}
	if !h.sessions.refused.Allow() {
		return
	}
	now := time.Now().UTC()
	h.appendConnection(cr.ID, "", connectionRecord{
		Began: now, Ended: now, Protocol: cr.Protocol, Address: cr.Address, Code: cause.Code.String(), Reason: clip(cause.Message), Refused: 1,
	})
}

// appendConnection adds to an identity's log; generation, if there is one,
// must still be the identity's.
func (h *Hub) appendConnection(id TwinID, generation string, r connectionRecord) {
	err := h.db.Submit(func(tx *storage.Tx) error {
		i, err := identityTable(id).Get(tx, identityKey(id))
		if errors.Is(err, storage.ErrNotFound) || err == nil && generation != "" && i.GenerationID != generation {
			return nil // its log went with it, or never was
		}
		if err != nil {
			return err
		}
		return appendConnectionTx(tx, id, r)
	})
	if err != nil {
		h.count.presenceLost.Add(1)
	}
}

func appendConnectionTx(tx *storage.Tx, id TwinID, r connectionRecord) error {
	n, err := connectionHead.Get(tx, id.key())
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	if r.Refused > 0 && n > 0 {
		last, err := connectionTable.Get(tx, connectionKey(id, n))
		if err != nil {
			return err
		}
		if last.Refused > 0 {
			row := r
			row.Began, row.Refused = last.Began, last.Refused+1
			return connectionTable.Put(tx, connectionKey(id, n), row)
		}
	}
	n++
	if n > connectionsKept {
		if err := connectionTable.Delete(tx, connectionKey(id, n-connectionsKept)); err != nil {
			return err
		}
	}
	return errors.Join(connectionHead.Put(tx, id.key(), n), connectionTable.Put(tx, connectionKey(id, n), r))
}

// formerConnectionTx stores the end of a connection that the hub did not live to
// store: with its presence, so that it costs no write of its own. Protocol and
// address went with the hub.
func formerConnectionTx(tx *storage.Tx, id TwinID, p presenceRecord) error {
	return appendConnectionTx(tx, id, connectionRecord{
		Began: p.Updated, Ended: tx.Now().UTC(), Code: CodeClosed.String(), Reason: "the hub stopped without notice; this is when it was found",
	})
}

// dropConnectionsTx deletes the log of an identity that goes.
func dropConnectionsTx(tx *storage.Tx, id TwinID) error {
	n, err := connectionHead.Get(tx, id.key())
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	for ; err == nil && n > 0; n-- {
		if _, e := connectionTable.Get(tx, connectionKey(id, n)); errors.Is(e, storage.ErrNotFound) {
			break
		}
		err = connectionTable.Delete(tx, connectionKey(id, n))
	}
	return errors.Join(err, connectionHead.Delete(tx, id.key()))
}

// Connections lists the ended connections of an identity, newest first, at
// most 50 in all, from where cursor stands. It needs RegistryRead.
func (h *Hub) Connections(ctx context.Context, c Caller, id TwinID, cursor string, limit int) (list []ConnectionEnd, next string, err error) {
	if err := h.authorize(ctx, c, opIdentityRead, id.String()); err != nil {
		return nil, "", err
	}
	if limit <= 0 || limit > connectionsKept {
		limit = connectionsKept
	}
	below := uint64(math.MaxUint64)
	if cursor != "" {
		if below, err = strconv.ParseUint(cursor, 10, 64); err != nil {
			return nil, "", errf(CodeArgumentInvalid, "the cursor is not one that this list gave; start again without a cursor")
		}
	}
	list = []ConnectionEnd{}
	err = h.view(ctx, "read connections", func(r storage.Reader) error {
		if _, err := loadIdentity(r, id); err != nil {
			return err
		}
		g := storage.Range{Prefix: id.key(), End: connectionKey(id, below), Reverse: true}
		for item, err := range connectionTable.Scan(r, g) {
			if err != nil {
				return err
			}
			if len(list) == limit {
				next = strconv.FormatUint(list[limit-1].Number, 10)
				return nil
			}
			parts, err := item.Key.Parts()
			if err != nil {
				return err
			}
			n, _ := parts[len(parts)-1].(uint64)
			v := item.Value
			list = append(list, ConnectionEnd{n, v.Began.UTC(), v.Ended.UTC(), v.Protocol, v.Address, v.Code, v.Reason, v.Refused})
		}
		return nil
	})
	return list, next, err
}
