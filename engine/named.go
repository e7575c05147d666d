package engine

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/muster-hub/muster/storage"
)

// versionStamp is what each version of a record with a name says about itself.
type versionStamp struct {
	Version   uint64    `json:"n"` // from 1
	Principal string    `json:"p"` // who made it
	Created   time.Time `json:"c"` // the first one
	Updated   time.Time `json:"u"`
}

func (s versionStamp) stamp() versionStamp { return s }

// named are the records of one kind that have names. Each change of one makes a
// version; the versions before are kept, as many as the limits say. R is what is
// stored, T what callers see.
type named[R interface{ stamp() versionStamp }, T any] struct {
	hub          *Hub
	noun, plural string
	newest       *storage.Table[R] // by name
	kept         *storage.Table[R] // by name and version, the newest included
	counter      string
	most         int // of them
	missing      Code
	read         operation
	show         func(name, etag string, r R) T
}

// savedETag is the ETag of a version of a record with a name: neither one from
// before a restore nor one of a namesake that was deleted ever matches it.
func savedETag(epoch uint32, created time.Time, version uint64) string {
	return strconv.FormatUint(uint64(epoch), 36) + "." + strconv.FormatInt(created.UnixMicro(), 36) + "." + strconv.FormatUint(version, 10)
}

// checkSavedETag refuses a condition that a record does not meet; an absent one
// and "*" mean any.
func checkSavedETag(etag, now, what string) error {
	if etag == "" || etag == "*" || etag == now {
		return nil
	}
	return errf(CodePreconditionFailed, "%s has changed; expected the ETag %q", what, now)
}

func (n *named[R, T]) etag(r R) string {
	s := r.stamp()
	return savedETag(n.hub.db.Epoch().Ordinal, s.Created, s.Version)
}

func (n *named[R, T]) shown(name string, r R) T { return n.show(name, n.etag(r), r) }

// list returns all by name.
func (n *named[R, T]) list(ctx context.Context, c Caller) ([]T, error) {
	if err := n.hub.authorize(ctx, c, n.read, "*"); err != nil {
		return nil, err
	}
	list := []T{}
	err := n.hub.view(ctx, "list "+n.plural, func(r storage.Reader) error {
		list = list[:0]
		for item, err := range n.newest.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			parts, err := item.Key.Parts()
			if err != nil {
				return err
			}
			name, _ := parts[0].(string)
			list = append(list, n.shown(name, item.Value))
		}
		return nil
	})
	return list, err
}

// one returns a version of a record: the newest when version is 0.
func (n *named[R, T]) one(ctx context.Context, c Caller, name string, version uint64) (out T, err error) {
	if err := n.hub.authorize(ctx, c, n.read, name); err != nil {
		return out, err
	}
	err = n.hub.view(ctx, "read "+n.noun, func(r storage.Reader) error {
		record, err := n.get(r, name)
		if err == nil && version != 0 && version != record.stamp().Version {
			record, err = n.kept.Get(r, storage.Tuple(name, version))
			if errors.Is(err, storage.ErrNotFound) {
				return errf(n.missing, "the %s %q has no version %d, or it is no longer kept", n.noun, clip(name), version)
			}
		}
		out = n.shown(name, record)
		return err
	})
	return out, err
}

// versions lists the versions of a record that are kept, newest first.
func (n *named[R, T]) versions(ctx context.Context, c Caller, name string) ([]T, error) {
	if err := n.hub.authorize(ctx, c, n.read, name); err != nil {
		return nil, err
	}
	list := []T{}
	err := n.hub.view(ctx, "read versions of a "+n.noun, func(r storage.Reader) error {
		list = list[:0]
		if _, err := n.get(r, name); err != nil {
			return err
		}
		for item, err := range n.kept.Scan(r, storage.Range{Prefix: storage.Tuple(name), Reverse: true}) {
			if err != nil {
				return err
			}
			list = append(list, n.shown(name, item.Value))
		}
		return nil
	})
	return list, err
}

func (n *named[R, T]) get(r storage.Reader, name string) (R, error) {
	record, err := n.newest.Get(r, storage.Tuple(name))
	if errors.Is(err, storage.ErrNotFound) {
		return record, errf(n.missing, "there is no %s %q", n.noun, clip(name))
	}
	return record, err
}

// putTx makes a record, or a new version of one unless the one that is there is
// the same. etag is empty, "*" when it must exist, or the one that it must have.
// The version is 0 when nothing changed.
func (n *named[R, T]) putTx(tx *storage.Tx, c Caller, name, etag string, same func(R) bool, next func(versionStamp) R) (out T, version uint64, err error) {
	stamp := versionStamp{Version: 1, Principal: c.Principal.String(), Created: tx.Now(), Updated: tx.Now()}
	old, err := n.newest.Get(tx, storage.Tuple(name))
	switch {
	case errors.Is(err, storage.ErrNotFound):
		if etag != "" {
			return out, 0, errf(n.missing, "there is no %s %q", n.noun, name)
		}
		count, err := storage.Counter(tx, n.counter)
		if err != nil {
			return out, 0, err
		}
		if count >= int64(n.most) {
			return out, 0, errf(CodeQuotaExceeded, "the hub has %d %s, and the limit is %d; delete one first", count, n.plural, n.most)
		}
		tx.Add(n.counter, 1)
	case err != nil:
		return out, 0, err
	default:
		if err := n.check(etag, name, old); err != nil {
			return out, 0, err
		}
		if same(old) {
			return n.shown(name, old), 0, nil
		}
		stamp.Version, stamp.Created = old.stamp().Version+1, old.stamp().Created
	}
	if most := uint64(n.hub.limits.SavedQueryVersions); stamp.Version > most {
		if err := n.kept.Delete(tx, storage.Tuple(name, stamp.Version-most)); err != nil {
			return out, 0, err
		}
	}
	record := next(stamp)
	return n.shown(name, record), stamp.Version, errors.Join(
		n.newest.Put(tx, storage.Tuple(name), record),
		n.kept.Put(tx, storage.Tuple(name, stamp.Version), record),
	)
}

func (n *named[R, T]) check(etag, name string, r R) error {
	return checkSavedETag(etag, n.etag(r), "the "+n.noun+" "+strconv.Quote(name))
}

// deleteTx removes a record with its versions and returns the number of the last
// one. etag is as in putTx.
func (n *named[R, T]) deleteTx(tx *storage.Tx, name, etag string) (version uint64, err error) {
	record, err := n.get(tx, name)
	if err != nil {
		return 0, err
	}
	if err := n.check(etag, name, record); err != nil {
		return 0, err
	}
	var keys []storage.Key // no more than are kept
	for item, err := range n.kept.Scan(tx, storage.Range{Prefix: storage.Tuple(name)}) {
		if err != nil {
			return 0, err
		}
		keys = append(keys, slices.Clone(item.Key))
	}
	for _, k := range keys {
		if err := n.kept.Delete(tx, k); err != nil {
			return 0, err
		}
	}
	tx.Add(n.counter, -1)
	return record.stamp().Version, n.newest.Delete(tx, storage.Tuple(name))
}
