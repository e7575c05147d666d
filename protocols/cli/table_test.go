package cli

import (
	"strings"
	"testing"
	"time"
)

// TestNarrowTable: what a row is about and times stay readable on a terminal of any
// width, and what is left out is named.
func TestNarrowTable(t *testing.T) {
	at := time.Date(2026, 12, 1, 1, 38, 9, 0, time.UTC)
	runs := &sheet{columns: []string{"RUN", "PATTERN", "ON", "STATE", "WHERE IT IS", "STEPS", "BEGUN", "JOB"}}
	runs.add(nil, "r-mx412ins-00yj2ntgni4wr", "reboot 1.0.0", "sim-000219", "canceled", "canceled by local:uid=0", 2, at, "mx412gn4-2trzotningyyp")
	short := &sheet{columns: []string{"JOB", "CHANGED", "WHAT"}}
	short.add(nil, "mx412gn4-2trzotningyyp", at, strings.Repeat("word ", 10))
	short.add(nil, "j", time.Time{}, "-")
	for _, c := range []struct {
		name  string
		sheet *sheet
		width int
		want  string
	}{
		{"no terminal", runs, 0, `
RUN                       PATTERN       ON          STATE     WHERE IT IS              STEPS  BEGUN                JOB
r-mx412ins-00yj2ntgni4wr  reboot 1.0.0  sim-000219  canceled  canceled by local:uid=0      2  2026-12-01 01:38:09  mx412gn4-2trzotningyyp
`},
		{"texts are cut", runs, 120, `
RUN                       PATTERN       ON          STATE     WHERE IT IS     STEPS  BEGUN                JOB
r-mx412ins-00yj2ntgni4wr  reboot 1.0.0  sim-000219  canceled  canceled by l…      2  2026-12-01 01:38:09  mx412gn4-2trz…
`},
		{"columns have no room", runs, 80, `
RUN                       PATTERN      ON          STATE     WHERE IT IS   STEPS
r-mx412ins-00yj2ntgni4wr  reboot 1.0…  sim-000219  canceled  canceled by…      2
No room for BEGUN, JOB: -o csv has all.
`},
		{"times are shortened", short, 48, `
JOB                     CHANGED      WHAT
mx412gn4-2trzotningyyp  12-01 01:38  word word …
j                       never        -
`},
		{"the first column alone", short, 12, `
JOB
mx412gn4-2t…
j
No room for…
`},
	} {
		a := &app{width: c.width, zone: time.UTC}
		if got := "\n" + a.tableText(c.sheet); got != c.want {
			t.Errorf("%s: got%s\nwant%s", c.name, got, c.want)
		}
		for line := range strings.Lines(a.tableText(c.sheet)) {
			if w := displayWidth(strings.TrimSuffix(line, "\n")); c.width > 0 && w > c.width {
				t.Errorf("%s: a line is %d wide: %q", c.name, w, line)
			}
		}
	}
}
