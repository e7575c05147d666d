package scripting

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
)

// A pool and its workers speak frames: four bytes of length, one of what it is,
// and a body of fields in a fixed order. Both ends are the same binary, so there
// are no versions. What a worker sends is hostile.

// The frames, from a pool and from a worker.
const (
	frameProgram    = 'P' // number of a place, a bundle: keep it there
	frameActivation = 'A' // number of a place, an activation of what is there
	frameLoad       = 'L' // a bundle
	frameHello      = 'H' // what the worker could not take away from itself
	frameOutcome    = 'O'
	frameManifest   = 'M' // what a bundle declares, as JSON
	frameFault      = 'F'
	frameError      = 'E' // a text
)

const (
	frameHead   = 5
	requestMost = 8 << 20 // bytes of a frame to a worker
	answerMost  = 4 << 20 // bytes of one from a worker
	// Items of lists. Those of an answer bound what a worker can make its pool keep.
	stepsMost = 2 * (pattern.MaxSteps + pattern.MaxSteps/10)
	traceMost = 64
	linesMost = 1 << 16
	keptMost  = pattern.MaxKept
	filesMost = 4 * pattern.MaxFiles
)

var errWire = errors.New("the frame is not what it should be")

// readFrame reads one frame into buf, which it makes larger when it must.
func readFrame(r io.Reader, buf []byte, most int) (kind byte, body, _ []byte, err error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, buf, err
	}
	n := int64(binary.LittleEndian.Uint32(head[:]))
	if n > int64(most) {
		return 0, nil, buf, fmt.Errorf("a frame of %d bytes, at most %d: %w", n, most, errWire)
	}
	if int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	body = buf[:n]
	_, err = io.ReadFull(r, body)
	return head[4], body, buf, err
}

// packer writes a frame.
type packer struct{ b []byte }

// begin starts a frame behind those that are there, and end ends it.
func (p *packer) begin(kind byte) (at int) {
	at = len(p.b)
	p.b = append(p.b, 0, 0, 0, 0, kind)
	return at
}

func (p *packer) end(at int) {
	binary.LittleEndian.PutUint32(p.b[at:], uint32(len(p.b)-at-frameHead))
}

func (p *packer) int(n int64) { p.b = binary.AppendVarint(p.b, n) }

func (p *packer) text(s string) {
	p.b = binary.AppendUvarint(p.b, uint64(len(s)))
	p.b = append(p.b, s...)
}

// raw writes bytes that may be nil.
func (p *packer) raw(b []byte) {
	if b == nil {
		p.b = append(p.b, 0)
		return
	}
	p.b = binary.AppendUvarint(p.b, uint64(len(b))+1)
	p.b = append(p.b, b...)
}

func (p *packer) yes(is bool) {
	n := byte(0)
	if is {
		n = 1
	}
	p.b = append(p.b, n)
}

func (p *packer) float(f float64) { p.b = binary.LittleEndian.AppendUint64(p.b, math.Float64bits(f)) }

func (p *packer) time(t time.Time) {
	p.yes(!t.IsZero())
	if !t.IsZero() {
		p.int(t.Unix())
		p.int(int64(t.Nanosecond()))
	}
}

// unpacker reads a frame; after its first error everything is empty.
type unpacker struct {
	b   []byte
	err error
}

func (u *unpacker) fail() { u.b, u.err = nil, errWire }

func (u *unpacker) int() int64 {
	n, size := binary.Varint(u.b)
	if size <= 0 {
		u.fail()
		return 0
	}
	u.b = u.b[size:]
	return n
}

func (u *unpacker) uint() uint64 {
	n, size := binary.Uvarint(u.b)
	if size <= 0 {
		u.fail()
		return 0
	}
	u.b = u.b[size:]
	return n
}

func (u *unpacker) take(n uint64) []byte {
	if n > uint64(len(u.b)) {
		u.fail()
		return nil
	}
	b := u.b[:n:n]
	u.b = u.b[n:]
	return b
}

func (u *unpacker) text() string { return string(u.take(u.uint())) }

// raw copies, since the buffer of a frame is used again.
func (u *unpacker) raw() []byte {
	n := u.uint()
	if n == 0 {
		return nil
	}
	return append([]byte{}, u.take(n-1)...)
}

func (u *unpacker) yes() bool {
	b := u.take(1)
	return len(b) == 1 && b[0] != 0
}

func (u *unpacker) float() float64 {
	if b := u.take(8); b != nil {
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	}
	return 0
}

func (u *unpacker) time() time.Time {
	if !u.yes() {
		return time.Time{}
	}
	seconds, nanoseconds := u.int(), u.int()
	return time.Unix(seconds, nanoseconds%1e9).UTC()
}

// count is how many items follow, of at most so many: never more than there are
// bytes left.
func (u *unpacker) count(most int) int {
	n := u.uint()
	if n > uint64(most) || n > uint64(len(u.b)) {
		u.fail()
		return 0
	}
	return int(n)
}

// done says whether all was there and nothing is left.
func (u *unpacker) done() error {
	if u.err == nil && len(u.b) > 0 {
		u.fail()
	}
	return u.err
}

func (p *packer) bundle(b *pattern.Bundle) {
	p.b = binary.AppendUvarint(p.b, uint64(len(b.Files)))
	for _, path := range slices.Sorted(maps.Keys(b.Files)) {
		p.text(path)
		p.raw(b.Files[path])
	}
}

func (u *unpacker) bundle() *pattern.Bundle {
	n := u.count(filesMost)
	b := &pattern.Bundle{Files: map[string][]byte{}}
	for range n {
		path := u.text()
		b.Files[path] = u.raw()
	}
	return b
}

