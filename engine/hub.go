package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// Options configure a Hub. Open copies them, fills defaults and validates.
type Options struct {
	Storage storage.Options
	Hosts   []string // names of the hub that tokens may carry; the first is canonical and printed
	Profile Profile  // limits; empty = ProfileDefault
	Logger  *slog.Logger
	Version string // the binary's, shown by Info
	// Build tells one binary from another, also of the same version: the columns of
	// queries, when they are kept over a restart, are only taken over by the same one.
	// Without it none are kept.
	Build   string
	Deliver Deliver // posts to webhooks; without it they are kept and nothing is sent
	Backups BackupPlan
	// Columns is what the columns of queries may take, in bytes; 0 is 256 MiB.
	Columns int64
	// FileNotifications keeps a notification for the service of each file that a device uploads.
	FileNotifications bool
	// Scripts runs the programs of patterns; without it there are none. Fetch sends
	// their requests; without it an http step fails. Shipped are the patterns that
	// are installed from the start.
	Scripts Interpreter
	Fetch   Fetch
	Shipped []*pattern.Bundle
	// Reached is called at each named step of long work, right before and right
	// after its transaction, by several goroutines at once; nil calls nothing. Tests
	// end the process there.
	Reached func(step string)

	columnsRead func() // a test's, see export_test.go
}

// Hub is one hub: identities, twins, sessions and all rules about them. Its
// methods are safe for concurrent use.
type Hub struct {
	db        *storage.DB
	log       *slog.Logger
	about     about
	limits    Limits
	throttles throttles
	audits    auditState
	policies  atomic.Pointer[map[string]auth.SharedAccessPolicy]
	sessions  *sessionTable
	methods   methodCalls
	count     counters
	draining  atomic.Bool

	traffic
	followers
	longWork
	backups *backups
}

// traffic is the state of what devices and services leave for one another, and
// what the hub asks of it.
type traffic struct {
	devicebound deviceboundState
	files       fileState
	declared    declaredState
}

// about is what a hub says of itself.
type about struct {
	hosts   []string // the canonical name first
	version string
	started time.Time
}

// auditState bounds what the audit costs.
type auditState struct {
	refusals  *rate.Limiter // bounds how many refused calls are audited
	verifying atomic.Bool   // the audit chain is being walked
}

// methodCalls are the direct methods under way.
type methodCalls struct {
	waiting atomic.Int64 // callers that wait now
	sent    atomic.Int64 // calls that a device has and did not answer
	queue   *methodQueue // calls that wait for their device
}

