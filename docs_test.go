package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/protocols"
	"github.com/muster-hub/muster/protocols/cli"
	"github.com/muster-hub/muster/scripting/scenario"
)

// update writes the generated pages instead of comparing them: make docs.
var update = flag.Bool("update", false, "write the generated reference pages")

const generatedNote = "<!-- Made by `make docs` from the program's own tables; a test compares it. -->\n\n"

// TestGenerated compares the reference pages with the tables they are made of.
func TestGenerated(t *testing.T) {
	t.Parallel()
	reference, err := cli.Reference()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"cli.md":         reference + forcedExit(),
		"config.md":      configPage(t),
		"limits.md":      limitsPage(),
		"errors.md":      errorsPage(),
		"metrics.md":     metricsPage(),
		"permissions.md": permissionsPage(),
		"query.md":       queryPage(t),
		"lua.md":         pattern.Page(scenario.API()...),
	} {
		want := generatedNote + text
		file := filepath.Join("docs", "reference", name)
		if *update {
			if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if string(got) != want {
			t.Errorf("%s is not what the program says now; run `make docs`\n%s", file, firstDifference(string(got), want))
		}
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		if line(g, i) != line(w, i) {
			return fmt.Sprintf("line %d\n got: %s\nwant: %s", i+1, line(g, i), line(w, i))
		}
	}
	return ""
}

func line(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(end)"
}

func forcedExit() string {
	return fmt.Sprintf("\nBeside the exit codes above, `muster serve` ends with %d when a second signal came while it drained: it then stopped at once, and the next start recovers as after a power cut.\n", exitForced)
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// configPage lists serve's settings in the three forms they have.
func configPage(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("# Configuration of a hub\n\nEvery setting is a flag of `muster serve`, an environment variable and a line of the config file. " +
		"The flag wins over the environment, the environment over the file, the file over the default. " +
		"Lists are repeated flags, values separated by commas in the environment, and YAML lists in the file. " +
		"`muster serve --print-config` shows each value and where it came from; `muster check-config` looks for mistakes without starting a hub.\n\n" +
		"The file is `--config FILE`, else `./muster.yaml`, else `/etc/muster/muster.yaml`. An unknown name in it is an error.\n\n```yaml\ndata: /var/lib/muster\nhost: [hub.example.net]\nhttps: [\":443\"]\nmqtts: [\":8883\"]\nmemory: 2GiB\n```\n\n" +
		"| Flag | Environment | Default | Meaning |\n|---|---|---|---|\n")
	for field := range reflect.TypeFor[cli.ServeFlags]().Fields() {
		name := field.Tag.Get("name")
		if name == "" {
			name = kebab(field.Name)
		}
		def := field.Tag.Get("default")
		if def != "" {
			def = "`" + def + "`"
		}
		fmt.Fprintf(&b, "| `--%s` | `MUSTER_%s` | %s | %s |\n", name, strings.ToUpper(strings.ReplaceAll(name, "-", "_")), def, cell(field.Tag.Get("help")))
	}
	b.WriteString("\nTwo variables have no flag: `MUSTER_HUB` holds a connection string for the commands that manage a hub elsewhere, and `MUSTER_BANNER=1` asks `serve` for its banner where there is no terminal. " +
		"`NOTIFY_SOCKET` and `WATCHDOG_USEC` are systemd's.\n\n## What is read again without a restart\n\n" +
		"The certificate and key of `--cert` and `--key`, within five seconds of a change, and at once on SIGHUP (`systemctl reload muster`), which also reads the file of `--metrics-token-file`. A file that can't be used is reported in the log, and what was in use stays. SIGHUP reloads where `NOTIFY_SOCKET` is set; elsewhere it stops the hub, since it says that the terminal has gone. Everything else needs a restart.\n")
	return b.String()
}

// TestEventKinds compares the table of docs/reference/events.md with the
// kinds that the hub has.
func TestEventKinds(t *testing.T) {
	page, err := os.ReadFile("docs/reference/events.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## Kinds")
	table, _, _ = strings.Cut(table, "\n## ")
	var told []string
	for row := range strings.SplitSeq(table, "\n") {
		first, _, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
		for i, part := range strings.Split(first, "`") {
			if strings.HasPrefix(row, "| `") && i%2 == 1 {
				told = append(told, part)
			}
		}
	}
	kinds := engine.EventKinds()
	slices.Sort(told)
	slices.Sort(kinds)
	if !slices.Equal(told, kinds) {
		t.Errorf("the page tells of\n%v\nthe hub has\n%v", told, kinds)
	}
}

func kebab(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('-')
		}
		b.WriteRune(r)
	}
	return strings.ToLower(b.String())
}

