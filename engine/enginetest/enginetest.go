// Package enginetest gives the tests of other packages a hub in this process
// and scripted devices on it.
package enginetest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// HostName is the name of every hub that New makes.
const HostName = "hub.muster.test"

// Option changes the options of a hub before it is opened.
type Option func(*engine.Options)

// Azure gives the hub IoT Hub's limits.
func Azure(o *engine.Options) { o.Profile = engine.ProfileAzure }

// Dir lets the hub live in a directory of the test's.
func Dir(dir string) Option { return func(o *engine.Options) { o.Storage.Dir = dir } }

// Logger gives the hub a logger.
func Logger(l *slog.Logger) Option { return func(o *engine.Options) { o.Logger = l } }

// New opens a hub in a temporary directory and closes it when the test ends.
func New(tb testing.TB, options ...Option) *engine.Hub {
	tb.Helper()
	o := engine.Options{
		Storage: storage.Options{Memory: 64 << 20},
		Hosts:   []string{HostName, "localhost"}, Version: "test", Build: "test",
	}
	for _, f := range options {
		f(&o)
	}
	if o.Storage.Dir == "" {
		o.Storage.Dir = tb.TempDir()
	}
	h, err := engine.Open(tb.Context(), o)
	if err != nil {
		tb.Fatalf("open hub: %v", err)
	}
	tb.Cleanup(func() {
		if err := h.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
			tb.Errorf("close hub: %v", err)
		}
	})
	return h
}

// Owner is a caller with every permission.
func Owner() engine.Caller {
	return engine.Caller{
		Principal: auth.Principal{Kind: auth.Local, Name: "uid=0", Permissions: ^auth.Permission(0)},
		RequestID: "test",
	}
}

// Device is a scripted device: it records what the hub sends it.
type Device struct {
	Session *engine.Session

	mu      sync.Mutex
	closed  *engine.Error
	full    bool
	desired []Desired
	methods []Method
	signal  chan struct{} // capacity 1; something was recorded
	answer  func(Method) (status int, payload []byte)
	forward func(Method)
}

// Desired is a notification that a Device got.
type Desired struct {
	Version int64
	Patch   string
}

// Method is a direct method request that a Device got.
type Method struct {
	RequestID string
	Name      string
	Payload   json.RawMessage // nil: none
}

// Connect makes a SAS identity if it does not exist, authenticates as it with
// a token of its primary key, and connects. subscribe names the endpoints.
func Connect(tb testing.TB, h *engine.Hub, id engine.TwinID, subscribe ...engine.Endpoint) *Device {
	tb.Helper()
	d, err := TryConnect(tb, h, id, false)
	if err != nil {
		tb.Fatalf("connect %s: %v", id, err)
	}
	set := engine.NoSubscriptions()
	for _, e := range subscribe {
		set[e] = 0
	}
	if err := d.Session.Subscribe(tb.Context(), set); err != nil {
		tb.Fatalf("subscribe %s: %v", id, err)
	}
	return d
}

// TryConnect is Connect without subscriptions that returns the hub's refusal.
func TryConnect(tb testing.TB, h *engine.Hub, id engine.TwinID, clean bool) (*Device, error) {
	tb.Helper()
	return ConnectWith(tb.Context(), h, id, Token(tb, h, id, time.Now().Add(time.Hour)), clean)
}

