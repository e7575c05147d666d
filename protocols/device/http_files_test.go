package device

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

func TestFileRequests(t *testing.T) {
	const version, notifications = "?api-version=2021-04-12", "/devices/d/files/notifications"
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		says, settled      string
	}{
		"begin":                      {"POST", "/devices/d/files", `{"blobName":"a/b"}`, 200, `"blobName":"d/a/b"`, ""},
		"begin with a slash":         {"POST", "/devices/d/files/", `{"blobName":"a","other":1}`, 200, `"containerName":"uploads"`, ""},
		"begin, as Java does":        {"POST", "/devices/d//files", `{"blobName":"a"}`, 200, `"hostName":"example.com"`, ""},
		"a module begins":            {"POST", "/devices/d/modules/m//files", `{"blobName":"a"}`, 400, "modules", ""},
		"begin by GET":               {"GET", "/devices/d/files", "", 405, "POST", ""},
		"no body":                    {"POST", "/devices/d/files", "", 400, "ErrorCode:IotHubFormatError;", ""},
		"null":                       {"POST", "/devices/d/files", "null", 400, "ErrorCode:IotHubFormatError;", ""},
		"no name":                    {"POST", "/devices/d/files", "{}", 400, "names", ""},
		"a name that is none":        {"POST", "/devices/d/files", `{"blobName":["a"]}`, 400, "ErrorCode:IotHubFormatError;", ""},
		"much":                       {"POST", "/devices/d/files", `{"blobName":"` + strings.Repeat("a", beginBodyMost) + `"}`, 413, "large", ""},
		"stranger":                   {"POST", "/devices/e/files", `{"blobName":"a"}`, 401, "Unauthorized", ""},
		"end, id in the body":        {"POST", notifications, `{"correlationId":"c1","isSuccess":true,"statusCode":201,"statusDescription":"Created"}`, 204, "", "true 201 Created"},
		"end, id in the path":        {"POST", notifications + "/c1", `{"isSuccess":false,"statusCode":-1,"statusDescription":"x"}`, 204, "", "false -1 x"},
		"end, id in both":            {"POST", notifications + "/c1/", `{"correlationId":"c1","isSuccess":true}`, 204, "", "true 0 "},
		"end, two ids":               {"POST", notifications + "/c1", `{"correlationId":"c2","isSuccess":true}`, 400, "another", ""},
		"end, no id":                 {"POST", notifications, `{"isSuccess":true}`, 400, "ErrorCode:ArgumentNull;correlationId", ""},
		"end, no outcome":            {"POST", notifications, `{"correlationId":"c1"}`, 400, "ErrorCode:ArgumentNull;isSuccess", ""},
		"end, an outcome as text":    {"POST", notifications, `{"correlationId":"c1","isSuccess":"true"}`, 400, "ErrorCode:IotHubFormatError;", ""},
		"end, a status as text":      {"POST", notifications, `{"correlationId":"c1","isSuccess":true,"statusCode":"201","statusDescription":null}`, 204, "", "true 0 "},
		"end, unknown":               {"POST", notifications, `{"correlationId":"c9","isSuccess":true}`, 400, "ErrorCode:InvalidFileUploadCorrelationId;", ""},
		"end by GET":                 {"GET", notifications, "", 405, "POST", ""},
		"below notifications":        {"POST", notifications + "/c1/x", "{}", 400, "correlation id", ""},
		"something else below files": {"POST", "/devices/d/files/x", "{}", 400, "notifications", ""},
	} {
		t.Run(name, func(t *testing.T) {
			hub := &webHub{}
			h := NewHTTPHandler(hub, nil)
			r := httptest.NewRequestWithContext(t.Context(), c.method, c.path+version, strings.NewReader(c.body))
			r.Header.Set("Authorization", "token")
			if !ServesHTTPPath(r.URL.EscapedPath()) {
				t.Fatal("the path is not served")
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.status {
				t.Fatalf("status %d with %s, want %d", w.Code, w.Body, c.status)
			}
			if answer := w.Body.String() + w.Header().Get("Allow"); !strings.Contains(answer, c.says) {
				t.Errorf("the answer %q does not say %q", answer, c.says)
			}
			if got := strings.Join(hub.settled, " "); got != c.settled {
				t.Errorf("settled %q, want %q", got, c.settled)
			}
		})
	}
}

