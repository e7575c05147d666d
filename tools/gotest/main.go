// Command gotest runs `go test -json` with its arguments, prints a line for
// each package and the output of what failed or was skipped, and writes the
// counts as "passed failed skipped" to the file that -counts names.
//
// It exits with 1 when a test failed or a package did not build, and with
// -no-skips also when a test was skipped: in CI a skip is a hole.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// event is a line of `go test -json`, see `go doc test2json`.
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

type result struct {
	passed, failed, skipped int
	output                  map[string][]string // by package and test, until it ends
	helpers                 *regexp.Regexp
	writer                  io.Writer
}

func main() {
	counts := flag.String("counts", "", "file for the counts")
	noSkips := flag.Bool("no-skips", false, "fail when a test was skipped")
	helpers := flag.String("helpers", "^$", "pattern of tests that are skipped on purpose: the part of another test that runs in a child")
	flag.Parse()
	pattern, err := regexp.Compile(*helpers)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest: -helpers:", err)
		os.Exit(2)
	}
	r := &result{output: map[string][]string{}, helpers: pattern, writer: os.Stdout}
	err = r.run(flag.Args())
	if *counts != "" {
		text := fmt.Sprintf("%d %d %d\n", r.passed, r.failed, r.skipped)
		if werr := os.WriteFile(*counts, []byte(text), 0o600); werr != nil {
			err = werr
		}
	}
	if err == nil && *noSkips && r.skipped > 0 {
		err = fmt.Errorf("%d tests were skipped, and here nothing may be", r.skipped)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
}

func (r *result) run(args []string) error {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewReaderSize(out, 1<<20)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break
		}
		var e event
		if json.Unmarshal([]byte(line), &e) != nil {
			fmt.Fprint(r.writer, line)
			continue
		}
		r.take(e)
	}
	err = cmd.Wait()
	if err != nil && r.failed == 0 {
		r.failed = 1 // it did not build, or ended without naming a test
	}
	if err != nil {
		return fmt.Errorf("go test: %w", err)
	}
	return nil
}

func (r *result) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "build-output":
		fmt.Fprint(r.writer, e.Output)
	case "pass", "fail", "skip":
		r.end(e, r.output[key])
		delete(r.output, key)
	}
}

func (r *result) end(e event, output []string) {
	if e.Test == "" {
		if e.Action == "fail" {
			fmt.Fprint(r.writer, strings.Join(output, ""))
		}
		if e.Action != "skip" { // a package without tests
			fmt.Fprintf(r.writer, "%-4s  %-60s %6.1f s\n", e.Action, e.Package, e.Elapsed)
		}
		return
	}
	switch e.Action {
	case "pass":
		r.passed++
		return
	case "fail":
		r.failed++
	case "skip":
		if r.helpers.MatchString(e.Test) {
			return
		}
		r.skipped++
	}
	fmt.Fprintf(r.writer, "%s %s %s\n%s", strings.ToUpper(e.Action), e.Package, e.Test, strings.Join(output, ""))
}
