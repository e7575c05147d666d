package simulator

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/wire"
)

const (
	// maxReturns bounds the times to return that a report is made of.
	maxReturns = 100_000
	// How often the log of acknowledgements notes how far the hub has come: what
	// lies between two such marks can't be told apart by a backup's sequence.
	markEvery   = 250 * time.Millisecond
	markTimeout = 5 * time.Second
)

// LoadOptions configure a Load.
type LoadOptions struct {
	Service   *client.Service
	Hub       string           // the hub's name, for tokens and TLS
	Transport client.Transport // of all devices
	Address   string           // HOST:PORT
	HTTPS     string           // HOST:PORT to which managed devices upload files; without it an upload fails
	RootCAs   *x509.CertPool   // nil = the system's
	Prefix    string           // begins the devices' ids
	Devices   int
	Seed      uint64        // same seed, same spread of times
	Spread    time.Duration // time over which the devices start
	Behaviour Behaviour
	// FullHandshakes has each connection do the whole TLS handshake: the devices
	// then resume no sessions, which many SDKs do not either.
	FullHandshakes bool
	Dial           func(ctx context.Context, network, address string) (net.Conn, error) // nil = as usual
	Acks           *AckLog                                                              // nil = none
	Commands       *CommandLog                                                          // of managed devices; nil = none
}

// Load is a fleet of equal devices for load and for checks. Prepare it, then
// Run it once.
type Load struct {
	o       LoadOptions
	run     string // in the ids of its messages
	keys    map[string]auth.Secret
	cohorts []*Cohort       // of each device; nil for none
	online  map[string]bool // before the load; by device
	started time.Time
	marks   int64 // asked for
	uploads *client.Uploads

	devices []*loadDevice // guarded by mu, from Run on
	ended   bool          // guarded by mu
	mu      sync.Mutex
	report  LoadReport
	returns []time.Duration // the newest maxReturns
	longest time.Duration
}

// LoadReport counts what a Load did since its start. Times are milliseconds.
type LoadReport struct {
	Devices      int              `json:"devices"`
	Online       int64            `json:"online"` // now; of a load that has ended, when it was told to end
	Connects     int64            `json:"connects"`
	Reconnects   int64            `json:"reconnects"`
	ReturnP50    int64            `json:"returnP50Ms"` // from the loss of a connection to the next
	ReturnP99    int64            `json:"returnP99Ms"`
	ReturnMax    int64            `json:"returnMaxMs"`
	Messages     int64            `json:"messages"`
	TwinPatches  int64            `json:"twinPatches"`
	Methods      int64            `json:"methods"`
	Unknown      int64            `json:"unknown"` // sent, answer never came
	ErrorReasons map[string]int64 `json:"errors"`
}

// NewLoad checks the options.
func NewLoad(o LoadOptions) (*Load, error) {
	if o.Service == nil || o.Hub == "" || o.Address == "" {
		return nil, errors.New("a load needs a service client, the hub's name and an address to connect to")
	}
	if o.Devices < 1 || o.Prefix == "" {
		return nil, errors.New("a load needs a prefix and at least one device")
	}
	l := &Load{o: o, run: newRun(), cohorts: o.Behaviour.cohortsOf(o.Devices, o.Seed), report: LoadReport{Devices: o.Devices, ErrorReasons: map[string]int64{}}}
	if o.Acks != nil {
		l.run = o.Acks.run
	}
	l.uploads = client.NewUploads(o.HTTPS, o.RootCAs, o.Dial)
	return l, nil
}

func (l *Load) id(i int) string { return fmt.Sprintf("%s%06d", l.o.Prefix, i+1) }

// Prepare makes the identities that do not exist yet and reads the keys of
// all; it returns how many were made. It may be repeated.
func (l *Load) Prepare(ctx context.Context) (int, error) {
	if err := l.readKeys(ctx); err != nil {
		return 0, err
	}
	var missing []client.BulkItem
	for i := range l.o.Devices {
		if _, ok := l.keys[l.id(i)]; ok {
			continue
		}
		tags, err := l.o.Behaviour.tagsOf(i, l.cohorts[i])
		if err != nil {
			return 0, err
		}
		missing = append(missing, client.BulkItem{ID: l.id(i), ImportMode: "create", Status: "enabled", Tags: tags})
	}
	if len(missing) == 0 {
		return 0, nil
	}
	for chunk := range slices.Chunk(missing, client.MaxBulk) {
		r, err := l.o.Service.Bulk(ctx, chunk)
		if err != nil {
			return 0, fmt.Errorf("create the identities: %w", err)
		}
		for _, e := range r.Errors {
			if e.Code() != "DeviceAlreadyExists" { // made by another simulator meanwhile
				return 0, fmt.Errorf("create the identity %s: %s: %s", e.DeviceID, e.Code(), e.ErrorStatus)
			}
		}
	}
	if err := l.readKeys(ctx); err != nil {
		return 0, err
	}
	for i := range l.o.Devices {
		if l.keys[l.id(i)] == "" {
			return 0, fmt.Errorf("the device %s has no key to connect with; delete it or give another --prefix", l.id(i))
		}
	}
	return len(missing), nil
}

