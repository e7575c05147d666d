package simulator

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

// ackLineMost is the longest line of a log.
const ackLineMost = 64 << 10

// Acks is an acknowledgement log that has been read.
type Acks struct {
	Runs      []AckRun
	Marks     []AckMark // answered, in the order of the log
	Reported  int64     // acknowledged patches of reported properties
	Telemetry int64     // acknowledged messages
	Desired   int64     // versions of desired properties that devices were told of
	Methods   int64     // methods that were answered
	Unknown   int64     // sent without an answer
	Broken    []string  // what shows that the log is not whole
	Backwards []string  // versions that are not past an earlier one's: something was lost between

	devices map[string]*deviceAcks
	runs    map[string]int // number of each run
	last    int32          // ask that was read last; all runs together
	open    int32          // the ask that was not answered yet, else 0
	sum     uint32
}

// AckRun is one run of a simulator in a log.
type AckRun struct {
	ID    string
	Line  int64 // where it begins
	Lines int64
	Ended bool // in order

	marks []int32 // the asks of its marks, in order
}

// AckMark is an answered question for the hub's position.
type AckMark struct {
	Ask int32 // number among all questions of the log
	AckPosition
}

// bounds say between which questions something happened: it was sent after the
// answer to one (0: none) and acknowledged before another was asked.
type bounds struct {
	since  int32
	before int32
}

// deviceAcks is what a log says of one device, in its order.
type deviceAcks struct {
	reported []reportedAck
	desired  []desiredAck
	messages [][]messageAck // by number of the run; numbers grow
}

type reportedAck struct {
	bounds
	version, n, desired int64
}

type desiredAck struct {
	bounds
	version int64
}

// messageAck is one message. It is small: there may be millions.
type messageAck struct {
	bounds
	n     uint32
	acked bool
	found bool
}

// ReadAcks reads a log. What shows that it is not whole (a run without its
// end, an unfinished last line, a sum that does not fit) is in Broken; what no
// simulator writes is an error that names the line.
func ReadAcks(r io.Reader) (*Acks, error) {
	a := &Acks{devices: map[string]*deviceAcks{}, runs: map[string]int{}}
	in, table := bufio.NewReaderSize(r, ackLineMost), castagnoli()
	for n := int64(1); ; n++ {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			if len(line) > 0 {
				a.broken("line %d is not finished", n)
			}
			a.close()
			return a, nil
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		var l Ack
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&l); err != nil {
			return nil, fmt.Errorf("line %d is not of an acknowledgement log: %w", n, err)
		}
		if err := a.take(&l, n); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		a.sum = crc32.Update(a.sum, table, line)
		a.run().Lines++
	}
}

func (a *Acks) broken(format string, args ...any) {
	a.Broken = append(a.Broken, fmt.Sprintf(format, args...))
}

// run is the run that is being read.
func (a *Acks) run() *AckRun { return &a.Runs[len(a.Runs)-1] }

// close ends the run that is being read.
func (a *Acks) close() {
	if n := len(a.Runs); n > 0 && !a.run().Ended {
		a.broken("the run %s, from line %d on, has no end: its simulator was killed, or lines are missing", a.run().ID, a.run().Line)
	}
}

