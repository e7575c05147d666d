package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"
)

// root is the command tree.
type root struct {
	Config     string `help:"Config file (YAML); without it ./muster.yaml, then /etc/muster/muster.yaml, if there is one." placeholder:"FILE"`
	JSONErrors bool   `name:"json-errors" help:"Write errors as JSON."`

	Serve            serveCmd            `cmd:"" group:"Hub" help:"Run the hub."`
	Monitor          monitorCmd          `cmd:"" group:"Hub" help:"Show what happens, as it happens: changes and telemetry."`
	Demo             demoGroup           `cmd:"" group:"Hub" help:"Fifty simulated devices with a story."`
	Simulate         simulateCmd         `cmd:"" group:"Hub" help:"Many simulated devices for load, with a log of what the hub acknowledged."`
	Status           statusCmd           `cmd:"" group:"Hub" help:"Show what the hub does now."`
	ConnectionString connectionStringCmd `cmd:"" group:"Hub" help:"Print a connection string for applications, in IoT Hub's form."`

	Device deviceGroup `cmd:"" group:"Devices" help:"Device identities."`
	Module moduleGroup `cmd:"" group:"Devices" help:"Module identities of a device."`
	Twin   twinGroup   `cmd:"" group:"Devices" help:"Twins: tags, desired and reported properties."`
	Method methodGroup `cmd:"" group:"Devices" help:"Direct methods."`

	Query  queryGroup  `cmd:"" group:"Devices" help:"Find devices and modules: queries, bare predicates, saved queries."`
	Job    jobGroup    `cmd:"" group:"Devices" help:"Jobs: change twins or call methods of many devices, in waves, at a pace, with care."`
	Schema schemaGroup `cmd:"" group:"Devices" help:"Which properties twins have, and which they should have."`

	Configuration configurationGroup `cmd:"" group:"Devices" aliases:"config" help:"Automatic configurations: desired properties of all twins for which a condition holds."`

	Pattern patternGroup `cmd:"" group:"Devices" help:"Patterns: durable programs that take devices through a procedure."`
	Run     runGroup     `cmd:"" group:"Devices" help:"Runs of patterns: what each device went through, and where it stands."`

	Message messageGroup `cmd:"" group:"Devices" help:"Cloud-to-device messages."`
	File    fileGroup    `cmd:"" group:"Devices" help:"Files that devices have uploaded."`
	Fault   faultGroup   `cmd:"" group:"Devices" help:"Make a device's connection bad on purpose, for a while."`

	Container containerGroup `cmd:"" group:"Devices" help:"Containers of blobs, for imports and exports by Azure's SDKs."`

	Webhook webhookGroup `cmd:"" group:"Hub" help:"Endpoints to which the hub posts events."`

	Policy policyGroup `cmd:"" group:"Access" help:"Shared access policies."`
	Audit  auditGroup  `cmd:"" group:"Access" help:"The audit log."`

	Doctor      doctorCmd      `cmd:"" group:"Care" help:"Look for what is wrong, and say what to do."`
	Verify      verifyCmd      `cmd:"" group:"Care" help:"Read a whole data directory and check it (the hub must not run); with --acks, look up what a hub acknowledged."`
	Repair      repairCmd      `cmd:"" group:"Care" help:"Mend a damaged data directory; the hub must not run."`
	Debug       debugGroup     `cmd:"" group:"Care" help:"Look into a running hub: log level, profiles, flight recorder."`
	Backup      backupGroup    `cmd:"" group:"Care" help:"Backups: make, check and list them."`
	Restore     restoreCmd     `cmd:"" group:"Care" help:"Make a data directory from a backup."`
	Resume      resumeCmd      `cmd:"" group:"Care" help:"Let a restored hub send what is queued; the hub must not run."`
	Upgrade     upgradeCmd     `cmd:"" group:"Care" help:"Say whether this program can take over a data directory, and what to do first."`
	CheckConfig checkConfigCmd `cmd:"" group:"Care" help:"Check the configuration of serve without starting it."`

	Version    versionCmd    `cmd:"" group:"More" help:"Print the version."`
	Help       helpCmd       `cmd:"" group:"More" help:"Show the commands, or one of them."`
	Completion completionCmd `cmd:"" group:"More" help:"Print a completion script for a shell."`
	Complete   completeCmd   `cmd:"" name:"__complete" hidden:"" help:"Complete a command line; the scripts call it."`
}

