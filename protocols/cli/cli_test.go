package cli

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// outcome is what a run of the command line left behind.
type outcome struct {
	code     int
	out, err string
}

// call describes a run.
type call struct {
	args  []string
	env   map[string]string
	in    string
	hooks Hooks
	width int

	terminal bool // questions can be asked
}

func (c call) run(t *testing.T) outcome {
	t.Helper()
	var out, errOut bytes.Buffer
	a := newApp(t.Context(), IO{
		In: strings.NewReader(c.in), Out: &out, Err: &errOut, Env: func(name string) string { return c.env[name] },
	}, c.hooks)
	a.zone, a.width, a.inTerminal = time.UTC, c.width, c.terminal
	a.tabTime = time.Minute // a busy machine is no reason to lack candidates
	code := a.run(c.args)
	return outcome{code, out.String(), errOut.String()}
}

func words(s string) []string { return strings.Fields(s) }

func TestUsage(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		args string
		code int
		err  string // must be in standard error
	}{
		{"", ExitOK, ""},
		{"--help", ExitOK, ""},
		{"device --help", ExitOK, ""},
		{"device lsit", ExitUsage, `did you mean "list"`},
		{"module disable d m", ExitUsage, "`muster device disable DEVICE`"},
		{"device list --limt 3", ExitUsage, "--limit"},
		{"device list -o yaml", ExitUsage, "muster: --output is \"yaml\"; expected table, json, jsonl or csv\n"},
		{"device list -x", ExitUsage, "muster: unknown flag -x, did you mean"},
		{"job list --kind x", ExitUsage, "muster: --kind is \"x\"; expected twin, method, run, import or export\n"},
		{"debug log-level loud", ExitUsage, "is \"loud\"; expected debug, info, warn or error\n"},
		{"device show", ExitUsage, "muster device show --help"},
		{"device update d1", ExitUsage, "nothing to change"},
		{"device delete d1", ExitUsage, "--yes"},
		{"device delete d1 d2 --etag x --yes", ExitUsage, "one by one"},
		{"device create d1 --primary-key-file k", ExitUsage, "only one key"},
		{"device create d1 --auth sas --primary-thumbprint aa", ExitUsage, "selfSigned"},
		{"device list", ExitConnect, "muster serve"},
		{"twin patch d1", ExitUsage, "PATH=VALUE"},
		{"twin patch d1 a=1", ExitUsage, "tags.a"},
		{"twin patch d1 reported.a=1", ExitUsage, "device's own"},
		{"twin show a/b/c", ExitUsage, "DEVICE/MODULE"},
		{"twin replace d1 -f nothing.json", ExitUsage, "nothing.json"},
		{"method invoke d1 ping {x", ExitUsage, "not JSON"},
		{"policy create p Everything", ExitUsage, "Everything"},
		{"demo --devices 0", ExitUsage, "1 to 10000"},
		{"demo", ExitConnect, "muster serve"},
		{"demo clean", ExitUsage, "--yes"},
		{"serve", ExitFailed, "no serve"},
		{"serve --host a/b --print-config", ExitUsage, "host name"},
		{"serve --https 8443 --print-config", ExitUsage, "HOST:PORT"},
		{"serve --memory lots --print-config", ExitUsage, "2GiB"},
		{"serve --cert c.pem --print-config", ExitUsage, "both or neither"},
		{"serve --backup-dir d --backup-keep 0 --print-config", ExitUsage, "1 or more"},
		{"serve --backup-dir d --backup-every 0s --print-config", ExitUsage, "such as 24h"},
		{"serve --backup-keep 3 --print-config", ExitUsage, "expected --backup-dir"},
		{"serve --config none.yaml", ExitUsage, "none.yaml"},
		{"help devise", ExitUsage, "muster device"},
		{"completion tcsh", ExitUsage, "bash"},
		{"device list --hub HostName=h;SharedAccessKeyName=p;SharedAccessKey=c2VjcmV0c2VjcmV0c2VjcmV0", ExitUsage, "in clear"},
		{"device list --hub env:NOTHING", ExitUsage, "NOTHING"},
		{"device list --hub nothing.txt", ExitUsage, "nothing.txt"},
		{"device list --hub x --data y", ExitUsage, "two hubs"},
	} {
		t.Run(c.args, func(t *testing.T) {
			got := call{args: words(c.args)}.run(t)
			if got.code != c.code || !strings.Contains(got.err, c.err) {
				t.Errorf("exit code %d, want %d; standard error must hold %q and is:\n%s", got.code, c.code, c.err, got.err)
			}
			if strings.Contains(got.err, "c2VjcmV0") {
				t.Error("standard error shows a key")
			}
			if c.code != ExitOK && got.err == "" {
				t.Error("an error without a word")
			}
		})
	}
}

