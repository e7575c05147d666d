package service

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/wire"
)

// Containers are served with Azure Storage's blob API, as far as clients need
// it to put, get, list and delete block blobs: below containersPath, with a token
// in the query. They are no rows of the route table: neither their errors nor
// their authorization are those of the hub's API.
const containersPath = "/containers/"

// The pace that content must keep on average, and what a request has beside it.
const (
	blobPace     = 4 << 10 // bytes a second
	blobExtra    = 30 * time.Second
	blobListMost = 1 << 20 // bytes of a list of blocks
	blobVersion  = "2019-12-12"
)

// blobFault is a refusal in the storage protocol.
type blobFault struct {
	status int
	code   string
	text   string
}

func (e *blobFault) Error() string { return e.text }

func blobFaultf(status int, code, format string, args ...any) error {
	return &blobFault{status, code, fmt.Sprintf(format, args...)}
}

// blobFaultOf translates an error of the engine. What may pass by itself is 500
// or 503: clients of Azure Storage try again for no other status.
func blobFaultOf(err error) *blobFault {
	if f, ok := errors.AsType[*blobFault](err); ok {
		return f
	}
	e := engine.AsError(err)
	f := &blobFault{http.StatusInternalServerError, "InternalError", e.Message}
	for _, row := range []struct {
		code   engine.Code
		status int
		name   string
	}{
		{engine.CodeArgumentInvalid, http.StatusBadRequest, "InvalidInput"},
		{engine.CodeArgumentNull, http.StatusBadRequest, "InvalidInput"},
		{engine.CodeUnauthorized, http.StatusForbidden, "AuthenticationFailed"},
		{engine.CodeBlobContainerNotFound, http.StatusNotFound, "ContainerNotFound"},
		{engine.CodeBlobContainerExists, http.StatusConflict, "ContainerAlreadyExists"},
		{engine.CodeBlobNotFound, http.StatusNotFound, "BlobNotFound"},
		{engine.CodeTooLarge, http.StatusRequestEntityTooLarge, "RequestBodyTooLarge"},
		{engine.CodeTooManyBlocks, http.StatusConflict, "BlockCountExceedsLimit"},
		{engine.CodeBlockUnknown, http.StatusBadRequest, "InvalidBlockList"},
		{engine.CodeChecksum, http.StatusBadRequest, "Md5Mismatch"},
		{engine.CodePreconditionFailed, http.StatusPreconditionFailed, "ConditionNotMet"},
		{engine.CodeQuotaExceeded, http.StatusConflict, "AccountLimitExceeded"},
		{engine.CodeThrottled, http.StatusServiceUnavailable, "ServerBusy"},
		{engine.CodeUnavailable, http.StatusServiceUnavailable, "ServerBusy"},
		{engine.CodeReadOnly, http.StatusServiceUnavailable, "ServerBusy"},
		{engine.CodeClosed, http.StatusServiceUnavailable, "ServerBusy"},
	} {
		if row.code == e.Code {
			f.status, f.code = row.status, row.name
		}
	}
	return f
}

// blobCall is one request of the storage protocol.
type blobCall struct {
	*Handler
	w     *recorder
	r     *http.Request
	query url.Values
	grant engine.ContainerGrant
	blob  string // empty: the container itself
}

// serveBlob answers a request below containersPath and returns its label for
// metrics.
func (h *Handler) serveBlob(w *recorder, r *http.Request) (label string) {
	now := time.Now().UTC()
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	head := w.Header()
	head.Set("x-ms-request-id", hex.EncodeToString(id[:]))
	head.Set("x-ms-version", blobVersion)
	head.Set("Date", now.Format(http.TimeFormat))
	head.Set("Cache-Control", "no-store")
	head.Set("X-Content-Type-Options", "nosniff")
	if c := r.Header.Get("x-ms-client-request-id"); len(c) <= maxRequestID && plainID(c) && c != "" {
		head.Set("x-ms-client-request-id", c)
	}
	b := &blobCall{Handler: h, w: w, r: r}
	label, err := b.serve()
	if err == nil || w.status != 0 {
		return label
	}
	f := blobFaultOf(err)
	var body bytes.Buffer
	body.WriteString(`<?xml version="1.0" encoding="utf-8"?><Error><Code>` + f.code + `</Code><Message>`)
	_ = xml.EscapeText(&body, []byte(f.text)) // a buffer takes everything
	fmt.Fprintf(&body, "\nRequestId:%x\nTime:%s</Message></Error>", id, now.Format(timeLayout))
	head.Set("x-ms-error-code", f.code)
	head.Set("Content-Type", "application/xml")
	if f.status == http.StatusServiceUnavailable {
		head.Set("Retry-After", "10")
	}
	w.WriteHeader(f.status)
	_, _ = body.WriteTo(w) // a client that is gone needs no answer
	return label
}

