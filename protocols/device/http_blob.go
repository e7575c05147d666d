package device

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/wire"
)

// The pace that content must keep on average, and what a request has beside it.
const (
	blobPace  = 4 << 10 // bytes a second
	blobExtra = 30 * time.Second
	listMost  = 256 << 10 // bytes of a list of blocks
)

// blobCode is how one engine.Code looks to a client of Azure Storage.
type blobCode struct {
	status int
	code   string
}

// blobCodes has a row for every engine.Code; a test keeps it complete. What
// may pass by itself is 500 or 503: clients of Azure Storage try again for no
// other status.
func blobCodes() map[engine.Code]blobCode {
	table := map[engine.Code]blobCode{}
	for _, info := range engine.Codes() {
		table[info.Code] = blobCode{http.StatusInternalServerError, "InternalError"}
	}
	maps.Copy(table, map[engine.Code]blobCode{
		engine.CodeArgumentInvalid:    {http.StatusBadRequest, "InvalidInput"},
		engine.CodeArgumentNull:       {http.StatusBadRequest, "MissingRequiredHeader"},
		engine.CodeFormat:             {http.StatusBadRequest, "InvalidXmlDocument"},
		engine.CodeUnauthorized:       {http.StatusForbidden, "AuthenticationFailed"},
		engine.CodeForbidden:          {http.StatusForbidden, "AuthorizationPermissionMismatch"},
		engine.CodeDeviceNotFound:     {http.StatusForbidden, "AuthenticationFailed"},
		engine.CodeUploadNotFound:     {http.StatusNotFound, "BlobNotFound"},
		engine.CodeUploadExpired:      {http.StatusForbidden, "AuthenticationFailed"},
		engine.CodeTooLarge:           {http.StatusRequestEntityTooLarge, "RequestBodyTooLarge"},
		engine.CodeTooManyBlocks:      {http.StatusConflict, "BlockCountExceedsLimit"},
		engine.CodeBlockUnknown:       {http.StatusBadRequest, "InvalidBlockList"},
		engine.CodeChecksum:           {http.StatusBadRequest, "Md5Mismatch"},
		engine.CodeQuotaExceeded:      {http.StatusServiceUnavailable, "ServerBusy"},
		engine.CodeThrottled:          {http.StatusServiceUnavailable, "ServerBusy"},
		engine.CodeUnavailable:        {http.StatusServiceUnavailable, "ServerBusy"},
		engine.CodeReadOnly:           {http.StatusServiceUnavailable, "ServerBusy"},
		engine.CodeClosed:             {http.StatusServiceUnavailable, "ServerBusy"},
		engine.CodeGatewayTimeout:     {http.StatusInternalServerError, "OperationTimedOut"},
		engine.CodePreconditionFailed: {http.StatusPreconditionFailed, "ConditionNotMet"},
	})
	return table
}

// blobError is a refusal that is the storage protocol's own.
type blobError struct {
	blobCode
	text string
}

func (e *blobError) Error() string { return e.text }

func blobErrorf(status int, code, format string, args ...any) error {
	return &blobError{blobCode{status, code}, fmt.Sprintf(format, args...)}
}

// serveBlob answers a request of Azure Storage's blob API, as far as uploads
// need it.
func (h *HTTPHandler) serveBlob(w http.ResponseWriter, r *http.Request) (operation string) {
	now := time.Now().UTC()
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	head := w.Header()
	head.Set("x-ms-request-id", hex.EncodeToString(id[:]))
	head.Set("x-ms-version", "2019-12-12")
	head.Set("Date", now.Format(http.TimeFormat))
	if c := r.Header.Get("x-ms-client-request-id"); c != "" && len(c) <= 128 && headerText(c) == c {
		head.Set("x-ms-client-request-id", c)
	}
	operation, err := h.putBlob(w, r)
	if err == nil {
		return operation
	}
	e, ok := errors.AsType[*blobError](err)
	if !ok {
		own := engine.AsError(err)
		e = &blobError{h.blobs[own.Code], own.Message}
		if e.status == 0 {
			e.blobCode = h.blobs[engine.CodeInternal]
		}
	}
	var body bytes.Buffer
	body.WriteString(`<?xml version="1.0" encoding="utf-8"?><Error><Code>` + e.code + `</Code><Message>`)
	_ = xml.EscapeText(&body, []byte(e.text)) // a buffer takes everything
	fmt.Fprintf(&body, "\nRequestId:%x\nTime:%s</Message></Error>", id, now.Format(timestampLayout))
	head.Set("x-ms-error-code", e.code)
	head.Set("Content-Type", "application/xml")
	head.Set("X-Content-Type-Options", "nosniff")
	if e.status == http.StatusServiceUnavailable {
		head.Set("Retry-After", "10")
	}
	w.WriteHeader(e.status)
	_, _ = body.WriteTo(w) // a client that is gone needs no answer
	return operation
}