// TestEmptyArguments: an argument that is empty names nothing, wherever a name is
// expected, and is refused before a hub is asked.
func TestEmptyArguments(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		args []string
		err  string // must be in standard error; "" where an empty text is one
	}{
		{[]string{"run", "trace", ""}, "<run> is missing"},
		{[]string{"run", "trace", ""}, "Id of the run."},
		{[]string{"run", "approve", "r-1", ""}, "<run> is missing"},
		{[]string{"pattern", "show", ""}, "<pattern> is missing"},
		{[]string{"device", "show", ""}, "<id> is missing"},
		{[]string{"job", "executions", ""}, "<job> is missing"},
		{[]string{"twin", "patch", "d", ""}, "<path=value> is missing"},
		{[]string{"webhook", "show", ""}, "`muster webhook show --help`"},
		{[]string{"message", "send", "d", ""}, ""},
		{[]string{"__complete", "--", "run", ""}, ""},
	} {
		got := call{args: c.args}.run(t)
		switch missing := strings.Contains(got.err, "is missing"); {
		case c.err == "" && missing:
			t.Errorf("%q: %s", c.args, got.err)
		case c.err != "" && (got.code != ExitUsage || !strings.Contains(got.err, c.err)):
			t.Errorf("%q: exit code %d, standard error must hold %q and is:\n%s", c.args, got.code, c.err, got.err)
		}
	}
}

func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("muster.yaml", []byte("data: from-file\nlog-level: warn\nhost: [a.example, b.example]\ndrain: 3s\nlimits: azure\nmemory: 1GiB\nquiet: true\nhttps: ':443'\nbackup-dir: d\nbackup-keep: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"MUSTER_DATA": "from-env", "MUSTER_LOG_LEVEL": "error", "MUSTER_MQTTS": ":8883, :8884"}
	got := call{args: words("serve --print-config --data from-flag"), env: env}.run(t)
	if got.code != ExitOK {
		t.Fatal(got.err)
	}
	for _, want := range []string{
		`data: "from-flag"`, "# flag",
		`log-level: "error"`, "# environment MUSTER_LOG_LEVEL",
		`host: ["a.example", "b.example"]`, "# file muster.yaml",
		`mqtts: [":8883", ":8884"]`, "# environment MUSTER_MQTTS",
		`https: [":443"]`, "drain: 3s", `limits: "azure"`, "memory: 1GiB", "quiet: true",
		`log-format: "text"`, "# default", "backup-keep: 3", "# backup-every:",
	} {
		if !strings.Contains(got.out, want) {
			t.Errorf("the settings lack %q:\n%s", want, got.out)
		}
	}
	// What is printed is a config file with the same meaning.
	if err := os.WriteFile("again.yaml", []byte(got.out), 0o600); err != nil {
		t.Fatal(err)
	}
	again := call{args: words("serve --print-config --config again.yaml")}.run(t)
	strip := func(s string) string {
		var b strings.Builder
		for line := range strings.Lines(s) {
			text, _, _ := strings.Cut(line, "  #")
			b.WriteString(strings.TrimSpace(text) + "\n")
		}
		return b.String()
	}
	if strip(again.out) != strip(got.out) {
		t.Errorf("read again it is\n%s\nwant\n%s\n%s", again.out, got.out, again.err)
	}
}

func TestConfigRefused(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown", "htps: ':1'\n", `"https"`},
		{"map", "host: {a: b}\n", "map"},
		{"null", "host:\n", "no value"},
		{"nested", "host: [[a]]\n", "single value"},
		{"syntax", "host: [a\n", "YAML"},
		{"list for one", "data: [a, b]\n", "expected one"},
		{"value", "limits: huge\n", "azure"},
		{"wildcard by ACME", "acme-host: ['*.example.net']\n", "no wildcard"},
		{"address by ACME", "acme-host: [192.0.2.1]\n", "or address"},
		{"name without a dot by ACME", "acme-host: [localhost]\n", "with a dot"},
		{"ACME without a name", "acme-email: ops@example.net\n", "--acme-host"},
		{"ACME without HTTPS", "acme-host: [hub.example.net]\nhttps: []\n", "--https"},
		{"ACME and a file", "acme-host: [hub.example.net]\ncert: c\nkey: k\n", "exclude"},
		{"directory of ACME", "acme-host: [hub.example.net]\nacme-directory: letsencrypt\n", "ca.example.net"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.WriteFile("muster.yaml", []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got := call{args: words("check-config")}.run(t)
			if got.code != ExitUsage || !strings.Contains(got.err, c.want) {
				t.Errorf("exit code %d, standard error must hold %q:\n%s", got.code, c.want, got.err)
			}
		})
	}
}

