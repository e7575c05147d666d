package console

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func TestPage(t *testing.T) {
	t.Parallel()
	h := NewHandler()
	if len(h.assets) != 7 {
		t.Fatalf("%d files are embedded, want 7", len(h.assets))
	}
	for path, a := range h.assets {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK || w.Header().Get("Content-Security-Policy") != contentPolicy || w.Body.Len() != len(a.data) {
			t.Errorf("%s: %d, %d bytes", path, w.Code, w.Body.Len())
		}
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("If-None-Match", w.Header().Get("Etag"))
		w = httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusNotModified {
			t.Errorf("%s again: %d, want 304", path, w.Code)
		}
	}
	for path, want := range map[string]int{"/": http.StatusMethodNotAllowed, "/patterns": http.StatusMethodNotAllowed} {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, nil)); w.Code != want {
			t.Errorf("POST %s: %d", path, w.Code)
		}
	}
}

// TestPagesHoldToTheirPolicy finds inline code and foreign addresses, which the
// policy would block in the browser only.
func TestPagesHoldToTheirPolicy(t *testing.T) {
	t.Parallel()
	h := NewHandler()
	for url, script := range map[string]string{"/": "/assets/status.js", "/patterns": "/assets/patterns.js"} {
		page := string(h.assets[url].data)
		for _, m := range regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(page, -1) {
			if path := m[1]; strings.HasPrefix(path, "/assets/") || path == "/patterns" {
				if _, ok := h.assets[path]; !ok {
					t.Errorf("%s asks for %s, which is not there", url, path)
				}
			} else if strings.Contains(path, "//") {
				t.Errorf("%s asks another host: %s", url, path)
			}
		}
		if bad := regexp.MustCompile(`(?i)\son[a-z]+=|style="|<style|<script>|javascript:`).FindString(page); bad != "" {
			t.Errorf("%s: inline code: %q", url, bad)
		}
		for _, path := range []string{script, "/assets/page.js"} {
			text := string(h.assets[path].data)
			if bad := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function`).FindString(text); bad != "" {
				t.Errorf("%s makes markup or code from text: %q", path, bad)
			}
			for _, m := range regexp.MustCompile(`\$\("([\w-]+)"\)|set\("([\w-]+)"`).FindAllStringSubmatch(text, -1) {
				if id := m[1] + m[2]; !strings.Contains(page, `id="`+id+`"`) {
					t.Errorf("%s looks for #%s, which %s does not have", path, id, url)
				}
			}
		}
	}
}
