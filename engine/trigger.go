package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// Triggers of the default version of an enabled pattern start runs by themselves.
// One loop runs them all. What they have to know survives a restart: how far each
// has followed the change log, on which devices its condition holds and what it has
// started there. All of it moves in the transaction that starts a run, so that
// nothing is missed, and nothing started twice, by a kill.

// TriggerState is how a trigger of a pattern stands.
type TriggerState struct {
	Kind    string // "when", "event", "cron", ...
	Active  bool   // it works: its pattern is enabled, and this version the default one
	Marking bool   // it does not yet know on which devices its condition holds
	Started int64  // runs
	// Refused counts what it could not start, such as a second run on a device of
	// which the first has not ended; Why and Last say it of the last one.
	Refused int64
	Why     string
	Last    time.Time
	Job     string    // that runs a cron's; empty: none
	Next    time.Time // of a cron of the whole fleet; zero: none
}

// triggerRecord is a trigger that works.
type triggerRecord struct {
	Trigger pattern.Trigger `json:"t"`
	Version string          `json:"v"` // of the pattern, when it was looked at last
	Since   uint64          `json:"o"` // of the pattern
	Cursor  uint64          `json:"c"` // entry of the change log that is dealt with
	Marking bool            `json:"m,omitempty"`
	// Dropping is set while it is being forgotten.
	Dropping bool      `json:"d,omitempty"`
	After    string    `json:"a,omitempty"` // row behind which marking goes on
	Job      string    `json:"j,omitempty"`
	Next     time.Time `json:"x,omitzero"`
	Run      string    `json:"u,omitempty"` // the last run, of scope fleet
	Started  int64     `json:"s,omitempty"`
	Refused  int64     `json:"r,omitempty"`
	Why      string    `json:"w,omitempty"`
	Last     time.Time `json:"l,omitzero"`
}

// refuse counts what was not started.
func (r *triggerRecord) refuse(now time.Time, why string) {
	r.Refused++
	r.Why, r.Last = clip(why), now
}

// triggerDevice is what a trigger knows of a device.
type triggerDevice struct {
	Matches bool   `json:"m,omitempty"` // its condition holds, and that was dealt with
	Run     string `json:"r,omitempty"` // that it started last
}

var (
	// triggerTable: (pattern, trigger).
	triggerTable = storage.NewTable("trigger", 1, storage.JSON[triggerRecord]())
	// triggerDeviceTable: (pattern, trigger, device).
	triggerDeviceTable = storage.NewTable("trigger_device", 1, storage.JSON[triggerDevice]())
)

// triggerID names a trigger by what it is, so that it stays the same one in the
// next version of its pattern.
type triggerID struct{ pattern, trigger string }

func newTriggerID(name string, t *pattern.Trigger) triggerID {
	b, err := json.Marshal(t)
	if err != nil { // plain values, and JSON that was checked
		b = []byte(t.Kind())
	}
	sum := sha256.Sum256(b)
	return triggerID{name, hex.EncodeToString(sum[:8])}
}

func (id triggerID) key() storage.Key { return storage.Tuple(id.pattern, id.trigger) }

func (id triggerID) device(device string) storage.Key {
	return storage.Tuple(id.pattern, id.trigger, device)
}

// String names it in logs.
func (id triggerID) String() string { return id.pattern + "/" + id.trigger }

// triggerOfKey reads what key or device made.
func triggerOfKey(k storage.Key) (id triggerID, device string, err error) {
	parts, err := k.Parts()
	if err != nil || len(parts) < 2 {
		return id, "", errors.Join(err, errors.New("key is not that of a trigger"))
	}
	id.pattern, _ = parts[0].(string)
	id.trigger, _ = parts[1].(string)
	if len(parts) > 2 {
		device, _ = parts[2].(string)
	}
	return id, device, nil
}

// triggerState is what the loop that runs triggers is told.
type triggerState struct {
	signal chan struct{} // capacity 1: patterns have changed
	rate   *rate.Limiter // of runs that are started
}

func (t *triggerState) init(l *Limits) {
	t.signal = make(chan struct{}, 1)
	t.rate = rate.NewLimiter(rate.Limit(l.PatternTriggerRate), max(1, l.PatternTriggerBurst))
}

// look has the loop read the triggers again. It never blocks.
func (t *triggerState) look() {
	select {
	case t.signal <- struct{}{}:
	default:
	}
}

// showTriggers says how the triggers of a version stand, in the manifest's order.
func showTriggers(r storage.Reader, record *patternRecord, isDefault bool) ([]TriggerState, error) {
	var list []TriggerState
	for i := range record.Manifest.Triggers {
		t := &record.Manifest.Triggers[i]
		s := TriggerState{Kind: t.Kind()}
		if isDefault && record.Enabled {
			now, err := triggerTable.Get(r, newTriggerID(record.Manifest.Name, t).key())
			if err != nil && !errors.Is(err, storage.ErrNotFound) {
				return nil, err
			}
			if err == nil && now.Version == record.Manifest.Version && now.Since == record.Since && !now.Dropping {
				s = TriggerState{
					Kind: s.Kind, Active: true, Marking: now.Marking, Started: now.Started, Refused: now.Refused, Why: now.Why,
					Last: now.Last.UTC(), Job: now.Job, Next: now.Next.UTC(),
				}
			}
		}
		list = append(list, s)
	}
	return list, nil
}
