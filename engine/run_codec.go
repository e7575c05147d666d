package engine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/pattern"
)

// runCodec stores a run as varints and texts with their length before them: each
// await of each run reads its record twice and writes it once, and JSON takes
// several times as long and nearly twice as much room.
type runCodec struct{}

var errRunRecord = errors.New("run record is cut short")

// The flags of a run record.
const (
	runIsLate = 1 << iota
	runIsParked
	runIsTaken
	runHasJob
	runHasStop
	runHasUndo
	runHasHot
)

// Append implements storage.Codec.
func (runCodec) Append(dst []byte, r runRecord) ([]byte, error) {
	flags := byte(0)
	for bit, is := range map[byte]bool{
		runIsLate: r.Late, runIsParked: r.Parked, runIsTaken: r.Taken, runHasJob: r.Job != nil, runHasStop: r.Stop != nil, runHasUndo: r.State.Undo,
		runHasHot: len(r.State.Hot) > 0,
	} {
		if is {
			flags |= bit
		}
	}
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, r.Revision)
	for _, s := range [...]string{
		r.Pattern, r.Version, string(r.Hash), r.Device, r.Module, r.Generation, string(r.Params), r.Parent, r.Of, r.Trigger,
		r.Owner.Name, string(r.Conflicts),
	} {
		dst = appendText(dst, s)
	}
	dst = binary.AppendUvarint(dst, uint64(r.Owner.Kind))
	if r.Job != nil {
		dst = binary.AppendUvarint(appendText(dst, r.Job.Job), r.Job.Run)
	}
	if r.Stop != nil {
		dst = appendText(dst, r.Stop.Why)
		dst = append(dst, map[bool]byte{true: 1}[r.Stop.Undo])
	}
	for _, n := range [...]int{r.Attempt, r.Depth, r.Failures, r.Keys, r.LogFirst} {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	dst = binary.AppendVarint(dst, int64(r.Timeout))
	for _, t := range [...]time.Time{r.Created, r.Started, r.Updated, r.Ended, r.Deadline, r.Wake, r.Retry, r.Told.At} {
		dst = appendTime(dst, t)
	}
	dst = appendFloat(appendText(dst, r.Told.Phase), r.Told.Progress)
	dst = appendNumbers(appendNumbers(dst, r.Chunks), r.Logs)
	dst = appendRunState(dst, &r.State)
	if len(r.State.Hot) > 0 {
		dst = appendHot(dst, r.State.Hot)
	}
	return dst, nil
}

func appendHot(dst []byte, list []pattern.HotLine) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, hot := range list {
		dst = binary.AppendVarint(appendText(dst, hot.Line), hot.Instructions)
	}
	return dst
}

// appendRunState adds what a run is.
func appendRunState(dst []byte, s *pattern.Run) []byte {
	dst = appendText(appendText(dst, string(s.State)), string(s.Entry))
	dst = appendSteps(dst, s.Steps)
	dst = binary.AppendUvarint(dst, uint64(len(s.Kept)))
	for _, key := range slices.Sorted(maps.Keys(s.Kept)) {
		dst = appendText(appendText(dst, key), string(s.Kept[key]))
	}
	dst = appendFloat(appendText(dst, s.Report.Phase), s.Report.Progress)
	dst = appendText(appendText(dst, s.Report.Text), s.Report.Follow)
	dst = appendLogs(dst, s.Logs)
	c := &s.Cost
	for _, n := range [...]int64{int64(c.Activations), c.Instructions, c.Calls, int64(c.Time), c.Peak, int64(s.CancelAt)} {
		dst = binary.AppendVarint(dst, n)
	}
	dst = appendText(dst, string(s.Result))
	return appendFault(appendFault(dst, s.Fault), s.Cancel)
}

func appendFloat(dst []byte, f float64) []byte {
	if f == 0 {
		return append(dst, 0)
	}
	return binary.LittleEndian.AppendUint64(append(dst, 1), math.Float64bits(f))
}

func appendNumbers(dst []byte, list []int) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, n := range list {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	return dst
}

// faultInFields begins a fault that is stored field by field. It is no JSON, as
// which faults were stored before.
const faultInFields = 1

