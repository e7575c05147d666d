package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// The marks of rows, as they stand in the first column.
const (
	markNew     = "+"
	markChanged = "~"
	markGone    = "-"
)

// rowText is a row as JSON.
type rowText = json.RawMessage

// watched is a result as it was when it was last asked for.
type watched struct {
	head client.QueryPage
	keys []string
	rows map[string]rowText
}

// watchQuery asks again and again. A hub that goes away is waited for.
func (a *app) watchQuery(f QueryFlags, ask asker) error {
	if f.Every < 100*time.Millisecond {
		return usage("--every is too short", "Give at least 100ms.")
	}
	var before *watched
	lost := false
	for {
		now, err := a.watchOnce(f, ask)
		switch {
		case a.ctx.Err() != nil:
			return nil
		case err != nil && (before == nil || !passing(err)):
			return err
		case err != nil && !lost:
			lost = true
			a.note("No answer, it will be tried again: %s", printable(err.Error()))
		case err == nil:
			if lost {
				a.note("The hub is back.")
			}
			lost = false
			if err := a.showWatched(f, before, now); err != nil {
				return err
			}
			before = now
		}
		select {
		case <-a.ctx.Done():
			return nil
		case <-time.After(f.Every):
		}
	}
}

// passing reports whether a failure may be over soon.
func passing(err error) bool {
	if _, ok := errors.AsType[*client.ConnectError](err); ok {
		return true
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	e, ok := errors.AsType[*client.Error](err)
	return ok && (e.Status == 429 || e.Status >= 500)
}

func (a *app) watchOnce(f QueryFlags, ask asker) (*watched, error) {
	ctx, stop := a.with(f.HubFlags)
	defer stop()
	w := &watched{rows: map[string]rowText{}}
	for p, err := range queryPages(ctx, f.Limit, ask) {
		if err != nil {
			return nil, err
		}
		w.head = client.QueryPage{ItemType: p.ItemType, Columns: p.Columns}
		for _, item := range p.Items {
			key := rowKey(item, len(w.keys))
			w.keys = append(w.keys, key)
			w.rows[key] = item
		}
	}
	return w, nil
}

// rowKey names a row from one time to the next: by its ids where it has them,
// else by its place.
func rowKey(item json.RawMessage, place int) string {
	var ids struct{ DeviceID, ModuleID string }
	if json.Unmarshal(item, &ids) == nil && ids.DeviceID != "" {
		return ids.DeviceID + "/" + ids.ModuleID
	}
	return fmt.Sprint("#", place)
}

// showWatched writes what differs from the time before: of a table all rows
// with marks, once something does.
func (a *app) showWatched(f QueryFlags, before, now *watched) error {
	marks := map[string]string{}
	var gone []string
	for _, key := range now.keys {
		if before == nil {
			continue
		}
		old, ok := before.rows[key]
		switch {
		case !ok:
			marks[key] = markNew
		case string(old) != string(now.rows[key]):
			marks[key] = markChanged
		}
	}
	if before != nil {
		for _, key := range before.keys {
			if _, ok := now.rows[key]; !ok {
				gone = append(gone, key)
				marks[key] = markGone
			}
		}
		if len(marks) == 0 {
			return nil
		}
	}
	if f.Output == "jsonl" {
		return a.writeChanges(before, now, marks, gone)
	}
	rows := make([]json.RawMessage, 0, len(now.keys)+len(gone))
	order := append(append([]string(nil), now.keys...), gone...)
	for _, key := range now.keys {
		rows = append(rows, now.rows[key])
	}
	for _, key := range gone {
		rows = append(rows, before.rows[key])
	}
	sh, err := rowSheet(&now.head, rows)
	if err != nil {
		return err
	}
	sh.columns = append([]string{" "}, sh.columns...)
	for i, key := range order {
		mark := marks[key]
		if mark == "" {
			mark = " "
		}
		sh.rows[i] = append([]any{mark}, sh.rows[i]...)
	}
	if a.width > 0 && before != nil {
		if _, err := fmt.Fprint(a.io.Out, "\x1b[H\x1b[2J"); err != nil { // a terminal shows one table
			return err
		}
	}
	if _, err := fmt.Fprintf(a.io.Out, "%s  %d rows\n", time.Now().In(a.zone).Format(time.TimeOnly), len(now.keys)); err != nil {
		return err
	}
	return a.print(OutputFlags{Output: "table"}, sh)
}

func (a *app) writeChanges(before, now *watched, marks map[string]string, gone []string) error {
	type change struct {
		Change string          `json:"change"`
		Item   json.RawMessage `json:"item"`
	}
	write := func(what string, item json.RawMessage) error { return writeJSONLine(a.io.Out, change{what, item}) }
	for _, key := range now.keys {
		what := map[string]string{markNew: "enter", markChanged: "change"}[marks[key]]
		if before == nil {
			what = "enter"
		}
		if what == "" {
			continue
		}
		if err := write(what, now.rows[key]); err != nil {
			return err
		}
	}
	for _, key := range gone {
		if err := write("leave", before.rows[key]); err != nil {
			return err
		}
	}
	return nil
}
