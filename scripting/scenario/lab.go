package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/scripting"
)

// Bounds of one attempt at a test.
const (
	eventsMost  = 50_000 // of its virtual time
	devicesMost = 1000
	attemptTime = 5 * time.Minute // of the wall clock: for what the other bounds do not see
)

// programs are the patterns of a test by name; the one under test is among them.
type programs map[string]*loaded

// loaded is a pattern that can be run.
type loaded struct {
	name     string
	bundle   *pattern.Bundle
	manifest *pattern.Manifest
	program  *scripting.Program
	// stub, unless nil, stands for a program: it gives a result or a fault.
	stub func(device string, params json.RawMessage) (json.RawMessage, *pattern.Fault, error)
}

// execute runs an activation; tests of this package put others in its place.
type execute func(p *scripting.Program, a *pattern.Activation) pattern.Outcome

// lab is one attempt at one test: its clock, its world outside (devices, people,
// servers) and its hub.
type lab struct {
	ctx context.Context
	clock
	hub      *hub
	programs programs
	main     string // the pattern under test
	execute  execute
	trace    bool // gather lines
	// recovered is what tests of this package do to a hub before it goes on after a
	// crash; nil: nothing.
	recovered func(*hub)

	began   time.Time
	devices []*device
	servers []*server
	secrets map[string]string
	answers []decision // of people to questions, in order
	grants  func(list pattern.Needs) pattern.Needs

	effects []string                // what left the hub, in order
	lines   map[string]map[int]bool // that ran, by file

	points  []string // places at which a crash would make a difference, so far
	crashAt int      // at which of them it happens; -1: at none
	crashed string   // the place where it did; empty: not yet
	// unsure is the step that the crash has left uncertain.
	unsure *unsure
	twice  string // where the program sent again what may have been taken
	// repeated says that the crash has had the hub send again what may be.
	repeated bool
}

// unsure is a command of which nobody knows what came of it.
type unsure struct {
	run, what, payload string
	idempotent         bool
}

func newLab(ctx context.Context, p programs, main string, x execute) *lab {
	// A Monday morning, so that windows and cron have something to do.
	began := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	l := &lab{
		ctx: ctx, clock: clock{now: began}, programs: p, main: main, execute: x, began: began,
		secrets: map[string]string{}, lines: map[string]map[int]bool{}, crashAt: -1,
		grants: func(list pattern.Needs) pattern.Needs { return list },
	}
	l.hub = &hub{lab: l, epoch: 1, memory: &memory{Twins: map[string]*identity{}, Values: map[string]json.RawMessage{}}}
	return l
}

// errStuck says that nothing will ever happen again.
var errStuck = errors.New("nothing is left to happen, and the run waits")

// advance does what is due, until done says so or time would pass a moment; a
// zero one is never. A nil done is never true.
func (l *lab) advance(until time.Time, done func() bool) error {
	for {
		did, err := l.hub.work()
		switch {
		case err != nil:
			return err
		case l.ctx.Err() != nil:
			return context.Cause(l.ctx)
		case did && l.ran <= eventsMost:
			l.ran++
			continue
		case !did && done != nil && done():
			return nil
		case l.ran > eventsMost:
			return fmt.Errorf("more than %d things have happened in the test, which is at %s of its virtual time: does something repeat for ever?", eventsMost, l.now.Sub(l.began))
		}
		e := l.next(l.hub.epoch)
		switch {
		case !until.IsZero() && (e == nil || e.at.After(until)):
			if until.After(l.now) {
				l.now = until
			}
			return nil
		case e == nil:
			return errStuck
		}
		if err := l.take().do(); err != nil {
			return err
		}
	}
}

// effect takes note of something that left the hub.
func (l *lab) effect(format string, args ...any) {
	l.effects = append(l.effects, fmt.Sprintf(format, args...))
}

// point is called where a crash makes a difference. If it reports true the hub
// has crashed and another one runs in its place: the caller returns.
func (l *lab) point(format string, args ...any) (bool, error) {
	n := len(l.points)
	l.points = append(l.points, fmt.Sprintf(format, args...))
	if n != l.crashAt {
		return false, nil
	}
	l.crashed = l.points[n]
	return true, l.restart()
}

// restart puts a new hub in the place of the one that runs, which takes over
// what that had stored.
func (l *lab) restart() error {
	text, err := json.Marshal(l.hub.memory)
	if err != nil {
		return fmt.Errorf("store the hub: %w", err)
	}
	m := &memory{}
	if err := json.Unmarshal(text, m); err != nil {
		return fmt.Errorf("read the hub again: %w", err)
	}
	if m.Values == nil {
		m.Values = map[string]json.RawMessage{}
	}
	l.hub = &hub{lab: l, epoch: l.hub.epoch + 1, memory: m}
	for _, d := range l.devices {
		d.greeted = false
	}
	if l.recovered != nil {
		l.recovered(l.hub)
	}
	return l.hub.recover()
}

// device returns the fake device of an id, nil when there is none.
func (l *lab) device(id string) *device {
	i := slices.IndexFunc(l.devices, func(d *device) bool { return d.id == id })
	if i < 0 {
		return nil
	}
	return l.devices[i]
}

// ran takes note of lines.
func (l *lab) cover(lines map[string][]int) {
	for file, list := range lines {
		if l.lines[file] == nil {
			l.lines[file] = map[int]bool{}
		}
		for _, n := range list {
			l.lines[file][n] = true
		}
	}
}
