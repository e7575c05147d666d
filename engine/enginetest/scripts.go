package enginetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/pattern"
)

// Script is a pattern whose program is Go: it is run again from its top each time,
// as one in Lua is. Check and Gate are called as the entries of that name are.
type Script struct {
	Manifest pattern.Manifest
	Run      func(p *Play) (result any, err error)
	Undo     func(p *Play) (result any, err error)
	Gate     func(p *Play) (result any, err error)
	Check    func(p *Play) (result any, err error)
}

// Scripts is an engine.Interpreter whose programs are Go functions, so that tests
// of the engine need no Lua.
type Scripts struct {
	// Fail is asked before each group of activations; an error is Activate's. nil:
	// none fails.
	Fail func(list []pattern.Activation) error
	// Activations counts those that were made.
	Activations atomic.Int64

	mu   sync.Mutex
	list map[string]*Script // by name and version
}

// NewScripts returns an interpreter of some scripts. What their manifests leave
// open gets a value: the version 1.0.0, and the host API's version.
func NewScripts(list ...Script) *Scripts {
	s := &Scripts{list: map[string]*Script{}}
	for _, script := range list {
		s.Add(script)
	}
	return s
}

// Add adds a script.
func (s *Scripts) Add(script Script) {
	m := &script.Manifest
	if m.Version == "" {
		m.Version = "1.0.0"
	}
	if m.Scope == "" {
		m.Scope = pattern.ScopeDevice
	}
	if m.Conflicts == "" {
		m.Conflicts = pattern.ConflictQueue
	}
	m.API = pattern.API
	m.HasUndo, m.HasGate, m.HasCheck = script.Undo != nil, script.Gate != nil, script.Check != nil
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list[m.Name+" "+m.Version] = &script
}

const scriptMark = "-- a program in Go: "

// Bundle returns the files of a script, which name it.
func (s *Scripts) Bundle(name, version string) *pattern.Bundle {
	return &pattern.Bundle{Files: map[string][]byte{pattern.MainFile: []byte(scriptMark + name + " " + version + "\n")}}
}

// Install installs all scripts, with all that they need, unless they are there.
func (s *Scripts) Install(ctx context.Context, h *engine.Hub) error {
	s.mu.Lock()
	var list []*Script
	for _, script := range s.list {
		list = append(list, script)
	}
	s.mu.Unlock()
	for _, script := range list {
		m := &script.Manifest
		_, err := h.InstallPattern(ctx, Owner(), engine.PatternInstall{Bundle: s.Bundle(m.Name, m.Version), Unsigned: true, Grant: m.Needs})
		if err != nil && engine.AsError(err).Code != engine.CodePatternAlreadyExists {
			return fmt.Errorf("install %s: %w", m.Name, err)
		}
	}
	return nil
}

// WithScripts gives the hub an interpreter; Install must be called.
func WithScripts(s *Scripts) Option { return func(o *engine.Options) { o.Scripts = s } }

// InstallScripts installs all scripts of a hub that was made WithScripts.
func InstallScripts(tb testing.TB, h *engine.Hub, s *Scripts) {
	tb.Helper()
	if err := s.Install(tb.Context(), h); err != nil {
		tb.Fatal(err)
	}
}

func (s *Scripts) find(b *pattern.Bundle) (*Script, error) {
	text, ok := strings.CutPrefix(string(b.Files[pattern.MainFile]), scriptMark)
	s.mu.Lock()
	defer s.mu.Unlock()
	script := s.list[strings.TrimSpace(text)]
	if !ok || script == nil {
		return nil, &pattern.Fault{Code: pattern.FaultLua, Message: "there is no such script"}
	}
	return script, nil
}

// Load implements engine.Interpreter.
func (s *Scripts) Load(_ context.Context, b *pattern.Bundle) (*pattern.Manifest, error) {
	script, err := s.find(b)
	if err != nil {
		return nil, err
	}
	m := script.Manifest
	return &m, nil
}

