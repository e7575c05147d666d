package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/twin"
	"github.com/muster-hub/muster/storage"
)

// HistorySection names what a history entry changed.
type HistorySection string

// The sections of history.
const (
	HistoryIdentity HistorySection = "identity"
	HistoryTags     HistorySection = "tags"
	HistoryDesired  HistorySection = "desired"
	HistoryReported HistorySection = "reported"
)

// HistoryEntry is one change of an identity or of one section of its twin.
type HistoryEntry struct {
	ID        string // section and number, "desired:17"; stable
	Section   HistorySection
	Version   int64 // the section's version after the change; for tags and identity a count of changes
	Time      time.Time
	Principal string
	Cause     string
	RequestID string
	Patch     json.RawMessage // merge patch that was applied
	Undo      json.RawMessage // merge patch that takes it back
}

// sectionNumbers gives each section its place in the history table.
var sectionNumbers = map[HistorySection]historyNumber{
	HistoryIdentity: historyIdentity, HistoryTags: historyTags, HistoryDesired: historyDesired, HistoryReported: historyReported,
}

// placedEntry is an entry with its number.
type placedEntry struct {
	HistoryEntry
	n uint64
}

// TwinHistory returns an identity's changes, newest first, of one section or
// of all when section is empty, before the moment of cursor. next is empty at
// the end. It needs ServiceConnect.
func (h *Hub) TwinHistory(ctx context.Context, c Caller, id TwinID, section HistorySection, cursor string, limit int) (list []HistoryEntry, next string, err error) {
	if err := h.authorize(ctx, c, opTwinRead, id.String()); err != nil {
		return nil, "", err
	}
	if limit <= 0 || limit > 1000 {
		limit = 1000
	}
	sections := []HistorySection{HistoryIdentity, HistoryTags, HistoryDesired, HistoryReported}
	if section != "" {
		if _, ok := sectionNumbers[section]; !ok {
			return nil, "", errf(CodeArgumentInvalid, "section %q is not known, expected identity, tags, desired or reported", string(section))
		}
		sections = []HistorySection{section}
	}
	from, err := parseHistoryCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	var all []HistoryEntry
	err = h.view(ctx, "read history", func(r storage.Reader) error {
		identity, err := loadIdentity(r, id)
		if err != nil {
			return err
		}
		for _, s := range sections {
			n := 0
			for e, err := range scanHistory(r, id, identity.GenerationID, s) {
				if err != nil {
					return err
				}
				if !from.passed(e) {
					continue
				}
				all = append(all, e.HistoryEntry)
				if n++; n > limit {
					break
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	slices.SortStableFunc(all, newestFirst)
	if len(all) > limit {
		all = all[:limit]
		last := all[limit-1]
		next = last.Time.Format(time.RFC3339Nano) + "/" + last.ID
	}
	if all == nil {
		all = []HistoryEntry{}
	}
	return all, next, nil
}

// newestFirst orders entries by time, then by id, so that paging never skips.
func newestFirst(a, b HistoryEntry) int {
	return cmp.Or(b.Time.Compare(a.Time), strings.Compare(b.ID, a.ID))
}

// historyCursor is the place of the last entry of the page before.
type historyCursor struct {
	time time.Time
	id   string
}

func parseHistoryCursor(s string) (historyCursor, error) {
	if s == "" {
		return historyCursor{}, nil
	}
	text, id, ok := strings.Cut(s, "/")
	t, err := time.Parse(time.RFC3339Nano, text)
	if !ok || err != nil {
		return historyCursor{}, errf(CodeArgumentInvalid, "cursor %q is not one that this hub gave", s)
	}
	return historyCursor{t, id}, nil
}

func (c historyCursor) passed(e placedEntry) bool {
	return c.id == "" || newestFirst(e.HistoryEntry, HistoryEntry{Time: c.time, ID: c.id}) > 0
}

// scanHistory yields the entries of a section, newest first.
func scanHistory(r storage.Reader, id TwinID, generation string, s HistorySection) iter.Seq2[placedEntry, error] {
	return func(yield func(placedEntry, error) bool) {
		prefix := storage.Tuple(id.DeviceID, id.ModuleID, generation, uint64(sectionNumbers[s]))
		for item, err := range historyTable.Scan(r, storage.Range{Prefix: prefix, Reverse: true}) {
			if err != nil {
				yield(placedEntry{}, err)
				return
			}
			parts, err := item.Key.Parts()
			if err != nil {
				yield(placedEntry{}, err)
				return
			}
			n, _ := parts[len(parts)-1].(uint64)
			v := item.Value
			e := HistoryEntry{
				ID: string(s) + ":" + strconv.FormatUint(n, 10), Section: s, Version: v.Version, Time: v.Time.UTC(),
				Principal: v.Principal, Cause: v.Cause, RequestID: v.RequestID, Patch: v.Patch, Undo: v.Undo,
			}
			if !yield(placedEntry{e, n}, nil) {
				return
			}
		}
	}
}

// TwinDifference compares a twin at two moments: each is "now", an RFC 3339
// time, or the id of a history entry (the twin as it was right after it).
// Paths begin with tags., desired. or reported. It needs ServiceConnect.
func (h *Hub) TwinDifference(ctx context.Context, c Caller, id TwinID, from, to string) ([]twin.Difference, error) {
	if err := h.authorize(ctx, c, opTwinRead, id.String()); err != nil {
		return nil, err
	}
	list := []twin.Difference{}
	err := h.view(ctx, "compare twin", func(r storage.Reader) error {
		identity, now, err := loadTwin(r, id)
		if err != nil {
			return err
		}
		a, err := h.twinAt(r, id, identity, now, from)
		if err != nil {
			return err
		}
		b, err := h.twinAt(r, id, identity, now, to)
		if err != nil {
			return err
		}
		for _, k := range []twin.Kind{twin.Tags, twin.Desired, twin.Reported} {
			for _, d := range twin.Diff(*a.section(k), *b.section(k)) {
				d.Path = k.String() + "." + d.Path
				list = append(list, d)
			}
		}
		return nil
	})
	return list, err
}

// moment is a place in a twin's history.
type moment struct {
	time    time.Time
	section HistorySection // with n: the entry itself, which counts as past
	n       uint64
}

// twinAt walks a twin's history back to a moment. A moment before the oldest
// kept entry is an error, never a wrong answer.
func (h *Hub) twinAt(r storage.Reader, id TwinID, identity identityRecord, now twinRecord, at string) (twinRecord, error) {
	if at == "" || at == "now" {
		return now, nil
	}
	m, err := h.parseMoment(r, id, identity, at)
	if err != nil {
		return now, err
	}
	if m.time.Before(identity.Created) {
		return now, errf(CodeHistoryNotFound, "%q was created at %s, after %s", id, identity.Created.Format(time.RFC3339), m.time.Format(time.RFC3339))
	}
	for _, k := range []twin.Kind{twin.Tags, twin.Desired, twin.Reported} {
		slot, _, _ := sectionRules(k)
		left := now.History[slot] // entries that are not walked back yet
		section := now.section(k)
		for e, err := range scanHistory(r, id, identity.GenerationID, HistorySection(k.String())) {
			if err != nil {
				return now, err
			}
			past := !e.Time.After(m.time)
			if e.Section == m.section {
				past = e.n <= m.n
			}
			if past {
				left = 0
				break
			}
			undo, err := twin.ParsePatch(e.Undo, len(e.Undo))
			if err != nil {
				return now, err
			}
			*section = (*section).Apply(undo)
			left--
		}
		if left > 0 {
			return now, errf(CodeHistoryNotFound, "the history of %q's %s does not reach back to %s", id, k, at)
		}
	}
	return now, nil
}

func (h *Hub) parseMoment(r storage.Reader, id TwinID, identity identityRecord, at string) (moment, error) {
	if name, number, ok := strings.Cut(at, ":"); ok {
		if s, known := sectionNumbers[HistorySection(name)]; known {
			n, err := strconv.ParseUint(number, 10, 64)
			if err != nil {
				return moment{}, errf(CodeArgumentInvalid, "%q is not the id of a history entry", at)
			}
			e, err := historyTable.Get(r, historyKey(id, identity.GenerationID, s, n))
			if errors.Is(err, storage.ErrNotFound) {
				return moment{}, errf(CodeHistoryNotFound, "%q has no history entry %s, or no longer", id, at)
			}
			return moment{e.Time, HistorySection(name), n}, err
		}
	}
	t, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return moment{}, errf(CodeArgumentInvalid, "%q is not a moment: expected now, an RFC 3339 time, or the id of a history entry", at)
	}
	return moment{time: t}, nil
}
