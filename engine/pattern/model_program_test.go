package pattern

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// A random program, and what runs it: as a worker does, from a journal, or
// straight on, as the model that the other is compared with.

type statementKind uint8

const (
	doCall statementKind = iota
	doTry
	doDefer
	doKeep
	doKept
	doLog
	doRaise
	doSkip
	doReturn
	doBranch
	doRepeat
	doPhase
	statementKinds
)

type statement struct {
	kind        statementKind
	op          string
	n           int // names it, and what it needs a number for
	body, other []statement
}

type program struct{ run, undo []statement }

// generator makes programs of at most so many statements.
type generator struct {
	*rand.Rand
	left, n int
	long    bool // with loops that fill the journal
}

func (g *generator) program() program {
	g.left = 1 + g.IntN(24)
	p := program{run: g.block(0)}
	g.left = 1 + g.IntN(8)
	p.undo = g.block(0)
	return p
}

func (g *generator) block(depth int) []statement {
	var list []statement
	for g.left > 0 && (len(list) == 0 || g.IntN(6) != 0) {
		g.left--
		list = append(list, g.statement(depth))
	}
	return list
}

func (g *generator) statement(depth int) statement {
	g.n++
	s := statement{kind: doCall, n: g.n}
	if g.IntN(2) == 0 {
		s.kind = statementKind(g.IntN(int(statementKinds)))
	}
	if (s.kind == doSkip || s.kind == doReturn || s.kind == doRaise) && g.IntN(3) != 0 {
		s.kind = doCall
	}
	if depth > 3 && (s.kind == doTry || s.kind == doDefer || s.kind == doBranch || s.kind == doRepeat) {
		s.kind = doLog
	}
	switch s.kind {
	case doCall:
		ops := []string{
			"dev.get", "ctx.random", "dev.tag", "ctx.event", "dev.desire", "kv.incr", "dev.call", "dev.wait", "ctx.sleep",
			"dev.get", "dev.tag", "dev.call", "ctx.approve", "kv.set", "no.such",
		}
		s.op = ops[g.IntN(len(ops))]
	case doTry, doDefer:
		s.body = g.block(depth + 1)
	case doBranch:
		s.body, s.other = g.block(depth+1), g.block(depth+1)
	case doRepeat:
		s.n = 1 + g.IntN(5)
		if g.long {
			s.n = 1 + g.IntN(1500)
		} else if g.IntN(20) == 0 {
			s.n = 40 + g.IntN(60) // more local steps than one activation may take
		}
		s.body = g.block(depth + 1)
	}
	return s
}

// host is what a program calls; step unwinds by panic where it can't go on.
type host interface {
	step(op string, args json.RawMessage, deferred bool) (json.RawMessage, *Fault)
	log(text string)
}

// ended unwinds a program.
type ended struct {
	ending Ending
	fault  *Fault
}

// machine runs a program over a host.
type machine struct {
	host
	last   string // of what was called or caught: all that follows depends on it
	kept   map[string]json.RawMessage
	defers [][]statement
	phase  string
	large  bool // arguments have some size

	deferring bool
	work      int
}

// run gives what ended the program; a panic with ended leaves it.
func (m *machine) run(block []statement, canceled func() *Fault) (end Ending, result json.RawMessage, f *Fault) {
	end = EndReturned
	f = m.protected(func() { m.block(block) })
	if f != nil && f.Code == "return" {
		f = nil
	}
	if f != nil {
		end = EndFailed
	}
	if f != nil || canceled() != nil {
		m.deferring = true
		for _, d := range slices.Backward(m.defers) {
			if f := m.protected(func() { m.block(d) }); f != nil {
				m.log("a deferred function failed: " + string(f.Code))
			}
		}
	}
	if end == EndReturned {
		result = marshal(m.last)
	}
	return end, result, f
}

// protected is pcall: only faults are caught.
func (m *machine) protected(fn func()) (f *Fault) {
	defer func() {
		if r := recover(); r != nil {
			caught, ok := r.(*Fault)
			if !ok {
				panic(r)
			}
			f = caught
		}
	}()
	fn()
	return nil
}

func (m *machine) block(list []statement) {
	for i := range list {
		m.statement(&list[i])
	}
}

