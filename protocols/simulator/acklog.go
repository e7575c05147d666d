package simulator

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// ackFormat is the version of the lines that AckLog writes.
const ackFormat = 1

// The kinds of lines of an acknowledgement log. See docs/reference/ack-log.md.
const (
	ackBegin     = "begin"     // a run begins
	ackAsk       = "ask"       // the hub is about to be asked for its position
	ackMark      = "mark"      // its answer
	ackReported  = "reported"  // a patch of the reported properties
	ackTelemetry = "telemetry" // a message
	ackDesired   = "desired"   // a version of the desired properties that the device was told of
	ackMethod    = "method"    // a method that was answered
	ackEnd       = "end"       // the run ended in order
)

// Ack is a line of an acknowledgement log. Which fields a line has depends on
// its kind.
type Ack struct {
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"`
	Device  string    `json:"device,omitempty"`
	N       int64     `json:"n,omitempty"`       // the value reported as sim.n, or the message's number
	Version int64     `json:"version,omitempty"` // $version that the hub gave
	Desired int64     `json:"desired,omitempty"` // version of the desired properties that a patch acknowledges as sim.desired
	Method  string    `json:"method,omitempty"`
	Since   int64     `json:"since,omitempty"` // newest mark of the run that was known when this was sent
	Acked   bool      `json:"acked,omitempty"` // false: sent, and the answer never came: it may be there or not

	Run    string `json:"run,omitempty"` // begin and end
	Format int    `json:"format,omitempty"`
	Lines  int64  `json:"lines,omitempty"` // end: lines of the run before this one
	Sum    string `json:"sum,omitempty"`   // end: CRC-32C of their bytes

	Mark int64 `json:"mark,omitempty"` // ask and mark: from 1 on in each run
	*AckPosition
}

// AckPosition is how far a hub had come when it was asked.
type AckPosition struct {
	Epoch       string `json:"epoch"`
	EpochNumber uint32 `json:"epochNumber"`
	Sequence    uint64 `json:"sequence"`
	Messages    uint64 `json:"messages"` // position of the newest message
}

// messageID names a message: the log's lines hold device and number.
func messageID(device, run string, n int64) string {
	return device + "-" + run + "-" + strconv.FormatInt(n, 10)
}

// parseMessageID is its inverse; ok is false for ids of others.
func parseMessageID(id string) (device, run string, n int64, ok bool) {
	last := strings.LastIndexByte(id, '-')
	if last < 0 {
		return "", "", 0, false
	}
	n, err := strconv.ParseInt(id[last+1:], 10, 64)
	middle := strings.LastIndexByte(id[:last], '-')
	if err != nil || middle < 0 {
		return "", "", 0, false
	}
	return id[:middle], id[middle+1 : last], n, true
}

// newRun names a run of a simulator: twelve letters and digits.
func newRun() string { return strings.ToLower(rand.Text()[:12]) }

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// AckLog appends what a hub acknowledged to a file. Lines are handed to the
// system whenever no more wait; they survive the end of the process, not of the
// machine. A write that fails is returned by Close. Its methods but Close are
// safe for concurrent use.
type AckLog struct {
	run   string
	lines chan Ack
	mark  atomic.Int64 // newest mark that is known
	done  sync.WaitGroup
	err   error
}

// OpenAckLog opens or makes the file and begins a run at its end. A line that a
// killed writer left unfinished is cut off. The file is locked against other
// writers until Close.
func OpenAckLog(name string) (*AckLog, error) {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(&os.PathError{Op: "lock", Path: name, Err: errors.New("another simulator writes to it")}, f.Close())
	}
	if err := cutUnfinished(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l := &AckLog{run: newRun(), lines: make(chan Ack, 1024)}
	l.done.Go(func() { l.err = errors.Join(l.write(f), f.Close()) })
	l.add(Ack{Kind: ackBegin, Run: l.run, Format: ackFormat})
	return l, nil
}

// cutUnfinished cuts off what is behind the last newline.
func cutUnfinished(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	tail := make([]byte, min(st.Size(), ackLineMost))
	if _, err := f.ReadAt(tail, st.Size()-int64(len(tail))); err != nil {
		return err
	}
	at := bytes.LastIndexByte(tail, '\n') + 1
	if at == 0 && st.Size() > ackLineMost {
		return &os.PathError{Op: "read", Path: f.Name(), Err: errors.New("it is no acknowledgement log: no line ends near its end")}
	}
	return f.Truncate(st.Size() - int64(len(tail)-at))
}

func (l *AckLog) write(f io.Writer) error {
	w := bufio.NewWriterSize(f, ackLineMost)
	var line bytes.Buffer
	encoder, table := json.NewEncoder(&line), castagnoli()
	var failed error
	var n int64
	var sum uint32
	for a := range l.lines {
		if failed != nil {
			continue // the devices must not wait for a log that is broken
		}
		if a.Kind == ackEnd {
			a.Lines, a.Sum = n, fmt.Sprintf("%08x", sum)
		}
		line.Reset()
		if failed = encoder.Encode(a); failed != nil {
			continue
		}
		n++
		sum = crc32.Update(sum, table, line.Bytes())
		_, failed = w.Write(line.Bytes())
		if failed == nil && len(l.lines) == 0 {
			failed = w.Flush()
		}
	}
	if failed == nil {
		failed = w.Flush()
	}
	if failed != nil {
		return fmt.Errorf("write the acknowledgement log: %w", failed)
	}
	return nil
}

// add appends a line; nil logs take none.
func (l *AckLog) add(a Ack) {
	if l != nil {
		a.Time = time.Now().UTC()
		l.lines <- a
	}
}

// known is the newest mark that is known now: what is sent from now on lies behind it.
func (l *AckLog) known() int64 {
	if l == nil {
		return 0
	}
	return l.mark.Load()
}

// ask asks a hub for its position and notes it as the next mark, n: what the
// log holds before was acknowledged before. Marks are asked for one at a time.
func (l *AckLog) ask(n int64, position func() (client.Position, error)) error {
	l.add(Ack{Kind: ackAsk, Mark: n})
	p, err := position()
	if err != nil {
		return err
	}
	l.add(Ack{Kind: ackMark, Mark: n, AckPosition: &AckPosition{p.Epoch, p.EpochNumber, p.Sequence, p.NewestMessage}})
	l.mark.Store(n)
	return nil
}

// Close ends the run and writes what waits. Nothing may be added afterwards.
func (l *AckLog) Close() error {
	l.add(Ack{Kind: ackEnd, Run: l.run})
	close(l.lines)
	l.done.Wait()
	return l.err
}
