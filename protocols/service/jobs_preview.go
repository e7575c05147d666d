package service

import (
	"encoding/json"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/rollout"
)

// previewDocument is what a job would do.
type previewDocument struct {
	Job       engine.JobSpec     `json:"job" doc:"With the defaults of its policy."`
	Kind      engine.JobKind     `json:"kind" enum:"scheduleUpdateTwin,scheduleDeviceMethod,runPattern"`
	Count     int64              `json:"count" doc:"Targets, exactly."`
	Waves     []previewWave      `json:"waves"`
	FirstTime time.Time          `json:"firstTime,omitzero" doc:"When the first attempt would start; absent when it never would."`
	Sample    []previewTarget    `json:"sample" doc:"The first targets, and what the job would do to each."`
	Excluded  []previewExclusion `json:"excluded" doc:"Who is left out, by reason."`
	Conflicts []previewConflict  `json:"conflicts" doc:"Jobs that still have something to do on some of the sample, too."`
	Warnings  []jobFault         `json:"warnings" doc:"What may not be meant."`
	Confirm   string             `json:"confirm,omitempty" doc:"What a person is to type before the start, since it is dangerous or reaches many: the job needs the token then."`
	Token     string             `json:"token" doc:"Send it with the same job to POST /api/v1/jobs."`
	Expires   time.Time          `json:"expiresTime" doc:"Of the token."`
}

type previewWave struct {
	Number   int      `json:"number" doc:"From 1."`
	Size     int      `json:"size" doc:"Targets."`
	Diverse  bool     `json:"diverse,omitempty" doc:"Its targets differ in model, firmware and site."`
	Approval bool     `json:"approval,omitempty" doc:"It waits for approval before it starts."`
	Targets  []string `json:"targets,omitempty" doc:"Of small waves: which, as DEVICE or DEVICE/MODULE."`
}

type previewTarget struct {
	DeviceID  string          `json:"deviceId"`
	ModuleID  string          `json:"moduleId,omitempty"`
	Wave      int             `json:"wave" doc:"From 1."`
	Connected bool            `json:"connected"`
	Changes   []previewChange `json:"changes,omitempty" doc:"Of the twin; none when it is so already."`
	Method    string          `json:"method,omitempty" doc:"That would be called."`
	Pattern   string          `json:"pattern,omitempty" doc:"That would run, with its version."`
	Fault     string          `json:"fault,omitempty" doc:"Why it would fail."`
}

type previewChange struct {
	Path   string          `json:"path" doc:"Begins with tags or desired."`
	Before json.RawMessage `json:"before,omitempty" doc:"Absent when there is none."`
	After  json.RawMessage `json:"after,omitempty" doc:"Absent when it would be removed."`
}

type previewExclusion struct {
	Reason string   `json:"reason" enum:"exclude,excludeWhere,the pattern does not apply,notFound"`
	Count  int64    `json:"count"`
	Sample []string `json:"sample" doc:"Some of them, as DEVICE or DEVICE/MODULE."`
}

type previewConflict struct {
	Job      string            `json:"jobId"`
	Status   rollout.JobStatus `json:"status"`
	Priority int               `json:"priority"`
	Kind     engine.JobKind    `json:"kind" enum:"scheduleUpdateTwin,scheduleDeviceMethod,runPattern"`
	Targets  int               `json:"targets" doc:"On how many of the sample's it has yet to be done."`
}

func previewJob(c *call) (answer, error) {
	a, err := c.jobAsk("")
	if err != nil {
		return answer{}, err
	}
	if a.token != "" {
		return answer{}, invalid("token goes with POST /api/v1/jobs; a preview gives one")
	}
	c.wait(previewTime)
	p, err := c.hub.PreviewJob(c.r.Context(), c.caller, a.spec, a.sample)
	return answer{body: showPreview(&p)}, err
}

func showPreview(p *engine.JobPreview) previewDocument {
	d := previewDocument{
		Job: p.Spec, Kind: p.Kind, Count: p.Count, FirstTime: p.First, Confirm: p.Confirm, Token: p.Token, Expires: p.Expires,
		Sample: show(p.Sample, func(t engine.JobTarget) previewTarget {
			shown := previewTarget{DeviceID: t.ID.DeviceID, ModuleID: t.ID.ModuleID, Wave: t.Wave + 1, Connected: t.Effect.Connected, Method: t.Effect.Method, Pattern: t.Effect.Pattern, Fault: t.Effect.Fault}
			for _, x := range t.Effect.Changes {
				shown.Changes = append(shown.Changes, previewChange{x.Path, x.Before, x.After})
			}
			return shown
		}),
		Excluded: show(p.Excluded, func(x engine.JobExclusion) previewExclusion {
			return previewExclusion{x.Reason, x.Count, show(x.Sample, engine.TwinID.String)}
		}),
		Conflicts: show(p.Active, func(x engine.JobConflict) previewConflict {
			return previewConflict{x.Job, x.Status, x.Priority, x.Kind, x.Targets}
		}),
		Warnings: show(p.Warnings, showJobFault),
		Waves:    make([]previewWave, 0, len(p.Waves)),
	}
	for i, w := range p.Waves {
		shown := previewWave{Number: i + 1, Size: w.Size, Diverse: w.Diverse, Approval: w.Approval}
		for _, id := range w.Targets {
			shown.Targets = append(shown.Targets, id.String())
		}
		d.Waves = append(d.Waves, shown)
	}
	return d
}
