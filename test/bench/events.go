package main

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/maphash"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/wire"
)

// eventPublishers is how many devices send; a filtered subscriber follows one.
const eventPublishers = 10

// eventPlan is subscribers of the event stream over TLS, and devices whose
// messages they wait for, sent at a fixed rate whatever the hub does.
type eventPlan struct {
	subscribers int
	rate        int
	duration    time.Duration
	body        int
	form        string
	filtered    bool
	schema      string
}

// eventLoad is a plan under way.
type eventLoad struct {
	eventPlan
	acked    []atomic.Int64 // unix nanoseconds, by message
	received atomic.Int64
	wrong    atomic.Int64 // repeated, or not in order
	early    atomic.Int64 // there before the device saw the acknowledgement
	refused  atomic.Int64 // streams, with 429
	latency  histogram

	seed  maphash.Seed
	mu    sync.Mutex
	pages map[uint64][]int // the messages in compressed pages, by the hash of their bytes
}

// eventsCommand measures what following events costs the hub, beyond taking the
// same messages without anybody following, and how long an event takes from
// its acknowledgement to its readers.
func eventsCommand(ctx context.Context, args []string, stdout io.Writer) error {
	var o hubOptions
	f := flag.NewFlagSet("events", flag.ContinueOnError)
	o.flags(f)
	var l eventPlan
	f.IntVar(&l.subscribers, "subscribers", 1000, "streams; those above the hub's limits are refused, and counted")
	f.IntVar(&l.rate, "rate", 1000, "messages a second, of all devices together")
	f.DurationVar(&l.duration, "duration", 20*time.Second, "length of one measurement")
	f.IntVar(&l.body, "bytes", 100, "bytes of a message's body")
	f.StringVar(&l.schema, "schema", "muster", "muster or iothub")
	forms := f.String("forms", "sse-gzip,websocket-deflate,sse,websocket", "how subscribers read, each measured")
	filters := f.String("filters", "none,device", "what subscribers want, each measured: none for everything, device for what a prefix of ids selects")
	if err := f.Parse(args); err != nil {
		return err
	}
	if l.subscribers < 0 || l.rate < 1 || l.duration < time.Second {
		return errors.New("-rate must be at least 1, -duration 1s, -subscribers 0")
	}
	h, clean, err := newHub(o)
	if err != nil {
		return err
	}
	defer clean()
	if _, err := h.start(ctx); err != nil {
		return err
	}
	defer func() { _ = h.signal(syscall.SIGTERM) }()
	fmt.Fprintln(stdout, "machine:", machine(h.data))
	if _, err := h.fill(ctx, "device", eventPublishers, 1); err != nil {
		return err
	}
	var n syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &n) == nil {
		n.Cur = n.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &n) // too few show as connections that fail
	}
	fmt.Fprintf(stdout, "%d streams over TLS, %d messages/s of %d bytes from %d devices, %s each\n", l.subscribers, l.rate, l.body, eventPublishers, l.duration)
	const heading = "form              filter   hub cores  without  streams  p50 ms   p99 ms   max ms  delivered/s    missed  wrong  KiB/stream  generator cores"
	fmt.Fprintln(stdout, heading)
	type result struct {
		name   string
		cores  float64
		missed int64
	}
	var results []result
	alone := l
	alone.subscribers = 0
	base, err := (&eventLoad{eventPlan: alone}).run(ctx, h)
	if err != nil {
		return err
	}
	for form := range strings.SplitSeq(*forms, ",") {
		for filter := range strings.SplitSeq(*filters, ",") {
			r := l
			r.form, r.filtered = form, filter == "device"
			m, err := (&eventLoad{eventPlan: r}).run(ctx, h)
			if err != nil {
				return fmt.Errorf("%s, filter %s: %w", form, filter, err)
			}
			fmt.Fprintf(stdout, "%-17s %-8s %9.2f %8.2f %8.2f %7.1f %8.1f %8.1f %12.0f %9d %6d %11.1f %16.2f\n", form, filter, m.cores, base.cores, m.cores-base.cores,
				milliseconds(m.latency.P50), milliseconds(m.latency.P99), milliseconds(m.latency.Max), m.perSecond, m.missed, m.wrong, m.memory/1024, m.generator)
			if m.refused > 0 {
				fmt.Fprintf(stdout, "                  %d streams were refused with 429\n", m.refused)
			}
			results = append(results, result{form + ", filter " + filter, m.cores - base.cores, m.missed + m.wrong})
		}
	}
	fmt.Fprintln(stdout, "\ntargets")
	for _, r := range results {
		target(stdout, r.name, r.cores, 0.5, false, "cores")
		target(stdout, "  missed or wrong", float64(r.missed), 0, false, "events")
	}
	return nil
}

