// Package simulator makes fleets of simulated devices: real connections with
// real TLS handshakes to a hub, plausible properties, answers to direct
// methods, acknowledged desired properties, and some trouble. Fleet is the
// demo's; Device is one simulated device, from which other fleets can be made.
package simulator

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/wire"
)

// DefaultPrefix begins the ids of the demo's devices.
const DefaultPrefix = "demo-"

// Options configure a Fleet.
type Options struct {
	Service   *client.Service
	Hub       string         // the hub's name, for tokens and TLS
	MQTTS     string         // HOST:PORT for MQTT over TLS; "" = only WebSocket
	HTTPS     string         // HOST:PORT for WebSocket; "" = only MQTT over TLS
	RootCAs   *x509.CertPool // nil = the system's
	Prefix    string         // default DefaultPrefix
	Devices   int            // default 50
	Seed      uint64         // same seed, same fleet and same course of values
	Interval  time.Duration  // between a device's messages; default 2 s
	Spread    time.Duration  // time over which the devices start; default 40 ms each
	Shortened bool           // absences and update times a tenth as long, for tests
	Logger    *slog.Logger
}

// Fleet is a set of simulated devices. Prepare it, then Run it once.
type Fleet struct {
	o       Options
	devices []*Device
	totals  totals
}

// totals counts what all devices of a fleet do.
type totals struct {
	online   atomic.Int64
	messages atomic.Int64
	twins    atomic.Int64
	methods  atomic.Int64
	connects atomic.Int64
	refused  atomic.Int64
	failures atomic.Int64
	away     atomic.Int64
}

// Stats is a moment of a fleet. All but Devices, Online and Away are
// counts since the start.
type Stats struct {
	Devices     int
	Online      int64
	Away        int64
	Messages    int64
	TwinUpdates int64
	Methods     int64
	Connects    int64
	Refused     int64 // connections that the hub refused
	Failures    int64 // operations that failed
}

