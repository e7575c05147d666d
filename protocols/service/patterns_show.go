package service

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/pattern"
)

// patternDocument is an installed version of a pattern.
type patternDocument struct {
	Name       string               `json:"name"`
	Version    string               `json:"version"`
	Title      string               `json:"title,omitempty"`
	Summary    string               `json:"summary,omitempty"`
	Manifest   pattern.Manifest     `json:"manifest" doc:"All that the pattern declares."`
	Parameters json.RawMessage      `json:"parameters" schema:"object" doc:"JSON Schema of the parameters of a run."`
	Needs      []patternNeed        `json:"needs" doc:"What the pattern may do, each granted when it was installed."`
	Hash       string               `json:"hash" doc:"SHA-256 over paths and contents of its files."`
	Origin     engine.PatternOrigin `json:"origin" enum:"shipped,signed,unsigned"`
	Signer     string               `json:"signer,omitempty" doc:"Name of the trusted key that signed it."`
	Enabled    bool                 `json:"enabled" doc:"Runs may begin, and its triggers work."`
	Default    bool                 `json:"default" doc:"It is run when no version is named."`
	Missing    []string             `json:"missing,omitempty" doc:"Parts of Muster that it needs and that are not here: it can't be enabled."`
	Active     int64                `json:"active" doc:"Runs that have not ended."`
	Principal  string               `json:"principal,omitempty" doc:"Who installed it."`
	Installed  time.Time            `json:"installedTime,omitzero" doc:"Absent when it is only inspected."`
	ETag       string               `json:"etag,omitempty"`
	Cost       patternCost          `json:"cost"`
}

// patternNeed is a capability in words.
type patternNeed struct {
	Need    string `json:"need"`
	Text    string `json:"text" doc:"What it lets the pattern do."`
	Granted bool   `json:"granted"`
	Missing string `json:"missing,omitempty" doc:"The part of Muster that it is about and that is not here."`
}

// patternCost is what the runs of a version took.
type patternCost struct {
	Runs         int64                   `json:"runs" doc:"That ended since the hub started, as all of these."`
	Ended        map[pattern.State]int64 `json:"ended,omitempty" doc:"By state."`
	Activations  int64                   `json:"activations"`
	Instructions int64                   `json:"instructions"`
	Calls        int64                   `json:"calls" doc:"Host calls, those answered from journals included."`
	Journal      int64                   `json:"journalBytes"`
	Seconds      float64                 `json:"seconds" doc:"In workers."`
	Slowest      float64                 `json:"slowestSeconds" doc:"Of one activation."`
	SlowestRun   string                  `json:"slowestRun,omitempty" doc:"Whose activation that was."`
	Hot          []pattern.HotLine       `json:"hot,omitempty" doc:"The lines that ran most of the instructions of slow activations, sampled; the hottest first."`
}

// patternFile is a file of a pattern.
type patternFile struct {
	Path    string `json:"path"`
	Content string `json:"content"`
}

func showFiles(b *pattern.Bundle) []patternFile {
	list := make([]patternFile, 0, len(b.Files))
	for _, path := range slices.Sorted(maps.Keys(b.Files)) {
		list = append(list, patternFile{path, string(b.Files[path])})
	}
	return list
}

func showPattern(p engine.Pattern) patternDocument {
	m := &p.Manifest
	d := patternDocument{
		Name: m.Name, Version: m.Version, Title: m.Title, Summary: m.Summary, Manifest: *m, Parameters: m.Schema(), Needs: []patternNeed{},
		Hash: p.Hash, Origin: p.Origin, Signer: p.Signer, Enabled: p.Enabled, Default: p.Default, Missing: p.Missing, Active: p.Active,
		Principal: p.Principal, Installed: p.Installed.UTC(), ETag: p.ETag,
		Cost: patternCost{
			Runs: p.Cost.Runs, Ended: p.Cost.Ended, Activations: p.Cost.Activations, Instructions: p.Cost.Instructions, Calls: p.Cost.Calls,
			Journal: p.Cost.Journal, Seconds: p.Cost.Time.Seconds(), Slowest: p.Cost.Slowest.Seconds(), SlowestRun: p.Cost.SlowestRun,
			Hot: p.Cost.Hot[:min(len(p.Cost.Hot), pattern.HotMost)],
		},
	}
	for _, n := range m.Needs {
		need := patternNeed{Need: string(n), Granted: p.Granted.Allows(n)}
		if info, _, err := n.Parse(); err == nil {
			need.Text, need.Missing = info.Text, info.Missing
		}
		d.Needs = append(d.Needs, need)
	}
	return d
}

// manifestDocument describes pattern.Manifest.
type manifestDocument struct {
	Name      string            `json:"name" doc:"In kebab-case."`
	Version   string            `json:"version" doc:"A semantic version."`
	API       int               `json:"api" doc:"Version of the host API."`
	Title     string            `json:"title,omitempty"`
	Summary   string            `json:"summary,omitempty"`
	Author    string            `json:"author,omitempty"`
	Params    json.RawMessage   `json:"params,omitempty" schema:"object" doc:"The properties of the JSON Schema of its parameters."`
	Required  []string          `json:"required,omitempty"`
	Needs     []string          `json:"needs,omitempty" doc:"Capabilities, such as method:reboot."`
	Applies   string            `json:"applies,omitempty" doc:"A bare predicate: devices that it can work on."`
	Scope     string            `json:"scope,omitempty" enum:"device,fleet" doc:"device when absent."`
	Conflicts string            `json:"conflicts,omitempty" enum:"queue,skip,reject,replace,share" doc:"What becomes of a run whose device has another one under way; queue when absent."`
	Timeout   string            `json:"timeout,omitempty" doc:"Of a run."`
	Danger    bool              `json:"danger,omitempty" doc:"Whoever starts it over a fleet is asked to type its name."`
	Most      int               `json:"most,omitempty" doc:"How many devices one job may have without a word."`
	Resumable bool              `json:"resumable,omitempty" doc:"Its runs can be retried from a step."`
	Rollout   *jobPolicy        `json:"rollout,omitempty" doc:"The policy of its jobs unless they bring their own."`
	Triggers  []triggerDocument `json:"triggers,omitempty" doc:"What starts runs by itself while it is enabled."`
	HasUndo   bool              `json:"hasUndo,omitempty"`
	HasGate   bool              `json:"hasGate,omitempty"`
	HasCheck  bool              `json:"hasCheck,omitempty"`
}

// triggerDocument describes pattern.Trigger.
type triggerDocument struct {
	When     string          `json:"when,omitempty" doc:"A bare predicate: a device whose twin comes to match it."`
	Event    string          `json:"event,omitempty" enum:"connected,disconnected,created"`
	Cron     string          `json:"cron,omitempty"`
	Zone     string          `json:"zone,omitempty" doc:"Time zone of cron; UTC when absent."`
	Alert    string          `json:"alert,omitempty"`
	Enrolled bool            `json:"enrolled,omitempty"`
	Where    string          `json:"where,omitempty" doc:"A bare predicate: which devices; all when absent."`
	Params   json.RawMessage `json:"params,omitempty" schema:"object"`
}
