package device

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

// webHub is a hub that knows the device d, its module d/m and the lock token good.
type webHub struct {
	sent      []engine.Message
	settled   []string
	fileBytes int64 // limit; 0: 1 KiB
	byteRate  float64
	fault     engine.Fault
	lost      int
}

func (h *webHub) Fault(engine.TwinID) (engine.Fault, bool) {
	return h.fault, h.fault != engine.Fault{}
}
func (h *webHub) FaultLost() { h.lost++ }

func (h *webHub) AuthenticateDevice(_ context.Context, cr engine.Credentials) (engine.Grant, error) {
	if cr.Token != "token" || cr.ID.DeviceID != "d" {
		return engine.Grant{}, &engine.Error{Code: engine.CodeUnauthorized, Message: "the device is not known"}
	}
	return engine.Grant{ID: cr.ID}, nil
}

func (h *webHub) SendTelemetry(_ context.Context, _ engine.Grant, list []engine.Message) error {
	h.sent = append(h.sent, list...)
	return nil
}

func (h *webHub) ReceiveMessage(context.Context, engine.Grant, time.Duration) (engine.QueuedMessage, bool, error) {
	return engine.QueuedMessage{}, false, nil
}

func (h *webHub) settle(what, token string) error {
	if token != "good" {
		return &engine.Error{Code: engine.CodeMessageLockLost, Message: "no message has this lock token"}
	}
	h.settled = append(h.settled, what)
	return nil
}

func (h *webHub) CompleteMessage(_ context.Context, _ engine.Grant, token string) error {
	return h.settle("complete", token)
}

func (h *webHub) AbandonMessage(_ context.Context, _ engine.Grant, token string) error {
	return h.settle("abandon", token)
}

func (h *webHub) RejectMessage(_ context.Context, _ engine.Grant, token string) error {
	return h.settle("reject", token)
}

func (h *webHub) BeginUpload(_ context.Context, g engine.Grant, name string) (engine.Upload, error) {
	if g.ID.ModuleID != "" || name == "" {
		return engine.Upload{}, &engine.Error{Code: engine.CodeArgumentInvalid, Message: "modules have no files, files have names"}
	}
	return engine.Upload{CorrelationID: "c1", Blob: g.ID.DeviceID + "/" + name, Token: auth.SignUpload(webKey(), "c1", g.ID.DeviceID+"/"+name, time.Now().Add(time.Hour))}, nil
}

func (h *webHub) CompleteUpload(_ context.Context, _ engine.Grant, id string, o engine.UploadOutcome) error {
	if id != "c1" {
		return &engine.Error{Code: engine.CodeUploadNotFound, Message: "no such upload"}
	}
	h.settled = append(h.settled, fmt.Sprintf("%v %d %s", o.Success, o.StatusCode, o.Description))
	return nil
}

func webKey() []byte { return []byte("0123456789abcdef") }

func (h *webHub) AuthorizeUpload(_ context.Context, t auth.UploadToken, blob string) (engine.UploadGrant, error) {
	if !t.Verify(webKey(), blob) {
		return engine.UploadGrant{}, &engine.Error{Code: engine.CodeUnauthorized, Message: "the signature is wrong"}
	}
	return engine.UploadGrant{Expires: t.Expiry}, nil
}

func (h *webHub) take(what string, b engine.UploadBody) error {
	data, err := io.ReadAll(b)
	if err != nil || int64(len(data)) != b.Size {
		return &engine.Error{Code: engine.CodeArgumentInvalid, Message: "the content ended early"}
	}
	if sum := md5.Sum(data); b.MD5 != nil && !bytes.Equal(sum[:], b.MD5) {
		return &engine.Error{Code: engine.CodeChecksum, Message: "not what Content-MD5 says"}
	}
	h.settled = append(h.settled, what+string(data))
	return nil
}

func (h *webHub) StageBlock(_ context.Context, _ engine.UploadGrant, block string, b engine.UploadBody) error {
	return h.take(block+"=", b)
}

func (h *webHub) PutUpload(_ context.Context, _ engine.UploadGrant, b engine.UploadBody) (engine.Stored, error) {
	return engine.Stored{Digest: strings.Repeat("ab", 32), Time: time.Unix(1e9, 0)}, h.take(b.Type+";"+b.Encoding+"=", b)
}

func (h *webHub) CommitBlocks(_ context.Context, _ engine.UploadGrant, ids []string, kind, _ string) (engine.Stored, error) {
	if slices.Contains(ids, "lost") {
		return engine.Stored{}, &engine.Error{Code: engine.CodeBlockUnknown, Message: "lost was not sent"}
	}
	h.settled = append(h.settled, kind+strings.Join(ids, ","))
	return engine.Stored{Digest: strings.Repeat("ab", 32), Time: time.Unix(1e9, 0)}, nil
}

func (h *webHub) Limits() engine.Limits {
	return engine.Limits{MessageBytes: 256 << 10, FileBytes: cmp.Or(h.fileBytes, 1<<10), UploadBlocks: 3, DeviceByteRate: h.byteRate}
}

