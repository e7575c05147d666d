package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/storage"
)

// historyTimes gives the entries of a section other times, as a clock that is
// set would have.
func historyTimes(t *testing.T, h *Hub, id TwinID, s historyNumber, at func(n uint64) time.Time) {
	t.Helper()
	err := h.update(t.Context(), "", func(tx *storage.Tx) error {
		identity, err := loadIdentity(tx, id)
		if err != nil {
			return err
		}
		for n := uint64(1); ; n++ {
			k := historyKey(id, identity.GenerationID, s, n)
			r, err := historyTable.Get(tx, k)
			if err != nil {
				return nil
			}
			r.Time = at(n)
			if err := historyTable.Put(tx, k, r); err != nil {
				return err
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestHistoryPagesWhateverTheClockDid(t *testing.T) {
	base := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, at := range map[string]func(n uint64) time.Time{
		"forward":      func(n uint64) time.Time { return base.Add(time.Duration(n) * time.Second) },
		"equal":        func(uint64) time.Time { return base },
		"set back":     func(n uint64) time.Time { return base.Add(time.Duration(n%7) * time.Minute) },
		"always back":  func(n uint64) time.Time { return base.Add(-time.Duration(n) * time.Second) },
		"equal in six": func(n uint64) time.Time { return base.Add(time.Duration(n/6) * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			h := openHub(t)
			id := TwinID{DeviceID: "d"}
			if _, err := h.CreateIdentity(t.Context(), owner, Identity{DeviceID: "d"}); err != nil {
				t.Fatal(err)
			}
			for n := range 12 {
				u := TwinUpdate{Tags: fmt.Appendf(nil, `{"n":%d}`, n), Desired: fmt.Appendf(nil, `{"n":%d}`, n)}
				if _, err := h.PatchTwin(t.Context(), owner, id, u, IfMatch{}); err != nil {
					t.Fatal(err)
				}
			}
			historyTimes(t, h, id, historyDesired, at)
			historyTimes(t, h, id, historyTags, at)
			for _, section := range []HistorySection{"", HistoryDesired} {
				whole, next, err := h.TwinHistory(t.Context(), owner, id, section, "", 100)
				if err != nil || next != "" {
					t.Fatal(err, next)
				}
				if want := map[HistorySection]int{"": 25, HistoryDesired: 12}[section]; len(whole) != want {
					t.Fatalf("%d entries, want %d", len(whole), want)
				}
				for limit := range 5 {
					var ids []string
					for cursor, more := "", true; more; more = cursor != "" {
						page, next, err := h.TwinHistory(t.Context(), owner, id, section, cursor, limit+1)
						if err != nil {
							t.Fatal(err)
						}
						for _, e := range page {
							ids = append(ids, e.ID)
						}
						cursor = next
					}
					if !slices.EqualFunc(ids, whole, func(id string, e HistoryEntry) bool { return id == e.ID }) {
						t.Errorf("pages of %d hold %v", limit+1, ids)
					}
				}
			}
		})
	}
}

func TestHistoryPageIsBoundedInBytes(t *testing.T) {
	h := openHub(t)
	id := TwinID{DeviceID: "d"}
	if _, err := h.CreateIdentity(t.Context(), owner, Identity{DeviceID: "d"}); err != nil {
		t.Fatal(err)
	}
	const writes = 40
	for n := range writes {
		body := fmt.Sprintf(`{"n":%d,"s":["%s"]}`, n, strings.Repeat(strings.Repeat("x", 4000)+`","`, 25))
		if _, err := h.PatchTwin(t.Context(), owner, id, TwinUpdate{Desired: []byte(body)}, IfMatch{}); err != nil {
			t.Fatal(err)
		}
	}
	pages, entries := 0, 0
	for cursor, more := "", true; more; more = cursor != "" {
		page, next, err := h.TwinHistory(t.Context(), owner, id, HistoryDesired, cursor, 0)
		if err != nil {
			t.Fatal(err)
		}
		pages, entries, cursor = pages+1, entries+len(page), next
	}
	if entries != writes || pages != 2 {
		t.Errorf("%d entries on %d pages, want %d on 2", entries, pages, writes)
	}
}

func TestHistoryCursorOfAnotherIdentity(t *testing.T) {
	h := openHub(t)
	id := TwinID{DeviceID: "d"}
	for _, cursor := range []string{"", "x", "1.2.3.4", "1.2.3.4.x", "1.2.3.4.5", "1.2.3.4.5.6"} {
		if _, err := h.CreateIdentity(t.Context(), owner, Identity{DeviceID: "d"}); err != nil {
			t.Fatal(err)
		}
		_, _, err := h.TwinHistory(t.Context(), owner, id, "", cursor, 1)
		if cursor != "" && (err == nil || AsError(err).Code != CodeArgumentInvalid) {
			t.Errorf("cursor %q: %v", cursor, err)
		}
		if err := h.DeleteIdentity(t.Context(), owner, id, IfMatch{Present: true, Any: true}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDifferenceReachesAsFarAsItCan(t *testing.T) {
	h := openHub(t)
	id := TwinID{DeviceID: "d"}
	item := BulkItem{Identity: Identity{DeviceID: "d"}, Mode: ImportCreate, Desired: []byte(`{"a":1}`), Tags: []byte(`{"site":"A"}`)}
	if failed, err := h.Bulk(t.Context(), owner, []BulkItem{item}); err != nil || len(failed) > 0 {
		t.Fatal(failed, err)
	}
	if _, err := h.PatchTwin(t.Context(), owner, id, TwinUpdate{Desired: []byte(`{"a":2}`)}, IfMatch{}); err != nil {
		t.Fatal(err)
	}
	f := func(from string, want int) {
		t.Helper()
		list, err := h.TwinDifference(t.Context(), owner, id, from, "now")
		if err != nil || len(list) != want {
			t.Errorf("from %s: %d differences, want %d: %v", from, len(list), want, err)
		}
	}
	f("identity:1", 1) // the twin came with its identity
	f("desired:1", 1)
	f("desired:2", 0)

	// The device was last changed long ago, and its history went for its age:
	// what it was an hour ago is still known.
	created := time.Now().Add(-200 * 24 * time.Hour)
	err := h.update(t.Context(), "", func(tx *storage.Tx) error {
		r, err := loadDevice(tx, "d")
		if err != nil {
			return err
		}
		r.Created = created
		return deviceTable.Put(tx, deviceKey("d"), r)
	})
	if err != nil {
		t.Fatal(err)
	}
	old := func(uint64) time.Time { return created }
	historyTimes(t, h, id, historyTags, old)
	historyTimes(t, h, id, historyDesired, old)
	if err := h.retain(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	f(time.Now().Add(-time.Hour).Format(time.RFC3339), 0)
	_, err = h.TwinDifference(t.Context(), owner, id, time.Now().Add(-100*24*time.Hour).Format(time.RFC3339), "now")
	if err == nil || AsError(err).Code != CodeHistoryNotFound {
		t.Errorf("from before what is kept: %v", err)
	}
}

// TestFullTwinFits fills all sections of a twin at once, with markup too.
func TestFullTwinFits(t *testing.T) {
	h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: t.TempDir(), Memory: 256 << 20}, Hosts: []string{"hub.muster.test"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}()
	id := TwinID{DeviceID: "d"}
	if _, err := h.CreateIdentity(t.Context(), owner, Identity{DeviceID: "d"}); err != nil {
		t.Fatal(err)
	}
	s := connect(t, h, id)
	for _, text := range []string{"x", "<", "&", `"`} {
		var b strings.Builder
		for n := range 63 {
			fmt.Fprintf(&b, `,"%02d":%q`, n, strings.Repeat(text, 4096))
		}
		full := []byte("{" + b.String()[1:] + "}")
		if _, err := h.PatchTwin(t.Context(), owner, id, TwinUpdate{Tags: full, Desired: full}, IfMatch{}); err != nil {
			t.Errorf("tags and desired full of %s: %v", text, err)
		}
		if _, err := s.PatchReported(t.Context(), full, -1); err != nil {
			t.Errorf("reported full of %s: %v", text, err)
		}
	}
}
