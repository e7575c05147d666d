package enginetest

import (
	"bytes"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

// Upload has a device, which is made if need be, upload a file in one go.
func Upload(tb testing.TB, h *engine.Hub, deviceID, name, contentType string, content []byte) {
	tb.Helper()
	id := engine.TwinID{DeviceID: deviceID}
	grant, err := h.AuthenticateDevice(tb.Context(), engine.Credentials{ID: id, Host: HostName, Token: Token(tb, h, id, time.Now().Add(time.Hour))})
	if err != nil {
		tb.Fatalf("authenticate %s: %v", deviceID, err)
	}
	u, err := h.BeginUpload(tb.Context(), grant, name)
	if err != nil {
		tb.Fatalf("begin the upload of %s: %v", name, err)
	}
	query, err := url.ParseQuery(strings.TrimPrefix(u.Token, "?"))
	if err != nil {
		tb.Fatal(err)
	}
	token, err := auth.ParseUploadToken(query)
	if err != nil {
		tb.Fatal(err)
	}
	may, err := h.AuthorizeUpload(tb.Context(), token, u.Blob)
	if err != nil {
		tb.Fatalf("authorize the upload of %s: %v", name, err)
	}
	if _, err := h.PutUpload(tb.Context(), may, engine.UploadBody{Reader: bytes.NewReader(content), Size: int64(len(content)), Type: contentType}); err != nil {
		tb.Fatalf("send %s: %v", name, err)
	}
	if err := h.CompleteUpload(tb.Context(), grant, u.CorrelationID, engine.UploadOutcome{Success: true, StatusCode: 201}); err != nil {
		tb.Fatalf("complete the upload of %s: %v", name, err)
	}
}
