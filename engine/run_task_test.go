package engine_test

import (
	"context"
	"errors"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/pattern"
)

// TestCanceledRequestIsDropped cancels a run whose request nobody answers: what it
// asks for to clean up does not wait until the request has timed out.
func TestCanceledRequestIsDropped(t *testing.T) {
	needs := pattern.Needs{"http:a.example"}
	sent, dropped := make(chan struct{}), make(chan struct{})
	f := newRunFixture(t, enginetest.NewScripts(script("ask", needs, func(p *enginetest.Play) (any, error) {
		p.Defer(func(p *enginetest.Play) {
			if a, err := p.Step("ctx.http", pattern.HTTPArgs{Method: "POST", URL: "https://a.example/fast"}); err == nil {
				p.Log("%s", a)
			}
		})
		return p.Step("ctx.http", pattern.HTTPArgs{Method: "POST", URL: "https://a.example/silent"})
	})), func(o *engine.Options) {
		o.Fetch = func(ctx context.Context, r engine.FetchRequest) (engine.FetchAnswer, bool, error) {
			if r.URL == "https://a.example/fast" {
				<-dropped // it comes behind the other one, all the same
				return engine.FetchAnswer{Status: 204}, true, nil
			}
			close(sent)
			<-ctx.Done()
			if errors.Is(ctx.Err(), context.Canceled) {
				close(dropped)
			}
			return engine.FetchAnswer{}, true, ctx.Err()
		}
	})
	id := f.start("ask", f.device("d"), "").ID
	<-sent
	if _, err := f.CancelRun(t.Context(), enginetest.Owner(), id, engine.CancelRunOptions{}); err != nil {
		t.Fatal(err)
	}
	f.state(id, pattern.Canceled)
	trace, err := f.RunTrace(t.Context(), enginetest.Owner(), id)
	if err != nil {
		t.Fatal(err)
	}
	if len(trace.Steps) != 2 || trace.Steps[1].Fault != nil || len(trace.Logs) != 1 {
		t.Errorf("it did %+v and said %v", trace.Steps, trace.Logs)
	}
}
