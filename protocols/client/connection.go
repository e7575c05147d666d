package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/muster-hub/muster/protocols/wire"
)

// connection is one MQTT connection of a Device. serve owns its goroutines.
type connection struct {
	device *Device
	stream *wire.Stream
	reader *wire.Reader
	window chan struct{} // a place for each QoS 1 message in flight
	done   chan struct{} // closed when the connection has ended
	until  time.Time     // when the token is renewed
	early  []wire.Packet // what came before the SUBACK, for subscriptions of an earlier connection

	mu      sync.Mutex
	err     error // why it ended
	lastRID uint64
	lastID  uint16
	answers map[string]chan twinAnswer
	acks    map[uint16]chan struct{}
	buf     []byte // packet being written; write holds it
	write   sync.Mutex
}

type twinAnswer struct {
	status  int
	version int64
	body    []byte
	err     error
}

func newConnection(d *Device, s *wire.Stream) *connection {
	return &connection{
		device: d, stream: s, reader: wire.NewReader(s, d.o.Buffers, maxPacket),
		window:  make(chan struct{}, d.o.InFlight),
		done:    make(chan struct{}),
		answers: map[string]chan twinAnswer{},
		acks:    map[uint16]chan struct{}{},
	}
}

const maxEarly = 64

// Topics that the hub sends to.
const (
	topicTwinAnswer = "$iothub/twin/res/"
	topicDesired    = "$iothub/twin/PATCH/properties/desired/"
	topicMethod     = "$iothub/methods/POST/"
	topicMethodDone = "$iothub/methods/res/"
)

// handshake sends CONNECT, and after a CONNACK of 0 SUBSCRIBE, and waits for
// the answer to each. A stored session's packets may come before the SUBACK.
func (c *connection) handshake(now time.Time) error {
	d := c.device
	c.until = now.Add(d.o.TokenLifetime * 8 / 10)
	packet, err := wire.AppendConnect(nil, d.connectPacket(now))
	if err != nil {
		return err
	}
	if _, err := c.stream.Write(packet); err != nil {
		return fmt.Errorf("send CONNECT: %w", err)
	}
	var p wire.Packet
	if err := c.reader.ReadPacket(&p); err != nil {
		return fmt.Errorf("wait for CONNACK: %w", ended(err))
	}
	if p.Type != wire.TypeConnack {
		return fmt.Errorf("the hub answered CONNECT with %s", p.Type)
	}
	if p.Code != wire.ConnackAccepted {
		return &RefusedError{Code: p.Code}
	}
	filters := []wire.Filter{{Topic: topicTwinAnswer + "#"}}
	if d.o.OnDesired != nil {
		filters = append(filters, wire.Filter{Topic: topicDesired + "#"})
	}
	if d.o.OnMethod != nil {
		filters = append(filters, wire.Filter{Topic: topicMethod + "#"})
	}
	c.lastID++
	packet, err = wire.AppendSubscribe(nil, c.lastID, filters...)
	if err != nil {
		return err
	}
	if _, err := c.stream.Write(packet); err != nil {
		return fmt.Errorf("send SUBSCRIBE: %w", err)
	}
	for {
		if err := c.reader.ReadPacket(&p); err != nil {
			return fmt.Errorf("wait for SUBACK: %w", ended(err))
		}
		if p.Type == wire.TypeSuback {
			break
		}
		if p.Type != wire.TypePublish || len(c.early) == maxEarly {
			return fmt.Errorf("the hub answered SUBSCRIBE with %s", p.Type)
		}
		p.Payload = bytes.Clone(p.Payload) // the reader's buffer is used again
		c.early = append(c.early, p)
	}
	for i, code := range p.Codes {
		if code == wire.SubackFailure && i < len(filters) {
			return fmt.Errorf("the hub refused the subscription to %s", filters[i].Topic)
		}
	}
	return nil
}

// serve reads until the connection ends or ctx does, then waits for the
// goroutines that it started.
func (c *connection) serve(ctx context.Context) error {
	_ = c.stream.SetReadDeadline(time.Now().Add(c.device.o.KeepAlive)) // a failure shows in the next read
	ctx, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	released := c.keep(ctx, &work)
	methods := make(chan struct{}, maxMethods)
	var err error
	for i := range c.early {
		err = errors.Join(err, c.take(ctx, &c.early[i], &work, methods))
	}
	c.early = nil
	var p wire.Packet
	for err == nil {
		if err = c.reader.ReadPacket(&p); err == nil {
			err = c.take(ctx, &p, &work, methods)
		}
	}
	released()
	stop()
	work.Wait()
	c.reader.Close()
	c.mu.Lock()
	if c.err != nil {
		err = c.err
	}
	c.mu.Unlock()
	return errors.Join(ended(err), c.stream.Close())
}

