package pattern

// Types of the stubs that are texts or tables with a meaning.
const (
	typeDuration  = "muster.duration"
	typeTime      = "muster.time"
	typePath      = "muster.path"
	typePredicate = "muster.predicate"
	typeSecret    = "muster.Secret"
)

func timeout(text string) Field {
	return Field{Name: "timeout", Type: typeDuration, Optional: true, Text: text}
}

// options are the members of a last table, which may be left out.
func options(members ...Field) Field {
	return Field{Name: "options", Optional: true, Members: members}
}

func device() Object {
	patch := Field{Name: "patch", Type: "table", Text: "What to change; json.null deletes a member."}
	return Object{
		Name: "dev", Class: "muster.Device", Method: true,
		Text: "The device of the run: the first argument of `run`, `undo` and `check`.",
		Fields: []Field{
			{Name: "id", Type: "string", Text: "The device's id."},
			{Name: "module", Type: "string", Optional: true, Text: "The module's id, when the run is of a module."},
		},
		Functions: []Function{
			{
				Name: "get", Op: "dev.get", Needs: []string{"twin:read"},
				Text: "Reads one value of the twin, as it is now.",
				Params: []Field{
					{Name: "path", Type: typePath, Text: "Such as `reported.boot.count`, `desired.firmware`, `tags.site` or `connected`."},
					{Name: "default", Type: "any", Optional: true, Text: "What to give when the twin has no such value; nil."},
				},
				Returns: []Field{{Name: "value", Type: "any", Text: "A copy, which changes no more."}},
				Example: `local boots = dev:get("reported.boot.count", 0)`,
			},
			{
				Name: "twin", Op: "dev.twin", Needs: []string{"twin:read"},
				Text:    "Reads the whole twin, as it is now.",
				Returns: []Field{{Name: "twin", Type: "table", Text: "With `deviceId`, `connected`, `tags` and `properties.desired` and `.reported`."}},
			},
			{
				Name: "desire", Op: "dev.desire", Needs: []string{"twin:desired:PATH"}, Faults: []FaultCode{FaultRejected, FaultTooBig, FaultGone},
				Text: "Merges a patch into the desired properties.", Params: []Field{patch},
				Returns: []Field{{Name: "version", Type: "integer", Text: "`$version` of the desired properties after it."}},
				Example: `dev:desire { firmware = { version = p.version } }`,
			},
			{
				Name: "tag", Op: "dev.tag", Needs: []string{"twin:tags:PATH"}, Faults: []FaultCode{FaultRejected, FaultTooBig, FaultGone},
				Text: "Merges a patch into the tags.", Params: []Field{patch},
				Example: `dev:tag { lifecycle = "resetting" }`,
			},
			{
				Name: "call", Op: "dev.call", Needs: []string{"method:NAME"},
				Faults: []FaultCode{FaultOffline, FaultTimeout, FaultStatus, FaultUncertain, FaultTooBig, FaultGone},
				Text:   "Calls a direct method of the device and waits for its answer. A device sees the call at most once for each attempt; one of which nobody knows whether the device got it raises `uncertain`, and is made again only if it is `idempotent`.",
				Params: []Field{
					{Name: "method", Type: "string", Text: "Its name, which `needs` has."},
					{Name: "payload", Type: "any", Optional: true, Text: "What the method is given; may have secrets in it."},
					options(
						timeout("For the answer; 30s."),
						Field{Name: "online", Type: typeDuration, Optional: true, Text: "How long to wait for the device to be connected; without it a device that is not there raises `offline` at once."},
						Field{Name: "retry", Type: "integer", Optional: true, Text: "How many more attempts to make; 0."},
						Field{Name: "idempotent", Type: "boolean", Optional: true, Text: "Taking it twice does no harm; false."},
					),
				},
				Returns: []Field{
					{Name: "payload", Type: "any", Text: "Of the answer."},
					{Name: "status", Type: "integer", Text: "Of the answer, below 400: a higher one raises `status`, with the members status and payload."},
				},
				Example: `dev:call("reboot", { delay = 0 }, { timeout = "30s", online = "1h" })`,
			},
			{
				Name: "send", Op: "dev.send", Needs: []string{"message"}, Faults: []FaultCode{FaultRejected, FaultTooBig, FaultGone},
				Text: "Sends a cloud-to-device message, which waits for the device.",
				Params: []Field{
					{Name: "body", Type: "any", Text: "A text as it is, else as JSON."},
					{Name: "props", Type: "table<string, string>", Optional: true, Text: "Application properties."},
				},
			},
			{
				Name: "wait", Op: "dev.wait", Needs: []string{"twin:read"}, Faults: []FaultCode{FaultTimeout, FaultGone},
				Text: "Waits until a condition on the twin is true, which it may be already. The hub looks at each change of the twin; the program is not woken before.",
				Params: []Field{
					{Name: "where", Type: typePredicate, Text: "The condition; names of variables stand in it for their values."},
					options(
						timeout("Raises `timeout` then; 30d."),
						Field{Name: "[string]", Type: "any", Optional: true, Text: "Every other member is a variable of the condition."},
					),
				},
				Returns: []Field{{Name: "reported", Type: "table", Text: "The reported properties of that moment."}},
				Example: `local after = dev:wait("reported.boot.count > before", { before = boots, timeout = "10m" })`,
			},
			{
				Name: "wait_online", Op: "dev.wait", Needs: []string{"twin:read"}, Faults: []FaultCode{FaultTimeout, FaultGone},
				Text:    "Waits until the device is connected: `dev:wait(\"connected\", options)`.",
				Params:  []Field{options(timeout("Raises `timeout` then; 30d."))},
				Returns: []Field{{Name: "reported", Type: "table", Text: "The reported properties of that moment."}},
			},
			{
				Name: "rotate_key", Op: "dev.rotate_key", Needs: []string{"identity:rotate"}, Faults: []FaultCode{FaultRejected, FaultGone},
				Text:    "Gives the identity a new key in one of its two slots; the other one stays as it is. A device that uses the key of this slot is connected no more, and can come back only with the new one.",
				Params:  []Field{{Name: "slot", Type: `"primary"|"secondary"`, Optional: true, Text: "secondary."}},
				Returns: []Field{{Name: "key", Type: typeSecret, Text: "Stands for the key in method payloads."}},
				Example: "local key = dev:rotate_key(\"secondary\")\ndev:call(\"installKey\", { slot = \"secondary\", key = key })",
			},
			{
				Name: "quarantine", Op: "dev.quarantine", Needs: []string{"identity:disable"}, Faults: []FaultCode{FaultConflict, FaultGone},
				Text:   "Disables the identity, with a reason and the tag `quarantine`. It can be taken back.",
				Params: []Field{{Name: "reason", Type: "string"}},
			},
			{
				Name: "release", Op: "dev.release", Needs: []string{"identity:disable"}, Faults: []FaultCode{FaultConflict, FaultGone},
				Text: "Takes a quarantine back, and nothing else.",
			},
			{
				Name: "replace", Op: "dev.replace", Needs: []string{"identity:replace"}, Faults: []FaultCode{FaultConflict, FaultGone},
				Text:    "Makes a new identity with this device's tags and desired properties, and disables this one. The tags `replaces` and `replacedBy` tell of it.",
				Params:  []Field{{Name: "id", Type: "string", Text: "Of the new identity, which must not exist."}},
				Returns: []Field{{Name: "identity", Members: []Field{{Name: "id", Type: "string", Text: "Of the new identity."}}}},
			},
			{
				Name: "run", Op: "dev.run", Needs: []string{"run:start"}, Faults: []FaultCode{FaultTimeout, FaultRejected, FaultConflict, FaultGone},
				Text: "Runs another pattern on the same device and waits for its end. What ended it badly is raised here.",
				Params: []Field{
					{Name: "pattern", Type: "string", Text: "Its name."},
					{Name: "params", Type: "table", Optional: true},
					options(timeout("Cancels it and raises `timeout` then; 30d.")),
				},
				Returns: []Field{{Name: "result", Type: "any", Text: "What it returned."}},
			},
			{
				Name: "sign", Op: "dev.sign", Needs: []string{"identity:sign"},
				Text: "Signs a certificate request of the device.",
				Params: []Field{
					{Name: "csr", Type: "string", Text: "The request, PEM."},
					options(Field{Name: "days", Type: "integer", Optional: true, Text: "For which it is valid."}),
				},
				Returns: []Field{{Name: "certificate", Type: "table", Text: "With `pem` and `serial`."}},
			},
			{
				Name: "revoke", Op: "dev.revoke", Needs: []string{"identity:revoke"},
				Text:   "Revokes a certificate of the device.",
				Params: []Field{{Name: "serial", Type: "string", Text: "Its serial number, or `previous`."}},
			},
		},
	}
}

