package engine

import (
	"context"

	"github.com/muster-hub/muster/storage"
)

// longWork is the state of what goes on for longer than a call.
type longWork struct {
	reached        func(step string) // see Options.Reached
	jobs           jobRunner
	configurations *configurations
	imports        importState // identity jobs and the containers that they use
	zones          zoneNames
	runs           runRunner
	patterns       patternState
}

// step is update for a transaction of long work, which a kill may precede or
// follow: everything that it left must be taken up from there. Names are
// "subject.what" and unique: a test finds a transaction of these files that has
// none, and another one ends the process before and after each of them.
func (h *Hub) step(ctx context.Context, name string, f func(tx *storage.Tx) error) error {
	h.reach(name + ":before")
	err := h.update(ctx, name, f)
	if err == nil {
		h.reach(name + ":after")
	}
	return err
}

// stepBlob is step for a transaction that makes a blob.
func (h *Hub) stepBlob(ctx context.Context, name string, w *storage.BlobWriter, f func(tx *storage.Tx, b storage.Blob) error) error {
	h.reach(name + ":before")
	made, err := w.Commit(ctx, f)
	if err == nil {
		h.reach(name + ":after")
	}
	return h.stored(made, err)
}

// reach tells that a place between two steps was come to.
func (h *Hub) reach(place string) {
	if h.reached != nil {
		h.reached(place)
	}
}