// Activate implements engine.Interpreter.
func (s *Scripts) Activate(_ context.Context, b *pattern.Bundle, list []pattern.Activation) ([]pattern.Outcome, error) {
	if s.Fail != nil {
		if err := s.Fail(list); err != nil {
			return nil, err
		}
	}
	script, err := s.find(b)
	if err != nil {
		return nil, err
	}
	outcomes := make([]pattern.Outcome, len(list))
	for i := range list {
		s.Activations.Add(1)
		outcomes[i] = script.activate(&list[i])
	}
	return outcomes, nil
}

// Play is one activation of a script's program, which sees the host's calls as its
// methods.
type Play struct {
	pattern.Activation
	next      int // steps that were taken
	deferred  []func(p *Play)
	deferring bool
	out       pattern.Outcome
}

// suspension unwinds a program at its last new step.
type suspension struct{}

// divergence unwinds a program that does otherwise than its journal says.
type divergence struct{ fault *pattern.Fault }

// errSkipped is the error of a program that found nothing to do.
var errSkipped = errors.New("skipped")

func (script *Script) activate(a *pattern.Activation) (out pattern.Outcome) {
	p := &Play{Activation: *a}
	defer func() {
		out = p.out
		out.Cost.Instructions, out.Cost.Calls = int64(100+10*p.next), int64(p.next)
		switch r := recover().(type) {
		case nil:
		case suspension:
			out.Ending = pattern.EndSuspended
		case divergence:
			out.Ending, out.Fault = pattern.EndDiverged, r.fault
		default:
			panic(r)
		}
	}()
	run := map[pattern.Entry]func(*Play) (any, error){
		pattern.EntryRun: script.Run, pattern.EntryUndo: script.Undo, pattern.EntryGate: script.Gate, pattern.EntryCheck: script.Check,
	}[a.Entry]
	if run == nil {
		p.out.Ending, p.out.Fault = pattern.EndFailed, &pattern.Fault{Code: pattern.FaultLua, Message: "the program has no " + string(a.Entry)}
		return p.out
	}
	result, err := run(p)
	if err != nil || p.Cancel != nil {
		p.cleanUp(len(a.Steps))
	}
	if left := len(a.Steps) - p.next; left > 0 {
		p.diverge(fmt.Sprintf("%d steps of the journal were not taken", left))
	}
	var text json.RawMessage
	if result != nil {
		text, _ = json.Marshal(result) // a test's own value
	}
	switch fault, ok := errors.AsType[*pattern.Fault](err); {
	case err == nil:
		p.out.Ending, p.out.Result = pattern.EndReturned, text
	case errors.Is(err, errSkipped):
		p.out.Ending, p.out.Result = pattern.EndSkipped, text
	case ok:
		p.out.Ending, p.out.Fault = pattern.EndFailed, fault
	default:
		p.out.Ending, p.out.Fault = pattern.EndFailed, &pattern.Fault{Code: pattern.FaultLua, Message: err.Error()}
	}
	return p.out
}

// cleanUp runs the deferred functions, whose steps go on behind those of the
// program.
func (p *Play) cleanUp(journal int) {
	if p.CancelAt > 0 {
		p.next = max(p.next, min(p.CancelAt-1, journal))
	}
	p.deferring = true
	for _, f := range slices.Backward(p.deferred) {
		f(p)
	}
}

func (p *Play) diverge(message string) {
	panic(divergence{&pattern.Fault{Code: pattern.FaultNondeterministic, Message: message}})
}

// Defer has f run when the program fails or is canceled.
func (p *Play) Defer(f func(p *Play)) { p.deferred = append(p.deferred, f) }

// Step takes a step and returns its answer, or its fault as an error.
func (p *Play) Step(op string, args any) (json.RawMessage, error) {
	text, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	n := p.next + 1
	if p.Cancel != nil && n >= p.CancelAt && !p.deferring {
		return nil, p.Cancel
	}
	p.next = n
	if n <= len(p.Steps) {
		s := &p.Steps[n-1]
		if s.Op != op || string(s.Args) != string(text) {
			p.diverge(fmt.Sprintf("step %d is %s %s, and was %s %s", n, op, text, s.Op, s.Args))
		}
		if s.Fault != nil {
			return nil, s.Fault
		}
		return s.Result, nil
	}
	s := pattern.Step{Op: op, Args: text, Line: fmt.Sprintf("pattern.lua:%d", n), Deferred: p.deferring}
	known, _ := pattern.Find(op)
	if known.Way == pattern.Local {
		s.Result = p.local(op, text)
	}
	p.out.Steps = append(p.out.Steps, s)
	if len(p.out.Steps) >= pattern.MaxBatch || known.Way != pattern.Local && known.Way != pattern.Assumed {
		panic(suspension{})
	}
	return s.Result, nil
}

