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
}

// connectionRecord is a stored end of a connection.
type connectionRecord struct {
	Began    time.Time `json:"b"`
	Ended    time.Time `json:"e"`
	Protocol string    `json:"p"`
	Address  string    `json:"a"`
	Code     string    `json:"c"`
	Reason   string    `json:"r"`
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
	err := h.db.Submit(func(tx *storage.Tx) error {
		i, err := identityTable(s.id).Get(tx, identityKey(s.id))
		if errors.Is(err, storage.ErrNotFound) || err == nil && i.GenerationID != s.connection.Grant.GenerationID {
			return nil // its log went with it
		}
		if err != nil {
			return err
		}
		n, err := connectionHead.Get(tx, s.id.key())
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		n++
		if n > connectionsKept {
			if err := connectionTable.Delete(tx, connectionKey(s.id, n-connectionsKept)); err != nil {
				return err
			}
		}
		return errors.Join(connectionHead.Put(tx, s.id.key(), n), connectionTable.Put(tx, connectionKey(s.id, n), r))
	})
	if err != nil {
		h.count.presenceLost.Add(1)
	}
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
			list = append(list, ConnectionEnd{n, v.Began.UTC(), v.Ended.UTC(), v.Protocol, v.Address, v.Code, v.Reason})
		}
		return nil
	})
	return list, next, err
}
