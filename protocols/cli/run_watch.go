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
	w := runWatch{app: a, output: output}
	screen := screen[client.RunEvent]{
		follow: func(ctx context.Context, cursor string, f func(client.RunEvent) error) (string, error) {
			return s.FollowRun(ctx, id, cursor, f)
		},
		final: func(e *client.RunEvent) bool { return e.Final },
		take:  func(_ context.Context, e *client.RunEvent) error { return w.take(e) },
		draw:  func(context.Context) error { return w.draw(false) },
		most:  most,
		late: func(most time.Duration) error {
			return &problem{exit: ExitTimeout, what: fmt.Sprintf("the run has not ended within %s; it goes on", most), next: fmt.Sprintf("`muster run watch %s` follows it again.", id)}
		},
	}
	err := screen.run(a)
	switch {
	case errors.Is(err, errEnded):
		return w.verdict()
	case a.ctx.Err() != nil:
		return &problem{exit: ExitCancelled, what: "the watching has ended; the run goes on", next: fmt.Sprintf("`muster run watch %s` follows it again, `muster run cancel %s` ends it.", id, id)}
	}
	return err
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
