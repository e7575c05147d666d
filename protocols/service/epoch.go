package service

import "strings"

// Cursors of lists carry the hub's epoch: after a restore, positions mean
// something else. It is put before what the lists themselves make, and taken
// off before they see it.

const (
	cursorEpoch = 12 // digits of the epoch's name
	cursorMark  = "."
)

// paged is a page of a list.
type paged interface {
	inEpoch(prefix string) any
}

func (p page[T]) inEpoch(prefix string) any {
	if p.Cursor != "" {
		p.Cursor = prefix + p.Cursor
	}
	return p
}

func (c *call) cursorPrefix() string {
	epoch := c.hub.Info(c.r.Context()).Epoch
	return epoch[:min(len(epoch), cursorEpoch)] + cursorMark
}

// takeEpoch takes the epoch off the query's cursor, where the route lists pages.
func (c *call) takeEpoch() error {
	if _, lists := c.route.response.(paged); !lists {
		return nil
	}
	text := c.query.Get("cursor")
	if text == "" {
		return nil
	}
	rest, current := strings.CutPrefix(text, c.cursorPrefix())
	if !current {
		if _, _, marked := strings.Cut(text, cursorMark); marked {
			return invalid("the cursor was given before the hub was restored from a backup; start again without a cursor")
		}
		return invalid("the cursor is not one that this list gave; start again without a cursor")
	}
	c.query.Set("cursor", rest)
	return nil
}
