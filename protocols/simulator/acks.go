package simulator

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Ack is a line of an acknowledgement log.
type Ack struct {
	Time    time.Time `json:"time"`
	Device  string    `json:"device"`
	Kind    string    `json:"kind"`              // "reported", "telemetry", "method"
	N       int64     `json:"n,omitempty"`       // the value reported as sim.n, or the message's number
	Version int64     `json:"version,omitempty"` // $version that the hub answered
	Message string    `json:"message,omitempty"` // message id, or the method's name
	Acked   bool      `json:"acked"`             // false: sent, and the answer never came: it may be there or not
}

// AckLog appends acknowledgements to a file. Lines are handed to the system
// whenever no more wait; they survive the end of the process, not of the
// machine. A write that fails is returned by Close.
type AckLog struct {
	lines chan Ack
	done  sync.WaitGroup
	err   error
}

// OpenAckLog opens or makes the file and appends to it.
func OpenAckLog(name string) (*AckLog, error) {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	l := &AckLog{lines: make(chan Ack, 1024)}
	l.done.Go(func() { l.err = errors.Join(l.write(f), f.Close()) })
	return l, nil
}

func (l *AckLog) write(f io.Writer) error {
	w := bufio.NewWriterSize(f, 64<<10)
	encoder := json.NewEncoder(w)
	var failed error
	for a := range l.lines {
		if failed != nil {
			continue // the devices must not wait for a log that is broken
		}
		failed = encoder.Encode(a)
		if failed == nil && len(l.lines) == 0 {
			failed = w.Flush()
		}
	}
	if failed != nil {
		return fmt.Errorf("write the acknowledgement log: %w", failed)
	}
	return w.Flush()
}

// add appends a line; nil logs take none.
func (l *AckLog) add(a Ack) {
	if l != nil {
		a.Time = time.Now().UTC()
		l.lines <- a
	}
}

// Close writes what waits. Nothing may be added afterwards.
func (l *AckLog) Close() error {
	close(l.lines)
	l.done.Wait()
	return l.err
}

// Expected is what a hub must hold of one device.
type Expected struct {
	Version int64 // newest acknowledged $version of the reported properties
	N       int64 // the value that it carried
}

// Acks sums up an acknowledgement log.
type Acks struct {
	Devices   map[string]Expected
	Reported  int64    // acknowledged patches
	Telemetry int64    // acknowledged messages
	Methods   int64    // methods that were answered
	Unknown   int64    // sent without an answer
	Backwards []string // acknowledgements whose version is not past an earlier one's: something was lost between
}

// ReadAcks reads a log. A last line without its end is what a killed writer
// leaves, and is skipped; any other line that is not whole is an error.
func ReadAcks(r io.Reader) (Acks, error) {
	sum := Acks{Devices: map[string]Expected{}}
	in := bufio.NewReaderSize(r, 64<<10)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return sum, nil
		}
		if err != nil {
			return sum, fmt.Errorf("line %d: %w", n, err)
		}
		var a Ack
		if err := json.Unmarshal(line, &a); err != nil || a.Device == "" {
			return sum, fmt.Errorf("line %d is not an acknowledgement: %s", n, firstError(err, "the device is missing"))
		}
		if err := sum.take(a); err != nil {
			return sum, fmt.Errorf("line %d: %w", n, err)
		}
	}
}

func firstError(err error, text string) string {
	if err != nil {
		return err.Error()
	}
	return text
}

func (s *Acks) take(a Ack) error {
	switch {
	case a.Kind != "reported" && a.Kind != "telemetry" && a.Kind != "method":
		return fmt.Errorf("the kind %q is not known", a.Kind)
	case a.Kind == "method":
		s.Methods++
	case !a.Acked:
		s.Unknown++
	case a.Kind == "telemetry":
		s.Telemetry++
	default:
		s.Reported++
		before := s.Devices[a.Device]
		if a.Version <= before.Version {
			s.Backwards = append(s.Backwards, fmt.Sprintf("%s: version %d was acknowledged after version %d", a.Device, a.Version, before.Version))
			return nil
		}
		s.Devices[a.Device] = Expected{a.Version, a.N}
	}
	return nil
}

// Missing says what the reported properties of a device lack; "" when nothing.
func (e Expected) Missing(reported []byte) string {
	var have struct {
		Version int64 `json:"$version"`
		Sim     struct {
			N int64 `json:"n"`
		} `json:"sim"`
	}
	if err := json.Unmarshal(reported, &have); err != nil {
		return "its reported properties cannot be read: " + err.Error()
	}
	if have.Version < e.Version || have.Sim.N < e.N || have.Version == e.Version && have.Sim.N != e.N {
		return fmt.Sprintf("version %d with value %d was acknowledged, the hub has version %d with value %d", e.Version, e.N, have.Version, have.Sim.N)
	}
	return ""
}