type eventOutcome struct {
	cores, generator, perSecond, memory float64
	missed, wrong, refused              int64
	latency                             summary
}

func (l *eventLoad) run(ctx context.Context, h *hub) (o eventOutcome, err error) {
	total := int(l.duration.Seconds() * float64(l.rate))
	l.acked, l.seed, l.pages = make([]atomic.Int64, total), maphash.MakeSeed(), map[uint64][]int{}
	before, err := memoryOf(h.pid())
	if err != nil {
		return o, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var readers sync.WaitGroup
	streams, err := l.open(ctx, h)
	defer func() {
		for _, s := range streams {
			_ = s.conn.Close()
		}
		readers.Wait()
	}()
	if err != nil {
		return o, err
	}
	expected := int64(0)
	for _, s := range streams {
		expected += int64(s.wanted(total))
		readers.Go(func() { s.read(l) })
	}
	pause(ctx, 2*time.Second)
	p := newPool()
	devices := make([]*device, eventPublishers)
	for i := range devices {
		if devices[i], err = p.connect(ctx, h, deviceName("device", i), false); err != nil {
			return o, err
		}
		defer devices[i].close()
	}
	after, err := memoryOf(h.pid())
	if err != nil {
		return o, err
	}
	cpu, err := cpuOf(h.pid())
	if err != nil {
		return o, err
	}
	own, began := ownCPU(), time.Now()
	errs := make(chan error, len(devices))
	for i, d := range devices {
		go func() { errs <- l.publish(d, i, began) }()
	}
	for range devices {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return o, err
	}
	for end := time.Now().Add(10 * time.Second); l.received.Load() < expected && time.Now().Before(end); {
		pause(ctx, 10*time.Millisecond)
	}
	took := time.Since(began).Seconds()
	used, err := cpuOf(h.pid())
	if err != nil {
		return o, err
	}
	o = eventOutcome{
		cores: (used - cpu).Seconds() / l.duration.Seconds(), generator: (ownCPU() - own).Seconds() / l.duration.Seconds(), perSecond: float64(l.received.Load()) / took,
		missed: expected - l.received.Load(), wrong: l.wrong.Load(), refused: l.refused.Load(),
	}
	for _, s := range streams {
		for i, n := range s.counts {
			l.latency.counts[i].Add(uint64(n))
		}
		l.latency.most.Store(max(l.latency.most.Load(), int64(s.most)))
	}
	o.latency = l.latency.summary()
	if len(streams) > 0 {
		o.memory = float64(after.anonymous-before.anonymous) / float64(len(streams))
	}
	return o, nil
}

// publish sends one device's share of the messages when each is due, and notes
// when they are acknowledged, which is in order.
func (l *eventLoad) publish(d *device, number int, began time.Time) error {
	if err := d.stream.SetReadDeadline(began.Add(l.duration + 30*time.Second)); err != nil {
		return err
	}
	mine := (len(l.acked) - number + eventPublishers - 1) / eventPublishers
	acks := make(chan error, 1)
	go func() {
		var p wire.Packet
		for next := 0; next < mine; {
			if err := d.reader.ReadPacket(&p); err != nil {
				acks <- fmt.Errorf("%s waits for PUBACK: %w", d.id, err)
				return
			}
			if p.Type == wire.TypePuback {
				l.acked[number+next*eventPublishers].Store(time.Now().UnixNano())
				next++
			}
		}
		acks <- nil
	}()
	topic := "devices/" + d.id + "/messages/events/"
	pad := strings.Repeat("x", max(0, l.body-32))
	for i := range mine {
		message := number + i*eventPublishers
		due := began.Add(time.Duration(float64(message) / float64(l.rate) * float64(time.Second)))
		time.Sleep(time.Until(due))
		b, err := wire.AppendPublish(d.packet[:0], wire.Message{
			Topic: topic, Payload: fmt.Appendf(nil, `{%s%d,"pad":%q}`, eventMark, message, pad), QoS: 1, ID: uint16(i%65535) + 1,
		})
		if err != nil {
			return err
		}
		d.packet = b
		if _, err := d.stream.Write(b); err != nil {
			return err
		}
	}
	return <-acks
}

// eventMark stands before a message's number, and nowhere else on the wire.
const eventMark = `"bench":`

// eventReader is one subscriber. It looks for marks in the bytes that come,
// and takes nothing apart: it shares the processors with the hub.
type eventReader struct {
	conn   net.Conn
	rest   []byte // came with the answer's head
	device int    // the one it follows; -1: all
	next   [eventPublishers]int
	counts []uint32 // of latencies, by the histogram's buckets
	most   time.Duration
}

func (s *eventReader) wanted(total int) int {
	if s.device < 0 {
		return total
	}
	return (total - s.device + eventPublishers - 1) / eventPublishers
}

// open connects the subscribers, each from now on.
func (l *eventLoad) open(ctx context.Context, h *hub) (list []*eventReader, err error) {
	key, err := h.key.SharedAccessKey.Bytes()
	if err != nil {
		return nil, err
	}
	token := auth.SignToken(hostName, key, h.key.SharedAccessKeyName, time.Now().Add(time.Hour))
	config := h.tls()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var workers sync.WaitGroup
	numbers := make(chan int)
	for range 4 * runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := range numbers {
				s, err := l.subscribe(ctx, h, config, token, i)
				if err != nil {
					cancel(fmt.Errorf("stream %d: %w", i, err))
				}
				if s == nil {
					continue
				}
				mu.Lock()
				list = append(list, s)
				mu.Unlock()
			}
		})
	}
	for i := 0; i < l.subscribers && ctx.Err() == nil; i++ {
		numbers <- i
	}
	close(numbers)
	workers.Wait()
	return list, context.Cause(ctx)
}

