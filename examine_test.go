package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/protocols"
	"github.com/muster-hub/muster/protocols/cli"
)

// What doctor says of settings, with a next step wherever something is wrong.
func TestExamineHub(t *testing.T) {
	t.Parallel()
	here := []protocols.Listener{{Kind: "https", Address: "127.0.0.1:8443"}, {Kind: "mqtts", Address: "[::1]:8883"}}
	open := []protocols.Listener{{Kind: "https", Address: "[::]:8443"}, {Kind: "mqtts", Address: "0.0.0.0:8883"}}
	azure := []protocols.Listener{{Kind: "https", Address: "[::]:443"}, {Kind: "mqtts", Address: "[::]:8883"}}
	for _, test := range []struct {
		name      string
		host      string
		listeners []protocols.Listener
		check     string
		level     string
		holds     string
	}{
		{"a name without a dot, on this machine", "hub", here, "host", "ok", "this machine only"},
		{"a name without a dot", "hub", open, "host", "warn", "no dot"},
		{"an address", "127.0.0.1", open, "host", "ok", "resolves"},
		{"ports on this machine", "hub", here, "ports", "ok", "8443"},
		{"other ports", "hub", open, "ports", "warn", "8443"},
		{"the SDKs' ports", "hub", azure, "ports", "ok", ":443"},
		{"memory", "hub", here, "memory", "", "are used"},
		{"open files", "hub", here, "open files", "", "are open"},
	} {
		found := false
		for _, f := range examineHub(t.Context(), cli.ServeFlags{Host: []string{test.host}}, test.listeners, nil) {
			if f.Level != "ok" && f.Next == "" {
				t.Errorf("%s: no next step for %s", test.name, f.Text)
			}
			if f.Check == test.check {
				found = true
				if test.level != "" && f.Level != test.level || !strings.Contains(f.Text, test.holds) {
					t.Errorf("%s: got %s %q", test.name, f.Level, f.Text)
				}
			}
		}
		if !found {
			t.Errorf("%s: nothing about %s", test.name, test.check)
		}
	}
}

func TestExamineMachine(t *testing.T) {
	t.Parallel()
	list, err := examineMachine(t.Context(), cli.StoreFlags{Data: "/proc"}, cli.IO{})
	if err != nil {
		t.Fatal(err)
	}
	levels := map[string]string{}
	for _, f := range list {
		levels[f.Check] = f.Level
		if f.Level != "ok" && f.Next == "" {
			t.Errorf("no next step for %s", f.Text)
		}
	}
	if levels["file system"] != "warn" || levels["clock"] == "" || levels["time"] == "" {
		t.Errorf("got %v", levels)
	}
	list, err = examineMachine(context.Background(), cli.StoreFlags{Data: "/nothing/here"}, cli.IO{})
	if err := errors.Join(err, nil); err != nil || list[0].Level != "fail" {
		t.Errorf("without a directory: %v %v", list, err)
	}
}