// keep pings, and ends the connection when ctx ends or the token runs out. A
// PINGRESP or any other packet within half a keep-alive is demanded by the
// read deadline. It costs no goroutine while nothing is due: a process may hold
// thousands of devices. What it starts is counted in work, until the function
// that it returns has been called.
func (c *connection) keep(ctx context.Context, work *sync.WaitGroup) (release func()) {
	var mu sync.Mutex // guards over, and so work against an Add after its Wait
	over := false
	do := func(f func()) {
		mu.Lock()
		if over {
			mu.Unlock()
			return
		}
		work.Add(1)
		mu.Unlock()
		defer work.Done()
		f()
	}
	every := c.device.o.KeepAlive / 2
	due := func() time.Duration { return min(every, max(0, time.Until(c.until))) }
	var timer *time.Timer
	mu.Lock()
	timer = time.AfterFunc(due(), func() {
		do(func() {
			if time.Until(c.until) <= 0 {
				c.end(errRenew)
				return
			}
			if err := c.writePacket(func(b []byte) ([]byte, error) { return wire.AppendPingreq(b), nil }); err != nil {
				c.cut(err)
				return
			}
			timer.Reset(due())
		})
	})
	mu.Unlock()
	unhook := context.AfterFunc(ctx, func() { do(func() { c.end(context.Cause(ctx)) }) })
	return func() {
		mu.Lock()
		over = true
		mu.Unlock()
		timer.Stop()
		unhook()
	}
}

// end sends DISCONNECT and ends the connection.
func (c *connection) end(cause error) {
	_ = c.writePacket(func(b []byte) ([]byte, error) { return wire.AppendDisconnect(b), nil }) // it ends either way
	c.cut(cause)
}

// cut ends all reads and writes; serve then returns cause.
func (c *connection) cut(cause error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = cause
	}
	c.mu.Unlock()
	c.stream.Cut()
}

// fail wakes whoever waits for an answer on this connection.
func (c *connection) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	close(c.done)
}

// lost is what waiting calls return when the connection has ended.
func (c *connection) lost() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Errorf("%w: %w", ErrNotConnected, c.err)
}

// writePacket builds a packet in the connection's buffer and writes it.
func (c *connection) writePacket(build func([]byte) ([]byte, error)) error {
	c.write.Lock()
	defer c.write.Unlock()
	b, err := build(c.buf[:0])
	if err != nil {
		return err
	}
	if cap(b) <= 16<<10 {
		c.buf = b[:0]
	}
	if _, err := c.stream.Write(b); err != nil {
		return fmt.Errorf("%w: %w", ErrNotConnected, err)
	}
	return nil
}

// take handles one packet from the hub.
func (c *connection) take(ctx context.Context, p *wire.Packet, work *sync.WaitGroup, methods chan struct{}) error {
	if err := c.stream.SetReadDeadline(time.Now().Add(c.device.o.KeepAlive)); err != nil {
		return err
	}
	switch p.Type {
	case wire.TypePuback:
		c.mu.Lock()
		done := c.acks[p.ID]
		delete(c.acks, p.ID)
		c.mu.Unlock()
		if done != nil {
			close(done)
		}
	case wire.TypePublish:
		if p.QoS == 1 {
			id := p.ID
			if err := c.writePacket(func(b []byte) ([]byte, error) { return wire.AppendPuback(b, id), nil }); err != nil {
				return err
			}
		}
		c.takeMessage(ctx, p, work, methods)
	}
	return nil
}

func (c *connection) takeMessage(ctx context.Context, p *wire.Packet, work *sync.WaitGroup, methods chan struct{}) {
	switch {
	case strings.HasPrefix(p.Topic, topicTwinAnswer):
		c.takeAnswer(p)
	case strings.HasPrefix(p.Topic, topicDesired):
		if c.device.o.OnDesired == nil {
			return
		}
		version, err := strconv.ParseInt(topicValue(p.Topic, "$version"), 10, 64)
		if err != nil {
			return // not the form that a hub sends
		}
		c.device.o.OnDesired(version, json.RawMessage(bytes.Clone(p.Payload)))
	case strings.HasPrefix(p.Topic, topicMethod):
		c.takeMethod(ctx, p, work, methods)
	}
}

func (c *connection) takeAnswer(p *wire.Packet) {
	status, _, _ := strings.Cut(strings.TrimPrefix(p.Topic, topicTwinAnswer), "/")
	a := twinAnswer{body: bytes.Clone(p.Payload)}
	a.status, _ = strconv.Atoi(status)                                       // 0 is an error below
	a.version, _ = strconv.ParseInt(topicValue(p.Topic, "$version"), 10, 64) // absent in answers to GET
	if a.status < 200 || a.status > 299 {
		a.err = twinError(a.status, a.body)
	}
	rid := topicValue(p.Topic, "$rid")
	c.mu.Lock()
	to := c.answers[rid]
	delete(c.answers, rid)
	c.mu.Unlock()
	if to != nil {
		to <- a // has room for one
	}
}

