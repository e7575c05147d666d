package engine

import (
	"bytes"
	"errors"
	"strings"

	"github.com/muster-hub/muster/storage"
)

// parent returns the scope of the parent, of which there is one at most.
func (r *identityRecord) parent() string {
	if len(r.ParentScopes) == 0 {
		return ""
	}
	return r.ParentScopes[0]
}

// parentScopesTx applies IoT Hub's rules for parents: a leaf names its parent
// by deviceScope, an edge device by parentScopes; a leaf's parentScopes alone
// attach nothing.
func parentScopesTx(tx *storage.Tx, r *identityRecord, i Identity) ([]string, error) {
	parent := r.DeviceScope
	if r.Edge {
		parent = ""
		if len(i.ParentScopes) == 1 {
			parent = i.ParentScopes[0]
		}
	}
	if parent == "" {
		return nil, nil
	}
	if len(r.ParentScopes) == 1 && r.ParentScopes[0] == parent {
		// Unchanged, also when the parent was deleted: who reads an identity can
		// write it back, for example to disable it.
		return r.ParentScopes, nil
	}
	id, ok := strings.CutPrefix(parent, edgeScopePrefix)
	if !ok {
		return nil, errf(CodeInvalidDeviceScope, "device scope %q does not begin with %s", parent, edgeScopePrefix)
	}
	if r.Edge && parent == r.DeviceScope {
		return nil, errf(CodeInvalidDeviceScope, "device %q can't be its own parent: parentScopes has its own deviceScope, send another edge device's or none", i.DeviceID)
	}
	_, found, known, err := edgeOfScopeTx(tx, parent, i.DeviceID)
	switch {
	case err != nil:
		return nil, err
	case found:
		return []string{parent}, nil
	case i.imported && !known && id != "" && len(id) < 2*len(i.DeviceID)+256:
		return []string{parent}, nil // as when the parent was deleted
	}
	return nil, errf(CodeInvalidDeviceScope, "device scope %q is not that of an edge device on this hub", parent)
}

// edgeOfScopeTx finds the edge device whose own scope this is, except one.
// known says that there is a device that the scope may have meant.
func edgeOfScopeTx(tx *storage.Tx, scope, except string) (r identityRecord, found, known bool, err error) {
	// The scope holds the device's id, followed by -ticks unless it became an
	// edge device later; ids may themselves hold dashes.
	id, _ := strings.CutPrefix(scope, edgeScopePrefix)
	for _, candidate := range []string{id[:max(0, strings.LastIndexByte(id, '-'))], id} {
		if candidate == "" || candidate == except {
			continue
		}
		r, err := deviceTable.Get(tx, deviceKey(candidate))
		if err != nil {
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			return identityRecord{}, false, false, err
		}
		known = true
		if r.Edge && r.DeviceScope == scope {
			return r, true, true, nil
		}
	}
	return identityRecord{}, false, known, nil
}

// layersRead bounds how many identities below an edge device a change of its
// place reads. A scan makes the transaction run alone, so it must be short.
const layersRead = 10_000

// checkLayersTx keeps the edge devices in trees of a bounded height: no device
// is above itself, and at most EdgeLayers layers are below the topmost one. It
// looks up and down from a device whose place has changed. Two changes at once
// that only together make a circle don't pass both: each reads what the other
// writes. What was stored before stays as it is, and may always be detached.
func (h *Hub) checkLayersTx(tx *storage.Tx, i Identity, before identityRecord, next *identityRecord) error {
	parent, old := next.parent(), before.parent()
	stays := before.Edge && before.DeviceScope == next.DeviceScope // as the parent that it is
	if !next.Edge || stays && (parent == old || parent == "") {
		return nil
	}
	above, most := 0, h.limits.EdgeLayers
	for scope := parent; scope != ""; above++ {
		if scope == next.DeviceScope {
			return errf(CodeInvalidDeviceScope, "device %q can't be below itself: its parent %q is below it already", i.DeviceID, parent)
		}
		if above == most {
			return errTooManyLayers(i.DeviceID, most)
		}
		r, found, _, err := edgeOfScopeTx(tx, scope, "")
		if err != nil {
			return err
		}
		if !found {
			above++ // deleted, or it comes later in the import
			break
		}
		scope = r.parent()
	}
	if before.GenerationID == "" && !i.imported {
		return nil // its scope is new, so nothing is below it
	}
	budget := layersRead
	return layersBelowTx(tx, i.DeviceID, next.DeviceScope, most-above, most, &budget)
}

// layersBelowTx refuses more layers of edge devices below a scope than are left.
func layersBelowTx(tx *storage.Tx, top, scope string, left, most int, budget *int) error {
	for item, err := range deviceTable.Lookup(tx, "parent", storage.Range{Prefix: storage.Tuple(scope)}) {
		if err != nil {
			return err
		}
		if *budget--; *budget < 0 {
			return errf(CodeInvalidDeviceScope, "more than %d devices are below %q, too many to move it: attach them to it afterwards", layersRead, top)
		}
		if !item.Value.Edge || bytes.Equal(item.Key, deviceKey(top)) { // top itself: where it was until now
			continue
		}
		if left == 0 {
			return errTooManyLayers(top, most)
		}
		if err := layersBelowTx(tx, top, item.Value.DeviceScope, left-1, most, budget); err != nil {
			return err
		}
	}
	return nil
}

func errTooManyLayers(id string, most int) error {
	return errf(CodeInvalidDeviceScope, "with this parent of %q more than %d layers of edge devices would be below the topmost one, at most %d are allowed", id, most, most)
}