// serve authorizes and runs a request.
func (b *blobCall) serve() (label string, err error) {
	label = "blob-other" // methods are the client's to choose
	if b.query, err = url.ParseQuery(b.r.URL.RawQuery); err != nil {
		return label, blobFaultf(http.StatusBadRequest, "InvalidQueryParameterValue", "the query string cannot be read")
	}
	name, rest, _ := strings.Cut(strings.TrimPrefix(b.r.URL.EscapedPath(), containersPath), "/")
	container, err1 := url.PathUnescape(name)
	blob, err2 := url.PathUnescape(rest)
	if err := errors.Join(err1, err2); err != nil {
		return label, blobFaultf(http.StatusBadRequest, "InvalidUri", "the path cannot be read")
	}
	t, err := auth.ParseContainerToken(b.query)
	if err != nil {
		return label, blobFaultf(http.StatusForbidden, "AuthenticationFailed", "%s", err)
	}
	if b.grant, err = b.hub.AuthorizeContainer(b.r.Context(), container, t); err != nil {
		return label, err
	}
	b.blob = blob
	comp := strings.ToLower(b.query.Get("comp"))
	if blob == "" {
		return b.serveContainer(comp)
	}
	switch what := b.r.Method + " " + comp; what {
	case "GET ", "HEAD ":
		return "blob-get", b.get()
	case "DELETE ":
		if err := b.hub.DeleteBlob(b.r.Context(), b.grant, blob); err != nil {
			return "blob-delete", err
		}
		b.w.WriteHeader(http.StatusAccepted)
		return "blob-delete", nil
	case "PUT ":
		return "blob-put", b.put()
	case "PUT block":
		return "blob-block", b.block()
	case "PUT blocklist":
		return "blob-join", b.join()
	default:
		return label, blobFaultf(http.StatusBadRequest, "UnsupportedHttpVerb", "%.40q is not served for a blob; expected GET, HEAD, DELETE, PUT, or PUT with comp=block or comp=blocklist", what)
	}
}

// serveContainer answers what is about the container itself.
func (b *blobCall) serveContainer(comp string) (label string, err error) {
	if b.query.Get("restype") != "container" {
		return "container-other", blobFaultf(http.StatusBadRequest, "InvalidUri", "the path names no blob; expected one, or restype=container")
	}
	switch b.r.Method + " " + comp {
	case "GET ", "HEAD ":
		b.w.Header().Set("x-ms-lease-state", "available")
		b.w.WriteHeader(http.StatusOK)
		return "container-get", nil
	case "GET list":
		return "container-list", b.list()
	case "PUT ":
		return "container-other", blobFaultf(http.StatusConflict, "ContainerAlreadyExists", "the container exists: its token says so")
	default:
		return "container-other", blobFaultf(http.StatusForbidden, "AuthorizationPermissionMismatch", "the token opens a container, and does nothing else to it; `muster container` does")
	}
}

// body bounds what is received: its length must be said before, it must come
// at some pace, and its token must live.
func (b *blobCall) body() (engine.UploadBody, error) {
	u := engine.UploadBody{Reader: b.r.Body, Size: b.r.ContentLength}
	if u.Size < 0 {
		return u, blobFaultf(http.StatusLengthRequired, "MissingContentLengthHeader", "the request has no Content-Length; expected the number of bytes that follow")
	}
	if text := b.r.Header.Get("Content-MD5"); text != "" {
		sum, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(sum) != 16 {
			return u, blobFaultf(http.StatusBadRequest, "InvalidMd5", "Content-MD5 is not base64 of 16 bytes")
		}
		u.MD5 = sum
	}
	if b.r.Header.Get("x-ms-copy-source") != "" {
		return u, blobFaultf(http.StatusBadRequest, "InvalidHeaderValue", "the hub copies from nowhere; send the content itself")
	}
	until := time.Now().Add(blobExtra + time.Duration(u.Size/blobPace)*time.Second)
	if until.After(b.grant.Expires) {
		until = b.grant.Expires
	}
	control := http.NewResponseController(b.w)
	_ = control.SetReadDeadline(until) // not supported by test recorders
	_ = control.SetWriteDeadline(until.Add(answerTime))
	return u, nil
}