// subscribe opens one stream; nil when the hub refused it for its number.
func (l *eventLoad) subscribe(ctx context.Context, h *hub, config *tls.Config, token string, i int) (*eventReader, error) {
	s := &eventReader{device: -1, counts: make([]uint32, len(l.latency.counts))}
	query := url.Values{"schema": {l.schema}, "kind": {"telemetry"}}
	if l.filtered {
		s.device = i % eventPublishers
		query.Set("device", deviceName("device", s.device)+"*")
	}
	conn, status, rest, err := openStream(ctx, h, config, token, "/api/v1/events?"+query.Encode(), l.form)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusOK, status == http.StatusSwitchingProtocols:
		s.conn, s.rest = conn, rest
		return s, nil
	case status == http.StatusTooManyRequests:
		l.refused.Add(1)
		return nil, conn.Close()
	}
	return nil, errors.Join(fmt.Errorf("the hub answered %d: %.300q", status, rest), conn.Close())
}

// read counts what comes until the connection ends.
func (s *eventReader) read(l *eventLoad) {
	take := s.plain
	switch l.form {
	case "sse-gzip":
		take = s.blocks
	case "websocket-deflate":
		take = s.frames
	}
	buf := append(make([]byte, 0, 64<<10), s.rest...)
	for {
		now := time.Now().UnixNano()
		rest, got := take(l, buf, now)
		l.received.Add(int64(got))
		buf = append(buf[:0], rest...)
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, len(buf))
		}
		n, err := s.conn.Read(buf[len(buf):cap(buf)])
		if err != nil {
			return
		}
		buf = buf[:len(buf)+n]
	}
}

