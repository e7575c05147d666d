package device

import (
	"cmp"
	"net/http"
	"slices"
	"sync"
)

// RequestCount is how many requests of one operation got one status.
type RequestCount struct {
	Operation string // send, receive, complete, reject, abandon, begin-upload, end-upload, put-blob, put-block, put-blocks; other: none of them, or refused before it was known
	Status    int    // of HTTP
	Count     int64
}

// requestCounter counts answers. Operations and statuses are few, so its size
// is bounded by the program and not by clients. Its zero value is ready.
type requestCounter struct {
	mu     sync.Mutex
	counts map[RequestCount]int64 // by key with Count 0
}

func (c *requestCounter) add(operation string, status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[RequestCount]int64{}
	}
	c.counts[RequestCount{Operation: operation, Status: status}]++
}

// snapshot returns the counts in order of operation and status.
func (c *requestCounter) snapshot() []RequestCount {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]RequestCount, 0, len(c.counts))
	for one, n := range c.counts {
		one.Count = n
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b RequestCount) int {
		return cmp.Or(cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Status, b.Status))
	})
	return list
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader sends the status.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
