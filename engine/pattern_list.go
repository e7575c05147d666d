package engine

import (
	"context"
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// Patterns lists every installed version of every pattern, by name, the newest
// version first. It needs ServiceConnect.
func (h *Hub) Patterns(ctx context.Context, c Caller) ([]Pattern, error) {
	if err := h.authorize(ctx, c, opPatternRead, "*"); err != nil {
		return nil, err
	}
	return h.everyPattern(ctx)
}

func (h *Hub) everyPattern(ctx context.Context) ([]Pattern, error) {
	list := []Pattern{}
	err := h.view(ctx, "list patterns", func(r storage.Reader) error {
		list = list[:0]
		for item, err := range patternTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			p, err := h.showPattern(r, &item.Value)
			if err != nil {
				return err
			}
			list = append(list, p)
		}
		return nil
	})
	slices.SortStableFunc(list, func(a, b Pattern) int {
		if d := strings.Compare(a.Manifest.Name, b.Manifest.Name); d != 0 {
			return d
		}
		return pattern.CompareVersions(b.Manifest.Version, a.Manifest.Version)
	})
	return list, err
}

// Pattern returns an installed version of a pattern, the default one when version
// is empty. CodePatternNotFound. It needs ServiceConnect.
func (h *Hub) Pattern(ctx context.Context, c Caller, name, version string) (Pattern, error) {
	if err := h.authorize(ctx, c, opPatternRead, name); err != nil {
		return Pattern{}, err
	}
	return h.readPattern(ctx, name, version)
}

func (h *Hub) readPattern(ctx context.Context, name, version string) (p Pattern, err error) {
	err = h.view(ctx, "read a pattern", func(r storage.Reader) error {
		record, err := h.pattern(r, name, version)
		if err != nil {
			return err
		}
		p, err = h.showPattern(r, &record)
		return err
	})
	return p, err
}

// PatternBundle returns the files of an installed version. The caller may not
// change them. Errors and permission are those of Pattern.
func (h *Hub) PatternBundle(ctx context.Context, c Caller, name, version string) (*pattern.Bundle, error) {
	p, err := h.Pattern(ctx, c, name, version)
	if err != nil {
		return nil, err
	}
	return h.program(ctx, p.Hash)
}
