package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// alterPattern changes a version for a caller, if it has the ETag.
func (h *Hub) alterPattern(ctx context.Context, c Caller, step, name, version, ifMatch string, f func(tx *storage.Tx, r *patternRecord) (Pattern, error)) (out Pattern, err error) {
	if err := h.authorize(ctx, c, opPatternWrite, name); err != nil {
		return Pattern{}, err
	}
	err = h.step(ctx, step, func(tx *storage.Tx) error {
		r, err := h.pattern(tx, name, version)
		if err != nil {
			return err
		}
		if err := checkSavedETag(ifMatch, savedETag(h.db.Epoch().Ordinal, r.Installed, r.Revision), r.what()); err != nil {
			return err
		}
		out, err = f(tx, &r)
		return err
	})
	return out, err
}

// EnablePattern lets runs of an installed version begin, the default one when
// version is empty. Its triggers act with the caller's permissions from now on. One
// that is newer than the default version becomes that, unless an operator has
// chosen. ifMatch is an ETag, or empty or "*". CodePatternState with what is missing
// if it needs a part of Muster that is yet to come. It needs HubManage.
func (h *Hub) EnablePattern(ctx context.Context, c Caller, name, version, ifMatch string) (Pattern, error) {
	return h.alterPattern(ctx, c, "pattern.enable", name, version, ifMatch, func(tx *storage.Tx, r *patternRecord) (Pattern, error) {
		if missing := r.Manifest.Missing(); len(missing) > 0 {
			e := errf(CodePatternState, "%s can't be enabled: it needs %s, which this Muster does not have yet", r.what(), strings.Join(missing, ", "))
			e.Next = "It stays installed; a later Muster that has it can enable it."
			return Pattern{}, e
		}
		if missing := missingGrants(&r.Manifest, r.Granted); len(missing) > 0 {
			return Pattern{}, errf(CodePatternGrant, "%s needs what was not granted: %s", r.what(), words(missing))
		}
		if owner := (jobOwner{c.Kind, c.Name}); !r.Enabled || r.Owner != owner {
			r.Owner, r.Since = owner, r.Revision+1
		}
		r.Enabled, r.Off = true, false
		n, err := nameOfPattern(tx, r.Manifest.Name)
		if err != nil {
			return Pattern{}, err
		}
		if !n.Chosen && pattern.CompareVersions(r.Manifest.Version, n.Default) > 0 {
			if err := h.moveDefaultTx(tx, r.Manifest.Name, r.Manifest.Version, false); err != nil {
				return Pattern{}, err
			}
		}
		return h.storePatternTx(tx, c, r, changePatternState, "enabled")
	})
}

// DisablePattern lets no run of a version begin any more; those under way go on to
// their end, so that nothing of it is left then. Its triggers rest. Jobs of it that
// have not ended begin no more runs: their executions fail. ifMatch and permission
// are as in EnablePattern.
func (h *Hub) DisablePattern(ctx context.Context, c Caller, name, version, ifMatch string) (Pattern, error) {
	return h.alterPattern(ctx, c, "pattern.disable", name, version, ifMatch, func(tx *storage.Tx, r *patternRecord) (Pattern, error) {
		r.Enabled, r.Off = false, true
		return h.storePatternTx(tx, c, r, changePatternState, "disabled")
	})
}

// DefaultPattern makes a version the one that is run when none is named, whatever
// is installed later. ifMatch and permission are as in EnablePattern.
func (h *Hub) DefaultPattern(ctx context.Context, c Caller, name, version, ifMatch string) (Pattern, error) {
	return h.alterPattern(ctx, c, "pattern.default", name, version, ifMatch, func(tx *storage.Tx, r *patternRecord) (Pattern, error) {
		if err := h.moveDefaultTx(tx, r.Manifest.Name, r.Manifest.Version, true); err != nil {
			return Pattern{}, err
		}
		return h.storePatternTx(tx, c, r, changePatternState, "default")
	})
}

// moveDefaultTx makes a version the default one; the one before is another one
// from now on, so its ETag moves. The new one's moves with whatever else changed it.
func (h *Hub) moveDefaultTx(tx *storage.Tx, name, version string, chosen bool) error {
	n, err := patternNameTable.Get(tx, storage.Tuple(name))
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	if n.Default != "" && n.Default != version {
		before, err := patternTable.Get(tx, patternKey(name, n.Default))
		if err == nil {
			before.Revision++
			before.Updated = tx.Now()
			err = patternTable.Put(tx, patternKey(name, n.Default), before)
		}
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
	}
	return patternNameTable.Put(tx, storage.Tuple(name), patternName{Default: version, Chosen: chosen})
}

// RemovePattern removes an installed version with its files. CodePatternState while
// runs of it are under way. Jobs that keep to it and have not ended begin no more
// runs: their executions fail. If it was the default version, the newest that is
// enabled takes its place. ifMatch and permission are as in EnablePattern.
func (h *Hub) RemovePattern(ctx context.Context, c Caller, name, version, ifMatch string) error {
	_, err := h.alterPattern(ctx, c, "pattern.remove", name, version, ifMatch, func(tx *storage.Tx, r *patternRecord) (Pattern, error) {
		m := &r.Manifest
		active, err := patternActive(tx, m.Name, m.Version)
		if err != nil {
			return Pattern{}, err
		}
		if active > 0 {
			are := "are"
			if active == 1 {
				are = "is"
			}
			e := errf(CodePatternState, "%s of %s %s under way", plural(int(active), "run"), r.what(), are)
			e.Next = "Disable it, so that none begins any more, and remove it when they have ended; or cancel them: `muster run list --pattern " + m.Name + "`."
			return Pattern{}, e
		}
		return Pattern{}, h.removePatternTx(tx, c, r)
	})
	return err
}

func (h *Hub) removePatternTx(tx *storage.Tx, c Caller, r *patternRecord) error {
	m := &r.Manifest
	key, hash := patternKey(m.Name, m.Version), r.Hash
	if err := patternTable.Delete(tx, key); err != nil {
		return err
	}
	left, err := versionsOf(tx, m.Name)
	if err != nil {
		return err
	}
	n, err := nameOfPattern(tx, m.Name)
	if err != nil {
		return err
	}
	switch {
	case len(left) == 0:
		tx.Add(counterPatterns, -1)
		err = patternNameTable.Delete(tx, storage.Tuple(m.Name))
	case n.Default == m.Version:
		err = h.moveDefaultTx(tx, m.Name, newest(left), false)
	}
	tx.Add(counterPatternsBytes, -r.Bytes)
	tx.OnCommit(func(uint64) {
		h.patterns.forget(hash)
		h.patterns.triggers.look()
	})
	details := patternDetails(r, "removed")
	return errors.Join(
		err,
		h.db.Blobs().Release(tx, r.Blob, patternBlobKeeper(m.Name, m.Version)),
		appendChange(tx, c, changePatternRemoved, TwinID{}, 0, details),
		h.auditTx(tx, c, opPatternWrite, fmt.Sprintf("%s@%s", m.Name, m.Version), details),
	)
}

// newest returns the newest version that is enabled, else the newest one.
func newest(list []patternRecord) string {
	best := 0
	for i := range list {
		switch a, b := &list[i], &list[best]; {
		case a.Enabled != b.Enabled:
			if a.Enabled {
				best = i
			}
		case pattern.CompareVersions(a.Manifest.Version, b.Manifest.Version) > 0:
			best = i
		}
	}
	return list[best].Manifest.Version
}
