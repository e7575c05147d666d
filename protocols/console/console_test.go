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
	if len(h.assets) != 4 {
		t.Fatalf("%d files are embedded, want 4", len(h.assets))
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
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil)); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

// TestPageHoldsToItsPolicy finds inline code and foreign addresses, which the
// policy would block in the browser only.
func TestPageHoldsToItsPolicy(t *testing.T) {
	t.Parallel()
	h := NewHandler()
	page := string(h.assets["/"].data)
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if path := m[1]; strings.HasPrefix(path, "/assets/") {
			if _, ok := h.assets[path]; !ok {
				t.Errorf("the page asks for %s, which is not there", path)
			}
		} else if strings.Contains(path, "//") {
			t.Errorf("the page asks another host: %s", path)
		}
	}
	if bad := regexp.MustCompile(`(?i)\son[a-z]+=|style="|<style|<script>|javascript:`).FindString(page); bad != "" {
		t.Errorf("inline code: %q", bad)
	}
	script := string(h.assets["/assets/status.js"].data)
	if bad := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function`).FindString(script); bad != "" {
		t.Errorf("the script makes markup or code from text: %q", bad)
	}
	for _, m := range regexp.MustCompile(`\$\("([\w-]+)"\)|set\("([\w-]+)"`).FindAllStringSubmatch(script, -1) {
		if id := m[1] + m[2]; !strings.Contains(page, `id="`+id+`"`) {
			t.Errorf("the script looks for #%s, which the page does not have", id)
		}
	}
}
