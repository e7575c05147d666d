package service

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

const (
	backupTime    = 2 * time.Hour    // longest for all of a backup; the store's own bound is shorter
	backupSlow    = 30 * time.Second // a client that takes nothing for so long is cut
	passphraseMax = 4096             // bytes
	backupType    = "application/octet-stream"
)

type backupStreamBody struct {
	Passphrase string `json:"passphrase,omitempty" doc:"Includes the master key, encrypted under it; needs every permission."`
}

type backupPlanDocument struct {
	Directory string  `json:"directory"`
	Seconds   float64 `json:"everySeconds"`
	At        string  `json:"at,omitempty" doc:"Time of day, in the hub's zone."`
	Keep      int     `json:"keep" doc:"How many of this epoch stay."`
	HasKey    bool    `json:"masterKey" doc:"Whether the master key is in them, under a passphrase."`
	SameDisk  bool    `json:"sameFileSystem" doc:"Whether they lie on the file system of the data."`
}

type backupRunDocument struct {
	File     string    `json:"file"`
	Cause    string    `json:"cause" doc:"schedule, or who asked."`
	Started  time.Time `json:"startedTime"`
	Ended    time.Time `json:"endedTime"`
	Sequence uint64    `json:"sequence,omitempty"`
	Bytes    int64     `json:"bytes,omitempty"`
	SHA256   string    `json:"sha256,omitempty"`
	Error    string    `json:"error,omitempty"`
}

type backupProgressDocument struct {
	File    string    `json:"file,omitempty" doc:"Absent for one that is streamed."`
	Started time.Time `json:"startedTime"`
	Stage   string    `json:"stage" enum:"writing,reading"`
	Bytes   int64     `json:"bytes" doc:"Read from the store, then of the file."`
}

type backupFileDocument struct {
	File     string     `json:"file"`
	Bytes    int64      `json:"bytes"`
	Sequence uint64     `json:"sequence" doc:"The newest change that it holds."`
	Epoch    string     `json:"epoch"`
	Time     *time.Time `json:"time"`
	HasKey   bool       `json:"masterKey"`
	Verified *time.Time `json:"verifiedTime" doc:"When the hub read it back; null for a file that it does not know."`
	SHA256   string     `json:"sha256,omitempty"`
	Problem  string     `json:"problem,omitempty"`
}

type backupsDocument struct {
	Plan     *backupPlanDocument     `json:"plan" doc:"Null when the hub makes none by itself."`
	Running  *backupProgressDocument `json:"running"`
	Next     *time.Time              `json:"nextTime"`
	Last     *backupRunDocument      `json:"last" doc:"The newest that was made."`
	Failed   *backupRunDocument      `json:"failed" doc:"The newest failure, when it is newer than that."`
	Failures int                     `json:"failures" doc:"In a row."`
	Files    []backupFileDocument    `json:"files" doc:"What lies in the directory, the newest first."`
	Problem  string                  `json:"problem,omitempty" doc:"Why the directory cannot be listed."`
}

func backupRoutes() []*route {
	return []*route{
		{
			method: http.MethodGet, pattern: "/api/v1/backups", operation: "getBackups", tag: tagHub, permission: auth.StatusRead, shape: shapeProblem,
			summary: "Says how the hub's backups stand and lists their files.", response: backupsDocument{}, handle: getBackups,
		},
		{
			method: http.MethodPost, pattern: "/api/v1/backups", operation: "startBackup", tag: tagHub, permission: auth.HubManage, shape: shapeProblem, idempotent: true,
			summary: "Has the hub make a backup in its directory now.", status: http.StatusAccepted, handle: startBackup,
		},
		{
			method: http.MethodPost, pattern: "/api/v1/backups/stream", operation: "streamBackup", tag: tagHub, permission: auth.HubManage, shape: shapeProblem, content: backupType,
			summary: "Answers with a backup, made while it is sent. One that ends early is not whole: its last frame is missing, and the connection is cut.",
			request: backupStreamBody{}, handle: streamBackup,
		},
	}
}

func someTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func showRun(r *engine.BackupRun) *backupRunDocument {
	if r == nil {
		return nil
	}
	return &backupRunDocument{r.File, r.Cause, r.Started, r.Ended, r.Sequence, r.Bytes, r.SHA256, r.Error}
}

func getBackups(c *call) (answer, error) {
	s, err := c.hub.Backups(c.r.Context(), c.caller)
	if err != nil {
		return answer{}, err
	}
	d := backupsDocument{Next: someTime(s.Next), Last: showRun(s.Last), Failed: showRun(s.Failed), Failures: s.Failures, Problem: s.Problem}
	if p := s.Plan; p.Dir != "" {
		d.Plan = &backupPlanDocument{p.Dir, p.Every.Seconds(), p.At, p.Keep, p.Passphrase != nil, s.SameDisk}
	}
	if r := s.Running; r != nil {
		stage := "writing"
		if r.Reading {
			stage = "reading"
		}
		d.Running = &backupProgressDocument{r.File, r.Started.UTC(), stage, r.Bytes}
	}
	d.Files = show(s.Files, func(f engine.BackupEntry) backupFileDocument {
		return backupFileDocument{f.File, f.Bytes, f.Sequence, f.Epoch, someTime(f.Time), f.HasKey, someTime(f.Verified), f.SHA256, f.Problem}
	})
	return answer{body: d}, nil
}

func startBackup(c *call) (answer, error) {
	return answer{status: http.StatusAccepted}, c.hub.StartBackup(c.r.Context(), c.caller)
}

func streamBackup(c *call) (answer, error) {
	passphrase, err := c.passphrase()
	if err != nil {
		return answer{}, err
	}
	c.wait(backupTime)
	w := &backupSink{c: c, control: http.NewResponseController(c.w)}
	_, err = c.hub.Backup(c.r.Context(), c.caller, w, passphrase)
	switch {
	case !w.begun && err == nil:
		err = errors.New("the backup is empty")
		fallthrough
	case !w.begun:
		return answer{}, err
	case err != nil:
		c.log.WarnContext(c.r.Context(), "a backup ended before it was whole", slog.Any("error", err), slog.String("request_id", c.requestID))
		_ = w.control.Flush() // the frame that says why
		panic(http.ErrAbortHandler)
	}
	_ = w.control.Flush()
	_ = w.control.SetWriteDeadline(time.Time{}) // the connection may be used again
	return answer{sent: true}, nil
}

// passphrase reads the optional body.
func (c *call) passphrase() ([]byte, error) {
	f, err := c.optionalMembers("passphrase")
	if err != nil {
		return nil, err
	}
	raw, ok := f.members["passphrase"]
	if !ok {
		return nil, nil
	}
	var text string
	if json.Unmarshal(raw, &text) != nil || text == "" || len(text) > passphraseMax {
		return nil, invalid("passphrase is not a text of 1 to %d bytes", passphraseMax)
	}
	return []byte(text), nil
}

// backupSink sends the headers with the first bytes, so that what fails before
// is answered as any error, and gives each write its own deadline.
type backupSink struct {
	c       *call
	control *http.ResponseController
	begun   bool
}

func (s *backupSink) Write(b []byte) (int, error) {
	if !s.begun {
		s.begun = true
		head := s.c.w.Header()
		head.Set("Content-Type", backupType)
		head.Set("Content-Disposition", `attachment; filename="muster.mbk"`)
		s.c.w.WriteHeader(http.StatusOK)
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(backupSlow)) // not supported by test recorders
	return s.c.w.Write(b)
}
