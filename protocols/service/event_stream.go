package service

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/wire"
)

const (
	streamHeartbeat = 15 * time.Second // of a silent stream, and how long a token may outlive its policy
	streamSlow      = 10 * time.Second // a reader that needs so long for one write is told to come again
	streamCut       = 30 * time.Second // one that takes nothing for so long is cut
	streamPong      = 10 * time.Second // for the answer to a WebSocket ping
)

// streams are the open streams of events.
type streams struct {
	pages   *streamPages
	running sync.WaitGroup
	life    context.Context //nolint:containedctx // the handler's, which outlives requests
	end     context.CancelFunc

	open    atomic.Int64
	sent    atomic.Int64
	slow    atomic.Int64
	refused atomic.Int64
}

func newStreams() *streams {
	s := &streams{pages: newStreamPages()}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Drain waits for the streams of events, which end by themselves when the hub
// drains; those that are left when ctx ends are cut.
func (h *Handler) Drain(ctx context.Context) {
	stop := context.AfterFunc(ctx, h.streams.end)
	defer stop()
	h.streams.running.Wait()
}

// closing is why a stream ends, in both forms.
type closing struct {
	code   string // stable
	status int    // of a WebSocket
	text   string // short: a WebSocket has room for 123 bytes, the cursor's among them
	detail string // all there is to say of it, in server-sent events instead of text
	next   string // and what to do
}

// sink is the client's end of a stream, in one of the two forms.
type sink interface {
	kind() streamKind
	// send writes a page of the sink's kind.
	send(page *streamPage) error
	// beat is sent after a silence; it also finds out whether the client is there.
	beat(cursor string) error
	// finish tells why the stream ends and where it resumes, and closes it.
	finish(why closing, cursor string)
	// cut closes it without a word, from any goroutine.
	cut()
	// alive ends when the client has left or was cut.
	alive() context.Context
}

// follower is what a stream tells: events of the hub, or of a live query.
type follower interface {
	// next waits for events; none come when idle has passed without one. They
	// are good until Release.
	next(ctx context.Context, idle time.Duration) (tellable, error)
	// schema is the number of the form in which it tells them.
	schema() int
	// Cursor resumes after what next returned.
	Cursor() string
	// Batch names what next returned; shared says that others have the same.
	Batch() (id engine.BatchID, shared bool)
	// Release lets go of what next returned: a client that takes nothing holds
	// its page, and no events.
	Release()
	Close()
}

// tellable is events that can be put on a page, each by its place. What is added
// of one that the schema has no words for is nothing.
type tellable interface {
	count() int
	appendText(b []byte, i int) []byte     // as a server-sent event
	appendDocument(b []byte, i int) []byte // the document in that
}

// eventFollower tells events in a schema.
type eventFollower struct {
	subscription
	form eventForm
}

type subscription interface {
	Next(ctx context.Context, idle time.Duration) ([]*engine.Event, error)
	Cursor() string
	Batch() (id engine.BatchID, shared bool)
	Release()
	Close()
}

func (f eventFollower) next(ctx context.Context, idle time.Duration) (tellable, error) {
	list, err := f.Next(ctx, idle)
	return eventList{f.form, list}, err
}

func (f eventFollower) schema() int { return f.form.number }

// upgrades reports whether the request opens a WebSocket, and streams whether
// it wants a stream at all.
func (c *call) upgrades() (socket, streams bool) {
	socket = strings.EqualFold(c.r.Header.Get("Upgrade"), "websocket")
	return socket, c.r.Method == http.MethodGet && (socket || strings.Contains(c.r.Header.Get("Accept"), "text/event-stream"))
}

// streamCursor is where a stream resumes: a browser's header is younger than
// its address.
func (c *call) streamCursor() string {
	if last := c.r.Header.Get("Last-Event-ID"); last != "" {
		return last
	}
	return c.query.Get("cursor")
}

// stream begins a stream of what follow gives. It lives on when the request has
// been answered, without what the request needed.
func (c *call) stream(follow func() (follower, error)) (answer, error) {
	upgrade, _ := c.upgrades()
	if upgrade {
		if err := c.sameOrigin(); err != nil {
			return answer{}, err
		}
	}
	sub, err := follow()
	if err != nil {
		c.countRefused(err)
		return answer{}, err
	}
	var s sink
	if upgrade {
		s, err = c.openSocket(sub.Cursor())
	} else {
		s, err = c.openEventSource(sub.Cursor())
	}
	if err != nil {
		sub.Close()
		c.log.DebugContext(c.r.Context(), "a stream of events could not be opened", "error", err)
		if c.w.status == 0 {
			return answer{}, err
		}
		return answer{sent: true}, nil
	}
	stream := &eventStream{streams: c.streams, sub: sub, sink: s, known: c.again()}
	c.streams.open.Add(1)
	c.streams.running.Go(func() {
		stream.run(c.streams.life)
		if c.streams.open.Add(-1) == 0 {
			c.streams.pages.forget()
		}
	})
	return answer{sent: true}, nil
}

// countRefused counts a reader that there was no room for.
func (c *call) countRefused(err error) {
	if engine.AsError(err).Code == engine.CodeThrottled {
		c.streams.refused.Add(1)
	}
}

// sameOrigin refuses a page of another origin: browsers let any page open a
// WebSocket anywhere, and send along what they know of the user.
func (c *call) sameOrigin() error {
	origin := c.r.Header.Get("Origin")
	if origin == "" {
		return nil // no browser
	}
	if u, err := url.Parse(origin); err == nil && u.Host != "" && strings.EqualFold(u.Host, c.r.Host) {
		return nil
	}
	return crossOrigin()
}

// again returns what authenticates the request's caller once more, and holds
// nothing else of the request.
func (c *call) again() func() error {
	r := &http.Request{Header: http.Header{}, RemoteAddr: c.r.RemoteAddr}
	if v := c.r.Header.Get("Authorization"); v != "" {
		r.Header.Set("Authorization", v)
	}
	ctx := context.Background()
	if p, ok := localPrincipal(c.r.Context()); ok {
		ctx = WithLocal(ctx, p)
	}
	copied := &call{Handler: c.Handler, r: r.WithContext(ctx), path: c.path, requestID: c.requestID} //nolint:contextcheck // the stream outlives the request
	return func() error { _, err := copied.authenticate(); return err }
}

// eventStream is a stream under way.
type eventStream struct {
	*streams
	sub   follower
	sink  sink
	known func() error // authenticates again
}

func (s *eventStream) run(life context.Context) {
	defer s.sub.Close()
	stop := context.AfterFunc(life, s.sink.cut)
	defer stop()
	ctx := s.sink.alive()
	asked := time.Now()
	for {
		list, err := s.sub.next(ctx, streamHeartbeat)
		if ctx.Err() != nil {
			s.sink.cut()
			return
		}
		if err != nil {
			s.sink.finish(closingOf(engine.AsError(err)), s.sub.Cursor())
			return
		}
		// A token that ran out, or whose policy is gone, ends its stream.
		now := time.Now()
		if now.Sub(asked) >= streamHeartbeat {
			if s.known() != nil {
				s.sink.finish(closing{code: "unauthorized", status: wire.ClosePolicy, text: "the token or its policy is no longer valid"}, s.sub.Cursor())
				return
			}
			asked = now
		}
		if list.count() == 0 {
			err = s.sink.beat(s.sub.Cursor())
		} else {
			err = s.write(list)
		}
		took := time.Since(now)
		switch {
		case err == nil && took >= streamSlow:
			s.slow.Add(1)
			s.sink.finish(closing{code: "slow", status: wire.CloseTryLater, text: "read too slowly"}, s.sub.Cursor())
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.slow.Add(1)
			fallthrough
		case err != nil:
			s.sink.cut()
			return
		}
	}
}

// closingOf is how a stream ends that can't go on.
func closingOf(e *engine.Error) closing {
	switch e.Code {
	case engine.CodeClosed:
		return closing{code: "closing", status: wire.CloseGoingAway, text: "the hub is shutting down"}
	case engine.CodeJobNotFound:
		return closing{code: "deleted", status: wire.ClosePolicy, text: "the job was deleted"}
	case engine.CodeRunNotFound:
		return closing{code: "deleted", status: wire.ClosePolicy, text: "the run is kept no longer"}
	case engine.CodeArgumentInvalid:
		return closing{"query", wire.ClosePolicy, "the query can't be followed any more; ask again to hear why", e.Message, e.NextStep()}
	default:
		return closing{code: "error", status: wire.CloseInternal, text: "the events cannot be read"}
	}
}

// write sends a page.
func (s *eventStream) write(list tellable) error {
	shown, err := s.pages.send(s.sink, s.sub, list)
	s.sent.Add(int64(shown))
	return err
}

// streamMetrics are the metrics of streams.
func streamMetrics() []MetricInfo {
	return []MetricInfo{
		{"muster_event_streams", "gauge", "Open streams of events.", nil},
		{"muster_events_sent_total", "counter", "Events sent on streams.", nil},
		{"muster_event_streams_slow_total", "counter", "Streams of events closed because their client read too slowly.", nil},
		{"muster_event_streams_refused_total", "counter", "Streams of events refused because as many as allowed were open.", nil},
		{"muster_event_streams_lagged_total", "counter", "How often a stream fell behind the newest events and read the stored ones for itself.", nil},
		{"muster_live_queries", "gauge", "Distinct queries that are followed.", nil},
		{"muster_live_query_streams", "gauge", "Open streams of live queries; they count as streams of events, too.", nil},
		{"muster_live_query_lagged_total", "counter", "How often a stream of a live query fell behind and got a snapshot again.", nil},
	}
}

func (h *Handler) registerStreams(registry prometheus.Registerer) {
	if registry == nil {
		return
	}
	s := h.streams
	for i, read := range []func() int64{
		s.open.Load, s.sent.Load, s.slow.Load, s.refused.Load, func() int64 { return h.hub.FeedStats().Lagged },
		func() int64 { return h.hub.LiveQueryStats().Queries }, func() int64 { return h.hub.LiveQueryStats().Subscriptions }, func() int64 { return h.hub.LiveQueryStats().Lagged },
	} {
		row := streamMetrics()[i]
		value := func() float64 { return float64(read()) }
		if row.Kind == "gauge" {
			registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: row.Name, Help: row.Text}, value))
			continue
		}
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: row.Name, Help: row.Text}, value))
	}
}
