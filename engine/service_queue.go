package engine

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/muster-hub/muster/storage"
)

// How records that wait for an application are kept and handed out: feedback
// of messages, notifications of files.
const (
	queueAge   = time.Hour
	queueBatch = 64
	queueMost  = 10 // times that a record is handed out
	queueScan  = 10_000
	queueLock  = time.Minute
)

// queueLockState is the part of a waiting record that receivers change.
type queueLockState struct {
	Lock       string    `json:"l,omitempty"`
	Locked     time.Time `json:"u,omitzero"`
	Deliveries int       `json:"n,omitempty"`
}

func (s *queueLockState) state() *queueLockState { return s }

// queueRecord is a record with such a part.
type lockedRecord[R any] interface {
	*R
	state() *queueLockState
}

// serviceQueue is a queue of records whose keys begin with the time, and of
// which an index "lock" finds those that a receiver has.
type serviceQueue[R any, P lockedRecord[R]] struct {
	table *storage.Table[R]
	what  string
}

// lockIndex is the index that a serviceQueue's table needs.
func lockIndex[R any, P lockedRecord[R]]() storage.Index[R] {
	return storage.Index[R]{Name: "lock", Keys: func(_ storage.Key, r R) []storage.Key {
		if P(&r).state().Lock == "" {
			return nil
		}
		return []storage.Key{storage.Tuple(P(&r).state().Lock)}
	}}
}

// receive hands out the oldest records that nobody has, at most most. An
// empty token means that there are none.
func (q serviceQueue[R, P]) receive(ctx context.Context, h *Hub, most int) (list []R, lockToken string, err error) {
	token := rand.Text()
	err = h.update(ctx, "receive "+q.what, func(tx *storage.Tx) error {
		list, lockToken = nil, ""
		now, seen := tx.Now().UTC(), 0
		var found []storage.Item[R]
		for item, err := range q.table.Scan(tx, storage.Range{Start: storage.Tuple(now.Add(-queueAge))}) {
			if err != nil {
				return err
			}
			if seen++; len(found) == most || seen > queueScan {
				break
			}
			if !P(&item.Value).state().Locked.After(now) {
				found = append(found, item)
			}
		}
		for _, item := range found {
			r := item.Value
			s := P(&r).state()
			if s.Deliveries >= queueMost {
				if err := q.table.Delete(tx, item.Key); err != nil {
					return err
				}
				continue
			}
			s.Lock, s.Locked, s.Deliveries = token, now.Add(queueLock), s.Deliveries+1
			if err := q.table.Put(tx, item.Key, r); err != nil {
				return err
			}
			list, lockToken = append(list, r), token
		}
		return nil
	})
	return list, lockToken, err
}

// complete removes what was received under a token; CodeMessageLockLost when
// the lock has ended.
func (q serviceQueue[R, P]) complete(ctx context.Context, h *Hub, lockToken string) error {
	return q.settle(ctx, h, lockToken, func(tx *storage.Tx, item storage.Item[R]) error { return q.table.Delete(tx, item.Key) })
}

// abandon lets what was received under a token be received again at once.
// Errors as complete.
func (q serviceQueue[R, P]) abandon(ctx context.Context, h *Hub, lockToken string) error {
	return q.settle(ctx, h, lockToken, func(tx *storage.Tx, item storage.Item[R]) error {
		s := P(&item.Value).state()
		s.Lock, s.Locked = "", time.Time{}
		return q.table.Put(tx, item.Key, item.Value)
	})
}

func (q serviceQueue[R, P]) settle(ctx context.Context, h *Hub, lockToken string, f func(*storage.Tx, storage.Item[R]) error) error {
	return h.update(ctx, "settle "+q.what, func(tx *storage.Tx) error {
		var list []storage.Item[R]
		for item, err := range q.table.Lookup(tx, "lock", storage.Range{Prefix: storage.Tuple(lockToken)}) {
			if err != nil {
				return err
			}
			if P(&item.Value).state().Locked.After(tx.Now()) {
				list = append(list, item)
			}
		}
		if len(list) == 0 {
			return errf(CodeMessageLockLost, "no %s is locked by this token: its lock has ended, or it was completed", q.what)
		}
		for _, item := range list {
			if err := f(tx, item); err != nil {
				return err
			}
		}
		return nil
	})
}

// sweep drops what nobody received in time.
func (q serviceQueue[R, P]) sweep(ctx context.Context, h *Hub) error {
	return h.db.Update(ctx, func(tx *storage.Tx) error {
		return q.dropTx(tx, q.table.Scan(tx, storage.Range{End: storage.Tuple(tx.Now().Add(-queueAge))}), retainBatch)
	})
}

func (q serviceQueue[R, P]) dropTx(tx *storage.Tx, all func(func(storage.Item[R], error) bool), most int) error {
	var keys []storage.Key
	for item, err := range all {
		if err != nil {
			return err
		}
		if keys = append(keys, item.Key); len(keys) == most {
			break
		}
	}
	for _, k := range keys {
		if err := q.table.Delete(tx, k); err != nil {
			return err
		}
	}
	return nil
}
