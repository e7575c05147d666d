package simulator

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/muster-hub/muster/protocols/client"
)

// ErrNoDevice says that a Source has no such device.
var ErrNoDevice = errors.New("the device is not there")

// Source is what a log is compared with: a running hub, or a data directory.
type Source interface {
	// Position returns how far the stores have come.
	Position(ctx context.Context) (client.Position, error)
	// Twin returns a device's sections with their $version, or ErrNoDevice.
	Twin(ctx context.Context, device string) (reported, desired json.RawMessage, err error)
	// Messages calls see with the device and the message-id of every message
	// that is kept, until it returns an error.
	Messages(ctx context.Context, see func(device, id string) error) error
}

// versionsPerEpoch is how far a restore raises the $version of desired properties.
const versionsPerEpoch = 1_000_000

// Count says how the acknowledgements of one kind fared.
type Count struct {
	Checked   int64 // looked up: so many were there or Missing
	Missing   int64
	After     int64 // acknowledged for things that lie behind the sequence asked for
	Undecided int64 // before or behind it: the log can't tell
	Dropped   int64 // messages: not there, and older than what retention has left
	MayDrop   int64 // messages: not there, and at the edge of what it has left
}

// Verdict is what Verify found.
type Verdict struct {
	Missing    []string // in words, at most missingMost
	Reported   Count
	Desired    Count
	Telemetry  Count
	Duplicates int64  // messages that are kept more than once
	Arrived    int64  // messages that are kept although their acknowledgement never came
	Strangers  int64  // messages of a run of the log that the log does not know
	Oldest     uint64 // position of the oldest message that is kept
	OtherEpoch bool   // the source is of another epoch than the log
}

// missingMost bounds the list of what is missing; all is counted.
const missingMost = 1000

// Verify looks up all that the log says was acknowledged. With until, only what
// provably lies at or before that sequence must be there: it was acknowledged
// before the hub was asked for its position and named a sequence up to until.
// Messages do not move the sequence, so for them that must be below until.
// A log can be verified once.
func (a *Acks) Verify(ctx context.Context, src Source, until uint64) (Verdict, error) {
	v := verifying{acks: a, until: until, next: a.nextMarks()}
	before, err := src.Position(ctx)
	if err != nil {
		return v.Verdict, err
	}
	if n := len(a.Marks); n > 0 {
		v.OtherEpoch = a.Marks[n-1].Epoch != before.Epoch
		v.raised = versionsPerEpoch * max(0, int64(before.EpochNumber)-int64(a.Marks[n-1].EpochNumber))
	}
	devices := slices.Sorted(maps.Keys(a.devices))
	for _, id := range devices {
		if err := v.twin(ctx, src, id, a.devices[id]); err != nil {
			return v.Verdict, err
		}
	}
	if err := src.Messages(ctx, v.see); err != nil {
		return v.Verdict, err
	}
	after, err := src.Position(ctx) // retention may have gone on meanwhile
	if err != nil {
		return v.Verdict, err
	}
	v.Oldest = after.OldestMessage
	for _, id := range devices {
		v.messages(id, a.devices[id])
	}
	return v.Verdict, nil
}

// nextMarks gives, for each question, the first mark that was asked for after it.
func (a *Acks) nextMarks() []*AckMark {
	next := make([]*AckMark, a.last+1)
	at := len(a.Marks) - 1
	var m *AckMark
	for ask := a.last; ask >= 0; ask-- {
		next[ask] = m
		if at >= 0 && a.Marks[at].Ask == ask {
			m = &a.Marks[at]
			at--
		}
	}
	return next
}

// verifying is a Verify that goes on.
type verifying struct {
	Verdict
	acks   *Acks
	until  uint64
	next   []*AckMark // by question: the first mark after it
	raised int64
}

// place says where something lies.
type place int

const (
	due       place = iota // at or before the sequence asked for
	undecided              // nobody can tell
	behind
)

// where places something against until; messages do not move the sequence.
func (v *verifying) where(b bounds, message bool) place {
	if v.until == 0 {
		return due
	}
	if m := v.next[b.before]; m != nil && (m.Sequence < v.until || m.Sequence == v.until && !message) {
		return due
	}
	if m := v.mark(b.since); m != nil && m.Sequence >= v.until {
		return behind
	}
	return undecided
}

// mark is the mark that a question became, nil for none.
func (v *verifying) mark(ask int32) *AckMark {
	i, ok := slices.BinarySearchFunc(v.acks.Marks, ask, func(m AckMark, ask int32) int { return cmp.Compare(m.Ask, ask) })
	if !ok {
		return nil
	}
	return &v.acks.Marks[i]
}

