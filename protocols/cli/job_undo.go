package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/muster-hub/muster/protocols/client"
)

type jobUndoCmd struct {
	jobControl
	Reason string `help:"Why; it is shown with the job and its runs." placeholder:"TEXT"`
	Yes    bool   `short:"y" help:"Don't ask."`
}

// Run has the runs of a job take back what they did.
func (c *jobUndoCmd) Run(a *app) error {
	if err := a.confirm(c.Yes, fmt.Sprintf("Undo the job %s on all devices that it has reached?", printable(c.Job))); err != nil {
		return err
	}
	return c.do(a, func(ctx context.Context, s *client.Service) (client.Job, error) {
		return s.UndoJob(ctx, c.Job, c.Reason, c.ETag)
	})
}

// undoText is how far the undo of a job is, for people.
func undoText(u *client.JobUndo) string {
	parts := []string{fmt.Sprintf("%d of %d undone", u.Undone, u.Begun)}
	if u.Failed > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", u.Failed))
	}
	if u.Left > 0 {
		parts = append(parts, fmt.Sprintf("%d had nothing to take back", u.Left))
	}
	if !u.Told {
		parts = append(parts, "more to come")
	}
	text := strings.Join(parts, ", ") + ", by " + u.By
	if u.Reason != "" {
		text += ": " + u.Reason
	}
	return text
}

// gateText is what a pattern's gate said behind a wave, for people.
func gateText(g *client.JobGate) string {
	decision := g.Decision
	if decision == "" {
		decision = "could not be asked"
	}
	text := fmt.Sprintf("behind wave %d: %s", g.Wave, decision)
	if g.Reason != "" {
		text += ", " + g.Reason
	}
	return text
}