func limitsPage() string {
	var b strings.Builder
	b.WriteString("# Limits\n\nWhat a client can ask of a hub is bounded. `--limits` chooses the profile: `default` keeps the structural rules of IoT Hub and lifts its quotas, `azure` has IoT Hub's numbers. A rate of 0 is no throttle.\n\n" +
		"| Limit | Default | Azure | Unit | Meaning |\n|---|---|---|---|---|\n")
	for _, r := range engine.LimitTable() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", r.Name, figure(r.Default), figure(r.Azure), r.Unit, cell(r.Text))
	}
	b.WriteString("\n## Connections\n\n" +
		"A connection is a stranger until a handshake, a CONNECT or a request has been judged. Both profiles bound strangers alike:\n\n" +
		"| Bound | Value |\n|---|---|\n")
	for _, g := range protocols.GateLimits() {
		fmt.Fprintf(&b, "| %s | %s |\n", cell(g.Text), g.Value)
	}
	b.WriteString("\nWhere there is no room for a newcomer, the stranger that has made no step for longest is closed for it, first one of the same address. When all of them are making progress, the newcomer waits: that is a fleet that comes back, and it is paced. From one address only as many come in as can soon have their handshake computed; the others wait outside, before nobody else. Whoever waits for the hub gives way to nobody, and the time for its handshake does not run.\n")
	b.WriteString("\n## Patterns\n\nBoth profiles bound programs and their runs alike. An error names the budget that was used up.\n\n| Most | Of what |\n|---|---|\n")
	for _, l := range pattern.LimitTable() {
		fmt.Fprintf(&b, "| %s | %s |\n", l.Value, cell(l.Text))
	}
	return b.String()
}

func figure(v float64) string {
	return strings.TrimSuffix(strings.TrimRight(strconv.FormatFloat(v, 'f', 2, 64), "0"), ".")
}

func errorsPage() string {
	var b strings.Builder
	b.WriteString("# Errors\n\nWhat an operation answers is one of these codes. On Muster's own paths an error is `application/problem+json` with `code`, `detail`, `next` and `requestId`. On IoT Hub's paths it has IoT Hub's body, and IoT Hub's name in it and in the header `iothub-errorcode`: that is the code itself where IoT Hub has this error, else the nearest that it has, by the table in [REST](rest.md#errors).\n\n" +
		"| Code | What it means | What to do | Again? |\n|---|---|---|---|\n")
	for _, c := range engine.Codes() {
		again := "no"
		if c.Retryable {
			again = "yes"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", c.Name, cell(c.Text), cell(c.Next), again)
	}
	b.WriteString("\n*Again* says whether the same call may succeed later without a change.\n\n" +
		"A request that becomes no operation has a `code` of its own: `PathNotFound` and `NotBuiltYet` (404), `MethodNotAllowed` (405, with Allow), `UnsupportedMediaType` (415), `CrossOrigin` (403), and by its Idempotency-Key `IdempotencyKeyInUse`, `IdempotencyOutcomeUnknown` and `IdempotencyAnswerNotKept` (409) or `IdempotencyKeyReused` (422).\n\n" +
		"Plain text, without a code, are the answers of Go's HTTP server to what it can't read as a request (400), to headers that are too large (431) and to a version of HTTP or an encoding that it does not know (505, 501), after which it closes the connection; those of `/healthz`, `/readyz`, `/metrics` and the page, such as 405; and 426 of the paths for WebSockets. [Bad input](bad-input.md) has them all.\n")
	return b.String()
}

func metricsPage() string {
	var b strings.Builder
	b.WriteString("# Metrics\n\n`/metrics` is in Prometheus' format. It answers this machine without a token (unless a proxy passed the request on), and everybody else with the bearer token of `--metrics-token-file` or with a SharedAccessSignature of a policy that has StatusRead.\n\n" +
		"| Metric | Kind | Labels | Meaning |\n|---|---|---|---|\n")
	for _, m := range protocols.Metrics() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Kind, strings.Join(m.Labels, ", "), cell(m.Text))
	}
	b.WriteString("\nBeside these there are `go_*` and `process_*`, which Prometheus' client library documents: goroutines, heap, resident memory, open files, processor time.\n")
	return b.String()
}

