package service

import (
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// takes notes until when the client must have taken what is sent.
type takes struct {
	*httptest.ResponseRecorder
	until []time.Time
}

func (w *takes) SetWriteDeadline(t time.Time) error { w.until = append(w.until, t); return nil }

// A download may take as long as it goes on: each part has its own time, also
// when net/http copies by itself. A client that takes nothing holds nothing for long.
func TestDownloadHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &takes{ResponseRecorder: httptest.NewRecorder()}
		d := &download{w}
		for range 3 {
			start := time.Now()
			if n, err := d.ReadFrom(struct{ *strings.Reader }{strings.NewReader("part")}); n != 4 || err != nil {
				t.Fatal(n, err)
			}
			if last := len(w.until) - 1; last < 0 || !w.until[last].Equal(start.Add(answerTime)) {
				t.Fatalf("deadlines %v, want the last %s after %v", w.until, answerTime, start)
			}
			time.Sleep(answerTime / 2)
		}
		if len(w.until) != 3 || w.Body.String() != "partpartpart" {
			t.Errorf("%d deadlines for %q", len(w.until), w.Body)
		}
	})
}
