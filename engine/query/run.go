package query

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"
)

// How long a lock is held, and how much is asked of Documents at once.
const (
	lockTime       = 250 * time.Microsecond
	documentsBatch = 500
	verifyBatch    = 512
	replans        = 5
)

// run is one execution of a query.
type run struct {
	ctx      context.Context
	columns  *Columns
	store    *store
	query    *Query
	ask      Ask
	bindings *bindings
	where    *rowTest   // nil: all rows
	cond     *condition // nil: all rows
	seeds    []uint32   // with seeded: the only rows in question
	seeded   bool
	words    int // of bits for the rows that there were when the query began
	plan     *Plan
	sinkCost float64 // nanoseconds that a selected row takes then, roughly
	began    time.Time
	locked   time.Time // since when the lock is held
	yielded  time.Time // when others had their turn
	holding  int64     // bytes
}

// Run answers a query. ORDER BY gives all rows up to Ask.Limit at once, in their
// order; without it rows come by id, groups by their keys, and Ask.After continues
// behind the last one of the page before. Rows that match throughout come exactly
// once, whatever comes and goes meanwhile.
//
// Errors: *BudgetError, that of the context, and what Documents returns.
func (c *Columns) Run(ctx context.Context, q *Query, a Ask) (*Page, error) {
	if q.source.columnless() {
		return &Page{Plan: &Plan{}}, nil
	}
	began := time.Now()
	for range replans {
		r := &run{ctx: ctx, columns: c, query: q, ask: a, plan: &Plan{}, began: began, yielded: began}
		page, err := r.run()
		if !errors.Is(err, errReplan) {
			return page, err
		}
	}
	return nil, &BudgetError{Exceeded: "time", Limit: fmt.Sprint(replans, " plans"), Step: "plan",
		Advice: "columns come and go too quickly; raise the memory for columns"}
}

func (r *run) run() (*Page, error) {
	var start uint64
	r.store, start = r.columns.enter()
	defer r.columns.leave(start)
	if err := r.prepare(); err != nil {
		return nil, err
	}
	var page *Page
	var err error
	switch {
	case len(r.query.group) > 0 || r.query.aggregates():
		page, err = r.groups()
	case len(r.query.order) > 0:
		page, err = r.ordered()
	default:
		page, err = r.byID()
	}
	if err != nil {
		return nil, err
	}
	r.plan.Time = time.Since(r.began)
	page.Plan = r.plan
	return page, nil
}

// enter begins a query: what it may see keeps its code and its ordinal until
// leave.
func (c *Columns) enter() (s *store, since uint64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	c.running.Lock()
	defer c.running.Unlock()
	c.running.since = append(c.running.since, c.store.now)
	return c.store, c.store.now
}

func (c *Columns) leave(start uint64) {
	c.running.Lock()
	defer c.running.Unlock()
	i := slices.Index(c.running.since, start)
	c.running.since = slices.Delete(c.running.since, i, i+1)
}

func (r *run) lock() error {
	r.columns.mu.RLock()
	r.locked = time.Now()
	if err := r.bindings.refresh(); err != nil {
		r.columns.mu.RUnlock()
		return err
	}
	return nil
}

func (r *run) unlock() { r.columns.mu.RUnlock() }

// prepare plans the condition.
func (r *run) prepare() error {
	r.columns.mu.RLock()
	r.locked = time.Now()
	r.bindings = newBindings(r.store)
	r.plan.Rows = int64(r.store.count)
	var err error
	if e := r.query.where; e != nil {
		program, failed := compile(e)
		if failed != nil {
			r.unlock()
			return failed
		}
		r.where = &rowTest{program, true, r.ask.Now, columnRow{bindings: r.bindings}}
		r.cond, err = r.planCondition(e, true)
	}
	if errors.Is(err, errReplan) {
		return err // the lock is free
	}
	defer r.unlock()
	if err != nil {
		return err
	}
	r.query.eachPath(func(p Path) { r.bindings.of(p) }) // while the lock is held
	r.words = len(r.store.alive)
	if r.cond != nil {
		r.seeds, r.seeded = r.cond.seeds()
		r.plan.Steps = append(r.plan.Steps, r.cond.step)
	}
	return nil
}

