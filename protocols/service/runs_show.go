package service

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/pattern"
)

// runDocument is a run as it stands.
type runDocument struct {
	RunID    string          `json:"runId" doc:"In order of time."`
	Pattern  string          `json:"pattern"`
	Version  string          `json:"version" doc:"To which the run keeps."`
	Hash     string          `json:"hash" doc:"Of the pattern's files."`
	DeviceID string          `json:"deviceId,omitempty" doc:"Absent: it is of the fleet as a whole."`
	ModuleID string          `json:"moduleId,omitempty"`
	Params   json.RawMessage `json:"params,omitempty" schema:"object"`
	Attempt  int             `json:"attempt" doc:"From 1; higher when it was retried."`
	JobID    string          `json:"jobId,omitempty" doc:"The job whose execution it is."`
	Parent   string          `json:"parentRunId,omitempty" doc:"The run that started it."`
	Of       string          `json:"retryOf,omitempty" doc:"The run of which it is a retry."`
	Trigger  string          `json:"trigger,omitempty" doc:"What started it: when, cron and so on."`

	State     pattern.State   `json:"state" enum:"queued,ready,waiting,succeeded,skipped,failed,uncertain,canceled,undone"`
	Final     bool            `json:"final" doc:"Nothing more happens by itself."`
	Entry     pattern.Entry   `json:"entry" enum:"run,undo" doc:"What it is in: the program's run, or its undo."`
	WaitsFor  string          `json:"waitsFor,omitempty" doc:"In words."`
	Due       time.Time       `json:"dueTime,omitzero" doc:"When what it waits for ends by itself."`
	Question  string          `json:"question,omitempty" doc:"That a person is to answer."`
	Phase     string          `json:"phase,omitempty" doc:"That the program told."`
	Progress  float64         `json:"progress,omitempty" doc:"From 0 to 1, that the program told."`
	Text      string          `json:"text,omitempty" doc:"That the program told."`
	Steps     int             `json:"stepCount" doc:"Host calls that it took."`
	Result    json.RawMessage `json:"result,omitempty" doc:"What the program returned."`
	Fault     *runFault       `json:"fault,omitempty" doc:"Why it did not succeed."`
	Canceling bool            `json:"canceling,omitempty" doc:"It was asked to end."`

	Principal string    `json:"principal" doc:"Whose permissions it acts with."`
	Created   time.Time `json:"createdTime"`
	Started   time.Time `json:"startedTime,omitzero"`
	Updated   time.Time `json:"updatedTime"`
	Ended     time.Time `json:"endedTime,omitzero"`
	ETag      string    `json:"etag"`
	Cost      runCost   `json:"cost"`
}

type runCost struct {
	Activations  int     `json:"activations"`
	Instructions int64   `json:"instructions"`
	Calls        int64   `json:"calls" doc:"Host calls, those answered from the journal included."`
	Peak         int64   `json:"peakInstructions" doc:"Most of one activation."`
	Seconds      float64 `json:"seconds" doc:"In workers."`
	Journal      int     `json:"journalBytes"`

	Hot []pattern.HotLine `json:"hot,omitempty" doc:"The lines that ran most of the instructions of slow activations, sampled; the hottest first."`
}

// runFault is why a run or a step came to nothing.
type runFault struct {
	Code    pattern.FaultCode `json:"code" doc:"timeout, offline, status, uncertain, rejected, canceled, conflict, denied, ... or one of the program's own."`
	Message string            `json:"message"`
	Status  int               `json:"status,omitempty" doc:"Of the device's or a server's answer."`
	Cause   json.RawMessage   `json:"cause,omitempty" doc:"Whatever the program gave."`
	Payload json.RawMessage   `json:"payload,omitempty"`
	Line    string            `json:"line,omitempty" doc:"Where it was raised, such as pattern.lua:44."`
	Trace   []string          `json:"trace,omitempty"`
}

func showRunFault(f *pattern.Fault) *runFault {
	if f == nil {
		return nil
	}
	return &runFault{f.Code, f.Message, f.Status, f.Cause, f.Payload, f.Line, f.Trace}
}

func showPatternRun(r engine.Run) runDocument {
	d := runDocument{
		RunID: r.ID, Pattern: r.Pattern, Version: r.Version, Hash: r.Hash, DeviceID: r.Device.DeviceID, ModuleID: r.Device.ModuleID, Params: r.Params,
		Attempt: r.Attempt, JobID: r.Job, Parent: r.Parent, Of: r.Of, Trigger: r.Trigger,
		State: r.State, Final: r.State.Final(), Entry: r.Entry, WaitsFor: r.Waits, Due: r.Due, Question: r.Question,
		Phase: r.Report.Phase, Progress: r.Report.Progress, Text: r.Report.Text, Steps: r.Step, Result: r.Result, Fault: showRunFault(r.Fault), Canceling: r.Canceling,
		Principal: r.Principal, Created: r.Created, Started: r.Started, Updated: r.Updated, Ended: r.Ended, ETag: r.ETag,
		Cost: runCost{r.Cost.Activations, r.Cost.Instructions, r.Cost.Calls, r.Cost.Peak, r.Cost.Time.Seconds(), r.Journal, r.Hot},
	}
	if d.Entry == "" {
		d.Entry = pattern.EntryRun
	}
	return d
}

