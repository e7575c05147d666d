package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestPatternFormCommands has the hub check what was entered in forms, with the
// token of the status page's link, and gives the commands that come back to a
// shell as they are: the program takes them, and begins what was entered.
func TestPatternFormCommands(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	hub := b.serve("--http", "127.0.0.1:0")
	link := regexp.MustCompile(`(http://[^\s#]+/)#(\S+)`).FindStringSubmatch(hub.text())
	if link == nil {
		t.Fatalf("no link: %s", hub.text())
	}
	b.must("device", "create", "d,1", "d'2", "@d3")
	for _, c := range []struct{ pattern, entry, flags, where, want string }{
		{"reboot", `{"texts":{"delay":"7","online":"2h"},"targets":{"ids":["d,1"]}}`, "", "params", `{"delay":7,"online":"2h","within":"10m"}`},
		{"reboot", `{"targets":{"ids":["@d3"]}}`, "", "deviceId", `"@d3"`},
		{"configure", `{"texts":{"section":"fan","settings":"{\"a\": \"it's $HOME ` + "`x`" + `\\n!\", \"b\": [1, {}]}"},"targets":{"ids":["d'2"]}}`, "", "params",
			`{"section":"fan","settings":{"a":"it's $HOME ` + "`x`" + `\n!","b":[1,{}]},"within":"1h"}`},
		{"reboot", `{"targets":{"ids":["d,1","d'2"]}}`, "--yes", "targets", `{"ids":["d,1","d'2"]}`},
		{"configure", `{"texts":{"section":"fan","settings":"{\"a\":1}"},"targets":{"where":"deviceId in [\"d,1\", \"d'2\"]\nand true"}}`, "--yes", "targets", `{"where":"deviceId in [\"d,1\", \"d'2\"]\nand true"}`},
		{"progress-report", `{"texts":{"value":"-1 = x"}}`, "", "params", `{"every":"5m","property":"reported.firmware.version","rounds":288,"share":100,"value":"-1 = x"}`},
	} {
		check := checkForm(t, link[1], link[2], c.pattern, c.entry)
		if check.Command == "" {
			t.Errorf("%s %s: %s", c.pattern, c.entry, check.Faults)
			continue
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		cmd := exec.CommandContext(ctx, "sh", "-c", check.Command+" --no-watch -o json "+c.flags)
		cmd.Dir, cmd.Env = b.dir, b.env
		out, err := cmd.Output()
		stop()
		var begun map[string]json.RawMessage
		if err != nil || json.Unmarshal(out, &begun) != nil {
			t.Errorf("%s: %v\n%s", check.Command, err, out)
			continue
		}
		if got := string(begun[c.where]); !sameJSON(t, got, c.want) {
			t.Errorf("%s began with the %s %s, want %s", check.Command, c.where, got, c.want)
		}
	}
}

type formCheck struct {
	Faults  json.RawMessage `json:"faults"`
	Command string          `json:"command"`
}

func checkForm(t *testing.T, base, token, pattern, entry string) (check formCheck) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"api/v1/pattern-forms/"+pattern+"/check", strings.NewReader(entry))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "SharedAccessSignature "+token)
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Body.Close() }()
	data, err := io.ReadAll(w.Body)
	if err != nil || w.StatusCode != http.StatusOK || json.Unmarshal(data, &check) != nil {
		t.Fatalf("%s: %d, %v: %s", pattern, w.StatusCode, err, data)
	}
	return check
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	canonical := func(text string) string {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return err.Error() + text
		}
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	return canonical(a) == canonical(b)
}