func permissionsPage() string {
	var b strings.Builder
	b.WriteString("# Permissions\n\nA shared access policy is a named set of permissions with two keys. The standard ones are made at the first start.\n\n| Permission | What it allows |\n|---|---|\n")
	for _, p := range auth.Permissions() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", p.Name, cell(p.Text))
	}
	b.WriteString("\n| Standard policy | Permissions |\n|---|---|\n")
	for _, p := range auth.StandardPolicies() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", p.Name, strings.ReplaceAll(p.Permissions.String(), ",", ", "))
	}
	fmt.Fprintf(&b, "| `%s` | %s |\n", statusPolicy, auth.StatusRead)
	fmt.Fprintf(&b, "\nThe link that `muster serve` prints carries a token of `%s` that is good for %d days. Callers on the hub's unix socket (root, or the user that runs the hub) hold every permission.\n\n", statusPolicy, int(statusTokenLife/(24*time.Hour)))
	b.WriteString("## Which operation needs which\n\n| Operation | Permission | What it does |\n|---|---|---|\n")
	for _, o := range engine.Operations() {
		needs := "none"
		if o.Permission != 0 {
			needs = "`" + o.Permission.String() + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", o.Name, needs, cell(o.Text))
	}
	return b.String()
}

// tracked lists the project's text files that people wrote.
func tracked(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", "node_modules", "bin", "muster-data", "testdata", "tmp"}, d.Name()) {
			return filepath.SkipDir
		}
		if d.Type().IsRegular() && slices.Contains([]string{".md", ".go", ".mjs", ".js", ".sh", ".html", ".css", ".yml", ".yaml", ".mod", ""}, filepath.Ext(path)) && path != "muster" {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestLinks follows every relative link of every document, headings included.
func TestLinks(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	fence := regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
	count := 0
	for _, file := range tracked(t) {
		if filepath.Ext(file) != ".md" {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(string(data), ""), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			count++
			path := file
			if target != "" {
				path = filepath.Join(filepath.Dir(file), target)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s links to %s, which is not there", file, m[1])
				continue
			}
			if anchor != "" && !hasHeading(t, path, anchor) {
				t.Errorf("%s links to %s, but %s has no such heading", file, m[1], path)
			}
		}
	}
	if count < 20 {
		t.Errorf("only %d links were found: the check looks at the wrong files", count)
	}
}

func hasHeading(t *testing.T, file, anchor string) bool {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	drop := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	for l := range strings.Lines(string(data)) {
		if title, ok := strings.CutPrefix(strings.TrimLeft(l, "#"), " "); ok && strings.HasPrefix(l, "#") {
			slug := strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), ""), " ", "-")
			if slug == anchor {
				return true
			}
		}
	}
	return false
}

// TestNoMachinePaths finds paths of the machine that a file was written on.
func TestNoMachinePaths(t *testing.T) {
	t.Parallel()
	bad := regexp.MustCompile(strings.Join([]string{"/wor" + "k/", "/tm" + "p/[a-z]", "/roo" + "t/", "/hom" + "e/[a-z]", "/User" + "s/"}, "|"))
	files := tracked(t)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, l := range strings.Split(string(data), "\n") {
			if m := bad.FindString(l); m != "" {
				t.Errorf("%s:%d names a path of one machine: %s", file, i+1, strings.TrimSpace(l))
			}
		}
	}
	if len(files) < 50 {
		t.Errorf("only %d files were looked at", len(files))
	}
}

// TestEveryDocumentIsReachable starts at the README and follows links.
func TestEveryDocumentIsReachable(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)\s#]+\.md)`)
	seen, queue := map[string]bool{"README.md": true}, []string{"README.md"}
	for len(queue) > 0 {
		file := queue[0]
		queue = queue[1:]
		data, err := os.ReadFile(file)
		if err != nil {
			continue // TestLinks says so
		}
		for _, m := range link.FindAllStringSubmatch(string(data), -1) {
			next := filepath.Join(filepath.Dir(file), m[1])
			if !seen[next] {
				seen[next] = true
				queue = append(queue, next)
			}
		}
	}
	for _, file := range tracked(t) {
		if filepath.Ext(file) == ".md" && strings.HasPrefix(file, "docs/") && !seen[file] {
			t.Errorf("no way of links leads from the README to %s", file)
		}
	}
}

