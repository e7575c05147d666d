package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

type backupListCmd struct {
	HubFlags
	OutputFlags
	Dir string `help:"List this directory instead, without a hub." placeholder:"DIR"`
}

// Run lists backups.
func (c *backupListCmd) Run(a *app) error {
	sh := &sheet{columns: []string{"FILE", "SEQUENCE", "AGE", "BYTES", "KEY", "VERIFIED"}, empty: "No backups."}
	if c.Dir != "" {
		return c.directory(a, sh)
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	b, err := s.Backups(ctx)
	if err != nil {
		return err
	}
	if b.Plan == nil {
		a.note("This hub makes no backups by itself. Next: muster serve --backup-dir DIR, or muster backup list --dir DIR.")
	}
	for _, f := range b.Files {
		verified := a.cell(f.Verified)
		switch {
		case f.Problem != "":
			verified = "damaged: " + f.Problem
		case f.Verified.IsZero():
			verified = "not by this hub"
		}
		sh.add(f, f.File, f.Sequence, age(f.Time.Time), f.Bytes, f.HasKey, verified)
	}
	if err := a.print(c.OutputFlags, sh); err != nil {
		return err
	}
	return a.noteBackups(b)
}

func (c *backupListCmd) directory(a *app, sh *sheet) error {
	if a.hooks.Backup.List == nil {
		return notBuilt("backup list --dir")
	}
	list, err := a.hooks.Backup.List(c.Dir)
	if err != nil {
		return err
	}
	for _, s := range list {
		verified := "muster backup verify tells"
		if s.Problem != "" {
			verified = "damaged: " + s.Problem
		}
		sh.add(s, s.File, s.Sequence, age(s.Time), s.Bytes, s.HasKey, verified)
	}
	return a.print(c.OutputFlags, sh)
}

// noteBackups says beside the list what needs attention.
func (a *app) noteBackups(b client.Backups) error {
	if r := b.Running; r != nil {
		a.note("A backup runs since %s (%s, %.1f MiB).", a.cell(r.Started), r.Stage, float64(r.Bytes)/(1<<20))
	}
	if b.Problem != "" {
		return &problem{exit: ExitFailed, what: "the directory of backups cannot be listed", why: b.Problem, next: "Mend it; the hub tries again by itself."}
	}
	if f := b.Failed; f != nil {
		return &problem{exit: ExitFailed, what: fmt.Sprintf("the last backup failed (%s, %d in a row)", a.cell(f.Ended), b.Failures), why: f.Error, next: "Mend the cause; `muster backup run` tries again at once."}
	}
	if b.Plan != nil && b.Running == nil {
		a.note("The next one is due %s.", a.cell(b.Next))
	}
	return nil
}

// age is how long ago something was, for people.
func age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

type backupRunCmd struct {
	WhichHub
	OutputFlags
	NoWait bool `help:"Don't wait until it is made and read back."`
}

const backupLook = 500 * time.Millisecond

// Run has the hub make a backup and waits for it.
func (c *backupRunCmd) Run(a *app) error {
	s, err := a.service(HubFlags{WhichHub: c.WhichHub})
	if err != nil {
		return err
	}
	before, err := s.Backups(a.ctx)
	if err != nil {
		return err
	}
	if err := s.StartBackup(a.ctx); err != nil {
		return err
	}
	if c.NoWait {
		a.note("Begun. Next: `muster backup list` shows how it goes.")
		return nil
	}
	progress, done := a.backupProgress(c.OutputFlags)
	made, err := awaitBackup(a.ctx, s, before, progress)
	done()
	if err != nil {
		return err
	}
	sh := &sheet{columns: []string{"FILE", "SEQUENCE", "BYTES", "SHA256"}}
	sh.add(made, made.File, made.Sequence, made.Bytes, made.SHA256)
	return a.print(c.OutputFlags, sh)
}

// awaitBackup waits for a run that ended after before was looked at.
func awaitBackup(ctx context.Context, s *client.Service, before client.Backups, progress BackupProgress) (*client.BackupRun, error) {
	newer := func(r, than *client.BackupRun) bool {
		return r != nil && (than == nil || r.Started.After(than.Started.Time))
	}
	t := time.NewTicker(backupLook)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		b, err := s.Backups(ctx)
		switch {
		case err != nil:
			return nil, err
		case newer(b.Last, before.Last):
			return b.Last, nil
		case newer(b.Failed, before.Failed):
			return nil, &problem{exit: ExitFailed, what: "the backup failed", why: b.Failed.Error, next: "Mend the cause; the hub tries again by itself."}
		case b.Plan == nil:
			return nil, errors.New("the hub was restarted without a directory for backups")
		}
		if b.Running != nil {
			progress(b.Running.Stage, b.Running.Bytes)
		}
	}
}
