package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// patternAuthor has the commands of whoever writes patterns; none needs a hub. They
// are part of `muster pattern`.
type patternAuthor struct {
	New    patternNewCmd    `cmd:"" help:"Begin a pattern: a folder with a program, a test and what editors need."`
	Check  patternCheckCmd  `cmd:"" help:"Look for what is wrong in a pattern's source, without running it."`
	Test   patternTestCmd   `cmd:"" help:"Run a pattern's tests, on fake devices and in virtual time."`
	Dev    patternDevCmd    `cmd:"" help:"Watch a folder: on each save check it, run its tests and show a run's trace."`
	Pack   patternPackCmd   `cmd:"" help:"Make a pattern's folder an archive."`
	Sign   patternSignCmd   `cmd:"" help:"Sign a pattern's folder."`
	Keygen patternKeygenCmd `cmd:"" help:"Make a key that signs patterns."`
	Stubs  patternStubsCmd  `cmd:"" help:"Write muster.d.lua, with which editors complete and check patterns."`
}

// AuthorHooks are what main supplies for the commands of authors.
type AuthorHooks struct {
	New   func(f PatternNewFlags, io IO) error
	Check func(f PatternCheckFlags, io IO) error
	// Lint writes to standard error what Check finds in one pattern, if it finds
	// anything, and says how many errors are among it.
	Lint func(path string, io IO) (errors int, err error)
	Test func(ctx context.Context, f PatternTestFlags, io IO) error
	// Dev calls passed, unless that is nil, with the archive of what has passed its
	// tests, a version of its own, and shows what that returns.
	Dev    func(ctx context.Context, f PatternDevFlags, io IO, passed func(archive []byte) (string, error)) error
	Pack   func(f PatternPackFlags, io IO) error
	Sign   func(f PatternSignFlags, io IO) error
	Keygen func(f PatternKeygenFlags, io IO) error
	Stubs  func(f PatternStubsFlags, io IO) error
}

// PatternNewFlags are of `muster pattern new`.
type PatternNewFlags struct {
	Name string `arg:"" help:"Name of the pattern, in kebab-case; also of the folder." placeholder:"NAME"`
	Kind string `help:"What a run is of: device or fleet." enum:"device,fleet" default:"device"`
	In   string `help:"Make the folder in this one." default:"." placeholder:"DIR"`
}

// PatternCheckFlags are of `muster pattern check`.
type PatternCheckFlags struct {
	Dir    []string `arg:"" optional:"" help:"The pattern's folder, or a folder of such; by default this one." placeholder:"DIR"`
	Output string   `short:"o" help:"text or json." enum:"text,json" default:"text" placeholder:"FORMAT"`
	Strict bool     `help:"Warnings fail, too."`
}

// PatternTestFlags are of `muster pattern test`.
type PatternTestFlags struct {
	Dir             []string `arg:"" optional:"" help:"The pattern's folder, or a folder of such; by default this one. Also the name of a pattern that ships with Muster." placeholder:"DIR"`
	Shipped         bool     `help:"Test the patterns that ship with Muster."`
	CrashEverywhere bool     `help:"Repeat each test with a crash at every commit, and compare."`
	Cover           bool     `help:"Show which lines of the pattern ran in no test."`
	Run             string   `help:"Only tests whose name matches this regular expression." placeholder:"NAME"`
	Verbose         bool     `short:"v" help:"Show each test and the trace of its runs."`
	Output          string   `short:"o" help:"text, json or junit." enum:"text,json,junit" default:"text" placeholder:"FORMAT"`
}

// PatternDevFlags are of `muster pattern dev`.
type PatternDevFlags struct {
	Dir   string        `arg:"" optional:"" help:"The pattern's folder." default:"." placeholder:"DIR"`
	Trace string        `help:"Show the run of the first test whose name matches this regular expression." placeholder:"NAME"`
	Every time.Duration `help:"How often to look for changes." default:"200ms" hidden:""`
	Once  bool          `help:"Do it once and end."`
}

// PatternPackFlags are of `muster pattern pack`.
type PatternPackFlags struct {
	Dir string `arg:"" optional:"" help:"The pattern's folder." default:"." placeholder:"DIR"`
	Out string `short:"o" name:"out" help:"Where to write it; by default NAME-VERSION.tar.gz here." placeholder:"FILE"`
}

