package wire

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

const upgrade = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"

// answered accepts a request without an HTTP server and returns the client's end.
func answered(t *testing.T, request, ahead string) (client net.Conn, accepted chan *Stream) {
	t.Helper()
	client, server := net.Pipe()
	t.Cleanup(func() { _ = client.Close() })
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request)))
	if err != nil {
		t.Fatal(err)
	}
	accepted = make(chan *Stream, 1)
	go func() {
		h := NewHandshake(server, []byte(ahead))
		st, err := Accept(h, r, NewBuffers())
		if (st == nil) == (err == nil) {
			t.Errorf("Accept returned %v and %v", st, err)
		}
		if err := h.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		accepted <- st
	}()
	return client, accepted
}

func TestHandshakeAccepts(t *testing.T) {
	t.Parallel()
	frame := string([]byte{0x82, 0x85, 0, 0, 0, 0}) + "early" // masked with zeros
	client, accepted := answered(t, upgrade, frame)
	br := bufio.NewReader(client)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || // of RFC 6455, section 1.3
		resp.Header.Get("Sec-WebSocket-Protocol") != "mqtt" || resp.Header.Get("Content-Length") != "" {
		t.Errorf("got %s %v", resp.Status, resp.Header)
	}
	st := <-accepted
	defer func() { _ = st.Close() }()
	b := make([]byte, 5)
	if _, err := io.ReadFull(st, b); err != nil || string(b) != "early" {
		t.Errorf("what came behind the request was read as %q (%v)", b, err)
	}
	go func() { _, _ = st.Write([]byte("late")) }()
	got := make([]byte, 6)
	if _, err := io.ReadFull(br, got); err != nil || string(got) != "\x82\x04late" {
		t.Errorf("the client read %q (%v)", got, err)
	}
}

func TestHandshakeRefuses(t *testing.T) {
	t.Parallel()
	client, accepted := answered(t, strings.Replace(upgrade, "mqtt", "AMQPWSB10", 1), "")
	br := bufio.NewReader(client)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 400 || !resp.Close || resp.ContentLength != int64(len(body)) || !strings.Contains(string(body), "AMQP over WebSocket is not offered here") {
		t.Errorf("got %s, %d bytes: %s (%v)", resp.Status, resp.ContentLength, body, err)
	}
	if _, err := br.ReadByte(); err != io.EOF { //nolint:errorlint // as it is
		t.Errorf("after the refusal: %v, want the end", err)
	}
	if st := <-accepted; st != nil {
		t.Error("a stream came of it")
	}
}
