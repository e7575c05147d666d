package scenario

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
)

// Text writes the report for people. verbose shows each test and what its runs
// did.
func (r *Report) Text(out io.Writer, verbose bool) error {
	w := &printer{out: out}
	failed, skipped, crashes := 0, 0, 0
	for i := range r.Tests {
		t := &r.Tests[i]
		crashes += t.Crashes
		switch {
		case t.Failure != nil:
			failed++
		case t.Skipped != "":
			skipped++
		}
		w.test(t, verbose)
	}
	for _, c := range r.Cover {
		w.cover(c)
	}
	w.line("%s %s: %s%s", r.Pattern, r.Version, count(len(r.Tests), "test"), details(failed, skipped, crashes, r.Time))
	return w.err
}

// details are what a summary adds to the number of tests.
func details(failed, skipped, crashes int, took time.Duration) string {
	text := ""
	if failed > 0 {
		text += fmt.Sprintf(", %d failed", failed)
	} else {
		text += ", all passed"
	}
	if skipped > 0 {
		text += fmt.Sprintf(", %d skipped", skipped)
	}
	if crashes > 0 {
		text += ", " + count(crashes, "repetition") + " with a crash"
	}
	return text + ", in " + round(took)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// round is a duration as people read it.
func round(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

// printer writes lines until that fails.
type printer struct {
	out io.Writer
	err error
}

func (w *printer) line(format string, args ...any) {
	if w.err == nil {
		_, w.err = fmt.Fprintln(w.out, strings.TrimRight(fmt.Sprintf(format, args...), " "))
	}
}

func (w *printer) lines(indent string, list []string) {
	for _, l := range list {
		w.line("%s%s", indent, l)
	}
}

func (w *printer) test(t *Result, verbose bool) {
	switch {
	case t.Failure != nil:
		w.line("FAIL  %s", t.Name)
		w.failure(t.Failure)
	case t.Skipped != "":
		w.line("skip  %s (%s)", t.Name, t.Skipped)
	case verbose:
		w.line("ok    %-48s %8s  %12s virtual  %s", t.Name, round(t.Time), t.Virtual, crashesOf(t))
		for n := range t.Runs {
			w.trace(&t.Runs[n], "      ")
		}
	}
}

func crashesOf(t *Result) string {
	if t.Crashes == 0 {
		return ""
	}
	if t.Crashes == 1 {
		return "1 crash"
	}
	return strconv.Itoa(t.Crashes) + " crashes"
}

func (w *printer) failure(f *Failure) {
	const indent = "      "
	lines := strings.Split(f.Message, "\n")
	if f.Place != "" {
		lines[0] = f.Place + ": " + lines[0]
	}
	w.lines(indent, lines)
	if f.Crash != "" {
		w.line("%sThe hub had crashed at %s.", indent, f.Crash)
	}
	if f.Diff != "" {
		w.lines(indent+"  ", strings.Split(f.Diff, "\n"))
	}
	w.lines(indent, f.Source)
	w.lines(indent+"  ", f.Trace)
	for n := range f.Runs {
		w.trace(&f.Runs[n], indent)
	}
}

func (w *printer) cover(c FileCover) {
	share := 100.0
	if c.Lines > 0 {
		share = 100 * float64(c.Ran) / float64(c.Lines)
	}
	missed := ""
	if len(c.Missed) > 0 {
		missed = "  not run: " + ranges(c.Missed)
	}
	w.line("cover %-32s %5.1f %%  %d of %d lines%s", c.File, share, c.Ran, c.Lines, missed)
}

// ranges writes numbers as "3, 7-9".
func ranges(list []int) string {
	var parts []string
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		if j == i {
			parts = append(parts, strconv.Itoa(list[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", list[i], list[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ", ")
}

// Text writes what a run did, for people.
func (t *Trace) Text(out io.Writer) error {
	w := &printer{out: out}
	w.trace(t, "")
	return w.err
}

func (w *printer) trace(t *Trace, indent string) {
	on := ""
	if t.Device != "" {
		on = " on " + t.Device
	}
	end := string(t.State)
	if !t.Ended.IsZero() {
		end += " after " + t.Ended.Sub(t.Started).String()
	}
	w.line("%srun %s of %s%s: %s", indent, t.ID, t.Pattern, on, end)
	for n := range t.Steps {
		s := &t.Steps[n]
		answer := "-> " + clip(canonical(s.Result))
		switch {
		case s.Fault != nil:
			answer = fmt.Sprintf("-> %s: %s", s.Fault.Code, clip(s.Fault.Message))
		case s.Open:
			answer = "is open"
		case len(s.Result) == 0:
			answer = ""
		}
		mark := ""
		if s.Deferred {
			mark = " (deferred)"
		}
		w.line("%s  %s  %3d  %-22s  %s%s  %s  %s", indent, clockOf(s.Begun.Sub(t.Started)), n+1, s.Line, s.Op, mark, clip(canonical(s.Args)), answer)
	}
	for _, l := range t.Logs {
		w.line("%s  %s  log  %-22s  %s", indent, clockOf(l.Time.Sub(t.Started)), l.Line, clip(l.Text))
	}
	if f := t.Fault; f != nil && t.State != pattern.Succeeded {
		w.line("%s  %s: %s", indent, f.Code, f.Message)
		if f.Line != "" {
			w.line("%s  at %s", indent, f.Line)
		}
	}
	w.line("%s  %d activations, %d instructions, %d calls", indent, t.Cost.Activations, t.Cost.Instructions, t.Cost.Calls)
	if len(t.Hot) > 0 {
		w.line("%s  most instructions at %s", indent, hotText(t.Hot, t.Cost.Instructions))
	}
}

// hotText says which lines ran most of a run's instructions.
func hotText(list []pattern.HotLine, instructions int64) string {
	const most = 3
	var parts []string
	for _, hot := range list[:min(len(list), most)] {
		parts = append(parts, fmt.Sprintf("%s (%d %%)", hot.Line, min(100, 100*hot.Instructions/max(1, instructions))))
	}
	return strings.Join(parts, ", ")
}

// clockOf is a time since the beginning of a run.
func clockOf(d time.Duration) string {
	d = d.Truncate(time.Second)
	days := ""
	if d >= 24*time.Hour {
		days = strconv.Itoa(int(d/(24*time.Hour))) + "d"
		d %= 24 * time.Hour
	}
	return fmt.Sprintf("%5s%02d:%02d:%02d", days, int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60)
}

// clip keeps a line short.
func clip(s string) string {
	const most = 160
	s = strings.ReplaceAll(s, "\n", " ")
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// JSON writes the report for programs, in one object.
func (r *Report) JSON(out io.Writer) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// The shape of JUnit's reports, as far as it is read.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string     `xml:"name,attr"`
		Class   string     `xml:"classname,attr"`
		File    string     `xml:"file,attr"`
		Line    int        `xml:"line,attr"`
		Time    string     `xml:"time,attr"`
		Failure *junitText `xml:"failure,omitempty"`
		Skipped *junitText `xml:"skipped,omitempty"`
	}
	junitText struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// JUnit writes reports as the XML that most systems of continuous integration
// read.
func JUnit(out io.Writer, list []*Report) error {
	var all junitSuites
	for _, r := range list {
		s := junitSuite{Name: r.Pattern, Tests: len(r.Tests), Time: seconds(r.Time)}
		for i := range r.Tests {
			t := &r.Tests[i]
			c := junitCase{Name: t.Name, Class: r.Pattern, File: t.File, Line: t.Line, Time: seconds(t.Time)}
			switch {
			case t.Failure != nil:
				s.Failures++
				var text strings.Builder
				w := &printer{out: &text}
				w.failure(t.Failure)
				c.Failure = &junitText{Message: t.Failure.Message, Text: text.String()}
			case t.Skipped != "":
				s.Skipped++
				c.Skipped = &junitText{Message: t.Skipped}
			}
			s.Cases = append(s.Cases, c)
		}
		all.Suites = append(all.Suites, s)
	}
	if _, err := io.WriteString(out, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(out)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(out, "\n")
	return err
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 6, 64) }
