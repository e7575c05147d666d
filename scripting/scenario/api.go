package scenario

import "github.com/muster-hub/muster/engine/pattern"

// Types of the stubs.
const (
	typeDuration = "muster.duration"
	typeRun      = "muster.test.Run"
	typeDevice   = "muster.test.Device"
	typeServer   = "muster.test.Server"
)

// API lists what tests see beside what programs do: the function test, t,
// devices, runs and servers. The editor's stubs are written from it, and a test
// compares it with what is there.
func API() []pattern.Object {
	return []pattern.Object{declares(), theTest(), theDevice(), theRun(), theServer()}
}

func params(list ...pattern.Field) []pattern.Field { return list }

func required(name, kind, text string) pattern.Field {
	return pattern.Field{Name: name, Type: kind, Text: text}
}

func optional(name, kind, text string) pattern.Field {
	return pattern.Field{Name: name, Type: kind, Optional: true, Text: text}
}

func declares() pattern.Object {
	return pattern.Object{Functions: []pattern.Function{{
		Name: "test", Text: "Declares a test. Only files in test/ have it.",
		Params: params(required("name", "string", "No two tests of a file have the same."), required("fn", "fun(t: muster.test.Test)", "")),
	}}}
}

// runOptions are the last argument of what starts a run.
func runOptions() pattern.Field {
	return pattern.Field{Name: "options", Optional: true, Members: params(optional("device", typeDevice, "On which device; the first."))}
}