// A config file for serve must not reach flags of the same name elsewhere.
func TestConfigOfServeStaysThere(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("muster.yaml", []byte("quiet: true\nhttps: ':1'\ndata: there\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := call{args: words("device list")}.run(t)
	if !strings.Contains(got.err, filepath.Join("there", socketName)) {
		t.Errorf("the data directory of the config file is not used:\n%s", got.err)
	}
}

func TestHooks(t *testing.T) {
	t.Chdir(t.TempDir())
	locked := errors.New("the directory is in use by process 4711")
	hooks := Hooks{
		Version: "1.2.3",
		Serve: func(_ context.Context, f ServeFlags, _ IO) error {
			if f.Data == "taken" {
				return locked
			}
			return nil
		},
		Verify: func(_ context.Context, f StoreFlags, _ IO) (Report, error) {
			return Report{OK: f.Data == "good", Findings: []Finding{{"journal", "ok", "3 records.", ""}}}, nil
		},
		Repair: func(context.Context, StoreFlags, IO) (Report, error) {
			return Report{OK: true, Findings: []Finding{{"journal", "warn", "cut 12 bytes.", ""}}}, nil
		},
		CheckConfig: func(context.Context, ServeFlags, IO) ([]Finding, error) {
			return []Finding{{"cert", "fail", "no such file.", "Check --cert."}, {"key", "warn", "open k.pem: no such file", "Check --key."}}, nil
		},
		DoctorOffline: func(context.Context, StoreFlags, IO) ([]Finding, error) {
			return []Finding{{"disk", "ok", "enough space.", ""}}, nil
		},
		ExitCode: func(err error) (int, string, bool) {
			return ExitConflict, "Stop it first.", errors.Is(err, locked)
		},
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"serve", ExitOK, ""},
		{"serve --data taken", ExitConflict, "Stop it first."},
		{"verify --data good", ExitOK, "3 records."},
		{"verify --data bad", ExitFailed, "damaged"},
		{"repair", ExitUsage, "--yes"},
		{"repair --yes", ExitOK, "cut 12 bytes."},
		{"check-config", ExitUsage, "no such file. Next: Check --cert."},
		{"check-config", ExitUsage, "open k.pem: no such file. Next: Check --key."},
		{"doctor", ExitOK, "enough space."},
		{"version", ExitOK, "Muster 1.2.3"},
	} {
		t.Run(c.args, func(t *testing.T) {
			got := call{args: words(c.args), hooks: hooks}.run(t)
			if got.code != c.code || !strings.Contains(got.out+got.err, c.want) {
				t.Errorf("exit code %d, want %d with %q:\n%s%s", got.code, c.code, c.want, got.out, got.err)
			}
		})
	}
}

// fakeHub answers on a unix socket in a data directory, which it returns.
func fakeHub(t *testing.T, h http.Handler) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "m") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return dir
}

