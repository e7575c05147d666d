package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/muster-hub/muster/engine/wording"
	"github.com/muster-hub/muster/protocols/client"
)

// The exit codes. They are part of the interface: scripts depend on them.
const (
	ExitOK        = 0  // done
	ExitFailed    = 1  // failed, or a check found something wrong
	ExitUsage     = 2  // wrong usage or configuration
	ExitConnect   = 3  // could not start, or could not reach the hub or the device
	ExitNotFound  = 4  // no such record
	ExitForbidden = 5  // not allowed
	ExitConflict  = 6  // it exists already, or changed since it was read
	ExitTimeout   = 7  // no answer in time
	ExitPartly    = 8  // done for some, failed for others
	ExitCancelled = 9  // cancelled by the user
	ExitLimited   = 10 // the hub refuses for limits
)

// ExitCodes lists the exit codes with their meaning, for documentation.
func ExitCodes() []struct {
	Code int
	Text string
} {
	return []struct {
		Code int
		Text string
	}{
		{ExitOK, "Done."},
		{ExitFailed, "Failed, or a check found something wrong, or a device answered a method with a status outside 200 to 299."},
		{ExitUsage, "Wrong usage or configuration."},
		{ExitConnect, "Could not start, or could not reach the hub or the device."},
		{ExitNotFound, "No such device, module, policy or other record."},
		{ExitForbidden, "Not allowed."},
		{ExitConflict, "It exists already, or it changed since it was read (ETag)."},
		{ExitTimeout, "No answer in time."},
		{ExitPartly, "Done for some, failed for others; or a job that was watched has paused."},
		{ExitCancelled, "Cancelled by the user."},
		{ExitLimited, "The hub refuses for its limits."},
	}
}

// problem is an error for a person: what happened, why, and what to do next.
type problem struct {
	exit      int
	what      string
	why       string
	next      string
	place     string // lines that show where a text is wrong
	code      string // the hub's, for --json-errors
	status    int
	requestID string
}

func (p *problem) Error() string {
	if p.why == "" {
		return p.what
	}
	return p.what + ": " + p.why
}

func usage(what, next string) error { return &problem{exit: ExitUsage, what: what, next: next} }

// explain turns any error into a problem.
func (a *app) explain(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		return explainRefusal(e)
	}
	if e, ok := errors.AsType[*client.ConnectError](err); ok {
		return explainConnect(e)
	}
	if e, ok := errors.AsType[*kong.ParseError](err); ok {
		return explainParse(e)
	}
	p := &problem{exit: ExitFailed, what: "the command failed", why: err.Error()}
	if a.command != "" {
		p.what = a.command + " failed"
	}
	if a.hooks.ExitCode != nil {
		if code, next, ok := a.hooks.ExitCode(err); ok {
			p.exit, p.next = code, next
			return p
		}
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		p.exit, p.what, p.next = ExitTimeout, "no answer in time", "Try again, or allow more time with --timeout."
	case errors.Is(err, context.Canceled) || a.ctx.Err() != nil:
		p.exit, p.what, p.why = ExitCancelled, "cancelled", ""
	default:
		p.explainFile(err)
	}
	return p
}

// explainFile says what of an error is a file's matter: which file, and what to do.
func (p *problem) explainFile(err error) {
	file := "the file or folder"
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		if e.Op == "mkdir" {
			*p = *notMade(e.Path, err)
			return
		}
		file = printable(e.Path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.exit, p.next = ExitUsage, "Check the name of "+file+"."
	case errors.Is(err, fs.ErrPermission):
		p.exit, p.next = ExitForbidden, "Run the command as the user that owns "+file+"."
	case errors.Is(err, syscall.ENOSPC):
		p.next = "Make room on the disk of " + file + "."
	}
}