func (l *Load) readKeys(ctx context.Context) error {
	l.keys, l.online = make(map[string]auth.Secret, l.o.Devices), map[string]bool{}
	for i, err := range l.o.Service.Devices(ctx, l.o.Prefix) {
		if err != nil {
			return fmt.Errorf("list the identities: %w", err)
		}
		var key auth.Secret
		if i.Authentication != nil && i.Authentication.SymmetricKey != nil {
			key = auth.Secret(i.Authentication.SymmetricKey.Primary)
		}
		l.keys[i.DeviceID] = key
		if i.ConnectionState == "Connected" {
			l.online[i.DeviceID] = true
		}
	}
	return nil
}

// Connected returns how many of the load's devices were connected at the last
// Prepare: another load runs, as it seems.
func (l *Load) Connected() (n int) {
	for i := range l.o.Devices {
		if l.online[l.id(i)] {
			n++
		}
	}
	return n
}

const (
	foughtLooked = 5 // devices that stand for all
	foughtEnds   = 2 // taken over so often, and nobody else's connection is meant
)

// Fought reports whether connections of the load's devices are taken over again
// and again, as two loads do to each other that have the same devices.
func (l *Load) Fought(ctx context.Context) (bool, error) {
	l.mu.Lock()
	devices := l.devices[:min(len(l.devices), foughtLooked)]
	l.mu.Unlock()
	fought := 0
	for _, d := range devices {
		ends := 0
		for e, err := range l.o.Service.Connections(ctx, d.id, "") {
			if err != nil {
				return false, err
			}
			if ends == foughtEnds || e.Ended.Before(l.started) {
				break
			}
			if strings.Contains(e.Reason, "took over") {
				ends++
			}
		}
		if ends == foughtEnds {
			fought++
		}
	}
	return 2*fought > len(devices), nil
}

// Run keeps all devices going until ctx ends; it returns when all have stopped.
func (l *Load) Run(ctx context.Context) error {
	l.started = time.Now()
	defer l.uploads.Close()
	buffers := wire.NewBuffers()
	var sessions tls.ClientSessionCache
	if !l.o.FullHandshakes {
		sessions = tls.NewLRUClientSessionCache(64)
	}
	devices := make([]*loadDevice, 0, l.o.Devices)
	for i := range l.o.Devices {
		if c := l.cohorts[i]; c != nil && c.Offline {
			continue
		}
		d := &loadDevice{load: l, ctx: ctx, id: l.id(i), rng: rand.NewPCG(l.o.Seed, uint64(i)), cohort: l.cohorts[i]}
		dial := l.o.Dial
		if l.o.Behaviour.Managed {
			d.managed = newManaged(d, i, l.keys[d.id])
			dial = d.managed.dial
		}
		c, err := client.NewDevice(client.DeviceOptions{
			ConnectionString: auth.ConnectionString{HostName: l.o.Hub, DeviceID: d.id, SharedAccessKey: l.keys[d.id]},
			Transport:        l.o.Transport, Address: l.o.Address, RootCAs: l.o.RootCAs, Sessions: sessions, Buffers: buffers, Dial: dial,
			Product: "muster-simulator", InFlight: 4, OnMethod: d.method, OnDesired: d.desired, OnState: d.state,
		})
		if err != nil {
			return fmt.Errorf("device %s: %w", d.id, err)
		}
		d.client = c
		devices = append(devices, d)
	}
	l.mu.Lock()
	l.devices = devices
	l.mu.Unlock()
	var work, marks sync.WaitGroup
	marking, endMarks := context.WithCancel(ctx)
	defer endMarks()
	l.mark(ctx)
	marks.Go(func() {
		for wait(marking, markEvery) {
			l.mark(marking)
		}
	})
	for i, d := range devices {
		d.begin(l.o.Spread*time.Duration(i)/time.Duration(len(devices)), &work)
	}
	<-ctx.Done()
	l.mu.Lock()
	l.ended = true // no timer's work begins any more
	l.mu.Unlock()
	for _, d := range devices {
		d.timer.Stop()
	}
	work.Wait()
	endMarks()
	marks.Wait()
	l.mark(context.WithoutCancel(ctx)) // so that what came last has a mark behind it
	return context.Cause(ctx)
}