// condition reads If-Match and If-None-Match: *.
func (b *blobCall) condition() (engine.BlobCondition, error) {
	var c engine.BlobCondition
	if m := engine.ParseIfMatch(b.r.Header.Get("If-Match")); m.Present && !m.Any {
		c.ETag = m.ETag
	}
	switch none := b.r.Header.Get("If-None-Match"); none {
	case "":
	case "*":
		c.Absent = true
	default:
		return c, blobFaultf(http.StatusBadRequest, "InvalidHeaderValue", "If-None-Match is %.80q; expected *", none)
	}
	return c, nil
}

func (b *blobCall) put() error {
	if kind := b.r.Header.Get("x-ms-blob-type"); kind != "BlockBlob" {
		return blobFaultf(http.StatusBadRequest, "InvalidHeaderValue", "x-ms-blob-type is %.40q; expected BlockBlob", kind)
	}
	u, err := b.body()
	if err != nil {
		return err
	}
	if u.Type, u.Encoding = b.r.Header.Get("x-ms-blob-content-type"), b.r.Header.Get("x-ms-blob-content-encoding"); u.Type == "" {
		u.Type = b.r.Header.Get("Content-Type")
	}
	c, err := b.condition()
	if err != nil {
		return err
	}
	made, err := b.hub.PutBlob(b.r.Context(), b.grant, b.blob, u, c)
	if err != nil {
		return b.existing(c, err)
	}
	b.created(&made)
	return nil
}

// existing tells that a blob is there in the way that clients look for.
func (b *blobCall) existing(c engine.BlobCondition, err error) error {
	if c.Absent && engine.AsError(err).Code == engine.CodePreconditionFailed {
		return blobFaultf(http.StatusConflict, "BlobAlreadyExists", "%s", engine.AsError(err).Message)
	}
	return err
}

func (b *blobCall) block() error {
	id, ok := wire.BlockID(b.query.Get("blockid"))
	if !ok {
		return blobFaultf(http.StatusBadRequest, "InvalidQueryParameterValue", "the block's id is not base64 of 1 to 64 bytes")
	}
	u, err := b.body()
	if err != nil {
		return err
	}
	if err := b.hub.StageBlobBlock(b.r.Context(), b.grant, b.blob, id, u); err != nil {
		return err
	}
	b.created(nil)
	return nil
}

func (b *blobCall) join() error {
	data, err := io.ReadAll(http.MaxBytesReader(b.w, b.r.Body, blobListMost))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return blobFaultf(http.StatusRequestEntityTooLarge, "RequestBodyTooLarge", "the list of blocks has more than %d bytes", blobListMost)
	}
	if err != nil {
		return blobFaultf(http.StatusBadRequest, "InvalidXmlDocument", "the list of blocks ended before it was complete")
	}
	ids, err := wire.BlockList(data, b.hub.Limits().ContainerBlocks)
	switch {
	case errors.Is(err, wire.ErrBlockID):
		return blobFaultf(http.StatusBadRequest, "InvalidBlockId", "%s", err)
	case errors.Is(err, wire.ErrBlocks):
		return blobFaultf(http.StatusConflict, "BlockCountExceedsLimit", "%s", err)
	case err != nil:
		return blobFaultf(http.StatusBadRequest, "InvalidXmlDocument", "%s", err)
	}
	c, err := b.condition()
	if err != nil {
		return err
	}
	// Joining the blocks takes as long as the disk needs.
	_ = http.NewResponseController(b.w).SetWriteDeadline(b.grant.Expires.Add(answerTime)) // not supported by test recorders
	made, err := b.hub.CommitBlobBlocks(b.r.Context(), b.grant, b.blob, ids, b.r.Header.Get("x-ms-blob-content-type"), b.r.Header.Get("x-ms-blob-content-encoding"), c)
	if err != nil {
		return b.existing(c, err)
	}
	b.created(&made)
	return nil
}