// app is one run of the command line.
type app struct {
	ctx        context.Context // the run's own; commands end with it
	io         IO
	hooks      Hooks
	zone       *time.Location
	width      int           // of the terminal on Out; 0 = no terminal
	inTerminal bool          // questions can be asked
	tabTime    time.Duration // completionTime, but in tests
	jsonErrors bool
	command    string // that runs, as in "device show"; empty: none was found
	settings   *settings
	kong       *kong.Kong
}

// Main runs the command line and returns the exit code. args are without the
// program's name. env looks up an environment variable; "" means unset. It
// keeps nothing beyond the call.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env func(string) string, hooks Hooks) int {
	return newApp(ctx, IO{In: stdin, Out: stdout, Err: stderr, Env: env}, hooks).run(args)
}

func newApp(ctx context.Context, std IO, hooks Hooks) *app {
	return &app{
		ctx: ctx, io: std, hooks: hooks, zone: time.Local,
		width: terminalWidth(std.Out, std.Env), inTerminal: isTerminal(std.In) && isTerminal(std.Err), tabTime: completionTime,
	}
}

func (a *app) run(args []string) int {
	k, err := newParser(&root{}, a.io.Out, a.io.Err)
	if err != nil {
		return a.report(fmt.Errorf("build the command tree: %w", err)) // a test keeps this from happening
	}
	a.kong = k
	a.settings = &settings{env: a.io.Env, origin: map[string]string{}}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	a.jsonErrors = asksForJSONErrors(args, a.io.Env)
	code, err := a.dispatch(args)
	if err != nil {
		return a.report(err)
	}
	return code
}

// exitRequest is what kong's Exit becomes: it asks for the end of the process
// from deep inside, after --help.
type exitRequest int

