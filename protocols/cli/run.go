package cli

import "errors"

type runGroup struct {
	List    runListCmd    `cmd:"" help:"List runs of patterns, the newest first."`
	Show    runShowCmd    `cmd:"" help:"Show a run: how far it is, what it waits for, and what to do next."`
	Trace   runTraceCmd   `cmd:"" help:"Tell what a run did, step by step, with times, values and source lines."`
	Watch   runWatchCmd   `cmd:"" help:"Follow a run until it has ended."`
	Approve runApproveCmd `cmd:"" help:"Answer yes to what runs ask."`
	Deny    runDenyCmd    `cmd:"" help:"Answer no to what runs ask."`
	Cancel  runCancelCmd  `cmd:"" help:"Ask runs to end; they clean up first."`
	Undo    runUndoCmd    `cmd:"" help:"Have a run that has ended take back what it did."`
	Retry   runRetryCmd   `cmd:"" help:"Start a run again that has ended: from its start, or from a step."`
	Export  runExportCmd  `cmd:"" help:"Write runs into a file."`
}

type runListCmd struct{ HubFlags }

// Run is to come.
func (c *runListCmd) Run(*app) error { return errors.New("not here yet") }

type runShowCmd struct{ HubFlags }

// Run is to come.
func (c *runShowCmd) Run(*app) error { return errors.New("not here yet") }

type runTraceCmd struct{ HubFlags }

// Run is to come.
func (c *runTraceCmd) Run(*app) error { return errors.New("not here yet") }

type runWatchCmd struct{ HubFlags }

// Run is to come.
func (c *runWatchCmd) Run(*app) error { return errors.New("not here yet") }

type runApproveCmd struct{ HubFlags }

// Run is to come.
func (c *runApproveCmd) Run(*app) error { return errors.New("not here yet") }

type runDenyCmd struct{ HubFlags }

// Run is to come.
func (c *runDenyCmd) Run(*app) error { return errors.New("not here yet") }

type runCancelCmd struct{ HubFlags }

// Run is to come.
func (c *runCancelCmd) Run(*app) error { return errors.New("not here yet") }

type runUndoCmd struct{ HubFlags }

// Run is to come.
func (c *runUndoCmd) Run(*app) error { return errors.New("not here yet") }

type runRetryCmd struct{ HubFlags }

// Run is to come.
func (c *runRetryCmd) Run(*app) error { return errors.New("not here yet") }

type runExportCmd struct{ HubFlags }

// Run is to come.
func (c *runExportCmd) Run(*app) error { return errors.New("not here yet") }
