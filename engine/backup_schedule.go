package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/muster-hub/muster/storage"
)

// BackupPlan says where and when the hub makes backups by itself. The zero
// value: never.
type BackupPlan struct {
	Dir   string        // made when it is absent; empty: no backups
	Every time.Duration // between two starts; 0 is a day
	At    string        // time of day HH:MM, in the machine's zone, with a day between; empty: none
	Keep  int           // how many of this epoch stay; 0 is 7
	// Passphrase, when not nil, returns what encrypts the master key in each backup.
	Passphrase func() ([]byte, error)
}

const (
	backupDay     = 24 * time.Hour
	backupLeast   = time.Minute // between two starts
	backupKeep    = 7
	backupLook    = time.Minute     // the clock may be set meanwhile
	backupWait    = 5 * time.Second // for one that is streamed
	backupRetry   = time.Minute     // after a failure, doubled with each up to
	backupRetryAt = time.Hour
	backupRecords = 200 // runs that are remembered
)

// Check tells whether a hub would begin with the plan; else its error is
// CodeArgumentInvalid.
func (p BackupPlan) Check() error {
	_, err := p.check()
	return err
}

// check fills defaults. Whether the directory can be used shows at the first
// backup: a disk that is away must not keep devices from their hub.
func (p BackupPlan) check() (BackupPlan, error) {
	if p.Dir == "" {
		if p.At != "" || p.Every != 0 || p.Keep != 0 || p.Passphrase != nil {
			return p, errf(CodeArgumentInvalid, "backups have a time or a number to keep, but no directory; give --backup-dir")
		}
		return p, nil
	}
	if p.At != "" {
		if _, err := time.Parse("15:04", p.At); err != nil {
			return p, errf(CodeArgumentInvalid, "backups are to be made at %q, expected a time of day such as 03:30", p.At)
		}
		if p.Every != 0 && p.Every != backupDay {
			return p, errf(CodeArgumentInvalid, "backups are to be made at %s and every %s; a time of day goes with every 24h", p.At, p.Every)
		}
	}
	if p.Every == 0 {
		p.Every = backupDay
	}
	if p.Keep == 0 {
		p.Keep = backupKeep
	}
	if p.Every < backupLeast || p.Every > 366*backupDay {
		return p, errf(CodeArgumentInvalid, "backups are to be made every %s, allowed are %s to 8784h", p.Every, backupLeast)
	}
	if p.Keep < 1 || p.Keep > 1000 {
		return p, errf(CodeArgumentInvalid, "%d backups are to be kept, allowed are 1 to 1000", p.Keep)
	}
	return p, nil
}

// next is when the backup after one that began at last is due.
func (p BackupPlan) next(last time.Time) time.Time {
	if p.At == "" {
		return last.Add(p.Every)
	}
	at, _ := time.Parse("15:04", p.At) // checked
	last = last.In(time.Local)
	day := time.Date(last.Year(), last.Month(), last.Day(), at.Hour(), at.Minute(), 0, 0, time.Local)
	if !day.After(last) {
		day = time.Date(last.Year(), last.Month(), last.Day()+1, at.Hour(), at.Minute(), 0, 0, time.Local)
	}
	return day
}

// due is when the next backup is to begin; the caller holds mu. The first one
// is due at once: then there is one from the first day on, and a directory
// that does not work shows while somebody looks. So is one that is to take the
// place of a last one that the directory does not hold.
func (b *backups) due(now time.Time) time.Time {
	due := now
	if b.last != nil && !b.lost {
		due = b.plan.next(b.last.Started)
		if b.last.Started.After(now) { // the clock was set back
			due = b.plan.next(now)
		}
	}
	if b.bad != nil {
		wait := min(backupRetry<<min(b.inRow-1, 10), backupRetryAt)
		if again := b.bad.Ended.Add(wait); again.After(due) && !b.bad.Ended.After(now) {
			due = again
		}
	}
	return due
}