// TestDependencies compares the page of dependencies with go.mod.
func TestDependencies(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/reference/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	direct := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^(?:require )?\t?([a-z][\w./-]+\.[\w./-]+) v[^ \n]+$`).FindAllStringSubmatch(string(mod), -1) {
		direct[m[1]] = true
		if !strings.Contains(string(page), "| `"+m[1]+"` |") {
			t.Errorf("%s is required but not explained", m[1])
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		if !direct[m[1]] && !strings.Contains(string(mod), m[1]+" v") {
			t.Errorf("%s is explained but not required", m[1])
		}
	}
	if len(direct) < 5 {
		t.Errorf("only %d requirements were found in go.mod", len(direct))
	}
}

// TestReadmeSamples compares the programs in the README with those that the
// SDK tests run.
func TestReadmeSamples(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"test/sdk/samples/device.js", "test/sdk/samples/service.js"} {
		sample, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(readme), "```js\n"+string(sample)+"```") {
			t.Errorf("the README does not show %s as it is", file)
		}
	}
}

// commandInfo is what `muster help --json` tells of a command.
type commandInfo struct {
	Command  string
	Default  bool // its own word may be left out
	Flags    []struct{ Name, Short string }
	Commands []commandInfo
}

// TestDocumentedCommands finds every command line of muster in the documents
// and checks that the command and its flags exist.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	var root commandInfo
	if err := json.Unmarshal([]byte(newBox(t).must("help", "--json")), &root); err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile("(?s)```[a-z]*\n(.*?)```|`([^`\n]+)`")
	call := regexp.MustCompile(`(?m)(?:^\s*|[(]\.?/?|sudo |-u muster |\./)muster((?: +(?:--?)?[a-z][\w.-]*)+)`)
	count := 0
	for _, file := range tracked(t) {
		if filepath.Ext(file) != ".md" || file == filepath.Join("docs", "reference", "cli.md") {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range code.FindAllStringSubmatch(string(data), -1) {
			for l := range strings.Lines(c[1] + c[2]) {
				for _, m := range call.FindAllStringSubmatchIndex(l, -1) {
					rest := strings.TrimRight(l[m[2]:m[3]]+strings.TrimLeft(l[m[3]:], ")\""), "\n")
					rest, _, _ = strings.Cut(rest, "#")
					if rest, _, _ = strings.Cut(rest, "  "); checkCommand(root, strings.Fields(rest)) != "" {
						t.Errorf("%s: `muster%s`: %s", file, strings.TrimRight(rest, "\n"), checkCommand(root, strings.Fields(rest)))
					}
					count++
				}
			}
		}
	}
	if count < 30 {
		t.Errorf("only %d command lines were found", count)
	}
}

func checkCommand(root commandInfo, words []string) string {
	node := root
	flags := map[string]bool{"help": true}
	add := func(c commandInfo) {
		for _, f := range c.Flags {
			flags[f.Name] = true
		}
	}
	add(root)
	at, open := true, false // still among the command's words; the group has a default command
	for _, w := range words {
		if name, ok := strings.CutPrefix(w, "--"); ok {
			at = false
			name, _, _ = strings.Cut(name, "=")
			if name = strings.Trim(name, "`,.;:)\""); !flags[name] {
				return "there is no flag --" + name
			}
			continue
		}
		if !at {
			continue
		}
		i := slices.IndexFunc(node.Commands, func(c commandInfo) bool { return c.Command[strings.LastIndex(c.Command, " ")+1:] == w })
		switch {
		case i >= 0:
			node = node.Commands[i]
			add(node)
			open = false
			for _, c := range node.Commands { // a group's default command takes its flags and arguments
				if c.Default {
					open = true
					add(c)
				}
			}
		case open:
			at = false
		case len(node.Commands) > 0 && node.Command != root.Command:
			return "there is no command " + w + " in " + node.Command
		case node.Command == root.Command:
			return "there is no command " + w
		default:
			at = false
		}
	}
	return ""
}

// The codes of requests that become no operation are in the page of errors too.
func TestDocumentedRequestErrors(t *testing.T) {
	files, err := filepath.Glob("protocols/service/*.go")
	if err != nil {
		t.Fatal(err)
	}
	page, found := errorsPage(), 0
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`[, ]code: "([A-Za-z]+)"`).FindAllSubmatch(source, -1) {
			if found++; !strings.Contains(page, "`"+string(m[1])+"`") {
				t.Errorf("%s answers %s, which docs/reference/errors.md does not have", name, m[1])
			}
		}
	}
	if found == 0 {
		t.Error("found no code")
	}
}