func (m *machine) statement(s *statement) {
	if m.work++; m.work > 20_000 {
		panic(&Fault{Code: FaultBudget})
	}
	switch s.kind {
	case doCall:
		m.call(s)
	case doTry:
		if f := m.protected(func() { m.block(s.body) }); f != nil {
			if f.Code == "return" {
				panic(f)
			}
			m.last = "caught " + string(f.Code)
		}
	case doDefer:
		if !m.deferring && len(m.defers) < 10 {
			m.defers = append(m.defers, s.body)
		}
	case doKeep:
		m.kept[fmt.Sprint("k", s.n%5)] = marshal(m.last)
	case doKept:
		m.last = "kept " + string(m.kept[fmt.Sprint("k", s.n%5)])
	case doLog:
		m.log(fmt.Sprint(s.n, " ", m.last))
	case doRaise:
		panic(&Fault{Code: FaultCode(fmt.Sprint("own-", s.n)), Message: m.last})
	case doSkip:
		if !m.deferring {
			panic(ended{ending: EndSkipped})
		}
	case doReturn:
		panic(&Fault{Code: "return"})
	case doBranch:
		if len(m.last)%2 == 0 {
			m.block(s.body)
		} else {
			m.block(s.other)
		}
	case doRepeat:
		for range s.n {
			m.block(s.body)
		}
	case doPhase:
		m.phase = fmt.Sprint("phase ", s.n)
	}
}

func (m *machine) call(s *statement) {
	last := m.last
	if m.large {
		last = fmt.Sprintf("%s%2000d", last, 0)
	}
	text := marshal(last)
	args := map[string]json.RawMessage{"n": marshal(s.n), "last": text}
	switch s.op {
	case "dev.tag", "dev.desire":
		args = map[string]json.RawMessage{"patch": marshal(map[string]any{[]string{"allowed", "denied"}[min(s.n%6, 1)^1]: last})}
	case "dev.call":
		args = map[string]json.RawMessage{"method": marshal([]string{"denied", "allowed"}[min(s.n%6, 1)]), "payload": text}
	}
	result, f := m.step(s.op, marshal(args), m.deferring)
	if f != nil {
		panic(f)
	}
	m.last = string(result)
	if len(m.last) > 40 {
		m.last = m.last[:40]
	}
}

// worker answers from an activation, as the contract of workers says.
type worker struct {
	a     *Activation
	taken int
	new   []Step
	logs  []LogLine
	local func(entry Entry, number int, op string) (json.RawMessage, *Fault)
}

func (w *worker) log(text string) {
	if w.taken >= len(w.a.Steps) {
		w.logs = append(w.logs, LogLine{Text: text, Step: w.taken})
	}
}

func (w *worker) step(op string, args json.RawMessage, deferred bool) (json.RawMessage, *Fault) {
	if w.a.Cancel != nil && w.taken+1 >= w.a.CancelAt && !deferred {
		return nil, w.a.Cancel
	}
	w.taken++
	if w.taken <= len(w.a.Steps) {
		s := &w.a.Steps[w.taken-1]
		if s.Op != op || string(s.Args) != string(args) || s.Deferred != deferred || s.Open {
			panic(ended{EndDiverged, &Fault{Code: FaultNondeterministic, Message: fmt.Sprintf("step %d was %s %s, is %s %s", w.taken, s.Op, s.Args, op, args)}})
		}
		return s.Result, s.Fault
	}
	s := Step{Op: op, Args: args, Deferred: deferred, Line: fmt.Sprint("pattern.lua:", w.taken)}
	known, _ := Find(op)
	if known.Name == "" || known.Way == Immediate || known.Way == Open {
		w.new = append(w.new, s)
		panic(ended{ending: EndSuspended})
	}
	if known.Way == Local {
		s.Result, s.Fault = w.local(w.a.Entry, w.taken, op)
	}
	if w.new = append(w.new, s); len(w.new) == MaxBatch {
		panic(ended{ending: EndSuspended})
	}
	return s.Result, s.Fault
}

// activate runs an activation from its top.
func (p program) activate(a *Activation, large bool, local func(Entry, int, string) (json.RawMessage, *Fault)) Outcome {
	w := &worker{a: a, local: local}
	m := &machine{host: w, kept: map[string]json.RawMessage{}, large: large}
	maps.Copy(m.kept, a.Kept)
	o := Outcome{Cost: Cost{Instructions: 1}}
	func() {
		defer func() {
			if r := recover(); r != nil {
				e, ok := r.(ended)
				if !ok {
					panic(r)
				}
				o.Ending, o.Fault = e.ending, e.fault
			}
		}()
		block := p.run
		if a.Entry == EntryUndo {
			block = p.undo
		}
		o.Ending, o.Result, o.Fault = m.run(block, func() *Fault { return a.Cancel })
	}()
	if o.Ending != EndSuspended && w.taken < len(a.Steps) && o.Ending != EndDiverged {
		o.Ending, o.Fault = EndDiverged, &Fault{Code: FaultNondeterministic, Message: fmt.Sprintf("steps are left over: %d of %d", w.taken, len(a.Steps))}
	}
	o.Steps, o.Kept, o.Logs, o.Report = w.new, m.kept, w.logs, Report{Phase: m.phase}
	return o
}
