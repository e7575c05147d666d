package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// File is a file that a device has uploaded.
type File struct {
	DeviceID        string    `json:"deviceId"`
	Name            string    `json:"name"`
	Size            int64     `json:"size"`
	SHA256          string    `json:"sha256"`
	ContentType     string    `json:"contentType,omitempty"`
	ContentEncoding string    `json:"contentEncoding,omitempty"`
	CorrelationID   string    `json:"correlationId"`
	CreatedTime     time.Time `json:"createdTime"`
	UpdatedTime     time.Time `json:"updatedTime"`
	ETag            string    `json:"etag"`
}

// FileNotification tells of a file that a device has uploaded.
type FileNotification struct {
	DeviceID        string    `json:"deviceId"`
	BlobURI         string    `json:"blobUri"`
	BlobName        string    `json:"blobName"`
	LastUpdatedTime time.Time `json:"lastUpdatedTime"`
	BlobSizeInBytes int64     `json:"blobSizeInBytes"`
	EnqueuedTimeUTC time.Time `json:"enqueuedTimeUtc"`
	SHA256          string    `json:"sha256"`
}

func filePath(deviceID, name string) string {
	return "/api/v1/devices/" + url.PathEscape(deviceID) + "/files/" + url.PathEscape(name)
}

// Files walks a device's files in the order of their names, those that begin
// with prefix.
func (s *Service) Files(ctx context.Context, deviceID, prefix string) iter.Seq2[File, error] {
	query := url.Values{}
	if prefix != "" {
		query.Set("prefix", prefix)
	}
	return pages[File](ctx, s, "/api/v1/devices/"+url.PathEscape(deviceID)+"/files", query, 200)
}

// File reads what is known of a file.
func (s *Service) File(ctx context.Context, deviceID, name string) (File, error) {
	var f File
	err := s.Do(ctx, Request{Method: http.MethodGet, Path: filePath(deviceID, name)}, &f)
	return f, err
}

// DeleteFile deletes a file.
func (s *Service) DeleteFile(ctx context.Context, deviceID, name string) error {
	return s.Do(ctx, Request{Method: http.MethodDelete, Path: filePath(deviceID, name)}, nil)
}

// DownloadFile writes a file's content to w and compares its SHA-256 with
// what the hub says. It returns how many bytes there were.
func (s *Service) DownloadFile(ctx context.Context, deviceID, name string, w io.Writer) (int64, error) {
	req, err := s.request(ctx, Request{Method: http.MethodGet, Path: filePath(deviceID, name) + "/content"})
	if err != nil {
		return 0, err
	}
	req.Header.Set("Accept", "*/*")
	req.Header.Set("Accept-Encoding", "identity") // the bytes as they are stored
	res, err := s.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return 0, cause
		}
		return 0, &ConnectError{Target: s.target, Err: err}
	}
	defer func() { _ = res.Body.Close() }() // read to its end, or given up with the connection
	if res.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
		if err != nil {
			return 0, &ConnectError{Target: s.target, Err: err}
		}
		return 0, parseError(res.StatusCode, res.Header, body)
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, sum), res.Body)
	if err != nil {
		return n, fmt.Errorf("download %s of %s: %w", name, deviceID, err)
	}
	return n, compareSum(sum, res.Header.Get("X-Muster-Sha256"))
}

func compareSum(sum hash.Hash, want string) error {
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("the content has the SHA-256 %s, the hub says %s; download it again, and if it repeats, run `muster verify` on the stopped hub", got, want)
	}
	return nil
}

// ReceiveFileNotifications hands out at most 64 notifications for 60 s; token
// is empty when there are none.
func (s *Service) ReceiveFileNotifications(ctx context.Context) (list []FileNotification, token string, err error) {
	var out struct {
		LockToken string             `json:"lockToken"`
		Items     []FileNotification `json:"items"`
	}
	err = s.Do(ctx, Request{Method: http.MethodPost, Path: "/api/v1/file-notifications/receive"}, &out)
	return out.Items, out.LockToken, err
}

// CompleteFileNotifications removes notifications that were received.
func (s *Service) CompleteFileNotifications(ctx context.Context, token string) error {
	return s.Do(ctx, Request{Method: http.MethodDelete, Path: "/api/v1/file-notifications/" + url.PathEscape(token)}, nil)
}