// eachPath calls f for the paths that a query reads besides those of WHERE.
func (q *Query) eachPath(f func(Path)) {
	for _, i := range q.items {
		f(i.path)
	}
	for _, p := range q.group {
		f(p)
	}
	for _, o := range q.order {
		f(o.path)
	}
	for _, p := range paths(q.having) {
		f(p)
	}
}

// breathe lets changes in when the lock was held for long.
func (r *run) breathe() error {
	if time.Since(r.locked) < lockTime {
		return nil
	}
	r.unlock()
	if err := r.check("plan"); err != nil {
		r.columns.mu.RLock() // as the caller expects
		return err
	}
	return r.lock()
}

// seeds returns the rows that alone can pass, when ids say so.
func (c *condition) seeds() ([]uint32, bool) {
	switch c.kind {
	case leafTest:
		if t, is := c.test.(*identityTest); is && t.equals != nil {
			return t.ords, true
		}
	case allOf:
		for _, p := range c.parts {
			if s, ok := p.seeds(); ok {
				return s, true
			}
		}
	case anyOf:
		var all []uint32
		for _, p := range c.parts {
			s, ok := p.seeds()
			if !ok {
				return nil, false
			}
			all = append(all, s...)
		}
		return all, true
	}
	return nil, false
}

// check returns why the query must stop, if it must.
func (r *run) check(step string) error {
	if now := time.Now(); now.Sub(r.yielded) > lockTime {
		runtime.Gosched() // who waits for a commit takes turns with queries, and needs little
		r.yielded = now
	}
	if err := r.ctx.Err(); err != nil {
		return err
	}
	b := r.ask.Budget
	if b.Time > 0 && time.Since(r.began) > b.Time {
		return &BudgetError{Exceeded: "time", Limit: b.Time.String(), Step: step, Advice: r.advice()}
	}
	return nil
}

// advice says what would make the query cheaper.
func (r *run) advice() string {
	if len(r.plan.Missing) > 0 {
		m := r.plan.Missing[0]
		return fmt.Sprintf("%s has no column (%s), so that documents must be read: add a condition on a path that has one", m.Path, m.Why)
	}
	return "add a condition that selects fewer rows, such as one on deviceId or on a tag"
}

// hold accounts for memory that the answer takes.
func (r *run) hold(bytes int64, step string) error {
	r.holding += bytes
	r.plan.Memory = max(r.plan.Memory, r.holding)
	if b := r.ask.Budget.Memory; b > 0 && r.holding > b {
		return &BudgetError{Exceeded: "memory", Limit: fmt.Sprintf("%d bytes", b), Step: step, Advice: "ask for fewer rows or groups, with TOP or with a narrower condition"}
	}
	return nil
}

// documents loads documents. The lock must not be held.
func (r *run) documents(ids []string, step *Step) ([]Value, error) {
	if b := r.ask.Budget.Rows; b > 0 && r.plan.Documents+int64(len(ids)) > b {
		return nil, &BudgetError{Exceeded: "rows", Limit: fmt.Sprintf("%d documents", b), Step: step.Kind, Advice: r.advice()}
	}
	if r.ask.Documents == nil {
		return nil, errors.New("query: documents are needed, and there is no way to load them")
	}
	begin := time.Now()
	values, err := r.ask.Documents.Documents(r.ctx, ids)
	if err != nil {
		return nil, err
	}
	if len(values) != len(ids) {
		return nil, fmt.Errorf("query: %d documents for %d ids", len(values), len(ids))
	}
	r.plan.Documents += int64(len(ids))
	step.Rows += int64(len(ids))
	step.Time += time.Since(begin)
	return values, r.check(step.Kind)
}

