package service

import (
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

const tagFiles = "Uploaded files"

type fileDocument struct {
	DeviceID        string    `json:"deviceId"`
	Name            string    `json:"name" doc:"Parts separated by slashes; in a path it is one segment, with its slashes as %2F."`
	Size            int64     `json:"size" doc:"Bytes."`
	SHA256          string    `json:"sha256" doc:"Hexadecimal."`
	ContentType     string    `json:"contentType,omitempty" doc:"As the device said."`
	ContentEncoding string    `json:"contentEncoding,omitempty" doc:"As the device said."`
	CorrelationID   string    `json:"correlationId" doc:"Of the newest upload."`
	CreatedTime     time.Time `json:"createdTime"`
	UpdatedTime     time.Time `json:"updatedTime"`
	ETag            string    `json:"etag"`
}

// fileNotice is a file notification with IoT Hub's members, and sha256.
type fileNotice struct {
	DeviceID        string    `json:"deviceId"`
	BlobURI         string    `json:"blobUri" doc:"Where an application downloads the file; it needs its own authorization."`
	BlobName        string    `json:"blobName" doc:"DEVICE/NAME."`
	LastUpdatedTime time.Time `json:"lastUpdatedTime"`
	BlobSizeInBytes int64     `json:"blobSizeInBytes"`
	EnqueuedTimeUTC time.Time `json:"enqueuedTimeUtc"`
	SHA256          string    `json:"sha256"`
}

type fileNotices struct {
	LockToken string       `json:"lockToken" doc:"Empty when there is no notification."`
	Items     []fileNotice `json:"items"`
}

// rawContent marks an answer that is no JSON, for the OpenAPI document.
type rawContent []byte

func fileRoutes() []*route {
	const connect = auth.ServiceConnect
	one := "/api/v1/devices/{id}/files/{name}"
	table := []*route{
		{method: http.MethodGet, pattern: "/api/v1/devices/{id}/files", operation: "listFiles", tag: tagFiles, permission: connect,
			summary: "Lists the files that a device has uploaded, in the order of their names.", response: page[fileDocument]{}, handle: listFiles,
			query: []parameter{
				{name: "limit", kind: "integer", text: "At most so many items, 1 to 1000; 100 when absent."}, {name: "cursor", kind: "string", text: "The cursor of the page before."},
				{name: "prefix", kind: "string", text: "Only names that begin so."},
			}},
		{method: http.MethodGet, pattern: one, operation: "getFile", tag: tagFiles, permission: connect,
			summary: "Says what is known of a file.", response: fileDocument{}, handle: getFile},
		{method: http.MethodDelete, pattern: one, operation: "deleteFile", tag: tagFiles, permission: connect,
			summary: "Deletes a file.", status: http.StatusNoContent, handle: deleteFile},
		{method: http.MethodGet, pattern: one + "/content", operation: "downloadFile", tag: tagFiles, permission: connect,
			summary: "Downloads a file, or with Range a part of it.", response: rawContent{}, handle: downloadFile,
			also: map[int]string{http.StatusPartialContent: "The part that Range asks for.", http.StatusNotModified: "If-None-Match names the file's ETag.", http.StatusRequestedRangeNotSatisfiable: "The file has no such part."}},
		{method: http.MethodPost, pattern: "/api/v1/file-notifications/receive", operation: "receiveFileNotifications", tag: tagFiles, permission: connect, idempotent: true,
			summary: "Hands out at most 64 notifications of uploaded files for 60 s.", response: fileNotices{}, handle: receiveFileNotices},
		{method: http.MethodDelete, pattern: "/api/v1/file-notifications/{token}", operation: "completeFileNotifications", tag: tagFiles, permission: connect,
			summary: "Removes notifications that were received.", status: http.StatusNoContent, handle: completeFileNotices},
		{method: http.MethodPost, pattern: "/api/v1/file-notifications/{token}/abandon", operation: "abandonFileNotifications", tag: tagFiles, permission: connect, idempotent: true,
			summary: "Lets notifications be received again.", status: http.StatusNoContent, handle: abandonFileNotices},
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	const hub = "/messages/serviceBound/filenotifications"
	return append(table,
		&route{method: http.MethodGet, pattern: hub, operation: "receiveFileNotification", tag: tagFiles, permission: connect,
			summary: "Hands out one notification of an uploaded file for 60 s; the ETag is its lock token. 204 when there is none.", response: fileNotice{}, handle: receiveFileNotice},
		&route{method: http.MethodDelete, pattern: hub + "/{token}", operation: "completeFileNotification", tag: tagFiles, permission: connect,
			summary: "Removes a notification of a file.", status: http.StatusNoContent, handle: completeFileNotices},
		&route{method: http.MethodPost, pattern: hub + "/{token}/abandon", operation: "abandonFileNotification", tag: tagFiles, permission: connect,
			summary: "Lets a notification of a file be received again.", status: http.StatusNoContent, handle: abandonFileNotices})
}

func showFile(f engine.File) fileDocument {
	return fileDocument{f.DeviceID, f.Name, f.Size, f.Digest, f.ContentType, f.Encoding, f.CorrelationID, f.Created.UTC(), f.Updated.UTC(), fileETag(f)}
}

// fileETag changes with the content and with each upload.
func fileETag(f engine.File) string { return f.CorrelationID + "-" + f.Digest[:16] }

func listFiles(c *call) (answer, error) {
	prefix := c.query.Get("prefix")
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	list := "files of " + c.params[0]
	after, err := parseCursor(c.query.Get("cursor"), list, prefix)
	if err != nil {
		return answer{}, err
	}
	files, next, err := c.hub.Files(c.r.Context(), c.caller, c.params[0], prefix, after, limit)
	return answer{body: page[fileDocument]{show(files, showFile), makeCursor(list, prefix, next)}}, err
}

func getFile(c *call) (answer, error) {
	f, err := c.hub.File(c.r.Context(), c.caller, c.params[0], c.params[1])
	if err != nil {
		return answer{}, err
	}
	return answer{body: showFile(f), etag: fileETag(f)}, nil
}

func deleteFile(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.DeleteFile(c.r.Context(), c.caller, c.params[0], c.params[1])
}

// downloadFile sends a file's content. What a device uploads is never to run
// as a page of the hub: it is an attachment, in a sandbox, of the type said.
func downloadFile(c *call) (answer, error) {
	f, content, err := c.hub.OpenFile(c.r.Context(), c.caller, c.params[0], c.params[1])
	if err != nil {
		return answer{}, err
	}
	defer content.Close()
	head := c.w.Header()
	head.Set("Content-Type", "application/octet-stream")
	if _, _, err := mime.ParseMediaType(f.ContentType); err == nil {
		head.Set("Content-Type", f.ContentType)
	}
	head.Set("Content-Disposition", "attachment; filename*=UTF-8''"+url.PathEscape(path.Base(f.Name)))
	head.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	head.Set("ETag", `"`+fileETag(f)+`"`)
	head.Set("X-Muster-Sha256", f.Digest)
	http.ServeContent(&download{c.w}, c.r, "", f.Updated, content)
	return answer{sent: true}, nil
}

// download gives the client time for each part of an answer, not for all of it.
type download struct{ http.ResponseWriter }

// Write sends a part.
func (d *download) Write(b []byte) (int, error) {
	_ = http.NewResponseController(d.ResponseWriter).SetWriteDeadline(time.Now().Add(answerTime)) // not supported by test recorders
	return d.ResponseWriter.Write(b)
}

// ReadFrom copies in parts, each with its own time.
func (d *download) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{d}, r)
}

