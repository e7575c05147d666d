package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/protocols/cli"
)

// readBundle returns the parts of a bundle by name.
func readBundle(t *testing.T, file string) map[string][]byte {
	t.Helper()
	st, err := os.Stat(file)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v, want a file for its owner alone", st, err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string][]byte{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return parts
		}
		if err != nil {
			t.Fatal(err)
		}
		if parts[filepath.Base(h.Name)], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// encodings are the forms in which a secret could leave.
func encodings(secret []byte) map[string][]byte {
	forms := map[string][]byte{"plain": secret}
	if raw, err := base64.StdEncoding.DecodeString(string(secret)); err == nil && len(raw) > 8 {
		forms["decoded"] = raw
	}
	for name, b := range map[string][]byte{"plain": secret, "decoded": forms["decoded"]} {
		if len(b) == 0 {
			continue
		}
		forms[name+" in hex"] = []byte(hex.EncodeToString(b))
		forms[name+" in HEX"] = []byte(strings.ToUpper(hex.EncodeToString(b)))
		forms[name+" in base64"] = []byte(strings.TrimRight(base64.StdEncoding.EncodeToString(b), "="))
		forms[name+" in base64 for URLs"] = []byte(strings.TrimRight(base64.URLEncoding.EncodeToString(b), "="))
		forms[name+" in a URL"] = []byte(url.QueryEscape(string(b)))
		forms[name+" in a path"] = []byte(url.PathEscape(string(b)))
	}
	return forms
}

