package cli

import (
	"context"
	"errors"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// screen follows what the hub tells of one thing, a job or a run, until it has
// ended, and shows it. A hub that goes away is waited for.
type screen[E any] struct {
	// follow hands over events from a cursor on, as the client's methods do.
	follow func(ctx context.Context, cursor string, f func(E) error) (next string, err error)
	final  func(e *E) bool                       // nothing comes behind it
	take   func(ctx context.Context, e *E) error // a new event
	draw   func(ctx context.Context) error       // now and then, for what time alone changes
	most   time.Duration                         // how long; 0 until it ends
	late   func(most time.Duration) error        // says that it took longer
}

// run follows until there is an error; errEnded is the end of what is followed.
func (s *screen[E]) run(a *app) error {
	ctx, stop := context.WithCancel(a.ctx)
	defer stop()
	var late <-chan time.Time
	if s.most > 0 {
		timer := time.NewTimer(s.most)
		defer timer.Stop()
		late = timer.C
	}
	events := make(chan E)
	ended := make(chan error, 1)
	go func() { ended <- s.read(ctx, a, events) }()
	tick := time.NewTicker(watchRedraw)
	defer tick.Stop()
	for {
		var err error
		select {
		case e := <-events:
			err = s.take(ctx, &e)
		case <-tick.C:
			err = s.draw(ctx)
		case <-late:
			err = s.late(s.most)
		case err := <-ended:
			return err
		}
		if err != nil {
			stop()
			<-ended
			return err
		}
	}
}

// read hands over what the hub tells, until the last of it.
func (s *screen[E]) read(ctx context.Context, a *app, events chan<- E) error {
	keep := following{app: a}
	for cursor := ""; ; {
		next, err := s.follow(ctx, cursor, func(e E) error {
			keep.heard()
			select {
			case events <- e:
			case <-ctx.Done():
				return ctx.Err()
			}
			if s.final(&e) {
				return errEnded
			}
			return nil
		})
		cursor = next
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errEnded) || client.HasCode(err, "deleted") {
			return err
		}
		if err := keep.wait(err); err != nil {
			return err
		}
	}
}
