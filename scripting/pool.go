package scripting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/muster-hub/muster/engine/pattern"
)

// Bounds of a pool.
const (
	WorkersMost = 64

	shareLeast  = 8 // activations of a request that are worth another worker
	hashesMost  = 256
	triesMost   = 3 // of an activation whose worker died
	backOff     = 50 * time.Millisecond
	backOffMost = 5 * time.Second
)

// ErrClosed says that the pool was closed.
var ErrClosed = errors.New("the workers are being stopped")

// Options configure a pool.
type Options struct {
	// Command starts a worker: a program and its arguments, which must call [Worker]
	// on its standard input and output. It gets no environment.
	Command []string
	Workers int          // how many at most; 0: two, or one where there is one processor
	Logger  *slog.Logger // nil: none
}

// Pool runs programs in worker processes. It is safe for concurrent use.
type Pool struct {
	command []string
	log     *slog.Logger
	seats   chan *seat // those that are free

	closing chan struct{}
	ctx     context.Context // ends when the pool is closed
	cancel  context.CancelFunc
	wake    chan struct{}
	asleep  atomic.Bool
	work    sync.WaitGroup // requests under way
	watcher sync.WaitGroup

	waiting atomic.Int64
	queued  atomic.Int64 // nanoseconds

	mu       sync.Mutex
	closed   bool
	watching []*process // that are alive
	all      []*seat
	hashes   map[weak.Pointer[pattern.Bundle]]string
	stats    Stats
	failures int       // of starts and of workers that died by themselves, in a row
	notUntil time.Time // a worker is started
	told     bool      // what workers could not take away from themselves
}

// seat is a place for a worker; nil: none was needed yet, or it was killed.
type seat struct{ p *process }

// Stats is what a pool has done since it was made.
type Stats struct {
	Workers     int              // processes that are alive
	Busy        int              // of them, at work
	Waiting     int              // requests that wait for a worker
	Activations int64            // that came back
	Starts      int64            // of workers
	Kills       map[string]int64 // workers that were killed, by the budget: "time", "memory"
	Crashes     int64            // workers that died by themselves
	Queued      time.Duration    // that requests have waited for a worker, together
}

