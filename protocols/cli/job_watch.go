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

const (
	watchLine     = 5 * time.Second // between two lines where there is no terminal
	watchRedraw   = time.Second     // of a terminal, for the clock
	watchFailures = 5 * time.Second // between two counts of failures by code
	watchPace     = 10 * time.Second
	watchForetell = 10 * time.Second // of the question how long it may last

	watchBar = 24 // columns
)

type jobWatchCmd struct {
	WhichHub
	Output string        `short:"o" help:"table, or jsonl for every event as it comes." enum:"table,jsonl" default:"table" placeholder:"FORM"`
	For    time.Duration `help:"Stop watching after so long, with the exit code 7; the job goes on." placeholder:"SPAN"`
	PauseFlags
	Job string `arg:"" help:"Id of the job, or of an import or export."`
}

// PauseFlags say what the watching of a job does when the job pauses.
type PauseFlags struct {
	ThroughPauses bool `help:"Without a terminal: keep on watching a job that pauses. When not given, the watching then ends with the exit code 8; the job stays."`
}

// Help says more than a line.
func (c *jobWatchCmd) Help() string {
	return strings.TrimSpace(`
It ends with the job: with 0 when all went well, 8 when some of the devices ended
badly, or were found in bad health, 1 when the job failed or all of them ended
badly, 9 when it was canceled. A job that pauses stays paused until somebody
resumes it: on a terminal the watching goes on and says what to do next, elsewhere
it ends with 8, unless --through-pauses is given. Where a wave waits for approval,
as its policy asks, the watching says how to approve it and goes on. Devices that
are away may hold a job up for long: --for bounds how long it is watched, and
elsewhere than on a terminal the watching says so first.`)
}

// Run follows a job.
func (c *jobWatchCmd) Run(a *app) error {
	s, err := a.service(HubFlags{WhichHub: c.WhichHub})
	if err != nil {
		return err
	}
	defer s.Close()
	err = a.watchJob(s, c.Job, watching{output: c.Output, most: c.For, through: c.ThroughPauses})
	if client.HasCode(err, "JobNotFound") { // imports and exports are a list of their own
		return a.watchIdentityJob(s, c, err)
	}
	return err
}

// errEnded ends the stream of a job that has ended, errPaused the watching of one
// that has paused.
var (
	errEnded  = errors.New("the job has ended")
	errPaused = errors.New("the job has paused")
)

// watching is how a job is watched.
type watching struct {
	output  string        // table or jsonl
	most    time.Duration // how long; 0 until it ends
	through bool          // also without a terminal: through its pauses
}

// watchJob follows a job until it has ended, and fails as its outcome says: 8
// when some targets ended badly, 1 when it failed, 9 when it was canceled. A job
// that pauses may stay so for ever: where nobody sees the screen, that ends the
// watching with 8. A hub that goes away is waited for.
func (a *app) watchJob(s *client.Service, id string, how watching) error {
	w := jobWatch{app: a, service: s, id: id, output: how.output, endsPaused: a.width == 0 && !how.through, began: time.Now(), runs: runsWatch{app: a, service: s, job: id}}
	screen := screen[client.JobEvent]{
		follow: func(ctx context.Context, cursor string, f func(client.JobEvent) error) (string, error) {
			return s.FollowJob(ctx, id, cursor, f)
		},
		final: func(e *client.JobEvent) bool { return e.Final() },
		take:  func(ctx context.Context, e *client.JobEvent) error { return w.take(ctx, *e) },
		draw:  func(ctx context.Context) error { return w.draw(ctx, false) },
		most:  how.most,
		late: func(most time.Duration) error {
			return &problem{exit: ExitTimeout, what: fmt.Sprintf("the job has not ended within %s; it goes on", most), next: fmt.Sprintf("`muster job watch %s` follows it again.", id)}
		},
	}
	if a.width == 0 && how.most == 0 {
		w.foretell()
	}
	err := screen.run(a)
	w.finish()
	switch {
	case errors.Is(err, errEnded):
		return w.verdict()
	case errors.Is(err, errPaused):
		return &problem{exit: ExitPartly, what: "the job is paused, and the watching has ended", why: w.now.Reason, next: w.pausedNext()}
	case a.ctx.Err() != nil:
		return &problem{exit: ExitCancelled, what: "the watching has ended; the job goes on", next: fmt.Sprintf("`muster job watch %s` follows it again, `muster job cancel %s` ends it.", id, id)}
	}
	return err
}

