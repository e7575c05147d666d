package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// watchIdentityJob follows an import or export until it has ended, and fails as
// watchJob does. missing is what the hub said when it was asked for a job of
// that id.
func (a *app) watchIdentityJob(s *client.Service, c *jobWatchCmd, missing error) error {
	began := time.Now()
	f := &following{app: a}
	bar := newJobProgress(a, OutputFlags{})
	defer bar.clear()
	var last time.Time
	for {
		var j client.IdentityJob
		err := a.call(HubFlags{WhichHub: c.WhichHub}, func(ctx context.Context) (err error) { j, err = s.IdentityJob(ctx, c.Job); return err })
		switch {
		case a.ctx.Err() != nil:
			return &problem{exit: ExitCancelled, what: "the watching has ended; the job goes on", next: fmt.Sprintf("`muster job watch %s` follows it again.", c.Job)}
		case client.HasCode(err, "JobNotFound"):
			return missing
		case err != nil:
			if err = f.wait(err); err != nil {
				return err
			}
			continue
		}
		f.heard()
		if c.Output == "jsonl" && !j.UpdatedTime.Equal(last) {
			last = j.UpdatedTime
			if err := writeJSONLine(a.io.Out, j); err != nil {
				return err
			}
		}
		if j.Ended() {
			bar.clear()
			return a.endIdentityJob(c.Output, &j)
		}
		if c.Output != "jsonl" {
			bar.show(&j)
		}
		if c.For > 0 && time.Since(began) >= c.For {
			return &problem{exit: ExitTimeout, what: fmt.Sprintf("the job has not ended within %s; it goes on", c.For), next: fmt.Sprintf("`muster job watch %s` follows it again.", c.Job)}
		}
		select {
		case <-a.ctx.Done():
		case <-time.After(identityJobPoll):
		}
	}
}

// endIdentityJob shows how an import or export has ended.
func (a *app) endIdentityJob(output string, j *client.IdentityJob) error {
	if output != "jsonl" {
		if err := a.printIdentityJob(OutputFlags{}, j, 0); err != nil {
			return err
		}
	}
	switch {
	case j.Status == "cancelled":
		return &problem{exit: ExitCancelled, what: "the job was cancelled", why: j.FailureReason, next: "What it had done stays done."}
	case j.Status == "failed":
		return &problem{exit: ExitFailed, what: "the job failed", why: j.FailureReason}
	case j.Counts.Failed > 0:
		p := &problem{exit: ExitPartly, what: fmt.Sprintf("%d lines failed", j.Counts.Failed)}
		if j.Type == "import" {
			p.next = fmt.Sprintf("`muster device import --follow %s` writes each with its reason to a file.", j.ID)
		}
		return p
	}
	return nil
}