// take takes a line.
func (a *Acks) take(l *Ack, line int64) error {
	if l.Kind == ackBegin {
		return a.begin(l, line)
	}
	if len(a.Runs) == 0 || a.run().Ended {
		return fmt.Errorf("a line of kind %q is outside of any run; expected one that begins a run", l.Kind)
	}
	switch l.Kind {
	case ackEnd:
		r := a.run()
		r.Ended = true
		if sum := fmt.Sprintf("%08x", a.sum); l.Run != r.ID || l.Lines != r.Lines || l.Sum != sum {
			a.broken("line %d: the run %s ended with %d lines and the sum %s, the log holds %d and %s", line, l.Run, l.Lines, l.Sum, r.Lines, sum)
		}
		return nil
	case ackAsk:
		if a.last == math.MaxInt32 {
			return errors.New("there are too many questions for the hub's position")
		}
		a.last++
		a.open = a.last
		a.run().marks = append(a.run().marks, a.last)
		if int64(len(a.run().marks)) != l.Mark {
			return fmt.Errorf("question %d comes where %d was expected", l.Mark, len(a.run().marks))
		}
		return nil
	case ackMark:
		if a.open == 0 || int64(len(a.run().marks)) != l.Mark || l.AckPosition == nil {
			return fmt.Errorf("mark %d answers no question", l.Mark)
		}
		m := AckMark{a.open, *l.AckPosition}
		if n := len(a.Marks); n > 0 && a.Marks[n-1].Epoch != m.Epoch {
			return fmt.Errorf("the hub's epoch has changed from %s to %s: a backup was restored between; use one log for each", a.Marks[n-1].Epoch, m.Epoch)
		} else if n > 0 && (a.Marks[n-1].Sequence > m.Sequence || a.Marks[n-1].Messages > m.Messages) {
			a.Backwards = append(a.Backwards, fmt.Sprintf("line %d: the hub was at sequence %d and message %d, and later at %d and %d",
				line, a.Marks[n-1].Sequence, a.Marks[n-1].Messages, m.Sequence, m.Messages))
		}
		a.Marks, a.open = append(a.Marks, m), 0
		return nil
	}
	return a.operation(l)
}

func (a *Acks) begin(l *Ack, line int64) error {
	a.close()
	if l.Format != ackFormat {
		return fmt.Errorf("the run has format %d, this program knows %d", l.Format, ackFormat)
	}
	if _, twice := a.runs[l.Run]; twice || l.Run == "" {
		return fmt.Errorf("the run %q is there already, or has no name", l.Run)
	}
	a.runs[l.Run] = len(a.Runs)
	a.Runs, a.sum, a.open = append(a.Runs, AckRun{ID: l.Run, Line: line}), 0, 0
	return nil
}

// operation takes a line that a device caused.
func (a *Acks) operation(l *Ack) error {
	if l.Device == "" {
		return errors.New("the device is missing")
	}
	b := bounds{before: a.last}
	if l.Since != 0 {
		marks := a.run().marks
		if l.Since < 0 || l.Since > int64(len(marks)) {
			return fmt.Errorf("mark %d is not there yet", l.Since)
		}
		b.since = marks[l.Since-1]
	}
	d := a.devices[l.Device]
	if d == nil {
		d = &deviceAcks{}
		a.devices[l.Device] = d
	}
	if !l.Acked {
		a.Unknown++
	}
	switch l.Kind {
	case ackMethod:
		a.Methods++
	case ackDesired:
		a.Desired++
		d.desired = append(d.desired, desiredAck{b, l.Version})
	case ackTelemetry:
		return a.message(d, l, b)
	case ackReported:
		if !l.Acked {
			return nil
		}
		a.Reported++
		if n := len(d.reported); n > 0 && l.Version <= d.reported[n-1].version {
			a.Backwards = append(a.Backwards, fmt.Sprintf("%s: version %d was acknowledged after version %d", l.Device, l.Version, d.reported[n-1].version))
			return nil
		}
		d.reported = append(d.reported, reportedAck{b, l.Version, l.N, l.Desired})
	default:
		return fmt.Errorf("the kind %q is not known", l.Kind)
	}
	return nil
}

func (a *Acks) message(d *deviceAcks, l *Ack, b bounds) error {
	run := len(a.Runs) - 1
	for len(d.messages) <= run {
		d.messages = append(d.messages, nil)
	}
	list := d.messages[run]
	if l.N < 1 || l.N > math.MaxUint32 || len(list) > 0 && l.N <= int64(list[len(list)-1].n) {
		return fmt.Errorf("%s: the message's number %d does not follow", l.Device, l.N)
	}
	d.messages[run] = append(list, messageAck{bounds: b, n: uint32(l.N), acked: l.Acked})
	if l.Acked {
		a.Telemetry++
	}
	return nil
}

// Devices counts the devices of the log.
func (a *Acks) Devices() int { return len(a.devices) }