func TestHTTPRequests(t *testing.T) {
	const version = "?api-version=2021-04-12"
	for name, c := range map[string]struct {
		method, path, body string
		header             map[string]string
		status             int
		says               string // in the body, or in Allow
		settled            string
	}{
		"send":                {"POST", "/devices/d/messages/events" + version, "x", nil, 204, "", ""},
		"send with a slash":   {"POST", "/devices//d/messages/events/" + version, "x", nil, 204, "", ""},
		"module sends":        {"POST", "/devices/d/modules/m/messages/events" + version, "x", nil, 204, "", ""},
		"send by GET":         {"GET", "/devices/d/messages/events" + version, "", nil, 405, "POST", ""},
		"below events":        {"POST", "/devices/d/messages/events/x" + version, "x", nil, 400, "ErrorCode:ArgumentInvalid;", ""},
		"no version":          {"POST", "/devices/d/messages/events", "x", nil, 400, "api-version", ""},
		"odd version":         {"POST", "/devices/d/messages/events?api-version=new", "x", nil, 400, "api-version", ""},
		"stranger":            {"POST", "/devices/e/messages/events" + version, "x", nil, 401, "ErrorCode:IotHubUnauthorizedAccess;Unauthorized", ""},
		"receive":             {"GET", "/devices/d/messages/deviceBound" + version, "", nil, 204, "", ""},
		"receive by POST":     {"POST", "/devices/d/messages/devicebound" + version, "", nil, 405, "GET", ""},
		"odd lock time":       {"GET", "/devices/d/messages/devicebound" + version, "", map[string]string{"IotHub-MessageLockTimeout": "long"}, 400, "iothub-messagelocktimeout", ""},
		"module receives":     {"GET", "/devices/d/modules/m/messages/devicebound" + version, "", nil, 400, "modules", ""},
		"complete":            {"DELETE", "/devices/d/messages/devicebound/good" + version, "", nil, 204, "", "complete"},
		"complete, quoted":    {"DELETE", "/devices/d/messages/devicebound/good" + version, "", map[string]string{"If-Match": `"good"`}, 204, "", "complete"},
		"complete, bare":      {"DELETE", "/devices/d/messages/devicebound/good" + version, "", map[string]string{"If-Match": "good"}, 204, "", "complete"},
		"complete, any":       {"DELETE", "/devices/d/messages/devicebound/good" + version, "", map[string]string{"If-Match": "*"}, 204, "", "complete"},
		"another's If-Match":  {"DELETE", "/devices/d/messages/devicebound/good" + version, "", map[string]string{"If-Match": "other"}, 412, "ErrorCode:PreconditionFailed;", ""},
		"reject":              {"DELETE", "/devices/d/messages/devicebound/good" + version + "&reject", "", nil, 204, "", "reject"},
		"abandon":             {"POST", "/devices/d/messages/devicebound/good/abandon" + version, "", nil, 204, "", "abandon"},
		"abandon by DELETE":   {"DELETE", "/devices/d/messages/devicebound/good/abandon" + version, "", nil, 405, "POST", ""},
		"unknown token":       {"DELETE", "/devices/d/messages/devicebound/bad" + version, "", nil, 412, "ErrorCode:DeviceMessageLockLost;", ""},
		"token by GET":        {"GET", "/devices/d/messages/devicebound/good" + version, "", nil, 405, "DELETE", ""},
		"below a token":       {"POST", "/devices/d/messages/devicebound/good/keep" + version, "", nil, 400, "abandon", ""},
		"batch that is none":  {"POST", "/devices/d/messages/events" + version, "{", map[string]string{"Content-Type": batchType}, 400, "batch", ""},
		"body that is no end": {"POST", "/devices/d/messages/events" + version, strings.Repeat("x", 300<<10), nil, 413, "larger", ""},
	} {
		t.Run(name, func(t *testing.T) {
			hub := &webHub{}
			h := NewHTTPHandler(hub, nil)
			r := httptest.NewRequestWithContext(t.Context(), c.method, c.path, strings.NewReader(c.body))
			r.Header.Set("Authorization", "token")
			for name, value := range c.header {
				r.Header.Set(name, value)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.status {
				t.Fatalf("status %d with %s, want %d", w.Code, w.Body, c.status)
			}
			if answer := w.Body.String() + w.Header().Get("Allow"); !strings.Contains(answer, c.says) {
				t.Errorf("the answer %q does not say %q", answer, c.says)
			}
			if w.Code >= 400 && !strings.HasPrefix(w.Body.String(), `{"Message":"ErrorCode:`) {
				t.Errorf("the body is %s, want Message first, with the code", w.Body)
			}
			if got := strings.Join(hub.settled, " "); got != c.settled {
				t.Errorf("settled %q, want %q", got, c.settled)
			}
			counts := h.Requests()
			if len(counts) != 1 || counts[0].Status != c.status || counts[0].Count != 1 {
				t.Errorf("counted %+v, want one of status %d", counts, c.status)
			}
		})
	}
}

func TestHTTPMessage(t *testing.T) {
	hub := &webHub{}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/devices/d/messages/events?api-version=2021-04-12", strings.NewReader("body"))
	for name, value := range map[string]string{
		"Authorization": "token", "iothub-app-Color": "red", "IoTHub-MessageId": "m1", "iothub-contenttype": "application/json", "dt-subject": "c", "X-Other": "no",
	} {
		r.Header.Set(name, value)
	}
	NewHTTPHandler(hub, nil).ServeHTTP(httptest.NewRecorder(), r)
	if len(hub.sent) != 1 {
		t.Fatalf("%d messages came, want 1", len(hub.sent))
	}
	m := hub.sent[0]
	if string(m.Body) != "body" || len(m.Properties) != 1 || m.Properties[0] != (engine.Property{Name: "color", Value: "red"}) || len(m.System) != 3 {
		t.Errorf("the message is %+v", m)
	}
}
