package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// Backups says how a hub's backups stand.
type Backups struct {
	Plan     *BackupPlan     `json:"plan"` // nil: it makes none by itself
	Running  *BackupProgress `json:"running"`
	Next     Time            `json:"nextTime"`
	Last     *BackupRun      `json:"last"`   // the newest that was made
	Failed   *BackupRun      `json:"failed"` // the newest failure, when it is newer
	Failures int             `json:"failures"`
	Files    []BackupFile    `json:"files"` // newest first
	Problem  string          `json:"problem,omitempty"`
}

// BackupPlan says when and where a hub makes backups.
type BackupPlan struct {
	Directory      string  `json:"directory"`
	Seconds        float64 `json:"everySeconds"`
	At             string  `json:"at,omitempty"`
	Keep           int     `json:"keep"`
	MasterKey      bool    `json:"masterKey"`
	SameFileSystem bool    `json:"sameFileSystem"`
}

// BackupProgress is a backup under way.
type BackupProgress struct {
	File    string `json:"file,omitempty"`
	Started Time   `json:"startedTime"`
	Stage   string `json:"stage"` // "writing", "reading"
	Bytes   int64  `json:"bytes"`
}

// BackupRun is a backup that was made, or failed.
type BackupRun struct {
	File     string `json:"file"`
	Cause    string `json:"cause"`
	Started  Time   `json:"startedTime"`
	Ended    Time   `json:"endedTime"`
	Sequence uint64 `json:"sequence,omitempty"`
	Bytes    int64  `json:"bytes,omitempty"`
	SHA256   string `json:"sha256,omitempty"`
	Error    string `json:"error,omitempty"`
}

// BackupFile is a file of a directory of backups.
type BackupFile struct {
	File     string `json:"file"`
	Bytes    int64  `json:"bytes"`
	Sequence uint64 `json:"sequence"`
	Epoch    string `json:"epoch"`
	Time     Time   `json:"time"`
	HasKey   bool   `json:"masterKey"`
	Verified Time   `json:"verifiedTime"` // zero: the hub does not know the file
	SHA256   string `json:"sha256,omitempty"`
	Problem  string `json:"problem,omitempty"`
}

// Backups asks how the hub's backups stand.
func (s *Service) Backups(ctx context.Context) (Backups, error) {
	var b Backups
	err := s.Do(ctx, Request{Method: http.MethodGet, Path: "/api/v1/backups"}, &b)
	return b, err
}

// StartBackup has the hub make a backup in its directory; it does not wait for it.
func (s *Service) StartBackup(ctx context.Context) error {
	return s.Do(ctx, Request{Method: http.MethodPost, Path: "/api/v1/backups"}, nil)
}

// backupSilence is how long a backup may bring nothing: the hub rests between
// pieces, for fractions of a second.
const backupSilence = 2 * time.Minute

// ErrBackupCut says that a hub which was asked for a backup did not send all of it.
var ErrBackupCut = errors.New("the backup was cut")

// Backup copies a backup of the running hub to w. With a passphrase it holds
// the master key, encrypted under it. What w gets is whole only when its reader
// says so: the error is a *ConnectError of ErrBackupCut when the connection was
// cut, and w's own when that failed.
func (s *Service) Backup(ctx context.Context, passphrase []byte, w io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	body := map[string]string{}
	if len(passphrase) > 0 {
		body["passphrase"] = string(passphrase)
	}
	req, err := s.request(ctx, Request{Method: http.MethodPost, Path: "/api/v1/backups/stream", Body: body})
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/octet-stream, application/problem+json")
	silence := time.AfterFunc(backupSilence, func() { cancel(fmt.Errorf("nothing came for %s", backupSilence)) })
	defer silence.Stop()
	res, err := s.http.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		if hungUp(err) { // the first bytes wait for more before they are sent
			err = fmt.Errorf("%w: %w", ErrBackupCut, err)
		}
		return &ConnectError{Target: s.target, Err: err}
	}
	defer func() { _ = res.Body.Close() }() // read to its end, or given up with the connection
	if res.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes))
		if err != nil {
			return &ConnectError{Target: s.target, Err: err}
		}
		return parseError(res.StatusCode, res.Header, text)
	}
	buf := make([]byte, 128<<10)
	for {
		n, err := res.Body.Read(buf)
		silence.Reset(backupSilence)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			silence.Reset(backupSilence) // w may take its time
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		default:
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return &ConnectError{Target: s.target, Err: fmt.Errorf("%w: %w", ErrBackupCut, err)}
		}
	}
}

// hungUp reports whether a connection ended that had been there.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