// twinError makes an Error of a twin answer's body.
func twinError(status int, body []byte) error {
	var e struct {
		ErrorCode  int    `json:"errorCode"`
		TrackingID string `json:"trackingId"`
		Message    string `json:"message"`
	}
	_ = json.Unmarshal(body, &e) // what is missing stays empty
	return &Error{Status: status, Code: codeName(e.ErrorCode), Message: firstOf(e.Message, "the hub refused the twin request"), RequestID: e.TrackingID}
}

func (c *connection) takeMethod(ctx context.Context, p *wire.Packet, work *sync.WaitGroup, methods chan struct{}) {
	name, query, ok := strings.Cut(strings.TrimPrefix(p.Topic, topicMethod), "/?$rid=")
	if !ok || c.device.o.OnMethod == nil {
		return
	}
	if u, err := url.PathUnescape(name); err == nil {
		name = u
	}
	select {
	case methods <- struct{}{}:
	default:
		_ = c.answerMethod(query, 429, map[string]string{"message": "the device is busy with other methods"})
		return
	}
	payload := json.RawMessage(bytes.Clone(p.Payload))
	work.Go(func() {
		defer func() { <-methods }()
		status, answer := c.device.o.OnMethod(ctx, name, payload)
		if ctx.Err() != nil {
			return // the device is leaving: an answer now would be a matter of luck
		}
		if err := c.answerMethod(query, status, answer); err != nil {
			c.device.o.Logger.Debug("method answer not sent", "device", c.device.id, "method", name, "error", err)
		}
	})
}

func (c *connection) answerMethod(rid string, status int, answer any) error {
	var body []byte
	if answer != nil {
		var err error
		if body, err = json.Marshal(answer); err != nil {
			status, body = 500, []byte(`{"message":"the answer could not be encoded"}`)
		}
	}
	topic := topicMethodDone + strconv.Itoa(status) + "/?$rid=" + rid
	return c.writePacket(func(b []byte) ([]byte, error) {
		return wire.AppendPublish(b, wire.Message{Topic: topic, Payload: body})
	})
}

// topicValue finds a value in the query part of a topic.
func topicValue(topic, name string) string {
	_, query, _ := strings.Cut(topic, "?")
	for part := range strings.SplitSeq(query, "&") {
		if key, value, ok := strings.Cut(part, "="); ok && key == name {
			return value
		}
	}
	return ""
}

// ask sends a twin request and waits for its answer.
func (c *connection) ask(ctx context.Context, topic string, body []byte) (twinAnswer, error) {
	answer := make(chan twinAnswer, 1)
	c.mu.Lock()
	c.lastRID++
	rid := requestID(c.lastRID)
	c.answers[rid] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.answers, rid)
		c.mu.Unlock()
	}()
	err := c.writePacket(func(b []byte) ([]byte, error) {
		return wire.AppendPublish(b, wire.Message{Topic: topic + rid, Payload: body})
	})
	if err != nil {
		return twinAnswer{}, err
	}
	select {
	case a := <-answer:
		return a, a.err
	case <-c.done:
		return twinAnswer{}, c.lost()
	case <-ctx.Done():
		return twinAnswer{}, fmt.Errorf("wait for the twin's answer: %w", context.Cause(ctx))
	}
}

// send publishes a message and, at QoS 1, waits for its acknowledgement.
func (c *connection) send(ctx context.Context, topic string, m Message) error {
	if m.QoS == 0 {
		return c.writePacket(func(b []byte) ([]byte, error) {
			return wire.AppendPublish(b, wire.Message{Topic: topic, Payload: m.Body})
		})
	}
	select {
	case c.window <- struct{}{}:
		defer func() { <-c.window }()
	case <-c.done:
		return c.lost()
	case <-ctx.Done():
		return fmt.Errorf("wait for room in the window: %w", context.Cause(ctx))
	}
	acked := make(chan struct{})
	id := c.register(acked)
	err := c.writePacket(func(b []byte) ([]byte, error) {
		return wire.AppendPublish(b, wire.Message{Topic: topic, Payload: m.Body, QoS: 1, ID: id})
	})
	if err != nil {
		c.forget(id)
		return err
	}
	select {
	case <-acked:
		return nil
	case <-c.done:
		return c.lost()
	case <-ctx.Done():
		// The id stays taken until its PUBACK: another message with it could
		// be acknowledged by mistake.
		return fmt.Errorf("wait for the acknowledgement: %w", context.Cause(ctx))
	}
}

// register finds a free packet id, never 0.
func (c *connection) register(acked chan struct{}) uint16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		c.lastID++
		if _, taken := c.acks[c.lastID]; c.lastID != 0 && !taken {
			c.acks[c.lastID] = acked
			return c.lastID
		}
	}
}

func (c *connection) forget(id uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.acks, id)
}
