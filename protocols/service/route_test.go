package service

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
)

func TestMatch(t *testing.T) {
	r := newRouter(routes())
	for _, tc := range []struct {
		method, path string
		operation    string // or "404", "405", "later:WHAT"
		params       string
		decoded      string
	}{
		{"GET", "/devices", "listDevices", "", "/devices"},
		{"GET", "/devices/", "listDevices", "", "/devices"},
		{"GET", "/DEVICES/", "listDevices", "", "/devices"},
		{"GET", "/devices//", "404", "", ""},
		{"GET", "//devices", "404", "", ""},
		{"GET", "/", "404", "", ""},
		{"GET", "", "404", "", ""},
		{"POST", "/devices", "bulkDevices", "", "/devices"},
		{"PATCH", "/devices", "405", "", ""},
		{"GET", "/devices/Abc", "getDevice", "Abc", "/devices/Abc"},
		{"GET", "/devices/a%23b%3Fc%25%2B", "getDevice", "a#b?c%+", "/devices/a#b?c%+"},
		{"GET", "/devices/a+b", "getDevice", "a+b", "/devices/a+b"},
		{"GET", "/devices/%2561", "getDevice", "%61", "/devices/%61"},
		{"GET", "/devices/%zz", "404", "", ""},
		{"GET", "/devices/query", "getDevice", "query", "/devices/query"},
		{"POST", "/devices/query", "queryDevices", "", "/devices/query"},
		{"POST", "/devices/keys/regenerate", "regenerateKeys", "", "/devices/keys/regenerate"},
		{"PUT", "/devices/keys", "putDevice", "keys", "/devices/keys"},
		{"GET", "/devices/d/modules", "listModules", "d", "/devices/d/modules"},
		{"GET", "/devices/d/Modules/m/", "getModule", "d,m", "/devices/d/modules/m"},
		{"DELETE", "/devices/d/commands", "purgeMessages", "d", "/devices/d/commands"},
		{"POST", "/twins/d", "405", "", ""},
		{"PATCH", "/twins/d", "patchTwin", "d", "/twins/d"},
		{"POST", "/twins/d/methods/", "invokeTwinMethod", "d", "/twins/d/methods"},
		{"POST", "/twins/d/modules/m/methods", "invokeModuleTwinMethod", "d,m", "/twins/d/modules/m/methods"},
		{"GET", "/jobs/v2/query", "queryJobs", "", "/jobs/v2/query"},
		{"PUT", "/jobs/v2/j", "createJob", "j", "/jobs/v2/j"},
		{"POST", "/jobs/v2/j/cancel", "cancelJob", "j", "/jobs/v2/j/cancel"},
		{"GET", "/configurations/", "listConfigurations", "", "/configurations"},
		{"POST", "/configurations/testqueries", "testConfigurationQueries", "", "/configurations/testQueries"},
		{"PUT", "/configurations/a%25_*", "putConfiguration", "a%_*", "/configurations/a%_*"},
		{"GET", "/messages/serviceBound/feedback", "receiveFeedbackBatch", "", "/messages/serviceBound/feedback"},
		{"POST", "/messages/devicebound", "later:sending of cloud-to-device messages by /messages", "devicebound", "/messages/devicebound"},
		{"GET", "/api/v1/devices/d/connection-string", "getConnectionString", "d", "/api/v1/devices/d/connection-string"},
		{"GET", "/api/v1/policies/p", "getPolicy", "p", "/api/v1/policies/p"},
		{"GET", "/api/v1", "404", "", ""},
	} {
		t.Run(tc.method+" "+tc.path, func(t *testing.T) {
			m, err := r.match(tc.method, tc.path)
			if err != nil {
				f := failureOf(err, shapeMessage)
				if got := http.StatusText(f.status); !strings.HasPrefix(tc.operation, "40") || f.status != map[string]int{"404": 404, "405": 405}[tc.operation] {
					t.Fatalf("got %s, want %s", got, tc.operation)
				}
				if f.status == http.StatusMethodNotAllowed && f.allow == "" {
					t.Error("no Allow header")
				}
				return
			}
			operation := m.route.operation
			if m.route.later != "" {
				operation = "later:" + m.route.later
			}
			if operation != tc.operation || strings.Join(m.params, ",") != tc.params || m.path != tc.decoded {
				t.Errorf("got %s %q %q, want %s %q %q", operation, m.params, m.path, tc.operation, tc.params, tc.decoded)
			}
		})
	}
}

// Every route is complete, and asks for a permission of the engine's table.
func TestRouteTable(t *testing.T) {
	known := map[string]bool{}
	for _, o := range engine.Operations() {
		known[o.Permission.String()] = true
	}
	seen := map[string]bool{}
	for _, r := range routes() {
		if r.later != "" {
			continue
		}
		switch {
		case r.operation == "" || r.summary == "" || r.tag == "" || r.handle == nil:
			t.Errorf("%s is not described", r.label())
		case seen[r.operation]:
			t.Errorf("operation %s stands twice", r.operation)
		case !strings.HasSuffix(r.summary, "."):
			t.Errorf("%s: the summary is no sentence", r.label())
		case r.permission != 0 && !known[r.permission.String()]:
			t.Errorf("%s asks for %s, which no operation of the engine needs", r.label(), r.permission)
		case r.idempotent != (r.method == http.MethodPost && r.shape == shapeProblem && r.content == "" && !r.reads):
			t.Errorf("%s: exactly the POSTs of Muster's own API that change something take an Idempotency-Key", r.label())
		}
		seen[r.operation] = true
	}
}

func FuzzMatch(f *testing.F) {
	for _, s := range []string{"/devices/a%2Fb", "/twins/x/modules/y/methods", "//", "/%", "/api/v1/twins/%00/history", "/jobs/v2/a/b/c"} {
		f.Add("GET", s)
	}
	r := newRouter(routes())
	f.Fuzz(func(t *testing.T, method, path string) {
		m, err := r.match(method, path)
		if err != nil {
			return
		}
		if m.route.method != method || !strings.HasPrefix(m.path, "/") {
			t.Fatalf("%s %q matched %s with path %q", method, path, m.route.label(), m.path)
		}
		want := strings.Count(m.route.pattern, "{")
		if len(m.params) != want || slices.Contains(m.params, "") {
			t.Fatalf("%q gave parameters %q for %s", path, m.params, m.route.pattern)
		}
		if !strings.HasSuffix(m.route.pattern, "...}") {
			// Escaped again, the parameters lead to the same route.
			again := m.route.pattern
			for _, p := range m.params {
				i, j := strings.IndexByte(again, '{'), strings.IndexByte(again, '}')
				again = again[:i] + strings.NewReplacer("{", "%7B", "}", "%7D").Replace(url.PathEscape(p)) + again[j+1:]
			}
			if n, err := r.match(method, again); err != nil || !slices.Equal(n.params, m.params) {
				t.Fatalf("%q: again %q: %v, %q", path, again, err, n.params)
			}
		}
	})
}