// putBlob authorizes and runs one request.
func (h *HTTPHandler) putBlob(w http.ResponseWriter, r *http.Request) (operation string, err error) {
	operation = "other"
	query := r.URL.Query()
	g, err := h.authorizeBlob(r, query)
	if err != nil {
		return operation, err
	}
	if r.Method != http.MethodPut {
		return operation, blobErrorf(http.StatusForbidden, "AuthorizationPermissionMismatch", "the token lets its holder write, and do nothing else; expected PUT")
	}
	if e := r.Header.Get("x-ms-copy-source"); e != "" {
		return operation, blobErrorf(http.StatusBadRequest, "InvalidHeaderValue", "the hub copies from nowhere; send the content itself")
	}
	switch comp := query.Get("comp"); strings.ToLower(comp) {
	case "":
		return "put-blob", h.putWhole(w, r, g)
	case "block":
		return "put-block", h.putBlock(w, r, g, query.Get("blockid"))
	case "blocklist":
		return "put-blocks", h.putBlocks(w, r, g)
	default:
		return operation, blobErrorf(http.StatusBadRequest, "InvalidQueryParameterValue", "comp is %.40q; expected block, blocklist, or none", comp)
	}
}

func (h *HTTPHandler) authorizeBlob(r *http.Request, query map[string][]string) (engine.UploadGrant, error) {
	t, err := auth.ParseUploadToken(query)
	if err != nil {
		return engine.UploadGrant{}, blobErrorf(http.StatusForbidden, "AuthenticationFailed", "%s", err)
	}
	err = &engine.Error{Code: engine.CodeUnauthorized, Message: "the path cannot be read"}
	var g engine.UploadGrant
	for _, name := range blobNames(r.URL.EscapedPath()) {
		if g, err = h.hub.AuthorizeUpload(r.Context(), t, name); err == nil || engine.AsError(err).Code != engine.CodeUnauthorized {
			return g, err
		}
	}
	return g, err
}

