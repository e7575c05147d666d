package service

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

type runEvent struct {
	Cursor string    `json:"cursor" doc:"Resumes after this event: nothing is told again that has not changed."`
	Kind   string    `json:"kind" enum:"progress,ended" doc:"ended when nothing of the run is to come, unless it is undone."`
	Time   time.Time `json:"time"`
	runDocument
}

// runEventPage is what a WebSocket gets.
type runEventPage struct {
	Events []runEvent `json:"events"`
	Cursor string     `json:"cursor" doc:"Resumes after these events."`
}

type jobRunsEvent struct {
	Cursor string             `json:"cursor" doc:"Resumes after this event."`
	Kind   string             `json:"kind" enum:"progress,ended" doc:"ended when nothing of the job is to come, unless it is retried."`
	Time   time.Time          `json:"time"`
	Counts []runCountDocument `json:"counts" doc:"The job's runs by where they stand."`
	JobID  string             `json:"jobId"`
	jobProgress
}

// jobRunsEventPage is what a WebSocket gets.
type jobRunsEventPage struct {
	Events []jobRunsEvent `json:"events"`
	Cursor string         `json:"cursor" doc:"Resumes after these events."`
}

func runStreamRoutes() []*route {
	also := map[int]string{http.StatusSwitchingProtocols: "The WebSocket is open.", http.StatusTooManyRequests: "As many streams as allowed are open, in all or of this principal."}
	cursor := []parameter{{name: "cursor", kind: "string", text: "Of the event that came last; absent: from how it stands now. Also taken as Last-Event-ID."}}
	return []*route{
		{
			method: http.MethodGet, pattern: "/api/v1/runs/{run}/stream", operation: "followRun", tag: tagRuns, permission: auth.ServiceConnect, shape: shapeProblem, query: cursor,
			summary:  "Follows how a run stands, with Accept: text/event-stream as server-sent events, or as a WebSocket of pages: now and whenever that has changed. What passed meanwhile is left out.",
			response: runEventPage{}, handle: followRun, also: also,
		},
		{
			method: http.MethodGet, pattern: "/api/v1/jobs/{job}/runs/stream", operation: "followJobRuns", tag: tagRuns, permission: auth.ServiceConnect, shape: shapeProblem, query: cursor,
			summary:  "Follows how a job that runs a pattern stands, and its runs, with Accept: text/event-stream or as a WebSocket: its counters, and how many runs are at which phase and step, what passed meanwhile is left out.",
			response: jobRunsEventPage{}, handle: followJobRuns, also: also,
		},
	}
}

func notAStream(what string) error {
	return invalid("this is a stream: send Accept: text/event-stream, or open a WebSocket; %s is how it stands now", what)
}

func followRun(c *call) (answer, error) {
	if _, streams := c.upgrades(); !streams {
		return answer{}, notAStream("GET /api/v1/runs/{run}")
	}
	form := eventForm{name: "run", encode: func(e *engine.Event) []byte { return eventText(e, e.Data) }}
	return c.stream(func() (follower, error) {
		f, err := c.hub.FollowRun(c.r.Context(), c.caller, c.params[0], c.streamCursor())
		if err != nil {
			return nil, err
		}
		return eventFollower{&runStream{f}, form}, nil
	})
}

// runStream gives what a run's follower tells as events.
type runStream struct{ *engine.RunFollower }

// Next waits for an event.
func (s *runStream) Next(ctx context.Context, idle time.Duration) ([]*engine.Event, error) {
	r, changed, err := s.RunFollower.Next(ctx, idle)
	if err != nil || !changed {
		return nil, err
	}
	e := &engine.Event{Cursor: s.Cursor(), Kind: "progress", Time: time.Now().UTC()}
	if r.State.Final() {
		e.Kind = "ended"
	}
	e.Data = json.RawMessage(encode(runEvent{e.Cursor, e.Kind, e.Time, showPatternRun(r)}))
	return []*engine.Event{e}, nil
}

// Batch says that no other stream has the same event.
func (s *runStream) Batch() (id engine.BatchID, shared bool) { return id, false }

// Release does nothing: an event is little.
func (s *runStream) Release() {}

// countPace is how often the runs of a job are counted: that looks at each of
// them.
const countPace = 2 * time.Second

func followJobRuns(c *call) (answer, error) {
	if _, streams := c.upgrades(); !streams {
		return answer{}, notAStream("GET /api/v1/runs/counts?jobId={job}")
	}
	form := eventForm{name: "jobRuns", encode: func(e *engine.Event) []byte { return eventText(e, e.Data) }}
	return c.stream(func() (follower, error) {
		job, err := c.hub.Job(c.r.Context(), c.caller, c.params[0])
		if err != nil {
			return nil, err
		}
		if job.Kind != engine.JobRunPattern {
			return nil, invalid("the job is of the kind %s; expected one that runs a pattern", job.Kind)
		}
		f, err := c.hub.FollowJob(c.r.Context(), c.caller, c.params[0], c.streamCursor())
		if err != nil {
			return nil, err
		}
		return eventFollower{&jobRunsStream{JobFollower: f, hub: c.hub, caller: c.caller, job: job}, form}, nil
	})
}

// jobRunsStream tells how a job stands, and how its runs do. What changes
// without a word of the job, such as the phase of a run, is counted again while
// it is silent.
type jobRunsStream struct {
	*engine.JobFollower
	hub     *engine.Hub
	caller  engine.Caller
	job     engine.Job
	counts  []engine.RunCount
	counted time.Time
	told    bool
}

// Next waits for an event.
func (s *jobRunsStream) Next(ctx context.Context, idle time.Duration) ([]*engine.Event, error) {
	for end := time.Now().Add(idle); ; {
		wait := min(time.Until(end), countPace)
		if wait < 0 {
			return nil, nil
		}
		job, changed, err := s.JobFollower.Next(ctx, wait)
		if err != nil {
			return nil, err
		}
		if changed {
			s.job = job
		}
		ended := s.job.Status().Final() && s.job.NextRun.IsZero()
		moved := false
		if time.Since(s.counted) >= countPace || ended && changed {
			counts, err := s.hub.RunCounts(ctx, s.caller, engine.RunFilter{Job: s.job.ID})
			if err != nil {
				return nil, err
			}
			s.counted, moved = time.Now(), !slices.Equal(counts, s.counts)
			s.counts = counts
		}
		if !changed && !moved && s.told {
			continue
		}
		s.told = true
		e := &engine.Event{Cursor: s.Cursor(), Kind: "progress", Time: time.Now().UTC()}
		if ended {
			e.Kind = "ended"
		}
		e.Data = json.RawMessage(encode(jobRunsEvent{e.Cursor, e.Kind, e.Time, show(s.counts, showRunCount), s.job.ID, showProgress(&s.job, e.Time)}))
		return []*engine.Event{e}, nil
	}
}

// Batch says that no other stream has the same event.
func (s *jobRunsStream) Batch() (id engine.BatchID, shared bool) { return id, false }

// Release does nothing: an event is little.
func (s *jobRunsStream) Release() {}
