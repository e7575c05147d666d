package service

import (
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/rollout"
)

// Imports and exports are listed among Muster's own jobs, beside their own paths,
// for callers who may read them.

// The kinds under which they are shown.
const (
	jobImport = engine.JobKind(engine.IdentityImport)
	jobExport = engine.JobKind(engine.IdentityExport)
)

// jobKinds are what a list of jobs may be narrowed to.
func jobKinds() []engine.JobKind {
	return []engine.JobKind{engine.JobTwin, engine.JobMethod, engine.JobConfigure, engine.JobRunPattern, jobImport, jobExport}
}

// identityAsJob shows an import or export as a job: what it did to identities is
// the tally, lines of the file that are left are not known as identities.
func identityAsJob(j engine.IdentityJob) jobDocument {
	n := j.Counts
	done := int(n.Created + n.Updated + n.Deleted)
	t := rollout.Tally{Size: done + int(n.Failed), Succeeded: done, Failed: int(n.Failed)}
	d := jobDocument{Kind: engine.JobKind(j.Type), Principal: j.Principal, CreatedTime: j.Created}
	d.ID, d.Description = j.ID, j.Description
	d.jobProgress = jobProgress{
		Status: identityJobStatus(j.Status), Reason: j.FailureReason, Run: 1, Total: t, StartedTime: j.Started, UpdatedTime: j.Updated, EndedTime: j.Ended,
	}
	return d
}

func identityJobStatus(s engine.IdentityJobStatus) rollout.JobStatus {
	switch s {
	case engine.IdentityJobEnqueued:
		return rollout.JobQueued
	case engine.IdentityJobRunning:
		return rollout.JobRunning
	case engine.IdentityJobCompleted:
		return rollout.JobCompleted
	case engine.IdentityJobFailed:
		return rollout.JobFailed
	default:
		return rollout.JobCanceled
	}
}

// jobsCursor is where a page of the merged list ends, in both lists.
type jobsCursor struct {
	jobs, identities string
	jobsEnd          bool // there are no more jobs
	identitiesEnd    bool
}

const cursorEnd = "-" // in the place of a cursor: that list has ended

func (c jobsCursor) String() string {
	part := func(at string, end bool) string {
		if end {
			return cursorEnd
		}
		return at
	}
	if c.jobsEnd && c.identitiesEnd {
		return ""
	}
	return part(c.jobs, c.jobsEnd) + "|" + part(c.identities, c.identitiesEnd)
}

func parseJobsCursor(text string) jobsCursor {
	var c jobsCursor
	c.jobs, c.identities, _ = strings.Cut(text, "|")
	if c.jobsEnd = c.jobs == cursorEnd; c.jobsEnd {
		c.jobs = ""
	}
	if c.identitiesEnd = c.identities == cursorEnd; c.identitiesEnd {
		c.identities = ""
	}
	return c
}

// mergedJobs returns a page of jobs, imports and exports, the newest first.
func (c *call) mergedJobs(f engine.JobFilter, at jobsCursor, limit int) ([]jobDocument, jobsCursor, error) {
	only := f.Kind == jobImport || f.Kind == jobExport
	if f.Label != "" || f.Kind != "" && !only || !c.caller.Permissions.Has(auth.RegistryRead) {
		at.identitiesEnd = true // they have no labels
	}
	at.jobsEnd = at.jobsEnd || only
	var jobs []engine.Job
	next := at
	if !at.jobsEnd {
		var err error
		if jobs, next.jobs, err = c.hub.Jobs(c.r.Context(), c.caller, f, at.jobs, limit); err != nil {
			return nil, at, err
		}
		next.jobsEnd = next.jobs == ""
	}
	var identities []engine.IdentityJob
	if !at.identitiesEnd {
		list, more, err := c.hub.IdentityJobs(c.r.Context(), c.caller, at.identities, limit)
		if err != nil {
			return nil, at, err
		}
		next.identities, next.identitiesEnd = more, more == ""
		identities = list
	}
	out := []jobDocument{}
	taken, passed := 0, 0 // of both lists
	for len(out) < limit {
		switch {
		case taken < len(jobs) && (passed == len(identities) && next.identitiesEnd || passed < len(identities) && jobs[taken].Created.After(identities[passed].Created)):
			out = append(out, showJob(jobs[taken]))
			taken++
		case passed < len(identities) && (taken < len(jobs) || next.jobsEnd):
			if j := identities[passed]; f.Kind == "" || f.Kind == engine.JobKind(j.Type) {
				if d := identityAsJob(j); len(f.Status) == 0 || slices.Contains(f.Status, d.Status) {
					out = append(out, d)
				}
			}
			passed++
		default: // what comes next is on the page after this one
			limit = len(out)
		}
	}
	if passed < len(identities) {
		next.identitiesEnd = false
		if next.identities = at.identities; passed > 0 {
			next.identities = identities[passed-1].ID
		}
	}
	switch {
	case taken == len(jobs):
	case taken == 0:
		next.jobs, next.jobsEnd = at.jobs, false
	default: // where the list stands behind those that were taken
		_, after, err := c.hub.Jobs(c.r.Context(), c.caller, f, at.jobs, taken)
		if err != nil {
			return nil, at, err
		}
		next.jobs, next.jobsEnd = after, after == ""
	}
	return out, next, nil
}

// identityJobInstead answers for an import or export when the id is no job's.
func (c *call) identityJobInstead(a answer, err error, f func() (engine.IdentityJob, error)) (answer, error) {
	if err == nil || engine.AsError(err).Code != engine.CodeJobNotFound || !c.caller.Permissions.Has(auth.RegistryRead) {
		return a, err
	}
	j, other := f()
	if other != nil {
		if engine.AsError(other).Code == engine.CodeJobNotFound {
			return a, err
		}
		return a, other
	}
	return answer{body: identityAsJob(j)}, nil
}
