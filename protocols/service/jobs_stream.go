package service

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

// jobEventPage is what a WebSocket gets.
type jobEventPage struct {
	Events []jobEvent `json:"events"`
	Cursor string     `json:"cursor" doc:"Resumes after these events."`
}

type jobEvent struct {
	Cursor string    `json:"cursor" doc:"Resumes after this event: nothing is told again that has not changed."`
	Kind   string    `json:"kind" enum:"progress,ended" doc:"ended when nothing of the job is to come, unless it is retried."`
	Time   time.Time `json:"time"`
	JobID  string    `json:"jobId"`
	jobProgress
}

func jobStreamRoutes() []*route {
	return []*route{{
		method: http.MethodGet, pattern: "/api/v1/jobs/{job}/progress", operation: "followJob", tag: tagJobs, permission: auth.ServiceConnect, shape: shapeProblem,
		query:    []parameter{{name: "cursor", kind: "string", text: "Of the event that came last; absent: from how it stands now. Also taken as Last-Event-ID."}},
		summary:  "Follows how a job stands, with Accept: text/event-stream as server-sent events, or as a WebSocket of pages: its counters, now and whenever they have changed, at most twice a second. What passed meanwhile is left out, so that it costs the same for any number of targets.",
		response: jobEventPage{}, handle: followJob,
		also: map[int]string{http.StatusSwitchingProtocols: "The WebSocket is open.", http.StatusTooManyRequests: "As many streams as allowed are open, in all or of this principal."},
	}}
}

func followJob(c *call) (answer, error) {
	if _, streams := c.upgrades(); !streams {
		return answer{}, invalid("progress is a stream: send Accept: text/event-stream, or open a WebSocket; GET /api/v1/jobs/{id} is how it stands now")
	}
	form := eventForm{name: "job", encode: func(e *engine.Event) []byte { return eventText(e, e.Data) }}
	return c.stream(func() (follower, error) {
		f, err := c.hub.FollowJob(c.r.Context(), c.caller, c.params[0], c.streamCursor())
		if err != nil {
			return nil, err
		}
		return eventFollower{&jobStream{JobFollower: f, id: c.params[0]}, form}, nil
	})
}

// jobStream gives what a job's follower tells as events.
type jobStream struct {
	*engine.JobFollower
	id string
}

// Next waits for an event.
func (s *jobStream) Next(ctx context.Context, idle time.Duration) ([]*engine.Event, error) {
	j, changed, err := s.JobFollower.Next(ctx, idle)
	if err != nil || !changed {
		return nil, err
	}
	now := time.Now().UTC()
	e := &engine.Event{Cursor: s.Cursor(), Kind: "progress", Time: now}
	if j.Status().Final() && j.NextRun.IsZero() {
		e.Kind = "ended"
	}
	e.Data = json.RawMessage(encode(jobEvent{e.Cursor, e.Kind, now, s.id, showProgress(&j, now)}))
	return []*engine.Event{e}, nil
}

// Batch says that no other stream has the same event.
func (s *jobStream) Batch() (id engine.BatchID, shared bool) { return id, false }

// Release does nothing: an event is little.
func (s *jobStream) Release() {}
