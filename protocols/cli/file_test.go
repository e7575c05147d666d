package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/protocols/client/clienttest"
)

func TestFiles(t *testing.T) {
	h := clienttest.Start(t, func(o *engine.Options) { o.FileNotifications = true })
	t.Chdir(t.TempDir())
	for name, content := range map[string]string{"logs/boot log.txt": "booted\n", "logs/b": "b", ".profile": "bad", "-rf": "bad", "taken": "new"} {
		enginetest.Upload(t, h.Engine, "pump-1", name, "text/plain", []byte(content))
	}
	if err := os.WriteFile("taken", []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"MUSTER_DATA": h.Dir}
	for _, s := range []struct {
		args []string
		code int
		want string // in standard output or error
		not  string
	}{
		{words("file list pump-1"), ExitOK, "logs/boot log.txt", ""},
		{words("file list pump-1 --prefix logs/ -o csv"), ExitOK, "logs/b,1,text/plain", "taken"},
		{words("file list pump-1 --limit 1"), ExitOK, "more than 1", "taken"},
		{words("file list nobody"), ExitNotFound, "device list", ""},
		{[]string{"file", "show", "pump-1", "logs/boot log.txt", "-o", "json"}, ExitOK, `"size": 7`, ""},
		{words("file show pump-1 logs/b"), ExitOK, "sha256", ""},
		{words("file show pump-1 none"), ExitNotFound, "muster file list", ""},
		{[]string{"file", "download", "pump-1", "logs/boot log.txt"}, ExitOK, "boot log.txt: 7 bytes", ""},
		{words("file download pump-1 logs/b --to -"), ExitOK, "b", "bytes"},
		{words("file download pump-1 logs/b --to here"), ExitOK, "here: 1 bytes", ""},
		{words("file download pump-1 taken"), ExitConflict, "--force", ""},
		{words("file download pump-1 taken --force"), ExitOK, "taken: 3 bytes", ""},
		{words("file download pump-1 .profile"), ExitUsage, "--to", ""},
		{words("file download pump-1 -- -rf"), ExitUsage, "--to", ""},
		{words("file download pump-1 none"), ExitNotFound, "muster file list", ""},
		{words("file delete pump-1 taken"), ExitUsage, "--yes", ""},
		{words("file delete pump-1 taken logs/b --yes"), ExitOK, "", ""},
		{words("file list pump-1"), ExitOK, ".profile", "taken"},
		{words("file notifications"), ExitOK, "logs/b", ""},
		{words("file notifications"), ExitOK, "no notification", ""},
	} {
		got := call{args: s.args, env: env}.run(t)
		if all := got.out + got.err; got.code != s.code || !strings.Contains(all, s.want) || s.not != "" && strings.Contains(all, s.not) {
			t.Errorf("muster %s: exit code %d, want %d; it must say %q and not %q, and says:\n%s", strings.Join(s.args, " "), got.code, s.code, s.want, s.not, all)
		}
	}
	for name, want := range map[string]string{"boot log.txt": "booted\n", "here": "b", "taken": "new"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v; want %q", name, got, err, want)
		}
	}
	entries, err := os.ReadDir(".")
	if err != nil || len(entries) != 3 {
		t.Errorf("the directory has %v, %v; want three files", entries, err)
	}
}

// A device must not choose where on the operator's machine its file goes.
func TestLocalName(t *testing.T) {
	for name, want := range map[string]string{
		"a": "a", "a/b.txt": "b.txt", "": "", "a/": "", ".ssh": "", "x/.bashrc": "", "..": "", "-o": "", `a\b`: "", "C:": "", "a\nb": "", strings.Repeat("a", 201): "",
	} {
		if got, ok := localName(name); got != want || ok != (want != "") {
			t.Errorf("%q becomes %q, %v; want %q", name, got, ok, want)
		}
	}
}

// TestContentOnTerminal: what a device has put into a file must not reach a terminal
// unless it is text, and then without what could steer it; programs get the bytes.
func TestContentOnTerminal(t *testing.T) {
	h := clienttest.Start(t)
	t.Chdir(t.TempDir())
	env := map[string]string{"MUSTER_DATA": h.Dir}
	if got := (call{args: words("container create box"), env: env}).run(t); got.code != ExitOK {
		t.Fatal(got.err)
	}
	for _, c := range []struct{ name, content, want string }{ // want is empty when it is refused
		{"text", "a\tü\r\nb\n", "a\tü\nb\n"},
		{"empty", "", ""},
		{"commands", "\x1b[2J\r.\u009bx", `\x1b[2J\r.\u009bx`},
		{"zeros", "PK\x00\x01", ""},
		{"bytes", "\xff\xfe\x1b", ""},
	} {
		enginetest.Upload(t, h.Engine, "pump-1", c.name, "application/octet-stream", []byte(c.content))
		if got := (call{args: []string{"container", "put", "box", "-", c.name}, in: c.content, env: env}).run(t); got.code != ExitOK {
			t.Fatal(got.err)
		}
		for _, args := range [][]string{{"container", "get", "box", c.name}, {"container", "get", "box", c.name, "--to", "-"}, {"file", "download", "pump-1", c.name, "--to", "-"}} {
			if got := (call{args: args, env: env}).run(t); got.code != ExitOK || got.out != c.content {
				t.Errorf("%q for a program: exit code %d, %q, want %q; %s", args, got.code, got.out, c.content, got.err)
			}
			got := call{args: args, env: env, width: 80}.run(t)
			refused := c.want == "" && c.content != ""
			if got.out != c.want || refused != (got.code == ExitUsage) || refused != strings.Contains(got.err, "--to FILE") {
				t.Errorf("%q on a terminal: exit code %d, %q, want %q; %s", args, got.code, got.out, c.want, got.err)
			}
		}
		to := call{args: []string{"container", "get", "box", c.name, "--to", "there"}, env: env, width: 80}.run(t)
		if kept, err := os.ReadFile("there"); to.code != ExitOK || err != nil || string(kept) != c.content {
			t.Errorf("%s to a file: exit code %d, %q, %v; %s", c.name, to.code, kept, err, to.err)
		}
	}
}

// A character that is cut where the beginning ends is no sign of bytes.
func TestLooksBinary(t *testing.T) {
	for beginning, want := range map[string]bool{"": false, "ü\xe6\xbc": false, "\xe6": false, "\xe6\xbca": true, "a\x00": true, "\ufffd": false, "\x1b[m": false} {
		if got := looksBinary([]byte(beginning)); got != want {
			t.Errorf("%q: %v, want %v", beginning, got, want)
		}
	}
}
