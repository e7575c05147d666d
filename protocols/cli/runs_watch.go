package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// runsWatch counts the runs of a job that is followed. A job that runs no
// pattern has none.
type runsWatch struct {
	app     *app
	service *client.Service
	job     string

	there  bool // the job has runs
	counts []client.RunCount
	asked  time.Time
	ended  bool   // counted when the job had ended
	told   string // what a person can do, where lines are written
}

// runsTime bounds a count, which the picture waits for.
const runsTime = 3 * time.Second

// count asks how the runs stand, at most so often. What can't be told is not
// shown.
func (w *runsWatch) count(ctx context.Context, every time.Duration, final bool) {
	if w.ended || time.Since(w.asked) < every && !final {
		return
	}
	w.asked, w.ended = time.Now(), final
	ctx, stop := context.WithTimeout(ctx, runsTime)
	defer stop()
	list, err := w.service.RunCounts(ctx, client.RunFilter{JobID: w.job})
	if err == nil {
		w.counts, w.there = list, w.there || len(list) > 0
	}
}

// placesMost is how many places of runs are told apart in a line.
const placesMost = 6

// text says how many runs are where, of those that have not ended: their phase,
// and what they wait for.
func (w *runsWatch) text() string {
	places := map[string]int64{}
	for _, n := range w.counts {
		what := ""
		switch n.State {
		case "queued":
			what = "queued"
		case "ready":
			what = joined(", ", n.Phase, "going on")
		case "waiting":
			what = "waiting for " + waitText(n.Step)
			if n.Phase != what {
				what = joined(", ", n.Phase, what)
			}
		}
		if what != "" {
			places[what] += n.Count
		}
	}
	names := make([]string, 0, len(places))
	for name := range places {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if places[a] != places[b] {
			return int(places[b] - places[a])
		}
		return strings.Compare(a, b)
	})
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%d %s", places[name], printable(name)))
	}
	if more := len(parts) - placesMost; more > 0 {
		parts = append(parts[:placesMost], fmt.Sprintf("and at %d other places", more))
	}
	return strings.Join(parts, "; ")
}

// next is what a person can do for the runs.
func (w *runsWatch) next() string {
	for _, n := range w.counts {
		if n.State == "waiting" && n.Step == "ctx.approve" {
			return fmt.Sprintf("`muster run list --job %s --asks` shows what they ask, `muster run approve --job %s` says yes to all", w.job, w.job)
		}
	}
	return ""
}

// hint is next when it was not told yet.
func (w *runsWatch) hint() string {
	next := w.next()
	if next == w.told {
		return ""
	}
	w.told = next
	return next
}

// failuresMost is how many kinds of failures are shown.
const failuresMost = 5

// failureLines group what failed by code, each with the message of one.
func failureLines(list []client.JobFailure) []string {
	var lines []string
	for i, f := range list {
		if i == failuresMost {
			lines = append(lines, fmt.Sprintf("  and %d other kinds of failures", len(list)-i))
			break
		}
		code := f.Code
		if code == "" {
			code = f.Status
		}
		target := f.DeviceID
		if f.ModuleID != "" {
			target += "/" + f.ModuleID
		}
		lines = append(lines, fmt.Sprintf("  %s %d  %s (%s)", printable(code), f.Count, printable(oneLine(f.Message)), printable(target)))
	}
	return lines
}
