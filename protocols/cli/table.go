package cli

import (
	"io"
	"strings"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

const (
	columnGap = "  "
	// columnLeast is what a column keeps of texts that are cut: less says nothing.
	columnLeast = 10
	// shortTime is the width of a time without year and seconds.
	shortTime = len("12-31 23:59")
)

// writeTable aligns the columns. On a terminal that is too narrow texts are cut,
// and what has no room at all is left out, which a line below says; elsewhere all
// of it is written.
func (a *app) writeTable(s *sheet) error {
	_, err := io.WriteString(a.io.Out, a.tableText(s))
	return err
}

func (a *app) tableText(s *sheet) string {
	columns := make([]column, len(s.columns))
	for i, name := range s.columns {
		columns[i] = column{name: printable(name), cells: make([]string, 0, len(s.rows)), right: len(s.rows) > 0, time: len(s.rows) > 0, first: i == 0}
	}
	for _, row := range s.rows {
		for i, v := range row {
			c := &columns[i]
			text := a.cell(v)
			if text == "" {
				text = "-"
			}
			c.cells = append(c.cells, text)
			c.right = c.right && isNumber(v)
			c.time = c.time && isTime(v)
		}
	}
	for i := range columns {
		columns[i].measure()
	}
	shown, left := columns, []string(nil)
	if a.width > 0 {
		shown, left = fitted(columns, a.width)
	}
	var b strings.Builder
	for line := -1; line < len(s.rows); line++ {
		var l strings.Builder
		for i := range shown {
			if i > 0 {
				l.WriteString(columnGap)
			}
			l.WriteString(shown[i].padded(line))
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	if len(left) > 0 {
		b.WriteString(cut("No room for "+strings.Join(left, ", ")+": -o csv has all.", a.width) + "\n")
	}
	return b.String()
}

// column is a column of a table as it is laid out.
type column struct {
	name  string
	cells []string
	right bool // numbers: aligned at the right
	time  bool
	first bool // what the row is about: commands want it whole
	width int
}

func (c *column) measure() {
	c.width = displayWidth(c.name)
	for _, text := range c.cells {
		c.width = max(c.width, displayWidth(text))
	}
}

// least is the width below which the column is of no use.
func (c *column) least() int {
	if c.first || c.right || c.time {
		return c.width
	}
	return min(c.width, columnLeast)
}

// shorten leaves out what people can do without of times.
func (c *column) shorten() {
	for i, text := range c.cells {
		if len(text) == len(time.DateTime) {
			c.cells[i] = text[len("2006-"):][:shortTime]
		}
	}
	c.measure()
}

// padded is the text of a row, or of the head (-1), in the column's width.
func (c *column) padded(row int) string {
	text := c.name
	if row >= 0 {
		text = c.cells[row]
	}
	text = cut(text, c.width)
	pad := strings.Repeat(" ", max(0, c.width-displayWidth(text)))
	if c.right {
		return pad + text
	}
	return text + pad
}

// fitted lays columns out on a width: texts are cut, then times are shortened, then
// columns are left out, of which the names are returned: times first, then others,
// from the right. The first column stays, and is cut when it is alone too wide.
func fitted(columns []column, width int) (shown []column, left []string) {
	shown = append(shown, columns...)
	least := func() int {
		sum := len(columnGap) * (len(shown) - 1)
		for i := range shown {
			sum += shown[i].least()
		}
		return sum
	}
	if least() > width {
		for i := range shown {
			if shown[i].time {
				shown[i].cells = append([]string(nil), shown[i].cells...)
				shown[i].shorten()
			}
		}
	}
	for least() > width && len(shown) > 1 {
		out := len(shown) - 1
		for i := out; i > 0; i-- {
			if shown[i].time {
				out = i
				break
			}
		}
		shown = append(shown[:out], shown[out+1:]...)
	}
	for i, k := 0, 0; i < len(columns); i++ {
		if k < len(shown) && shown[k].name == columns[i].name {
			k++
			continue
		}
		left = append(left, columns[i].name)
	}
	if len(shown) == 1 {
		shown[0].width = min(shown[0].width, width)
		return shown, left
	}
	total := len(columnGap) * (len(shown) - 1)
	for i := range shown {
		total += shown[i].width
	}
	for ; total > width; total-- {
		widest := -1
		for i := range shown {
			if shown[i].width > shown[i].least() && (widest < 0 || shown[i].width > shown[widest].width) {
				widest = i
			}
		}
		shown[widest].width--
	}
	return shown, left
}

func isTime(v any) bool {
	switch v.(type) {
	case time.Time, client.Time:
		return true
	}
	return false
}

func isNumber(v any) bool {
	switch v.(type) {
	case int, int64, uint64, float64:
		return true
	}
	return false
}
