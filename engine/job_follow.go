package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"sync"
	"time"
)

// jobFollowPace is how often a follower is told at most how its job stands:
// counters move with each batch of executions.
const jobFollowPace = 500 * time.Millisecond

// jobHolderPace is how often it is looked at who holds the devices for which a job
// waits: that changes without a change of the job.
const jobHolderPace = 5 * time.Second

// jobStreams are the streams that follow jobs, woken by commits.
type jobStreams struct {
	mu         sync.Mutex
	open       int
	principals map[string]int
	jobs       map[string]map[*JobFollower]struct{}
}

// JobFollower tells how one job stands, again whenever that has changed, for
// one goroutine at a time. It reads one record each time, however many targets
// the job has, and skips what passed while nobody asked.
type JobFollower struct {
	hub       *Hub
	caller    Caller
	job       string
	principal string
	moved     chan struct{} // capacity 1: the record was written
	told      string        // cursor of what Next returned last
	at        time.Time     // when that was
	blocked   bool          // it may be another job for which it waits
	timer     *time.Timer
}

// FollowJob follows a job. cursor is that of a JobFollower that told how the job
// stood: Next returns at once unless that is still so; empty, and one of another
// epoch, is never so. Close must be called. CodeThrottled means that as many
// streams as allowed are open. It needs ServiceConnect.
func (h *Hub) FollowJob(ctx context.Context, c Caller, id, cursor string) (*JobFollower, error) {
	if _, err := h.Job(ctx, c, id); err != nil {
		return nil, err
	}
	f := &JobFollower{hub: h, caller: c, job: id, principal: c.Principal.String(), moved: make(chan struct{}, 1), told: cursor, timer: time.NewTimer(time.Hour)}
	if err := h.jobs.streams.enter(f, h.limits); err != nil {
		return nil, err
	}
	f.moved <- struct{}{} // the first Next looks
	return f, nil
}

func (s *jobStreams) enter(f *JobFollower, l Limits) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.open >= l.EventStreams:
		return &Error{Code: CodeThrottled, Message: plural(l.EventStreams, "job stream") + " are open, the most of this hub", Next: "Close one, or read the job."}
	case s.principals[f.principal] >= l.EventStreamsEach:
		return &Error{Code: CodeThrottled, Message: plural(l.EventStreamsEach, "job stream") + " of " + f.principal + " are open, the most of one principal", Next: "Close one, use another policy, or read the job."}
	}
	if s.jobs == nil {
		s.jobs, s.principals = map[string]map[*JobFollower]struct{}{}, map[string]int{}
	}
	if s.jobs[f.job] == nil {
		s.jobs[f.job] = map[*JobFollower]struct{}{}
	}
	s.jobs[f.job][f] = struct{}{}
	s.principals[f.principal]++
	s.open++
	return nil
}

// Close ends the following.
func (f *JobFollower) Close() {
	f.timer.Stop()
	s := &f.hub.jobs.streams
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.jobs[f.job], f); len(s.jobs[f.job]) == 0 {
		delete(s.jobs, f.job)
	}
	if s.principals[f.principal]--; s.principals[f.principal] == 0 {
		delete(s.principals, f.principal)
	}
	s.open--
}

// wake has those who follow a job look at it again.
func (s *jobStreams) wake(job string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.jobs[job] {
		select {
		case f.moved <- struct{}{}:
		default:
		}
	}
}

// Cursor names what Next returned last, to follow from there.
func (f *JobFollower) Cursor() string { return f.told }

// Next waits until the job stands otherwise than it was told last. changed is
// false when nothing came for idle. Errors: ctx's, CodeClosed when the hub shuts
// down, CodeJobNotFound when the job was deleted, and those of reading.
func (f *JobFollower) Next(ctx context.Context, idle time.Duration) (j Job, changed bool, err error) {
	end := time.Now().Add(idle)
	for {
		wait := time.Until(end)
		if f.blocked {
			wait = min(wait, jobHolderPace)
		}
		f.timer.Reset(wait)
		select {
		case <-f.moved:
		case <-f.timer.C:
			if !f.blocked || !time.Now().Before(end) {
				return Job{}, false, nil
			}
		case <-f.hub.events.drained:
			return Job{}, false, errf(CodeClosed, "the hub is shutting down")
		case <-ctx.Done():
			return Job{}, false, ctx.Err()
		}
		if wait := jobFollowPace - time.Since(f.at); wait > 0 && !f.at.IsZero() {
			f.timer.Reset(wait)
			select {
			case <-f.timer.C:
			case <-f.hub.events.drained:
				return Job{}, false, errf(CodeClosed, "the hub is shutting down")
			case <-ctx.Done():
				return Job{}, false, ctx.Err()
			}
			select { // what came meanwhile is read now
			case <-f.moved:
			default:
			}
		}
		if j, err = f.hub.Job(ctx, f.caller, f.job); err != nil {
			return Job{}, false, err
		}
		f.blocked = mayBeBlocked(&j.State)
		cursor, err := f.hub.jobCursor(&j)
		if err != nil {
			return Job{}, false, err
		}
		if cursor != f.told {
			f.told, f.at = cursor, time.Now()
			return j, true, nil
		}
	}
}

// jobCursor names how a job stands: it is another one as soon as anything
// differs that one sees of it.
func (h *Hub) jobCursor(j *Job) (string, error) {
	state := j.State
	state.Tokens, state.TokensAt = 0, time.Time{} // nobody sees them
	text, err := json.Marshal([]any{state, j.ETag, j.Run, j.Found, j.Ended, j.NextRun, j.BlockedBy})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return strconv.FormatUint(uint64(h.db.Epoch().Ordinal), 36) + "." + hex.EncodeToString(sum[:12]), nil
}
