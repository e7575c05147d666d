package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/muster-hub/muster/protocols/client"
)

const (
	previewSample = 10 // targets whose changes are shown before a question
	previewBar    = 24 // columns
)

// showPreview draws what a job would do: whom, in which waves, how fast, what
// would change of some of them, who is left out and what may not be meant.
func (a *app) showPreview(w io.Writer, p *client.JobPreview) error {
	var spec client.JobSpec
	if err := json.Unmarshal(p.Job, &spec); err != nil {
		return fmt.Errorf("read the hub's preview: %w", err)
	}
	var text strings.Builder
	text.WriteString(fmt.Sprintf("%s: %s\n%s\n", targetCount(p.Count), printable(targetText(&spec)), printable(actionText(&spec))))
	text.WriteString(a.drawWaves(p, &spec))
	for i, part := range policyParts(&spec.Policy) {
		name := "Policy"
		if i > 0 {
			name = ""
		}
		text.WriteString(fmt.Sprintf("%-10s %s\n", name, printable(part)))
	}
	switch {
	case p.First.IsZero():
		text.WriteString("Start      never: no window opens before the end\n")
	case spec.Policy.Start != "" || len(spec.Policy.Windows) > 0:
		text.WriteString("Start      " + a.cell(p.First) + "\n")
	}
	for _, x := range p.Excluded {
		text.WriteString(fmt.Sprintf("Left out   %d %s: %s\n", x.Count, printable(exclusionText(x.Reason)), printable(sampleOf(x.Sample, x.Count))))
	}
	for _, x := range p.Conflicts {
		text.WriteString(fmt.Sprintf("Also       the job %s (%s, priority %d) has yet to be done on %d of the targets below\n", printable(x.Job), x.Status, x.Priority, x.Targets))
	}
	for _, f := range p.Warnings {
		text.WriteString("Warning    " + printable(faultText(f)) + "\n")
	}
	if len(p.Sample) > 0 {
		text.WriteString("\n" + a.tableText(sampleSheet(p, previewSample)))
	}
	if more := p.Count - int64(min(len(p.Sample), previewSample)); more > 0 {
		text.WriteString(fmt.Sprintf("and %d more\n", more))
	}
	_, err := io.WriteString(w, text.String())
	return err
}

func exclusionText(reason string) string {
	switch reason {
	case "excludeWhere":
		return "by --exclude-where"
	case "exclude":
		return "by --exclude"
	case "notFound":
		return "that there are not"
	}
	if strings.Contains(reason, " ") {
		return "(" + reason + ")"
	}
	return "by " + reason
}

// sampleOf is some of a list of which count are.
func sampleOf(ids []string, count int64) string {
	text := strings.Join(ids[:min(len(ids), briefMost)], ", ")
	if count > int64(min(len(ids), briefMost)) {
		text += ", ..."
	}
	return text
}

func faultText(f client.JobFault) string {
	text := f.Path + " " + f.Reason
	if f.Expected != "" {
		text += "; expected " + f.Expected
	}
	return text
}

// drawWaves draws how far each wave reaches, and what stands between two.
func (a *app) drawWaves(p *client.JobPreview, spec *client.JobSpec) string {
	if len(p.Waves) < 2 {
		return ""
	}
	var b strings.Builder
	reached := 0
	wide := len(fmt.Sprint(p.Count))
	for i, w := range p.Waves {
		from := reached
		reached += w.Size
		line := fmt.Sprintf("  wave %-2d  %*d  %s", w.Number, wide, w.Size, reachBar(from, reached, int(p.Count)))
		var notes []string
		if w.Approval {
			notes = append(notes, "waits for approval first")
		}
		if i < len(spec.Policy.Waves) {
			notes = append(notes, gateNotes(&spec.Policy.Waves[i])...)
		}
		if len(w.Targets) > 0 {
			notes = append(notes, sampleOf(w.Targets, int64(w.Size)))
		}
		b.WriteString(strings.TrimRight(line+"  "+printable(strings.Join(notes, "; ")), " ") + "\n")
	}
	return b.String()
}

// gateNotes are what a wave has beside its size.
func gateNotes(w *client.JobWave) (notes []string) {
	if w.Diverse {
		notes = append(notes, "diverse")
	}
	if w.Soak != "" && w.Soak != "0s" {
		notes = append(notes, "then soaks "+w.Soak)
	}
	if h := w.Health; h != nil {
		most := h.AtMost
		if most == "" {
			most = "0"
		}
		notes = append(notes, fmt.Sprintf("then at most %s with %s, else %ss", most, h.Where, h.Otherwise))
	}
	return notes
}

// reachBar is a bar of all targets: light what waves before have reached, dark
// what this one adds.
func reachBar(from, to, total int) string {
	if total == 0 {
		return strings.Repeat("░", previewBar)
	}
	place := func(n int) int { return n * previewBar / total }
	begin, end := place(from), place(to)
	if end == begin && to > from { // a small wave is seen, too
		if end = begin + 1; end > previewBar {
			begin, end = previewBar-1, previewBar
		}
	}
	return strings.Repeat("▒", begin) + strings.Repeat("█", end-begin) + strings.Repeat("░", previewBar-end)
}

// sampleSheet is what a job would do to the first targets.
func sampleSheet(p *client.JobPreview, most int) *sheet {
	sh := &sheet{columns: []string{"TARGET", "WAVE", "CONNECTED", "WHAT WOULD HAPPEN"}}
	for _, t := range p.Sample[:min(most, len(p.Sample))] {
		target := t.DeviceID
		if t.ModuleID != "" {
			target += "/" + t.ModuleID
		}
		sh.add(t, target, t.Wave, t.Connected, effectText(&t))
	}
	return sh
}

func effectText(t *client.JobPreviewTarget) string {
	switch {
	case t.Fault != "":
		return "fails: " + t.Fault
	case t.Method != "":
		if !t.Connected {
			return "waits for it, then calls " + t.Method
		}
		return "calls " + t.Method
	case t.Pattern != "":
		if !t.Connected {
			return "runs " + t.Pattern + "; it is not connected now"
		}
		return "runs " + t.Pattern
	case len(t.Changes) == 0:
		return "nothing: it is so already"
	}
	var parts []string
	for _, c := range t.Changes {
		switch {
		case len(c.Before) == 0:
			parts = append(parts, fmt.Sprintf("%s = %s", c.Path, c.After))
		case len(c.After) == 0:
			parts = append(parts, fmt.Sprintf("%s %s removed", c.Path, c.Before))
		default:
			parts = append(parts, fmt.Sprintf("%s %s -> %s", c.Path, c.Before, c.After))
		}
	}
	return strings.Join(parts, ", ")
}
