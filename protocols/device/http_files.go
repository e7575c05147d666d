package device

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/muster-hub/muster/engine"
)

// Bounds of the bodies that begin and end an upload.
const (
	beginBodyMost = 8 << 10
	endBodyMost   = 64 << 10 // SDKs put the storage's answer into statusDescription
)

// uploadAnswer tells a device where to send its file, with IoT Hub's members.
type uploadAnswer struct {
	CorrelationID string `json:"correlationId"`
	HostName      string `json:"hostName"`
	ContainerName string `json:"containerName"`
	BlobName      string `json:"blobName"`
	SASToken      string `json:"sasToken"`
}

// serveFiles answers what is at or below a device's files.
func (h *HTTPHandler) serveFiles(w http.ResponseWriter, r *http.Request, g engine.Grant, rest []string) (operation string, err error) {
	operation = "other"
	switch {
	case len(rest) == 0 && r.Method == http.MethodPost:
		return "begin-upload", h.beginUpload(w, r, g)
	case len(rest) == 0, len(rest) <= 2 && strings.EqualFold(rest[0], "notifications") && r.Method != http.MethodPost:
		return operation, notAllowed(w, r, http.MethodPost)
	case len(rest) > 2 || !strings.EqualFold(rest[0], "notifications"):
		return operation, badRequest("below files there is only notifications, and below that a correlation id")
	}
	inPath := ""
	if len(rest) == 2 {
		inPath = rest[1]
	}
	return "end-upload", h.endUpload(w, r, g, inPath)
}

func (h *HTTPHandler) beginUpload(w http.ResponseWriter, r *http.Request, g engine.Grant) error {
	var body struct {
		BlobName string `json:"blobName"`
	}
	if err := readJSON(w, r, beginBodyMost, &body, `{"blobName":"NAME"}`); err != nil {
		return err
	}
	u, err := h.hub.BeginUpload(r.Context(), g, body.BlobName)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, _ = w.Write(uploadAnswer{
		CorrelationID: u.CorrelationID, HostName: r.Host, ContainerName: blobContainer, BlobName: blobPath(u.Blob), SASToken: u.Token,
	}.encode()) // a client that is gone begins again
	return nil
}

// encode leaves the token's ampersands as they are: small parsers on devices
// do not know JSON's other way to write them.
func (a uploadAnswer) encode() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(a) // texts always encode
	return bytes.TrimSpace(b.Bytes())
}

// blobPath escapes what would end a URL's path: SDKs put the name into a URL
// as it is. A name itself holds none of these, ids of devices may.
func blobPath(blob string) string {
	return strings.NewReplacer("%", "%25", "#", "%23", "?", "%3F").Replace(blob)
}

func (h *HTTPHandler) endUpload(w http.ResponseWriter, r *http.Request, g engine.Grant, inPath string) error {
	var body struct {
		CorrelationID     string          `json:"correlationId"`
		IsSuccess         *bool           `json:"isSuccess"`
		StatusCode        json.RawMessage `json:"statusCode"`
		StatusDescription json.RawMessage `json:"statusDescription"`
	}
	if err := readJSON(w, r, endBodyMost, &body, `{"correlationId":"ID","isSuccess":true,"statusCode":200,"statusDescription":"TEXT"}`); err != nil {
		return err
	}
	id := body.CorrelationID
	switch {
	case inPath != "" && id != "" && inPath != id:
		return badRequest("correlationId in the body is another than in the path; expected the same, or only one of them")
	case inPath != "":
		id = inPath
	case id == "":
		return &engine.Error{Code: engine.CodeArgumentNull, Message: "correlationId is missing; expected it in the body or at the end of the path"}
	}
	if body.IsSuccess == nil {
		return &engine.Error{Code: engine.CodeArgumentNull, Message: "isSuccess is missing; expected true or false"}
	}
	o := engine.UploadOutcome{Success: *body.IsSuccess}
	// What the device says beside that is for people: whatever its form, the upload has ended.
	_ = json.Unmarshal(body.StatusCode, &o.StatusCode)
	_ = json.Unmarshal(body.StatusDescription, &o.Description)
	return noContent(w, h.hub.CompleteUpload(r.Context(), g, id, o))
}

// readJSON reads a small body that is one JSON object.
func readJSON(w http.ResponseWriter, r *http.Request, most int64, into any, expected string) error {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &engine.Error{Code: engine.CodeTooLarge, Message: "the body is too large; expected " + expected}
	}
	if err != nil {
		return badRequest("the body ended before it was complete")
	}
	if err := json.Unmarshal(data, into); err != nil || len(data) == 0 || data[0] != '{' {
		return &engine.Error{Code: engine.CodeFormat, Message: "the body is not the JSON object that is expected here: " + expected}
	}
	return nil
}

const (
	blobContainer = "uploads"
	blobPrefix    = "/" + blobContainer + "/"
)

// servesBlobPath reports whether an escaped path is that of a blob. Doubled
// slashes before it are skipped, as everywhere in the device API.
func servesBlobPath(escaped string) bool {
	return strings.HasPrefix("/"+strings.TrimLeft(escaped, "/"), blobPrefix)
}

// blobNames returns the names that an escaped path may mean: decoded once,
// and twice for clients that escape what was escaped for them. The signature
// of the token decides.
func blobNames(escaped string) []string {
	raw := strings.TrimPrefix("/"+strings.TrimLeft(escaped, "/"), blobPrefix)
	var names []string
	for range 2 {
		name, err := url.PathUnescape(raw)
		if err != nil || len(names) > 0 && name == names[0] {
			break
		}
		names = append(names, name)
		raw = name
	}
	return names
}