func theTest() pattern.Object {
	ofRun := optional("run", typeRun, "The one that was started last.")
	device := optional("device", typeDevice, "The first.")
	run := params(required("run", typeRun, ""))
	return pattern.Object{
		Name: "t", Class: "muster.test.Test", Method: true,
		Text: "What a test has: fake devices, runs of the pattern on them, virtual time, and checks of what came of it.",
		Functions: []pattern.Function{
			{
				Name: "device", Text: "Makes a device that is connected. Without one, a run gets a plain device of its own.", Returns: params(required("device", typeDevice, "")),
				Params: params(pattern.Field{Name: "twin", Optional: true, Members: params(
					optional("id", "string", "device-1, device-2, ..."), optional("tags", "table", ""), optional("desired", "table", ""),
					optional("reported", "table", ""), optional("connected", "boolean", "true."))}),
				Example: `local d = t:device { reported = { boot = { count = 3 } } }`,
			},
			{
				Name: "fleet", Text: "Makes several devices: those of a list, or so many of which each is like the second argument, a table or a function that is given its number.",
				Params:  params(required("devices", "table|integer", ""), optional("each", "table|fun(n: integer): table", "")),
				Returns: params(required("devices", typeDevice+"[]", "")),
			},
			{Name: "run", Text: "Starts a run and lets time pass until it has ended.", Params: params(optional("params", "table", ""), runOptions()), Returns: run},
			{Name: "start", Text: "Starts a run, and lets everything happen that can happen at this moment.", Params: params(optional("params", "table", ""), runOptions()), Returns: run},
			{Name: "finish", Text: "Lets time pass until a run has ended.", Params: params(ofRun), Returns: run},
			{Name: "advance", Text: "Lets time pass.", Params: params(required("duration", typeDuration, "Such as `90s`, `5m`, `6h` or `2d`."))},
			{Name: "at", Text: "Lets time pass until a moment. Before anything was made it is when the test begins, which is else 2026-03-02T08:00:00Z, a Monday.", Params: params(required("time", "string", "RFC 3339."))},
			{Name: "now", Text: "Gives the virtual time.", Returns: params(required("time", "string", "RFC 3339."))},
			{
				Name: "approve", Text: "Has a person approve: the question that is open, else the next one.",
				Params: params(optional("answer", "string|table", "Who approves; or `by`, `after` (a duration) and `of` (a part of the question).")),
			},
			{
				Name: "deny", Text: "Has a person decline: the question that is open, else the next one.",
				Params: params(optional("answer", "string|table", "Why; or `reason`, `after` and `of`.")),
			},
			{
				Name: "cancel", Text: "Cancels a run, and lets everything happen that can happen at this moment.",
				Params: params(optional("run", typeRun, "May be left out: the one that was started last."), optional("reason", "string", ""),
					pattern.Field{Name: "options", Optional: true, Members: params(optional("undo", "boolean", "Undo it, too."))}),
			},
			{Name: "undo", Text: "Undoes a run that has ended, and lets time pass until that has ended.", Params: params(ofRun), Returns: run},
			{
				Name: "gate", Text: "Calls the pattern's gate.", Params: params(required("wave", "table", "number, size, succeeded, failed, uncertain, total."), optional("params", "table", "")),
				Returns: params(required("decision", `"go"|"pause"|"undo"|"abort"`, ""), required("reason", "string", "")),
			},
			{
				Name: "check", Text: "Calls the pattern's check.", Params: params(optional("params", "table", ""), runOptions()),
				Returns: params(optional("why", "string", "Why the device is left out; nil: it is not.")),
			},
			{Name: "applies", Text: "Says whether the pattern's applies selects a device.", Params: params(device), Returns: params(required("applies", "boolean", ""))},
			{
				Name: "http", Text: "Stands for a server. The first one that is for a request answers it; a request that none is for fails the test.",
				Params: params(required("what", "string|table", "`POST https://host/path`, where * stands for anything; or method and url."),
					required("reply", "integer|table|fun(request: table): table", "A status, or status, json, body, after (a duration) and never (no answer comes).")),
				Returns: params(required("server", typeServer, "")),
			},
			{
				Name: "kv", Text: "Reads the values of a key-value store, or writes some.",
				Params:  params(required("scope", `"run"|"pattern"`, ""), optional("values", "table", "To be written."), ofRun),
				Returns: params(optional("values", "table", "All of them, when none were written.")),
			},
			{Name: "secret", Text: "Gives the hub a secret.", Params: params(required("name", "string", ""), required("value", "string", "What devices and servers get."))},
			{
				Name: "pattern", Text: "Brings another pattern, for dev:run and fleet:run: that of the folder beside this one's; or a function, or a value, stands for it and gives its result.",
				Params:  params(required("name", "string", ""), optional("result", "any|fun(params: table, device: string): any", "error { code = ... } has it fail.")),
				Example: `t:pattern("reboot", function() return { boots = 4 } end)`,
			},
			{Name: "grant", Text: "Grants the pattern a capability that it does not need by its manifest.", Params: params(required("need", "string", ""))},
			{Name: "deny_need", Text: "Does not grant one that it needs.", Params: params(required("need", "string", ""))},
			{Name: "events", Text: "Lists the events that runs wrote.", Returns: params(required("events", "table[]", "Each with type, data and device."))},
			{Name: "runs", Text: "Lists all runs, those of other patterns, too.", Returns: params(required("runs", typeRun+"[]", ""))},
			{Name: "equal", Text: "Fails the test unless two values are equal, members and all, and shows where they differ.", Params: params(required("found", "any", ""), required("expected", "any", ""), optional("what", "string", "For the message."))},
			{Name: "ok", Text: "Fails the test unless a value is true.", Params: params(required("value", "any", ""), optional("message", "string", ""))},
			{Name: "matches", Text: "Fails the test unless a text matches a regular expression.", Params: params(required("text", "string", ""), required("pattern", "string", "Of RE2, as in predicates."))},
			{Name: "took_less_than", Text: "Fails the test unless a run took less virtual time.", Params: params(required("duration", typeDuration, ""), ofRun)},
			{Name: "took_more_than", Text: "Fails the test unless a run took more virtual time.", Params: params(required("duration", typeDuration, ""), ofRun)},
			{Name: "logs", Text: "Lists what a run has logged.", Params: params(ofRun), Returns: params(required("lines", "string[]", ""))},
			{Name: "phases", Text: "Lists the phases that a run had.", Params: params(ofRun), Returns: params(required("phases", "string[]", ""))},
			{
				Name: "uncertain", Text: "Says how a run may end when a crash has left a command uncertain, as --crash-everywhere does: in one of these states, and so that the function, which is given the run, does not fail.",
				Params:  params(required("...", "string|fun(run: muster.test.Run)", "")),
				Example: `t:uncertain("succeeded", "uncertain")`,
			},
			{Name: "skip", Text: "Ends the test: it is not to be run.", Params: params(optional("why", "string", ""))},
			{Name: "fail", Text: "Fails the test.", Params: params(optional("message", "string", ""))},
		},
	}
}