// What doctor says of keys and certificates depends on which of them the hub uses.
func TestExamineKeys(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	shared := filepath.Join(data, "credential")
	if err := os.WriteFile(shared, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(shared, 0o440); err != nil { // as systemd shows a credential
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		flags cli.ServeFlags
		files []string // that it speaks of, with the level
	}{
		"own keys":           {cli.ServeFlags{Data: data}, []string{"warn master.key", "warn ca.key"}},
		"with --cert":        {cli.ServeFlags{Data: data, Cert: "c.pem", Key: "k.pem"}, []string{"warn master.key"}},
		"with --acme-host":   {cli.ServeFlags{Data: data, ACMEHost: []string{"hub.example.net"}}, []string{"warn master.key", "warn ca.key"}},
		"with a key's place": {cli.ServeFlags{Data: data, MasterKeyFile: shared}, []string{"ok credential", "warn ca.key"}},
	} {
		var got []string
		for _, f := range examineHub(t.Context(), test.flags, nil, nil) {
			if f.Check == "secrets" {
				file, _, _ := strings.Cut(f.Text, " ")
				got = append(got, f.Level+" "+filepath.Base(file))
			}
		}
		if !slices.Equal(got, test.files) {
			t.Errorf("%s: %q, want %q", name, got, test.files)
		}
	}
	troubles := map[string]string{"file": "no PEM", "own": "read-only file system", "hub.example.net": "connection refused"}
	var got []string
	for _, f := range examineHub(t.Context(), cli.ServeFlags{Data: data}, nil, troubles) {
		if f.Check == "certificate" {
			got = append(got, f.Level+": "+f.Text)
			if f.Next == "" {
				t.Errorf("no next step for %s", f.Text)
			}
		}
	}
	if want := []string{
		"fail: The files of --cert and --key can't be used, and the former certificate stays in use: no PEM.",
		"warn: ACME gave no certificate for hub.example.net: connection refused.",
		"fail: The hub can't renew its own certificates: read-only file system.",
	}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// An authority that signs by ACME looks at one port, and the hub may not be there.
func TestExamineProof(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		https, http []string
		level       string
	}{
		{[]string{":443"}, nil, "ok"},
		{[]string{"127.0.0.1:8443", "192.0.2.7:443"}, nil, "ok"},
		{[]string{"hub.example.net:443"}, nil, "ok"},
		{[]string{":8443"}, []string{":80"}, "ok"},
		{[]string{":8443"}, nil, "warn"},
		{[]string{":8443"}, []string{":443"}, "warn"},
		{[]string{":80"}, nil, "warn"},
		{[]string{"127.0.0.1:443"}, nil, "warn"},
		{[]string{"[::1]:443", "localhost:443"}, nil, "warn"},
		{[]string{":8443"}, []string{"127.0.0.1:80"}, "warn"},
	} {
		flags := cli.ServeFlags{Data: t.TempDir(), Host: []string{"localhost"}, HTTPS: test.https, HTTP: test.http}
		for _, host := range []string{"", "LocalHost"} { // a name that no server is asked for
			if flags.ACMEHost = nil; host != "" {
				flags.ACMEHost = []string{host}
			}
			checked, err := checkConfig(t.Context(), flags, cli.IO{})
			if err != nil {
				t.Fatal(err)
			}
			for by, list := range map[string][]cli.Finding{"check-config": checked, "doctor": examineHub(t.Context(), flags, wanted(flags), nil)} {
				list = slices.DeleteFunc(list, func(f cli.Finding) bool { return f.Check != "acme" })
				if host == "" && len(list) > 0 {
					t.Errorf("%s without ACME: %v", by, list)
				}
				if host == "" {
					continue
				}
				if len(list) != 1 || list[0].Level != test.level || !strings.Contains(list[0].Text, host) {
					t.Errorf("%s with --https %q --http %q: %+v, want %s", by, test.https, test.http, list, test.level)
				} else if test.level == "warn" && (!strings.Contains(list[0].Text, strings.Join(test.https, ", ")) || !strings.Contains(list[0].Next, "--https :443, or forward port 443")) {
					t.Errorf("%s with --https %q --http %q does not say what to do: %+v", by, test.https, test.http, list)
				}
			}
		}
	}
}

func TestLogTail(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	tail := &logTail{to: &out}
	line := strings.Repeat("x", 99) + "\n"
	for range 3 * logKept / len(line) {
		if _, err := tail.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tail.Write([]byte("the end\n")); err != nil {
		t.Fatal(err)
	}
	got := string(lastLines(tail.kept, logKept))
	if len(got) > logKept || len(got) < logKept-100 || !strings.HasSuffix(got, line+"the end\n") || !strings.HasPrefix(got, line) {
		t.Errorf("%d bytes, %.10q to %q", len(got), got, got[len(got)-20:])
	}
	if len(tail.kept) > 2*logKept || !strings.HasSuffix(out.String(), "the end\n") {
		t.Errorf("%d bytes are kept", len(tail.kept))
	}
}
