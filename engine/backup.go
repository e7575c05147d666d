package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// BackupInfo describes a backup, named here for the edges, which don't know
// the store.
type BackupInfo = storage.BackupInfo

// BackupChanges is the newest position of the log of changes in a backup.
func BackupChanges(i BackupInfo) uint64 { return i.Last("changes") }

// Kinds of change of backups, by the hub, of no device.
const (
	changeBackupCompleted = "backup.completed"
	changeBackupFailed    = "backup.failed"
)

// BackupRun is one backup that the hub made, or tried to make, in its
// directory of backups.
type BackupRun struct {
	File     string // in the directory
	Cause    string // "schedule", or who asked
	Started  time.Time
	Ended    time.Time
	Epoch    string
	Sequence uint64
	Bytes    int64
	SHA256   string
	Error    string // why there is none; empty when it was made and read back
}

// BackupProgress is a backup under way.
type BackupProgress struct {
	File    string // empty: streamed to a client
	Started time.Time
	Reading bool  // it is written, and being read back
	Bytes   int64 // read from the store, or read back
}

// BackupEntry is a file of the directory of backups.
type BackupEntry struct {
	File     string
	Bytes    int64
	Sequence uint64
	Epoch    string
	Time     time.Time
	HasKey   bool
	Verified time.Time // when the hub read it back; zero: it does not know the file
	SHA256   string    // when Verified is set
	Problem  string    // why the file cannot be read
}

// BackupState says how a hub's backups stand.
type BackupState struct {
	Plan     BackupPlan
	Running  *BackupProgress
	Next     time.Time  // when the next one is due; zero without a plan
	Last     *BackupRun // the newest that was made in this epoch
	Failed   *BackupRun // the newest that failed, when that is after Last
	Failures int        // in a row
	SameDisk bool       // the directory lies on the data's file system
	Files    []BackupEntry
	Problem  string // why the files cannot be listed
}

// BackupStats are the figures of backups since the start, for metrics.
type BackupStats struct {
	Made, Failed     int64
	LastSuccess      time.Time // start of the newest one that was made; zero: none
	LastTime         time.Duration
	LastBytes        int64
	Running          bool
	Bytes            int64 // of the one that runs
	Scheduled, InRow int64 // whether there is a plan; failures in a row
}

// backups is the hub's work on backups. One runs at a time, streamed or not:
// each holds a snapshot and some memory.
type backups struct {
	plan BackupPlan
	kick chan string // capacity 1: whoever asks for one now

	made, failed atomic.Int64

	mu      sync.Mutex
	running *BackupProgress
	last    *BackupRun // made in this epoch
	bad     *BackupRun // failed, newer than last
	inRow   int        // failures since last
	lost    bool       // last was not in the directory at the start: it was made elsewhere, or is gone
}

// begin takes the place of the one backup.
func (b *backups) begin(p BackupProgress) (step func(reading bool, bytes int64), end func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.running; r != nil {
		return nil, nil, errf(CodeBackupRunning, "a backup runs since %s; wait until it has ended", r.Started.UTC().Format(time.RFC3339))
	}
	b.running = &p
	step = func(reading bool, bytes int64) {
		b.mu.Lock()
		defer b.mu.Unlock()
		p.Reading, p.Bytes = reading, bytes
	}
	return step, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.running = nil
	}, nil
}

func (b *backups) progress() *BackupProgress {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running == nil {
		return nil
	}
	p := *b.running
	return &p
}

// Backup writes a backup to w while the hub serves. With a passphrase it holds
// the master key, encrypted under it, which only who has every permission may
// ask for: it opens every key in the hub. It needs HubManage. Errors beside
// those of w: CodeBackupRunning, CodeReadOnly (the disk runs full),
// CodeInternal. After an error w holds no whole backup.
func (h *Hub) Backup(ctx context.Context, c Caller, w io.Writer, passphrase []byte) (BackupInfo, error) {
	if err := h.authorize(ctx, c, opBackupCreate, "*"); err != nil {
		return BackupInfo{}, err
	}
	if len(passphrase) > 0 && !c.Permissions.Has(auth.AllPermissions) {
		err := errf(CodeForbidden, "a backup with the master key opens every key in the hub; %s does not hold every permission: ask as iothubowner or on the hub's machine, or without a passphrase", c.Principal)
		return BackupInfo{}, h.auditForbidden(c, opBackupCreate, "stream", err)
	}
	step, end, err := h.backups.begin(BackupProgress{Started: time.Now()})
	if err != nil {
		return BackupInfo{}, err
	}
	defer end()
	details, err := json.Marshal(map[string]bool{"masterKey": len(passphrase) > 0})
	if err == nil {
		err = h.update(ctx, "audit a backup", func(tx *storage.Tx) error { return h.auditTx(tx, c, opBackupCreate, "stream", details) })
	}
	// A store that takes no writes must still be backed up.
	if e, ok := errors.AsType[*Error](err); err != nil && (!ok || e.Code != CodeReadOnly) {
		return BackupInfo{}, err
	}
	info, err := h.db.Backup(ctx, w, storage.BackupOptions{Passphrase: passphrase, Progress: func(n int64) { step(false, n) }})
	return info, storeError(err, "make a backup")
}

