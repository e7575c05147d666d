package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/wire"
)

// Transport is how a device's bytes travel.
type Transport string

// The transports.
const (
	MQTT      Transport = "mqtt"    // MQTT over TLS, port 8883
	WebSocket Transport = "mqtt-ws" // MQTT over a WebSocket over TLS, port 443
)

// Defaults of DeviceOptions.
const (
	DefaultKeepAlive     = 4 * time.Minute
	DefaultTokenLifetime = time.Hour
	DefaultInFlight      = 64

	maxPacket      = 512 << 10 // a message of 256 KiB with its topic, and room
	maxMethods     = 16        // handlers of one device at a time
	connackTimeout = 30 * time.Second
	minBackoff     = 500 * time.Millisecond
	maxBackoff     = 30 * time.Second
)

// ErrNotConnected says that an operation could not be sent, or that the
// connection ended before its answer: the hub may or may not have done it.
var ErrNotConnected = errors.New("the device is not connected to the hub")

// DeviceOptions configure a Device. Callbacks are called from the device's own
// goroutines and may use the Device, but OnDesired and OnState must return
// soon: packets wait for them.
type DeviceOptions struct {
	ConnectionString auth.ConnectionString // a device's or module's
	Transport        Transport             // default MQTT
	Address          string                // HOST:PORT to dial instead of the host name's standard port
	RootCAs          *x509.CertPool        // nil = the system's
	Sessions         tls.ClientSessionCache
	Dial             func(ctx context.Context, network, address string) (net.Conn, error) // nil = net.Dialer
	Buffers          *wire.Buffers                                                        // shared between many devices; nil = its own

	KeepAlive     time.Duration // default DefaultKeepAlive
	TokenLifetime time.Duration // default DefaultTokenLifetime; renewed at 80 % of it by a new connection
	CleanSession  bool          // forget subscriptions of earlier connections
	InFlight      int           // unacknowledged QoS 1 messages; default DefaultInFlight
	ModelID       string        // DTDL model
	Product       string        // DeviceClientType

	// OnDesired is told of a change of the desired properties: the merge
	// patch with its $version.
	OnDesired func(version int64, patch json.RawMessage)
	// OnMethod answers a direct method; nil leaves methods unsubscribed. ctx
	// ends with the connection.
	OnMethod func(ctx context.Context, name string, payload json.RawMessage) (status int, answer any)
	// OnState is told of each connect (err nil) and of each end of a
	// connection or failed attempt.
	OnState func(connected bool, err error)
	Logger  *slog.Logger
}

// Device is a device or module that is, or tries to be, connected. Run does
// the work; the other methods are safe for concurrent use while it runs.
type Device struct {
	o    DeviceOptions
	id   string // client id, "device" or "device/module"
	base string // "devices/D/messages/events/" or the module's

	mu      sync.Mutex
	key     []byte        // of further connections
	conn    *connection   // nil while disconnected
	changed chan struct{} // closed and replaced when conn changes
	refused error         // the hub's last CONNACK that was not 0

	restarted bool // Restart has cut the connection
}

// NewDevice checks the options; Run connects.
func NewDevice(o DeviceOptions) (*Device, error) {
	c := o.ConnectionString
	if c.HostName == "" || c.DeviceID == "" {
		return nil, errors.New("the connection string is not a device's: expected HostName and DeviceId")
	}
	key, err := c.SharedAccessKey.Bytes()
	if err != nil {
		return nil, err
	}
	if o.Transport == "" {
		o.Transport = MQTT
	}
	if o.Transport != MQTT && o.Transport != WebSocket {
		return nil, fmt.Errorf("transport %q is not known, expected %q or %q", o.Transport, MQTT, WebSocket)
	}
	o.KeepAlive = orDefault(o.KeepAlive, DefaultKeepAlive)
	o.TokenLifetime = orDefault(o.TokenLifetime, DefaultTokenLifetime)
	o.InFlight = orDefault(o.InFlight, DefaultInFlight)
	o.Product = firstOf(o.Product, "muster-client")
	if o.Buffers == nil {
		o.Buffers = wire.NewBuffers()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Device{o: o, id: c.DeviceID, base: "devices/" + c.DeviceID + "/", key: key, changed: make(chan struct{})}
	if c.ModuleID != "" {
		d.id += "/" + c.ModuleID
		d.base += "modules/" + c.ModuleID + "/"
	}
	d.base += "messages/events/"
	return d, nil
}

func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// RefusedError is the hub's refusal of a CONNECT.
type RefusedError struct {
	Code byte // MQTT's return code
}

// Error says what the code means.
func (e *RefusedError) Error() string {
	switch e.Code {
	case wire.ConnackBadProtocol:
		return "the hub refused the connection: protocol version (code 1)"
	case wire.ConnackBadClientID:
		return "the hub refused the connection: client id (code 2)"
	case wire.ConnackUnavailable:
		return "the hub refused the connection: not available now (code 3)"
	case wire.ConnackBadCredentials:
		return "the hub refused the connection: malformed user name or token (code 4)"
	case wire.ConnackNotAuthorized:
		return "the hub refused the connection: not authorized (code 5); check the key, and that the device exists and is enabled"
	}
	return fmt.Sprintf("the hub refused the connection: code %d", e.Code)
}

// Run connects and stays connected until ctx ends: it reconnects with back-off
// and jitter, and renews its token in time. It returns the cause of ctx's end,
// when all goroutines that it started have ended.
func (d *Device) Run(ctx context.Context) error {
	wait := minBackoff
	for {
		started := time.Now()
		err := d.connectAndServe(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, errRenew) {
			continue
		}
		d.o.Logger.Debug("connection ended", "device", d.id, "error", err)
		if d.anew() {
			wait = minBackoff
			continue
		}
		if time.Since(started) > maxBackoff {
			wait = minBackoff
		}
		if !pause(ctx, jitter(wait)) {
			return context.Cause(ctx)
		}
		wait = min(2*wait, maxBackoff)
	}
}

// errRenew ends a connection whose token runs out.
var errRenew = errors.New("the token is renewed by a new connection")

// connectAndServe has one connection from dialling to its end.
func (d *Device) connectAndServe(ctx context.Context) error {
	// In a goroutine of its own, so that the stack that the TLS handshake grew is dropped.
	var c *connection
	var err error
	var dialing sync.WaitGroup
	dialing.Go(func() { c, err = d.connect(ctx) })
	dialing.Wait()
	if err != nil {
		if d.o.OnState != nil && ctx.Err() == nil {
			d.o.OnState(false, err)
		}
		return err
	}
	d.setConnection(c)
	if d.o.OnState != nil {
		d.o.OnState(true, nil)
	}
	err = c.serve(ctx)
	d.setConnection(nil)
	c.fail(err)
	if d.o.OnState != nil {
		d.o.OnState(false, err)
	}
	return err
}

func (d *Device) setConnection(c *connection) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conn = c
	close(d.changed)
	d.changed = make(chan struct{})
}

