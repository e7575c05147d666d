package scripting

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

const (
	placesMost = 32 // programs that a worker keeps compiled

	workerHeap     = 40 << 20 // bytes at which its collector works harder
	workerStack    = 16 << 20 // bytes of a goroutine's
	workerGC       = 200      // percent: what an activation leaves is short-lived
	workerArrayMax = 1 << 17  // an index beyond it makes no room for all before it
)

// Worker is the life of a worker process: it answers what its [Pool] asks on in,
// until that ends. Before the first request it takes away from itself what it can
// do beyond reading in and writing out, for good: it is for a process of its own.
func Worker(in io.Reader, out io.Writer) error {
	runtime.GOMAXPROCS(1)
	debug.SetMemoryLimit(workerHeap)
	debug.SetGCPercent(workerGC)
	debug.SetMaxStack(workerStack)
	debug.SetTraceback("single")
	lua.MaxArrayIndex = workerArrayMax
	return work(in, out, confine(), walls{})
}

// work answers requests; hello tells the pool what the worker could not take away
// from itself.
func work(in io.Reader, out io.Writer, hello string, w walls) error {
	s := &servant{out: out, lib: newLibrary(), walls: w}
	at := s.answer.begin(frameHello)
	s.answer.text(hello)
	if err := s.send(at); err != nil {
		return err
	}
	r := bufio.NewReaderSize(in, 64<<10)
	var buf []byte
	for {
		var kind byte
		var body []byte
		var err error
		if kind, body, buf, err = readFrame(r, buf, requestMost); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := s.serve(kind, body); err != nil {
			return err
		}
		if cap(buf) > 1<<20 {
			buf = nil
		}
	}
}

// servant is what a worker has.
type servant struct {
	out    io.Writer
	lib    *library
	walls  walls
	places [placesMost]compiled
	answer packer
}

// compiled is a compiled program, or why there is none.
type compiled struct {
	program *Program
	fault   *pattern.Fault
}

// send sends the frame that began at at, and makes room for the next.
func (s *servant) send(at int) error {
	s.answer.end(at)
	if len(s.answer.b) > answerMost {
		return fmt.Errorf("an answer of %d bytes, at most %d: %w", len(s.answer.b), answerMost, errWire)
	}
	_, err := s.out.Write(s.answer.b)
	if s.answer.b = s.answer.b[:0]; cap(s.answer.b) > 1<<20 {
		s.answer.b = nil
	}
	return err
}

func (s *servant) serve(kind byte, body []byte) error {
	u := &unpacker{b: body}
	switch kind {
	case frameProgram:
		n, b := u.int(), u.bundle()
		if err := u.done(); err != nil || n < 0 || n >= placesMost {
			return errWire
		}
		s.places[n] = compiled{}
		p, err := compile(b, s.lib, false, s.walls)
		s.places[n].program = p
		s.places[n].fault = asFault(err)
		return nil // its first activation tells
	case frameActivation:
		n, a := u.int(), u.activation()
		if err := u.done(); err != nil || n < 0 || n >= placesMost {
			return errWire
		}
		o := pattern.Outcome{Ending: pattern.EndFailed, Fault: s.places[n].fault}
		switch {
		case s.places[n].program != nil:
			o = Execute(s.places[n].program, a)
		case o.Fault == nil:
			return errWire
		}
		at := s.answer.begin(frameOutcome)
		s.answer.outcome(&o)
		return s.send(at)
	case frameLoad:
		b := u.bundle()
		if err := u.done(); err != nil {
			return err
		}
		return s.load(b)
	}
	return errWire
}

// load answers with what a bundle declares. The manifest is read here, too, though
// the pool reads it again: what takes too long does so in the worker.
func (s *servant) load(b *pattern.Bundle) error {
	text, err := declaration(b, s.lib, s.walls)
	if err != nil {
		if f, ok := errors.AsType[*pattern.Fault](err); ok {
			at := s.answer.begin(frameFault)
			s.answer.fault(f)
			return s.send(at)
		}
		at := s.answer.begin(frameError)
		s.answer.text(err.Error())
		return s.send(at)
	}
	_, _ = manifestOf(text) // the pool finds the same error
	at := s.answer.begin(frameManifest)
	s.answer.raw(text)
	return s.send(at)
}

func asFault(err error) *pattern.Fault {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*pattern.Fault](err); ok {
		return f
	}
	return &pattern.Fault{Code: pattern.FaultLua, Message: err.Error()}
}
