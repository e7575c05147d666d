package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/protocols/cli"
	"github.com/muster-hub/muster/scripting/author"
	"github.com/muster-hub/muster/scripting/scenario"
)

// authorCommand runs a command of whoever writes patterns, in this process.
func authorCommand(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	code = cli.Main(t.Context(), args, strings.NewReader(""), &out, &errOut, func(string) string { return "" }, cli.Hooks{Author: authorHooks(), ExitCode: exitCode})
	return code, out.String(), errOut.String()
}

// expect runs a command that must end with a code and say a text.
func expect(t *testing.T, code int, text string, args ...string) string {
	t.Helper()
	got, out, errOut := authorCommand(t, args...)
	if got != code || !strings.Contains(out+errOut, text) {
		t.Errorf("muster %s: exit code %d, expected %d and %q\n%s%s", strings.Join(args, " "), got, code, text, out, errOut)
	}
	return out
}

// TestAuthorsPath goes the way of whoever writes a pattern.
func TestAuthorsPath(t *testing.T) {
	in := t.TempDir()
	dir := filepath.Join(in, "first")
	expect(t, cli.ExitOK, "muster pattern test", "pattern", "new", "first", "--in", in)
	expect(t, cli.ExitOK, "muster pattern test", "pattern", "new", "second", "--kind", "fleet", "--in", in)
	expect(t, cli.ExitConflict, "is there already", "pattern", "new", "first", "--in", in)
	expect(t, cli.ExitFailed, "kebab-case", "pattern", "new", "First One", "--in", in)
	expect(t, cli.ExitOK, "nothing to complain about", "pattern", "check", in)
	expect(t, cli.ExitOK, "repetitions with a crash", "pattern", "test", in, "--crash-everywhere", "--cover")
	expect(t, cli.ExitOK, "dev.call", "pattern", "test", dir, "-v", "--run", "asks once")
	expect(t, cli.ExitFailed, "no test was run", "pattern", "test", dir, "--run", "nothing is called so")
	expect(t, cli.ExitOK, "looked in", "pattern", "dev", dir, "--once")

	var report scenario.Report
	if err := json.Unmarshal([]byte(expect(t, cli.ExitOK, "", "pattern", "test", dir, "-o", "json")), &report); err != nil || report.Pattern != "first" || len(report.Tests) != 5 {
		t.Errorf("%v %+v", err, report)
	}
	var suites struct {
		Suites []struct {
			Tests int `xml:"tests,attr"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal([]byte(expect(t, cli.ExitOK, "", "pattern", "test", in, "-o", "junit")), &suites); err != nil || len(suites.Suites) != 2 || suites.Suites[0].Tests != 5 {
		t.Errorf("%v %+v", err, suites)
	}

	key := filepath.Join(in, "my.key")
	expect(t, cli.ExitOK, "muster pattern key add", "pattern", "keygen", "-o", key)
	expect(t, cli.ExitConflict, "exists", "pattern", "keygen", "-o", key)
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the private key: %v %v", info, err)
	}
	expect(t, cli.ExitOK, "Signed", "pattern", "sign", dir, "--key", key)
	archive := filepath.Join(in, "first.tar.gz")
	expect(t, cli.ExitOK, "Packed 3 files", "pattern", "pack", dir, "-o", archive)
	b, s, err := author.Read(archive)
	if err != nil || s == nil || s.Verify(b) != nil {
		t.Errorf("what was packed: %v %v", err, s)
	}
	expect(t, cli.ExitOK, "all passed", "pattern", "test", archive)

	// What was changed is not what was signed.
	source, err := os.ReadFile(filepath.Join(dir, pattern.MainFile))
	if err != nil {
		t.Fatal(err)
	}
	broken := strings.Replace(string(source), `dev:call("ping"`, `dev:call("pong"`, 1)
	if err := os.WriteFile(filepath.Join(dir, pattern.MainFile), []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, cli.ExitFailed, "pattern.sig: is not of these files; expected the signature of them as they are: sign them again, or delete it", "pattern", "pack", dir, "-o", archive)
	expect(t, cli.ExitFailed, `needs "method:pong"`, "pattern", "check", dir)
	expect(t, cli.ExitFailed, `needs "method:pong"`, "pattern", "install", dir, "--yes")
	expect(t, cli.ExitFailed, "--unchecked installs it without a check", "pattern", "install", dir, "--yes")
	expect(t, cli.ExitUsage, "can't be installed as it is", "pattern", "install", dir, "--yes", "--unchecked") // for its signature
	expect(t, cli.ExitFailed, "5 tests, 4 failed", "pattern", "test", dir)
	if err := os.WriteFile(filepath.Join(dir, pattern.MainFile), []byte("return pattern {"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, cli.ExitFailed, "pattern.lua:1", "pattern", "test", dir)

	one := filepath.Join(in, "one.lua")
	if err := os.WriteFile(one, []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, errOut := authorCommand(t, "pattern", "install", one, "--yes")
	if !strings.Contains(errOut, one+":") || strings.Contains(errOut, "one.lua/") {
		t.Errorf("the check of one file names it as\n%s", errOut)
	}

	stubs := filepath.Join(in, "stubs.lua")
	expect(t, cli.ExitOK, "", "pattern", "stubs", "-o", stubs)
	if text, err := os.ReadFile(stubs); err != nil || !strings.Contains(string(text), "muster.Device") || !strings.Contains(string(text), "muster.test.Test") {
		t.Errorf("the stubs: %v, %d bytes", err, len(text))
	}
	expect(t, cli.ExitUsage, "muster pattern new", "pattern", "test", t.TempDir())
	expect(t, cli.ExitUsage, "nowhere", "pattern", "check", filepath.Join(in, "nowhere"))
}

// TestShippedPatternsByName has the patterns that ship be tested by their names.
func TestShippedPatternsByName(t *testing.T) {
	t.Chdir(t.TempDir())
	expect(t, cli.ExitOK, "reboot 1.0.0: 9 tests, all passed", "pattern", "test", "reboot")
}