// local answers a step from what the activation holds.
func (p *Play) local(op string, args json.RawMessage) json.RawMessage {
	switch op {
	case "ctx.now":
		text, _ := json.Marshal(p.Now) // a time always marshals
		return text
	case "dev.twin":
		return p.Twin
	case "dev.get":
		var a pattern.GetArgs
		if json.Unmarshal(args, &a) != nil {
			return nil
		}
		var v any
		_ = json.Unmarshal(p.Twin, &v) // nil when there is no twin
		path := strings.Split(a.Path, ".")
		if path[0] == "reported" || path[0] == "desired" {
			path = append([]string{"properties"}, path...)
		}
		for _, name := range path {
			m, _ := v.(map[string]any)
			v = m[name]
		}
		if v == nil {
			return a.Default
		}
		text, _ := json.Marshal(v) // it was read from JSON
		return text
	}
	return json.RawMessage("1")
}

// The host's calls; see the types of the same names in package pattern.

// Get reads the twin.
func (p *Play) Get(path string) (json.RawMessage, error) {
	return p.Step("dev.get", pattern.GetArgs{Path: path})
}

// Call calls a method.
func (p *Play) Call(a pattern.CallArgs) (json.RawMessage, error) { return p.Step("dev.call", a) }

// Desire changes desired properties.
func (p *Play) Desire(patch string) (json.RawMessage, error) {
	return p.Step("dev.desire", pattern.PatchArgs{Patch: json.RawMessage(patch)})
}

// Tag changes tags.
func (p *Play) Tag(patch string) error {
	_, err := p.Step("dev.tag", pattern.PatchArgs{Patch: json.RawMessage(patch)})
	return err
}

// Wait waits for a condition.
func (p *Play) Wait(where string, vars map[string]json.RawMessage, timeout string) (json.RawMessage, error) {
	return p.Step("dev.wait", pattern.WaitArgs{Where: where, Vars: vars, Timeout: timeout})
}

// Sleep waits for a while.
func (p *Play) Sleep(d time.Duration) error {
	_, err := p.Step("ctx.sleep", pattern.SleepArgs{For: d.String()})
	return err
}

// Approve asks a person.
func (p *Play) Approve(question string) (json.RawMessage, error) {
	return p.Step("ctx.approve", pattern.ApproveArgs{Question: question})
}

// Report says how far the program is.
func (p *Play) Report(phase string, progress float64) {
	p.out.Report = pattern.Report{Phase: phase, Progress: progress}
}

// Keep keeps a value for the undo.
func (p *Play) Keep(name string, value any) {
	text, _ := json.Marshal(value) // a test's own value
	if p.out.Kept == nil {
		p.out.Kept = map[string]json.RawMessage{}
		maps.Copy(p.out.Kept, p.Kept)
	}
	p.out.Kept[name] = text
}

// Log logs a line, once.
func (p *Play) Log(format string, args ...any) {
	if p.next >= len(p.Steps) {
		p.out.Logs = append(p.out.Logs, pattern.LogLine{Line: fmt.Sprintf("pattern.lua:%d", p.next), Text: fmt.Sprintf(format, args...)})
	}
}

// Hot has the activation tell that it ran so many instructions at a line.
func (p *Play) Hot(line string, instructions int64) {
	p.out.Hot = append(p.out.Hot, pattern.HotLine{Line: line, Instructions: instructions})
}

// Skip ends the program, which returns its results: there is nothing to do.
func (p *Play) Skip(result any) (any, error) { return result, errSkipped }