func theDevice() pattern.Object {
	patch := required("patch", "table", "json.null deletes a member.")
	return pattern.Object{
		Name: "d", Class: typeDevice, Method: true,
		Text: "A fake device. A crash of the hub does not touch it: it connects anew, and looks at its desired properties.",
		Fields: params(
			required("id", "string", ""), required("calls", "string[]", "The names of the methods that it got, in order."),
			required("tags", "table", "As the hub has them."), required("desired", "table", "As the hub has them."), required("reported", "table", "As the hub has them."),
			required("connected", "boolean", ""), required("status", `"enabled"|"disabled"`, "Of its identity."),
			required("events", "table[]", "That runs wrote of it, each with type and data."), required("messages", "any[]", "That dev:send left for it."),
		),
		Functions: []pattern.Function{
			{
				Name: "on_method", Text: "Says how it answers a method: by a function that is given the payload and returns a payload, a payload and a status, or a status; or by such a value. The status is 200 if there is none. What the function does to the connection happens when the answer is out. A method that nobody has told it of is answered with 501.",
				Params: params(required("method", "string", ""), required("answer", "any|fun(payload: any): any, integer?", ""),
					pattern.Field{Name: "options", Optional: true, Members: params(optional("after", typeDuration, "So long after the call."), optional("never", "boolean", "It takes the call and does not answer."))}),
				Example: `d:on_method("reboot", function(p) d:drop("20s") return { ok = true } end)`,
			},
			{
				Name: "on_desired", Text: "Has a function be called when the value at a path of its desired properties has changed, and the device knows of it.",
				Params: params(optional("path", "string", "Such as `firmware`; all of them."), required("fn", "fun(value: any, version: integer)", "")),
			},
			{Name: "report", Text: "Reports properties. Only a device that is online can.", Params: params(patch)},
			{Name: "after", Text: "Has a function be called later.", Params: params(required("duration", typeDuration, ""), required("fn", "fun()", ""))},
			{Name: "drop", Text: "Goes offline for a while.", Params: params(required("duration", typeDuration, ""))},
			{Name: "offline", Text: "Goes offline."},
			{Name: "online", Text: "Comes back."},
			{Name: "desire", Text: "Has somebody else change its desired properties.", Params: params(patch)},
			{Name: "tag", Text: "Has somebody else change its tags.", Params: params(patch)},
			{Name: "called", Text: "Lists what a method was given.", Params: params(required("method", "string", "")), Returns: params(required("payloads", "any[]", ""))},
			{Name: "run", Text: "Is t:run on this device.", Params: params(optional("params", "table", "")), Returns: params(required("run", typeRun, ""))},
			{Name: "start", Text: "Is t:start on this device.", Params: params(optional("params", "table", "")), Returns: params(required("run", typeRun, ""))},
		},
	}
}

func theRun() pattern.Object {
	return pattern.Object{
		Name: "r", Class: typeRun, Text: "A run as it stands.",
		Fields: params(
			required("id", "string", "r-1 is the first one."), required("state", "string", "Such as `waiting`, `succeeded`, `failed`, `uncertain` or `skipped`."),
			required("entry", `"run"|"undo"`, ""), optional("result", "any", "What the program returned."), optional("error", "table", "With code, message, status, cause, line and so on."),
			required("phase", "string", ""), required("phases", "string[]", "All that it had, in order."), required("progress", "number", ""), required("text", "string", "Of ctx:progress."),
			required("follow", "string", "Of ctx:follow."), required("logs", "string[]", ""), required("device", "string", ""), required("pattern", "string", ""), required("params", "table", ""),
			required("steps", "string[]", "The operations that it took, in order."), optional("waits", "string", "The operation that it waits for."),
			required("took", "number", "Seconds of virtual time."), required("kept", "table", "What ctx:keep has kept."),
		),
	}
}

func theServer() pattern.Object {
	return pattern.Object{
		Name: "server", Class: typeServer, Text: "What t:http gives.",
		Fields: params(required("requests", "table[]", "That it got, each with method, url, headers, json and body.")),
	}
}