func explainRefusal(e *client.Error) *problem {
	p := &problem{exit: ExitFailed, what: e.Message, next: e.Next, code: e.Code, status: e.Status, requestID: e.RequestID}
	switch {
	case p.what == "":
		p.what = "the hub refused the request"
	case strings.ContainsAny(p.what, " \t"): // it has words
	case e.Code == "DeviceNotFound": // IoT Hub's paths then say the id alone
		p.what = fmt.Sprintf("there is no device %q", p.what)
	case e.Code == "ModuleNotFound":
		p.what = fmt.Sprintf("there is no module %q", p.what)
	}
	p.why = fmt.Sprintf("the hub answered %d", e.Status)
	if e.Code != "" {
		p.why = fmt.Sprintf("%s (status %d)", e.Code, e.Status)
	}
	if e.RequestID != "" {
		p.why += ", request " + e.RequestID
	}
	if e.Query != nil {
		p.place = e.Query.Caret
	}
	if len(e.Faults) > 1 {
		lines := make([]string, len(e.Faults))
		for i, f := range e.Faults {
			lines[i] = faultText(f)
		}
		p.what, p.place = fmt.Sprintf("%d things are wrong with it", len(lines)), strings.Join(lines, "\n")
	}
	if row, ok := refusals()[e.Code]; ok {
		p.exit = row.exit
		if p.next == "" {
			p.next = row.next
		}
		return p
	}
	switch e.Status {
	case 401, 403:
		p.exit = ExitForbidden
	case 404:
		p.exit = ExitNotFound
	case 408, 504:
		p.exit = ExitTimeout
	case 409, 412:
		p.exit = ExitConflict
	case 413, 429:
		p.exit = ExitLimited
	case 502, 503:
		p.exit = ExitConnect
	}
	if p.next == "" && e.Status >= 500 {
		p.next = "Try again; `muster doctor` looks at the hub."
	}
	return p
}

type refusal struct {
	exit int
	next string
}

// refusals has what a code of the hub means here. IoT Hub's paths don't say
// a next step, so it stands here too.
func refusals() map[string]refusal {
	return map[string]refusal{
		"ArgumentInvalid":                      {ExitFailed, "Correct the value that the message names."},
		"ArgumentNull":                         {ExitFailed, "Add the value that the message names."},
		"IotHubFormatError":                    {ExitFailed, "Send one JSON value of the documented shape."},
		"IotHubUnauthorizedAccess":             {ExitForbidden, "Use a connection string of a policy with the right; `muster policy list` shows them."},
		"OperationNotAllowed":                  {ExitForbidden, "Use a principal with the permission that the message names."},
		"DeviceDisabled":                       {ExitForbidden, "`muster device enable ID`, after a look at its status reason."},
		"DeviceNotFound":                       {ExitNotFound, "`muster device list` shows what exists."},
		"ModuleNotFound":                       {ExitNotFound, "`muster module list DEVICE` shows what exists."},
		"WebhookNotFound":                      {ExitNotFound, "`muster webhook list` shows what exists."},
		"QueryNotFound":                        {ExitNotFound, "`muster query list` shows what exists."},
		"JobNotFound":                          {ExitNotFound, "`muster job list` shows what is kept."},
		"JobTemplateNotFound":                  {ExitNotFound, "`muster job template list` shows what exists."},
		"JobAlreadyExists":                     {ExitConflict, "Choose another id, or leave it out."},
		"OperationNotAllowedInCurrentState":    {ExitConflict, "`muster job show JOB` says how it stands."},
		"JobRunPreconditionFailed":             {ExitConflict, "Preview it again, look at what changed, and start it with the new token."},
		"ThrottlingMaxActiveJobCountExceeded":  {ExitLimited, "Wait until a job has ended, or cancel one."},
		"SchemaNotFound":                       {ExitNotFound, "`muster schema declare FILE` declares one."},
		"QueryBudgetExceeded":                  {ExitLimited, "Narrow the query."},
		"PolicyNotFound":                       {ExitNotFound, "`muster policy list` shows what exists."},
		"HistoryNotFound":                      {ExitNotFound, "`muster twin history ID` shows what is kept."},
		"DeviceAlreadyExists":                  {ExitConflict, "Choose another id, or change it with `muster device update ID`."},
		"ModuleAlreadyExistsOnDevice":          {ExitConflict, "Choose another id, or change it with `muster module update DEVICE MODULE`."},
		"SystemModuleModifyUnauthorizedAccess": {ExitConflict, "Delete the device, or `muster device update ID --no-edge`: its system modules go with it."},
		"DeviceDefinedMultipleTimes":           {ExitConflict, "Name each device once."},
		"PreconditionFailed":                   {ExitConflict, "Read it again and send its current ETag, or leave --etag out."},
		"DeviceNotOnline":                      {ExitConnect, "Wait for the device, or allow for that with --connect-timeout."},
		"DeviceConnectionClosedRemotely":       {ExitConnect, "Whether the device acted is not known: look at `muster twin show ID` before you call again."},
		"GatewayTimeout":                       {ExitTimeout, "Whether the device acted is not known: look at `muster twin show ID` before you call again."},
		"MessageTooLarge":                      {ExitLimited, "Send less."},
		"TooManyDevices":                       {ExitLimited, "Send fewer at once."},
		"TooManyModulesOnDevice":               {ExitLimited, "Delete a module first."},
		"DeviceMaximumInflightMethodExceeded":  {ExitLimited, "Wait until some of the device's calls have ended."},
		"ThrottlingException":                  {ExitLimited, "Wait some seconds and try again."},
		"ServiceUnavailable":                   {ExitConnect, "Wait; `/readyz` and `muster doctor` say for what."},
		"ServerShuttingDown":                   {ExitConnect, "Wait until the hub runs again."},
		"StoreReadOnly":                        {ExitFailed, "`muster doctor` says why; free disk space, or restart after a disk failure."},
		"OutcomeUncertain":                     {ExitFailed, "Restart the hub, then read the record before you repeat the change."},
	}
}