// Restart cuts the connection as a device does that starts anew: it connects again
// at once, whatever waits earlier failures have led to. It returns when the old
// connection has ended, or ctx.
func (d *Device) Restart(ctx context.Context) {
	d.mu.Lock()
	c := d.conn
	d.restarted = c != nil
	d.mu.Unlock()
	if c == nil {
		return
	}
	c.cut(errors.New("restarted on request"))
	for {
		d.mu.Lock()
		over, changed := d.conn != c, d.changed
		d.mu.Unlock()
		if over {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// anew reports whether Restart ended the connection.
func (d *Device) anew() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	anew := d.restarted
	d.restarted = false
	return anew
}

// SetKey has further connections use another key. The one that is there goes on;
// Drop ends it.
func (d *Device) SetKey(key auth.Secret) error {
	bytes, err := key.Bytes()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.key = bytes
	return nil
}

// Connected reports whether the device is connected now.
func (d *Device) Connected() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conn != nil
}

// WaitConnected waits until the device is connected. When ctx ends first the
// error holds the hub's last refusal, if there was one.
func (d *Device) WaitConnected(ctx context.Context) error {
	_, err := d.connection(ctx)
	return err
}

// connection returns the live connection, waiting for one.
func (d *Device) connection(ctx context.Context) (*connection, error) {
	for {
		d.mu.Lock()
		c, changed, refused := d.conn, d.changed, d.refused
		d.mu.Unlock()
		if c != nil {
			return c, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if refused != nil {
				return nil, errors.Join(context.Cause(ctx), refused)
			}
			return nil, fmt.Errorf("wait for the connection: %w", context.Cause(ctx))
		}
	}
}

// connect dials, sends CONNECT and the subscriptions, and waits until the hub
// has taken them.
func (d *Device) connect(ctx context.Context) (*connection, error) {
	ctx, stop := context.WithTimeout(ctx, connackTimeout)
	defer stop()
	stream, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	// The handshake below blocks in reads: the end of ctx must end them.
	release := context.AfterFunc(ctx, stream.Cut)
	c := newConnection(d, stream)
	err = c.handshake(time.Now())
	if !release() && err == nil {
		err = context.Cause(ctx)
	}
	d.mu.Lock()
	d.refused = nil
	if e, ok := errors.AsType[*RefusedError](err); ok {
		d.refused = e
	}
	d.mu.Unlock()
	if err != nil {
		c.reader.Close()
		return nil, errors.Join(err, stream.Close())
	}
	return c, nil
}

func (d *Device) dial(ctx context.Context) (*wire.Stream, error) {
	host := firstOf(d.o.ConnectionString.GatewayHostName, d.o.ConnectionString.HostName)
	o := wire.DialOptions{
		TLS: &tls.Config{
			RootCAs: d.o.RootCAs, ServerName: host, MinVersion: tls.VersionTLS12, ClientSessionCache: d.o.Sessions,
		},
		Pool: d.o.Buffers, Dial: d.o.Dial,
	}
	if d.o.Transport == MQTT {
		return wire.Dial(ctx, firstOf(d.o.Address, net.JoinHostPort(host, "8883")), o)
	}
	if d.o.Address != "" { // dial there, and still ask for the hub by its name
		address, dial := d.o.Address, d.o.Dial
		if dial == nil {
			dial = (&net.Dialer{}).DialContext
		}
		o.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) { return dial(ctx, network, address) }
	}
	o.Header = http.Header{"User-Agent": {d.o.Product}}
	return wire.DialWebSocket(ctx, "wss://"+host+"/$iothub/websocket", o)
}

