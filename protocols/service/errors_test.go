package service

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
)

// errorName returns the header iothub-errorcode as the handler spells it,
// which is not net/http's way.
func errorName(w *httptest.ResponseRecorder) string {
	for name, values := range w.Header() {
		if name == "iothub-errorcode" {
			return values[0]
		}
	}
	return ""
}

// Every code of the engine has exactly one row, and a number that begins with
// its status, which C# relies on.
func TestEveryCodeIsMapped(t *testing.T) {
	rows := map[engine.Code]int{}
	for _, w := range wireTable {
		rows[w.code]++
		if w.number/1000 != w.status {
			t.Errorf("%s: %d does not begin with %d", w.code, w.number, w.status)
		}
		if w.name == "" || strings.ContainsAny(w.name, "; :") {
			t.Errorf("%s: name %q", w.code, w.name)
		}
		if w.status == http.StatusForbidden && (w.code == engine.CodeForbidden || w.code == engine.CodeUnauthorized) {
			t.Errorf("%s: authorization must be 401", w.code)
		}
	}
	for _, info := range engine.Codes() {
		if rows[info.Code] != 1 {
			t.Errorf("%s has %d rows, want 1", info.Name, rows[info.Code])
		}
	}
	if len(wireTable) != len(engine.Codes()) {
		t.Errorf("%d rows for %d codes", len(wireTable), len(engine.Codes()))
	}
}

// fail answers err as a route of that shape would.
func fail(t *testing.T, err error, s shape) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h := NewHandler(nil, Options{})
	c := &call{Handler: h, w: &recorder{ResponseWriter: w}, r: httptest.NewRequest(http.MethodGet, "/devices/x", nil),
		requestID: "395a9b7c-0d2f-4bd9-8a6e-0123456789ab", shape: s}
	c.fail(err)
	return w
}

func TestErrorShapes(t *testing.T) {
	cause := errors.New("secret detail")
	for _, info := range engine.Codes() {
		err := error(&engine.Error{Code: info.Code, Message: "some text; more"})
		w := fail(t, err, shapeMessage)
		var e1 struct{ Message, ExceptionMessage string }
		if err := json.Unmarshal(w.Body.Bytes(), &e1); err != nil {
			t.Fatal(err)
		}
		name := errorName(w)
		if name == "" || !strings.HasPrefix(e1.Message, "ErrorCode:"+name+";some text") {
			t.Errorf("%s: header %q, message %q", info.Name, name, e1.Message)
		}
		if !regexp.MustCompile(`^Tracking ID:395A9B7C0D2F4BD98A6E0123456789AB-G:0-TimeStamp:\d\d/\d\d/\d{4} \d\d:\d\d:\d\d$`).MatchString(e1.ExceptionMessage) {
			t.Errorf("%s: %q", info.Name, e1.ExceptionMessage)
		}
		if !strings.Contains(w.Result().Header.Get("Content-Type"), "application/json") {
			t.Errorf("%s: content type", info.Name)
		}

		w = fail(t, err, shapeNested)
		if w.Code == http.StatusUnauthorized {
			continue // tested by hand: never nested
		}
		e1.ExceptionMessage = "x"
		if err := json.Unmarshal(w.Body.Bytes(), &e1); err != nil {
			t.Fatal(err)
		}
		var e2 struct {
			ErrorCode  int
			TrackingID string
			Message    string
			Info       json.RawMessage
			Timestamp  string `json:"timestampUtc"`
		}
		if err := json.Unmarshal([]byte(e1.Message), &e2); err != nil {
			t.Fatalf("%s: the nested message is no JSON: %v", info.Name, err)
		}
		if e1.ExceptionMessage != "" || e2.ErrorCode/1000 != w.Code || e2.Timestamp == "" || e2.TrackingID == "" || string(e2.Info) == "null" {
			t.Errorf("%s: %+v", info.Name, e2)
		}

		w = fail(t, err, shapeProblem)
		var p problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		if p.Type != "urn:muster:error:"+info.Name || p.Title != info.Text || p.Status != w.Code || p.Detail != "some text; more" || p.Next == "" || p.RequestID == "" ||
			w.Result().Header.Get("Content-Type") != "application/problem+json; charset=utf-8" {
			t.Errorf("%s: %+v", info.Name, p)
		}
	}
	if body := fail(t, cause, shapeProblem).Body.String(); strings.Contains(body, "secret detail") {
		t.Errorf("a cause reached the wire: %s", body)
	}
}

func TestRequestID(t *testing.T) {
	for _, tc := range []struct {
		header, value string
		taken         bool
	}{
		{"Request-Id", "e67708a5-e167-491e-abde-4ab8f08a9211", true},
		{"x-ms-client-request-id", "abc", true},
		{"Request-Id", "two words", false},
		{"Request-Id", "line\nfeed", false},
		{"Request-Id", strings.Repeat("a", maxRequestID+1), false},
		{"Request-Id", "ä", false},
		{"Other", "x", false},
	} {
		h := http.Header{}
		h.Set(tc.header, tc.value)
		got := requestID(h)
		if (got == tc.value) != tc.taken || len(got) > maxRequestID || got == "" {
			t.Errorf("%s %q gave %q", tc.header, tc.value, got)
		}
	}
	if a, b := requestID(http.Header{}), requestID(http.Header{}); a == b || len(a) != 36 {
		t.Errorf("generated %q and %q", a, b)
	}
}
