package query

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Row is a row that Select found.
type Row struct {
	ID     string
	Values []Value // at the paths that were asked for; undefined where there is nothing
}

// selectRows is how many rows Select gives at once, at most.
const selectRows = 1024

// Select gives the rows that a query's WHERE selects to f, in the order of
// their ids, with their values at some paths (objects may come without
// members), until f returns false. What else the query says does not count. Of
// Ask, Given counts for nothing and Limit is about how many rows f will take; 0 is
// all of them. f may keep ids; the rows and their values are its own only during
// the call. The lock is not held in f; what f takes counts toward Budget.Time.
//
// Rows that match throughout come exactly once, whatever comes and goes
// meanwhile. Errors: as of Run.
func (c *Columns) Select(ctx context.Context, q *Query, a Ask, paths []Path, f func(rows []Row) bool) error {
	if q.source.columnless() {
		return errors.New("query: " + q.source.String() + " has no columns")
	}
	began := time.Now()
	for range replans {
		s := &selection{run: &run{ctx: ctx, columns: c, query: q, ask: a, plan: &Plan{}, began: began}, paths: paths, last: a.After, give: f}
		err := s.do()
		if !errors.Is(err, errReplan) {
			return err
		}
		a.After = s.last
	}
	return &BudgetError{Exceeded: "time", Limit: fmt.Sprint(replans, " plans"), Step: "plan",
		Advice: "columns come and go too quickly; raise the memory for columns"}
}

// selection is one plan of a Select.
type selection struct {
	*run
	paths []Path
	bound []*binding
	load  bool // values come from documents
	step  *Step
	give  func(rows []Row) bool
	last  string // of the rows given
	rows  []Row
	cells []Value
}

func (s *selection) do() error {
	var start uint64
	s.store, start = s.columns.enter()
	defer s.columns.leave(start)
	if err := s.prepare(); err != nil {
		return err
	}
	s.bound = make([]*binding, len(s.paths))
	if err := s.lock(); err != nil {
		return err
	}
	for i, p := range s.paths {
		s.bound[i] = s.bindings.of(p)
		s.load = s.load || s.bound[i].missing
	}
	s.unlock()
	target := s.ask.Limit
	if target <= 0 {
		target = int(s.plan.Rows)
	}
	list, err := s.candidates(target)
	if err != nil {
		return err
	}
	s.step = &Step{Kind: "document fetch", Estimate: -1}
	for !list.done || len(list.rest) > 0 {
		ords, err := list.next(s.run, selectRows)
		if err != nil {
			return err
		}
		list.rest = nil
		more, err := s.take(ords, list.sure)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// take gives those of some rows that pass. sure says that all passed when they
// were looked at.
func (s *selection) take(ords []uint32, sure bool) (more bool, err error) {
	exact := s.cond == nil || s.cond.exact()
	s.rows, s.cells = s.rows[:0], s.cells[:0]
	if err := s.lock(); err != nil {
		return false, err
	}
	for i, ord := range ords {
		if !sure && i&63 == 63 {
			if err := s.breathe(); err != nil {
				s.unlockAfter(err)
				return false, err
			}
		}
		if !s.store.isAlive(ord) || !sure && exact && s.where != nil && !s.where.pass(ord) {
			continue
		}
		if exact && !s.load {
			for _, b := range s.bound {
				s.cells = append(s.cells, b.value(s.store, ord))
			}
		}
		s.rows = append(s.rows, Row{ID: s.store.ids.at(ord)})
	}
	s.unlock()
	if exact && !s.load {
		for i := range s.rows {
			n := len(s.paths)
			s.rows[i].Values = s.cells[i*n : (i+1)*n : (i+1)*n]
		}
	} else if err := s.fetch(exact); err != nil {
		return false, err
	}
	if len(s.rows) > 0 {
		if !s.give(s.rows) {
			return false, nil
		}
		s.last = s.rows[len(s.rows)-1].ID
	}
	return true, s.check("select")
}

// unlockAfter gives the lock back unless the error says that it is free.
func (s *selection) unlockAfter(err error) {
	if !errors.Is(err, errReplan) {
		s.unlock()
	}
}

// fetch reads the documents of the rows, leaves out what does not pass, unless
// that is known, and takes their values.
func (s *selection) fetch(known bool) error {
	kept := s.rows[:0]
	all := s.rows
	for len(all) > 0 {
		some := all[:min(len(all), documentsBatch)]
		all = all[len(some):]
		ids := make([]string, len(some))
		for i := range some {
			ids[i] = some[i].ID
		}
		docs, err := s.documents(ids, s.step)
		if err != nil {
			return err
		}
		for i, doc := range docs {
			if doc.kind == Undefined || !known && s.where != nil && !s.where.program.eval(doc, s.ask.Now).True() {
				continue
			}
			row := Row{ID: ids[i], Values: make([]Value, len(s.paths))}
			for k, p := range s.paths {
				row.Values[k] = doc.Value(p)
			}
			kept = append(kept, row)
		}
	}
	s.rows = kept
	return nil
}

// Values returns what rows have at some paths, in the order of both: nil of a
// row that there is not, undefined where there is nothing. What the columns can't
// tell is undefined, too: missing says that there was such a thing.
func (c *Columns) Values(ids []string, paths []Path) (values [][]Value, missing bool) {
	values = make([][]Value, len(ids))
	cells := make([]Value, len(ids)*len(paths))
	for from := 0; from < len(ids); from += selectRows / 4 {
		to := min(from+selectRows/4, len(ids))
		c.mu.RLock()
		bound := newBindings(c.store)
		list := make([]*binding, len(paths))
		for k, p := range paths {
			list[k] = bound.of(p)
			missing = missing || list[k].missing
		}
		for i := from; i < to; i++ {
			ord, found := c.store.find(ids[i])
			if !found {
				continue
			}
			values[i], cells = cells[:len(paths):len(paths)], cells[len(paths):]
			for k, b := range list {
				values[i][k] = b.value(c.store, ord)
			}
		}
		c.mu.RUnlock()
	}
	return values, missing
}

// Known reports whether a row can have something at a path: it has a column, or
// is told from documents.
func (c *Columns) Known(p Path) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	l := c.store.locate(p)
	return l.missing || l.identity || l.column != nil
}