// A hub that is full of secrets, which clients also write where they do not
// belong, gives a bundle without a single one.
func TestBundleHoldsNoSecret(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	const planted = "Pl4nted-8f31c2"
	secrets := map[string][]byte{"planted": []byte(planted)}
	token := filepath.Join(b.dir, "metrics-token")
	secrets["metrics token"] = []byte("m3trics-t0ken-b07d1e")
	if err := os.WriteFile(token, append(secrets["metrics token"], '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	hub := b.start("serve", "--metrics-token-file", token, "--http", "127.0.0.1:0", "--log-level", "debug", "--acme-host", "hub.example.net", "--acme-directory", "https://me:"+planted+"@127.0.0.1:1/")
	hub.wait("ready in")
	data := filepath.Join(b.dir, "muster-data")

	// What the hub itself keeps.
	key := func(name, text string) {
		t.Helper()
		m := regexp.MustCompile(`SharedAccessKey=([A-Za-z0-9+/=]+)`).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("no key in %q", text)
		}
		secrets[name] = []byte(m[1])
	}
	b.must("device", "create", "d1")
	device := regexp.MustCompile(`HostName=\S+`).FindString(b.must("device", "connection-string", "d1"))
	key("device key", device)
	for _, policy := range []string{"iothubowner", "service", "device"} {
		key("key of "+policy, b.must("connection-string", "--policy", policy))
	}
	made := b.must("webhook", "create", "w1", "https://192.0.2.1/in?token="+planted, "-o", "json")
	var webhook struct{ Secret string }
	if err := json.NewDecoder(strings.NewReader(made[strings.Index(made, "{"):])).Decode(&webhook); err != nil || webhook.Secret == "" {
		t.Fatalf("no secret of a webhook in %s (%v)", made, err)
	}
	secrets["webhook secret"] = []byte(strings.TrimPrefix(webhook.Secret, "whsec_"))
	for _, name := range []string{"master.key", "tls/ca.key"} {
		text, err := os.ReadFile(filepath.Join(data, name))
		if err != nil {
			t.Fatal(err)
		}
		if block, _ := pem.Decode(text); block != nil {
			text = block.Bytes
		}
		secrets[name] = bytes.TrimSpace(text)
	}

	// What clients write where it does not belong.
	b.must("device", "create", "d2-SharedAccessKey="+planted)
	for name, text := range map[string][]byte{"policy": secrets["key of service"], "device": secrets["device key"], "master": secrets["master.key"][:40]} {
		leak := filepath.Join(data, name+"-"+base64.URLEncoding.EncodeToString(text))
		if name == "device" {
			leak = filepath.Join(data, "copy-of-HostName=localhost;DeviceId=d1;SharedAccessKey="+url.PathEscape(string(text)))
		}
		if err := os.WriteFile(leak, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.must("twin", "patch", "d1", `desired.password="`+planted+`"`)
	var hubInfo struct {
		Listeners []struct{ Kind, Address string }
	}
	status := b.must("status", "-o", "json")
	var whole struct{ Hub json.RawMessage }
	if err := errors.Join(json.Unmarshal([]byte(status), &whole), json.Unmarshal(whole.Hub, &hubInfo)); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // this machine's own
	defer client.CloseIdleConnections()
	signature := url.QueryEscape(string(secrets["device key"]))
	for _, l := range hubInfo.Listeners {
		if l.Kind == "mqtts" {
			continue
		}
		for path, authorization := range map[string]string{
			"/devices/d1?api-version=2021-04-12&sig=" + planted:                      "SharedAccessSignature sr=localhost&sig=" + signature + "&se=9999999999&skn=" + planted,
			"/devices/" + url.PathEscape(device) + "?api-version=2021-04-12":         "Bearer " + planted,
			"/api/v1/devices/SharedAccessKey=" + signature:                           device,
			"/devices/d1/messages/events?api-version=2020-03-13&password=" + planted: "SharedAccessSignature sr=localhost%2Fdevices%2Fd1&sig=" + signature + "&se=9999999999",
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.Kind+"://"+l.Address+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", authorization)
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
		}
	}

	file := filepath.Join(b.dir, "bundle.tar.gz")
	out := b.must("doctor", "--bundle", file)
	if !strings.Contains(out, "bytes written to") {
		t.Errorf("doctor says %s", out)
	}
	parts := readBundle(t, file)
	for name, holds := range map[string]string{
		"doctor.json": `"open files"`, "version.json": "GOOS", "hub.json": "listeners", "status.json": "twin.desired", "metrics.txt": "muster_ready 1",
		"config.json": `"metrics-token-file":"[redacted]"`, "log.txt": "level=", "goroutines.txt": "goroutine ", "heap.pprof": "", "files.txt": "master.key", "connections.json": "[",
	} {
		if part, ok := parts[name]; !ok || !bytes.Contains(part, []byte(holds)) {
			t.Errorf("%s lacks %q: %.200s", name, holds, part)
		}
	}
	if text, ok := parts["errors.txt"]; ok {
		t.Errorf("parts are missing: %s", text)
	}
	if zip, err := gzip.NewReader(bytes.NewReader(parts["heap.pprof"])); err != nil {
		t.Error(err)
	} else if parts["heap.pprof (unpacked)"], err = io.ReadAll(zip); err != nil {
		t.Error(err)
	}
	size := 0
	for name, part := range parts {
		size += len(part)
		for secret, value := range secrets {
			for form, b := range encodings(value) {
				if bytes.Contains(part, b) {
					t.Errorf("%s holds the %s, %s", name, secret, form)
				}
			}
		}
	}
	if size > 32<<20 {
		t.Errorf("the bundle holds %d bytes", size)
	}
	if out, code := b.run("doctor", "--bundle", file); code != cli.ExitConflict || !strings.Contains(out, "exists already") {
		t.Errorf("a bundle was written over: %d %s", code, out)
	}

	// Also without a hub.
	hub.stop(os.Interrupt)
	if _, code := b.run("doctor", "--bundle", filepath.Join(b.dir, "off.tar.gz")); code > 1 {
		t.Errorf("without a hub: exit code %d", code)
	}
	if parts := readBundle(t, filepath.Join(b.dir, "off.tar.gz")); parts["files.txt"] == nil || parts["doctor.json"] == nil {
		t.Error("a bundle without a hub lacks findings or files")
	}
}
