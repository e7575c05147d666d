// Package console is the hub's web pages, the status and the forms of patterns:
// files that the binary embeds, with the headers that keep them harmless. The
// pages are clients of the public REST like any other; the package knows nothing
// of the engine.
package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed page
var files embed.FS

// asset is one file of the pages, ready to be sent.
type asset struct {
	name string
	kind string // media type
	etag string
	data []byte
}

// Handler serves the pages. It is safe for concurrent use.
type Handler struct {
	assets map[string]asset // by URL path
}

// contentPolicy lets a page load the hub's own files, ask its own hub, and nothing
// else: no inline code, no frames, no foreign host.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// NewHandler reads the embedded files.
func NewHandler() *Handler {
	h := &Handler{assets: map[string]asset{}}
	kinds := map[string]string{ // the system's own table is not asked
		".html": "text/html; charset=utf-8",
		".css":  "text/css; charset=utf-8",
		".js":   "text/javascript; charset=utf-8",
		".svg":  "image/svg+xml",
	}
	for url, file := range map[string]string{
		"/": "status.html", "/patterns": "patterns.html",
		"/assets/page.css": "page.css", "/assets/page.js": "page.js", "/assets/status.js": "status.js", "/assets/patterns.js": "patterns.js",
		"/assets/muster.svg": "muster.svg",
	} {
		data, err := files.ReadFile("page/" + file)
		if err != nil {
			continue // the pages' test finds a file that is not embedded
		}
		sum := sha256.Sum256(data)
		h.assets[url] = asset{name: file, kind: kinds[path.Ext(file)], etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`, data: data}
	}
	return h
}

// Serves reports whether an escaped URL path belongs to the pages.
func (h *Handler) Serves(escapedPath string) bool {
	if escapedPath == "/favicon.ico" || strings.HasPrefix(escapedPath, "/assets/") {
		return true
	}
	_, ok := h.assets[escapedPath]
	return ok
}

// ServeHTTP answers GET and HEAD for the pages' files.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", contentPolicy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "the page is only read", http.StatusMethodNotAllowed)
		return
	}
	name := r.URL.Path
	if name == "/favicon.ico" {
		name = "/assets/muster.svg"
	}
	a, ok := h.assets[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	header.Set("Content-Type", a.kind)
	header.Set("Cache-Control", "no-cache") // asked again each time, answered by the ETag
	header.Set("Etag", a.etag)
	http.ServeContent(w, r, a.name, time.Time{}, bytes.NewReader(a.data))
}
