package scenario

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
)

// decision is what a person answers to a question.
type decision struct {
	approve bool
	by      string
	reason  string
	after   time.Duration
	of      string // the answer is for this question alone, a part of its text; empty: for any
}

func (w *world) approve(s *pattern.Step, a pattern.ApproveArgs) (pattern.Answer, error) {
	if a.Question == "" || len(a.Question) > pattern.MaxLogLine {
		return invalid("%s: a question of 1 to %d bytes is needed", s.Op, pattern.MaxLogLine), nil
	}
	timeout, f := spanOf(s, "timeout", a.Timeout, 24*time.Hour, pattern.MaxWait)
	if f != nil {
		return pattern.Answer{Fault: f}, nil
	}
	ref := w.memory.named("question-")
	w.lab.effect("%s: asks %q", w.run.Device, a.Question)
	if d, ok := w.lab.answerTo(a.Question); ok {
		// People don't belong to the hub: what they want to say outlives a crash.
		lab, id := w.lab, w.run.ID
		lab.at(lab.now.Add(d.after), 0, func() error { return lab.decide(id, ref, d) })
	}
	return pattern.Answer{Open: true, Due: w.lab.now.Add(timeout), Ref: ref}, nil
}

// answerTo takes the first answer that a test has for a question.
func (l *lab) answerTo(question string) (decision, bool) {
	for n, d := range l.answers {
		if d.of == "" || containsText(question, d.of) {
			l.answers = append(l.answers[:n:n], l.answers[n+1:]...)
			return d, true
		}
	}
	return decision{}, false
}

// decide brings a person's answer.
func (l *lab) decide(run, ref string, d decision) error {
	by := d.by
	if by == "" {
		by = "operator"
	}
	if d.approve {
		text, err := json.Marshal(by)
		if err != nil {
			return fmt.Errorf("the name of who approves: %w", err)
		}
		return l.hub.settle(run, ref, text, nil)
	}
	why := by + " declined"
	if d.reason != "" {
		why += ": " + d.reason
	}
	return l.hub.settle(run, ref, nil, &pattern.Fault{Code: pattern.FaultRejected, Message: why})
}
