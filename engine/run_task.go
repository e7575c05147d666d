package engine

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

const (
	// runTasksMost is how many requests and queries of runs are under way at once.
	runTasksMost = 32
	// runTaskPage is how many are held that wait for their turn; more are found in
	// the index.
	runTaskPage = 1000
	httpHeaders = 50
)

// runTasks does what open steps ask of the hub itself, once the step is durable:
// requests, queries, and jobs that are to be made.
type runTasks struct {
	hub    *Hub
	signal chan struct{} // capacity 1

	mu    sync.Mutex
	list  []string
	known map[string]taskPlace
	under map[string]taskUnder
	doubt []string // runs with something under way that were told of: it may be asked for no more
	more  bool     // others are in the index
	busy  int
}

// taskUnder is a step of a run for which something is under way.
type taskUnder struct {
	ref  string
	stop context.CancelFunc
}

// taskPlace says where a run is.
type taskPlace uint8

const (
	taskListed taskPlace = iota + 1
	taskWorked           // under way
	taskAgain            // under way, and told of meanwhile: it may ask for the next thing already
)

func newRunTasks(h *Hub) *runTasks {
	return &runTasks{hub: h, signal: make(chan struct{}, 1), known: map[string]taskPlace{}, under: map[string]taskUnder{}, more: true}
}

// take has runs worked for; more says that there are others.
func (q *runTasks) take(ids []string, more bool) {
	if len(ids) == 0 && !more {
		return
	}
	q.mu.Lock()
	q.more = q.more || more
	q.putLocked(ids)
	q.mu.Unlock()
	q.wake()
}

