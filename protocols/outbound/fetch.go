package outbound

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
)

// Request is a request of any method.
type Request struct {
	Method string // GET when empty
	URL    string
	Header http.Header
	Body   []byte
}

// Fetch sends a request and returns the answer, whatever its status, with at
// most so many bytes of its body; redirects are answers too. It takes at most a
// minute. sent says whether the server may have got the request, if there is an
// error: false only when no connection for it came about, so that nothing can
// have been written.
func (c *Client) Fetch(ctx context.Context, q Request, most int64) (a Response, sent bool, err error) {
	if err := CheckURL(q.URL); err != nil {
		return Response{}, false, err
	}
	var connected atomic.Bool
	repeats := false // the transport may send it again although it was written
	trace := &httptrace.ClientTrace{
		// A connection that was kept and turns out to be dead before anything was
		// written has the transport look for another one.
		GetConn: func(string) {
			if !repeats {
				connected.Store(false)
			}
		},
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	}
	r, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), q.Method, q.URL, bytes.NewReader(q.Body))
	if err != nil {
		return Response{}, false, err
	}
	if q.Header != nil {
		r.Header = q.Header.Clone()
	}
	repeats = repeatable(r)
	answer, err := c.http.Do(r)
	if err != nil {
		return Response{}, connected.Load(), err
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, most))
	return Response{answer.StatusCode, answer.Header, data}, true, errors.Join(err, answer.Body.Close())
}

// repeatable reports whether net/http's transport may write a request twice.
func repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return r.Header.Get("Idempotency-Key") != "" || r.Header.Get("X-Idempotency-Key") != ""
}