// PatternSignFlags are of `muster pattern sign`.
type PatternSignFlags struct {
	Dir string `arg:"" optional:"" help:"The pattern's folder." default:"." placeholder:"DIR"`
	Key string `help:"File with the private key, as keygen made it." required:"" placeholder:"FILE"`
}

// PatternKeygenFlags are of `muster pattern keygen`.
type PatternKeygenFlags struct {
	Out string `short:"o" name:"out" help:"File for the private key; the public one goes beside it, with .pub behind its name." default:"pattern.key" placeholder:"FILE"`
}

// PatternStubsFlags are of `muster pattern stubs`.
type PatternStubsFlags struct {
	Out string `short:"o" name:"out" help:"File to write; - is standard output." default:"muster.d.lua" placeholder:"FILE"`
}

type (
	patternNewCmd   struct{ PatternNewFlags }
	patternCheckCmd struct{ PatternCheckFlags }
	patternTestCmd  struct{ PatternTestFlags }
	patternDevCmd   struct {
		HubFlags
		PatternDevFlags
		Install bool `help:"Install what has passed on the hub, unsigned, as the version that new runs take."`
	}
	patternPackCmd   struct{ PatternPackFlags }
	patternSignCmd   struct{ PatternSignFlags }
	patternKeygenCmd struct{ PatternKeygenFlags }
	patternStubsCmd  struct{ PatternStubsFlags }
)

// Run makes a pattern's folder.
func (c *patternNewCmd) Run(a *app) error {
	if a.hooks.Author.New == nil {
		return notBuilt("pattern new")
	}
	return a.hooks.Author.New(c.PatternNewFlags, a.io)
}

// Run checks.
func (c *patternCheckCmd) Run(a *app) error {
	if a.hooks.Author.Check == nil {
		return notBuilt("pattern check")
	}
	return a.hooks.Author.Check(c.PatternCheckFlags, a.io)
}

// Run runs the tests.
func (c *patternTestCmd) Run(a *app) error {
	if a.hooks.Author.Test == nil {
		return notBuilt("pattern test")
	}
	return a.hooks.Author.Test(a.ctx, c.PatternTestFlags, a.io)
}

// Run watches until it is interrupted.
func (c *patternDevCmd) Run(a *app) error {
	if a.hooks.Author.Dev == nil {
		return notBuilt("pattern dev")
	}
	if !c.Install {
		return a.hooks.Author.Dev(a.ctx, c.PatternDevFlags, a.io, nil)
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	last := client.Pattern{}
	return a.hooks.Author.Dev(a.ctx, c.PatternDevFlags, a.io, func(archive []byte) (string, error) {
		ctx, stop := a.with(c.HubFlags)
		defer stop()
		p, err := s.InstallPattern(ctx, client.PatternInstall{Archive: archive, Unsigned: true, Grant: []string{"all"}})
		if err == nil && !p.Default {
			p, err = s.DefaultPattern(ctx, p.Name, p.Version, "")
		}
		if err != nil {
			return "", a.explain(err)
		}
		if last.Name == p.Name && last.Version != p.Version {
			_ = s.RemovePattern(ctx, last.Name, last.Version, "") // it stays while runs are on it
		}
		last = p
		return fmt.Sprintf("installed %s %s: new runs take it", printable(p.Name), printable(p.Version)), nil
	})
}

// Run packs.
func (c *patternPackCmd) Run(a *app) error {
	if a.hooks.Author.Pack == nil {
		return notBuilt("pattern pack")
	}
	return a.hooks.Author.Pack(c.PatternPackFlags, a.io)
}

// Run signs.
func (c *patternSignCmd) Run(a *app) error {
	if a.hooks.Author.Sign == nil {
		return notBuilt("pattern sign")
	}
	return a.hooks.Author.Sign(c.PatternSignFlags, a.io)
}

// Run makes a key.
func (c *patternKeygenCmd) Run(a *app) error {
	if a.hooks.Author.Keygen == nil {
		return notBuilt("pattern keygen")
	}
	return a.hooks.Author.Keygen(c.PatternKeygenFlags, a.io)
}

// Run writes the stubs.
func (c *patternStubsCmd) Run(a *app) error {
	if a.hooks.Author.Stubs == nil {
		return notBuilt("pattern stubs")
	}
	return a.hooks.Author.Stubs(c.PatternStubsFlags, a.io)
}
