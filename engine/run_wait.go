package engine

import (
	"encoding/json"
	"hash/maphash"
	"strings"
	"sync"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

// wait waits for a condition on the device's twin. It is looked at once here, and
// then whenever the twin has changed; see runFollower.
func (w *runWorld) wait(s *pattern.Step) (pattern.Answer, error) {
	args, fault := readArgs[pattern.WaitArgs](s)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	timeout, fault := stepDuration(s, "timeout", args.Timeout, pattern.MaxWait, pattern.MaxWait)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	h := w.t.hub
	p, fault := h.runs.clauses.get(args.Where, args.Vars)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	record, err := w.twin()
	if err != nil {
		return pattern.Answer{}, err
	}
	doc, _, err := hubDocuments{hub: h}.document(w.t.Tx, w.r.device())
	if err != nil {
		return pattern.Answer{}, err
	}
	if p.Match(doc, time.Time{}) {
		return pattern.Answer{Result: shownReported(&record)}, nil
	}
	return pattern.Answer{Open: true, Ref: w.r.newRef("w"), Due: w.t.Now().Add(timeout)}, nil
}

// shownReported is what a condition that has come true gives. More than a step
// may give it does not: whoever waited for the condition knows that it is true.
func shownReported(t *twinRecord) json.RawMessage {
	text := t.Reported.Plain(nil)
	if len(text) > pattern.MaxValue {
		return nil
	}
	return text
}

// runClauses are conditions that were parsed, the same ones for many runs. It is
// safe for concurrent use.
type runClauses struct {
	mu    sync.Mutex
	known map[string]*query.Predicate
}

// Bounds of runClauses.
const (
	runClausesMost = 2000
	runClauseBytes = 4 << 10 // longer ones are parsed each time
)

// get parses a condition with the values of its names.
func (c *runClauses) get(where string, vars map[string]json.RawMessage) (*query.Predicate, *pattern.Fault) {
	key := where
	if len(vars) > 0 {
		text, err := json.Marshal(vars) // in the order of names
		if err != nil {
			return nil, faultf(pattern.FaultInvalid, "%s: vars: %v", opWait, err)
		}
		key = where + "\x00" + string(text)
	}
	c.mu.Lock()
	p := c.known[key]
	c.mu.Unlock()
	if p != nil {
		return p, nil
	}
	names := make(map[string]query.Value, len(vars))
	for name, text := range vars {
		v, err := query.ParseValue(text)
		if err != nil {
			return nil, faultf(pattern.FaultInvalid, "%s: the value of %s can't be read: %v", opWait, clip(name), err)
		}
		names[name] = v
	}
	p, err := query.ParseWait(where, names)
	if err != nil {
		message := err.Error()
		if e, ok := err.(*query.Error); ok {
			message += "\n" + e.Caret()
		}
		return nil, faultf(pattern.FaultInvalid, "%s: the condition can't be read: %s", opWait, message)
	}
	if len(key) > runClauseBytes {
		return p, nil
	}
	c.mu.Lock()
	if c.known == nil || len(c.known) >= runClausesMost {
		c.known = map[string]*query.Predicate{}
	}
	c.known[strings.Clone(key)] = p
	c.mu.Unlock()
	return p, nil
}

// deviceCounts counts something by device, without the devices' names: two may be
// counted as one. It is safe for concurrent use; the zero value is ready.
type deviceCounts struct {
	mu    sync.Mutex
	seed  maphash.Seed
	count map[uint64]int32
	all   int64
}

func (d *deviceCounts) hashLocked(id TwinID) uint64 {
	if d.count == nil {
		d.seed, d.count = maphash.MakeSeed(), map[uint64]int32{}
	}
	return maphash.String(d.seed, id.DeviceID+rowSeparator+id.ModuleID)
}

func (d *deviceCounts) add(id TwinID, n int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := d.hashLocked(id)
	d.all += int64(n)
	if is := d.count[key] + n; is > 0 {
		d.count[key] = is
	} else {
		delete(d.count, key)
	}
}

func (d *deviceCounts) has(id TwinID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all > 0 && d.count[d.hashLocked(id)] > 0
}

func (d *deviceCounts) total() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all
}

// runMatch is a condition that has come true.
type runMatch struct {
	id, ref string
	result  json.RawMessage
}

// matches looks at the conditions on a device.
func (h *Hub) matches(r storage.Reader, id TwinID, into []runMatch) ([]runMatch, error) {
	var doc query.Value
	var result json.RawMessage
	read := false
	for item, err := range runWaitTable.Scan(r, storage.Range{Prefix: id.key()}) {
		if err != nil {
			return into, err
		}
		parts, err := item.Key.Parts()
		if err != nil || len(parts) != 3 {
			return into, errRunKey
		}
		run, _ := parts[2].(string)
		p, fault := h.runs.clauses.get(item.Value.Where, item.Value.Vars)
		if fault != nil {
			h.log.Error("a condition that is followed can't be read any more: " + fault.Message)
			continue
		}
		if !read {
			_, record, err := h.loadTwin(r, id)
			if isGone(err) {
				return into, nil
			}
			if err != nil {
				return into, err
			}
			if doc, _, err = (hubDocuments{hub: h}).document(r, id); err != nil {
				return into, err
			}
			result, read = shownReported(&record), true
		}
		if p.Match(doc, time.Time{}) {
			into = append(into, runMatch{run, item.Value.Ref, result})
		}
	}
	return into, nil
}
