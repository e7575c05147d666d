package scripting

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
)

const (
	startMost    = 5 * time.Second // until a worker says hello
	wordsMost    = 2 << 10         // bytes of what a worker wrote to standard error that are kept
	inlineMost   = 48 << 10        // bytes of a request that fit into a pipe
	memoryStale  = pattern.MaxWorker / 2
	starvedShare = 20 // of its time: with less of a processor it was not slow, and no honest one needs as much
)

// process is a worker process. It is for one request at a time; what is watched
// is read by the pool's watcher meanwhile.
type process struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	words *tail
	buf   []byte
	req   packer
	hello string

	places map[string]int // where the worker has a program, by its hash
	order  []string       // of the places, the one used last at the end

	usage *usage
	// number counts what was asked of the worker and since is when the last of it
	// began, in nanoseconds of the wall clock; 0: it is idle.
	number, since atomic.Int64
	doom          atomic.Pointer[doom]
	ended         atomic.Bool
	rouse         func()      // has the pool's watcher look
	high          atomic.Bool // it has taken much memory: the next one gets another

	seen watched // by the watcher alone
}

// doom is why a worker was killed, and at what.
type doom struct {
	number int64
	why    killReason
}

type killReason string

const (
	killTime    killReason = "time"
	killMemory  killReason = "memory"
	killStarved killReason = "starved" // its time was up, but it was hardly run
	killStale   killReason = "stale"   // its memory was used up, mostly by what came before
	killStart   killReason = "start"   // it did not say hello
	killClosed  killReason = "closed"
)

// watched is what the watcher has seen of the activation under way.
type watched struct {
	number    int64
	processor time.Duration
	memory    int64
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

// Write never fails.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if n := len(t.b) - wordsMost; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

// start starts a worker and waits until it says hello. Whoever calls it has it
// watched meanwhile.
func start(command []string, watch func(*process), rouse func()) (*process, error) {
	p := &process{cmd: exec.Command(command[0], command[1:]...), words: &tail{}, places: map[string]int{}, rouse: rouse}
	p.cmd.Env, p.cmd.Dir, p.cmd.Stderr = []string{}, "/", p.words
	p.cmd.WaitDelay = time.Second
	detach(p.cmd)
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, p.in.Close())
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.out = bufio.NewReaderSize(out, 64<<10)
	if p.usage, err = watchUsage(p.cmd.Process.Pid); err != nil {
		p.usage = nil
		p.end(killClosed)
		return nil, err
	}
	watch(p)
	p.begin()
	kind, body, err := p.read()
	if err == nil && kind != frameHello {
		err = errWire
	}
	if err != nil {
		p.end(killClosed)
		return nil, fmt.Errorf("%w%s", err, p.lastWords())
	}
	p.idle()
	p.hello = (&unpacker{b: body}).text()
	return p, nil
}

// begin says that the worker is at work from now on, and idle that it is not.
func (p *process) begin() {
	p.since.Store(time.Now().UnixNano())
	p.number.Add(1)
	p.rouse()
}

func (p *process) idle() { p.since.Store(0) }

func (p *process) read() (kind byte, body []byte, err error) {
	kind, body, p.buf, err = readFrame(p.out, p.buf, answerMost)
	return kind, body, err
}

// kill kills the worker for a reason, if it is still at what it was.
func (p *process) kill(number int64, why killReason) {
	if p.doom.CompareAndSwap(nil, &doom{number, why}) {
		_ = p.cmd.Process.Kill() // it may have ended
	}
}

// end kills the worker and waits for its end.
func (p *process) end(why killReason) {
	p.kill(p.number.Load(), why)
	p.idle()
	_ = p.in.Close() // it has ended
	_ = p.cmd.Wait() // its end is what was wanted
	p.ended.Store(true)
	if p.usage != nil {
		p.usage.close()
	}
}

// lastWords is what the worker wrote to standard error, for messages.
func (p *process) lastWords() string {
	if s := p.words.String(); s != "" {
		return ": " + clip(valid(s), 400)
	}
	return ""
}

// place is where the worker has a program, and says whether it must be sent first.
func (p *process) place(hash string) (n int, missing bool) {
	if n, ok := p.places[hash]; ok {
		for i, h := range p.order {
			if h == hash {
				p.order = append(append(p.order[:i], p.order[i+1:]...), hash)
				break
			}
		}
		return n, false
	}
	n = len(p.order)
	if n >= placesMost {
		oldest := p.order[0]
		n = p.places[oldest]
		delete(p.places, oldest)
		p.order = p.order[1:]
	}
	p.places[hash] = n
	p.order = append(p.order, hash)
	return n, true
}

// activate has the worker run activations, and gives their outcomes one by one as
// they come. It returns how many came; the error is why not all did.
func (p *process) activate(b *pattern.Bundle, hash string, list []pattern.Activation, done func(int, pattern.Outcome)) (n int, err error) {
	p.req.b = p.req.b[:0]
	place, missing := p.place(hash)
	if missing {
		at := p.req.begin(frameProgram)
		p.req.int(int64(place))
		p.req.bundle(b)
		p.req.end(at)
	}
	for i := range list {
		at := p.req.begin(frameActivation)
		p.req.int(int64(place))
		p.req.activation(&list[i])
		p.req.end(at)
		if size := len(p.req.b) - at; size > requestMost {
			p.req.b = p.req.b[:at]
			if i == 0 {
				p.send()() // the program, perhaps, which the worker now is known to have
				return 0, fmt.Errorf("an activation of %d bytes, at most %d: %w", size, requestMost, errRequest)
			}
			list = list[:i] // those before it first
			break
		}
		if len(p.req.b) > batchBytes {
			list = list[:i+1] // the others come after these
			break
		}
	}
	p.begin()
	defer p.idle()
	wait := p.send()
	defer wait()
	for n < len(list) {
		kind, body, err := p.read()
		u := &unpacker{b: body}
		o := u.outcome()
		if err == nil && (kind != frameOutcome || u.done() != nil) {
			err = errWire
		}
		if err != nil {
			p.kill(p.number.Load(), "") // else it may wait for what is not sent
			return n, err
		}
		if n < len(list)-1 {
			p.begin()
		}
		done(n, o)
		n++
	}
	return n, nil
}

// batchBytes is about how much is sent to a worker in one request.
const batchBytes = 1 << 20

var errRequest = errors.New("too large for a worker")

// send writes the request; what is too large for the pipe in a goroutine, since
// the worker does not read on while it waits for somebody to take its answers.
func (p *process) send() (wait func()) {
	if len(p.req.b) <= inlineMost {
		_, _ = p.in.Write(p.req.b) // reading finds out what is wrong
		return func() {}
	}
	var sent sync.WaitGroup
	sent.Go(func() { _, _ = p.in.Write(p.req.b) }) // ends with the worker, at the latest
	return sent.Wait
}

// load has the worker load a bundle.
func (p *process) load(b *pattern.Bundle) (kind byte, body []byte, err error) {
	p.req.b = p.req.b[:0]
	at := p.req.begin(frameLoad)
	p.req.bundle(b)
	p.req.end(at)
	if len(p.req.b) > requestMost {
		return 0, nil, errRequest
	}
	p.begin()
	defer p.idle()
	wait := p.send()
	defer wait()
	if kind, body, err = p.read(); err != nil {
		p.kill(p.number.Load(), "")
	}
	return kind, body, err
}

// abandon kills the worker when ctx ends before the function that it returns is
// called.
func (p *process) abandon(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { p.kill(0, killClosed) })
}
