package service

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
)

// Bounds of a request.
const (
	maxBody      = 1 << 20 // bytes of a body, unless its route says otherwise
	bulkBytes    = 8 << 20 // of identities in bulk: IoT Hub's clients send as many as it allows, each with up to 40 KiB of twin
	maxDepth     = 64      // nesting of JSON in a body
	maxRequestID = 64      // characters
)

// requestID returns the client's request id, if it sent one that is fit for
// logs, else a new one: 32 hex digits with dashes, as a UUID is written.
func requestID(h http.Header) string {
	for _, name := range []string{"Request-Id", "X-Ms-Client-Request-Id"} {
		if id := h.Get(name); id != "" && len(id) <= maxRequestID && plainID(id) {
			return id
		}
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

func plainID(id string) bool {
	for i := range len(id) {
		c := id[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.|:+/=", c) >= 0 {
			continue
		}
		return false
	}
	return true
}

// body reads the whole request body within the route's bound, and checks that
// it is one JSON value of bounded depth in valid UTF-8.
func (c *call) body() ([]byte, error) {
	data, err := c.read(c.route.bodyLimit())
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return nil, badFormat("the body is empty; expected one JSON value")
	}
	if err := checkJSON(data); err != nil {
		return nil, err
	}
	return data, nil
}

func (c *call) read(limit int64) ([]byte, error) {
	if e := c.r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, &failure{status: http.StatusUnsupportedMediaType, number: 415000, name: "GenericUnsupportedMediaType", code: "UnsupportedMediaType",
			text: "the body is encoded with a Content-Encoding that the hub does not read; expected none", next: "Send the body as it is."}
	}
	if c.r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	// A server-wide read timeout would also cut long waits for a device short,
	// because it ends the connection's background read. So the deadline is for
	// the body alone.
	control := http.NewResponseController(c.w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTime)) // not supported by test recorders
	_ = control.SetWriteDeadline(time.Now().Add(bodyTime + answerTime))
	data, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, limit))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, tooLarge(limit)
		}
		return nil, badFormat("the body ended before it was complete; expected as many bytes as Content-Length says")
	}
	_ = control.SetReadDeadline(time.Time{})
	return data, nil
}

func tooLarge(limit int64) error {
	return &engine.Error{Code: engine.CodeTooLarge, Message: "the body is larger than " + strconv.FormatInt(limit, 10) + " bytes, the limit of this operation"}
}

// wait extends the connection's deadlines for a handler that waits up to d.
func (c *call) wait(d time.Duration) {
	control := http.NewResponseController(c.w)
	_ = control.SetReadDeadline(time.Time{}) // not supported by test recorders
	_ = control.SetWriteDeadline(time.Now().Add(d + answerTime))
}

// integer returns a query parameter between low and high, or its default when absent.
func (c *call) integer(name string, def, low, high int) (int, error) {
	list, ok := c.query[name]
	if !ok {
		return def, nil
	}
	n, err := strconv.Atoi(list[0])
	if err != nil || n < low || n > high {
		return 0, invalid("the query parameter %s is not a whole number from %d to %d", name, low, high)
	}
	return n, nil
}

// ifMatch returns the request's condition.
func (c *call) ifMatch() engine.IfMatch { return engine.ParseIfMatch(c.r.Header.Get("If-Match")) }

// target returns the identity that the path names: its first parameter and,
// where the route has two, the second.
func (c *call) target() engine.TwinID {
	id := engine.TwinID{DeviceID: c.params[0]}
	if len(c.params) > 1 {
		id.ModuleID = c.params[1]
	}
	return id
}
