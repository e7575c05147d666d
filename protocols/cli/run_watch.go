package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

type runWatchCmd struct {
	WhichHub
	Output string        `short:"o" help:"table, or jsonl for every event as it comes." enum:"table,jsonl" default:"table" placeholder:"FORM"`
	For    time.Duration `help:"Stop watching after so long, with the exit code 7; the run goes on." placeholder:"SPAN"`
	ID     string        `arg:"" name:"run" help:"Id of the run."`
}

// Run follows a run.
func (c *runWatchCmd) Run(a *app) error {
	s, err := a.service(HubFlags{WhichHub: c.WhichHub})
	if err != nil {
		return err
	}
	defer s.Close()
	return a.watchRun(s, c.ID, c.Output, c.For)
}

// watchRun follows a run until it has ended, and fails as its end says: 1 when
// it failed or is uncertain, 9 when it was canceled. A hub that goes away is
// waited for.
func (a *app) watchRun(s *client.Service, id, output string, most time.Duration) error {
	ctx, stop := context.WithCancel(a.ctx)
	defer stop()
	var late <-chan time.Time
	if most > 0 {
		timer := time.NewTimer(most)
		defer timer.Stop()
		late = timer.C
	}
	events := make(chan client.RunEvent)
	ended := make(chan error, 1)
	go func() { ended <- a.followRun(ctx, s, id, events) }()
	w := runWatch{app: a, output: output}
	tick := time.NewTicker(watchRedraw)
	defer tick.Stop()
	var err error
	for followed := true; followed; {
		select {
		case e := <-events:
			err = w.take(&e)
		case <-tick.C:
			err = w.draw(false)
		case <-late:
			err = &problem{exit: ExitTimeout, what: fmt.Sprintf("the run has not ended within %s; it goes on", most), next: fmt.Sprintf("`muster run watch %s` follows it again.", id)}
		case err = <-ended:
			followed = false
		}
		if err != nil && followed {
			stop()
			<-ended
			followed = false
		}
	}
	switch {
	case errors.Is(err, errEnded):
		return w.verdict()
	case a.ctx.Err() != nil:
		return &problem{exit: ExitCancelled, what: "the watching has ended; the run goes on", next: fmt.Sprintf("`muster run watch %s` follows it again, `muster run cancel %s` ends it.", id, id)}
	}
	return err
}

// followRun hands over what the hub tells of a run, until it has ended.
func (a *app) followRun(ctx context.Context, s *client.Service, id string, events chan<- client.RunEvent) error {
	keep := following{app: a}
	for cursor := ""; ; {
		next, err := s.FollowRun(ctx, id, cursor, func(e client.RunEvent) error {
			keep.heard()
			select {
			case events <- e:
			case <-ctx.Done():
				return ctx.Err()
			}
			if e.Final {
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

// runWatch shows how a run stands.
type runWatch struct {
	app    *app
	output string

	now   client.Run
	has   bool
	lines int       // on the terminal
	said  time.Time // when the last line was written
	text  string    // of it
}

// take takes a new event.
func (w *runWatch) take(e *client.RunEvent) error {
	w.now, w.has = e.Run, true
	if w.output == "jsonl" {
		return writeJSONLine(w.app.io.Out, e.Raw)
	}
	return w.draw(true)
}

// draw writes how the run stands: on a terminal over what was there, elsewhere
// as a line whenever it moves on, and now and then while it waits.
func (w *runWatch) draw(moved bool) error {
	if !w.has || w.output == "jsonl" {
		return nil
	}
	if w.app.width > 0 {
		text := w.picture()
		up := ""
		if w.lines > 0 {
			up = fmt.Sprintf("\x1b[%dA", w.lines)
		}
		w.lines = strings.Count(text, "\n")
		_, err := io.WriteString(w.app.io.Out, up+"\r\x1b[J"+text)
		return err
	}
	text := joined("  ", printable(runState(&w.now)), stepCount(w.now.Steps), printable(w.app.runPlace(&w.now)))
	if text == w.text && (moved || time.Since(w.said) < watchLine) {
		return nil
	}
	w.said, w.text = time.Now(), text
	_, err := fmt.Fprintln(w.app.io.Out, joined("  ", time.Now().In(w.app.zone).Format(time.TimeOnly), text))
	return err
}

func stepCount(n int) string {
	if n == 1 {
		return "1 step"
	}
	return fmt.Sprintf("%d steps", n)
}

// picture is how the run stands on a terminal, each line within its width.
func (w *runWatch) picture() string {
	r := &w.now
	lines := []string{fmt.Sprintf("%s %s on %s  %s", printable(r.Pattern), printable(r.Version), printable(r.Target()), printable(runState(r)))}
	if r.Progress > 0 && !r.Final {
		done := int(r.Progress * watchBar)
		lines = append(lines, fmt.Sprintf("  %s%s %.0f %%", strings.Repeat("█", min(done, watchBar)), strings.Repeat("░", watchBar-min(done, watchBar)), 100*r.Progress))
	}
	if place := w.app.runPlace(r); place != "" {
		lines = append(lines, "  "+printable(place))
	}
	last := "  " + stepCount(r.Steps)
	if !r.Started.IsZero() {
		end := time.Now()
		if !r.Ended.IsZero() {
			end = r.Ended.Time
		}
		last += "   " + since(max(end.Sub(r.Started.Time), 0))
	}
	if !r.Due.IsZero() && !r.Final {
		last += "   at most " + until(r.Due.Time) + " more"
	}
	lines = append(lines, last)
	if next := runNext(r); next != "" && !r.Final {
		lines = append(lines, "  "+printable(next))
	}
	for i := range lines {
		lines[i] = cut(lines[i], w.app.width-1)
	}
	return strings.Join(lines, "\n") + "\n"
}

// verdict is what the exit code says of a run that has ended.
func (w *runWatch) verdict() error {
	r := &w.now
	trace := fmt.Sprintf("`muster run trace %s` tells what it did.", r.ID)
	why := ""
	if r.Fault != nil {
		why = faultLine(r.Fault)
	}
	switch r.State {
	case "failed":
		return &problem{exit: ExitFailed, what: "the run " + runState(r), why: why, next: trace}
	case "uncertain":
		return &problem{exit: ExitFailed, what: "nobody knows what came of the run's last command", why: why, next: trace}
	case "canceled":
		return &problem{exit: ExitCancelled, what: "the run was canceled", why: why, next: trace}
	}
	return nil
}
