package wire

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Handshake is the http.ResponseWriter to give to Accept where no HTTP server
// read the request: Accept takes the connection from it, or leaves a refusal,
// which Close sends. It is for one goroutine.
type Handshake struct {
	conn   net.Conn
	ahead  []byte
	header http.Header
	status int
	body   bytes.Buffer
	taken  bool
}

// NewHandshake returns the answer to a request that came on conn. ahead is what
// came behind the request; it is kept.
func NewHandshake(conn net.Conn, ahead []byte) *Handshake {
	return &Handshake{conn: conn, ahead: ahead, header: make(http.Header, 4)}
}

// Header returns the header of the answer, until that is sent.
func (h *Handshake) Header() http.Header { return h.header }

// WriteHeader sets the status. Only the first counts.
func (h *Handshake) WriteHeader(status int) {
	if h.status == 0 {
		h.status = status
	}
}

// Write adds to the body of a refusal.
func (h *Handshake) Write(b []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	return h.body.Write(b)
}

// take sends the answer and gives the connection away, with what came behind
// the request.
func (h *Handshake) take() (net.Conn, []byte, error) {
	if h.taken {
		return nil, nil, http.ErrHijacked
	}
	h.taken = true
	if err := h.send(); err != nil {
		return nil, nil, errors.Join(err, h.conn.Close())
	}
	return h.conn, h.ahead, nil
}

// send sends the answer in one write.
func (h *Handshake) send() error {
	h.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if h.status != http.StatusSwitchingProtocols {
		h.header.Set("Connection", "close")
		h.header.Set("Content-Length", strconv.Itoa(h.body.Len()))
	}
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 " + strconv.Itoa(h.status) + " " + http.StatusText(h.status) + "\r\n")
	_ = h.header.Write(&b) // a bytes.Buffer takes all
	b.WriteString("\r\n")
	b.Write(h.body.Bytes())
	if err := h.conn.SetWriteDeadline(time.Now().Add(DefaultWriteTimeout)); err != nil {
		return err
	}
	_, err := h.conn.Write(b.Bytes())
	return err
}

// Close sends a refusal and closes the connection, unless that was given away.
func (h *Handshake) Close() error {
	if h.taken {
		return nil
	}
	h.taken = true
	h.WriteHeader(http.StatusOK)
	return errors.Join(h.send(), h.conn.Close())
}
