package engine

import (
	"encoding/json"
	"errors"
	"reflect"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// The scopes of ctx:kv, and how many pairs each may have.
const (
	valuesOfRun         = "run"
	valuesOfPattern     = "pattern"
	valuesOfRunMost     = 100
	valuesOfPatternMost = 10_000
	valueKeyBytes       = 256
)

// counterRunValues counts the pairs that the runs of a pattern share.
const counterRunValues = "runs.values."

// keyValue is the operations of ctx:kv.
func (w *runWorld) keyValue(s *pattern.Step) (a pattern.Answer, err error) {
	args, fault := readArgs[pattern.KeyValueArgs](s)
	if fault != nil {
		return pattern.Answer{Fault: fault}, nil
	}
	owner := w.r.id
	switch args.Scope {
	case valuesOfRun:
	case valuesOfPattern:
		owner = w.r.Pattern
	default:
		return fail(pattern.FaultInvalid, "%s: the scope %q is not known, expected %s or %s", s.Op, clip(args.Scope), valuesOfRun, valuesOfPattern), nil
	}
	if args.Key == "" || len(args.Key) > valueKeyBytes {
		return fail(pattern.FaultInvalid, "%s: a key of 1 to %d bytes is needed", s.Op, valueKeyBytes), nil
	}
	key := storage.Tuple(args.Scope, owner, args.Key)
	old, err := runValueTable.Get(w.t.Tx, key)
	has := err == nil
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return a, err
	}
	put := func(v json.RawMessage) error { return w.putValue(args.Scope, key, has, v) }
	switch s.Op {
	case "kv.get":
		return pattern.Answer{Result: old}, nil
	case "kv.set":
		return a, put(args.Value)
	case "kv.incr":
		n := 0.0
		if has && json.Unmarshal(old, &n) != nil {
			return fail(pattern.FaultInvalid, "%s: what %q holds is no number", s.Op, args.Key), nil
		}
		by := args.By
		if by == 0 {
			by = 1
		}
		text, err := json.Marshal(n + by)
		if err != nil {
			return fail(pattern.FaultInvalid, "%s: the sum is no number that can be kept", s.Op), nil
		}
		return pattern.Answer{Result: text}, put(text)
	default: // kv.cas
		if !equalJSON(old, args.Old) {
			return pattern.Answer{Result: json.RawMessage("false")}, nil
		}
		return pattern.Answer{Result: json.RawMessage("true")}, put(args.Value)
	}
}

// putValue stores a pair, or deletes it if there is no value.
func (w *runWorld) putValue(scope string, key storage.Key, has bool, v json.RawMessage) error {
	gone := len(v) == 0 || string(v) == "null"
	switch {
	case gone && !has:
		return nil
	case gone:
		w.countValue(scope, -1)
		return runValueTable.Delete(w.t.Tx, key)
	case has:
		return runValueTable.Put(w.t.Tx, key, v)
	}
	most, n := int64(valuesOfRunMost), int64(w.r.Keys)
	if scope == valuesOfPattern {
		var err error
		most = valuesOfPatternMost
		if n, err = storage.Counter(w.t.Tx, counterRunValues+w.r.Pattern); err != nil {
			return err
		}
	}
	if n >= most {
		return errf(CodeTooManyRuns, "the %s has %d keys already, as many as may be", scope, n)
	}
	w.countValue(scope, 1)
	return runValueTable.Put(w.t.Tx, key, v)
}

func (w *runWorld) countValue(scope string, n int) {
	if scope == valuesOfRun {
		w.r.Keys += n
		return
	}
	w.t.Add(counterRunValues+w.r.Pattern, int64(n))
}

// equalJSON reports whether two texts are the same value; an empty one is null.
func equalJSON(a, b json.RawMessage) bool {
	var x, y any
	if len(a) > 0 && json.Unmarshal(a, &x) != nil || len(b) > 0 && json.Unmarshal(b, &y) != nil {
		return false
	}
	return reflect.DeepEqual(x, y)
}