// showNotice says where the file is from where the application asks.
func (c *call) showNotice(n engine.FileNotification) fileNotice {
	scheme := "https"
	if c.r.TLS == nil {
		scheme = "http"
	}
	return fileNotice{
		DeviceID: n.DeviceID, BlobName: n.DeviceID + "/" + n.Name, BlobSizeInBytes: n.Size, SHA256: n.Digest,
		BlobURI:         scheme + "://" + c.r.Host + "/api/v1/devices/" + url.PathEscape(n.DeviceID) + "/files/" + url.PathEscape(n.Name) + "/content",
		LastUpdatedTime: n.Updated.UTC(), EnqueuedTimeUTC: ticks(n.Time),
	}
}

func receiveFileNotices(c *call) (answer, error) {
	list, token, err := c.hub.ReceiveFileNotifications(c.r.Context(), c.caller, 64)
	return answer{body: fileNotices{token, show(list, c.showNotice)}}, err
}

func receiveFileNotice(c *call) (answer, error) {
	list, token, err := c.hub.ReceiveFileNotifications(c.r.Context(), c.caller, 1)
	if err != nil {
		return answer{}, err
	}
	if len(list) == 0 {
		return answer{status: http.StatusNoContent}, nil
	}
	return answer{body: c.showNotice(list[0]), etag: token}, nil
}

func completeFileNotices(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.CompleteFileNotifications(c.r.Context(), c.caller, c.params[0])
}

func abandonFileNotices(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.AbandonFileNotifications(c.r.Context(), c.caller, c.params[0])
}