// missing notes in the plan that a path has no column.
func (r *run) missing(b *binding) {
	m := Missing{b.path.String(), b.why}
	if !slices.Contains(r.plan.Missing, m) {
		r.plan.Missing = append(r.plan.Missing, m)
	}
}

// blockRows returns how many rows may be looked at under one lock.
func (r *run) blockRows() uint32 {
	cost := r.sinkCost
	if r.cond != nil {
		cost = cost*r.cond.share + r.cond.cost
	}
	n := uint32(stripeRows)
	for n > 64 && float64(n)*cost > float64(lockTime) {
		n /= 2
	}
	return n
}

// scan is scanStripe for all stripes.
func (r *run) scan(f func(b *block) error, between func() error) error {
	for stripe := range r.words * 64 / stripeRows {
		if err := r.scanStripe(stripe, false, f, between); err != nil {
			return err
		}
	}
	return nil
}

// scanStripe calls f with each block of a stripe's rows that pass the condition, or may
// pass when documents are needed to know. The lock is held in f, which sees the rows as
// the condition saw them; between blocks, without the lock, between is called.
func (r *run) scanStripe(stripe int, cheap bool, f func(b *block) error, between func() error) error {
	rows := r.blockRows()
	var words [stripeRows / 64]uint64
	for from := uint32(0); from < stripeRows; from += rows {
		base := stripe<<stripeBits + int(from)
		if r.seeded && !slices.ContainsFunc(r.seeds, func(ord uint32) bool { return int(ord) >= base && int(ord) < base+int(rows) }) {
			continue
		}
		if err := r.lock(); err != nil {
			return err
		}
		b := &block{stripe, from, words[:rows/64]}
		copy(b.bits, r.store.alive[base/64:])
		if r.seeded {
			b.only(r.seeds)
		}
		var err error
		if !b.empty() {
			if r.cond != nil {
				r.cond.filter(b, cheap)
			}
			err = f(b)
		}
		r.unlock()
		if err == nil {
			err = r.check("scan")
		}
		if err == nil && between != nil {
			err = between()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sink takes the rows that a query selects.
type sink interface {
	// rows takes rows from columns; the lock is held. Those that it can't take
	// it returns.
	rows(b *block) (left []uint32, err error)
	// document takes a row from its document.
	document(id string, doc Value) error
}

// feed gives a sink all rows that the condition selects.
func (r *run) feed(s sink, fromColumns bool) error {
	step := &Step{Kind: "document fetch", Estimate: -1}
	var waiting []string
	flush := func(least int) error {
		for len(waiting) > least {
			n := min(len(waiting), documentsBatch)
			if step.Rows == 0 {
				r.plan.Steps = append(r.plan.Steps, step)
			}
			docs, err := r.documents(waiting[:n], step)
			if err != nil {
				return err
			}
			for i, doc := range docs {
				if doc.kind == Undefined || r.where != nil && !r.where.program.eval(doc, r.ask.Now).True() {
					continue
				}
				step.Selected++
				r.plan.Selected++
				if err := s.document(waiting[i], doc); err != nil {
					return err
				}
			}
			waiting = waiting[n:]
		}
		return nil
	}
	exact := fromColumns && (r.cond == nil || r.cond.exact())
	err := r.scan(func(b *block) error {
		if !exact {
			b.each(func(at uint32) { waiting = append(waiting, r.store.ids.at(b.base()-b.from+at)) })
			return nil
		}
		selected := b.count()
		left, err := s.rows(b)
		r.plan.Selected += int64(selected - len(left))
		for _, ord := range left {
			waiting = append(waiting, r.store.ids.at(ord))
		}
		return err
	}, func() error { return flush(documentsBatch) })
	if err != nil {
		return err
	}
	return flush(0)
}