// A hub that refuses the only device is no hub without devices.
func TestCreateRefused(t *testing.T) {
	dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		_, _ = w.Write([]byte(`{"Message":"ErrorCode:DeviceAlreadyExists;A device with ID 'd1' is already registered."}`))
	}))
	got := call{args: []string{"device", "create", "d1", "--data", dir}}.run(t)
	if got.code != ExitConflict || got.out != "" || strings.Contains(got.err, "No devices") {
		t.Errorf("exit code %d, want %d; wrote %q and\n%s", got.code, ExitConflict, got.out, got.err)
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		name, body string
		header     string
		status     int
		code       int
		want       string
	}{
		{"not found", `{"Message":"ErrorCode:DeviceNotFound;d1 is not registered","ExceptionMessage":"Tracking ID:1"}`, "", 404, ExitNotFound, "device list"},
		{"an id alone", `{"Message":"ErrorCode:DeviceNotFound;d1","ExceptionMessage":"Tracking ID:1"}`, "", 404, ExitNotFound, "muster: there is no device \"d1\"\n"},
		{"a module's id alone", `{"Message":"ErrorCode:ModuleNotFound;d1/m","ExceptionMessage":"Tracking ID:1"}`, "", 404, ExitNotFound, "muster: there is no module \"d1/m\"\n"},
		{"header only", `{"Message":"gone"}`, "DeviceNotFound", 404, ExitNotFound, "device list"},
		{"nested", `{"Message":"{\"errorCode\":404103,\"message\":\"not online\"}","ExceptionMessage":""}`, "", 404, ExitConnect, "--connect-timeout"},
		{"gateway timeout", `{"Message":"{\"errorCode\":504101,\"message\":\"too slow\"}","ExceptionMessage":""}`, "", 504, ExitTimeout, "twin show"},
		{"unauthorized", `{"Message":"ErrorCode:IotHubUnauthorizedAccess;Unauthorized"}`, "", 401, ExitForbidden, "policy"},
		{"not allowed", `{"code":"OperationNotAllowed","detail":"policy.read needs the permission PolicyManage"}`, "", 403, ExitForbidden, "PolicyManage"},
		{"exists", `{"Message":"ErrorCode:DeviceAlreadyExists;d1"}`, "", 409, ExitConflict, "another id"},
		{"etag", `{"Message":"ErrorCode:PreconditionFailed;d1"}`, "", 412, ExitConflict, "ETag"},
		{"throttled", `{"Message":"ErrorCode:ThrottlingException;slow down"}`, "", 429, ExitLimited, "Wait"},
		{"too large", `{}`, "", 413, ExitLimited, ""},
		{"problem", `{"title":"no","status":404,"code":"PolicyNotFound","detail":"no policy","next":"do this","requestId":"r1"}`, "", 404, ExitNotFound, "do this"},
		{"unavailable", `oops`, "", 503, ExitConnect, "doctor"},
		{"html", "<html>proxy</html>", "", 502, ExitConnect, "502"},
		{"server", `{"code":"ServerError","detail":"internal error"}`, "", 500, ExitFailed, "internal error"},
		{"no JSON", "nonsense", "", 200, ExitFailed, "answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if c.header != "" {
					w.Header().Set("Iothub-Errorcode", c.header)
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			got := call{args: []string{"device", "show", "d1", "--data", dir}}.run(t)
			if got.code != c.code || !strings.Contains(got.err, c.want) {
				t.Errorf("exit code %d, want %d; standard error must hold %q:\n%s", got.code, c.code, c.want, got.err)
			}
			asJSON := call{args: []string{"device", "show", "d1", "--data", dir, "--json-errors"}}.run(t)
			var p map[string]any
			if err := json.Unmarshal([]byte(asJSON.err), &p); err != nil || p["exit"] != float64(c.code) {
				t.Errorf("--json-errors wrote %q: %v", asJSON.err, err)
			}
		})
	}
}

