package cli

import "errors"

type patternGroup struct {
	patternAuthor

	List    patternListCmd    `cmd:"" help:"List the patterns of the hub: programs that manage devices."`
	Show    patternShowCmd    `cmd:"" help:"Show a pattern: what it does, its parameters, what it may do, and what its runs took."`
	Install patternInstallCmd `cmd:"" help:"Install a pattern from its folder or archive, after a look at what it needs."`
	Enable  patternEnableCmd  `cmd:"" help:"Let a pattern run, also by its triggers."`
	Disable patternDisableCmd `cmd:"" help:"Let nothing start a pattern any more; its runs go on."`
	Default patternDefaultCmd `cmd:"" help:"Make a version the one that runs when none is named."`
	Remove  patternRemoveCmd  `cmd:"" help:"Remove a version of a pattern."`
	Run     patternRunCmd     `cmd:"" help:"Run a pattern on a device, or over many by a job, and follow it."`
	Counts  patternCountsCmd  `cmd:"" help:"Count runs by where they stand: how many at which phase and step."`

	Key    patternKeyGroup    `cmd:"" help:"Keys whose signatures on patterns the hub trusts."`
	Secret patternSecretGroup `cmd:"" help:"Secrets that patterns may use, and nobody can read."`
}

type patternListCmd struct{ HubFlags }

// Run is to come.
func (c *patternListCmd) Run(*app) error { return errors.New("not here yet") }

type patternShowCmd struct{ HubFlags }

// Run is to come.
func (c *patternShowCmd) Run(*app) error { return errors.New("not here yet") }

type patternInstallCmd struct{ HubFlags }

// Run is to come.
func (c *patternInstallCmd) Run(*app) error { return errors.New("not here yet") }

type patternEnableCmd struct{ HubFlags }

// Run is to come.
func (c *patternEnableCmd) Run(*app) error { return errors.New("not here yet") }

type patternDisableCmd struct{ HubFlags }

// Run is to come.
func (c *patternDisableCmd) Run(*app) error { return errors.New("not here yet") }

type patternDefaultCmd struct{ HubFlags }

// Run is to come.
func (c *patternDefaultCmd) Run(*app) error { return errors.New("not here yet") }

type patternRemoveCmd struct{ HubFlags }

// Run is to come.
func (c *patternRemoveCmd) Run(*app) error { return errors.New("not here yet") }

type patternRunCmd struct{ HubFlags }

// Run is to come.
func (c *patternRunCmd) Run(*app) error { return errors.New("not here yet") }

type patternCountsCmd struct{ HubFlags }

// Run is to come.
func (c *patternCountsCmd) Run(*app) error { return errors.New("not here yet") }

type patternKeyGroup struct {
	List patternListCmd `cmd:"" help:"List the trusted keys."`
}

type patternSecretGroup struct {
	List patternListCmd `cmd:"" help:"List the secrets."`
}