// backupRecord is a run as it is stored, keyed by its start.
type backupRecord struct {
	File     string    `json:"f"`
	Cause    string    `json:"c"`
	Started  time.Time `json:"b"`
	Ended    time.Time `json:"e"`
	Epoch    string    `json:"p"`
	Sequence uint64    `json:"s,omitempty"`
	Bytes    int64     `json:"n,omitempty"`
	SHA256   string    `json:"h,omitempty"`
	Error    string    `json:"x,omitempty"`
}

func (r backupRecord) show() BackupRun {
	return BackupRun{r.File, r.Cause, r.Started.UTC(), r.Ended.UTC(), r.Epoch, r.Sequence, r.Bytes, r.SHA256, r.Error}
}

var backupTable = storage.NewTable("backup", 1, storage.JSON[backupRecord]())

func newBackups(p BackupPlan) (*backups, error) {
	plan, err := p.check()
	return &backups{plan: plan, kick: make(chan string, 1)}, err
}

// open reads how the runs before ended. Those of another epoch were another
// hub's: this one begins with a backup of its own.
func (b *backups) open(ctx context.Context, h *Hub) error {
	epoch := h.db.Epoch().ID
	return h.view(ctx, "load backups", func(r storage.Reader) error {
		for item, err := range backupTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			if run := item.Value.show(); run.Epoch == epoch {
				b.note(run)
			}
		}
		return nil
	})
}

// note takes a run that has ended into account.
func (b *backups) note(run BackupRun) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if run.Error == "" {
		b.last, b.bad, b.inRow, b.lost = &run, nil, 0, false
		return
	}
	b.bad = &run
	b.inRow++
}

// runBackups makes the backups of the plan until ctx ends.
func (h *Hub) runBackups(ctx context.Context) {
	b := h.backups
	if err := h.adoptBackup(ctx); err != nil && ctx.Err() == nil {
		h.log.Warn("the directory of backups can't be read", slog.String("dir", b.plan.Dir), slog.Any("error", err))
	}
	b.mu.Lock()
	b.lost = b.last != nil && !h.holdsBackup(b.last.File)
	b.mu.Unlock()
	for ctx.Err() == nil {
		now := time.Now()
		b.mu.Lock()
		due := b.due(now)
		b.mu.Unlock()
		cause := "schedule"
		if r := b.progress(); r != nil { // streamed to a client
			if !rest(ctx, backupWait) {
				return
			}
			continue
		}
		if wait := due.Sub(now); wait > 0 {
			t := time.NewTimer(min(wait, backupLook))
			select {
			case <-ctx.Done():
				t.Stop()
				return
			case <-t.C:
				continue
			case cause = <-b.kick:
				t.Stop()
			}
		}
		select {
		case <-b.kick: // the same one
		default:
		}
		if err := h.makeBackup(ctx, cause); err != nil && ctx.Err() == nil {
			h.log.Error("a backup failed; it will be tried again", slog.String("dir", b.plan.Dir), slog.Any("error", err))
			rest(ctx, backupWait) // also where it did not come to be counted as a failure
		}
	}
}

