package service

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
)

var update = flag.Bool("update", false, "write the golden files under testdata")

// fixture is a hub behind a real HTTP server, and a client of it.
type fixture struct {
	testing.TB
	hub      *engine.Hub
	handler  *Handler
	url      string
	client   *http.Client
	spec     *specification
	keys     map[string]auth.SharedAccessPolicy
	registry *prometheus.Registry
}

func newFixture(t testing.TB, options ...enginetest.Option) *fixture {
	t.Helper()
	f := &fixture{TB: t, hub: enginetest.New(t, append([]enginetest.Option{enginetest.Azure}, options...)...), spec: newSpecification(t),
		keys: map[string]auth.SharedAccessPolicy{}, registry: prometheus.NewRegistry()}
	f.handler = NewHandler(f.hub, Options{Registry: f.registry})
	server := httptest.NewServer(f.handler)
	t.Cleanup(server.Close)
	f.url, f.client = server.URL, server.Client()
	f.learnKeys()
	return f
}

func (f *fixture) learnKeys() {
	f.Helper()
	list, err := f.hub.Policies(f.Context(), enginetest.Owner())
	if err != nil {
		f.Fatal(err)
	}
	for _, p := range list {
		f.keys[p.Name] = p
	}
}

// token signs a resource with a policy's primary key.
func (f *fixture) token(policy, resource string) string {
	f.Helper()
	key, err := f.keys[policy].PrimaryKey.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	return auth.SignToken(resource, key, policy, time.Now().Add(time.Hour))
}

// option changes a request before it is sent.
type option func(*http.Request)

func header(name, value string) option {
	return func(r *http.Request) { r.Header[name] = []string{value} }
}

func ifMatch(value string) option { return header("If-Match", value) }

func (f *fixture) as(policy string) option {
	return header("Authorization", f.token(policy, enginetest.HostName))
}

func authorization(token string) option { return header("Authorization", token) }

// reply is an answer that was read whole.
type reply struct {
	testing.TB
	what   string
	status int
	header http.Header
	body   []byte
	doc    any
}

// send sends a request as iothubowner unless an option says otherwise. The
// caller reads the answer's body, which is closed at the test's end.
func (f *fixture) send(ctx context.Context, method, path, body string, options ...option) *http.Response {
	f.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, f.url+path, reader)
	if err != nil {
		f.Fatal(err)
	}
	f.as("iothubowner")(r)
	for _, o := range options {
		o(r)
	}
	w, err := f.client.Do(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = w.Body.Close() })
	return w
}

// read reads an answer whole.
func (f *fixture) read(w *http.Response) (*http.Response, []byte) {
	f.Helper()
	data, err := io.ReadAll(w.Body)
	if err != nil {
		f.Fatal(err)
	}
	_ = w.Body.Close()
	return w, data
}

// do sends a request as iothubowner unless an option says otherwise, and
// checks what every answer must have.
func (f *fixture) do(method, path, body string, options ...option) *reply {
	f.Helper()
	escaped, _, _ := strings.Cut(path, "?")
	if !strings.HasPrefix(path, "/api/") && !strings.Contains(path, "api-version") {
		separator := "?"
		if strings.Contains(path, "?") {
			separator = "&"
		}
		path += separator + "api-version=2021-04-12"
	}
	w, data := f.read(f.send(f.Context(), method, path, body, options...))
	a := &reply{TB: f.TB, what: method + " " + path, status: w.StatusCode, header: w.Header, body: data}
	if len(data) > 0 {
		if !strings.Contains(w.Header.Get("Content-Type"), "json") {
			f.Errorf("%s: content type %q", a.what, w.Header.Get("Content-Type"))
		}
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		if err := d.Decode(&a.doc); err != nil {
			f.Errorf("%s: %v in %s", a.what, err, data)
		}
	}
	if w.Header.Get("X-Ms-Request-Id") == "" {
		f.Errorf("%s: no x-ms-request-id", a.what)
	}
	effective := method
	if w.Request.Header.Get("X-Http-Method-Override") != "" {
		effective = http.MethodPatch
	}
	if m, err := f.handler.routes.match(effective, escaped); err == nil && m.route.later == "" {
		f.spec.check(f, m.route, a.status, data)
	}
	if a.status >= 400 && !strings.HasPrefix(path, "/api/") {
		a.checkError()
	}
	return a
}