func explainConnect(e *client.ConnectError) *problem {
	p := &problem{exit: ExitConnect, what: "no connection to " + e.Target, why: e.Err.Error()}
	_, unknownCA := errors.AsType[x509.UnknownAuthorityError](e.Err)
	_, wrongName := errors.AsType[x509.HostnameError](e.Err)
	_, notTLS := errors.AsType[tls.RecordHeaderError](e.Err)
	switch {
	case errors.Is(e.Err, fs.ErrNotExist) && !strings.HasPrefix(e.Target, "https:"):
		p.what, p.why = "no hub runs with this data directory", e.Target+" does not exist"
		p.next = "Start one with `muster serve`, or name another with --data DIR or --hub FILE."
	case errors.Is(e.Err, syscall.ECONNREFUSED) && !strings.HasPrefix(e.Target, "https:"):
		p.what, p.why = "no hub runs with this data directory", e.Target+" is left over from one that has ended"
		p.next = "Start it with `muster serve`, or name another with --data DIR or --hub FILE."
	case errors.Is(e.Err, fs.ErrPermission):
		p.exit, p.next = ExitForbidden, "Run the command as the user that runs the hub, or use --hub with a connection string."
	case unknownCA:
		p.next = "Name the hub's CA with --ca FILE; a hub with its own CA keeps it in DATA/tls/ca.pem."
	case wrongName:
		p.next = "Use a name that the hub was started with (`muster serve --host NAME`)."
	case notTLS:
		p.next = "The port doesn't speak TLS: check --port."
	default:
		p.next = "Check that the hub runs and that name and --port are right."
	}
	return p
}