// foretell says how long the watching may last, where nobody sits before a screen
// and sees that it does: of a job that waits for devices, or has no end of its own.
func (w *jobWatch) foretell() {
	ctx, stop := context.WithTimeout(w.app.ctx, watchForetell)
	defer stop()
	if j, err := w.service.Job(ctx, w.id); err == nil && !j.Final() {
		if text := watchLasts(&j); text != "" {
			w.app.note("%s `muster job watch %s --for SPAN` ends the watching earlier, with the exit code %d.", printable(text), printable(w.id), ExitTimeout)
		}
	}
}

// watchLasts is what a job's end depends on beside the work that there is; "" when
// it is nothing.
func watchLasts(j *client.Job) string {
	act := &j.Action
	switch {
	case j.Targets.Dynamic && j.Policy.End != "":
		return "The job takes in devices that come to match, until " + j.Policy.End + "."
	case j.Targets.Dynamic:
		return "The job takes in devices that come to match, and goes on until it is canceled."
	case act.Method != nil && act.Offline != "fail" || act.Run != nil || act.Confirm != "":
		text := "The watching ends with the job, which waits for devices that are away"
		if j.Policy.Timeout != "" {
			text += ", up to " + j.Policy.Timeout + " for each"
		}
		return text + "."
	}
	return ""
}

// jobWatch shows how a job stands.
type jobWatch struct {
	app     *app
	service *client.Service
	id      string
	output  string
	began   time.Time

	endsPaused bool // a pause ends the watching

	now      client.JobEvent
	has      bool
	samples  []endedAt // of the last watchPace
	failures []client.JobFailure
	counted  int       // bad ones when failures were counted
	asked    time.Time // when that was
	lines    int       // on the terminal
	said     time.Time // when the last line was written
	status   string    // in it
	told     string    // what is to do, where lines are written
	runs     runsWatch
}

// endedAt is how many executions had ended at a time.
type endedAt struct {
	at time.Time
	n  int
}

// take takes a new event.
func (w *jobWatch) take(ctx context.Context, e client.JobEvent) error {
	if w.output == "jsonl" {
		w.now = e
		return errors.Join(writeJSONLine(w.app.io.Out, e.Raw), w.paused())
	}
	if !w.has || e.Run != w.now.Run {
		w.samples = nil
	}
	w.now, w.has = e, true
	at := time.Now()
	w.samples = append(w.samples, endedAt{at, e.Total.Ended()})
	for len(w.samples) > 2 && at.Sub(w.samples[1].at) > watchPace {
		w.samples = w.samples[1:]
	}
	return errors.Join(w.draw(ctx, true), w.paused())
}

// over reports whether nothing more is told of the job.
func (w *jobWatch) over() bool { return w.now.Final() || w.paused() != nil }

// paused is errPaused when the job's pause ends the watching.
func (w *jobWatch) paused() error {
	if w.endsPaused && w.now.Status == "paused" {
		return errPaused
	}
	return nil
}

// pace is how many executions ended a second lately.
func (w *jobWatch) pace() float64 {
	if len(w.samples) < 2 {
		return 0
	}
	first, last := w.samples[0], w.samples[len(w.samples)-1]
	return float64(last.n-first.n) / max(time.Since(first.at).Seconds(), 0.001)
}