// StartBackup has a backup made in the directory of backups now, beside the
// schedule; Backups shows how it goes. It needs HubManage. Errors:
// CodeForbidden when the hub has no such directory, CodeBackupRunning.
func (h *Hub) StartBackup(ctx context.Context, c Caller) error {
	if err := h.authorize(ctx, c, opBackupCreate, "*"); err != nil {
		return err
	}
	b := h.backups
	if b.plan.Dir == "" {
		return errf(CodeForbidden, "this hub has no directory for backups; start it with --backup-dir, or stream a backup")
	}
	if r := b.progress(); r != nil {
		return errf(CodeBackupRunning, "a backup runs since %s; wait until it has ended", r.Started.UTC().Format(time.RFC3339))
	}
	select {
	case b.kick <- c.Principal.String():
		return nil
	default:
		return errf(CodeBackupRunning, "a backup has been asked for and is about to begin; wait until it has ended")
	}
}

// Backups says how the backups of the hub stand, and lists the files in their
// directory, the newest first. It needs StatusRead.
func (h *Hub) Backups(ctx context.Context, c Caller) (BackupState, error) {
	if err := h.authorize(ctx, c, opBackupRead, "*"); err != nil {
		return BackupState{}, err
	}
	s := h.backupState(time.Now())
	if s.Plan.Dir == "" {
		return s, nil
	}
	files, err := storage.ListBackups(s.Plan.Dir)
	if err != nil {
		s.Problem = err.Error()
		return s, nil
	}
	known := map[string]BackupRun{}
	err = h.view(ctx, "read backups", func(r storage.Reader) error {
		for item, err := range backupTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			known[item.Value.File] = item.Value.show()
		}
		return nil
	})
	for _, f := range files {
		e := BackupEntry{File: f.Name, Bytes: f.Size, Sequence: f.Info.Sequence, Epoch: f.Info.Epoch, Time: f.Info.Time, HasKey: f.Info.HasKey}
		if f.Err != nil {
			e.Problem = f.Err.Error()
		}
		// What has another size is another file of that name.
		if r, ok := known[f.Name]; ok && r.Error == "" && r.Bytes == f.Size {
			e.Verified, e.SHA256 = r.Ended, r.SHA256
		}
		s.Files = append(s.Files, e)
	}
	return s, err
}

func (h *Hub) backupState(now time.Time) BackupState {
	b := h.backups
	s := BackupState{Plan: b.plan, Running: b.progress(), Files: []BackupEntry{}}
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Last, s.Failed, s.Failures = b.last, b.bad, b.inRow
	if b.plan.Dir != "" {
		s.Next = b.due(now)
		s.SameDisk, _ = storage.SameFileSystem(h.db.Dir(), b.plan.Dir) // false when it has gone, which the list says
	}
	return s
}

// BackupStats returns the figures; it is cheap and safe from any goroutine.
func (h *Hub) BackupStats() BackupStats {
	b := h.backups
	s := BackupStats{Made: b.made.Load(), Failed: b.failed.Load()}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.plan.Dir != "" {
		s.Scheduled = 1
	}
	s.InRow = int64(b.inRow)
	if b.last != nil {
		s.LastSuccess, s.LastTime, s.LastBytes = b.last.Started, b.last.Ended.Sub(b.last.Started), b.last.Bytes
	}
	if b.running != nil {
		s.Running, s.Bytes = true, b.running.Bytes
	}
	return s
}

func (h *Hub) backupPath(file string) string { return filepath.Join(h.backups.plan.Dir, file) }