// appendFault adds a fault as a text of its own; an empty one is none.
func appendFault(dst []byte, f *pattern.Fault) []byte {
	if f == nil {
		return append(dst, 0)
	}
	b := appendText([]byte{faultInFields}, string(f.Code))
	b = binary.AppendVarint(appendText(b, f.Message), int64(f.Status))
	b = appendText(appendText(appendText(b, string(f.Cause)), string(f.Payload)), f.Line)
	b = binary.AppendUvarint(b, uint64(len(f.Trace)))
	for _, line := range f.Trace {
		b = appendText(b, line)
	}
	return appendText(dst, string(b))
}

func appendLogs(dst []byte, list []pattern.LogLine) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for i := range list {
		l := &list[i]
		dst = binary.AppendUvarint(appendTime(dst, l.Time), uint64(l.Step))
		dst = appendText(appendText(dst, l.Line), l.Text)
	}
	return dst
}

// The flags of a step.
const (
	stepIsDeferred = 1 << iota
	stepIsOpen
)

func appendSteps(dst []byte, list []pattern.Step) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for i := range list {
		s := &list[i]
		flags := byte(0)
		if s.Deferred {
			flags |= stepIsDeferred
		}
		if s.Open {
			flags |= stepIsOpen
		}
		dst = append(dst, flags)
		for _, text := range [...]string{string(s.Entry), s.Op, string(s.Args), s.Line, string(s.Result), s.Ref} {
			dst = appendText(dst, text)
		}
		dst = appendFault(dst, s.Fault)
		for _, t := range [...]time.Time{s.Begun, s.Ended, s.Due} {
			dst = appendTime(dst, t)
		}
		dst = binary.AppendUvarint(dst, uint64(s.Tries))
	}
	return dst
}

// Decode implements storage.Codec.
func (runCodec) Decode(b []byte) (r runRecord, err error) {
	if len(b) == 0 {
		return r, errRunRecord
	}
	flags := b[0]
	d := runReader{binaryReader{b: b[1:]}}
	r.Revision = d.uvarint()
	r.Pattern, r.Version, r.Hash = d.text(), d.text(), slices.Clone(d.bytes())
	r.Device, r.Module, r.Generation, r.Params = d.text(), d.text(), d.text(), d.raw()
	r.Parent, r.Of, r.Trigger = d.text(), d.text(), d.text()
	r.Owner.Name, r.Conflicts = d.text(), pattern.Conflict(d.text())
	r.Owner.Kind = auth.Kind(d.small())
	r.Late, r.Parked, r.Taken = flags&runIsLate != 0, flags&runIsParked != 0, flags&runIsTaken != 0
	if flags&runHasJob != 0 {
		r.Job = &queuedJob{d.text(), d.uvarint()}
	}
	if flags&runHasStop != 0 {
		r.Stop = &runStop{Why: d.text(), Undo: d.uvarint() == 1}
	}
	for _, n := range [...]*int{&r.Attempt, &r.Depth, &r.Failures, &r.Keys, &r.LogFirst} {
		*n = d.small()
	}
	r.Timeout = time.Duration(d.varint())
	for _, t := range [...]*time.Time{&r.Created, &r.Started, &r.Updated, &r.Ended, &r.Deadline, &r.Wake, &r.Retry, &r.Told.At} {
		*t = d.time()
	}
	r.Told.Phase, r.Told.Progress = d.text(), d.float()
	r.Chunks, r.Logs = d.numbers(), d.numbers()
	d.state(&r.State)
	r.State.Undo = flags&runHasUndo != 0
	if flags&runHasHot != 0 {
		r.State.Hot = d.hot()
	}
	return r, d.end()
}

// runReader reads what makes up a run record.
type runReader struct{ binaryReader }

// end says what is wrong with what was read.
func (d *runReader) end() error {
	switch {
	case d.bad:
		return errRunRecord
	case len(d.b) != 0:
		return errors.New("run record has bytes after its end")
	}
	return nil
}

