package cli

import (
	"fmt"
	"maps"
	"slices"

	"github.com/muster-hub/muster/protocols/client"
)

// followQuery writes a query's result and what changes in it, until it is
// interrupted. A hub that goes away is waited for: the cursor says where to go
// on, and when that is too far back, what is given again is compared with what
// was there.
func (a *app) followQuery(f QueryFlags, ask client.LiveAsk) error {
	s, err := a.service(f.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	keep := following{app: a}
	rows := liveRows{rows: map[string]string{}}
	for {
		cursor, err := s.FollowQuery(a.ctx, ask, func(e client.LiveEvent) error {
			keep.heard()
			if f.Output == "jsonl" {
				return writeJSONLine(a.io.Out, e.Raw)
			}
			for _, line := range rows.take(e) {
				if _, err := fmt.Fprintln(a.io.Out, printable(line)); err != nil {
					return err
				}
			}
			return nil
		})
		ask.Cursor = cursor
		if a.ctx.Err() != nil {
			return nil
		}
		if cursor == "" {
			rows.begin() // the stream broke before anything of a snapshot came
		}
		if err := keep.wait(err); err != nil {
			return err
		}
		if a.ctx.Err() != nil {
			return nil
		}
	}
}

// liveRows is a live result as it was shown.
type liveRows struct {
	rows   map[string]string
	before map[string]string // while a snapshot comes again: what was shown until then
}

// begin expects a snapshot.
func (l *liveRows) begin() {
	if l.before == nil {
		l.before = map[string]string{}
	}
	maps.Copy(l.before, l.rows)
	l.rows = map[string]string{}
}

// take folds an event and returns the lines that tell what it changed.
func (l *liveRows) take(e client.LiveEvent) (lines []string) {
	id, row := e.DeviceID, string(e.Row)
	if e.ModuleID != "" {
		id += "/" + e.ModuleID
	}
	switch e.Kind {
	case "reset":
		l.begin()
	case "current":
		for _, id := range slices.Sorted(maps.Keys(l.before)) {
			lines = append(lines, markGone+" "+id)
		}
		l.before = nil
	case "leave":
		delete(l.rows, id)
		lines = append(lines, markGone+" "+id)
	case "row", "enter", "change":
		mark := markNew
		old, known := l.before[id]
		if delete(l.before, id); !known {
			old, known = l.rows[id]
		}
		l.rows[id] = row
		if known && old == row {
			return nil
		}
		if known {
			mark = markChanged
		}
		lines = append(lines, mark+" "+id+"  "+row)
	}
	return lines
}