// NewPool makes a pool. Its workers start when they are first needed. The caller
// closes it.
func NewPool(o Options) (*Pool, error) {
	if len(o.Command) == 0 {
		return nil, errors.New("a pool needs a command that starts a worker")
	}
	if o.Workers == 0 {
		o.Workers = min(2, runtime.NumCPU())
	}
	if o.Workers < 1 || o.Workers > WorkersMost {
		return nil, fmt.Errorf("%d workers, expected 1 to %d", o.Workers, WorkersMost)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Pool{
		command: o.Command, log: o.Logger, seats: make(chan *seat, o.Workers), closing: make(chan struct{}), wake: make(chan struct{}, 1),
		hashes: map[weak.Pointer[pattern.Bundle]]string{}, stats: Stats{Kills: map[string]int64{}},
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.asleep.Store(true)
	for range o.Workers {
		s := &seat{}
		p.all = append(p.all, s)
		p.seats <- s
	}
	p.watcher.Go(p.watch)
	return p, nil
}

// enter begins a request, unless the pool is closed; leave ends it.
func (p *Pool) enter() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	p.work.Add(1)
	return nil
}

// Load is what [Load] does, in a worker.
func (p *Pool) Load(ctx context.Context, b *pattern.Bundle) (*pattern.Manifest, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.work.Done()
	for try := 1; ; try++ {
		kind, body, killed, err := p.loadOnce(ctx, b)
		switch {
		case err == nil:
			return loaded(kind, body)
		case killed == killTime || killed == killMemory:
			return nil, budgetFault(killed)
		case try >= triesMost || errors.Is(err, errRequest) || p.gone(ctx) != nil:
			return nil, errors.Join(p.gone(ctx), err)
		}
	}
}

func (p *Pool) loadOnce(ctx context.Context, b *pattern.Bundle) (kind byte, body []byte, killed killReason, err error) {
	s, err := p.acquire(ctx)
	if err != nil {
		return 0, nil, "", err
	}
	defer func() { p.seats <- s }()
	stop := s.p.abandon(ctx)
	kind, body, err = s.p.load(b)
	stop()
	body = append([]byte(nil), body...)
	if err != nil && !errors.Is(err, errRequest) {
		killed, err = p.bury(s, err)
		return kind, body, killed, err
	}
	p.rest(s)
	return kind, body, "", err
}

// loaded reads the answer of load. The manifest is checked here, too: the worker's
// word is not trusted.
func loaded(kind byte, body []byte) (*pattern.Manifest, error) {
	u := &unpacker{b: body}
	switch kind {
	case frameManifest:
		text := u.raw()
		if u.done() == nil && len(text) <= pattern.MaxManifest {
			return manifestOf(text)
		}
	case frameFault:
		if f := u.fault(); f != nil && u.done() == nil {
			return nil, f
		}
	case frameError:
		if text := u.text(); u.done() == nil {
			return nil, errors.New(text)
		}
	}
	return nil, errWire
}

// Activate runs activations of one program, each by itself, and returns their
// outcomes in the same order. One that took too long or too much memory has an
// outcome that failed with FaultBudget. An error has nothing to do with the
// program: it may be tried again.
func (p *Pool) Activate(ctx context.Context, b *pattern.Bundle, list []pattern.Activation) ([]pattern.Outcome, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.work.Done()
	hash := p.hash(b)
	out := make([]pattern.Outcome, len(list))
	parts := max(1, min(len(p.all), len(list)/shareLeast))
	if parts == 1 {
		if err := p.run(ctx, b, hash, list, out); err != nil {
			return nil, err
		}
		return out, nil
	}
	var wg sync.WaitGroup
	errs := make([]error, parts)
	for i := range parts {
		from, to := i*len(list)/parts, (i+1)*len(list)/parts
		wg.Go(func() { errs[i] = p.run(ctx, b, hash, list[from:to], out[from:to]) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

// run runs activations on one worker after the other, until all have an outcome.
func (p *Pool) run(ctx context.Context, b *pattern.Bundle, hash string, list []pattern.Activation, out []pattern.Outcome) error {
	tries := 0 // of the first that has no outcome
	for len(list) > 0 {
		s, err := p.acquire(ctx)
		if err != nil {
			return err
		}
		stop := s.p.abandon(ctx)
		n, err := s.p.activate(b, hash, list, func(i int, o pattern.Outcome) { out[i] = o })
		stop()
		p.count(n)
		if n > 0 {
			tries = 0
		}
		list, out = list[n:], out[n:]
		if err == nil {
			p.rest(s)
			p.seats <- s
			continue
		}
		if errors.Is(err, errRequest) {
			p.seats <- s
			out[0] = pattern.Outcome{Ending: pattern.EndFailed, Fault: &pattern.Fault{Code: pattern.FaultTooBig, Message: err.Error()}}
			list, out = list[1:], out[1:]
			continue
		}
		killed, err := p.bury(s, err)
		p.seats <- s
		if gone := p.gone(ctx); gone != nil {
			return gone
		}
		tries++
		switch {
		case killed == killTime || killed == killMemory:
			out[0] = pattern.Outcome{Ending: pattern.EndFailed, Fault: budgetFault(killed)}
		case tries < triesMost:
			continue
		case killed == killStarved || killed == killStart:
			return err
		default:
			// Nobody else kills workers again and again: it is the program.
			out[0] = pattern.Outcome{Ending: pattern.EndFailed, Fault: &pattern.Fault{
				Code: pattern.FaultBudget, Message: fmt.Sprintf("the worker died %d times when it ran this (budget: memory or stack)", tries),
			}}
		}
		out[0].Cost.Time = pattern.MaxTime
		list, out, tries = list[1:], out[1:], 0
	}
	return nil
}

// budgetFault is the fault of a program whose worker was killed.
func budgetFault(why killReason) *pattern.Fault {
	if why == killMemory {
		return &pattern.Fault{Code: pattern.FaultBudget, Message: fmt.Sprintf("the activation has taken more than %d MiB of memory (budget: memory)", pattern.MaxWorker>>20)}
	}
	return &pattern.Fault{Code: pattern.FaultBudget, Message: fmt.Sprintf("the activation has taken %s, as long as it may (budget: time)", pattern.MaxTime)}
}

// gone is why nothing more is to be done.
func (p *Pool) gone(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if p.ctx.Err() != nil {
		return ErrClosed
	}
	return nil
}

// hash is that of a bundle, which is computed once: bundles don't change.
func (p *Pool) hash(b *pattern.Bundle) string {
	key := weak.Make(b)
	p.mu.Lock()
	h, ok := p.hashes[key]
	p.mu.Unlock()
	if ok {
		return h
	}
	h = b.Hash()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.hashes) >= hashesMost {
		clear(p.hashes)
	}
	p.hashes[key] = h
	return h
}

// acquire waits for a seat and has a worker in it. The seat goes back into
// p.seats, whatever becomes of the worker.
func (p *Pool) acquire(ctx context.Context) (*seat, error) {
	var s *seat
	select {
	case s = <-p.seats:
	default:
		began := time.Now()
		p.waiting.Add(1)
		select {
		case s = <-p.seats:
		case <-ctx.Done():
		case <-p.closing:
		}
		p.waiting.Add(-1)
		p.queued.Add(int64(time.Since(began)))
	}
	if err := p.gone(ctx); err != nil {
		if s != nil {
			p.seats <- s
		}
		return nil, err
	}
	if s.p == nil {
		if err := p.start(ctx, s); err != nil {
			p.seats <- s
			return nil, err
		}
	}
	return s, nil
}

// start starts a worker in a seat, not before it is time after failures.
func (p *Pool) start(ctx context.Context, s *seat) error {
	p.mu.Lock()
	wait := time.Until(p.notUntil)
	p.mu.Unlock()
	if wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.closing:
			return ErrClosed
		}
	}
	w, err := start(p.command, func(w *process) {
		p.mu.Lock()
		p.watching = append(p.watching, w)
		p.mu.Unlock()
	}, p.rouse)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Starts++
	if err != nil {
		p.failed()
		p.sweep()
		return fmt.Errorf("no worker for patterns can be started: %w", err)
	}
	if !p.told && w.hello != "" {
		p.told = true
		p.log.Warn("workers for patterns run less confined than they could be", slog.String("missing", clip(valid(w.hello), 400)))
	}
	s.p = w
	return nil
}

// failed has the next start wait, longer each time. The caller holds mu.
func (p *Pool) failed() {
	p.failures++
	p.notUntil = time.Now().Add(min(backOff<<min(p.failures-1, 10), backOffMost))
}

// sweep forgets the workers that have ended. The caller holds mu.
func (p *Pool) sweep() {
	p.watching = slices.DeleteFunc(p.watching, func(w *process) bool { return w.ended.Load() })
}

// count counts activations that came back.
func (p *Pool) count(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Activations += int64(n)
	if n > 0 {
		p.failures, p.notUntil = 0, time.Time{}
	}
}

// rest looks after a worker whose request is done: one that has grown is replaced,
// so that the next activation has the memory that it may have.
func (p *Pool) rest(s *seat) {
	if !s.p.high.Load() {
		return
	}
	s.p.end(killStale)
	s.p = nil
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep()
}

// bury ends a worker that does not answer as it should, and tells why it died:
// for a budget of the activation that it was at, or for another reason.
func (p *Pool) bury(s *seat, cause error) (killReason, error) {
	w := s.p
	number := w.number.Load()
	w.end("")
	s.p = nil
	why := killReason("")
	if d := w.doom.Load(); d != nil {
		if why = d.why; why != "" && d.number != number && d.number != 0 {
			why = killStale // it was meant for the one before
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep()
	switch why {
	case killTime, killMemory:
		p.stats.Kills[string(why)]++
		p.log.Info("an activation was stopped", slog.String("budget", string(why)))
	case "":
		p.stats.Crashes++
		p.failed()
		p.log.Warn("a worker for patterns died", slog.String("state", w.cmd.ProcessState.String()), slog.String("words", clip(valid(w.words.String()), 400)))
	}
	return why, fmt.Errorf("a worker for patterns died (%s): %w", w.cmd.ProcessState, cause)
}

// Stats tells what the pool does.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Kills = maps.Clone(s.Kills)
	for _, w := range p.watching {
		s.Workers++
		if w.since.Load() != 0 {
			s.Busy++
		}
	}
	s.Waiting, s.Queued = int(p.waiting.Load()), time.Duration(p.queued.Load())
	return s
}

// Close ends the workers and waits for them. Requests under way fail.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.watcher.Wait()
		return nil
	}
	p.closed = true
	p.cancel()
	close(p.closing)
	for _, w := range p.watching {
		w.kill(0, killClosed)
	}
	p.mu.Unlock()
	p.work.Wait()
	p.watcher.Wait()
	for _, s := range p.all {
		if s.p != nil {
			s.p.end(killClosed)
			s.p = nil
		}
	}
	return nil
}
