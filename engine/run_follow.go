package engine

import (
	"context"
	"strconv"
	"sync"
	"time"
)

// runFollowPace is how often a follower is told at most how its run stands.
const runFollowPace = 100 * time.Millisecond

// runStreams are the streams that follow runs, woken by commits.
type runStreams struct {
	mu         sync.Mutex
	open       int
	principals map[string]int
	runs       map[string]map[*RunFollower]struct{}
}

// RunFollower tells how one run stands, again whenever that has changed, for
// one goroutine at a time. It skips what passed while nobody asked.
type RunFollower struct {
	hub       *Hub
	caller    Caller
	run       string
	principal string
	moved     chan struct{} // capacity 1: the record was written
	told      string        // cursor of what Next returned last
	follows   bool          // its progress is its device's
	at        time.Time     // when that was
	timer     *time.Timer
}

// FollowRun follows a run. cursor is that of a RunFollower that told how the run
// stood: Next returns at once unless that is still so; empty, and one of another
// epoch, is never so. Close must be called. CodeThrottled means that as many
// streams as allowed are open. It needs ServiceConnect.
func (h *Hub) FollowRun(ctx context.Context, c Caller, id, cursor string) (*RunFollower, error) {
	if _, err := h.ReadRun(ctx, c, id); err != nil {
		return nil, err
	}
	f := &RunFollower{hub: h, caller: c, run: id, principal: c.Principal.String(), moved: make(chan struct{}, 1), told: cursor, timer: time.NewTimer(time.Hour)}
	if err := h.runs.streams.enter(f, &h.limits); err != nil {
		return nil, err
	}
	f.moved <- struct{}{} // the first Next looks
	return f, nil
}

func (s *runStreams) enter(f *RunFollower, l *Limits) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.open >= l.EventStreams:
		return &Error{Code: CodeThrottled, Message: plural(l.EventStreams, "run stream") + " are open, the most of this hub", Next: "Close one, or read the run."}
	case s.principals[f.principal] >= l.EventStreamsEach:
		return &Error{Code: CodeThrottled, Message: plural(l.EventStreamsEach, "run stream") + " of " + f.principal + " are open, the most of one principal", Next: "Close one, use another policy, or read the run."}
	}
	if s.runs == nil {
		s.runs, s.principals = map[string]map[*RunFollower]struct{}{}, map[string]int{}
	}
	if s.runs[f.run] == nil {
		s.runs[f.run] = map[*RunFollower]struct{}{}
	}
	s.runs[f.run][f] = struct{}{}
	s.principals[f.principal]++
	s.open++
	return nil
}

// Close ends the following.
func (f *RunFollower) Close() {
	f.timer.Stop()
	s := &f.hub.runs.streams
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.runs[f.run], f); len(s.runs[f.run]) == 0 {
		delete(s.runs, f.run)
	}
	if s.principals[f.principal]--; s.principals[f.principal] == 0 {
		delete(s.principals, f.principal)
	}
	s.open--
}

// wake has those who follow a run look at it again.
func (s *runStreams) wake(run string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.runs[run] {
		select {
		case f.moved <- struct{}{}:
		default:
		}
	}
}

// Cursor names what Next returned last, to follow from there.
func (f *RunFollower) Cursor() string { return f.told }

// Next waits until the run stands otherwise than it was told last. changed is
// false when nothing came for idle. Errors: ctx's, CodeClosed when the hub shuts
// down, CodeRunNotFound when the run is gone, and those of reading.
func (f *RunFollower) Next(ctx context.Context, idle time.Duration) (r Run, changed bool, err error) {
	end := time.Now().Add(idle)
	for {
		wait := time.Until(end)
		if f.follows { // the device's percentage moves without the run
			wait = min(wait, runFollowProgress)
		}
		f.timer.Reset(wait)
		select {
		case <-f.moved:
		case <-f.timer.C:
			if !f.follows || !time.Now().Before(end) {
				return Run{}, false, nil
			}
		case <-f.hub.events.drained:
			return Run{}, false, errf(CodeClosed, "the hub is shutting down")
		case <-ctx.Done():
			return Run{}, false, ctx.Err()
		}
		if wait := runFollowPace - time.Since(f.at); wait > 0 && !f.at.IsZero() {
			f.timer.Reset(wait)
			select {
			case <-f.timer.C:
			case <-f.hub.events.drained:
				return Run{}, false, errf(CodeClosed, "the hub is shutting down")
			case <-ctx.Done():
				return Run{}, false, ctx.Err()
			}
			select { // what came meanwhile is read now
			case <-f.moved:
			default:
			}
		}
		if r, err = f.hub.ReadRun(ctx, f.caller, f.run); err != nil {
			return Run{}, false, err
		}
		f.follows = r.Report.Follow != "" && !r.State.Final()
		cursor := strconv.FormatUint(uint64(f.hub.db.Epoch().Ordinal), 36) + "." + r.ETag + "." + strconv.Itoa(int(r.Report.Progress*100))
		if cursor != f.told {
			f.told, f.at = cursor, time.Now()
			return r, true, nil
		}
	}
}

// runFollowProgress is how often the progress is looked at that a device reports.
const runFollowProgress = time.Second