func TestPartlyFailed(t *testing.T) {
	dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/bad") {
			w.WriteHeader(404)
			_, _ = w.Write([]byte(`{"Message":"ErrorCode:DeviceNotFound;no such device"}`))
			return
		}
		w.WriteHeader(204)
	}))
	for args, code := range map[string]int{
		"device delete --yes good bad": ExitPartly,
		"device delete --yes bad bad":  ExitNotFound,
		"device delete --yes good":     ExitOK,
		"device delete --yes bad":      ExitNotFound,
	} {
		if got := (call{args: append(words(args), "--data", dir)}).run(t); got.code != code {
			t.Errorf("%s: exit code %d, want %d:\n%s", args, got.code, code, got.err)
		}
	}
}

func TestTimeout(t *testing.T) {
	dir := fakeHub(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	got := call{args: []string{"device", "show", "d1", "--data", dir, "--timeout", "50ms"}}.run(t)
	if got.code != ExitTimeout {
		t.Errorf("exit code %d, want %d:\n%s", got.code, ExitTimeout, got.err)
	}
}

// update rewrites the golden files: go test ./protocols/cli -update.
var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; -update writes it anew. Got:\n%s\nwant:\n%s", file, got, want)
	}
}

// outputHub answers with fixed documents.
func outputHub() http.Handler {
	device := `{"deviceId":"pump-1","generationId":"g1","etag":"AAA=","status":"enabled","statusReason":null,"connectionState":"Connected","lastActivityTime":"2026-11-22T20:00:01.5Z","authentication":{"type":"sas","symmetricKey":{"primaryKey":"c2VjcmV0","secondaryKey":"c2VjcmV0"}},"capabilities":{"iotEdge":false}}`
	odd := `{"deviceId":"pump-ü\u001b[31m","etag":"B","status":"disabled","statusReason":"stolen","connectionState":"Disconnected","lastActivityTime":"0001-01-01T00:00:00","authentication":{"type":"selfSigned","x509Thumbprint":{"primaryThumbprint":"AA","secondaryThumbprint":"BB"}}}`
	twin := `{"deviceId":"pump-1","etag":"AAAAAAAAAAE=","version":4,"status":"enabled","connectionState":"Connected","lastActivityTime":"2026-11-22T20:00:01Z","tags":{"site":"lyon"},"properties":{"desired":{"interval":1.50,"$metadata":{"$lastUpdated":"2026-11-22T19:00:00Z"},"$version":2},"reported":{"list":[1,{"a":"<b>"}],"$metadata":{"$lastUpdated":"2026-11-22T19:00:00Z"},"$version":3}}}`
	m := http.NewServeMux()
	answer := func(pattern, body string) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) })
	}
	answer("GET /api/v1/devices", `{"items":[`+device+`,`+odd+`],"cursor":""}`)
	answer("GET /devices/pump-1", device)
	answer("GET /twins/pump-1", twin)
	answer("PATCH /twins/pump-1", twin)
	answer("GET /api/v1/twins/pump-1/history", `{"items":[{"id":"desired:2","section":"desired","version":2,"time":"2026-11-22T19:00:00Z","principal":"local:uid=0","patch":{"interval":1.50},"undo":{"interval":null}},{"id":"tags:1","section":"tags","version":1,"time":"2026-11-22T18:00:00Z","principal":"policy:service","cause":"job:7","patch":{"site":"lyon"}}],"cursor":""}`)
	answer("GET /api/v1/twins/pump-1/diff", `{"changes":[{"path":"desired.interval","before":1,"after":1.50},{"path":"tags.old","before":"x"},{"path":"tags.site","after":"lyon"}]}`)
	answer("POST /twins/pump-1/methods", `{"status":200,"payload":{"pong":true}}`)
	answer("GET /api/v1/policies", `{"items":[{"name":"iothubowner","permissions":["RegistryRead","RegistryWrite"]},{"name":"service","permissions":["ServiceConnect"]}]}`)
	answer("GET /api/v1/audit", `{"items":[{"position":2,"time":"2026-11-22T19:00:00Z","principal":"local:uid=0","operation":"twin.patch","target":"pump-1","outcome":"refused","code":"PreconditionFailed","hash":"AA=="},{"position":1,"time":"2026-11-22T18:00:00Z","principal":"local:uid=0","operation":"identity.create","target":"pump-1","outcome":"done","hash":"AA=="}],"cursor":0}`)
	answer("GET /api/v1/hub", `{"name":"hub.example","hosts":["hub.example"],"version":"0.1.0","ready":true,"listeners":[{"kind":"https","address":"127.0.0.1:8443"},{"kind":"mqtts","address":"127.0.0.1:8883"}]}`)
	answer("GET /api/v1/status", `{"hub":{"name":"hub.example","version":"0.1.0","limits":"default","startedTime":"2026-11-22T18:00:00Z","ready":true},"devices":{"total":2,"enabled":1,"disabled":1,"connected":1},"modules":0,"rates":{"telemetry":26.04,"twin":9,"methods":0}}`)
	answer("GET /api/v1/devices/pump-1/connection-string", `{"connectionString":"HostName=hub.example;DeviceId=pump-1;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw=="}`)
	answer("GET /api/v1/policies/iothubowner/connection-string", `{"connectionString":"HostName=hub.example;SharedAccessKeyName=iothubowner;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw=="}`)
	answer("POST /api/v1/audit/verify", `{"entries":2,"ok":false,"firstBad":1}`)
	return m
}