func (p *packer) fault(f *pattern.Fault) {
	p.yes(f != nil)
	if f == nil {
		return
	}
	p.text(string(f.Code))
	p.text(f.Message)
	p.int(int64(f.Status))
	p.raw(f.Cause)
	p.raw(f.Payload)
	p.text(f.Line)
	p.b = binary.AppendUvarint(p.b, uint64(len(f.Trace)))
	for _, line := range f.Trace {
		p.text(line)
	}
}

func (u *unpacker) fault() *pattern.Fault {
	if !u.yes() {
		return nil
	}
	f := &pattern.Fault{Code: pattern.FaultCode(u.text()), Message: u.text(), Status: int(u.int()), Cause: u.raw(), Payload: u.raw(), Line: u.text()}
	for range u.count(traceMost) {
		f.Trace = append(f.Trace, u.text())
	}
	return f
}

// steps carries what a worker must know of steps, or has made of them.
func (p *packer) steps(list []pattern.Step) {
	p.b = binary.AppendUvarint(p.b, uint64(len(list)))
	for i := range list {
		s := &list[i]
		p.text(s.Op)
		p.raw(s.Args)
		p.text(s.Line)
		p.yes(s.Deferred)
		p.raw(s.Result)
		p.fault(s.Fault)
	}
}

func (u *unpacker) steps() []pattern.Step {
	n := u.count(stepsMost)
	if n == 0 {
		return nil
	}
	list := make([]pattern.Step, 0, min(n, 64))
	for range n {
		list = append(list, pattern.Step{Op: u.text(), Args: u.raw(), Line: u.text(), Deferred: u.yes(), Result: u.raw(), Fault: u.fault()})
	}
	return list
}

// values carries a map that may be nil.
func (p *packer) values(m map[string]json.RawMessage) {
	p.yes(m != nil)
	p.b = binary.AppendUvarint(p.b, uint64(len(m)))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		p.text(name)
		p.raw(m[name])
	}
}

func (u *unpacker) values() map[string]json.RawMessage {
	is, n := u.yes(), u.count(keptMost)
	if !is {
		return nil
	}
	m := map[string]json.RawMessage{}
	for range n {
		name := u.text()
		m[name] = u.raw()
	}
	return m
}

func (p *packer) activation(a *pattern.Activation) {
	p.text(a.Run)
	p.text(a.Key)
	p.int(int64(a.Attempt))
	p.text(string(a.Entry))
	p.text(a.Device)
	p.text(a.Module)
	p.raw(a.Params)
	p.raw(a.Twin)
	p.steps(a.Steps)
	p.values(a.Kept)
	p.time(a.Now)
	p.int(int64(a.Seed))
	p.fault(a.Cancel)
	p.int(int64(a.CancelAt))
	p.raw(a.Wave)
	p.yes(a.Trace)
}

func (u *unpacker) activation() *pattern.Activation {
	return &pattern.Activation{
		Run: u.text(), Key: u.text(), Attempt: int(u.int()), Entry: pattern.Entry(u.text()), Device: u.text(), Module: u.text(),
		Params: u.raw(), Twin: u.raw(), Steps: u.steps(), Kept: u.values(), Now: u.time(), Seed: uint64(u.int()),
		Cancel: u.fault(), CancelAt: int(u.int()), Wave: u.raw(), Trace: u.yes(),
	}
}

func (p *packer) outcome(o *pattern.Outcome) {
	p.text(string(o.Ending))
	p.steps(o.Steps)
	p.raw(o.Result)
	p.fault(o.Fault)
	p.values(o.Kept)
	p.text(o.Report.Phase)
	p.float(o.Report.Progress)
	p.text(o.Report.Text)
	p.text(o.Report.Follow)
	p.b = binary.AppendUvarint(p.b, uint64(len(o.Logs)))
	for _, line := range o.Logs {
		p.int(int64(line.Step))
		p.text(line.Line)
		p.text(line.Text)
	}
	p.int(o.Cost.Instructions)
	p.int(o.Cost.Calls)
	p.int(int64(o.Cost.Time))
	p.b = binary.AppendUvarint(p.b, uint64(len(o.Hot)))
	for _, hot := range o.Hot {
		p.text(hot.Line)
		p.int(hot.Instructions)
	}
	p.yes(o.Lines != nil)
	p.b = binary.AppendUvarint(p.b, uint64(len(o.Lines)))
	for _, file := range slices.Sorted(maps.Keys(o.Lines)) {
		p.text(file)
		p.b = binary.AppendUvarint(p.b, uint64(len(o.Lines[file])))
		for _, n := range o.Lines[file] {
			p.int(int64(n))
		}
	}
}

func (u *unpacker) outcome() pattern.Outcome {
	o := pattern.Outcome{
		Ending: pattern.Ending(u.text()), Steps: u.steps(), Result: u.raw(), Fault: u.fault(), Kept: u.values(),
		Report: pattern.Report{Phase: u.text(), Progress: u.float(), Text: u.text(), Follow: u.text()},
	}
	for range u.count(pattern.MaxLogs) {
		o.Logs = append(o.Logs, pattern.LogLine{Step: int(u.int()), Line: u.text(), Text: u.text()})
	}
	o.Cost = pattern.Cost{Instructions: u.int(), Calls: u.int(), Time: time.Duration(u.int())}
	for range u.count(pattern.HotMost) {
		o.Hot = append(o.Hot, pattern.HotLine{Line: u.text(), Instructions: u.int()})
	}
	is, n := u.yes(), u.count(filesMost)
	if is {
		o.Lines = map[string][]int{}
	}
	for range n {
		file, list := u.text(), []int(nil)
		for range u.count(linesMost) {
			list = append(list, int(u.int()))
		}
		if is {
			o.Lines[file] = list
		}
	}
	return o
}