// Open opens the store and returns a hub that serves calls. Errors are
// *Error, or the store's own when it can't be opened (storage.ErrLocked, ...).
func Open(ctx context.Context, o Options) (*Hub, error) {
	if o.Profile == "" {
		o.Profile = ProfileDefault
	}
	limits, err := LimitsFor(o.Profile)
	if err != nil {
		return nil, err
	}
	if len(o.Hosts) == 0 {
		o.Hosts = []string{"localhost"}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Storage.Logger == nil {
		o.Storage.Logger = o.Logger
	}
	backups, err := newBackups(o.Backups)
	if err != nil {
		return nil, err
	}
	queries := newQueries(o.Columns, &limits)
	queries.read = o.columnsRead
	o.Storage.Published = queries.published
	if queries.made = o.Build; o.Build != "" {
		o.Storage.Kept = storage.Kept{Version: keptBy(o.Build), Write: queries.keep}
	}
	db, err := storage.Open(ctx, o.Storage)
	if err != nil {
		return nil, err
	}
	h := &Hub{
		db: db, log: o.Logger, about: about{o.Hosts, o.Version, time.Now().UTC()}, limits: limits,
		throttles: newThrottles(limits), audits: auditState{refusals: rate.NewLimiter(refusalsPerSecond, refusalsBurst)}, sessions: newSessionTable(), backups: backups,
	}
	h.methods.queue = newMethodQueue()
	h.events, h.queries, h.webhooks = newFeed(h), queries, newWebhooks(o.Deliver)
	h.reached, h.configurations = o.Reached, newConfigurations()
	h.jobs.init(&limits)
	queries.hub = h
	if err := h.openPolicies(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := h.openFaults(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := h.openWebhooks(ctx); err != nil {
		// A store that takes no writes now must not keep the hub from reads.
		h.log.Warn("webhooks could not be taken back to what was restored", slog.Any("error", err))
	}
	if err := h.openFiles(ctx, o.FileNotifications); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := h.openImports(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := h.openDeclared(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := h.openRuns(ctx, &o); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := h.openConfigurations(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := h.openDevicebound(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := h.methods.queue.open(ctx, h); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := h.backups.open(ctx, h); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	h.openPatterns(ctx, &o)
	h.queries.start()
	return h, nil
}

// How often the hub's own work runs.
const (
	expiryEvery    = time.Second
	presenceEvery  = time.Minute
	retentionEvery = 10 * time.Minute
)

// Run does the hub's background work (presence, retention, expiry of
// sessions) until ctx ends; it returns when all of it has stopped.
func (h *Hub) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	every := func(d time.Duration, what string, f func(context.Context) error) {
		wg.Go(func() { h.regularly(ctx, d, what, f) })
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			err := h.endFormerSessions(ctx)
			if err == nil {
				return
			}
			h.log.Warn("sessions of the run before could not be ended; it will be tried again", slog.Any("error", err))
			select {
			case <-ctx.Done():
			case <-time.After(presenceEvery):
			}
		}
	})
	wg.Go(func() { h.preload(ctx) })
	every(expiryEvery, "token expiry", func(context.Context) error { h.expireSessions(time.Now()); return nil })
	every(expiryEvery, "queued methods", func(ctx context.Context) error { return h.methods.queue.sweep(ctx, h, time.Now()) })
	every(expiryEvery, "cloud-to-device messages", h.sweepMessages)
	every(expiryEvery, "files", h.sweepFiles)
	every(blobsEvery, "containers", h.sweepContainers)
	every(blobsEvery, "contents", h.sweepBlobs)
	every(expiryEvery, "injected faults", func(ctx context.Context) error { return h.runFaults(ctx, time.Now()) })
	every(presenceEvery, "presence", func(ctx context.Context) error { return h.flushPresence(ctx) })
	every(retentionEvery, "retention", func(ctx context.Context) error { return h.retain(ctx, time.Now()) })
	every(expiryEvery, "ended jobs", func(ctx context.Context) error { return h.sweepJobs(ctx, time.Now()) })
	wg.Go(func() { h.runJobs(ctx) })
	wg.Go(func() { h.runIdentityJobs(ctx) })
	wg.Go(func() { h.runRuns(ctx) })
	wg.Go(func() { h.runTriggers(ctx) })
	if h.webhooks.deliver != nil {
		wg.Go(func() { h.runWebhooks(ctx) })
	}
	wg.Go(func() { h.runConfigurations(ctx) })
	if h.backups.plan.Dir != "" {
		wg.Go(func() { h.runBackups(ctx) })
	}
	wg.Wait()
	return nil
}

// toldEvery is how often the log says that some background work fails.
const toldEvery = time.Minute

// regularly runs f every d until ctx ends.
func (h *Hub) regularly(ctx context.Context, d time.Duration, what string, f func(context.Context) error) {
	t := time.NewTicker(d)
	defer t.Stop()
	var told time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		// A disk that is full for a day must not fill the log, too.
		if err := f(ctx); err != nil && ctx.Err() == nil && time.Since(told) >= toldEvery {
			told = time.Now()
			h.log.Warn("background work did not finish; it will be tried again", slog.String("work", what), slog.Any("error", err))
		}
	}
}

// Close ends every session and closes the store. Run must have returned.
func (h *Hub) Close() error {
	h.Drain()
	h.sessions.each(func(s *Session) { s.end(errf(CodeClosed, "the hub is shutting down")) })
	h.methods.queue.close()
	h.events.close()
	h.queries.close()
	return errors.Join(h.flushPresence(context.Background()), h.db.Close())
}

// Ready returns nil when devices and reads are served, else what is missing:
// CodeClosed while draining, CodeReadOnly or CodeUnavailable for the store.
func (h *Hub) Ready() error {
	if h.draining.Load() {
		return errf(CodeClosed, "the hub is shutting down")
	}
	if err := h.db.Health(); err != nil {
		return storeError(err, "the store")
	}
	return nil
}

// Limits returns the limits in force.
func (h *Hub) Limits() Limits { return h.limits }

// Hosts returns the hub's names, the canonical one first.
func (h *Hub) Hosts() []string { return h.about.hosts }

// Drain refuses new sessions and new direct methods with CodeClosed from now
// on. Existing sessions stay until their edge closes them.
func (h *Hub) Drain() {
	h.draining.Store(true)
	h.events.drain()
}

// AwaitMethods waits until no device has a direct method to answer, or ctx
// ends: an edge that drains calls it before it closes sessions, since nobody
// knows of a call that is cut whether the device acted.
func (h *Hub) AwaitMethods(ctx context.Context) {
	tick := time.NewTicker(methodsLook)
	defer tick.Stop()
	for h.methods.sent.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// MethodsSent returns how many direct methods devices have to answer.
func (h *Hub) MethodsSent() int64 { return h.methods.sent.Load() }

// methodsLook is how often a hub that drains looks whether methods have ended:
// seldom enough to cost nothing, once in a hub's life.
const methodsLook = 10 * time.Millisecond

// StoreStats are the store's figures, named here for the edges, which don't
// know the store.
type StoreStats = storage.Stats

// StorageStats returns the store's figures, for metrics.
func (h *Hub) StorageStats() StoreStats { return h.db.Stats() }

// update runs one transaction and translates the store's errors once.
func (h *Hub) update(ctx context.Context, what string, f func(tx *storage.Tx) error) error {
	return storeError(h.db.Update(ctx, f), what)
}

// view runs reads on one snapshot and translates the store's errors once.
func (h *Hub) view(ctx context.Context, what string, f func(r storage.Reader) error) error {
	return storeError(h.db.View(ctx, f), what)
}

// storeError gives an error of the store its code; an *Error passes as it is.
func storeError(err error, what string) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	switch {
	// Also in an ErrUncertain: then the caller, not the disk, is why nobody knows.
	case errors.Is(err, context.Canceled):
		return wrapf(CodeCanceled, err, "%s: the caller went away; whether it was stored is not known", what)
	case errors.Is(err, context.DeadlineExceeded):
		return wrapf(CodeGatewayTimeout, err, "%s: the deadline passed; whether it was stored is not known", what)
	case errors.Is(err, storage.ErrReadOnly), errors.Is(err, storage.ErrReserve):
		return wrapf(CodeReadOnly, err, "%s: the store takes no writes: %v", what, err)
	case errors.Is(err, storage.ErrUncertain):
		return wrapf(CodeUncertain, err, "%s: the disk failed while this was stored", what)
	case errors.Is(err, storage.ErrTooLarge):
		return wrapf(CodeTooLarge, err, "%s: the record is larger than the store takes", what)
	case errors.Is(err, storage.ErrClock):
		return wrapf(CodeUnavailable, err, "%s: %v", what, err)
	case errors.Is(err, storage.ErrBusy):
		return wrapf(CodeThrottled, err, "%s: the store's queue is full", what)
	case errors.Is(err, storage.ErrClosed):
		return wrapf(CodeClosed, err, "%s: the hub is shutting down", what)
	case errors.Is(err, storage.ErrCorrupt):
		return wrapf(CodeInternal, err, "%s: stored data is damaged; `muster doctor` says where", what)
	default:
		return wrapf(CodeInternal, err, "%s: internal error", what)
	}
}