// body bounds what is received: its length must be said before, it must come
// at some pace, and its token must live.
func (h *HTTPHandler) body(w http.ResponseWriter, r *http.Request, g engine.UploadGrant) (engine.UploadBody, error) {
	b := engine.UploadBody{Reader: r.Body, Size: r.ContentLength}
	if r.ContentLength < 0 {
		return b, blobErrorf(http.StatusLengthRequired, "MissingContentLengthHeader", "the request has no Content-Length; expected the number of bytes that follow")
	}
	if most := h.hub.Limits().FileBytes; b.Size > most {
		return b, &engine.Error{Code: engine.CodeTooLarge, Message: fmt.Sprintf("the content has %d bytes, at most %d are allowed", b.Size, most)}
	}
	if text := r.Header.Get("Content-MD5"); text != "" {
		sum, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(sum) != 16 {
			return b, blobErrorf(http.StatusBadRequest, "InvalidMd5", "Content-MD5 is not base64 of 16 bytes")
		}
		b.MD5 = sum
	}
	until := time.Now().Add(blobExtra + time.Duration(b.Size/blobPace)*time.Second)
	if until.After(g.Expires) {
		until = g.Expires
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(until) // not supported by test recorders
	_ = control.SetWriteDeadline(until.Add(httpTime))
	return b, nil
}

func (h *HTTPHandler) putWhole(w http.ResponseWriter, r *http.Request, g engine.UploadGrant) error {
	switch kind := r.Header.Get("x-ms-blob-type"); kind {
	case "":
		return blobErrorf(http.StatusBadRequest, "MissingRequiredHeader", "x-ms-blob-type is missing; expected BlockBlob")
	case "BlockBlob":
	default:
		return blobErrorf(http.StatusBadRequest, "InvalidHeaderValue", "x-ms-blob-type is %.40q; expected BlockBlob", kind)
	}
	b, err := h.body(w, r, g)
	if err != nil {
		return err
	}
	if b.Type, b.Encoding = r.Header.Get("x-ms-blob-content-type"), r.Header.Get("x-ms-blob-content-encoding"); b.Type == "" {
		b.Type = r.Header.Get("Content-Type")
	}
	stored, err := h.hub.PutUpload(r.Context(), g, b)
	if err != nil {
		return err
	}
	created(w, &stored, r.Header.Get("Content-MD5"))
	return nil
}

func (h *HTTPHandler) putBlock(w http.ResponseWriter, r *http.Request, g engine.UploadGrant, id string) error {
	if err := checkBlockID(id); err != nil {
		return err
	}
	b, err := h.body(w, r, g)
	if err != nil {
		return err
	}
	if err := h.hub.StageBlock(r.Context(), g, blockName(id), b); err != nil {
		return err
	}
	created(w, nil, r.Header.Get("Content-MD5"))
	return nil
}

// checkBlockID applies Azure Storage's rule: base64 of 1 to 64 bytes.
func checkBlockID(id string) error {
	if _, ok := wire.BlockID(id); !ok {
		return blobErrorf(http.StatusBadRequest, "InvalidQueryParameterValue", "the block's id is not base64 of 1 to 64 bytes")
	}
	return nil
}

// blockName is a block's id as bytes, so that all spellings of it are one.
func blockName(id string) string {
	name, _ := wire.BlockID(id) // was checked
	return name
}

func (h *HTTPHandler) putBlocks(w http.ResponseWriter, r *http.Request, g engine.UploadGrant) error {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, listMost))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &engine.Error{Code: engine.CodeTooLarge, Message: fmt.Sprintf("the list of blocks has more than %d bytes", listMost)}
	}
	if err != nil {
		return badRequest("the list of blocks ended before it was complete")
	}
	ids, err := parseBlockList(data, h.hub.Limits().UploadBlocks)
	if err != nil {
		return err
	}
	// Joining the blocks takes as long as the disk needs.
	_ = http.NewResponseController(w).SetWriteDeadline(g.Expires.Add(httpTime)) // not supported by test recorders
	stored, err := h.hub.CommitBlocks(r.Context(), g, ids, r.Header.Get("x-ms-blob-content-type"), r.Header.Get("x-ms-blob-content-encoding"))
	if err != nil {
		return err
	}
	created(w, &stored, "")
	return nil
}

// parseBlockList reads Azure Storage's list of blocks. It takes no more than
// most of them.
func parseBlockList(data []byte, most int) ([]string, error) {
	ids, err := wire.BlockList(data, most)
	switch {
	case errors.Is(err, wire.ErrBlockID):
		return nil, blobErrorf(http.StatusBadRequest, "InvalidBlockId", "%s", err)
	case errors.Is(err, wire.ErrBlocks):
		return nil, &engine.Error{Code: engine.CodeTooManyBlocks, Message: err.Error()}
	case err != nil:
		return nil, blobErrorf(http.StatusBadRequest, "InvalidXmlDocument", "%s", err)
	}
	return ids, nil
}

// created answers that content is stored.
func created(w http.ResponseWriter, s *engine.Stored, md5 string) {
	head := w.Header()
	if md5 != "" {
		head.Set("Content-MD5", md5)
	}
	head.Set("x-ms-request-server-encrypted", "false")
	if s != nil {
		head.Set("ETag", `"0x`+strings.ToUpper(s.Digest[:16])+`"`)
		head.Set("Last-Modified", s.Time.UTC().Format(http.TimeFormat))
	}
	head.Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
}