func (q *runTasks) wake() {
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

func (q *runTasks) putLocked(ids []string) {
	for _, id := range ids {
		if len(q.list) >= runTaskPage {
			q.more = true
			return
		}
		switch q.known[id] {
		case 0:
			q.known[id] = taskListed
			q.list = append(q.list, id)
		case taskWorked:
			q.known[id] = taskAgain
			fallthrough
		case taskAgain:
			if q.under[id].stop != nil {
				q.doubt = append(q.doubt, id)
			}
		}
	}
}

// begin takes note of what is under way for a run.
func (q *runTasks) begin(id string, u taskUnder) {
	q.mu.Lock()
	q.under[id] = u
	again := q.known[id] == taskAgain // it was told of when it was not known what is under way
	if again {
		q.doubt = append(q.doubt, id)
	}
	q.mu.Unlock()
	if again {
		q.wake()
	}
}

// drop stops what is under way for steps that have ended otherwise, by a cancellation
// for one: what the run asks for since would wait for it.
func (q *runTasks) drop(ctx context.Context) error {
	q.mu.Lock()
	doubt := q.doubt
	q.doubt = nil
	q.mu.Unlock()
	if len(doubt) == 0 {
		return nil
	}
	open := map[string]string{}
	err := q.hub.view(ctx, "look at runs with something under way", func(r storage.Reader) error {
		for _, id := range doubt {
			record, err := loadRun(r, id)
			if err != nil && !isRunGone(err) {
				return err
			}
			open[id] = ""
			if s := record.State.Open(); err == nil && s != nil {
				open[id] = s.Ref
			}
		}
		return nil
	})
	q.mu.Lock()
	defer q.mu.Unlock()
	if err != nil {
		q.doubt = append(q.doubt, doubt...)
		return err
	}
	for id, ref := range open {
		if u := q.under[id]; u.stop != nil && u.ref != ref {
			u.stop()
		}
	}
	return nil
}

// run works until ctx ends, and returns when nothing is under way.
func (q *runTasks) run(ctx context.Context) {
	var workers sync.WaitGroup
	defer workers.Wait()
	for ctx.Err() == nil {
		if err := errors.Join(q.drop(ctx), q.find(ctx)); err != nil && ctx.Err() == nil {
			q.hub.log.Warn("requests of runs can't be looked for; it will be tried again", slog.Any("error", err))
			select {
			case <-ctx.Done():
			case <-time.After(runsRetry):
			}
			continue
		}
		q.mu.Lock()
		for q.busy < runTasksMost && len(q.list) > 0 {
			id := q.list[0]
			q.list = q.list[1:]
			q.busy++
			q.known[id] = taskWorked
			workers.Go(func() {
				q.do(ctx, id)
				q.finished(id)
			})
		}
		idle := !q.more || q.busy == runTasksMost
		q.mu.Unlock()
		if !idle {
			continue
		}
		select {
		case <-ctx.Done():
		case <-q.signal:
		}
	}
}

// finished takes note that a run's work is done.
func (q *runTasks) finished(id string) {
	q.mu.Lock()
	q.busy--
	delete(q.under, id)
	again := q.known[id] == taskAgain
	if delete(q.known, id); again {
		q.putLocked([]string{id})
	}
	q.mu.Unlock()
	q.wake()
}

// find takes from the index what was not told, when there is room.
func (q *runTasks) find(ctx context.Context) error {
	q.mu.Lock()
	look := q.more && len(q.list) == 0
	q.mu.Unlock()
	if !look {
		return nil
	}
	var ids []string
	err := q.hub.view(ctx, "look for requests of runs", func(r storage.Reader) error {
		ids = nil
		for item, err := range runTable.Lookup(r, "asks", storage.Range{Prefix: storage.Tuple(asksWork)}) {
			if err != nil {
				return err
			}
			id, err := runOfKey(item.Key)
			if err != nil {
				return err
			}
			if ids = append(ids, id); len(ids) >= runTaskPage {
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	q.mu.Lock()
	// Those under way are among them: with a full page others may stand behind.
	q.more = len(ids) >= runTaskPage && len(q.known) < len(ids)
	q.putLocked(ids)
	q.mu.Unlock()
	return nil
}

// do does what one run asks for.
func (q *runTasks) do(ctx context.Context, id string) {
	h := q.hub
	h.runs.stats.working.Add(1)
	defer h.runs.stats.working.Add(-1)
	for told := false; ctx.Err() == nil; {
		err := q.try(ctx, id)
		if err == nil || ctx.Err() != nil {
			return
		}
		if !told {
			told = true
			h.log.Warn("what a run asks for could not be done; it will be tried again", slog.String("run", id), slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(runsRetry):
		}
	}
}

// runTask is what a run asks for.
type runTask struct {
	id    string
	step  pattern.Step
	run   runRecord
	owner Caller
	ref   string // that the step gets instead of an answer
	last  json.RawMessage
	fault *pattern.Fault
}

func (q *runTasks) try(ctx context.Context, id string) error {
	h := q.hub
	task := &runTask{id: id}
	err := h.view(ctx, "read a run", func(r storage.Reader) (err error) {
		task.run, err = loadRun(r, id)
		return err
	})
	if isRunGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	s := task.run.State.Open()
	if runAsks(s) != asksWork {
		return nil
	}
	task.step = *s
	work, stop := context.WithCancel(ctx)
	defer stop()
	q.begin(id, taskUnder{s.Ref, stop})
	if op, needed := stepOperation(s.Op); needed {
		if task.owner, task.fault = h.runCaller(id, &task.run); task.fault == nil {
			task.fault = mayStep(task.owner, s.Op)
		}
		_ = op
	}
	if task.fault == nil {
		switch s.Op {
		case opHTTP:
			err = h.fetchForRun(ctx, work, task)
		case opFleetRun:
			err = h.jobForRun(ctx, task)
		default:
			err = h.queryForRun(work, task)
		}
	}
	if work.Err() != nil {
		return ctx.Err() // the next start finds it as it was; one that is asked for no more needs no answer
	}
	if err != nil {
		if task.fault, err = runFault(err); err != nil {
			return err
		}
	}
	return h.step(ctx, "run.work", h.inRuns(func(t *runTx) error {
		r, err := t.load(id)
		if isRunGone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		open := r.State.Open()
		if open == nil || open.Ref != task.step.Ref {
			return nil
		}
		r.Taken = false
		if task.ref != "" && task.fault == nil {
			open.Ref = task.ref
			// The job may have ended already.
			m, err := h.jobEnd(t.Tx, id, task.ref)
			if err != nil {
				return err
			}
			if m.id != "" {
				r.State.Settle(m.ref, m.result, nil, t.Now())
			}
			return t.store(r)
		}
		r.State.Settle(open.Ref, task.last, task.fault, t.Now())
		return t.store(r)
	}))
}

// checkRunWork looks at the arguments of a step that a worker does.
func checkRunWork(s *pattern.Step) *pattern.Fault {
	switch s.Op {
	case opHTTP:
		args, fault := readArgs[pattern.HTTPArgs](s)
		if fault == nil {
			fault = checkHTTP(s, &args)
		}
		return fault
	case opFleetRun:
		args, fault := readArgs[pattern.RunArgs](s)
		if fault == nil && args.Where == "" {
			fault = faultf(pattern.FaultInvalid, "%s: where is missing; expected a condition, or * for all devices", s.Op)
		}
		return fault
	}
	args, fault := readArgs[pattern.FleetArgs](s)
	switch {
	case fault != nil:
		return fault
	case args.Limit < 0 || args.Limit > pattern.MaxRows:
		return faultf(pattern.FaultInvalid, "%s: limit is %d, allowed are 1 to %d", s.Op, args.Limit, pattern.MaxRows)
	case s.Op == opFleetGroup && args.Path == "":
		return faultf(pattern.FaultInvalid, "%s: path is missing", s.Op)
	}
	return nil
}

func checkHTTP(s *pattern.Step, a *pattern.HTTPArgs) *pattern.Fault {
	err := pattern.CheckURL(a.URL)
	switch {
	case err != nil:
		return faultf(pattern.FaultInvalid, "%s: %q: %v", s.Op, clip(a.URL), err)
	case len(a.JSON) > 0 && a.Body != "":
		return faultf(pattern.FaultInvalid, "%s: json and body are given; expected one of them", s.Op)
	case len(a.JSON)+len(a.Body) > pattern.MaxHTTPBody:
		return faultf(pattern.FaultTooBig, "%s: the body has %d bytes, at most %d are allowed", s.Op, len(a.JSON)+len(a.Body), pattern.MaxHTTPBody)
	case len(a.Headers) > httpHeaders:
		return faultf(pattern.FaultInvalid, "%s: %d headers are given, at most %d are allowed", s.Op, len(a.Headers), httpHeaders)
	case a.Method != "" && !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}, a.Method):
		return faultf(pattern.FaultInvalid, "%s: the method %q is not known, expected GET, HEAD, POST, PUT, PATCH or DELETE", s.Op, clip(a.Method))
	}
	_, fault := stepDuration(s, "timeout", a.Timeout, pattern.MaxHTTPTime, pattern.MaxHTTPTime)
	return fault
}

// fetchForRun sends a request, for as long as work says that its answer is awaited.
// One that may have been sent before the hub stopped is sent again only if that does
// no harm.
func (h *Hub) fetchForRun(ctx, work context.Context, task *runTask) error {
	s := &task.step
	args, fault := readArgs[pattern.HTTPArgs](s)
	if fault == nil {
		fault = checkHTTP(s, &args)
	}
	timeout, _ := stepDuration(s, "timeout", args.Timeout, pattern.MaxHTTPTime, pattern.MaxHTTPTime)
	if fault == nil && h.runs.fetch == nil {
		fault = faultf(pattern.FaultUnavailable, "this hub sends no requests")
	}
	if task.fault = fault; fault != nil {
		return nil
	}
	again := args.Idempotent || args.Method == "" || args.Method == "GET" || args.Method == "HEAD"
	if task.run.Taken && !again {
		task.fault = faultf(pattern.FaultUncertain, "the hub stopped while the request was on its way; whether the server took it is not known")
		return nil
	}
	r, err := h.requestForRun(ctx, &args)
	if err != nil {
		return err
	}
	if !again {
		if taken, err := h.takeRequest(ctx, task); err != nil || !taken {
			return err
		}
	}
	bounded, cancel := context.WithTimeout(work, timeout)
	defer cancel()
	answer, sent, err := h.runs.fetch(bounded, r)
	late := "no answer within " + timeout.String()
	if err != nil && bounded.Err() == nil {
		late = "no answer: " + err.Error()
	}
	switch {
	case work.Err() != nil:
		return work.Err()
	case err == nil:
		task.last = httpAnswer(&answer)
	case !sent:
		task.fault = faultf(pattern.FaultOffline, "the request was not sent: %v", err)
	case again:
		task.fault = faultf(pattern.FaultTimeout, "%s", late)
	default:
		task.fault = faultf(pattern.FaultUncertain, "%s; whether the server acted is not known", late)
	}
	return nil
}

// takeRequest commits that a request is being sent: before this is durable nothing
// of it may reach the wire.
func (h *Hub) takeRequest(ctx context.Context, task *runTask) (taken bool, err error) {
	err = h.step(ctx, "run.take", h.inRuns(func(t *runTx) error {
		taken = false
		r, err := t.load(task.id)
		if err != nil {
			return err
		}
		if s := r.State.Open(); s == nil || s.Ref != task.step.Ref {
			return nil
		}
		r.Taken, taken = true, true
		return t.store(r)
	}))
	if err == nil && !taken {
		err = errf(CodeRunNotFound, "the run waits for the request no more")
	}
	return taken, err
}

// requestForRun makes a request with its secrets in their place.
func (h *Hub) requestForRun(ctx context.Context, a *pattern.HTTPArgs) (r FetchRequest, err error) {
	r = FetchRequest{Method: a.Method, URL: a.URL, Header: map[string]string{}, Body: []byte(a.Body)}
	if r.Method == "" {
		r.Method = "GET"
	}
	err = h.view(ctx, "read secrets", func(reader storage.Reader) error {
		secret := func(name string) (string, error) {
			if strings.HasPrefix(name, secretKeyPrefix) {
				return "", errf(CodeForbidden, "the key of a device goes to the device alone")
			}
			return h.secret(reader, name)
		}
		for name, value := range a.Headers {
			filled, err := h.fillSecrets(value, secret)
			if err != nil {
				return err
			}
			var text string
			if json.Unmarshal(filled, &text) != nil {
				text = string(filled)
			}
			r.Header[name] = text
		}
		if len(a.JSON) > 0 {
			filled, err := h.fillSecrets(a.JSON, secret)
			if err != nil {
				return err
			}
			r.Body = filled
			if r.Header["Content-Type"] == "" {
				r.Header["Content-Type"] = "application/json"
			}
		}
		return nil
	})
	return r, err
}

// httpAnswer is what a program finds of an answer.
func httpAnswer(a *FetchAnswer) json.RawMessage {
	m := beginMembers(nil)
	m.number("status", int64(a.Status))
	switch {
	case strings.Contains(a.Type, "json") && json.Valid(a.Body):
		m.raw("json", a.Body)
	case utf8.Valid(a.Body):
		m.text("body", string(a.Body))
	default:
		m.text("body", strings.ToValidUTF8(string(a.Body), "\uFFFD"))
	}
	return m.end()
}

var errRunTask = errors.New("a run asks for what no worker does")