func TestOutputs(t *testing.T) {
	dir := fakeHub(t, outputHub())
	for _, c := range []struct {
		name, args string
		code       int
	}{
		{"device-list", "device list", 0},
		{"device-list-json", "device list -o json", 0},
		{"device-list-jsonl", "device list -o jsonl", 0},
		{"device-list-csv", "device list -o csv", 0},
		{"device-show", "device show pump-1", 0},
		{"device-show-keys", "device show pump-1 --keys", 0},
		{"device-connection", "device connection-string pump-1", 0},
		{"connection", "connection-string", 0},
		{"connection-json", "connection-string -o json", 0},
		{"twin-show", "twin show pump-1", 0},
		{"twin-show-section", "twin show pump-1 --section desired --metadata", 0},
		{"twin-show-json", "twin show pump-1 -o json", 0},
		{"twin-show-csv", "twin show pump-1 -o csv --section reported", 0},
		{"twin-patch", "twin patch pump-1 desired.interval=1.50 tags.site=lyon", 0},
		{"twin-history", "twin history pump-1", 0},
		{"twin-history-jsonl", "twin history pump-1 -o jsonl", 0},
		{"twin-diff", "twin diff pump-1", 0},
		{"twin-diff-json", "twin diff pump-1 --from desired:1 -o json", 0},
		{"method", "method invoke pump-1 ping", 0},
		{"method-json", "method invoke pump-1 ping {\"a\":1} -o json", 0},
		{"policy-list", "policy list", 0},
		{"audit-list", "audit list", 0},
		{"audit-list-limit", "audit list --limit 1 -o csv", 0},
		{"audit-verify", "audit verify", ExitFailed},
		{"status", "status", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := call{args: append(words(c.args), "--data", dir)}.run(t)
			if got.code != c.code {
				t.Errorf("exit code %d, want %d", got.code, c.code)
			}
			golden(t, c.name, got.out+"--- standard error\n"+got.err)
		})
	}
}

func TestNarrowTerminal(t *testing.T) {
	dir := fakeHub(t, outputHub())
	got := call{args: []string{"twin", "history", "pump-1", "--data", dir}, width: 60}.run(t)
	for line := range strings.Lines(got.out) {
		if w := displayWidth(strings.TrimRight(line, "\n")); w > 60 {
			t.Errorf("a line is %d wide: %q", w, line)
		}
	}
	if !strings.Contains(got.out, "…") {
		t.Errorf("nothing was cut:\n%s", got.out)
	}
}