// count counts something and reports whether it must be there.
func (v *verifying) count(c *Count, b bounds, message bool) bool {
	switch v.where(b, message) {
	case behind:
		c.After++
		return false
	case undecided:
		c.Undecided++
		return false
	}
	c.Checked++
	return true
}

func (v *verifying) missing(c *Count, n int64, format string, args ...any) {
	if c.Missing += n; len(v.Missing) < missingMost {
		v.Verdict.Missing = append(v.Verdict.Missing, fmt.Sprintf(format, args...))
	}
}

// twin looks up the newest versions of a device that must be there: a later
// version holds the earlier ones.
func (v *verifying) twin(ctx context.Context, src Source, id string, d *deviceAcks) error {
	var reported *reportedAck
	var desired int64
	var reports, told int64
	for i := range d.reported {
		if v.count(&v.Reported, d.reported[i].bounds, false) {
			reported = &d.reported[i]
			reports++
		}
	}
	for _, e := range d.desired {
		if v.count(&v.Desired, e.bounds, false) {
			desired = max(desired, e.version)
			told++
		}
	}
	if reports+told == 0 {
		return nil
	}
	haveReported, haveDesired, err := src.Twin(ctx, id)
	if errors.Is(err, ErrNoDevice) {
		v.missing(&v.Reported, reports, "%s: the device is not there", id)
		v.Desired.Missing += told
		return nil
	}
	if err != nil {
		return err
	}
	if reported != nil {
		lost := int64(0) // acknowledgements of newer versions than the hub has
		version := versionOf(haveReported)
		for _, e := range d.reported {
			if e.version > version && e.version <= reported.version {
				lost++
			}
		}
		if text := reported.lacks(haveReported); text != "" {
			v.missing(&v.Reported, max(lost, 1), "%s: %s", id, text)
		}
	}
	if have := versionOf(haveDesired); told > 0 && have < desired+v.raised {
		v.missing(&v.Desired, 1, "%s: the device was told of version %d of its desired properties, the hub has version %d", id, desired+v.raised, have)
	}
	return nil
}

func versionOf(section json.RawMessage) int64 {
	var have struct {
		Version int64 `json:"$version"`
	}
	if json.Unmarshal(section, &have) != nil {
		return -1
	}
	return have.Version
}

// lacks says what the reported properties of a device lack; "" when nothing.
func (e *reportedAck) lacks(reported json.RawMessage) string {
	var have struct {
		Version int64 `json:"$version"`
		Sim     struct {
			N       int64 `json:"n"`
			Desired int64 `json:"desired"`
		} `json:"sim"`
	}
	if err := json.Unmarshal(reported, &have); err != nil {
		return "its reported properties cannot be read: " + err.Error()
	}
	if have.Version < e.version || have.Sim.N < e.n || have.Version == e.version && have.Sim.N != e.n {
		return fmt.Sprintf("version %d with value %d was acknowledged, the hub has version %d with value %d", e.version, e.n, have.Version, have.Sim.N)
	}
	if have.Sim.Desired < e.desired {
		return fmt.Sprintf("version %d acknowledged version %d of the desired properties, the hub's version %d acknowledges %d", e.version, e.desired, have.Version, have.Sim.Desired)
	}
	return ""
}

// see takes a message that is kept.
func (v *verifying) see(device, id string) error {
	of, run, n, ok := parseMessageID(id)
	number, known := v.acks.runs[run]
	if !ok || !known || of != device {
		return nil // of another simulator
	}
	d := v.acks.devices[device]
	if d == nil || len(d.messages) <= number {
		v.Strangers++
		return nil
	}
	list := d.messages[number]
	i, ok := slices.BinarySearchFunc(list, n, func(m messageAck, n int64) int { return cmp.Compare(int64(m.n), n) })
	switch {
	case !ok:
		v.Strangers++
	case list[i].found:
		v.Duplicates++
	default:
		list[i].found = true
		if !list[i].acked {
			v.Arrived++
		}
	}
	return nil
}

// messages judges a device's messages when all that are kept have been seen.
func (v *verifying) messages(id string, d *deviceAcks) {
	c := &v.Telemetry
	for run, list := range d.messages {
		for i := range list {
			m := &list[i]
			if !m.acked || !v.count(c, m.bounds, true) || m.found {
				continue
			}
			// It lies behind the newest message of the mark that was known when it was sent, and not
			// behind that of the mark that was asked for after its acknowledgement.
			upper, lower := v.next[m.before], v.mark(m.since)
			switch {
			case upper != nil && upper.Messages < v.Oldest:
				c.Dropped++
			case v.Oldest > 1 && (lower == nil || lower.Messages+1 < v.Oldest):
				c.MayDrop++
			default:
				v.missing(c, 1, "%s: the message %s was acknowledged and is not there", id, messageID(id, v.acks.Runs[run].ID, int64(m.n)))
			}
		}
	}
}