func explainParse(e *kong.ParseError) *problem {
	what, first := plainParse(e.Error())
	p := &problem{exit: ExitUsage, what: what, next: strings.TrimSpace(first + " `muster --help` shows the commands.")}
	if e.Context == nil {
		return p
	}
	node := e.Context.Selected()
	if node == nil {
		return p
	}
	p.next = strings.TrimSpace(first + " `" + commandLine(node) + " --help` shows the usage.")
	if word, what := dashedWord(e, node); word != "" {
		p.what = what
		p.why = fmt.Sprintf("%q begins with -, as flags do", word)
		p.next = "If it is no flag, put -- before it: `-- " + shellWord(word) + "`; " + p.next
	}
	args := e.Context.Args
	if i := slices.Index(args, "module"); commandLine(node) == "muster module" && i >= 0 && i+1 < len(args) && (args[i+1] == "disable" || args[i+1] == "enable") {
		// IoT Hub's modules have no status, which nobody guesses who has disabled a device.
		p.next = "A module has no status of its own: `muster device " + args[i+1] + " DEVICE` is for the device with its modules."
	}
	return p
}

// dashedWord is the word that was taken for letters of flags, of which one is
// unknown, though a command with arguments may mean it as one: a predicate may
// begin with a minus. what is the error without kong's guesses: all flags of one
// letter are alike.
func dashedWord(e *kong.ParseError, node *kong.Node) (word, what string) {
	if node.DefaultCmd != nil {
		node = node.DefaultCmd
	}
	what, _, _ = strings.Cut(e.Error(), ", did you mean")
	letter, unknown := strings.CutPrefix(what, "unknown flag -")
	if !unknown || strings.HasPrefix(letter, "-") || len(node.Positional) == 0 {
		return "", ""
	}
	for _, arg := range e.Context.Args {
		if len(arg) > 2 && arg[0] == '-' && arg[1] != '-' && strings.Contains(arg, letter) {
			return arg, what
		}
	}
	return "", ""
}

// shellWord quotes a word for a shell.
func shellWord(word string) string {
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// chosen is what kong says of a value that is none of the choices, without the empty
// one: that stands for a flag that was not given, and nobody types it.
func chosen(text string) string {
	flag, rest, is := strings.Cut(text, " must be one of ")
	list, got, both := strings.Cut(rest, " but got ")
	if !is || !both {
		return text
	}
	var choices []string
	for word := range strings.SplitSeq(list, ",") {
		if word = strings.Trim(word, `"`); word != "" {
			choices = append(choices, word)
		}
	}
	return flag + " is " + got + "; expected " + wording.OneOf(choices)
}

// commandLine is a node's path without aliases, "muster device show".
func commandLine(n *kong.Node) string {
	if n == nil {
		return ""
	}
	if n.Parent == nil {
		return "muster"
	}
	return commandLine(n.Parent) + " " + n.Name
}

// report writes an error to standard error and returns its exit code.
func (a *app) report(err error) int {
	p := a.explain(err)
	if a.jsonErrors {
		a.reportJSON(p)
		return p.exit
	}
	var b strings.Builder
	b.WriteString("muster: " + printable(p.what) + "\n")
	if p.place != "" {
		b.WriteString("  " + strings.ReplaceAll(printableLines(p.place), "\n", "\n  ") + "\n")
	}
	if p.why != "" {
		b.WriteString("  why:  " + printable(p.why) + "\n")
	}
	if p.next != "" {
		b.WriteString("  next: " + printable(p.next) + "\n")
	}
	_, _ = a.io.Err.Write([]byte(b.String())) // nobody is left to tell
	return p.exit
}

func (a *app) reportJSON(p *problem) {
	_ = writeJSONLine(a.io.Err, struct { // as above
		Title     string `json:"title"`
		Status    int    `json:"status,omitempty"`
		Code      string `json:"code,omitempty"`
		Detail    string `json:"detail,omitempty"`
		Next      string `json:"next,omitempty"`
		Place     string `json:"place,omitempty"`
		RequestID string `json:"requestId,omitempty"`
		Exit      int    `json:"exit"`
	}{p.what, p.status, p.code, p.why, p.next, p.place, p.requestID, p.exit})
}