func TestPatchSendsDocument(t *testing.T) {
	for _, c := range []struct{ name, args, in, want string }{
		{"arguments", "twin patch d1 desired.fan.speed=3 tags.site=lyon tags.old=null desired.fan.mode=", "", `{"properties":{"desired":{"fan":{"speed":3,"mode":""}}},"tags":{"site":"lyon","old":null}}`},
		{"standard input", "twin patch d1 -f -", `{"desired":{"a":1.0},"tags":{"b":[1]}}`, `{"properties":{"desired":{"a":1.0}},"tags":{"b":[1]}}`},
		{"IoT Hub's form", "twin patch d1 -f -", `{"properties":{"desired":{"a":1.0}}}`, `{"properties":{"desired":{"a":1.0}}}`},
		{"replace", "twin replace d1 -f - --yes --etag E1", `{"tags":{}}`, `{"tags":{}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var body bytes.Buffer
			dir := fakeHub(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = body.ReadFrom(r.Body)
				if strings.Contains(c.args, "--etag") && r.Header.Get("If-Match") != `"E1"` {
					t.Errorf("If-Match is %q", r.Header.Get("If-Match"))
				}
				_, _ = w.Write([]byte(`{"deviceId":"d1","properties":{}}`))
			}))
			got := call{args: append(words(c.args), "--data", dir), in: c.in}.run(t)
			if got.code != 0 || strings.TrimSpace(body.String()) != c.want {
				t.Errorf("exit code %d, sent %s, want %s\n%s", got.code, body.String(), c.want, got.err)
			}
		})
	}
}

func TestCompletion(t *testing.T) {
	for shell, check := range map[string][]string{"bash": {"bash", "-n"}, "zsh": {"zsh", "-n"}, "fish": {"fish", "--no-execute"}} {
		t.Run(shell, func(t *testing.T) {
			got := call{args: []string{"completion", shell}}.run(t)
			if got.code != 0 || !strings.Contains(got.out, "__complete") {
				t.Fatalf("exit code %d:\n%s", got.code, got.out)
			}
			path, err := exec.LookPath(check[0])
			if err != nil {
				t.Logf("%s is not installed: its syntax is not checked", shell)
				return
			}
			cmd := exec.CommandContext(t.Context(), path, check[1:]...)
			cmd.Stdin = strings.NewReader(got.out)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func TestComplete(t *testing.T) {
	dir := fakeHub(t, outputHub())
	for _, c := range []struct {
		name  string
		words []string
		want  []string
		not   string
	}{
		{"root", []string{"de"}, []string{"device\t"}, "serve"},
		{"group", []string{"device", ""}, []string{"list\t", "connection-string\t"}, "__complete"},
		{"flag", []string{"device", "list", "--pre"}, []string{"--prefix\t"}, "--limit"},
		{"flag of the program", []string{"device", "list", "--js"}, []string{"--json-errors\t"}, ""},
		{"value of a flag", []string{"device", "list", "-o", "j"}, []string{"json", "jsonl"}, "table"},
		{"shells", []string{"completion", ""}, []string{"bash", "zsh", "fish"}, ""},
		{"device ids", []string{"twin", "show", "--data", dir, ""}, []string{"pump-1\tconnected"}, ""},
		{"paths", []string{"twin", "patch", "--data", dir, "pump-1", "d"}, []string{"desired."}, "tags."},
		{"policies", []string{"policy", "show", "--data", dir, "s"}, []string{"service\t"}, "iothubowner"},
		{"no hub", []string{"twin", "show", ""}, nil, "pump"},
		{"after --", []string{"--", "de"}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := call{args: append([]string{"__complete", "--"}, c.words...)}.run(t)
			if got.code != 0 || got.err != "" {
				t.Fatalf("exit code %d: %s", got.code, got.err)
			}
			for _, w := range c.want {
				if !strings.Contains("\n"+got.out, "\n"+w) {
					t.Errorf("lacks %q:\n%s", w, got.out)
				}
			}
			if c.not != "" && strings.Contains("\n"+got.out, "\n"+c.not) {
				t.Errorf("has %q:\n%s", c.not, got.out)
			}
		})
	}
}

func TestHelpForPrograms(t *testing.T) {
	got := call{args: words("help --json")}.run(t)
	var tree commandInfo
	if err := json.Unmarshal([]byte(got.out), &tree); err != nil || got.code != 0 {
		t.Fatalf("%v %s", err, got.err)
	}
	leaves := 0
	var walk func(commandInfo)
	walk = func(c commandInfo) {
		if c.Help == "" {
			t.Errorf("%s has no help", c.Command)
		}
		for _, v := range append(c.Args, c.Flags...) {
			if v.Help == "" {
				t.Errorf("%s: %s has no help", c.Command, v.Name)
			}
		}
		if len(c.Commands) == 0 {
			leaves++
		}
		for _, sub := range c.Commands {
			walk(sub)
		}
	}
	walk(tree)
	if leaves < 35 {
		t.Errorf("%d commands, want at least 35", leaves)
	}
	reference, err := Reference()
	if err != nil || !strings.Contains(reference, "## muster twin patch") || !strings.Contains(reference, "| 8 | ") {
		t.Errorf("the reference lacks what it should hold: %v", err)
	}
	if got := (call{args: words("help twin patch")}).run(t); got.code != 0 || !strings.Contains(got.out, "muster twin patch") {
		t.Errorf("help twin patch: %d\n%s", got.code, got.out)
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{"0": 0, "123": 123, "64KiB": 64 << 10, "512 MiB": 512 << 20, "2g": 2 << 30, "1TiB": 1 << 40} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%q is %d, want %d: %v", text, b, want, err)
		}
		var again Bytes
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Errorf("%s does not come back: %v", b, err)
		}
	}
	for _, text := range []string{"", "-1", "1.5GiB", "GiB", "1XB", "99999999999TiB", "1 2"} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken as %d", text, b)
		}
	}
}

// TestOutputObeysNobody prints what a device may have chosen to steer a terminal.
func TestOutputObeysNobody(t *testing.T) {
	const hostile = "a\u009b31m\x7f\u202e\U000e0041漢\xff"
	for _, form := range []struct {
		name  string
		write func(w *bytes.Buffer) error
		want  string
	}{
		{"json", func(w *bytes.Buffer) error { return writeJSON(w, json.RawMessage(`"`+hostile+`"`)) }, `"a\u009b31m\u007f\u202e\udb40\udc41漢\ufffd"` + "\n"},
		{"jsonl", func(w *bytes.Buffer) error { return writeJSONLine(w, []string{"\x1b[2J\u0085"}) }, `["\u001b[2J\u0085"]` + "\n"},
		{"csv on a terminal", func(w *bytes.Buffer) error {
			c := csvWriter{csv.NewWriter(w), true}
			return errors.Join(c.write([]string{"\x1b[2J", "x,y"}), c.flush())
		}, `\x1b[2J,"x,y"` + "\n"},
		{"csv for programs", func(w *bytes.Buffer) error { return writeCSV(w, []string{"A"}, [][]any{{"\x1b[2J"}}) }, "a\n\x1b[2J\n"},
	} {
		var b bytes.Buffer
		if err := form.write(&b); err != nil || b.String() != form.want {
			t.Errorf("%s: %q, want %q (%v)", form.name, b.String(), form.want, err)
		}
	}
	var streamed bytes.Buffer
	p := plainLines{w: &streamed}
	for _, part := range []string{"a,\x1b[2J\nb", ",\xc2", "\x9b\nc\t", "\u202e"} {
		if n, err := p.Write([]byte(part)); n != len(part) || err != nil {
			t.Error(n, err)
		}
	}
	if err := p.end(); err != nil || streamed.String() != `a,\x1b[2J`+"\n"+`b,\u009b`+"\n"+`c\t\u202e` {
		t.Errorf("streamed: %q (%v)", streamed.String(), err)
	}
	var back string
	if err := json.Unmarshal(plainJSON([]byte("\"\u009b\U000e0041\"")), &back); err != nil || back != "\u009b\U000e0041" {
		t.Errorf("programs read %q (%v)", back, err)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain ü 漢": "plain ü 漢", "a\x1b[31mb": `a\x1b[31mb`, "a\nb\tc": `a\nb\tc`, "a\xffb": `a\xffb`,
		"right\u202eleft": `right\u202eleft`, "\u009b": `\u009b`,
	} {
		if got := printable(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}