// Drop cuts the network of every device in one moment. Run must be under way.
func (l *Load) Drop() {
	l.mu.Lock()
	devices := l.devices
	l.mu.Unlock()
	for _, d := range devices {
		d.client.Drop()
	}
}

// mark asks the hub for its position and notes it in the log of
// acknowledgements. A hub that does not answer gives no mark.
func (l *Load) mark(ctx context.Context) {
	if l.o.Acks == nil {
		return
	}
	ctx, stop := context.WithTimeout(ctx, markTimeout)
	defer stop()
	l.marks++
	err := l.o.Acks.ask(l.marks, func() (client.Position, error) { return l.o.Service.Position(ctx) })
	if err != nil && ctx.Err() == nil {
		l.count(func(r *LoadReport) { r.ErrorReasons["ask for the position: "+reason(err)]++ })
	}
}

// count changes the report.
func (l *Load) count(f func(r *LoadReport)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.report)
}

// Report returns the counts; it is safe at any time.
func (l *Load) Report() LoadReport {
	l.mu.Lock()
	r, sorted := l.report, slices.Clone(l.returns)
	r.ReturnMax = l.longest.Milliseconds()
	r.ErrorReasons = make(map[string]int64, len(l.report.ErrorReasons))
	maps.Copy(r.ErrorReasons, l.report.ErrorReasons)
	l.mu.Unlock()
	slices.Sort(sorted)
	if n := len(sorted); n > 0 {
		r.ReturnP50, r.ReturnP99 = sorted[n/2].Milliseconds(), sorted[n*99/100].Milliseconds()
	}
	return r
}

// loadDevice is one device. A goroutine reads its connection; what it does by
// itself is started by one timer, and is over before the timer is set again. A
// process may hold thousands, so nothing of it waits on a stack. Its timer's
// work owns all but told, lost and up, which the client's Run owns by state.
type loadDevice struct {
	load    *Load
	cohort  *Cohort  // nil if it has no trouble
	managed *managed // nil unless the behaviour says so
	wishes  wishes
	ctx     context.Context //nolint:containedctx // of Run, for what timers start
	id      string
	client  *client.Device
	rng     *rand.PCG
	timer   *time.Timer
	drop    time.Time // when it loses its network next; zero: never
	send    time.Time // when it sends next

	n    int64        // newest value that was reported
	sent int64        // messages
	told atomic.Int64 // newest version of the desired properties

	missed atomic.Bool // desired properties may have changed while it was away, and matter

	up   bool
	lost time.Time // zero before the first loss
}

func (d *loadDevice) state(connected bool, err error) {
	l := d.load
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case connected:
		l.report.Connects++
		l.report.Online++
		if d.managed != nil {
			d.managed.connected()
		}
		if !d.lost.IsZero() {
			d.missed.Store(len(l.o.Behaviour.Cohorts) > 0)
			l.report.Reconnects++
			took := time.Since(d.lost)
			l.longest = max(l.longest, took)
			if len(l.returns) < maxReturns {
				l.returns = append(l.returns, took)
			} else {
				l.returns[l.report.Reconnects%maxReturns] = took
			}
		}
	case d.up:
		if d.ctx.Err() == nil { // else it leaves with all others
			l.report.Online--
		}
		d.lost = time.Now()
	default:
		l.report.ErrorReasons["connect: "+reason(err)]++
	}
	d.up = connected
}

// reason is the class of an error: a bounded set, for counting.
func reason(err error) string {
	if e, ok := errors.AsType[*client.RefusedError](err); ok {
		return fmt.Sprintf("CONNACK %d", e.Code)
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		return fmt.Sprintf("status %d", e.Status)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, client.ErrNotConnected):
		return "connection lost"
	}
	return "not reachable"
}

func (d *loadDevice) method(ctx context.Context, name string, payload json.RawMessage) (int, any) {
	var a ask
	var fresh, ok bool
	if d.managed != nil {
		a, fresh, ok = d.managed.heardOf(name, payload)
	}
	b := &d.load.o.Behaviour
	delay, status, answer := b.MethodDelay, b.MethodStatus, map[string]any{"device": d.id}
	obeys := d.managed != nil
	if c := d.troubled(); c.troubles(name) {
		obeys = obeys && c.MethodStatus == 0
		delay = cmp.Or(c.MethodDelay, delay)
		status = cmp.Or(c.MethodStatus, status)
		if c.MethodMessage != "" {
			answer["message"] = c.MethodMessage
		}
	}
	// A command that was taken is obeyed, also when the connection goes meanwhile.
	if !wait(ctx, delay) && !obeys {
		return 503, nil
	}
	d.load.count(func(r *LoadReport) { r.Methods++ })
	d.load.o.Acks.add(Ack{Device: d.id, Kind: ackMethod, Method: name[:min(len(name), 128)], Acked: true})
	if obeys {
		return d.managed.method(name, a, fresh, ok)
	}
	answer["time"] = time.Now().Add(b.ClockSkew).UTC()
	return status, answer
}