// draw writes how the job stands: on a terminal over what was there, elsewhere
// as a line now and then.
func (w *jobWatch) draw(ctx context.Context, moved bool) error {
	if !w.has || w.output == "jsonl" {
		return nil
	}
	if w.app.width > 0 {
		w.countFailures(ctx)
		w.runs.count(ctx, 2*watchRedraw, w.now.Final())
		text := w.picture()
		up := ""
		if w.lines > 0 {
			up = fmt.Sprintf("\x1b[%dA", w.lines)
		}
		w.lines = strings.Count(text, "\n")
		_, err := io.WriteString(w.app.io.Out, up+"\r\x1b[J"+text)
		return err
	}
	status := w.place()
	if moved && status == w.status && time.Since(w.said) < watchLine || !moved && time.Since(w.said) < watchLine {
		return nil
	}
	w.said, w.status = time.Now(), status
	w.runs.count(ctx, watchLine, w.over())
	lines := []string{w.line()}
	for _, hint := range []string{w.hint(), w.runs.hint()} {
		if hint != "" && !w.over() {
			lines = append(lines, "  "+printable(hint))
		}
	}
	_, err := io.WriteString(w.app.io.Out, strings.Join(lines, "\n")+"\n")
	return err
}

// place is what of how the job stands makes for another line at once.
func (w *jobWatch) place() string { return w.now.Status + w.now.WaitsFor + w.now.Blocked }

// hint is what is to do about how the job stands, when it was not told yet.
func (w *jobWatch) hint() string {
	next := jobNext(w.id, &w.now.JobProgress)
	if next == w.told {
		return ""
	}
	w.told = next
	return next
}

