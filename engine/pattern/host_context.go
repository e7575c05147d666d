package pattern

func context() Object {
	return Object{
		Name: "ctx", Class: "muster.Context", Method: true,
		Text: "The run itself: the last argument of `run`, `undo` and `gate`.",
		Fields: []Field{
			{Name: "id", Type: "string", Text: "The run's id."},
			{Name: "key", Type: "string", Text: "The same text in a run and its retries: for keys that keep others from doing a thing twice."},
			{Name: "attempt", Type: "integer", Text: "1, and one more with each retry."},
		},
		Functions: []Function{
			{
				Name: "phase", Text: "Says in which part of the procedure the run is, for lists and counts.",
				Params: []Field{{Name: "name", Type: "string", Text: "Such as `downloading`; at most 64 characters."}},
			},
			{
				Name: "progress", Text: "Says how far the run is.",
				Params: []Field{
					{Name: "share", Type: "number", Text: "0 to 1."},
					{Name: "text", Type: "string", Optional: true, Text: "The same for people."},
				},
			},
			{
				Name: "follow", Text: "Has a percentage that the device reports be the run's progress.",
				Params: []Field{{Name: "path", Type: typePath, Text: "Of a number from 0 to 100."}},
			},
			{
				Name: "log", Text: "Writes a line to the run's log. Lines of code that runs again are not written again.",
				Params: []Field{{Name: "...", Type: "any", Text: "What to write, as tostring gives it, with spaces between."}},
			},
			{
				Name: "now", Op: "ctx.now", Text: "Gives the time.",
				Returns: []Field{{Name: "time", Type: typeTime}},
			},
			{
				Name: "sleep", Op: "ctx.sleep", Text: "Waits. Nothing of the program is alive meanwhile, and a restart of the hub does not matter.",
				Params: []Field{{Name: "duration", Type: typeDuration, Text: "At most 30d."}},
			},
			{
				Name: "until_", Op: "ctx.until_", Text: "Waits until a time; not at all if it has passed.",
				Params: []Field{{Name: "time", Type: typeTime, Text: "At most 30 days away."}},
			},
			{
				Name: "random", Op: "ctx.random", Text: "Gives a whole number by chance.",
				Params:  []Field{{Name: "low", Type: "integer"}, {Name: "high", Type: "integer", Text: "May be given, too."}},
				Returns: []Field{{Name: "number", Type: "integer"}},
			},
			{
				Name: "uuid", Op: "ctx.uuid", Text: "Gives a random UUID.",
				Returns: []Field{{Name: "uuid", Type: "string"}},
			},
			{
				Name: "approve", Op: "ctx.approve", Faults: []FaultCode{FaultRejected, FaultTimeout},
				Text: "Asks a person, and waits for the answer. One who declines raises `rejected`, with who it is and the reason as message.",
				Params: []Field{
					{Name: "question", Type: "string"},
					options(
						timeout("Raises `timeout` then; 24h."),
						Field{Name: "by", Type: "string", Optional: true, Text: "The policy or user who may decide; whoever may control runs."},
					),
				},
				Returns: []Field{{Name: "who", Type: "string", Text: "Who approved."}},
			},
			{
				Name: "event", Op: "ctx.event", Text: "Writes an event of the device, which streams and webhooks carry.",
				Params: []Field{{Name: "type", Type: "string", Text: "Such as `device.reset`."}, {Name: "data", Type: "any", Optional: true}},
			},
			{
				Name: "alert", Op: "ctx.alert", Needs: []string{"alert"}, Text: "Raises an alert.",
				Params: []Field{{Name: "alert", Members: []Field{
					{Name: "severity", Type: `"info"|"warning"|"critical"`},
					{Name: "title", Type: "string"},
					{Name: "detail", Type: "string", Optional: true},
				}}},
			},
			{
				Name: "release", Op: "ctx.release", Needs: []string{"release:read"}, Text: "Reads a release of an update.",
				Params:  []Field{{Name: "id", Type: "string"}},
				Returns: []Field{{Name: "release", Type: "table", Text: "With `version`, `url` and `sha256`."}},
			},
			{
				Name: "http", Op: "ctx.http", Needs: []string{"http:HOST", "secret:NAME"}, Faults: []FaultCode{FaultTimeout, FaultUncertain, FaultRejected, FaultTooBig},
				Text: "Has the hub send a request to a host that `needs` has. Redirects are not followed, private addresses are refused, and a status of 400 or more is no error. A request other than GET and HEAD of which nobody knows whether it arrived raises `uncertain`, unless it is `idempotent`.",
				Params: []Field{{Name: "request", Members: []Field{
					{Name: "url", Type: "string", Text: "With https://."},
					{Name: "method", Type: "string", Optional: true, Text: "GET."},
					{Name: "headers", Type: "table<string, string|muster.Secret>", Optional: true},
					{Name: "json", Type: "any", Optional: true, Text: "The body, sent as JSON; may have secrets in it."},
					{Name: "body", Type: "string", Optional: true, Text: "The body, as it is."},
					timeout("30s, which is the most."),
					{Name: "idempotent", Type: "boolean", Optional: true, Text: "Taking it twice does no harm; it is sent again then. false."},
				}}},
				Returns: []Field{{Name: "answer", Members: []Field{
					{Name: "status", Type: "integer"},
					{Name: "json", Type: "any", Optional: true, Text: "The body, when it is JSON."},
					{Name: "body", Type: "string", Optional: true, Text: "The body, when it is not."},
				}}},
				Example: "ctx:http { method = \"POST\", url = \"https://hooks.example.net/done\", json = { device = dev.id },\n  headers = { authorization = ctx:secret(\"hooks\") } }",
			},
			{
				Name: "secret", Needs: []string{"secret:NAME"}, Text: "Gives a secret to be put into headers, JSON bodies of requests and method payloads. The program never sees its value; tostring gives its name.",
				Params:  []Field{{Name: "name", Type: "string"}},
				Returns: []Field{{Name: "secret", Type: typeSecret}},
			},
			{
				Name: "kv", Text: "Gives a store of values that outlasts activations, or runs.",
				Params:  []Field{{Name: "scope", Type: `"run"|"pattern"`, Optional: true, Text: "Of this run (the default), or of all runs of the pattern."}},
				Returns: []Field{{Name: "kv", Type: "muster.KV"}},
			},
			{
				Name: "keep", Text: "Keeps a value for `undo`, and for whoever looks at the run. Only run keeps values; what was kept once can be kept anew, and not taken away.",
				Params: []Field{{Name: "name", Type: "string"}, {Name: "value", Type: "any"}},
			},
			{
				Name: "kept", Text: "Gives a value that was kept: in run, before this line.",
				Params:  []Field{{Name: "name", Type: "string"}},
				Returns: []Field{{Name: "value", Type: "any", Text: "nil if there is none."}},
			},
			{
				Name: "skip", Text: "Ends the run as skipped: there was nothing to do. It does not return.",
				Params: []Field{{Name: "reason", Type: "string", Optional: true}},
			},
			{
				Name: "defer", Text: "Has a function run when the run failed or was canceled, the one deferred last first. Its steps are durable, too. After success it does not run.",
				Params:  []Field{{Name: "fn", Type: "fun()"}},
				Example: `ctx:defer(function() dev:tag { maintenance = json.null } end)`,
			},
		},
	}
}