// checkError checks that an error of IoT Hub's paths is one (checklist 16, 20).
func (a *reply) checkError() {
	a.Helper()
	name := a.header.Get("Iothub-Errorcode")
	if name == "" {
		a.Errorf("%s: %d without iothub-errorcode: %s", a.what, a.status, a.body)
	}
	message, ok := dig(a.doc, "Message").(string)
	switch {
	case !ok: // a result of items
	case strings.HasPrefix(message, "{"):
	case !strings.HasPrefix(message, "ErrorCode:"+name+";"):
		a.Errorf("%s: header %s, body %s", a.what, name, a.body)
	}
}

// want checks the status.
func (a *reply) want(status int) *reply {
	a.Helper()
	if a.status != status {
		a.Fatalf("%s: got %d, want %d: %s", a.what, a.status, status, a.body)
	}
	return a
}

// refused checks status and error name.
func (a *reply) refused(status int, name string) *reply {
	a.Helper()
	a.want(status)
	if got := a.header.Get("Iothub-Errorcode"); got != name {
		a.Errorf("%s: iothub-errorcode %q, want %q: %s", a.what, got, name, a.body)
	}
	return a
}

// at returns the member at a dotted path, as JSON; "" when it is absent.
func (a *reply) at(path string) string {
	a.Helper()
	v := a.doc
	for part := range strings.SplitSeq(path, ".") {
		switch parent := v.(type) {
		case map[string]any:
			child, ok := parent[part]
			if !ok {
				return ""
			}
			v = child
		case []any:
			i := int(part[0] - '0')
			if i >= len(parent) {
				return ""
			}
			v = parent[i]
		default:
			return ""
		}
	}
	return string(encode(v))
}

// is checks the member at a dotted path against JSON text.
func (a *reply) is(path, want string) *reply {
	a.Helper()
	if got := a.at(path); got != want {
		a.Errorf("%s: %s is %s, want %s", a.what, path, got, want)
	}
	return a
}

// text returns a string member.
func (a *reply) text(path string) string {
	a.Helper()
	var s string
	if err := json.Unmarshal([]byte(a.at(path)), &s); err != nil {
		a.Fatalf("%s: %s is %s", a.what, path, a.at(path))
	}
	return s
}

// create makes a device and returns it.
func (f *fixture) create(id string) *reply {
	f.Helper()
	return f.do("PUT", "/devices/"+url.PathEscape(id), `{"deviceId":`+string(encode(id))+`}`).want(200)
}

// normal makes an answer comparable: what differs from run to run becomes a word.
func normal(body []byte) []byte {
	for _, r := range []struct{ pattern, with string }{
		{`"(etag|deviceEtag|generationId|requestId|epoch)":"[^"]+"`, `"$1":"VALUE"`},
		{`"[A-Za-z0-9+/]{43}="`, `"KEY"`},
		{`SharedAccessKey=[A-Za-z0-9+/]{43}=`, `SharedAccessKey=KEY`},
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z`, `TIME`},
		{`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ`, `TIME`},
		{`[0-9A-F]{32}`, `TRACKING`},
		{`TimeStamp:[0-9/]+ [0-9:]+`, `TimeStamp:TIME`},
		{`ms-azure-iot-edge://(\w+)-\d+`, `ms-azure-iot-edge://$1-TICKS`},
	} {
		body = regexp.MustCompile(r.pattern).ReplaceAll(body, []byte(r.with))
	}
	return body
}

// golden compares a normalised answer with testdata/NAME.json.
func (a *reply) golden(name string) *reply {
	a.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, normal(a.body), "", "  "); err != nil {
		a.Fatal(err)
	}
	b.WriteByte('\n')
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
			a.Fatal(err)
		}
		return a
	}
	want, err := os.ReadFile(file)
	if err != nil {
		a.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		a.Errorf("%s differs from %s (-update writes it):\n%s", a.what, file, b.Bytes())
	}
	return a
}

// runs lets the hub work in the background until the test ends.
func (f *fixture) runs() {
	f.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.hub.Run(ctx) }()
	f.Cleanup(func() { stop(); <-done })
}