// connectPacket makes the CONNECT with a fresh token.
func (d *Device) connectPacket(now time.Time) *wire.Connect {
	cs := d.o.ConnectionString
	resource := cs.HostName + "/devices/" + cs.DeviceID
	if cs.ModuleID != "" {
		resource += "/modules/" + cs.ModuleID
	}
	d.mu.Lock()
	key := d.key
	d.mu.Unlock()
	user := cs.HostName + "/" + d.id + "/?api-version=" + apiVersion + "&DeviceClientType=" + url.QueryEscape(d.o.Product)
	if d.o.ModelID != "" {
		user += "&model-id=" + url.QueryEscape(d.o.ModelID)
	}
	return &wire.Connect{
		ClientID:  d.id,
		Username:  user,
		Password:  auth.SignToken(resource, key, cs.SharedAccessKeyName, now.Add(d.o.TokenLifetime)),
		KeepAlive: uint16(min(d.o.KeepAlive/time.Second, 1177)), //nolint:gosec // bounded
		Clean:     d.o.CleanSession,
	}
}

// DeviceTwin is the twin as its device sees it.
type DeviceTwin struct {
	Desired  json.RawMessage `json:"desired"`
	Reported json.RawMessage `json:"reported"`
}

// Twin reads the device's own twin.
func (d *Device) Twin(ctx context.Context) (DeviceTwin, error) {
	var t DeviceTwin
	a, err := d.ask(ctx, "$iothub/twin/GET/?$rid=", []byte(" "))
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal(a.body, &t); err != nil {
		return t, fmt.Errorf("read the twin: %w", err)
	}
	return t, nil
}

// PatchReported merges a patch into the reported properties and waits until
// the hub has stored it; it returns their new $version.
func (d *Device) PatchReported(ctx context.Context, patch any) (int64, error) {
	body, err := json.Marshal(patch)
	if err != nil {
		return 0, fmt.Errorf("encode reported properties: %w", err)
	}
	a, err := d.ask(ctx, "$iothub/twin/PATCH/properties/reported/?$rid=", body)
	return a.version, err
}

// ask sends a twin request and waits for its answer.
func (d *Device) ask(ctx context.Context, topic string, body []byte) (twinAnswer, error) {
	c, err := d.connection(ctx)
	if err != nil {
		return twinAnswer{}, err
	}
	return c.ask(ctx, topic, body)
}

// Message is a device-to-cloud message.
type Message struct {
	Body        []byte
	ContentType string // such as application/json
	Encoding    string // such as utf-8
	MessageID   string
	Properties  map[string]string
	QoS         byte // 0: sent and not waited for; 1: waited for until the hub has taken it
}

// Send sends a message. With QoS 1 it waits for the acknowledgement; at most
// InFlight messages are on their way, further ones wait. When the connection
// ends before the acknowledgement the error wraps ErrNotConnected and the
// message may or may not have arrived.
func (d *Device) Send(ctx context.Context, m Message) error {
	c, err := d.connection(ctx)
	if err != nil {
		return err
	}
	return c.send(ctx, d.base+m.bag(), m)
}

// bag encodes properties for a telemetry topic.
func (m *Message) bag() string {
	var b strings.Builder
	add := func(key, value string) {
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(escapeBag(key) + "=" + escapeBag(value))
	}
	for _, p := range [][2]string{{"$.mid", m.MessageID}, {"$.ct", m.ContentType}, {"$.ce", m.Encoding}} {
		if p[1] != "" {
			add(p[0], p[1])
		}
	}
	for key, value := range m.Properties {
		add(key, value)
	}
	return b.String()
}

// escapeBag percent-encodes; QueryEscape would write a space as a plus, which
// stays a plus in property bags.
func escapeBag(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// Disconnect ends the current connection in MQTT's orderly way, if there is
// one; Run then connects again. It is how a device that restarts looks.
func (d *Device) Disconnect() {
	d.mu.Lock()
	c := d.conn
	d.mu.Unlock()
	if c != nil {
		c.end(errors.New("disconnected on request"))
	}
}

// pause waits; false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// jitter spreads a delay over 50 to 150 % of itself, so that many devices
// that lost one hub do not come back in one moment.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d+1) } //nolint:gosec // no secret

// requestID is a number in hex, unique per connection.
func requestID(n uint64) string { return strconv.FormatUint(n, 16) }

// ended is what reads return at the end of a connection, for people.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the hub closed the connection")
	}
	return err
}

// Drop ends the current connection without a DISCONNECT, as a network that
// fails does; Run then connects again.
func (d *Device) Drop() {
	d.mu.Lock()
	c := d.conn
	d.mu.Unlock()
	if c != nil {
		c.cut(errors.New("dropped on request"))
	}
}
