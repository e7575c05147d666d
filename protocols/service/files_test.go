package service

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

func notifying(o *engine.Options) { o.FileNotifications = true }

// download reads a file's content without the fixture's look at JSON.
func (f *fixture) download(path string, options ...option) (status int, head http.Header, content string) {
	f.Helper()
	w, data := f.read(f.send(f.Context(), http.MethodGet, path, "", append([]option{f.as("service")}, options...)...))
	return w.StatusCode, w.Header, string(data)
}

func TestFiles(t *testing.T) {
	f := newFixture(t, notifying)
	content := "<script>alert(1)</script>"
	enginetest.Upload(t, f.hub, "d", "logs/größe 1.html", "text/html", []byte(content))
	enginetest.Upload(t, f.hub, "d", "logs/b", "no type at all;;", []byte("b"))
	enginetest.Upload(t, f.hub, "d", "z", "", nil)
	sum := sha256.Sum256([]byte(content))
	digest := hex.EncodeToString(sum[:])
	one := "/api/v1/devices/d/files/" + url.PathEscape("logs/größe 1.html")

	a := f.do("GET", "/api/v1/devices/d/files?limit=2", "").want(200).is("items.0.name", `"logs/b"`).is("items.1.name", `"logs/größe 1.html"`)
	f.do("GET", "/api/v1/devices/d/files?limit=2&cursor="+a.text("cursor"), "").want(200).is("items.0.name", `"z"`).is("items.0.size", "0").is("cursor", `""`)
	f.do("GET", "/api/v1/devices/d/files?prefix=logs/&limit=1", "").want(200).is("items.0.name", `"logs/b"`)
	f.do("GET", "/api/v1/devices/d/files?prefix=z&limit=2&cursor="+a.text("cursor"), "").want(400)
	f.do("GET", "/api/v1/devices/none/files", "").want(404).is("code", `"DeviceNotFound"`)
	f.do("GET", "/api/v1/devices/d/files", "", f.as("registryReadWrite")).want(403)
	f.do("GET", one, "").want(200).is("sha256", `"`+digest+`"`).is("size", "25").is("contentType", `"text/html"`)
	f.do("GET", "/api/v1/devices/d/files/logs", "").want(404).is("code", `"FileNotFound"`)
	f.do("GET", "/api/v1/devices/d/files/logs/b", "").want(404)

	status, head, got := f.download(one + "/content")
	if status != 200 || got != content || head.Get("Content-Type") != "text/html" {
		t.Errorf("%d, %v, %q", status, head, got)
	}
	// What a device says is a page must not act as one of the hub's.
	for name, want := range map[string]string{
		"Content-Disposition": "attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe%201.html", "X-Content-Type-Options": "nosniff",
		"Content-Security-Policy": "sandbox; default-src 'none'", "X-Muster-Sha256": digest,
	} {
		if got := head.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if _, head, _ := f.download("/api/v1/devices/d/files/" + url.PathEscape("logs/b") + "/content"); head.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("a type that is none is answered as %q", head.Get("Content-Type"))
	}
	for _, c := range []struct {
		option  option
		status  int
		content string
	}{
		{header("Range", "bytes=1-6"), 206, "script"}, {header("Range", "bytes=-7"), 206, "script>"}, {header("Range", "bytes=25-"), 416, ""},
		{header("If-None-Match", head.Get("ETag")), 304, ""}, {f.as("registryRead"), 403, ""},
	} {
		status, _, got := f.download(one+"/content", c.option)
		if status != c.status || c.content != "" && got != c.content {
			t.Errorf("got %d %q, want %d %q", status, got, c.status, c.content)
		}
	}

	f.do("DELETE", one, "", f.as("device")).want(403)
	f.do("DELETE", one, "").want(204)
	f.do("DELETE", one, "").want(404)
	f.do("GET", "/api/v1/audit?limit=1", "").want(200).is("items.0.operation", `"file.delete"`).is("items.0.target", `"d"`)
	if status, _, _ := f.download(one + "/content"); status != 404 {
		t.Errorf("a deleted file is answered with %d", status)
	}
}

func TestFileNotices(t *testing.T) {
	f := newFixture(t, notifying)
	for _, name := range []string{"a", "b/c", "e"} {
		enginetest.Upload(t, f.hub, "d", name, "", []byte(name))
	}
	const own, hub = "/api/v1/file-notifications/", "/messages/serviceBound/filenotifications"
	a := f.do("GET", hub, "").want(200).is("blobName", `"d/a"`).is("blobSizeInBytes", "1").is("deviceId", `"d"`)
	lock := strings.Trim(a.header.Get("ETag"), `"`)
	b := f.do("POST", own+"receive", "").want(200).is("items.0.blobName", `"d/b/c"`).is("items.1.blobName", `"d/e"`)
	if status, _, content := f.download(strings.TrimPrefix(b.text("items.0.blobUri"), f.url)); status != 200 || content != "b/c" {
		t.Errorf("blobUri %s gives %d %q", b.text("items.0.blobUri"), status, content)
	}
	if status, _, _ := f.download(hub + "?api-version=2021-04-12"); status != 204 {
		t.Errorf("nothing to receive is answered with %d", status)
	}
	f.do("POST", own+"receive", "").want(200).is("lockToken", `""`).is("items", "[]")
	f.do("POST", hub+"/"+lock+"/abandon", "").want(204)
	f.do("DELETE", own+b.text("lockToken"), "").want(204)
	f.do("DELETE", own+b.text("lockToken"), "").want(412)
	lock = strings.Trim(f.do("GET", hub, "").want(200).is("blobName", `"d/a"`).header.Get("ETag"), `"`)
	f.do("DELETE", hub+"/"+lock, "").want(204)
	f.do("POST", own+"none/abandon", "").want(412)
	f.do("POST", own+"receive", "", f.as("registryRead")).want(403)

	silent := newFixture(t)
	silent.do("GET", hub, "").refused(401, "IotHubUnauthorizedAccess")
	if a := silent.do("POST", own+"receive", "").want(403); !strings.Contains(a.text("next"), "--file-notifications") {
		t.Errorf("it does not say what to do: %s", a.body)
	}
}
