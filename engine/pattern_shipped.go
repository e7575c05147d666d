package engine

import (
	"context"
	"log/slog"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// openPatterns takes over who runs programs, and installs the patterns that are a
// part of the binary and were never installed here. What can't be installed is
// told to the log: it must not keep the hub from its devices.
func (h *Hub) openPatterns(ctx context.Context, o *Options) {
	p := &h.patterns
	p.scripts, p.shipped = o.Scripts, map[string]*pattern.Bundle{}
	p.triggers.init(&h.limits)
	for _, b := range o.Shipped {
		p.shipped[b.Hash()] = b
	}
	if p.scripts == nil || h.db.Paused() { // a restored hub stays as it was until it is resumed, which a start comes after
		return
	}
	for _, b := range o.Shipped {
		if err := h.ship(ctx, b); err != nil {
			h.log.Warn("a pattern of the program could not be installed; the next start tries again", slog.Any("error", err))
		}
	}
}

// ship installs a pattern of the binary, with all that it needs granted. It is
// enabled unless an operator has disabled the newest version before it.
func (h *Hub) ship(ctx context.Context, b *pattern.Bundle) error {
	known := false
	err := h.view(ctx, "look for a pattern", func(r storage.Reader) (err error) {
		known, err = patternShippedTable.Has(r, storage.Tuple(b.Hash()))
		return err
	})
	if err != nil || known {
		return err
	}
	l, err := h.loadPattern(ctx, PatternInstall{Bundle: b})
	if err != nil {
		return err
	}
	l.install.Grant = l.manifest.Needs
	err = h.view(ctx, "look for a pattern", func(r storage.Reader) error {
		list, err := versionsOf(r, l.manifest.Name)
		newest := -1
		for i := range list {
			if newest < 0 || pattern.CompareVersions(list[i].Manifest.Version, list[newest].Manifest.Version) > 0 {
				newest = i
			}
		}
		l.install.Disabled = newest >= 0 && list[newest].Off
		return err
	})
	if err != nil {
		return err
	}
	_, err = h.install(ctx, shippedCaller(), l)
	return err
}

// shippedCaller is who installs what is a part of the binary: its triggers act as
// the hub's own operator on this machine.
func shippedCaller() Caller {
	return Caller{Principal: auth.Principal{Kind: auth.Local, Name: "muster", Permissions: auth.AllPermissions}, Cause: "shipped"}
}