// desired takes note of a version of the desired properties, which the next
// report acknowledges.
func (d *loadDevice) desired(version int64, patch json.RawMessage) {
	if len(d.load.o.Behaviour.Cohorts) > 0 {
		d.wishes.learn(version, patch, false)
	}
	if d.managed != nil {
		d.managed.told(version, patch)
	}
	d.acted(version)
}

// acted notes a version in the log of acknowledgements.
func (d *loadDevice) acted(version int64) {
	for known := d.told.Load(); ; known = d.told.Load() {
		if known >= version {
			return
		}
		if d.told.CompareAndSwap(known, version) {
			break
		}
	}
	d.load.o.Acks.add(Ack{Device: d.id, Kind: ackDesired, Version: version, Acked: true})
}

// vary spreads a duration over 50 to 150 % of itself.
func (d *loadDevice) vary(t time.Duration) time.Duration {
	return t/2 + time.Duration(d.random().Int64N(int64(t)+1))
}

// nextDrop is when the network is lost next after t.
func (d *loadDevice) nextDrop(t time.Time) time.Time {
	b := &d.load.o.Behaviour
	if b.Together {
		return t.Add(b.DropEvery - t.Sub(d.load.started)%b.DropEvery)
	}
	return t.Add(d.vary(b.DropEvery))
}

// begin has the device connect after a while.
func (d *loadDevice) begin(after time.Duration, work *sync.WaitGroup) {
	d.load.mu.Lock() // the first call of the timer must see it
	defer d.load.mu.Unlock()
	next := d.connect
	d.timer = time.AfterFunc(after, func() {
		d.load.mu.Lock()
		if d.load.ended {
			d.load.mu.Unlock()
			return
		}
		work.Add(1)
		d.load.mu.Unlock()
		defer work.Done()
		if after, ok := next(work); ok {
			next = d.live
			d.timer.Reset(after)
		}
	})
}

// connect starts the connection and begins to send.
func (d *loadDevice) connect(work *sync.WaitGroup) (next time.Duration, ok bool) {
	work.Go(func() { _ = d.client.Run(d.ctx) }) // ends with ctx, which is what it returns
	if !d.resume(d.ctx) {
		return 0, false
	}
	if d.managed != nil {
		work.Go(func() { d.managed.run(d.ctx) })
	}
	b := &d.load.o.Behaviour
	now := time.Now()
	d.send = now.Add(time.Duration(d.random().Int64N(int64(b.Interval) + 1)))
	if b.DropEvery > 0 {
		d.drop = d.nextDrop(now)
	}
	return d.untilNext(), true
}

// untilNext is the time to what the device does next.
func (d *loadDevice) untilNext() time.Duration {
	next := d.send
	if !d.drop.IsZero() && d.drop.Before(next) {
		next = d.drop
	}
	return time.Until(next)
}

// live does what is due.
func (d *loadDevice) live(*sync.WaitGroup) (next time.Duration, ok bool) {
	b := &d.load.o.Behaviour
	if !d.drop.IsZero() && !time.Now().Before(d.drop) {
		d.client.Drop()
		away := time.Now().Add(d.vary(b.Away))
		d.drop = d.nextDrop(away)
		if d.send.Before(away) {
			d.send = away
		}
		return d.untilNext(), true
	}
	if d.client.WaitConnected(d.ctx) != nil {
		return 0, false
	}
	if d.missed.CompareAndSwap(true, false) {
		d.catchUp(d.ctx)
	}
	d.telemetry(d.ctx)
	if d.sent%int64(b.ReportEvery) == 0 {
		d.patch(d.ctx)
	}
	d.send = time.Now().Add(d.vary(b.Interval))
	return d.untilNext(), d.ctx.Err() == nil
}

func (d *loadDevice) random() *rand.Rand { return rand.New(d.rng) } //nolint:gosec // repeatable on purpose