// ConnectWith connects as an identity that exists, with a token of its own.
func ConnectWith(ctx context.Context, h *engine.Hub, id engine.TwinID, token string, clean bool) (*Device, error) {
	grant, err := h.AuthenticateDevice(ctx, engine.Credentials{ID: id, Host: HostName, Token: token})
	if err != nil {
		return nil, err
	}
	d := &Device{signal: make(chan struct{}, 1)}
	d.Session, err = h.Connect(ctx, engine.Connection{Grant: grant, Clean: clean, Protocol: "test", Address: "192.0.2.1:1", Outbox: d})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Telemetry sends a message and waits until the hub has stored or refused it.
func (d *Device) Telemetry(m engine.Message) error {
	stored := make(chan error, 1)
	if err := d.Session.SubmitTelemetry(m, func(err error) { stored <- err }); err != nil {
		return err
	}
	return <-stored
}

// Token returns a SAS token of an identity, which it makes if need be.
func Token(tb testing.TB, h *engine.Hub, id engine.TwinID, expiry time.Time) string {
	tb.Helper()
	i, err := Identity(tb, h, id)
	if err != nil {
		tb.Fatalf("identity %s: %v", id, err)
	}
	key, err := i.Authentication.PrimaryKey.Bytes()
	if err != nil {
		tb.Fatalf("key of %s: %v", id, err)
	}
	resource := HostName + "/devices/" + id.DeviceID
	if id.ModuleID != "" {
		resource += "/modules/" + id.ModuleID
	}
	return auth.SignToken(resource, key, "", expiry)
}

// OwnToken is Token of an identity that exists, for an hour.
func OwnToken(ctx context.Context, h *engine.Hub, id engine.TwinID) (string, error) {
	i, err := h.Identity(ctx, Owner(), id)
	if err != nil {
		return "", err
	}
	key, err := i.Authentication.PrimaryKey.Bytes()
	if err != nil {
		return "", err
	}
	return auth.SignToken(HostName+"/devices/"+id.DeviceID, key, "", time.Now().Add(time.Hour)), nil
}

// Identity returns an identity, made if need be (a module's device too).
func Identity(tb testing.TB, h *engine.Hub, id engine.TwinID) (engine.Identity, error) {
	tb.Helper()
	i, err := h.Identity(tb.Context(), Owner(), id)
	if e, ok := errors.AsType[*engine.Error](err); ok && (e.Code == engine.CodeDeviceNotFound || e.Code == engine.CodeModuleNotFound) {
		if id.ModuleID != "" && e.Code == engine.CodeDeviceNotFound {
			if _, err := Identity(tb, h, engine.TwinID{DeviceID: id.DeviceID}); err != nil {
				return i, err
			}
		}
		return h.CreateIdentity(tb.Context(), Owner(), engine.Identity{DeviceID: id.DeviceID, ModuleID: id.ModuleID})
	}
	return i, err
}

// errFull is what a full outbox answers.
var errFull = errors.New("outbox is full")

// Method implements engine.Outbox.
func (d *Device) Method(requestID, name string, payload json.RawMessage) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return errFull
	}
	m := Method{requestID, name, payload}
	d.methods = append(d.methods, m)
	d.wake()
	if d.forward != nil {
		d.forward(m)
	}
	if d.answer != nil {
		status, body := d.answer(m)
		go d.Session.CompleteMethod(requestID, status, body)
	}
	return nil
}

// Desired implements engine.Outbox.
func (d *Device) Desired(version int64, patch []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return errFull
	}
	d.desired = append(d.desired, Desired{version, string(patch)})
	d.wake()
	return nil
}

// Close implements engine.Outbox.
func (d *Device) Close(cause *engine.Error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = cause
	d.wake()
}

func (d *Device) wake() {
	select {
	case d.signal <- struct{}{}:
	default:
	}
}

// Answer sets what the device answers to direct methods.
func (d *Device) Answer(f func(Method) (status int, payload []byte)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer = f
}

// Forward hands each direct method request to f, which must not block; whoever
// gets it answers with Session.CompleteMethod.
func (d *Device) Forward(f func(Method)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forward = f
}

// Fill makes the outbox refuse everything, as a device that does not read does.
func (d *Device) Fill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = true
}

// Closed returns why the hub ended the session, or nil.
func (d *Device) Closed() *engine.Error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// Notifications returns the desired notifications so far.
func (d *Device) Notifications() []Desired {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Desired(nil), d.desired...)
}

// Methods returns the method requests so far.
func (d *Device) Methods() []Method {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Method(nil), d.methods...)
}

// Await waits until f is true; it is asked again whenever the device records
// something.
func (d *Device) Await(tb testing.TB, what string, f func() bool) {
	tb.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for !f() {
		select {
		case <-d.signal:
		case <-deadline.C:
			tb.Fatalf("timed out waiting for %s", what)
		}
	}
}

// Message takes a cloud-to-device message and does nothing with it.
func (d *Device) Message(engine.QueuedMessage, uint16, bool) error { return nil }