func keyValue() Object {
	key := Field{Name: "key", Type: "string", Text: "At most 128 characters."}
	value := Field{Name: "value", Type: "any", Text: "nil if there is none."}
	return Object{
		Name: "kv", Class: "muster.KV", Method: true,
		Text: "Values by key, from `ctx:kv(scope)`.",
		Functions: []Function{
			{Name: "get", Op: "kv.get", Text: "Reads a value.", Params: []Field{key}, Returns: []Field{value}},
			{Name: "set", Op: "kv.set", Faults: []FaultCode{FaultTooBig}, Text: "Writes a value; nil and json.null delete it.", Params: []Field{key, {Name: "value", Type: "any"}}},
			{
				Name: "incr", Op: "kv.incr", Faults: []FaultCode{FaultConflict}, Text: "Adds to a number, which is 0 if there is none.",
				Params:  []Field{key, {Name: "by", Type: "number", Optional: true, Text: "1."}},
				Returns: []Field{{Name: "number", Type: "number", Text: "The sum."}},
			},
			{
				Name: "cas", Op: "kv.cas", Faults: []FaultCode{FaultTooBig}, Text: "Writes a value if the one before is what is expected.",
				Params:  []Field{key, {Name: "old", Type: "any", Text: "What is expected; nil: there is none."}, {Name: "new", Type: "any"}},
				Returns: []Field{{Name: "written", Type: "boolean"}},
			},
		},
	}
}
