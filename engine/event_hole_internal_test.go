package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/storage"
)

// TestHoleInTheMessageLogIsAGap: a segment that is gone in the middle, as after
// a repair, must not be passed over without a word by who reads pages, follows
// at the tail, or resumes.
func TestHoleInTheMessageLogIsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		o := Options{Storage: storage.Options{Dir: dir, Memory: 64 << 20}, Hosts: []string{"hub.muster.test"}}
		h, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 { // a segment each
			if i > 0 {
				time.Sleep(61 * time.Minute)
			}
			putMessages(t, h, "d", 10*i, 3)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(dir, "messages", "*.log"))
		if err != nil || len(files) != 3 {
			t.Fatalf("segments %q, %v", files, err)
		}
		slices.Sort(files)
		if err := os.Remove(files[1]); err != nil {
			t.Fatal(err)
		}
		if h, err = Open(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		defer h.Close()

		telemetry := EventFilter{Kinds: []string{EventTelemetry}}
		const all = "0 1 2 gap 20 21 22"
		read := func(cursor string) (text string, list []Event) {
			t.Helper()
			for {
				page, next, err := h.ReadEvents(t.Context(), owner, telemetry, cursor, 2)
				if err != nil {
					t.Fatal(err)
				}
				if len(page) == 0 {
					break
				}
				list, cursor = append(list, page...), next
			}
			var words []string
			for _, e := range list {
				if e.Message != nil {
					words = append(words, string(e.Message.Body))
				} else {
					words = append(words, e.Kind)
				}
			}
			return strings.Join(words, " "), list
		}
		text, list := read(CursorStart)
		if text != all {
			t.Errorf("read %q, want %q", text, all)
		}
		for i, e := range list {
			if got, _ := read(e.Cursor); got != strings.Join(strings.Fields(all)[i+1:], " ") {
				t.Errorf("after event %d: %q", i, got)
			}
		}
		s := subscribe(t, h, telemetry, CursorStart)
		if got, _ := collect(t, s, 7); strings.Join(got, " ") != all {
			t.Errorf("followed %q, want %q", got, all)
		}
		// From the ring, too, whatever the filter.
		s = subscribe(t, h, telemetry, "")
		gap := &Event{Kind: EventGap, at: s.at.join(place{message: s.at.message + 5})}
		h.events.mu.Lock()
		tail := h.events.tail
		h.events.mu.Unlock()
		tail.publish([]Event{*gap})
		if got, _ := collect(t, s, 1); got[0] != EventGap {
			t.Errorf("from the ring: %q", got)
		}
	})
}

// TestPropertiesCountOnAPage: messages that are all properties must not make a
// page of a thousand times their size.
func TestPropertiesCountOnAPage(t *testing.T) {
	h := openHub(t)
	long := strings.Repeat("v", 50<<10)
	for range 40 {
		if err := h.SendTelemetry(t.Context(), Grant{ID: TwinID{DeviceID: "d"}}, []Message{{Properties: []Property{{Name: "p", Value: long}}}}); err != nil {
			t.Fatal(err)
		}
	}
	list, _, err := h.ReadEvents(t.Context(), owner, EventFilter{}, CursorStart, eventPage)
	if err != nil || len(list) == 0 || len(list) > eventBytes/len(long)+1 {
		t.Errorf("a page has %d messages of %d bytes, %v", len(list), len(long), err)
	}
	s := subscribe(t, h, EventFilter{}, CursorStart)
	got, err := s.Next(t.Context(), time.Second)
	if err != nil || len(got) == 0 || len(got) > feedPage/len(long)+1 {
		t.Errorf("a stream is given %d messages of %d bytes at once, %v", len(got), len(long), err)
	}
}