func newParser(grammar any, out, errOut io.Writer) (*kong.Kong, error) {
	return kong.New(grammar, append(valueMappers(),
		kong.Name("muster"),
		kong.Description("Muster is a device hub in one program: devices connect by MQTT as to Azure IoT Hub, you manage them here. Every flag is also an environment variable: --log-level is MUSTER_LOG_LEVEL."),
		kong.Writers(out, errOut),
		kong.Exit(func(code int) { panic(exitRequest(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.ExplicitGroups([]kong.Group{
			{Key: "Hub", Title: "Hub:"}, {Key: "Devices", Title: "Devices:"}, {Key: "Access", Title: "Access:"},
			{Key: "Care", Title: "Care:"}, {Key: "More", Title: "More:"},
			{Key: "Store", Title: "Store:"}, {Key: "Network", Title: "Network:"}, {Key: "TLS", Title: "TLS:"}, {Key: "Backup", Title: "Backup:"},
			{Key: "Job", Title: "Job:"}, {Key: "Targets", Title: "Targets:"}, {Key: "Action", Title: "Action:"}, {Key: "Policy", Title: "Policy:"},
			{Key: "Operation", Title: "Operation:"}, {Key: "Which hub", Title: "Which hub:"},
		}),
	)...)
}

func (a *app) dispatch(args []string) (code int, err error) {
	defer func() {
		if v := recover(); v != nil {
			request, ok := v.(exitRequest)
			if !ok {
				panic(v)
			}
			code = int(request)
		}
	}()
	ctx, err := a.parse(args)
	if err != nil {
		return 0, err
	}
	a.command = strings.TrimPrefix(commandLine(ctx.Selected()), "muster ")
	return 0, ctx.Run(a)
}

// parse resolves flags from the command line, the environment and the config
// file, in this order.
func (a *app) parse(args []string) (*kong.Context, error) {
	trace, err := kong.Trace(a.kong, args)
	if err == nil && trace.Error == nil {
		if err := a.settings.load(trace); err != nil {
			return nil, err
		}
	}
	if err := kong.Resolvers(a.settings).Apply(a.kong); err != nil {
		return nil, err
	}
	ctx, err := a.kong.Parse(args)
	if err != nil {
		return nil, err
	}
	for _, p := range ctx.Path {
		if p.Flag != nil && !p.Resolved {
			a.settings.origin[p.Flag.Name] = "flag"
		}
		if p.Positional != nil && isEmpty(p.Positional) {
			return nil, emptyArgument(ctx, p.Positional)
		}
	}
	return ctx, nil
}

// given is the first of these flags that the command line has, as it is typed there.
func (a *app) given(names ...string) string {
	for _, name := range names {
		if a.settings.origin[name] == "flag" {
			return "--" + name
		}
	}
	return ""
}

// isEmpty reports whether an argument was given that is empty, as a shell gives it
// for a variable that is not set: it names nothing, and in a path of the REST API
// it would lead elsewhere. Arguments whose text may be empty have the tag.
func isEmpty(arg *kong.Positional) bool {
	if arg.Tag.Has("maybeempty") {
		return false
	}
	switch v := arg.Target.Interface().(type) {
	case string:
		return v == ""
	case []string:
		return slices.Contains(v, "")
	}
	return false
}

func emptyArgument(ctx *kong.Context, arg *kong.Positional) error {
	return &problem{
		exit: ExitUsage, what: fmt.Sprintf("<%s> is missing: the argument is empty", arg.Name), why: "expected: " + arg.Help,
		next: fmt.Sprintf("Give it; in a script, see whether a variable is not set. `%s --help` shows the usage.", commandLine(ctx.Selected())),
	}
}

// asksForJSONErrors looks before parsing, since parsing may be what fails.
func asksForJSONErrors(args []string, env func(string) string) bool {
	for _, arg := range args {
		if arg == "--" {
			break
		}
		if arg == "--json-errors" {
			return true
		}
	}
	on, err := strconv.ParseBool(env("MUSTER_JSON_ERRORS"))
	return err == nil && on
}

// note writes a line for people to standard error.
func (a *app) note(format string, args ...any) {
	_, _ = fmt.Fprintf(a.io.Err, format+"\n", args...) // nobody is left to tell
}

// confirm asks before something is lost. Without a terminal it refuses unless
// yes is set.
func (a *app) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	if !a.inTerminal {
		return usage("this needs a confirmation, and standard input is not a terminal: "+question, "Add --yes if you are sure.")
	}
	if _, err := fmt.Fprintf(a.io.Err, "%s [y/N] ", question); err != nil {
		return err
	}
	answer, err := readLine(a.ctx, a.io.In)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return &problem{exit: ExitCancelled, what: "cancelled, nothing was changed"}
}

// readLine reads up to a line's end, byte by byte so that it takes no more
// than its own line from the input.
func readLine(ctx context.Context, r io.Reader) (string, error) {
	type result struct {
		line string
		err  error
	}
	done := make(chan result, 1)
	// A read from a terminal cannot be interrupted: when ctx ends first, this
	// goroutine stays until the process ends, which is then next.
	go func() {
		var line []byte
		var b [1]byte
		for len(line) < 4096 {
			n, err := r.Read(b[:])
			if n == 1 && b[0] == '\n' {
				break
			}
			line = append(line, b[:n]...)
			if err != nil {
				done <- result{string(line), err}
				return
			}
		}
		done <- result{string(line), nil}
	}()
	select {
	case r := <-done:
		return r.line, r.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// terminalWidth returns the columns of a terminal, or 0 when w is none.
func terminalWidth(w io.Writer, env func(string) string) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	if n, err := strconv.Atoi(env("COLUMNS")); err == nil && n > 0 {
		return n
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		return 80
	}
	return width
}
