package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/muster-hub/muster/storage"
)

// PatternStats returns every installed version with what its runs took, for
// metrics: it asks for no permission.
func (h *Hub) PatternStats(ctx context.Context) ([]Pattern, error) {
	var list []Pattern
	err := h.view(ctx, "read the patterns", func(r storage.Reader) error {
		list = nil
		for item, err := range patternTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			p, err := h.showPattern(r, &item.Value)
			if err != nil {
				return err
			}
			list = append(list, p)
		}
		return nil
	})
	return list, err
}

// What the doctor says of runs and patterns.
const (
	doctorAsked  = 24 * time.Hour // a question that is open for longer is told
	doctorLook   = 1000           // questions that are looked at
	doctorFailed = time.Hour      // a failure of workers is told for so long
	doctorNames  = 3              // are told
)

// doctorPatterns looks at what runs programs, at patterns that look as if they
// worked and do not, and at runs that nobody answers.
func (h *Hub) doctorPatterns(ctx context.Context, now time.Time) []Finding {
	return []Finding{h.doctorWorkers(now), h.doctorTriggers(ctx), h.doctorAsks(ctx, now)}
}

func (h *Hub) doctorWorkers(now time.Time) Finding {
	s := h.RunStats()
	if h.patterns.scripts == nil {
		return Finding{"pattern workers", "warn", "this hub runs no programs: runs of patterns don't go on", "start it as `muster serve`, which brings what runs them"}
	}
	if last := h.runs.stats.failure.Load(); last != nil && now.Sub(last.at) < doctorFailed {
		return Finding{
			"pattern workers", "fail",
			fmt.Sprintf("activations of patterns fail, the last one %s ago: %v", now.Sub(last.at).Round(time.Second), last.err),
			"they are tried again by themselves; the hub's log has each, and memory or processes that the system refuses are the usual reason",
		}
	}
	return Finding{"pattern workers", "ok", fmt.Sprintf("%d activations since the start, %d of them had to be repeated", s.Activations, s.Failures), ""}
}

// doctorTriggers tells of patterns whose triggers an operator may think to be at
// work.
func (h *Hub) doctorTriggers(ctx context.Context) Finding {
	const check = "patterns"
	list, err := h.PatternStats(ctx)
	if err != nil {
		return Finding{check, "warn", "the patterns can't be read: " + err.Error(), ""}
	}
	var asleep []string
	for i := range list {
		p := &list[i]
		if p.Default && !p.Enabled && p.Origin != PatternShipped && len(p.Manifest.Triggers) > 0 {
			asleep = append(asleep, p.Manifest.Name)
		}
	}
	if len(asleep) > 0 {
		return Finding{check, "warn", plural(len(asleep), "pattern") + " with triggers " + verb(len(asleep)) + " disabled: nothing starts them (" + someNames(asleep) + ")", "`muster pattern enable NAME` lets them work, `muster pattern remove NAME` takes one away"}
	}
	return Finding{check, "ok", plural(len(list), "version") + " of patterns " + verb(len(list)) + " installed", ""}
}

func verb(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

func someNames(names []string) string {
	if more := len(names) - doctorNames; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:doctorNames], ", "), more)
	}
	return strings.Join(names, ", ")
}

// doctorAsks tells of questions that nobody has answered for long.
func (h *Hub) doctorAsks(ctx context.Context, now time.Time) Finding {
	const check = "approvals"
	seen, late := 0, 0
	_, err := h.eachRun(ctx, RunFilter{Asks: true}, "", doctorLook, func(_ string, r *runRecord) bool {
		if open := r.State.Open(); open != nil && now.Sub(open.Begun) > doctorAsked {
			late++
		}
		seen++
		return true
	})
	switch {
	case err != nil:
		return Finding{check, "warn", "what runs ask can't be read: " + err.Error(), ""}
	case late > 0:
		return Finding{check, "warn", plural(late, "run") + " of patterns " + verb(late) + " waiting for an answer of a person for more than a day", "`muster run list --asks` shows what they ask, `muster run approve RUN` and `muster run deny RUN` answer"}
	}
	return Finding{check, "ok", plural(seen, "run") + " of patterns " + verb(seen) + " waiting for an answer of a person", ""}
}