// plain finds the marks in text and returns what may be the beginning of one.
func (s *eventReader) plain(l *eventLoad, b []byte, now int64) (rest []byte, got int) {
	for {
		i := bytes.Index(b, []byte(eventMark))
		if i < 0 {
			return b[max(0, len(b)-len(eventMark)+1):], got
		}
		number := b[i+len(eventMark):]
		end := bytes.IndexByte(number, ',')
		if end < 0 {
			return b[i:], got
		}
		message, err := strconv.Atoi(string(number[:end]))
		b = number[end:]
		if err != nil || message >= len(l.acked) {
			l.wrong.Add(1)
			continue
		}
		s.count(l, message, now)
		got++
	}
}

// blocks takes a gzip stream apart where the hub flushes it. The same bytes
// mean the same to every reader: so each page is inflated once, and the others
// compare their bytes with it.
func (s *eventReader) blocks(l *eventLoad, b []byte, now int64) (rest []byte, got int) {
	const flush = "\x00\x00\xff\xff"
	if len(b) >= 10 && string(b[:2]) == "\x1f\x8b" {
		b = b[10:]
	}
	for from := 0; ; {
		i := bytes.Index(b[from:], []byte(flush))
		if i < 0 {
			return b, got
		}
		end := from + i + len(flush)
		list, ok := l.inflate(b[:end])
		if !ok {
			from = end // these bytes were no flush
			continue
		}
		for _, message := range list {
			s.count(l, message, now)
		}
		got += len(list)
		b, from = b[end:], 0
	}
}

// frames takes a WebSocket's frames apart.
func (s *eventReader) frames(l *eventLoad, b []byte, now int64) (rest []byte, got int) {
	for len(b) >= 2 {
		size, head := int(b[1]), 2
		switch {
		case size == 126 && len(b) >= 4:
			size, head = int(binary.BigEndian.Uint16(b[2:])), 4
		case size == 127 && len(b) >= 10:
			size, head = int(binary.BigEndian.Uint64(b[2:])), 10
		case size > 125:
			return b, got
		}
		if len(b) < head+size {
			return b, got
		}
		payload := b[head : head+size]
		if b[0]&0x40 == 0 {
			_, n := s.plain(l, payload, now)
			got += n
		} else if list, ok := l.inflate(append(slices.Clone(payload), "\x00\x00\xff\xff"...)); ok {
			for _, message := range list {
				s.count(l, message, now)
			}
			got += len(list)
		} else {
			l.wrong.Add(1)
		}
		b = b[head+size:]
	}
	return b, got
}

// inflate returns the messages of a compressed page. It is false for what is
// no whole page.
func (l *eventLoad) inflate(b []byte) ([]int, bool) {
	key := maphash.Bytes(l.seed, b)
	l.mu.Lock()
	defer l.mu.Unlock()
	if list, ok := l.pages[key]; ok {
		return list, true
	}
	text, _ := io.ReadAll(flate.NewReader(bytes.NewReader(b))) // ends with a flush, not with a last block
	if !bytes.HasSuffix(text, []byte("\n\n")) && !bytes.HasSuffix(text, []byte(`"}`)) {
		return nil, false
	}
	list := []int{}
	for {
		i := bytes.Index(text, []byte(eventMark))
		if i < 0 {
			break
		}
		text = text[i+len(eventMark):]
		message, err := strconv.Atoi(string(text[:max(0, bytes.IndexByte(text, ','))]))
		if err != nil || message >= len(l.acked) {
			l.wrong.Add(1)
			continue
		}
		list = append(list, message)
	}
	l.pages[key] = list
	return list, true
}

func (s *eventReader) count(l *eventLoad, message int, now int64) {
	d, i := message%eventPublishers, message/eventPublishers
	if i != s.next[d] {
		l.wrong.Add(1)
	}
	s.next[d] = i + 1
	acked := l.acked[message].Load()
	if acked == 0 || acked > now {
		l.early.Add(1)
		acked = now
	}
	took := time.Duration(now - acked)
	s.counts[bucketOf(uint64(took))]++
	s.most = max(s.most, took)
}
