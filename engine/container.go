package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// Container holds blobs for imports and exports, as a container of Azure
// Storage does.
type Container struct {
	Name      string
	Blobs     int
	Bytes     int64 // also of blocks that wait to be joined
	Principal string
	Created   time.Time
	Updated   time.Time // when something in it was changed last
}

// ContainerAccess opens a container to whoever holds its token.
type ContainerAccess struct {
	Container string
	Token     string // query string, with its question mark
	Expires   time.Time
}

// ContainerGrant says that its holder may use a container, and which one: a
// namesake that is made later is another.
type ContainerGrant struct {
	Name    string
	Expires time.Time // zero: by the caller's own permission

	id string
}

// containerRecord is a stored container; its key is the name.
type containerRecord struct {
	ID        string    `json:"i"`
	Blobs     int       `json:"b,omitempty"`
	Blocks    int       `json:"k,omitempty"` // that wait to be joined
	Bytes     int64     `json:"s,omitempty"`
	Principal string    `json:"w"`
	Created   time.Time `json:"c"`
	Updated   time.Time `json:"u"`
}

var (
	containerTable = storage.NewTable("container", 1, storage.JSON[containerRecord](),
		storage.Index[containerRecord]{Name: "age", Keys: func(_ storage.Key, r containerRecord) []storage.Key {
			return []storage.Key{storage.Tuple(r.Updated)}
		}})
	// containerGoneTable names deleted containers whose blobs are still there.
	containerGoneTable = storage.NewTable("container.gone", 1, storage.JSON[struct{}]())
)

const counterContainers = "containers"

// importState is what the hub remembers of imports, exports and their
// containers beside the store.
type importState struct {
	share int64        // bytes that containers may have
	kept  atomic.Int64 // bytes that they have
	wake  chan struct{}
	lines atomic.Bool // the lines of an import are being read
}

// The longest and the usual life of a container's token.
const (
	containerTokenMost  = 7 * 24 * time.Hour
	containerTokenUsual = 24 * time.Hour
)

// openImports reads what containers hold.
func (h *Hub) openImports(ctx context.Context) error {
	s := &h.imports
	s.wake = make(chan struct{}, 1)
	s.share = h.limits.ContainerShare
	if size, err := h.db.DiskSize(); err == nil {
		s.share = min(s.share, size/10)
	}
	return h.view(ctx, "read containers", func(r storage.Reader) error {
		n, err := storage.Counter(r, counterContainerBytes)
		s.kept.Store(n)
		return err
	})
}

// checkContainerName applies Azure Storage's rule.
func checkContainerName(name string) error {
	ok := len(name) >= 3 && len(name) <= 63 && name[0] != '-' && name[len(name)-1] != '-' && !strings.Contains(name, "--")
	if !ok || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return errf(CodeArgumentInvalid, "%.80q is no name of a container; expected 3 to 63 lower-case letters, digits and single dashes between them", name)
	}
	return nil
}

// CreateContainer makes a container; an empty name makes one up.
// CodeBlobContainerExists for a name that is taken, CodeQuotaExceeded when there
// are as many as may be. It needs RegistryWrite.
func (h *Hub) CreateContainer(ctx context.Context, c Caller, name string) (Container, error) {
	if name == "" {
		name = "c-" + strings.ToLower(rand.Text())
	}
	if err := h.authorize(ctx, c, opContainerWrite, name); err != nil {
		return Container{}, err
	}
	if err := checkContainerName(name); err != nil {
		return Container{}, err
	}
	var r containerRecord
	err := h.step(ctx, "container.create", func(tx *storage.Tx) error {
		switch known, err := containerTable.Has(tx, storage.Tuple(name)); {
		case err != nil:
			return err
		case known:
			return errf(CodeBlobContainerExists, "there is a container %q", name)
		}
		n, err := storage.Counter(tx, counterContainers)
		if err != nil {
			return err
		}
		if n >= int64(h.limits.Containers) {
			return errf(CodeQuotaExceeded, "the hub has %d containers, and the limit is %d; delete one first", n, h.limits.Containers)
		}
		now := tx.Now().UTC()
		r = containerRecord{ID: newTimedID(now), Principal: c.Principal.String(), Created: now, Updated: now}
		tx.Add(counterContainers, 1)
		return errors.Join(
			containerTable.Put(tx, storage.Tuple(name), r),
			h.auditTx(tx, c, opContainerWrite, name, nil),
		)
	})
	return r.show(name), err
}

func (r *containerRecord) show(name string) Container {
	return Container{name, r.Blobs, r.Bytes, r.Principal, r.Created.UTC(), r.Updated.UTC()}
}

// ContainerAccess returns a token of the container that lives so long, at most
// 7 days; 0 is a day. It needs RegistryWrite.
func (h *Hub) ContainerAccess(ctx context.Context, c Caller, name string, life time.Duration) (ContainerAccess, error) {
	if err := h.authorize(ctx, c, opContainerWrite, name); err != nil {
		return ContainerAccess{}, err
	}
	if life == 0 {
		life = containerTokenUsual
	}
	if life < time.Minute || life > containerTokenMost {
		return ContainerAccess{}, errf(CodeArgumentInvalid, "a token can't live for %s; expected 1m to %s", life, containerTokenMost)
	}
	if len(h.files.key) == 0 {
		return ContainerAccess{}, errf(CodeReadOnly, "the hub could not make the key that signs tokens, since its store took no writes at its start; restart it when the disk is well")
	}
	a := ContainerAccess{Container: name, Expires: time.Now().Add(life).UTC().Truncate(time.Second)}
	err := h.view(ctx, "read container", func(r storage.Reader) error {
		record, err := loadContainer(r, name)
		a.Token = auth.SignContainer(h.files.key, record.ID, name, a.Expires)
		return err
	})
	return a, err
}