func TestBlobRequests(t *testing.T) {
	token := auth.SignUpload(webKey(), "c1", "d#1/a b", time.Now().Add(time.Hour))
	const path = "/uploads/d%231/a%20b"
	id := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	list := func(ids ...string) string {
		var s strings.Builder
		s.WriteString("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<BlockList>")
		for _, one := range ids {
			s.WriteString("<Latest>" + id(one) + "</Latest>")
		}
		return s.String() + "</BlockList>"
	}
	sum := md5.Sum([]byte("body"))
	block := map[string]string{"x-ms-blob-type": "BlockBlob"}
	for name, c := range map[string]struct {
		method, path, more, body string
		header                   map[string]string
		status                   int
		says, settled            string
	}{
		"blob":                   {"PUT", path, "", "body", block, 201, "", ";=body"},
		"blob, escaped twice":    {"PUT", "/uploads/d%25231/a%2520b", "", "body", block, 201, "", ";=body"},
		"blob, escaped whole":    {"PUT", "//uploads/d%231%2Fa%20b", "", "body", block, 201, "", ";=body"},
		"blob of a type":         {"PUT", path, "", "body", map[string]string{"x-ms-blob-type": "BlockBlob", "x-ms-blob-content-type": "text/plain", "x-ms-blob-content-encoding": "gzip", "Content-Type": "x"}, 201, "", "text/plain;gzip=body"},
		"empty blob":             {"PUT", path, "", "", block, 201, "", ";="},
		"blob with its checksum": {"PUT", path, "", "body", map[string]string{"x-ms-blob-type": "BlockBlob", "Content-MD5": base64.StdEncoding.EncodeToString(sum[:])}, 201, "", ";=body"},
		"another checksum":       {"PUT", path, "", "bodY", map[string]string{"x-ms-blob-type": "BlockBlob", "Content-MD5": base64.StdEncoding.EncodeToString(sum[:])}, 400, "Md5Mismatch", ""},
		"no checksum":            {"PUT", path, "", "body", map[string]string{"x-ms-blob-type": "BlockBlob", "Content-MD5": "??"}, 400, "InvalidMd5", ""},
		"blob of no kind":        {"PUT", path, "", "body", nil, 400, "MissingRequiredHeader", ""},
		"blob of another kind":   {"PUT", path, "", "body", map[string]string{"x-ms-blob-type": "AppendBlob"}, 400, "InvalidHeaderValue", ""},
		"a copy":                 {"PUT", path, "", "", map[string]string{"x-ms-blob-type": "BlockBlob", "x-ms-copy-source": "https://a/b"}, 400, "InvalidHeaderValue", ""},
		"too much":               {"PUT", path, "", strings.Repeat("x", 1025), block, 413, "RequestBodyTooLarge", ""},
		"block":                  {"PUT", path, "&comp=block&blockid=" + url.QueryEscape(id("b>?")), "x", nil, 201, "", "b>?=x"},
		"block, a plus as space": {"PUT", path, "&comp=block&blockid=" + strings.ReplaceAll(id("\xfb\xef"), "+", " "), "x", nil, 201, "", "\xfb\xef=x"},
		"block without an id":    {"PUT", path, "&comp=block", "x", nil, 400, "InvalidQueryParameterValue", ""},
		"block with a long id":   {"PUT", path, "&comp=block&blockid=" + id(strings.Repeat("x", 65)), "x", nil, 400, "InvalidQueryParameterValue", ""},
		"list":                   {"PUT", path, "&comp=blocklist", list("a", "b"), map[string]string{"x-ms-blob-content-type": "t"}, 201, "", "ta,b"},
		"list with lost block":   {"PUT", path, "&comp=blocklist", list("a", "lost"), nil, 400, "InvalidBlockList", ""},
		"long list":              {"PUT", path, "&comp=blocklist", list("a", "b", "c", "d"), nil, 409, "BlockCountExceedsLimit", ""},
		"list that is none":      {"PUT", path, "&comp=blocklist", "x", nil, 400, "InvalidXmlDocument", ""},
		"huge list":              {"PUT", path, "&comp=blocklist", list("a") + strings.Repeat(" ", listMost), nil, 413, "RequestBodyTooLarge", ""},
		"something else":         {"PUT", path, "&comp=lease", "", block, 400, "InvalidQueryParameterValue", ""},
		"read":                   {"GET", path, "", "", nil, 403, "AuthorizationPermissionMismatch", ""},
		"delete":                 {"DELETE", path, "", "", nil, 403, "AuthorizationPermissionMismatch", ""},
		"another blob":           {"PUT", "/uploads/d%231/a%20c", "", "body", block, 403, "AuthenticationFailed", ""},
		"a way around":           {"PUT", "/uploads/d%231/x/../a%20b", "", "body", block, 403, "AuthenticationFailed", ""},
		"no blob":                {"PUT", "/uploads/", "", "body", block, 403, "AuthenticationFailed", ""},
		"a token twice":          {"PUT", path, strings.Replace(token, "?", "&", 1), "body", block, 403, "AuthenticationFailed", ""},
	} {
		t.Run(name, func(t *testing.T) {
			hub := &webHub{}
			h := NewHTTPHandler(hub, nil)
			r := httptest.NewRequestWithContext(t.Context(), c.method, strings.ReplaceAll(c.path+token+c.more, " ", "%20"), strings.NewReader(c.body))
			for name, value := range c.header {
				r.Header.Set(name, value)
			}
			r.Header.Set("x-ms-client-request-id", "mine")
			if !ServesHTTPPath(r.URL.EscapedPath()) {
				t.Fatal("the path is not served")
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.status {
				t.Fatalf("status %d with %s, want %d", w.Code, w.Body, c.status)
			}
			if got := strings.Join(hub.settled, " "); got != c.settled {
				t.Errorf("settled %q, want %q", got, c.settled)
			}
			for _, name := range []string{"x-ms-request-id", "x-ms-version", "Date"} {
				if w.Header().Get(name) == "" {
					t.Errorf("no header %s", name)
				}
			}
			if w.Header().Get("x-ms-client-request-id") != "mine" {
				t.Error("the client's request id does not come back")
			}
			var e struct {
				XMLName xml.Name `xml:"Error"`
				Code    string
				Message string
			}
			if w.Code < 400 {
				if !strings.HasPrefix(c.more, "&comp=b") && (w.Header().Get("ETag") == "" || w.Header().Get("Last-Modified") == "") {
					t.Error("no ETag or Last-Modified")
				}
			} else if err := xml.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Code != c.says || e.Code != w.Header().Get("x-ms-error-code") || !strings.Contains(e.Message, "\nRequestId:") {
				t.Errorf("the body is %s, %v; want the code %s, also in x-ms-error-code", w.Body, err, c.says)
			}
			if counts := h.Requests(); len(counts) != 1 || counts[0].Status != c.status {
				t.Errorf("counted %+v", counts)
			}
		})
	}
	t.Run("no length", func(t *testing.T) {
		r := httptest.NewRequestWithContext(t.Context(), "PUT", path+token, strings.NewReader("body"))
		r.ContentLength = -1
		r.Header.Set("x-ms-blob-type", "BlockBlob")
		w := httptest.NewRecorder()
		NewHTTPHandler(&webHub{}, nil).ServeHTTP(w, r)
		if w.Code != 411 || w.Header().Get("x-ms-error-code") != "MissingContentLengthHeader" {
			t.Errorf("status %d with %s", w.Code, w.Body)
		}
	})
}

// The members of the answer and their order are what SDKs see of IoT Hub.
func TestUploadAnswer(t *testing.T) {
	b := uploadAnswer{"c", "h", "u", blobPath("d#?%/a b"), "?s&t"}.encode()
	if want := `{"correlationId":"c","hostName":"h","containerName":"u","blobName":"d%23%3F%25/a b","sasToken":"?s&t"}`; string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
}

// Every code of the engine has an answer that clients of Azure Storage know:
// they try again at 500 and 503 alone, so what may pass has one of these.
func TestEveryCodeIsABlobCode(t *testing.T) {
	table := blobCodes()
	for _, info := range engine.Codes() {
		row, ok := table[info.Code]
		if !ok || row.status < 400 || row.code == "" {
			t.Errorf("%s: %+v", info.Name, row)
		}
	}
	for _, code := range []engine.Code{engine.CodeThrottled, engine.CodeUnavailable, engine.CodeReadOnly, engine.CodeClosed, engine.CodeInternal} {
		if s := table[code].status; s != 500 && s != 503 {
			t.Errorf("%s is answered with %d", code, s)
		}
	}
}

func FuzzParseBlockList(f *testing.F) {
	for _, s := range []string{
		"<BlockList><Latest>YQ==</Latest><Uncommitted>Yg==</Uncommitted></BlockList>", "<BlockList/>", "<BlockList><Latest><Latest>YQ==</Latest></Latest></BlockList>",
		`<!DOCTYPE a [<!ENTITY b "c">]><BlockList>&b;</BlockList>`, "<BlockList></BlockList><BlockList></BlockList>", "<BlockList><Latest>YQ==<!-- --></Latest></BlockList>", "\ufeff<BlockList/>",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ids, err := parseBlockList(data, 5)
		if err != nil {
			return
		}
		if len(ids) > 5 {
			t.Fatalf("%d blocks are taken", len(ids))
		}
		for _, id := range ids {
			if id == "" || len(id) > 64 {
				t.Fatalf("the id %q is taken", id)
			}
		}
	})
}

func FuzzBlobNames(f *testing.F) {
	f.Add("/uploads/d/a%2520b")
	f.Add("//uploads/%2e%2e/x")
	f.Add("/uploads/%zz")
	f.Fuzz(func(t *testing.T, escaped string) {
		if !servesBlobPath(escaped) {
			return
		}
		names := blobNames(escaped)
		if len(names) > 2 {
			t.Fatalf("%q may mean %q", escaped, names)
		}
	})
}
