package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPatternTutorial does what docs/tutorials/first-pattern.md says, in one
// directory: it writes the files that the page shows, runs its commands in order,
// and compares what they print.
func TestPatternTutorial(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("docs", "tutorials", "first-pattern.md"))
	if err != nil {
		t.Fatal(err)
	}
	w := &walkthrough{box: newBox(t), names: map[string]string{}}
	for _, block := range regexp.MustCompile("(?s)```(lua|console)([^\n]*)\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		if block[1] == "lua" {
			w.write(strings.Fields(block[2]), block[3])
			continue
		}
		for _, step := range strings.Split("\n"+block[3], "\n$ ")[1:] {
			command, want, _ := strings.Cut(step, "\n")
			w.step(command, want)
		}
	}
	if w.commands < 15 || w.files < 4 {
		t.Errorf("only %d commands and %d files were found", w.commands, w.files)
	}
}

// walkthrough is a page that is followed.
type walkthrough struct {
	*box
	commands, files int
	names           map[string]string // ids of the page, and what they are here
}

// write puts a file where the page says: the whole of it, with + behind what it
// has, or with a word in the place of the part from the phase of that name to the
// next.
func (w *walkthrough) write(words []string, text string) {
	w.t.Helper()
	w.files++
	if len(words) == 0 {
		w.t.Fatalf("the page does not say where this goes:\n%s", text)
	}
	path := filepath.Join(w.dir, words[0])
	if len(words) > 1 {
		old, err := os.ReadFile(path)
		if err != nil {
			w.t.Fatal(err)
		}
		switch begin, end, ok := part(string(old), words[1]); {
		case words[1] == "+":
			text = string(old) + "\n" + text
		case ok:
			text = begin + text + end
		default:
			w.t.Fatalf("%s has no phase %q", words[0], words[1])
		}
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// part cuts a phase out of a program.
func part(text, phase string) (begin, end string, ok bool) {
	begin, rest, ok := strings.Cut(text, `    ctx:phase("`+phase+`")`)
	i := strings.Index(rest, "\n    ctx:phase(")
	if !ok || i < 0 {
		return "", "", false
	}
	return begin, rest[i:], true
}

// step runs a command and compares what it prints.
func (w *walkthrough) step(command, want string) {
	w.t.Helper()
	w.commands++
	args := typed(command)
	if args[0] != "muster" {
		w.t.Fatalf("%q is not a command of muster", command)
	}
	for i := range args {
		for page, here := range w.names {
			args[i] = strings.ReplaceAll(args[i], page, here)
		}
	}
	var got string
	if args[1] == "simulate" {
		g := w.start(args[1:]...)
		g.wait("identities made")
		w.eventually(func() bool {
			return strings.Contains(w.must("query", "SELECT COUNT() AS n FROM devices WHERE reported.boot.count > 0"), "20")
		})
		got = strings.SplitAfter(g.text(), "\n")[0]
	} else {
		got = w.follow(args[1:], want)
	}
	ids := regexp.MustCompile(`\b(Run|Job) ([a-z0-9]+(?:-[a-z0-9]+)+)`)
	if page, here := ids.FindStringSubmatch(want), ids.FindStringSubmatch(got); page != nil && here != nil {
		w.names[page[2]] = here[2]
	}
	if !fits(plain(got), plain(want)) {
		w.t.Errorf("$ %s\nprints\n%s\nthe page says\n%s", command, plain(got), plain(want))
	}
}

// typed splits a command as a shell does: double quotes keep words together.
func typed(command string) []string {
	var args []string
	for i, piece := range strings.Split(command, `"`) {
		if i%2 == 1 {
			args = append(args, piece)
			continue
		}
		args = append(args, strings.Fields(piece)...)
	}
	return args
}

// plain is what is compared of what a command prints.
func plain(text string) string {
	for _, c := range []struct{ pattern, as string }{
		{`\b(r-)?mx[a-z0-9]+-[a-z0-9]+|\b(r-)?m[a-z0-9]{7}-[a-z0-9]{6,}`, "ID"},
		{`\b\d\d:\d\d:\d\d(\.\d+)?\b`, "TIME"},
		{`\b\d+(\.\d+)?(ms|µs|s)\b`, "SPAN"},
		{`\d+ repetitions`, "N repetitions"},
	} {
		text = regexp.MustCompile(c.pattern).ReplaceAllString(text, c.as)
	}
	return normalised(text)
}

// fits compares line by line; a line ... stands for any lines.
func fits(got, want string) bool {
	return fit(strings.Split(got, "\n"), strings.Split(want, "\n"))
}

func fit(got, want []string) bool {
	if len(want) == 0 {
		return len(got) == 0
	}
	if want[0] == "..." {
		for n := range len(got) + 1 {
			if fit(got[n:], want[1:]) {
				return true
			}
		}
		return false
	}
	return len(got) > 0 && strings.TrimSpace(got[0]) == strings.TrimSpace(want[0]) && fit(got[1:], want[1:])
}