func loadContainer(r storage.Reader, name string) (containerRecord, error) {
	record, err := containerTable.Get(r, storage.Tuple(name))
	if errors.Is(err, storage.ErrNotFound) {
		return record, errf(CodeBlobContainerNotFound, "there is no container %.80q", name)
	}
	return record, err
}

// Container returns a container; CodeBlobContainerNotFound when there is none.
// It needs RegistryRead.
func (h *Hub) Container(ctx context.Context, c Caller, name string) (Container, error) {
	if err := h.authorize(ctx, c, opContainerRead, name); err != nil {
		return Container{}, err
	}
	var record containerRecord
	err := h.view(ctx, "read container", func(r storage.Reader) (err error) {
		record, err = loadContainer(r, name)
		return err
	})
	return record.show(name), err
}

// Containers lists containers in the order of their names behind the one given,
// at most limit (1 to 1000); next is empty at the end. It needs RegistryRead.
func (h *Hub) Containers(ctx context.Context, c Caller, after string, limit int) (list []Container, next string, err error) {
	if err := h.authorize(ctx, c, opContainerRead, "*"); err != nil {
		return nil, "", err
	}
	if limit <= 0 || limit > filePage {
		limit = filePage
	}
	list = []Container{}
	g := storage.Range{}
	if after != "" {
		g.After = storage.Tuple(after)
	}
	err = h.view(ctx, "list containers", func(r storage.Reader) error {
		for item, err := range containerTable.Scan(r, g) {
			if err != nil {
				return err
			}
			if len(list) == limit {
				next = list[limit-1].Name
				return nil
			}
			name, err := firstText(item.Key)
			if err != nil {
				return err
			}
			list = append(list, item.Value.show(name))
		}
		return nil
	})
	return list, next, err
}

func firstText(k storage.Key) (string, error) {
	parts, err := k.Parts()
	if err != nil {
		return "", err
	}
	text, _ := parts[0].(string)
	return text, nil
}

// DeleteContainer removes a container with its blobs, and voids its tokens.
// Imports that read one of them go on. It needs RegistryWrite.
func (h *Hub) DeleteContainer(ctx context.Context, c Caller, name string) error {
	if err := h.authorize(ctx, c, opContainerWrite, name); err != nil {
		return err
	}
	return h.step(ctx, "container.delete", func(tx *storage.Tx) error {
		r, err := loadContainer(tx, name)
		if err != nil {
			return err
		}
		return errors.Join(h.dropContainerTx(tx, name, r), h.auditTx(tx, c, opContainerWrite, name, []byte(`{"deleted":true}`)))
	})
}

// dropContainerTx removes a container; the sweeper removes its blobs.
func (h *Hub) dropContainerTx(tx *storage.Tx, name string, r containerRecord) error {
	tx.Add(counterContainers, -1)
	return errors.Join(containerTable.Delete(tx, storage.Tuple(name)), containerGoneTable.Put(tx, storage.Tuple(r.ID), struct{}{}))
}

// AuthorizeContainer checks a container's token. CodeUnauthorized for anything
// wrong with it; the message does not say what exists.
func (h *Hub) AuthorizeContainer(ctx context.Context, name string, t auth.ContainerToken) (ContainerGrant, error) {
	if h.draining.Load() {
		return ContainerGrant{}, errf(CodeClosed, "the hub is shutting down")
	}
	if err := h.checkClock(); err != nil {
		return ContainerGrant{}, err
	}
	if !t.Verify(h.files.key, name) {
		return ContainerGrant{}, errf(CodeUnauthorized, "the signature is not the hub's for this container")
	}
	if t.Expired(time.Now()) {
		return ContainerGrant{}, errf(CodeUnauthorized, "the token expired at %s", t.Expiry.Format(time.RFC3339))
	}
	g := ContainerGrant{Name: name, Expires: t.Expiry, id: t.ID}
	return g, h.view(ctx, "read container", func(r storage.Reader) error {
		_, err := g.load(r)
		return err
	})
}

// OpenContainer lets a caller with RegistryWrite use a container without a token.
func (h *Hub) OpenContainer(ctx context.Context, c Caller, name string) (ContainerGrant, error) {
	if err := h.authorize(ctx, c, opContainerWrite, name); err != nil {
		return ContainerGrant{}, err
	}
	g := ContainerGrant{Name: name}
	return g, h.view(ctx, "read container", func(r storage.Reader) error {
		record, err := loadContainer(r, name)
		g.id = record.ID
		return err
	})
}

// load returns the container that the grant is for, if it is still the same.
func (g ContainerGrant) load(r storage.Reader) (containerRecord, error) {
	record, err := loadContainer(r, g.Name)
	if err == nil && record.ID != g.id {
		err = errf(CodeBlobContainerNotFound, "the container %.80q is no longer the one that the token was made for", g.Name)
	}
	return record, err
}
