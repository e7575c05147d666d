package cli

import (
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What can't be read is told in words: what was found, what was expected, and
// what to do.
func TestParseErrors(t *testing.T) {
	for args, want := range map[string][]string{
		"twin show":                                  {"the argument <id> is missing", "muster twin show --help"},
		"method invoke d1":                           {"the argument <method> is missing"},
		"method invoke":                              {"the arguments <id> <method> are missing"},
		"twin":                                       {"a command is missing; expected one of", `"show"`},
		"device list --limit":                        {"--limit needs a value\n"},
		"twin show d1 --as-of":                       {"--as-of needs a value\n"},
		"job create --backoff --retries 2":           {`--backoff needs a value, and "--retries" begins with -`},
		"device list --limit -1":                     {`"-1" begins with -`, "write --limit='-1'"},
		"device list --limit x":                      {`--limit: "x" is not a whole number`},
		"device list --limit 1.5":                    {`--limit: "1.5" is not a whole number`},
		"device list --limit 9999999999999999999999": {"is too large"},
		"job create --rate-factor x":                 {`--rate-factor: "x" is not a number`},
		"device show d1 --timeout 5":                 {`--timeout: "5" is not a span of time, expected such as 90s, 1h30m or 2d`},
		"device show d1 --timeout 1d-1h":             {"is not a span of time"},
		"device show d1 --timeout 65535d65535d":      {"is not a span of time"},
		"device show d1 --timeout 65535d2000000h":    {"is not a span of time"},
		"twin show d1 --as-of foo":                   {`--as-of is "foo"`, "90m or 2d"},
		"twin show d1 --as-of 2026-12-01":            {`--as-of is "2026-12-01"`, "a time as 2026-12-01T22:00:00+01:00"},
	} {
		got := call{args: append(strings.Fields(args), "--data", t.TempDir())}.run(t)
		if args == "twin" || strings.HasSuffix(args, "--limit") || strings.HasSuffix(args, "--as-of") {
			got = call{args: strings.Fields(args)}.run(t) // --data would be taken for the value
		}
		if got.code != ExitUsage || !strings.Contains(got.err, "next:") {
			t.Errorf("muster %s: exit code %d\n%s", args, got.code, got.err)
		}
		for _, part := range want {
			if !strings.Contains(got.err, part) {
				t.Errorf("muster %s does not say %q:\n%s", args, part, got.err)
			}
		}
	}
}

// Every flag of a span takes days, as the hub's texts have them.
func TestSpansHaveDays(t *testing.T) {
	for text, want := range map[string]time.Duration{"2d": 48 * time.Hour, "1d12h": 36 * time.Hour, "90s": 90 * time.Second, "0s": 0, "0": 0} {
		if got, err := readSpan(text); err != nil || got != want {
			t.Errorf("%s is read as %s, %v, want %s", text, got, err, want)
		}
	}
	got := call{args: []string{"method", "invoke", "d1", "m", "--timeout", "1d", "--connect-timeout", "0", "--wait-for-device", "31d", "--data", t.TempDir()}}.run(t)
	if got.code != ExitConnect { // it was read, and there is no hub
		t.Errorf("exit code %d: %s", got.code, got.err)
	}
}

func TestFolderThatCantBeMade(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]string{file: file + " is a file, and no folder", file + "/in": file + " is no folder"} {
		if p := notMade(to, &fs.PathError{Op: "mkdir", Path: to, Err: syscall.ENOTDIR}); p.exit != ExitUsage || p.why != want {
			t.Errorf("%s: %d %q, want %q", to, p.exit, p.why, want)
		}
	}
	for _, c := range [][2]string{{t.TempDir() + "/no/such", "there is no folder"}, {"/proc/x", "/proc takes no new files or folders"}} {
		p := notMade(c[0], &fs.PathError{Op: "mkdir", Path: c[0], Err: fs.ErrNotExist})
		if c[0] == "/proc/x" && !isFolder("/proc") {
			continue
		}
		if p.exit != ExitUsage || !strings.Contains(p.why, c[1]) {
			t.Errorf("%s: %d %q, want %q", c[0], p.exit, p.why, c[1])
		}
	}
}
