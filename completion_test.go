package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// readlineWords are the words of a line as bash gives them to a completion:
// : and = are words of their own.
func readlineWords(line string) []string {
	words := regexp.MustCompile(`[:=]+|[^:=\s]+`).FindAllString(line, -1)
	if strings.HasSuffix(line, " ") {
		words = append(words, "")
	}
	return words
}

// The tab key, pressed in a real bash with the real script and a hub that runs;
// zsh and fish call the same command, and where they are installed they are
// asked, too.
func TestCompletionInShells(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.serve()
	for _, id := range []string{"dryer-1", "dryer-2", "pump-1", "00:1b:44", "x;$(y)", "it's"} {
		b.must("device", "create", id)
	}
	b.must("module", "create", "pump-1", "motor")
	b.must("twin", "patch", "pump-1", "tags.kind=pump")
	b.must("query", "save", "pumps", "SELECT *\nFROM devices\nWHERE tags.kind = 'pump'")
	b.must("webhook", "create", "warehouse", "https://192.0.2.1/in")
	b.run("method", "invoke", "pump-1", "reboot") // nobody answers; it was seen

	bash := func(line string) string {
		t.Helper()
		script := `set -u
source <(muster completion bash)
COMP_LINE=$1 COMP_POINT=${#1}
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
compopt() { :; } # only the shell's own completion may call it
_muster
printf '%s\n' "${COMPREPLY[@]+"${COMPREPLY[@]}"}"`
		cmd := exec.CommandContext(t.Context(), "bash", append([]string{"--norc", "-c", script, "bash", line}, readlineWords(line)...)...)
		cmd.Dir, cmd.Env = b.dir, b.env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.Join(strings.Fields(string(out)), " ")
	}
	for line, want := range map[string]string{
		"muster twin show d":               "dryer-1 dryer-2",
		"muster device delete dryer-1 p":   "pump-1",
		"muster twin show pump-1/":         "pump-1/motor",
		"muster module show pump-1 ":       "motor",
		"muster policy show servi":         "service",
		"muster webhook show ":             "warehouse",
		"muster method invoke pump-1 re":   "reboot",
		"muster device cr":                 "create",
		"muster device create d":           "",
		"muster twin show --data nothing ": "",
		"muster twin patch dryer-1 t":      "tags.",
		"muster query connectionS":         "connectionState",
		"muster query run pu":              "pumps",
		"muster schema tags.ki":            "tags.kind",
		"muster query run ":                "pumps",
		"muster device show 00":            "00:1b:44",
		"muster device show 00:":           "1b:44", // readline replaces what comes after a colon
		"muster device show 00:1b:4":       "44",
		"muster device show x":             `x\;\$\(y\)`,
		"muster device show x\\;":          `x\;\$\(y\)`,
		"muster device show 'x":            `x;$(y)`,
		`muster device show "x`:            `x;\$(y)`,
		"muster device show i":             `it\'s`,
		"muster device show 'i":            `it'\''s`,
	} {
		if got := bash(line); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}

	if _, err := exec.LookPath("fish"); err == nil {
		cmd := exec.CommandContext(t.Context(), "fish", "--no-config", "-c", "muster completion fish | source; complete -C 'muster twin show dry'")
		cmd.Dir, cmd.Env = b.dir, b.env
		out, err := cmd.Output()
		if got := strings.Join(strings.Fields(string(out)), " "); err != nil || got != "dryer-1 disconnected dryer-2 disconnected" {
			t.Errorf("fish: got %q, %v", got, err)
		}
	}
	if _, err := exec.LookPath("zsh"); err == nil {
		// Completion functions run only inside the line editor; these stand for its own.
		script := `compdef() { : }
_describe() { print -l -- "${(@P)2}" }
_files() { print files }
source <(muster completion zsh)
words=(muster twin show dry) CURRENT=4
_muster
words=(muster device create x) CURRENT=4
_muster`
		cmd := exec.CommandContext(t.Context(), "zsh", "-f", "-c", script)
		cmd.Dir, cmd.Env = b.dir, b.env
		out, err := cmd.CombinedOutput()
		if got := strings.Join(strings.Fields(string(out)), " "); err != nil || got != "dryer-1:disconnected dryer-2:disconnected files" {
			t.Errorf("zsh: got %q, %v", got, err)
		}
	}

	// Without a hub the tab key is silent and quick.
	began := time.Now()
	if got := bash("muster twin show --data " + os.TempDir() + " d"); got != "" {
		t.Errorf("without a hub: %q", got)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("without a hub: %s", took)
	}
}
