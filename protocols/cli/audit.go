package cli

import (
	"fmt"
)

type auditGroup struct {
	List   auditListCmd   `cmd:"" help:"List the audit log, newest first."`
	Verify auditVerifyCmd `cmd:"" help:"Recompute the audit log's chain of hashes."`
}

type auditListCmd struct {
	HubFlags
	OutputFlags
	Limit int `help:"At most so many, the newest; 0 lists all." default:"50"`
}

// Run lists the audit log.
func (c *auditListCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	sh := &sheet{columns: []string{"NO", "TIME", "WHO", "OPERATION", "TARGET", "OUTCOME"}, empty: "The audit log is empty."}
	for e, err := range s.Audit(ctx) {
		if err != nil {
			return err
		}
		if c.Limit > 0 && len(sh.rows) == c.Limit {
			a.note("There are more than %d; --limit 0 lists all.", c.Limit)
			break
		}
		outcome := e.Outcome
		if e.Code != "" {
			outcome += " " + e.Code
		}
		sh.add(e, e.Position, e.Time, e.Principal, e.Operation, e.Target, outcome)
	}
	return a.print(c.OutputFlags, sh)
}

type auditVerifyCmd struct {
	HubFlags
	OutputFlags
}

// Run verifies the audit log.
func (c *auditVerifyCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	r, err := s.VerifyAudit(ctx)
	if err != nil {
		return err
	}
	fields := []field{{"entries", r.Entries}, {"intact", r.OK}}
	if !r.OK {
		fields = append(fields, field{"first bad", r.FirstBad})
	}
	if err := a.printRecord(c.OutputFlags, r, fields); err != nil {
		return err
	}
	if !r.OK {
		return &problem{
			exit: ExitFailed, what: fmt.Sprintf("the audit log was changed at entry %d", r.FirstBad),
			next: "Keep a copy of the data directory, and find out who had access to its files.",
		}
	}
	return nil
}
