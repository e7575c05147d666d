package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/muster-hub/muster/engine/auth"
)

// liveReaders are the subscribers of a setting.
type liveReaders struct {
	list    []*liveReader
	running sync.WaitGroup
	count   liveCounts // by all of them, atomically
	seen    liveCounts // what settle has returned so far, and the snapshots
	current atomic.Int64
}

// liveCounts are what subscribers got.
type liveCounts struct {
	events, bytes, reads, resets int64 // events are what enters, changes and leaves
}

func (c *liveCounts) add(d liveCounts) {
	c.events += d.events
	c.bytes += d.bytes
	c.reads += d.reads
	c.resets += d.resets
}

// liveReader is one subscriber. It looks for marks in what comes, and takes
// nothing apart.
type liveReader struct {
	conn net.Conn
	rest []byte // came with the answer's head
}

// follow opens the subscribers of a setting, and waits until each has its
// snapshot.
func (o *liveOptions) follow(ctx context.Context, h *hub, s liveSetting) (*liveReaders, error) {
	key, err := h.key.SharedAccessKey.Bytes()
	if err != nil {
		return nil, err
	}
	token := auth.SignToken(hostName, key, h.key.SharedAccessKeyName, time.Now().Add(time.Hour))
	config := h.tls()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	l := &liveReaders{}
	for i := range o.queries {
		target := "/api/v1/query/live?" + url.Values{"query": {s.query(i, o.queries)}}.Encode()
		conn, status, rest, err := openStream(ctx, h, config, token, target, o.form)
		if err == nil && status != http.StatusOK && status != http.StatusSwitchingProtocols {
			err = errors.Join(fmt.Errorf("the hub answered %d: %.300q", status, rest), conn.Close())
		}
		if err != nil {
			l.close()
			return nil, fmt.Errorf("live query %d: %w", i, err)
		}
		r := &liveReader{conn, rest}
		l.list = append(l.list, r)
		l.running.Go(func() { r.read(l, o.form) })
	}
	for end := time.Now().Add(time.Minute); l.current.Load() < int64(o.queries); pause(ctx, 10*time.Millisecond) {
		if ctx.Err() != nil || time.Now().After(end) {
			l.close()
			return nil, fmt.Errorf("%d of %d live queries had their snapshot after a minute", l.current.Load(), o.queries)
		}
	}
	l.seen = l.counts()
	return l, nil
}

func (l *liveReaders) close() {
	for _, r := range l.list {
		_ = r.conn.Close()
	}
	l.running.Wait()
}

func (l *liveReaders) counts() liveCounts {
	return liveCounts{atomic.LoadInt64(&l.count.events), atomic.LoadInt64(&l.count.bytes), atomic.LoadInt64(&l.count.reads), atomic.LoadInt64(&l.count.resets)}
}

// settle waits until as many events as expected have come, or, also when that is
// negative, none comes for a while, and returns what came since the last call.
func (l *liveReaders) settle(ctx context.Context, expected int64) (c liveCounts) {
	if l == nil {
		return c
	}
	now := l.counts()
	for still := 0; still < 30 && (expected < 0 || now.events-l.seen.events < expected); {
		pause(ctx, 10*time.Millisecond)
		before := now
		if now = l.counts(); now.events == before.events {
			still++
		} else {
			still = 0
		}
	}
	c = liveCounts{now.events - l.seen.events, now.bytes - l.seen.bytes, now.reads - l.seen.reads, now.resets - l.seen.resets}
	l.seen = now
	return c
}

// countedConn counts what is read of a connection.
type countedConn struct {
	io.Reader
	count *liveCounts
}

func (c countedConn) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	atomic.AddInt64(&c.count.bytes, int64(n))
	atomic.AddInt64(&c.count.reads, 1)
	return n, err
}

// read counts what comes until the connection ends.
func (r *liveReader) read(l *liveReaders, form string) {
	var in io.Reader = countedConn{io.MultiReader(bytes.NewReader(r.rest), r.conn), &l.count}
	mark := []byte("\nevent: ")
	switch {
	case form == "sse-gzip":
		unzipped, err := gzip.NewReader(bufio.NewReader(in))
		if err != nil {
			return
		}
		in = unzipped
	case form == "websocket":
		mark = []byte(`,"kind":"`)
	}
	buf := make([]byte, 0, 64<<10)
	for {
		n, err := in.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		at := 0
		for {
			i := bytes.Index(buf[at:], mark)
			if i < 0 || at+i+len(mark)+2 > len(buf) {
				break
			}
			at += i + len(mark)
			switch string(buf[at : at+2]) {
			case "en", "ch", "le":
				atomic.AddInt64(&l.count.events, 1)
			case "cu":
				l.current.Add(1)
			case "re":
				atomic.AddInt64(&l.count.resets, 1)
			}
		}
		// What may be the beginning of a mark stays.
		buf = buf[:copy(buf, buf[max(at, len(buf)-len(mark)-2):])]
		if err != nil {
			return
		}
	}
}

// openStream asks a hub for a stream over TLS, and returns the answer's status
// and what came behind its head.
func openStream(ctx context.Context, h *hub, config *tls.Config, token, target, form string) (conn net.Conn, status int, rest []byte, err error) {
	header := "Accept: text/event-stream\r\n"
	if form == "sse-gzip" {
		header += "Accept-Encoding: gzip\r\n"
	}
	if strings.HasPrefix(form, "websocket") {
		header = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
		if form == "websocket-deflate" {
			header += "Sec-WebSocket-Extensions: permessage-deflate\r\n"
		}
	}
	conn, err = (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", h.https)
	if err != nil {
		return nil, 0, nil, err
	}
	if _, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: %s\r\n%s\r\n", target, hostName, token, header); err != nil {
		return nil, 0, nil, errors.Join(err, conn.Close())
	}
	head := make([]byte, 0, 8192)
	for !bytes.Contains(head, []byte("\r\n\r\n")) && len(head) < cap(head) {
		n, err := conn.Read(head[len(head):cap(head)])
		if err != nil {
			return nil, 0, nil, errors.Join(err, conn.Close())
		}
		head = head[:len(head)+n]
	}
	if _, err := fmt.Sscanf(string(head[:min(len(head), 12)]), "HTTP/1.1 %d", &status); err != nil {
		return nil, 0, nil, errors.Join(fmt.Errorf("the hub answered %.300q", head), conn.Close())
	}
	_, rest, _ = bytes.Cut(head, []byte("\r\n\r\n"))
	return conn, status, rest, nil
}

// profile stores a profile of the hub's processor time.
func (h *hub) profile(ctx context.Context, d time.Duration, file string) error {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(h.data, "muster.sock"))
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://muster/debug/pprof/profile?seconds=%d", max(1, int(d.Seconds()))), nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the profile was answered with %d: %.200s", resp.StatusCode, data)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o600)
}
