package main

import (
	"bytes"
	"io"
	"net/http"
	"sync"
)

// logKept is how much of the log the hub keeps in memory, for a bundle of
// diagnostics where nobody else keeps it.
const logKept = 256 << 10

// logTail passes the log on and keeps its end. Each Write is a line. Safe for
// concurrent use.
type logTail struct {
	to   io.Writer
	mu   sync.Mutex
	kept []byte
}

// Write passes a line on.
func (t *logTail) Write(p []byte) (int, error) {
	t.mu.Lock()
	if len(t.kept)+len(p) > 2*logKept { // moved once for many lines
		t.kept = append(t.kept[:0], lastLines(t.kept, logKept)...)
	}
	t.kept = append(t.kept, p[max(0, len(p)-logKept):]...)
	t.mu.Unlock()
	return t.to.Write(p)
}

// ServeHTTP answers with the lines that are kept.
func (t *logTail) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	t.mu.Lock()
	text := bytes.Clone(lastLines(t.kept, logKept))
	t.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(text) // a client that has gone needs no answer
}

// lastLines returns the whole lines among the last n bytes.
func lastLines(b []byte, n int) []byte {
	if len(b) <= n {
		return b
	}
	b = b[len(b)-n:]
	return b[bytes.IndexByte(b, '\n')+1:]
}
