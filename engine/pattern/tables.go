package pattern

import (
	"fmt"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
)

// FaultInfo is a row of the table of faults.
type FaultInfo struct {
	Code FaultCode
	Text string // what it means
}

// Faults lists the codes that the hub raises, in the order of documents.
func Faults() []FaultInfo {
	return []FaultInfo{
		{FaultTimeout, "What was awaited did not come in time."},
		{FaultOffline, "The device was not there in time; nothing was sent."},
		{FaultStatus, "The device answered with a status of 400 or more, which the members status and payload have."},
		{FaultUncertain, "It was sent, perhaps, and nobody knows whether it took effect. A run that ends so is shown as uncertain."},
		{FaultRejected, "The device, a person or the hub refused."},
		{FaultCanceled, "The run is to end: every step raises it, except in deferred functions."},
		{FaultConflict, "Something changed meanwhile, or is in the way."},
		{FaultDenied, "The manifest does not declare it, it was not granted, or the run's owner may not."},
		{FaultInvalid, "The call's arguments are not what it takes."},
		{FaultGone, "The device, or what was named, does not exist."},
		{FaultTooBig, "A value is larger than it may be."},
		{FaultTooCostly, "One operation would cost too much."},
		{FaultBudget, "The activation used up a budget, which the message names. It can't be caught."},
		{FaultJournalFull, "The run has taken as many steps as it may: every step raises it, except in deferred functions."},
		{FaultNondeterministic, "The program did something else than its journal says; the message has both. It can't be caught."},
		{FaultLua, "An error of the program itself."},
		{FaultUnavailable, "This hub does not have what was asked for."},
	}
}

// Limit is a row of the table of limits.
type Limit struct {
	Value string
	Text  string
}

// LimitTable lists what bounds programs and runs, in the order of documents.
func LimitTable() []Limit {
	count := func(n int) string {
		s := fmt.Sprint(n)
		for i := len(s) - 3; i > 0; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		return s
	}
	size := func(n int) string {
		if n%(1<<20) == 0 {
			return fmt.Sprint(n>>20, " MiB")
		}
		return fmt.Sprint(n>>10, " KiB")
	}
	duration := func(d time.Duration) string { return rollout.Duration(d).String() }
	return []Limit{
		{count(MaxInstructions), "instructions of an activation (budget: instructions)"},
		{duration(MaxTime), "of an activation, in the worker (budget: time)"},
		{size(MaxWorker), "of a worker's memory (budget: memory)"},
		{count(MaxFrames), "calls within one another"},
		{size(MaxString), "of a text"},
		{size(MaxValue), "of a value that crosses between program and hub, as JSON: arguments, results, parameters"},
		{count(MaxDepth), "levels of tables within tables in such a value"},
		{count(MaxSteps), "steps of a run, and of its undo (budget: steps); deferred functions have a tenth more"},
		{size(MaxJournal), "of a run's journal, and of its undo's (budget: journal); deferred functions have a tenth more"},
		{count(MaxBatch), "steps of one activation, before what they did is stored"},
		{size(MaxKept), "of what a run keeps"},
		{count(MaxLogs), "lines of a run's log, the newest"},
		{size(MaxLogLine), "of a line of a log"},
		{duration(MaxWait), "of one wait"},
		{duration(MaxRun), "of a run"},
		{duration(MaxHTTPTime), "of a request of ctx:http"},
		{size(MaxHTTPBody), "of a body of ctx:http, either way"},
		{count(MaxRows), "rows of a fleet:query"},
		{count(MaxFiles), "files of a pattern"},
		{size(MaxFile), "of one of them"},
		{size(MaxBundle), "of all of them"},
		{size(MaxManifest), "of a manifest, as JSON"},
		{count(paramsMost), "parameters"},
		{count(needsMost), "capabilities that a pattern needs"},
		{count(triggersMost), "triggers"},
	}
}
