package pattern

// ManifestFields lists the members of pattern{...}, in the order of documents.
// The editor's stubs and docs/reference/lua.md are written from it, and a test
// compares it with [Manifest].
func ManifestFields() []Field {
	text := func(name, about string) Field { return Field{Name: name, Type: "string", Optional: true, Text: about} }
	duration := func(name, about string) Field {
		return Field{Name: name, Type: typeDuration, Optional: true, Text: about}
	}
	predicate := func(name, about string) Field {
		return Field{Name: name, Type: typePredicate, Optional: true, Text: about}
	}
	flag := func(name, about string) Field { return Field{Name: name, Type: "boolean", Optional: true, Text: about} }
	count := func(name, about string) Field { return Field{Name: name, Type: "integer", Optional: true, Text: about} }
	return []Field{
		{Name: "name", Type: "string", Text: "Small letters and digits with dashes between: `firmware-update`."},
		{Name: "version", Type: "string", Text: "A semantic version: `1.2.0`. Versions lie side by side, and a run stays on its own."},
		count("api", "The version of the host API; 1."),
		text("title", "For people."),
		text("summary", "What it does, in a sentence or two."),
		text("author", "Who made it."),
		{Name: "params", Type: "table<string, table>", Optional: true, Text: "The parameters: for each a JSON Schema, from which come its check, its flag, its field in a form and its line in the docs. Beside JSON Schema's formats there are `duration`, `query`, `secret`, `regex` and `release`."},
		{Name: "required", Type: "string[]", Optional: true, Text: "Parameters that must be given."},
		{Name: "needs", Type: "string[]", Optional: true, Text: "Capabilities, as below. Whoever installs the pattern grants them; the hub refuses everything else."},
		predicate("applies", "Devices that it can work on; others are left out, with a word in the preview."),
		{Name: "scope", Type: `"device"|"fleet"`, Optional: true, Text: "`device` (the default): a run is of one device. `fleet`: one run is of the fleet."},
		{Name: "conflicts", Type: `"queue"|"skip"|"reject"|"replace"|"share"`, Optional: true, Text: "What becomes of a run whose device has another one under way: it waits (the default), is skipped, is refused, takes its place, or runs beside it."},
		duration("timeout", "Bounds a run from its start to its end; 365d."),
		flag("danger", "Whoever starts it over a fleet must type its name; false."),
		count("most", "How many devices a job may have before it asks; any number."),
		flag("resumable", "A run may be retried from a step, and not only from its start; false."),
		{Name: "rollout", Optional: true, Text: "The policy of jobs that don't bring their own. [Rollouts](../how-to/rollouts.md) explains its members.", Members: []Field{
			{Name: "waves", Optional: true, List: true, Text: "Parts of the targets, one after the other.", Members: []Field{
				{Name: "size", Type: "integer|string", Text: "How far it reaches, those before included: `1`, `\"10%\"`."},
				flag("diverse", "Chooses devices that differ."),
				flag("approval", "Begins when a person has said so."),
				duration("soak", "Is waited after its last device."),
				{Name: "health", Optional: true, Text: "Is checked after the soak.", Members: []Field{
					{Name: "where", Type: typePredicate, Text: "Devices in bad health."},
					{Name: "atMost", Type: "integer|string", Optional: true, Text: "How many may be so; 0."},
					text("otherwise", "`pause` (the default) or `abort`."),
				}},
			}},
			{Name: "rate", Optional: true, Text: "How many devices begin a minute.", Members: []Field{
				{Name: "perMinute", Type: "number"},
				{Name: "factor", Type: "number", Optional: true, Text: "By which it grows."},
				count("every", "After how many devices it grows."),
				text("of", "`started` or `succeeded`: which are counted for that."),
				{Name: "most", Type: "number", Optional: true, Text: "Up to which it grows."},
			}},
			count("parallel", "How many devices at once; no bound."),
			{Name: "windows", Optional: true, List: true, Text: "Times in which devices may begin.", Members: []Field{
				{Name: "cron", Type: "string", Text: "When it opens."},
				{Name: "duration", Type: typeDuration, Text: "For how long."},
				text("timeZone", "UTC."),
				text("zoneTag", "The tag with the device's own zone."),
			}},
			text("atEnd", "`stop` or `cancel`: what becomes of devices under way when the job's end comes."),
			duration("timeout", "Bounds an execution; 1d."),
			duration("attemptTimeout", "Bounds one attempt; 5m."),
			{Name: "retry", Optional: true, Text: "Runs that ended badly are made again.", Members: []Field{
				{Name: "attempts", Type: "integer", Text: "In all."},
				{Name: "on", Type: "string[]", Optional: true, Text: "After which outcomes."},
				duration("backoff", "Before the second; 30s."),
				{Name: "factor", Type: "number", Optional: true, Text: "By which it grows; 2."},
				duration("most", "Up to which it grows; 10m."),
			}},
			{Name: "pause", Optional: true, List: true, Text: "The job pauses when so many ended badly.", Members: thresholdFields()},
			{Name: "abort", Optional: true, List: true, Text: "The job is aborted when so many ended badly.", Members: thresholdFields()},
			count("priority", "Among jobs that compete; 0."),
		}},
		{Name: "triggers", Optional: true, List: true, Text: "What starts runs by itself, while the pattern is enabled: each has exactly one of `when`, `event`, `cron`, `alert` and `enrolled`.", Members: []Field{
			predicate("when", "A device comes to match it."),
			{Name: "event", Type: `"connected"|"disconnected"|"created"`, Optional: true, Text: "It happens to a device."},
			text("cron", "Five fields: minute, hour, day, month, weekday."),
			text("zone", "Of cron; UTC."),
			text("alert", "An alert is raised; not yet."),
			flag("enrolled", "A device was provisioned; not yet."),
			predicate("where", "Which devices; all."),
			{Name: "params", Type: "table", Optional: true},
		}},
		{Name: "run", Type: "fun(subject: muster.Device|muster.Fleet, p: table, ctx: muster.Context): any", Text: "The procedure: `run(dev, p, ctx)`, or `run(fleet, p, ctx)`. What it returns is the result."},
		{Name: "undo", Type: "fun(subject: muster.Device|muster.Fleet, p: table, ctx: muster.Context)", Optional: true, Text: "Takes back what run did, when somebody asks for it or a gate says so. It is durable, too."},
		{Name: "gate", Type: `fun(run: muster.GateRun, wave: muster.Wave, ctx: muster.Context): "go"|"pause"|"undo"|"abort", string?`, Optional: true, Text: "Decides before each further wave, and says why."},
		{Name: "check", Type: "fun(dev: muster.Device, p: table): string?", Optional: true, Text: "Says in a preview why a device is left out; nil: it is not. It only reads the twin."},
	}
}

func thresholdFields() []Field {
	return []Field{
		{Name: "share", Type: "integer|string", Text: "`5` or `\"10%\"`."},
		{Name: "of", Type: "string[]", Optional: true, Text: "Which outcomes count; all bad ones."},
		{Name: "least", Type: "integer", Optional: true, Text: "How many must have ended before a percentage counts; 1."},
		{Name: "per", Type: "string", Optional: true, Text: "`wave` (the default) or `job`: what is counted."},
	}
}

// waveFields are what a gate is told.
func waveFields() []Field {
	n := func(name, text string) Field { return Field{Name: name, Type: "integer", Text: text} }
	return []Field{
		n("number", "Of the wave that has ended, from 1."), n("size", "How many devices it had."), n("succeeded", ""), n("failed", ""),
		n("uncertain", "Of which nobody knows whether a command took effect."), n("total", "Devices of the whole rollout."),
	}
}
