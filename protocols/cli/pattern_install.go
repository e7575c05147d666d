package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/muster-hub/muster/protocols/client"
)

type patternInstallCmd struct {
	HubFlags
	OutputFlags
	Yes      bool `short:"y" aliases:"grant-all" help:"Don't ask: grant all that it needs. --grant-all is the same."`
	Unsigned bool `help:"Install it although no key that the hub trusts has signed it."`
	Disabled bool `help:"Don't enable it."`
	Default  bool `help:"Let it run when no version is named, also if another version does so far."`
	Inspect  bool `help:"Only show what it needs; nothing is installed."`

	Unchecked bool `help:"Don't look for what is wrong in its source first."`

	From string `arg:"" name:"path" help:"The pattern's folder, an archive of it (.tar.gz or .zip), or its one file of Lua."`
}

// archiveMost is the largest archive of a pattern in bytes; the hub takes less.
const archiveMost = 8 << 20

// Run installs a pattern: what it needs was shown and agreed to, or --yes says
// so.
func (c *patternInstallCmd) Run(a *app) error {
	if !c.Yes && !c.Inspect && !a.inTerminal {
		return usage("a pattern is installed after a look at what it needs, and standard input is not a terminal", "Add --yes to grant all of it; --inspect shows it.")
	}
	if err := c.check(a); err != nil {
		return err
	}
	archive, err := a.patternArchive(c.From)
	if err != nil {
		return err
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	in := client.PatternInstall{Archive: archive, Unsigned: c.Unsigned, Disabled: c.Disabled}
	ctx, stop := a.with(c.HubFlags)
	seen, err := s.InspectPattern(ctx, in)
	stop()
	if err != nil {
		return err
	}
	if c.Inspect {
		return a.printPattern(c.OutputFlags, &seen)
	}
	if !c.Yes {
		if err := a.agree(&in, &seen); err != nil {
			return err
		}
	}
	for _, n := range seen.Needs {
		in.Grant = append(in.Grant, n.Need)
	}
	ctx, stop = a.with(c.HubFlags)
	defer stop()
	before := ""
	if q, err := s.Pattern(ctx, seen.Name, ""); err == nil { // else there is none yet
		before = q.Version
	}
	p, err := s.InstallPattern(ctx, in)
	if err == nil && c.Default && !p.Default {
		p, err = s.DefaultPattern(ctx, p.Name, p.Version, "")
	}
	if err != nil {
		return err
	}
	if c.Output != "table" {
		return a.printPattern(c.OutputFlags, &p)
	}
	a.note("Installed %s %s.", printable(p.Name), printable(p.Version))
	if p.Default && before != "" && before != p.Version {
		a.note("It is the default version now, in place of %s.", printable(before))
	}
	a.note("%s", installedNext(&p))
	return nil
}

// check looks at the source of a pattern before it goes anywhere. An archive is
// somebody's who has checked it, or who is not to be trusted with this process.
func (c *patternInstallCmd) check(a *app) error {
	if c.Unchecked || c.Inspect || a.hooks.Author.Lint == nil || !isSource(c.From) {
		return nil
	}
	found, err := a.hooks.Author.Lint(c.From, a.io)
	if err != nil {
		return nil //nolint:nilerr // it can't be read as a pattern: who packs it, or the hub, says why
	}
	if found == 0 {
		return nil
	}
	what := "the check has found an error in " + printable(c.From)
	if found > 1 {
		what = fmt.Sprintf("the check has found %d errors in %s", found, printable(c.From))
	}
	return &problem{exit: ExitFailed, what: what, next: fmt.Sprintf("Mend it; `muster pattern check %s` looks again. --unchecked installs it without a check, if the hub takes it.", printable(c.From))}
}

// isSource reports whether a path is a pattern's folder or its one file of Lua.
func isSource(path string) bool {
	info, err := os.Stat(path)
	return err == nil && (info.IsDir() || strings.EqualFold(filepath.Ext(path), ".lua"))
}

// agree shows what a pattern needs, and asks.
func (a *app) agree(in *client.PatternInstall, p *client.Pattern) error {
	out := a.io.Out
	a.io.Out = a.io.Err // the result comes there
	err := a.printPattern(OutputFlags{Output: "table"}, p)
	a.io.Out = out
	if err != nil {
		return err
	}
	a.note("")
	if p.Origin == "unsigned" && !in.Unsigned {
		if err := a.confirm(false, "No key that the hub trusts has signed it. Do you know where it comes from?"); err != nil {
			return err
		}
		in.Unsigned = true
	}
	question := fmt.Sprintf("Install %s %s and let it do all of this?", printable(p.Name), printable(p.Version))
	if len(p.Needs) == 0 {
		question = fmt.Sprintf("Install %s %s? It needs nothing.", printable(p.Name), printable(p.Version))
	}
	return a.confirm(false, question)
}

// installedNext is what one can do with a pattern that was just installed.
func installedNext(p *client.Pattern) string {
	name := printable(p.Name)
	switch {
	case len(p.Missing) > 0:
		return "It can't be enabled: this hub has no " + printable(brieflyJoined(p.Missing, briefMost)) + " yet."
	case !p.Enabled:
		return fmt.Sprintf("`muster pattern enable %s --version %s` lets it run.", name, printable(p.Version))
	case !p.Default:
		return fmt.Sprintf("Another version runs when none is named: `muster pattern default %s --version %s` makes it this one.", name, printable(p.Version))
	}
	if m, err := manifestOf(p); err == nil && m.Scope == "fleet" {
		return fmt.Sprintf("`muster pattern run %s` runs it.", name)
	}
	return fmt.Sprintf("`muster pattern run %s --device ID` runs it on a device, --where PREDICATE over many.", name)
}

// patternArchive reads what is to be installed; a folder is packed as `muster
// pattern pack` does.
func (a *app) patternArchive(from string) ([]byte, error) {
	info, err := os.Stat(from)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &problem{exit: ExitUsage, what: "there is no folder or file " + printable(from), next: "Name a pattern's folder or archive; the patterns that ship with Muster are installed already, see `muster pattern list`."}
	case err != nil:
		return nil, err
	case !info.IsDir():
		data, err := readBounded(from, archiveMost)
		if err == nil && len(data) > archiveMost {
			err = usage(printable(from)+" is larger than 8 MiB", "A pattern has at most 1 MiB of files.")
		}
		return data, err
	}
	if _, err := os.Stat(filepath.Join(from, "pattern.lua")); errors.Is(err, fs.ErrNotExist) {
		return nil, &problem{exit: ExitUsage, what: "there is no pattern.lua in " + printable(from), next: "`muster pattern new NAME` begins a pattern."}
	}
	if a.hooks.Author.Pack == nil {
		return nil, notBuilt("pattern pack")
	}
	dir, err := os.MkdirTemp("", "muster-pattern-*")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the archive: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	file := filepath.Join(dir, "pattern.tar.gz")
	quiet := a.io
	quiet.Out, quiet.Err = io.Discard, io.Discard
	if err := a.hooks.Author.Pack(PatternPackFlags{Dir: from, Out: file}, quiet); err != nil {
		p := *a.explain(err)
		if p.exit == ExitFailed && p.code == "" {
			p.exit, p.what = ExitUsage, "the folder "+printable(from)+" can't be installed as it is"
		}
		return nil, &p
	}
	return readBounded(file, archiveMost)
}