// rest waits, and reports whether ctx goes on.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// adoptBackup takes a backup into account whose hub died between giving it its
// name and remembering it. It is read, since anybody can give a file a name.
func (h *Hub) adoptBackup(ctx context.Context) error {
	b := h.backups
	files, err := storage.ListBackups(b.plan.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	epoch := h.db.Epoch().ID
	for _, f := range files {
		if f.Err != nil || f.Info.Epoch != epoch {
			continue
		}
		b.mu.Lock()
		known := b.last != nil && !f.Info.Time.After(b.last.Ended)
		b.mu.Unlock()
		if known {
			return nil
		}
		info, err := readBackup(ctx, h.backupPath(f.Name))
		if err != nil {
			return err
		}
		return h.recordBackup(ctx, BackupRun{
			File: f.Name, Cause: "schedule", Started: info.Time, Ended: time.Now().UTC(), Epoch: epoch, Sequence: info.Sequence, Bytes: info.Size, SHA256: info.SHA256,
		})
	}
	return nil
}

func readBackup(ctx context.Context, name string) (BackupInfo, error) {
	f, err := os.Open(name)
	if err != nil {
		return BackupInfo{}, err
	}
	defer f.Close() // only read
	return storage.VerifyBackup(ctx, f)
}

// makeBackup makes one backup in the directory, reads it back, remembers it and
// only then removes the oldest.
func (h *Hub) makeBackup(ctx context.Context, cause string) error {
	b := h.backups
	now := time.Now()
	run := BackupRun{File: storage.FreeBackupName(b.plan.Dir, now), Cause: cause, Started: now.UTC(), Epoch: h.db.Epoch().ID}
	step, end, err := b.begin(BackupProgress{File: run.File, Started: now})
	if err != nil {
		return err
	}
	defer end()
	var pass []byte
	if b.plan.Passphrase != nil {
		pass, err = b.plan.Passphrase()
	}
	var info BackupInfo
	if err == nil {
		err = os.MkdirAll(b.plan.Dir, 0o700) // it may lie on a disk that has come and gone
	}
	if err == nil {
		o := storage.BackupOptions{Passphrase: pass, Progress: func(n int64) { step(false, n) }}
		info, err = h.db.SaveBackup(ctx, h.backupPath(run.File), o, func(n int64) { step(true, n) })
	}
	if ctx.Err() != nil && err != nil {
		return ctx.Err() // the hub stops; the next start makes it
	}
	run.Ended, run.Sequence, run.Bytes, run.SHA256 = time.Now().UTC(), info.Sequence, info.Size, info.SHA256
	if err != nil {
		run.Error = clip(err.Error())
	}
	if rerr := h.recordBackup(ctx, run); rerr != nil {
		h.log.Warn("how a backup ended could not be stored", slog.String("file", run.File), slog.Any("error", rerr))
	}
	if err != nil {
		return err
	}
	h.log.Info("a backup was made and read back", slog.String("file", h.backupPath(run.File)), slog.Uint64("sequence", run.Sequence),
		slog.Int64("bytes", run.Bytes), slog.Duration("took", run.Ended.Sub(run.Started)))
	removed, err := storage.PruneBackups(b.plan.Dir, run.Epoch, b.plan.Keep)
	if len(removed) > 0 {
		h.log.Info("old backups were removed", slog.String("files", strings.Join(removed, " ")))
	}
	if err != nil {
		h.log.Warn("old backups could not be removed", slog.Any("error", err))
	}
	return nil
}

// recordBackup remembers a run and tells of it: an event, an entry of the audit.
func (h *Hub) recordBackup(ctx context.Context, run BackupRun) error {
	b := h.backups
	b.note(run)
	kind := changeBackupCompleted
	if run.Error != "" {
		kind = changeBackupFailed
		b.failed.Add(1)
	} else {
		b.made.Add(1)
	}
	details, err := marshal(struct {
		File     string  `json:"file"`
		Cause    string  `json:"cause"`
		Sequence uint64  `json:"sequence,omitempty"`
		Bytes    int64   `json:"bytes,omitempty"`
		SHA256   string  `json:"sha256,omitempty"`
		Seconds  float64 `json:"seconds"`
		Error    string  `json:"error,omitempty"`
	}{run.File, run.Cause, run.Sequence, run.Bytes, run.SHA256, run.Ended.Sub(run.Started).Seconds(), run.Error})
	if err != nil {
		return err
	}
	return h.update(ctx, "remember a backup", func(tx *storage.Tx) error {
		// The oldest runs go, one or two with each that comes.
		var old []storage.Key
		n := 0
		for item, err := range backupTable.Scan(tx, storage.Range{Reverse: true}) {
			if err != nil {
				return err
			}
			if n++; n >= backupRecords {
				old = append(old, append(storage.Key(nil), item.Key...))
			}
		}
		for _, k := range old {
			if err := backupTable.Delete(tx, k); err != nil {
				return err
			}
		}
		c := Caller{Cause: "backup"}
		outcome := outcomeDone
		if run.Error != "" {
			outcome = outcomeFailed
		}
		a := newAuditRecord(c, opBackupCreate, run.File, outcome)
		a.Details = details
		return errors.Join(
			backupTable.Put(tx, storage.Tuple(run.Started.UnixNano()), backupRecord(run)),
			appendChange(tx, c, kind, TwinID{}, 0, details),
			appendAudit(tx, a),
		)
	})
}

// holdsBackup reports whether the directory of backups has the file. Only one
// that is surely missing counts as that.
func (h *Hub) holdsBackup(file string) bool {
	_, err := os.Lstat(h.backupPath(file))
	return !errors.Is(err, fs.ErrNotExist)
}

// doctorBackup looks at whether there is a backup that can be relied on.
func (h *Hub) doctorBackup(now time.Time) Finding {
	s := h.backupState(now)
	f := Finding{Check: "backup", Level: "ok"}
	unusable := storage.CheckBackupDir(s.Plan.Dir)
	switch {
	case s.Plan.Dir == "":
		return Finding{"backup", "warn", "no backups are made by schedule", "start the hub with --backup-dir DIR, on another disk; `muster backup create FILE` makes one now"}
	case s.Failed != nil:
		f.Level, f.Next = "fail", "mend the cause; it is tried again by itself, `muster backup run` tries it now"
		f.Text = fmt.Sprintf("the last backup failed (%s, %d in a row): %s", s.Failed.Ended.Format(time.RFC3339), s.Failures, s.Failed.Error)
		return f
	case s.Last == nil && s.Running != nil:
		f.Text = "the first backup is being made"
	case unusable != nil:
		f.Level, f.Next = "fail", "give the directory to the hub's user, or mount its disk for writing; `muster backup run` tries it"
		f.Text = fmt.Sprintf("the next backup will fail: %v", unusable)
		return f
	case s.Last == nil:
		f.Level, f.Text, f.Next = "warn", "no backup has been made yet", "`muster backup run` makes one now"
		return f
	case now.Sub(s.Next) > max(s.Plan.Every/4, time.Hour) && s.Running == nil:
		f.Level, f.Next = "fail", "look at the hub's log; `muster backup run` makes one now"
		f.Text = fmt.Sprintf("a backup is overdue since %s; the last one is of %s", s.Next.Format(time.RFC3339), s.Last.Started.Format(time.RFC3339))
		return f
	case !h.holdsBackup(s.Last.File) && s.Running == nil:
		f.Level, f.Next = "warn", "`muster backup run` makes one now"
		f.Text = fmt.Sprintf("the last backup, %s of %s, is not in %s", s.Last.File, s.Last.Started.Format(time.RFC3339), s.Plan.Dir)
		return f
	default:
		f.Text = fmt.Sprintf("the last one is of %s, up to change %d, and was read back; the next is due %s", s.Last.Started.Format(time.RFC3339), s.Last.Sequence, s.Next.UTC().Format(time.RFC3339))
	}
	if s.SameDisk {
		f.Level, f.Next = "warn", "give a directory on another disk with --backup-dir, or copy the backups to another machine"
		f.Text += "; they lie on the same file system as the data, and are lost with it"
	}
	return f
}

// doctorPaused warns of a hub that was restored and holds back what is queued.
func (h *Hub) doctorPaused() Finding {
	if !h.db.Paused() {
		return Finding{"paused", "ok", "nothing is held back", ""}
	}
	return Finding{"paused", "warn", "the hub was restored from a backup and is not resumed: queued methods, cloud-to-device messages and webhooks are held back", "look at the hub, stop it, then `muster resume --data DIR`"}
}