func (d *runReader) state(s *pattern.Run) {
	s.State, s.Entry = pattern.State(d.text()), pattern.Entry(d.text())
	s.Steps = d.steps()
	if n := d.count(); n > 0 {
		s.Kept = make(map[string]json.RawMessage, n)
		for range n {
			key := d.text()
			s.Kept[key] = d.raw()
		}
	}
	s.Report.Phase, s.Report.Progress = d.text(), d.float()
	s.Report.Text, s.Report.Follow = d.text(), d.text()
	s.Logs = d.logs()
	c := &s.Cost
	c.Activations, c.Instructions, c.Calls = int(d.varint()), d.varint(), d.varint()
	c.Time, c.Peak, s.CancelAt = time.Duration(d.varint()), d.varint(), int(d.varint())
	s.Result, s.Fault, s.Cancel = d.raw(), d.fault(), d.fault()
}

func (d *runReader) hot() []pattern.HotLine {
	list := make([]pattern.HotLine, d.count())
	for i := range list {
		list[i] = pattern.HotLine{Line: d.text(), Instructions: d.varint()}
	}
	return list
}

// count reads how many of something follow, each of which has a byte at least.
func (d *runReader) count() int {
	n := d.small()
	if n > len(d.b) {
		d.b, d.bad = nil, true
		return 0
	}
	return n
}

func (d *runReader) raw() json.RawMessage {
	b := d.bytes()
	if len(b) == 0 {
		return nil
	}
	return slices.Clone(b)
}

func (d *runReader) float() float64 {
	if d.uvarint() == 0 {
		return 0
	}
	if len(d.b) < 8 {
		d.b, d.bad = nil, true
		return 0
	}
	f := math.Float64frombits(binary.LittleEndian.Uint64(d.b))
	d.b = d.b[8:]
	return f
}

func (d *runReader) numbers() (list []int) {
	for range d.count() {
		list = append(list, d.small())
	}
	return list
}

func (d *runReader) fault() *pattern.Fault {
	b := d.bytes()
	if len(b) == 0 {
		return nil
	}
	f := &pattern.Fault{}
	if b[0] != faultInFields {
		if json.Unmarshal(b, f) != nil {
			d.b, d.bad = nil, true
		}
		return f
	}
	in := runReader{binaryReader{b: b[1:]}}
	f.Code, f.Message, f.Status = pattern.FaultCode(in.text()), in.text(), int(in.varint())
	f.Cause, f.Payload, f.Line = in.raw(), in.raw(), in.text()
	for range in.count() {
		f.Trace = append(f.Trace, in.text())
	}
	if in.end() != nil {
		d.b, d.bad = nil, true
	}
	return f
}

func (d *runReader) logs() (list []pattern.LogLine) {
	for range d.count() {
		list = append(list, pattern.LogLine{Time: d.time(), Step: d.small(), Line: d.text(), Text: d.text()})
	}
	return list
}

func (d *runReader) steps() []pattern.Step {
	n := d.count()
	if n == 0 {
		return nil
	}
	list := make([]pattern.Step, 0, min(n, pattern.MaxSteps))
	for range n {
		flags := d.uvarint()
		s := pattern.Step{Deferred: flags&stepIsDeferred != 0, Open: flags&stepIsOpen != 0}
		s.Entry, s.Op, s.Args, s.Line, s.Result, s.Ref = pattern.Entry(d.text()), d.text(), d.raw(), d.text(), d.raw(), d.text()
		s.Fault = d.fault()
		s.Begun, s.Ended, s.Due, s.Tries = d.time(), d.time(), d.time(), d.small()
		if d.bad {
			return nil
		}
		list = append(list, s)
	}
	return list
}

// runStepsCodec and runLogsCodec store the older parts of a run.
type (
	runStepsCodec struct{}
	runLogsCodec  struct{}
)

// Append implements storage.Codec.
func (runStepsCodec) Append(dst []byte, list []pattern.Step) ([]byte, error) {
	return appendSteps(dst, list), nil
}

// Decode implements storage.Codec.
func (runStepsCodec) Decode(b []byte) ([]pattern.Step, error) {
	d := runReader{binaryReader{b: b}}
	list := d.steps()
	return list, d.end()
}

// Append implements storage.Codec.
func (runLogsCodec) Append(dst []byte, list []pattern.LogLine) ([]byte, error) {
	return appendLogs(dst, list), nil
}

// Decode implements storage.Codec.
func (runLogsCodec) Decode(b []byte) ([]pattern.LogLine, error) {
	d := runReader{binaryReader{b: b}}
	list := d.logs()
	return list, d.end()
}
