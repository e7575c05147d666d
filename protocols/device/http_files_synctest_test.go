package device

import (
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine/auth"
)

// deadlines notes until when a client may send and take.
type deadlines struct {
	*httptest.ResponseRecorder
	read, write []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error  { d.read = append(d.read, t); return nil }
func (d *deadlines) SetWriteDeadline(t time.Time) error { d.write = append(d.write, t); return nil }

// Content must come at some pace, and not past the end of its token: a client
// that sends a byte now and then holds nothing for long.
func TestContentHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			size int64
			life time.Duration
			want time.Duration
		}{
			{0, time.Hour, 30 * time.Second},
			{1000, time.Hour, 30 * time.Second},
			{4 << 20, time.Hour, 30*time.Second + 1024*time.Second},
			{4 << 20, time.Minute, time.Minute},
			{1 << 30, time.Hour, time.Hour},
		} {
			hub := &webHub{fileBytes: 1 << 30}
			now := time.Now()
			r := httptest.NewRequestWithContext(t.Context(), "PUT", "/uploads/d/a"+auth.SignUpload(webKey(), "c1", "d/a", now.Add(c.life)), strings.NewReader(""))
			r.ContentLength = c.size
			r.Header.Set("x-ms-blob-type", "BlockBlob")
			w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
			NewHTTPHandler(hub, nil).ServeHTTP(w, r)
			// The first is that of every request, the last ends all of them.
			if len(w.read) != 3 || !w.read[1].Equal(now.Add(c.want)) || !w.read[2].IsZero() || !w.write[1].After(w.read[1]) {
				t.Errorf("%d bytes with a token for %s: read until %v, write until %v; want %s from %v", c.size, c.life, w.read, w.write, c.want, now)
			}
		}
	})
}