// resume reads where an earlier run ended, so that values only grow.
func (d *loadDevice) resume(ctx context.Context) bool {
	for d.client.WaitConnected(ctx) == nil {
		octx, stop := context.WithTimeout(ctx, operationTimeout)
		t, err := d.client.Twin(octx)
		stop()
		if err == nil {
			var have struct {
				Sim struct {
					N int64 `json:"n"`
				} `json:"sim"`
			}
			_ = json.Unmarshal(t.Reported, &have) // foreign properties: begin at 0
			d.n = have.Sim.N
			if d.managed != nil {
				d.managed.restore(t.Reported)
			}
			if v := versionOf(t.Desired); v > 1 { // somebody has set some
				if len(d.load.o.Behaviour.Cohorts) > 0 {
					d.wishes.learn(v, t.Desired, true)
				}
				d.acted(v)
			}
			return true
		}
		d.failed(ctx, "read twin", err)
		if !wait(ctx, d.vary(time.Second)) {
			return false
		}
	}
	return false
}

// catchUp reads what changed while the device was away.
func (d *loadDevice) catchUp(ctx context.Context) {
	octx, stop := context.WithTimeout(ctx, operationTimeout)
	defer stop()
	t, err := d.client.Twin(octx)
	if err != nil {
		d.missed.Store(true)
		d.failed(ctx, "read twin", err)
		return
	}
	if v := versionOf(t.Desired); v > d.told.Load() {
		d.wishes.learn(v, t.Desired, true)
		d.acted(v)
	}
}

// failed counts an error that is not the simulator's own end.
func (d *loadDevice) failed(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		d.load.count(func(r *LoadReport) { r.ErrorReasons[what+": "+reason(err)]++ })
	}
}

func (d *loadDevice) telemetry(ctx context.Context) {
	octx, stop := context.WithTimeout(ctx, operationTimeout)
	defer stop()
	d.sent++
	a := Ack{Device: d.id, Kind: ackTelemetry, N: d.sent, Since: d.load.o.Acks.known()}
	body := fmt.Appendf(nil, `{"n":%d,"temperature":%.1f,"time":%q}`, d.sent, 20+5*d.random().Float64(), time.Now().Add(d.load.o.Behaviour.ClockSkew).UTC().Format(time.RFC3339Nano))
	err := d.client.Send(octx, client.Message{Body: body, ContentType: "application/json", Encoding: "utf-8", MessageID: messageID(d.id, d.load.run, d.sent), QoS: 1})
	a.Acked = err == nil
	d.load.o.Acks.add(a)
	d.settle(ctx, "send message", err, func(r *LoadReport) { r.Messages++ })
}

func (d *loadDevice) patch(ctx context.Context) {
	octx, stop := context.WithTimeout(ctx, operationTimeout)
	defer stop()
	d.n++
	a := Ack{Device: d.id, Kind: ackReported, N: d.n, Desired: d.told.Load(), Since: d.load.o.Acks.known()}
	b := &d.load.o.Behaviour
	sim := map[string]any{"n": d.n, "time": time.Now().Add(b.ClockSkew).UTC()}
	if a.Desired > 0 {
		sim["desired"] = a.Desired // which acknowledges that version
	}
	patch := map[string]any{"sim": sim}
	if d.managed == nil {
		patch["firmware"] = map[string]any{"version": b.Firmware}
	}
	answers, heard := d.answers(patch)
	version, err := d.client.PatchReported(octx, patch)
	if err == nil {
		d.wishes.answered(answers, heard)
	}
	a.Version, a.Acked = version, err == nil
	d.load.o.Acks.add(a)
	d.settle(ctx, "report properties", err, func(r *LoadReport) { r.TwinPatches++ })
}

// answers adds to a report what a fleet with cohorts tells: its health, and
// acknowledgements of desired properties, which it returns with the version
// that they are of.
func (d *loadDevice) answers(patch map[string]any) (answers map[string]any, version int64) {
	b, c := &d.load.o.Behaviour, d.troubled()
	if b.tellsHealth() {
		patch["health"] = "good"
		if c != nil && c.Ill {
			patch["health"] = "bad"
		}
	}
	if !b.acknowledges() || d.managed != nil { // which has answers of its own
		return nil, 0
	}
	var refused []string
	if c != nil {
		refused = c.Refuse
	}
	answers, version = d.wishes.answers(refused)
	for name, a := range answers {
		if _, own := patch[name]; !own {
			patch[name] = a
		}
	}
	return answers, version
}

// settle counts the end of an operation.
func (d *loadDevice) settle(ctx context.Context, what string, err error, done func(*LoadReport)) {
	if err == nil {
		d.load.count(done)
		return
	}
	d.load.count(func(r *LoadReport) { r.Unknown++ })
	d.failed(ctx, what, err)
}
