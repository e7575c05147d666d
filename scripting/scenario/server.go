package scenario

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
)

// request is an http step that has not ended.
type request struct {
	Ref     string           `json:"ref"`
	Run     string           `json:"run"`
	Args    pattern.HTTPArgs `json:"args"`
	Timeout time.Duration    `json:"timeout"`
	Line    string           `json:"line"`
	Number  int              `json:"number"`
	Sending bool             `json:"sending"`
}

// String implements fmt.Stringer.
func (q *request) String() string {
	return fmt.Sprintf("step %d, ctx.http %s %s (%s)", q.Number, q.Args.Method, q.Args.URL, q.Line)
}

// server answers the requests that it is for.
type server struct {
	method string // empty: any
	url    string // * stands for anything
	do     func(request json.RawMessage) (served, error)
	got    []json.RawMessage
}

// served is an answer of a server.
type served struct {
	Status int             `json:"status"`
	JSON   json.RawMessage `json:"json,omitempty"`
	Body   string          `json:"body,omitempty"`
	after  time.Duration
	never  bool
}

// matches reports whether the server answers a request.
func (s *server) matches(method, address string) bool {
	if s.method != "" && !strings.EqualFold(s.method, method) {
		return false
	}
	parts := strings.Split(s.url, "*")
	if len(parts) == 1 {
		return s.url == address
	}
	rest, ok := strings.CutPrefix(address, parts[0])
	for _, part := range parts[1 : len(parts)-1] {
		if ok {
			_, rest, ok = strings.Cut(rest, part)
		}
	}
	return ok && strings.HasSuffix(rest, parts[len(parts)-1])
}

func (w *world) http(s *pattern.Step, a pattern.HTTPArgs) (pattern.Answer, error) {
	timeout, err := span(a.Timeout, pattern.MaxHTTPTime)
	if err != nil {
		return invalid("timeout: %v", err), nil
	}
	if err := pattern.CheckURL(a.URL); err != nil {
		return invalid("ctx.http: %q: %v", a.URL, err), nil
	}
	if a.Method == "" {
		a.Method = "GET"
	}
	a.Method = strings.ToUpper(a.Method)
	for _, v := range append([]json.RawMessage{a.JSON}, values(a.Headers)...) {
		if _, err := w.lab.revealed(v, w.run.Device); err != nil {
			return fault(pattern.FaultDenied, "%v", err), nil
		}
	}
	q := &request{
		Ref: w.memory.named("http-"), Run: w.run.ID, Args: a, Timeout: min(timeout, pattern.MaxHTTPTime), Line: s.Line, Number: len(w.run.State.Of(entryOf(w.run))) + 1,
	}
	w.lab.again(q.Run, "ctx.http "+a.Method+" "+a.URL, canonical(a.JSON)+a.Body, q.Line, a.Idempotent)
	w.memory.Requests = append(w.memory.Requests, q)
	return pattern.Answer{Open: true, Ref: q.Ref}, nil
}

func values(m map[string]json.RawMessage) []json.RawMessage {
	var list []json.RawMessage
	for _, v := range m {
		list = append(list, v)
	}
	return list
}

// safe reports whether a request may be sent again.
func (q *request) safe() bool {
	return q.Args.Idempotent || q.Args.Method == "GET" || q.Args.Method == "HEAD"
}

// request sends a request to the server of the test that is for it.
func (h *hub) request(q *request) error {
	q.Sending = true
	if crashed, err := h.lab.point("%s, when it was about to be sent", q); crashed || err != nil {
		return err
	}
	n := slices.IndexFunc(h.lab.servers, func(s *server) bool { return s.matches(q.Args.Method, q.Args.URL) })
	if n < 0 {
		return fmt.Errorf("%s: no t:http of the test answers it", q)
	}
	seen := map[string]any{"method": q.Args.Method, "url": q.Args.URL}
	device := ""
	if r := h.memory.run(q.Run); r != nil {
		device = r.Device
	}
	if len(q.Args.JSON) > 0 {
		text, err := h.lab.revealed(q.Args.JSON, device)
		if err != nil {
			return err
		}
		seen["json"] = text
	}
	if q.Args.Body != "" {
		seen["body"] = q.Args.Body
	}
	headers := map[string]json.RawMessage{}
	for name, v := range q.Args.Headers {
		text, err := h.lab.revealed(v, device)
		if err != nil {
			return err
		}
		headers[strings.ToLower(name)] = text
	}
	if len(headers) > 0 {
		seen["headers"] = headers
	}
	text, err := json.Marshal(seen)
	if err != nil {
		return fmt.Errorf("a request: %w", err)
	}
	s := h.lab.servers[n]
	s.got = append(s.got, text)
	h.lab.effect("http %s", text)
	answer, err := s.do(text)
	if err != nil {
		return err
	}
	if crashed, err := h.lab.point("%s%s", q, takenPoint); crashed || err != nil {
		return err
	}
	ref := q.Ref
	pending := func() *request {
		i := slices.IndexFunc(h.memory.Requests, func(q *request) bool { return q.Ref == ref })
		if i < 0 {
			return nil
		}
		return h.memory.Requests[i]
	}
	if !answer.never {
		h.lab.at(h.lab.now.Add(answer.after), h.epoch, func() error {
			q := pending()
			if q == nil {
				return nil
			}
			if answer.Status == 0 {
				answer.Status = 200
			}
			text, err := json.Marshal(answer)
			if err != nil {
				return fmt.Errorf("the answer to %s: %w", q, err)
			}
			return h.served(q, text, nil)
		})
	}
	h.lab.at(h.lab.now.Add(q.Timeout), h.epoch, func() error {
		q := pending()
		switch {
		case q == nil:
			return nil
		case q.safe():
			return h.served(q, nil, &pattern.Fault{Code: pattern.FaultTimeout, Message: fmt.Sprintf("no answer within %s", q.Timeout)})
		}
		return h.served(q, nil, &pattern.Fault{Code: pattern.FaultUncertain, Message: fmt.Sprintf("no answer within %s; whether the server acted is not known", q.Timeout)})
	})
	return nil
}

func (h *hub) served(q *request, result json.RawMessage, f *pattern.Fault) error {
	h.memory.Requests = slices.DeleteFunc(h.memory.Requests, func(o *request) bool { return o == q })
	return h.settle(q.Run, q.Ref, result, f)
}

// requestLost is a request that was under way when the hub crashed: it is sent
// again if that does no harm.
func (h *hub) requestLost(q *request, why string) error {
	if q.safe() {
		q.Sending, h.lab.repeated = false, strings.HasSuffix(h.lab.crashed, takenPoint)
		return nil
	}
	h.lab.unsure = &unsure{run: q.Run, what: "ctx.http " + q.Args.Method + " " + q.Args.URL, payload: canonical(q.Args.JSON) + q.Args.Body}
	return h.served(q, nil, &pattern.Fault{Code: pattern.FaultUncertain, Message: why + "; whether the server acted is not known"})
}