func fleet() Object {
	where := Field{Name: "where", Type: typePredicate, Text: "Which devices; `*` is all."}
	return Object{
		Name: "fleet", Class: "muster.Fleet", Method: true,
		Text: "All devices: the first argument of `run` and `undo` in a pattern with `scope = \"fleet\"`.",
		Functions: []Function{
			{
				Name: "query", Op: "fleet.query", Needs: []string{"query"}, Faults: []FaultCode{FaultTooBig, FaultTimeout},
				Text: "Finds devices.",
				Params: []Field{where, options(
					Field{Name: "select", Type: "muster.path[]", Optional: true, Text: "The values to give of each; `deviceId`."},
					Field{Name: "limit", Type: "integer", Optional: true, Text: "At most so many; 100, at most 1,000."},
				)},
				Returns: []Field{{Name: "rows", Type: "table[]", Text: "Each with its values under their whole paths as they were written: `row[\"reported.firmware.version\"]`; what a device does not have is missing."}},
				Example: `local rows = fleet:query("tags.site == 'A'", { select = { "deviceId", "reported.firmware.version" } })`,
			},
			{
				Name: "count", Op: "fleet.count", Needs: []string{"query"}, Faults: []FaultCode{FaultTimeout},
				Text: "Counts devices.", Params: []Field{where},
				Returns: []Field{{Name: "count", Type: "integer"}},
			},
			{
				Name: "group_by", Op: "fleet.group_by", Needs: []string{"query"}, Faults: []FaultCode{FaultTooBig, FaultTimeout},
				Text: "Counts devices by a value of theirs.",
				Params: []Field{
					{Name: "path", Type: typePath},
					{Name: "where", Type: typePredicate, Optional: true, Text: "Which devices; all."},
				},
				Returns: []Field{
					{Name: "groups", Type: "table<string, integer>", Text: "How many have each value; those without one are in total alone."},
					{Name: "total", Type: "integer"},
				},
				Example: `local groups, total = fleet:group_by("reported.firmware.state")`,
			},
			{
				Name: "run", Op: "fleet.run", Needs: []string{"run:start"}, Faults: []FaultCode{FaultTimeout, FaultRejected},
				Text: "Starts a job that runs another pattern on devices.",
				Params: []Field{
					{Name: "pattern", Type: "string", Text: "Its name."},
					{Name: "params", Type: "table", Optional: true},
					{Name: "options", Members: []Field{
						where,
						{Name: "wait", Type: "boolean", Optional: true, Text: "Until the job has ended; false."},
						timeout("With wait: raises `timeout` then, and the job is canceled; 30d."),
					}},
				},
				Returns: []Field{{Name: "job", Members: []Field{
					{Name: "job", Type: "string", Text: "Its id."},
					{Name: "succeeded", Type: "integer", Optional: true, Text: "With wait."},
					{Name: "failed", Type: "integer", Optional: true, Text: "With wait."},
					{Name: "total", Type: "integer", Optional: true, Text: "With wait."},
				}}},
			},
		},
	}
}

func gateRun() Object {
	return Object{
		Name: "run", Class: "muster.GateRun", Method: true,
		Text: "The rollout that a gate decides about: the first argument of `gate`.",
		Functions: []Function{{
			Name: "count", Op: "run.count",
			Text:    "Counts devices among those that the rollout has reached.",
			Params:  []Field{{Name: "where", Type: typePredicate, Text: "Which of them; `*` is all."}},
			Returns: []Field{{Name: "count", Type: "integer"}},
			Example: `if run:count("reported.health.errors > 0") > 0 then return "pause", "devices report errors" end`,
		}},
	}
}