// created answers that content is stored.
func (b *blobCall) created(made *engine.ContainerBlob) {
	head := b.w.Header()
	if md5 := b.r.Header.Get("Content-MD5"); md5 != "" {
		head.Set("Content-MD5", md5)
	}
	head.Set("x-ms-request-server-encrypted", "false")
	if made != nil {
		head.Set("ETag", `"`+made.ETag+`"`)
		head.Set("Last-Modified", made.Updated.Format(http.TimeFormat))
	}
	head.Set("Content-Length", "0")
	b.w.WriteHeader(http.StatusCreated)
}

// get sends a blob, or the part that Range or x-ms-range asks for. As an
// uploaded file it never runs as a page of the hub.
func (b *blobCall) get() error {
	blob, content, err := b.hub.OpenBlob(b.r.Context(), b.grant, b.blob)
	if err != nil {
		return err
	}
	defer content.Close()
	head := b.w.Header()
	head.Set("Content-Type", "application/octet-stream")
	if _, _, err := mime.ParseMediaType(blob.ContentType); err == nil {
		head.Set("Content-Type", blob.ContentType)
	}
	head.Set("Content-Disposition", "attachment")
	head.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	head.Set("ETag", `"`+blob.ETag+`"`)
	head.Set("x-ms-blob-type", "BlockBlob")
	head.Set("x-ms-lease-state", "available")
	head.Set("x-ms-creation-time", blob.Created.Format(http.TimeFormat))
	head.Set("X-Muster-Sha256", blob.Digest)
	r := b.r
	if part := r.Header.Get("x-ms-range"); part != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Range", part)
	}
	http.ServeContent(&download{b.w}, r, "", blob.Updated, content)
	return nil
}

// blobList is Azure Storage's list of blobs.
type blobList struct {
	XMLName    xml.Name    `xml:"EnumerationResults"`
	Endpoint   string      `xml:"ServiceEndpoint,attr"`
	Container  string      `xml:"ContainerName,attr"`
	Prefix     string      `xml:"Prefix"`
	Marker     string      `xml:"Marker"`
	Blobs      []blobEntry `xml:"Blobs>Blob"`
	NextMarker string      `xml:"NextMarker"`
}

type blobEntry struct {
	Name     string `xml:"Name"`
	Created  string `xml:"Properties>Creation-Time"`
	Modified string `xml:"Properties>Last-Modified"`
	ETag     string `xml:"Properties>Etag"`
	Length   int64  `xml:"Properties>Content-Length"`
	Type     string `xml:"Properties>Content-Type"`
	BlobType string `xml:"Properties>BlobType"`
}

func (b *blobCall) list() error {
	if b.query.Get("delimiter") != "" {
		return blobFaultf(http.StatusBadRequest, "InvalidQueryParameterValue", "blobs are listed without a delimiter")
	}
	most := pageMost
	if text := b.query.Get("maxresults"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return blobFaultf(http.StatusBadRequest, "OutOfRangeQueryParameterValue", "maxresults is no number from 1 on")
		}
		most = min(n, most)
	}
	marker, err := base64.RawURLEncoding.DecodeString(b.query.Get("marker"))
	if err != nil {
		return blobFaultf(http.StatusBadRequest, "InvalidQueryParameterValue", "marker is not one that this list gave")
	}
	prefix := b.query.Get("prefix")
	blobs, next, err := b.hub.Blobs(b.r.Context(), b.grant, prefix, string(marker), most)
	if err != nil {
		return err
	}
	list := blobList{
		Endpoint: "https://" + b.r.Host + "/containers/", Container: b.grant.Name, Prefix: prefix, Marker: b.query.Get("marker"),
		Blobs: []blobEntry{}, NextMarker: base64.RawURLEncoding.EncodeToString([]byte(next)),
	}
	for _, e := range blobs {
		list.Blobs = append(list.Blobs, blobEntry{e.Name, e.Created.Format(http.TimeFormat), e.Updated.Format(http.TimeFormat), e.ETag, e.Size, e.ContentType, "BlockBlob"})
	}
	text, err := xml.Marshal(list)
	if err != nil {
		return err
	}
	b.w.Header().Set("Content-Type", "application/xml")
	b.w.WriteHeader(http.StatusOK)
	_, _ = b.w.Write(append([]byte(xml.Header), text...)) // a client that is gone needs no answer
	return nil
}
