package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sentJob runs a preview and returns the job that was sent.
func sentJob(t *testing.T, in string, args ...string) (outcome, string) {
	t.Helper()
	var body []byte
	dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ = io.ReadAll(r.Body)
		_, _ = w.Write([]byte(`{"job":{"targets":{},"action":{}},"count":0,"waves":[],"sample":[],"excluded":[],"conflicts":[],"warnings":[],"token":"t","expiresTime":"2026-11-30T09:00:00Z"}`))
	}))
	got := call{args: append(append([]string{"job", "preview"}, args...), "--data", dir), in: in}.run(t)
	return got, string(body)
}

func TestJobFlags(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ids.txt", "d1\r\n\n  d2/m1 \n")
	write("job.yaml", "description: night\ntargets:\n  where: tags.site == 'A'\naction:\n  twin:\n    desired: {interval: 1.50, list: [1, 2]}\npolicy:\n  waves:\n    - {size: 1, soak: 5m}\n    - {size: 100%}\n  priority: 3\n")
	write("job.json", `{"targets":{"where":"true"},"action":{"twin":{"desired":{"a":{"b":1},"c":2}}},"policy":{"priority":1,"retry":{"attempts":2}}}`)
	for _, c := range []struct {
		name, in string
		args     []string
		want     string
	}{
		{"patch", "", []string{"--where", "tags.site == 'A'", "--patch", "desired.x=1.0", "tags.y=null", "desired.s=a,b"}, `{"sample":10,"targets":{"where":"tags.site == 'A'"},"action":{"twin":{"tags":{"y":null},"desired":{"x":1.0,"s":"a,b"}}}}`},
		{"method", "", []string{"--ids", "d1,d2", "--ids", "@ids.txt", "--exclude", "d9", "--method", "reboot", "--payload", `{"delay":5}`, "--response-timeout", "30s", "--offline", "fail", "--confirm", "reported.up"}, `{"sample":10,"targets":{"ids":["d1","d2","d1","d2/m1"],"exclude":["d9"]},"action":{"method":{"name":"reboot","payload":{"delay":5},"responseTimeout":"30s"},"offline":"fail","confirm":"reported.up"}}`},
		{"waves", "", []string{"--query", "old", "--dynamic", "--method", "m", "--waves", "1,10%,100%", "--diverse", "--diverse-by", "reported.fw,tags.site", "--soak", "10m", "--approve-from", "2", "--health", "reported.bad", "--health-most", "2%", "--health-else", "abort"}, `{"sample":10,"targets":{"query":"old","diverseBy":["reported.fw","tags.site"],"dynamic":true},"action":{"method":{"name":"m"}},"policy":{"waves":[{"size":"1","diverse":true,"soak":"10m","health":{"where":"reported.bad","atMost":"2%","otherwise":"abort"}},{"size":"10%","diverse":true,"approval":true,"soak":"10m","health":{"where":"reported.bad","atMost":"2%","otherwise":"abort"}},{"size":"100%","approval":true,"health":{"where":"reported.bad","atMost":"2%","otherwise":"abort"}}]}}`},
		{"pace", "", []string{"--where", "true", "--method", "m", "--rate", "2/s", "--rate-factor", "2", "--rate-every", "1000", "--rate-most", "60000/h", "--parallel", "5", "--priority=-2"}, `{"sample":10,"targets":{"where":"true"},"action":{"method":{"name":"m"}},"policy":{"rate":{"perMinute":120,"factor":2,"every":1000,"of":"succeeded","most":1000},"parallel":5,"priority":-2}}`},
		{"times", "", []string{"--where", "true", "--method", "m", "--window", "0 22 * * 1-5 6h Europe/Paris", "--window", "@daily 1h30m", "--window", "*/5 1,2 1-3 * SUN 2d tags.timezone", "--start", "2026-12-01T22:00:00+01:00", "--end", "2026-12-02T00:00:00Z", "--at-end", "cancel", "--repeat", "0 3 * * 0", "--repeat-zone", "UTC"}, `{"sample":10,"targets":{"where":"true"},"action":{"method":{"name":"m"}},"policy":{"windows":[{"cron":"0 22 * * 1-5","duration":"6h","timeZone":"Europe/Paris"},{"cron":"@daily","duration":"1h30m"},{"cron":"*/5 1,2 1-3 * SUN","duration":"2d","zoneTag":"tags.timezone"}],"start":"2026-12-01T21:00:00Z","end":"2026-12-02T00:00:00Z","atEnd":"cancel","repeat":"0 3 * * 0","repeatZone":"UTC"}}`},
		{"ends", "", []string{"--where", "true", "--method", "m", "--device-timeout", "1d12h", "--attempt-timeout", "5m", "--retries", "2", "--retry-on", "failed,offline", "--backoff", "30s", "--pause-at", "5%", "--abort-at", "20", "--least", "10"}, `{"sample":10,"targets":{"where":"true"},"action":{"method":{"name":"m"}},"policy":{"timeout":"1d12h","attemptTimeout":"5m","retry":{"attempts":3,"on":["failed","offline"],"backoff":"30s","factor":2},"pause":[{"share":"5%","least":10}],"abort":[{"share":"20","least":10}]}}`},
		{"labels", "", []string{"--where", "true", "--modules", "--exclude-where", "tags.x", "--method", "m", "--description", "d", "--label", "a=b=c", "--label", "k=v"}, `{"sample":10,"description":"d","labels":{"a":"b=c","k":"v"},"targets":{"where":"true","source":"modules","excludeWhere":"tags.x"},"action":{"method":{"name":"m"}}}`},
		{"yaml", "", []string{"-f", "job.yaml", "--priority", "7"}, `{"sample":10,"description":"night","targets":{"where":"tags.site == 'A'"},"action":{"twin":{"desired":{"interval":1.5,"list":[1,2]}}},"policy":{"waves":[{"size":1,"soak":"5m"},{"size":"100%"}],"priority":7}}`},
		{"json", "", []string{"-f", "job.json", "--patch", "desired.z=1", "--retries", "4"}, `{"sample":10,"targets":{"where":"true"},"action":{"twin":{"desired":{"z":1}}},"policy":{"priority":1,"retry":{"attempts":5}}}`},
		{"standard input", `{"anything":[1]}`, []string{"-f", "-"}, `{"sample":10,"anything":[1]}`},
		{"template", "", []string{"--template", "nightly", "--where", "true", "--sample", "3"}, `{"sample":3,"template":"nightly","targets":{"where":"true"}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, body := sentJob(t, c.in, c.args...)
			if got.code != ExitOK {
				t.Fatal(got.err)
			}
			if !jobJSON(t, body, c.want) {
				t.Errorf("sent %s\nwant %s", body, c.want)
			}
		})
	}
}

// jobJSON compares two documents, with numbers as they are written but for
// YAML's, which has none of 1.50.
func jobJSON(t *testing.T, a, b string) bool {
	t.Helper()
	normal := func(s string) string {
		var v any
		if err := json.Unmarshal([]byte(s), &v); err != nil {
			t.Fatalf("%v in %s", err, s)
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	return normal(a) == normal(b)
}

func TestJobFlagsRefused(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, text := range map[string]string{
		"bad.yaml": "targets: [", "bad.json": `{"a":`, "list.yaml": "- 1\n", "empty.yaml": "", "twice.json": `{"targets":{"where":"true"},"targets":{"where":"false"}}`, "alias.yaml": "a: &a [x]\ntargets: *a\n",
		"big.json": `{"a":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--method", "m"}, "no targets"},
		{[]string{"--where", "true"}, "no action"},
		{[]string{"--where", "true", "--method", "m", "--patch", "desired.x=1"}, "does one thing"},
		{[]string{"--where", "true", "--patch", "reported.x=1"}, "device's own"},
		{[]string{"--where", "true", "--patch", "desired.x"}, "PATH=VALUE"},
		{[]string{"--where", "true", "--method", "m", "--payload", "{x"}, "not JSON"},
		{[]string{"--where", "true", "--payload", "1"}, "--method"},
		{[]string{"--where", "true", "--method", "m", "--soak", "10m"}, "about waves"},
		{[]string{"--where", "true", "--method", "m", "--soak", "10"}, "span of time"},
		{[]string{"--where", "true", "--method", "m", "--waves", "1,100%", "--approve-from", "3"}, "there are 2 waves"},
		{[]string{"--where", "true", "--method", "m", "--health-most", "2%"}, "--health"},
		{[]string{"--where", "true", "--method", "m", "--waves", "1,100%", "--diverse-by", "tags.site"}, "--diverse"},
		{[]string{"--where", "true", "--method", "m", "--rate", "50"}, "50/m"},
		{[]string{"--where", "true", "--method", "m", "--rate", "0/m"}, "50/m"},
		{[]string{"--where", "true", "--method", "m", "--rate", "NaN/m"}, "50/m"},
		{[]string{"--where", "true", "--method", "m", "--rate-every", "5"}, "--rate"},
		{[]string{"--where", "true", "--method", "m", "--window", "0 22 * * 6h"}, "CRON SPAN"},
		{[]string{"--where", "true", "--method", "m", "--window", "0 22 * * 1-5 six"}, "CRON SPAN"},
		{[]string{"--where", "true", "--method", "m", "--start", "tomorrow"}, "span from now"},
		{[]string{"--where", "true", "--method", "m", "--retries=-1"}, "negative"},
		{[]string{"--where", "true", "--method", "m", "--backoff", "1m"}, "--retries"},
		{[]string{"--where", "true", "--method", "m", "--least", "3"}, "--pause-at"},
		{[]string{"--where", "true", "--method", "m", "--sample", "0"}, "1 to 1000"},
		{[]string{"--ids", "d1", "--modules", "--method", "m"}, "--where"},
		{[]string{"--ids", "@nothing.txt", "--method", "m"}, "nothing.txt"},
		{[]string{"-f", "nothing.yaml"}, "nothing.yaml"},
		{[]string{"-f", "bad.yaml"}, "not valid YAML"},
		{[]string{"-f", "bad.json"}, "not valid JSON"},
		{[]string{"-f", "list.yaml"}, "not an object"},
		{[]string{"-f", "empty.yaml"}, "not an object"},
		{[]string{"-f", "twice.json"}, `twice.json has the member "targets" twice`},
		{[]string{"-f", "alias.yaml"}, "alias.yaml has an alias in line 2"},
		{[]string{"-f", "-"}, "standard input is not an object"},
		{[]string{"-f", "big.json"}, "larger than 1 MiB"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			got, body := sentJob(t, "", c.args...)
			if got.code != ExitUsage || !strings.Contains(got.err, c.want) {
				t.Errorf("exit code %d, standard error must hold %q:\n%s", got.code, c.want, got.err)
			}
			if body != "" {
				t.Errorf("sent %s", body)
			}
		})
	}
}

func TestMomentOf(t *testing.T) {
	now := time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{"": "", "2h": "2026-11-30T11:00:00Z", "+90m": "2026-11-30T10:30:00Z", "1d": "2026-12-01T09:00:00Z", "2026-12-01T00:00:00+02:00": "2026-11-30T22:00:00Z"} {
		if got, err := momentOf("--start", text, now); err != nil || got != want {
			t.Errorf("%q is %q, want %q: %v", text, got, want, err)
		}
	}
}