// runTrace is a run with what it did.
type runTrace struct {
	runDocument
	Steps []runStep                  `json:"steps" doc:"Those of the run, then those of its undo."`
	Logs  []runLog                   `json:"logs" doc:"The newest that the program logged."`
	Kept  map[string]json.RawMessage `json:"kept,omitempty" doc:"What the program keeps for its undo and for a retry."`
}

type runStep struct {
	Number   int             `json:"number" doc:"From 1, among those of its entry."`
	Entry    pattern.Entry   `json:"entry" enum:"run,undo"`
	Op       string          `json:"op" doc:"The host call, such as dev.call."`
	Args     json.RawMessage `json:"args,omitempty"`
	State    string          `json:"state" enum:"waiting,done,failed"`
	Result   json.RawMessage `json:"result,omitempty" doc:"Absent when it gave nothing."`
	Fault    *runFault       `json:"fault,omitempty"`
	Line     string          `json:"line,omitempty" doc:"Of the call, such as pattern.lua:44."`
	Source   string          `json:"source,omitempty" doc:"What stands there, as long as the version is installed."`
	Deferred bool            `json:"deferred,omitempty" doc:"A function that was handed to ctx:defer made it."`
	Tries    int             `json:"tries,omitempty" doc:"Attempts that were made of it, if more than one."`
	Ref      string          `json:"ref,omitempty" doc:"A queued call, a run, a job."`
	Begun    time.Time       `json:"begunTime,omitzero"`
	Ended    time.Time       `json:"endedTime,omitzero"`
	Due      time.Time       `json:"dueTime,omitzero" doc:"When it ends by itself."`
}

type runLog struct {
	Time time.Time `json:"time,omitzero"`
	Line string    `json:"line,omitempty"`
	Text string    `json:"text"`
}

// showTrace shows what a run did; b has its source, or is nil.
func showTrace(t engine.RunTrace, b *pattern.Bundle) runTrace {
	d := runTrace{runDocument: showPatternRun(t.Run), Steps: make([]runStep, 0, len(t.Steps)), Logs: make([]runLog, 0, len(t.Logs)), Kept: t.Kept}
	numbers := map[pattern.Entry]int{}
	source := sourceLines(b)
	for i := range t.Steps {
		s := &t.Steps[i]
		entry := s.Entry
		if entry == "" {
			entry = pattern.EntryRun
		}
		numbers[entry]++
		step := runStep{
			Number: numbers[entry], Entry: entry, Op: s.Op, Args: s.Args, State: "done", Result: s.Result, Fault: showRunFault(s.Fault), Line: s.Line, Source: source(s.Line),
			Deferred: s.Deferred, Ref: s.Ref, Begun: s.Begun, Ended: s.Ended, Due: s.Due,
		}
		if s.Tries > 1 {
			step.Tries = s.Tries
		}
		switch {
		case s.Open:
			step.State = "waiting"
		case s.Fault != nil:
			step.State = "failed"
		}
		d.Steps = append(d.Steps, step)
	}
	for _, l := range t.Logs {
		d.Logs = append(d.Logs, runLog{l.Time, l.Line, l.Text})
	}
	return d
}

// sourceMost bounds a line of source in a trace, in bytes.
const sourceMost = 200

// sourceLines returns what finds the text of a place such as "pattern.lua:44";
// it splits each file once.
func sourceLines(b *pattern.Bundle) func(place string) string {
	files := map[string][][]byte{}
	return func(place string) string {
		path, number, _ := strings.Cut(place, ":")
		n, err := strconv.Atoi(number)
		if b == nil || err != nil {
			return ""
		}
		lines, known := files[path]
		if !known {
			lines = bytes.Split(b.Files[path], []byte("\n"))
			files[path] = lines
		}
		if n < 1 || n > len(lines) {
			return ""
		}
		text := bytes.TrimSpace(lines[n-1])
		return strings.ToValidUTF8(string(text[:min(len(text), sourceMost)]), "")
	}
}

// runCountDocument counts runs that stand alike.
type runCountDocument struct {
	Pattern string        `json:"pattern"`
	Version string        `json:"version"`
	State   pattern.State `json:"state" enum:"queued,ready,waiting,succeeded,skipped,failed,uncertain,canceled,undone"`
	Phase   string        `json:"phase,omitempty" doc:"That the programs told."`
	Step    string        `json:"step,omitempty" doc:"The host call whose answer they wait for; connect: a dev.call that can't be sent since the device is not there."`
	Count   int64         `json:"count"`
}

func showRunCount(n engine.RunCount) runCountDocument {
	return runCountDocument{n.Pattern, n.Version, n.State, n.Phase, n.Step, n.Count}
}
