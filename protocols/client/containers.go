package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Container holds blobs for imports and exports.
type Container struct {
	Name        string    `json:"name"`
	Blobs       int       `json:"blobs"`
	Bytes       int64     `json:"bytes"`
	Principal   string    `json:"principal"`
	CreatedTime time.Time `json:"createdTime"`
	UpdatedTime time.Time `json:"updatedTime"`
}

// ContainerAccess opens a container to whoever has it.
type ContainerAccess struct {
	Container   string    `json:"container"`
	URI         string    `json:"uri"`
	ExpiresTime time.Time `json:"expiresTime"`
}

// Blob is a blob of a container.
type Blob struct {
	Name        string    `json:"name"`
	Size        int64     `json:"size"`
	SHA256      string    `json:"sha256"`
	ContentType string    `json:"contentType,omitempty"`
	ETag        string    `json:"etag"`
	CreatedTime time.Time `json:"createdTime"`
	UpdatedTime time.Time `json:"updatedTime"`
}

const containersPath = "/api/v1/containers"

func containerPath(name string) string { return containersPath + "/" + url.PathEscape(name) }

// CreateContainer makes a container; the hub makes an empty name up. key is an
// Idempotency-Key, or empty.
func (s *Service) CreateContainer(ctx context.Context, name, key string) (Container, error) {
	var c Container
	err := s.Do(ctx, Request{Method: http.MethodPost, Path: containersPath, Key: key, Body: map[string]string{"name": name}}, &c)
	return c, err
}

// Containers walks the containers by name.
func (s *Service) Containers(ctx context.Context) iter.Seq2[Container, error] {
	return pages[Container](ctx, s, containersPath, nil, pageSize)
}

// Container reads what a container holds.
func (s *Service) Container(ctx context.Context, name string) (Container, error) {
	var c Container
	err := s.Do(ctx, Request{Method: http.MethodGet, Path: containerPath(name)}, &c)
	return c, err
}

// DeleteContainer deletes a container with its blobs.
func (s *Service) DeleteContainer(ctx context.Context, name string) error {
	return s.Do(ctx, Request{Method: http.MethodDelete, Path: containerPath(name)}, nil)
}

// ContainerAccess asks for an address of a container that is good for so long;
// 0 is the hub's usual time.
func (s *Service) ContainerAccess(ctx context.Context, name string, life time.Duration) (ContainerAccess, error) {
	body := map[string]string{}
	if life > 0 {
		body["expiresIn"] = life.String()
	}
	var a ContainerAccess
	err := s.Do(ctx, Request{Method: http.MethodPost, Path: containerPath(name) + "/access", Body: body}, &a)
	return a, err
}

// Blobs walks a container's blobs by name.
func (s *Service) Blobs(ctx context.Context, container string) iter.Seq2[Blob, error] {
	return pages[Blob](ctx, s, containerPath(container)+"/blobs", nil, pageSize)
}

// blobRequest is a request of the storage protocol, by the way of the other
// calls, whatever host the address has.
func (s *Service) blobRequest(ctx context.Context, a ContainerAccess, method, name, more string, body []byte) (*http.Response, error) {
	_, token, _ := strings.Cut(a.URI, "?")
	target := s.base + "/containers/" + url.PathEscape(a.Container) + "/" + url.PathEscape(name) + "?" + token + more
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make the request for the blob %s: %w", name, err)
	}
	req.Header.Set("User-Agent", s.userAgent)
	req.Header.Set("Accept-Encoding", "identity") // the bytes as they are stored
	res, err := s.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // its text has the token
		}
		return nil, &ConnectError{Target: s.target, Err: err}
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		defer func() { _ = res.Body.Close() }() // given up with the connection
		return nil, blobError(res)
	}
	return res, nil
}

// blobError reads an error of the storage protocol.
func blobError(res *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	var e struct {
		Code    string `xml:"Code"`
		Message string `xml:"Message"`
	}
	if err != nil || xml.Unmarshal(text, &e) != nil {
		e.Code, e.Message = res.Header.Get("x-ms-error-code"), res.Status
	}
	message, _, _ := strings.Cut(e.Message, "\n") // then come request id and time
	return &Error{Status: res.StatusCode, Code: e.Code, Message: message, RequestID: res.Header.Get("x-ms-request-id")}
}

// blobBlock is what is sent of a blob at once, and kept in memory.
const blobBlock = 4 << 20

// PutBlob sends what r has as a blob, in blocks: its size need not be known. sent
// is told how many bytes are stored so far; nil tells nobody.
func (s *Service) PutBlob(ctx context.Context, a ContainerAccess, name string, r io.Reader, sent func(int64)) (int64, error) {
	buffer := make([]byte, blobBlock)
	var list bytes.Buffer
	list.WriteString("<BlockList>")
	var total int64
	for n := 0; ; n++ {
		size, err := io.ReadFull(r, buffer)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return total, err
		}
		if size > 0 {
			id := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%08d", n))
			if err := s.putBlock(ctx, a, name, "&comp=block&blockid="+url.QueryEscape(id), buffer[:size]); err != nil {
				return total, err
			}
			list.WriteString("<Latest>" + id + "</Latest>")
			if total += int64(size); sent != nil {
				sent(total)
			}
		}
		if err != nil {
			break
		}
	}
	list.WriteString("</BlockList>")
	return total, s.putBlock(ctx, a, name, "&comp=blocklist", list.Bytes())
}

// putBlock sends one request of an upload, again when the hub was busy.
func (s *Service) putBlock(ctx context.Context, a ContainerAccess, name, more string, body []byte) error {
	for pause := 200 * time.Millisecond; ; pause *= 2 {
		res, err := s.blobRequest(ctx, a, http.MethodPut, name, more, body)
		if err == nil {
			return res.Body.Close()
		}
		if e, ok := errors.AsType[*Error](err); !ok || e.Status < 500 || pause > 5*time.Second {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// GetBlob writes a blob's content to w and compares its SHA-256 with what the
// hub says. It returns how many bytes there were.
func (s *Service) GetBlob(ctx context.Context, a ContainerAccess, name string, w io.Writer) (int64, error) {
	res, err := s.blobRequest(ctx, a, http.MethodGet, name, "", nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }() // read to its end, or given up with the connection
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, sum), res.Body)
	if err != nil {
		return n, fmt.Errorf("get the blob %s: %w", name, err)
	}
	return n, compareSum(sum, res.Header.Get("X-Muster-Sha256"))
}

// DeleteBlob deletes a blob.
func (s *Service) DeleteBlob(ctx context.Context, a ContainerAccess, name string) error {
	res, err := s.blobRequest(ctx, a, http.MethodDelete, name, "", nil)
	if err != nil {
		return err
	}
	return res.Body.Close()
}