// NewFleet checks the options and lays out the devices.
func NewFleet(o Options) (*Fleet, error) {
	if o.Service == nil || o.Hub == "" {
		return nil, errors.New("a fleet needs a service client and the hub's name")
	}
	if o.MQTTS == "" && o.HTTPS == "" {
		return nil, errors.New("a fleet needs an address for MQTT over TLS or for WebSocket; the hub listens on neither")
	}
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.Devices <= 0 {
		o.Devices = 50
	}
	if o.Interval <= 0 {
		o.Interval = 2 * time.Second
	}
	if o.Spread <= 0 {
		o.Spread = time.Duration(o.Devices) * 40 * time.Millisecond
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Fleet{o: o}
	buffers := wire.NewBuffers()
	for i := range o.Devices {
		p := profileOf(o.Prefix, i, o.Devices)
		d := &Device{
			profile: p, fleet: f, interval: o.Interval, buffers: buffers,
			rng: rand.New(rand.NewPCG(o.Seed, uint64(i))), //nolint:gosec // repeatable on purpose
		}
		d.transport, d.address = client.MQTT, o.MQTTS
		if o.MQTTS == "" || o.HTTPS != "" && i%2 == 1 {
			d.transport, d.address = client.WebSocket, o.HTTPS
		}
		f.devices = append(f.devices, d)
	}
	return f, nil
}

// Prepared says what Prepare found and made.
type Prepared struct {
	Created   int
	Existing  int
	Connected int // of those that existed: another fleet runs, as it seems
}

// Prepare makes the identities that do not exist yet, with tags, and reads the
// keys of all. It may be repeated: what exists is used as it is.
func (f *Fleet) Prepare(ctx context.Context) (Prepared, error) {
	keys, connected, err := f.keys(ctx)
	if err != nil {
		return Prepared{}, err
	}
	var missing []client.BulkItem
	for _, d := range f.devices {
		if _, ok := keys[d.profile.id]; ok {
			continue
		}
		item, err := d.profile.identity()
		if err != nil {
			return Prepared{}, err
		}
		missing = append(missing, item)
	}
	done := Prepared{Created: len(missing), Existing: len(f.devices) - len(missing), Connected: connected}
	for len(missing) > 0 {
		n := min(len(missing), client.MaxBulk)
		r, err := f.o.Service.Bulk(ctx, missing[:n])
		if err != nil {
			return done, fmt.Errorf("create the identities: %w", err)
		}
		for _, e := range r.Errors {
			if e.Code() != "DeviceAlreadyExists" { // another demo was faster
				return done, fmt.Errorf("create the identity %s: %s: %s", e.DeviceID, e.Code(), e.ErrorStatus)
			}
		}
		missing = missing[n:]
	}
	if done.Created > 0 {
		if keys, _, err = f.keys(ctx); err != nil {
			return done, err
		}
	}
	for _, d := range f.devices {
		key, ok := keys[d.profile.id]
		if !ok {
			return done, fmt.Errorf("the device %s has no key to connect with; `muster demo clean` and start again", d.profile.id)
		}
		d.credentials = auth.ConnectionString{HostName: f.o.Hub, DeviceID: d.profile.id, SharedAccessKey: key}
	}
	return done, nil
}

// keys reads the primary keys of the identities with the fleet's prefix, and
// counts those that are connected.
func (f *Fleet) keys(ctx context.Context) (keys map[string]auth.Secret, connected int, err error) {
	keys = map[string]auth.Secret{}
	for i, err := range f.o.Service.Devices(ctx, f.o.Prefix) {
		if err != nil {
			return nil, 0, fmt.Errorf("list the identities: %w", err)
		}
		if i.ConnectionState == "Connected" {
			connected++
		}
		if i.Authentication != nil && i.Authentication.SymmetricKey != nil {
			keys[i.DeviceID] = auth.Secret(i.Authentication.SymmetricKey.Primary)
		}
	}
	return keys, connected, nil
}

// Run starts all devices and keeps them going until ctx ends; it returns when
// all have stopped.
func (f *Fleet) Run(ctx context.Context) error {
	var work sync.WaitGroup
	for i, d := range f.devices {
		after := f.o.Spread * time.Duration(i) / time.Duration(len(f.devices))
		work.Go(func() {
			if wait(ctx, after) {
				d.run(ctx)
			}
		})
	}
	work.Wait()
	return context.Cause(ctx)
}

// Stats returns the fleet's counts; it is safe at any time.
func (f *Fleet) Stats() Stats {
	t := &f.totals
	return Stats{
		Devices: len(f.devices), Online: t.online.Load(), Away: t.away.Load(),
		Messages: t.messages.Load(), TwinUpdates: t.twins.Load(), Methods: t.methods.Load(),
		Connects: t.connects.Load(), Refused: t.refused.Load(), Failures: t.failures.Load(),
	}
}

// Story counts the devices by their kind of trouble.
func (f *Fleet) Story() map[Trouble]int {
	m := map[Trouble]int{}
	for _, d := range f.devices {
		m[d.profile.trouble]++
	}
	return m
}

// Tags of what a demo and a load made: Clean knows them by these.
const (
	DemoTag = "demo"
	LoadTag = "simulated"
)

// Clean removes simulated devices: those whose id begins with prefix and whose
// tag of this name is true. It returns how many, and tells before each step how
// many are removed so far, of how many.
func Clean(ctx context.Context, s *client.Service, prefix, tag string, tell func(removed, all int)) (int, error) {
	var items []client.BulkItem
	ask := client.QueryAsk{Query: "SELECT deviceId FROM devices WHERE tags." + tag + " = true", Limit: cleanPage}
	for {
		page, err := s.Query(ctx, ask)
		if err != nil {
			return 0, err
		}
		for _, raw := range page.Items {
			var row struct{ DeviceID string }
			if err := json.Unmarshal(raw, &row); err != nil {
				return 0, fmt.Errorf("read the hub's row: %w", err)
			}
			if strings.HasPrefix(row.DeviceID, prefix) {
				items = append(items, client.BulkItem{ID: row.DeviceID, ImportMode: "delete"})
			}
		}
		if ask.Cursor = page.Cursor; ask.Cursor == "" {
			break
		}
	}
	all := len(items)
	removed := 0
	for len(items) > 0 {
		tell(removed, all)
		n := min(len(items), client.MaxBulk)
		r, err := s.Bulk(ctx, items[:n])
		if err != nil {
			return removed, err
		}
		removed += n - len(r.Errors)
		for _, e := range r.Errors {
			if e.Code() != "DeviceNotFound" {
				return removed, fmt.Errorf("delete the identity %s: %s: %s", e.DeviceID, e.Code(), e.ErrorStatus)
			}
		}
		items = items[n:]
	}
	return removed, nil
}

// cleanPage is how many ids one request asks for.
const cleanPage = 500

// wait pauses; false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
