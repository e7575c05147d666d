package engine

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"math"
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

// historySections are the sections in the order in which one transaction
// writes them, which orders entries of the same time.
var historySections = [...]HistorySection{HistoryIdentity, HistoryTags, HistoryDesired, HistoryReported}

// placedEntry is an entry with its number.
type placedEntry struct {
	HistoryEntry
	n uint64
}

// What one page of history holds at most.
const (
	historyPage  = 1000
	historyBytes = 4 << 20 // of patches
)

// TwinHistory returns an identity's changes, newest first, of one section or
// of all when section is empty, from where cursor stands. A page holds at most
// limit entries, fewer when they are large. next is empty at the end. It needs
// ServiceConnect.
func (h *Hub) TwinHistory(ctx context.Context, c Caller, id TwinID, section HistorySection, cursor string, limit int) (list []HistoryEntry, next string, err error) {
	if err := h.authorize(ctx, c, opTwinRead, id.String()); err != nil {
		return nil, "", err
	}
	if limit <= 0 || limit > historyPage {
		limit = historyPage
	}
	if _, ok := sectionNumbers[section]; !ok && section != "" {
		return nil, "", errf(CodeArgumentInvalid, "section %q is not known, expected identity, tags, desired or reported", string(section))
	}
	list = []HistoryEntry{}
	err = h.view(ctx, "read history", func(r storage.Reader) error {
		identity, record, err := h.loadTwin(r, id)
		if err != nil {
			return err
		}
		place := historyCursor{identity.GenerationID, [...]uint64{identity.History + 1, record.History[0] + 1, record.History[1] + 1, record.History[2] + 1}}
		if cursor != "" {
			if err := place.parse(cursor); err != nil {
				return err
			}
		}
		size := 0
		for e, err := range newestFirst(r, id, section, &place) {
			if err != nil {
				return err
			}
			if len(list) == limit || size >= historyBytes {
				next = place.String()
				return nil
			}
			list = append(list, e.HistoryEntry)
			size += len(e.Patch) + len(e.Undo)
		}
		return nil
	})
	return list, next, err
}

// historyCursor is a place in an identity's history: for each section the
// number that the next entry's lies below. Times order nothing that a page
// depends on: clocks go back, and several changes may have the same time.
type historyCursor struct {
	generation string
	below      [len(historySections)]uint64
}

func (c *historyCursor) String() string {
	parts := []string{c.generation}
	for _, n := range c.below {
		parts = append(parts, strconv.FormatUint(n, 10))
	}
	return strings.Join(parts, ".")
}

// parse reads what String wrote; c holds the identity as it is now.
func (c *historyCursor) parse(s string) error {
	parts := strings.Split(s, ".")
	if len(parts) != 1+len(c.below) {
		return errf(CodeArgumentInvalid, "cursor %q is not one that this hub gave", s)
	}
	if parts[0] != c.generation {
		return errf(CodeArgumentInvalid, "the cursor belongs to an identity that was deleted; start again without a cursor")
	}
	for i, text := range parts[1:] {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return errf(CodeArgumentInvalid, "cursor %q is not one that this hub gave", s)
		}
		c.below[i] = n
	}
	return nil
}

// newestFirst merges the sections below a place, or one of them. The place
// moves behind an entry when the next one is asked for.
func newestFirst(r storage.Reader, id TwinID, only HistorySection, place *historyCursor) iter.Seq2[placedEntry, error] {
	return func(yield func(placedEntry, error) bool) {
		var next [len(historySections)]func() (placedEntry, error, bool)
		var heads [len(historySections)]*placedEntry
		advance := func(i int) error {
			e, err, ok := next[i]()
			if heads[i] = nil; ok {
				heads[i] = &e
			}
			return err
		}
		for i, s := range historySections {
			if only != "" && s != only {
				continue
			}
			var stop func()
			next[i], stop = iter.Pull2(scanHistory(r, id, place.generation, s, place.below[i]))
			defer stop()
			if err := advance(i); err != nil {
				yield(placedEntry{}, err)
				return
			}
		}
		for {
			newest := -1
			for i, e := range heads {
				if e != nil && (newest < 0 || !e.Time.Before(heads[newest].Time)) {
					newest = i
				}
			}
			if newest < 0 || !yield(*heads[newest], nil) {
				return
			}
			place.below[newest] = heads[newest].n
			if err := advance(newest); err != nil {
				yield(placedEntry{}, err)
				return
			}
		}
	}
}

// scanHistory yields the entries of a section below a number, newest first.
func scanHistory(r storage.Reader, id TwinID, generation string, s HistorySection, below uint64) iter.Seq2[placedEntry, error] {
	return func(yield func(placedEntry, error) bool) {
		number := sectionNumbers[s]
		g := storage.Range{Prefix: storage.Tuple(id.DeviceID, id.ModuleID, generation, uint64(number)), End: historyKey(id, generation, number, below), Reverse: true}
		for item, err := range historyTable.Scan(r, g) {
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
		identity, now, err := h.loadTwin(r, id)
		if err != nil {
			return err
		}
		a, err := h.twinAt(r, id, identity, now, from, twinKinds[:]...)
		if err != nil {
			return err
		}
		b, err := h.twinAt(r, id, identity, now, to, twinKinds[:]...)
		if err != nil {
			return err
		}
		for _, k := range twinKinds {
			for _, d := range twin.Diff(*a.section(k), *b.section(k)) {
				d.Path = k.String() + "." + d.Path
				list = append(list, d)
			}
		}
		return nil
	})
	return list, err
}

// twinKinds are the sections of a twin.
var twinKinds = [...]twin.Kind{twin.Tags, twin.Desired, twin.Reported}

// clockAhead is how far a moment may lie in the future to count as now.
const clockAhead = time.Minute

// moment is a place in a twin's history.
type moment struct {
	time    time.Time
	section HistorySection // with n: the entry itself, which counts as past
	n       uint64
}

// twinAt walks a twin's history back to a moment. A moment before the oldest
// kept entry is an error, never a wrong answer.
// Only the sections named by kinds are walked back.
func (h *Hub) twinAt(r storage.Reader, id TwinID, identity identityRecord, now twinRecord, at string, kinds ...twin.Kind) (twinRecord, error) {
	if at == "" || at == "now" {
		return now, nil
	}
	m, err := h.parseMoment(r, id, identity, at)
	if err != nil {
		return now, err
	}
	if m.section == "" && m.time.Before(identity.Created) { // an entry's time is cut to microseconds
		return now, errf(CodeHistoryNotFound, "%q was created at %s, after %s", id, identity.Created.Format(time.RFC3339), m.time.Format(time.RFC3339))
	}
	for _, k := range kinds {
		slot, number, _ := sectionRules(k)
		left := now.History[slot] // entries that are not walked back yet
		section := now.section(k)
		var walked uint64
		for e, err := range scanHistory(r, id, identity.GenerationID, HistorySection(k.String()), math.MaxUint64) {
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
			walked++
		}
		if left == 0 {
			continue
		}
		// Entries are missing. Those that went for their age are older than that.
		keep, age := h.limits.history(number)
		if walked >= keep || m.time.Before(time.Now().Add(-age)) {
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
	// A caller's clock may be a little ahead of the hub's; what is yet to come
	// has no twin, and must not look like one.
	if now := time.Now(); t.After(now.Add(clockAhead)) {
		return moment{}, errf(CodeArgumentInvalid, "%s is in the future: the hub's clock says %s", at, now.UTC().Format(time.RFC3339))
	}
	return moment{time: t}, nil
}