// line is how the job stands in one line.
func (w *jobWatch) line() string {
	p := &w.now.JobProgress
	parts := []string{time.Now().In(w.app.zone).Format(time.TimeOnly), printable(w.app.standing(p)), doneOf(p)}
	if len(p.Waves) > 1 {
		parts = append(parts, fmt.Sprintf("wave %d/%d", p.Wave, len(p.Waves)))
	}
	if text := tallyText(&p.Total); text != "" {
		parts = append(parts, text)
	}
	if text := w.runs.text(); text != "" && !p.Final() {
		parts = append(parts, "runs: "+text)
	}
	if !p.Final() {
		parts = append(parts, fmt.Sprintf("%.1f/s", w.pace()))
		if text := eta(p); text != "" {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, "  ")
}

// picture is how the job stands on a terminal, each line within its width.
func (w *jobWatch) picture() string {
	p := &w.now.JobProgress
	lines := []string{fmt.Sprintf("job %s  %s", printable(w.id), printable(w.app.standing(p)))}
	shown := p.Waves
	const most = 12 // waves on the screen
	if len(shown) > most {
		begin := min(max(p.Wave-most/2, 0), len(shown)-most)
		shown = shown[begin : begin+most]
	}
	for i := range shown {
		x := &shown[i]
		lines = append(lines, fmt.Sprintf("  wave %-3d %s %d/%d  %s", x.Number, bar(&x.JobTally), x.Ended(), x.Size, waveStanding(x)))
	}
	if len(p.Waves) != 1 {
		lines = append(lines, fmt.Sprintf("  all      %s %s", bar(&p.Total), doneOf(p)))
	}
	last := fmt.Sprintf("  %s   %.1f/s   %s", tallyText(&p.Total), w.pace(), since(time.Since(w.began)))
	if text := eta(p); text != "" {
		last += "   " + text
	}
	lines = append(lines, last)
	if text := w.runs.text(); text != "" && !p.Final() {
		lines = append(lines, "  runs: "+text)
	}
	if w.runs.there && len(w.failures) > 0 {
		lines = append(lines, failureLines(w.failures)...)
	} else if len(w.failures) > 0 {
		var parts []string
		for _, f := range w.failures {
			code := f.Code
			if code == "" {
				code = f.Status
			}
			parts = append(parts, fmt.Sprintf("%s %d", printable(code), f.Count))
		}
		lines = append(lines, "  failed by code: "+strings.Join(parts, ", "))
	}
	if next := jobNext(w.id, p); next != "" && !p.Final() {
		lines = append(lines, "  "+printable(next))
	}
	if next := w.runs.next(); next != "" && !p.Final() {
		lines = append(lines, "  "+printable(next))
	}
	for i := range lines {
		lines[i] = cut(lines[i], w.app.width-1)
	}
	return strings.Join(lines, "\n") + "\n"
}

// eta is how long the job will take from now, and empty once that has passed: it
// was foretold when the job last moved, and then something held it up.
func eta(p *client.JobProgress) string {
	if p.ETA.IsZero() || !p.ETA.After(time.Now()) {
		return ""
	}
	return "eta " + until(p.ETA.Time)
}

// until is how long it is to a time; none once it has passed.
func until(t time.Time) string { return since(max(time.Until(t), 0)) }

// bar shows how much of a tally has ended well, badly, and is under way.
func bar(t *client.JobTally) string {
	if t.Size == 0 {
		return strings.Repeat("░", watchBar)
	}
	place := func(n int) int { return (n*watchBar + t.Size - 1) / t.Size }
	good := t.Ended() - t.Bad()
	bad := min(place(t.Bad()), watchBar)
	end := min(place(t.Ended()), watchBar)
	if t.Ended() < t.Size && end == watchBar {
		end-- // not before all of it
	}
	begun := min(max(place(t.Size-t.Pending), end), watchBar)
	if good == 0 {
		bad = end
	}
	bad = min(bad, end)
	return strings.Repeat("█", end-bad) + strings.Repeat("▓", bad) + strings.Repeat("▒", begun-end) + strings.Repeat("░", watchBar-begun)
}

// countFailures asks for the failures by code when there are new ones, and not
// too often. What can't be told is not shown.
func (w *jobWatch) countFailures(ctx context.Context) {
	bad := w.now.Total.Bad()
	if bad == w.counted || time.Since(w.asked) < watchFailures && !w.over() {
		return
	}
	w.asked = time.Now()
	ctx, stop := context.WithTimeout(ctx, watchFailures)
	defer stop()
	if list, _, err := w.service.JobFailures(ctx, w.id, w.now.Run); err == nil {
		w.failures, w.counted = list, bad
	}
}

// finish leaves how the job stands now where it was not written yet.
func (w *jobWatch) finish() {
	if !w.has || w.output == "jsonl" || w.app.width > 0 {
		return
	}
	if w.status != w.place() {
		w.app.printf("%s\n", w.line())
	}
	if w.runs.there && w.over() {
		w.countFailures(w.app.ctx)
		for _, line := range failureLines(w.failures) {
			w.app.printf("%s\n", line)
		}
	}
}

// pausedNext is what to do about a job that is paused.
func (w *jobWatch) pausedNext() string {
	follow := fmt.Sprintf("`muster job watch %s` follows it again, with --through-pauses also while it is paused.", w.id)
	if next := jobNext(w.id, &w.now.JobProgress); next != "" {
		return next + "; " + follow
	}
	return follow
}

// verdict is what the exit code says of a job that has ended.
func (w *jobWatch) verdict() error {
	p := &w.now.JobProgress
	bad := p.Total.Bad()
	next := jobNext(w.id, p)
	if w.runs.there {
		next = fmt.Sprintf("`muster run list --job %s --state failed,uncertain` shows them, `muster run trace RUN` tells what one did; `muster job retry %s` tries them again", w.id, w.id)
	}
	switch {
	case p.Status == "canceled":
		return &problem{exit: ExitCancelled, what: "the job was canceled", why: p.Reason, next: fmt.Sprintf("`muster job show %s` says how far it came.", w.id)}
	case p.Status == "failed":
		far := fmt.Sprintf("`muster job show %s` says how far it came", w.id)
		if w.runs.there && bad > 0 {
			far += "; " + next
		}
		return &problem{exit: ExitFailed, what: "the job failed", why: p.Reason, next: far + "."}
	case bad > 0 && p.Total.Succeeded == 0:
		return &problem{exit: ExitFailed, what: fmt.Sprintf("all of %s ended badly", targetCount(int64(bad))), why: p.Reason, next: next}
	case bad > 0:
		return &problem{exit: ExitPartly, what: fmt.Sprintf("%d of %d targets ended badly", bad, p.Total.Size), why: p.Reason, next: next}
	case p.Reason != "": // it would have paused, and nothing was left
		return &problem{exit: ExitPartly, what: "the job is completed, and something is wrong", why: p.Reason, next: fmt.Sprintf("`muster job show %s` says how it went.", w.id)}
	}
	return nil
}
