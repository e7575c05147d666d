package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
)

// Bounds of a job that no profile changes; the others are in the table of limits.
const (
	jobIDBytes          = 128
	jobDescriptionBytes = 1024
	jobDiverseBy        = 8 // paths
)

// jobIDMarks stand in ids of jobs beside letters and digits: an id is a part of
// paths and causes.
const jobIDMarks = "-_.'"

func checkJobID(what, id string) error {
	if len(id) > jobIDBytes {
		return errf(CodeArgumentInvalid, "%s is %d characters long; expected at most %d", what, len(id), jobIDBytes)
	}
	for i, c := range id {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(jobIDMarks, c) {
			continue
		}
		return errf(CodeArgumentInvalid, "%s has the character %q at position %d; allowed are ASCII letters, digits and %s", what, c, i, jobIDMarks)
	}
	if id == "." || id == ".." {
		return errf(CodeArgumentInvalid, "%s is %q; expected a name that can be part of a path", what, id)
	}
	return nil
}

// checkedJob is a spec that was found to be in order, and what it comes to.
type checkedJob struct {
	spec     JobSpec        // with its policy's defaults
	member   string         // what its policy is called where it was given
	pattern  *patternRecord // that it runs; nil: none
	saved    savedText
	action   jobAction
	targets  *jobTargets
	fault    error // of targets.condition, which counts when the job runs
	warnings []rollout.Fault
}

// checkJob says what is wrong with a job as far as that can be told before its
// targets are known.
func (h *Hub) checkJob(s JobSpec, saved savedText, now time.Time) (*checkedJob, error) {
	if err := checkJobID("the job's id", s.ID); err != nil {
		return nil, err
	}
	if n := len(s.Description); n > jobDescriptionBytes {
		return nil, errf(CodeArgumentInvalid, "description has %d bytes; expected at most %d", n, jobDescriptionBytes)
	}
	if err := checkLabels(s.Labels); err != nil {
		return nil, err
	}
	action, err := s.Action.action()
	if err != nil {
		return nil, err
	}
	if err := action.check(h); err != nil {
		return nil, err
	}
	if s.Action.Confirm != "" {
		if _, err := parsePredicate("action.confirm", s.Action.Confirm); err != nil {
			return nil, err
		}
	}
	s.Policy.SetDefaults()
	warnings, err := h.checkRollout(policyMember, &s.Policy, now)
	if err != nil {
		return nil, err
	}
	out := &checkedJob{spec: s, member: policyMember, saved: saved, action: action, warnings: warnings}
	readable := s
	if s.Targets.Condition != "" {
		if _, _, out.fault = h.parseTargetQuery(&s.Targets, query.Devices, saved); out.fault != nil {
			readable.Targets.Condition = "*" // all else is looked at now
		}
	}
	if out.targets, err = h.parseTargets(&readable, saved); err != nil {
		return nil, err
	}
	b, err := marshal(s)
	if err != nil {
		return nil, wrapf(CodeFormat, err, "the job can't be written as JSON: %v", err)
	}
	if most := h.limits.JobBytes; len(b) > most {
		return nil, errf(CodeTooLarge, "the job has %d bytes; expected at most %d: with fewer ids, or with a condition in their place", len(b), most)
	}
	return out, nil
}

// sizedWarnings says what may not be meant in the policy with so many targets; the
// error is what can't work.
func (c *checkedJob) sizedWarnings(now time.Time, count int) ([]rollout.Fault, error) {
	p, act := &c.spec.Policy, &c.spec.Action
	warnings, err := p.Validate(c.member, now, count)
	if err != nil {
		return nil, wrapf(CodeArgumentInvalid, err, "%s", err.Error())
	}
	if act.Method != nil || act.Run != nil || act.Confirm != "" { // a twin is written at once
		warnings = append(warnings, p.Slow(c.member, now, count, act.Offline != JobOfflineFail)...)
	}
	return warnings, nil
}

// policyMember is what a job calls its policy.
const policyMember = "policy"

// checkRollout says what is wrong with a policy, which is the member of what was
// given, and what may not be meant.
func (h *Hub) checkRollout(member string, p *rollout.Policy, now time.Time) (warnings []rollout.Fault, err error) {
	warnings, err = p.Validate(member, now, -1)
	if err != nil {
		return nil, wrapf(CodeArgumentInvalid, err, "%s", err.Error())
	}
	if most := h.limits.JobStartAhead; p.Start.Sub(now) > most {
		return nil, errf(CodeArgumentInvalid, "%s.start is %s from now; expected at most %s", member, p.Start.Sub(now).Round(time.Second), most)
	}
	for i, w := range p.Waves {
		if w.Health == nil {
			continue
		}
		if _, err := parsePredicate(fmt.Sprintf("%s.waves[%d].health.where", member, i), w.Health.Where); err != nil {
			return nil, err
		}
	}
	if tag := p.ZoneTag(); tag != "" {
		if _, err := parsePath(member+".windows: zoneTag", tag); err != nil {
			return nil, err
		}
	}
	return warnings, nil
}

// parsePredicate parses a bare predicate of a job; the error says in which
// member and at which place of it.
func parsePredicate(member, text string) (*query.Predicate, error) {
	p, err := query.ParsePredicate(text)
	if err != nil {
		return nil, conditionError(member, err)
	}
	return p, nil
}

func conditionError(member string, err error) *Error {
	e := wrapf(CodeArgumentInvalid, err, "%s can't be read: %s", member, err.Error())
	e.Next = "Mend the condition at that place; `muster query` tries conditions."
	return e
}

// parsePath parses the path of a property, as in a predicate.
func parsePath(member, text string) (query.Path, error) {
	p, err := query.ParsePredicate(text + " == 0")
	if err == nil && len(p.Paths()) == 1 && !strings.ContainsAny(text, " ()=<>!") {
		return p.Paths()[0], nil
	}
	return nil, errf(CodeArgumentInvalid, "%s is %q; expected the path of one property, such as tags.site or reported.fw.version", member, clip(text))
}

// jobTargets are a job's targets ready to be looked for.
type jobTargets struct {
	source  query.Source
	query   *query.Query // nil: ids
	ids     []string     // rows, sorted, each once
	exclude []string     // rows, sorted
	except  *query.Query // what is left out; nil: nothing
	where   *query.Predicate
	unless  *query.Predicate
	applies *query.Predicate // what the pattern that is run can work on; nil: anything
	all     bool             // every device or module
	zone    query.Path       // nil: none
	diverse [][]query.Path
}

// savedText is what a saved query was when a job was made that names it.
type savedText struct {
	Text   string       `json:"t"`
	Source query.Source `json:"s,omitempty"` // of a predicate
	// Applies is the bare predicate of the twins on which a pattern can work;
	// empty: any.
	Applies string `json:"a,omitempty"`
}

// parseTargets reads a job's targets.
func (h *Hub) parseTargets(s *JobSpec, saved savedText) (*jobTargets, error) {
	t := &s.Targets
	set := 0
	for _, is := range []bool{t.Where != "", t.Condition != "", t.Query != "", len(t.IDs) > 0} {
		if is {
			set++
		}
	}
	switch {
	case set == 0:
		return nil, errf(CodeArgumentNull, "targets are missing; expected where, query or ids")
	case set > 1:
		return nil, errf(CodeArgumentInvalid, "targets have more than one of where, condition, query and ids; expected exactly one")
	case t.Dynamic && len(t.IDs) > 0:
		return nil, errf(CodeArgumentInvalid, "targets.dynamic is of no use with ids: expected where or query, which more devices can come to match")
	case t.Source != "" && t.Where == "":
		return nil, errf(CodeArgumentInvalid, "targets.source counts with where only")
	}
	out := &jobTargets{}
	switch t.Source {
	case "", "devices":
	case "modules":
		out.source = query.Modules
	default:
		return nil, errf(CodeArgumentInvalid, "targets.source is %q; expected devices or modules", clip(t.Source))
	}
	var err error
	if out.query, out.all, err = h.parseTargetQuery(t, out.source, saved); err != nil {
		return nil, err
	}
	if out.query != nil {
		out.source, out.where = out.query.Source(), out.query.Predicate()
	}
	if out.query != nil && t.Dynamic {
		if err := query.CheckLive(out.query); err != nil {
			return nil, conditionError("targets", err)
		}
	}
	if out.ids, err = h.targetRows("targets.ids", t.IDs); err != nil {
		return nil, err
	}
	if out.exclude, err = h.targetRows("targets.exclude", t.Exclude); err != nil {
		return nil, err
	}
	if t.ExcludeWhere != "" {
		p, err := parsePredicate("targets.excludeWhere", t.ExcludeWhere)
		if err != nil {
			return nil, err
		}
		out.except, out.unless = query.Select(out.source, p), p
		if t.Dynamic {
			if err := query.CheckLive(out.except); err != nil {
				return nil, conditionError("targets.excludeWhere", err)
			}
		}
	}
	if saved.Applies != "" {
		if out.applies, err = parsePredicate("applies of the pattern", saved.Applies); err != nil {
			return nil, err
		}
		if t.Dynamic {
			if err := query.CheckLive(query.Select(out.source, out.applies)); err != nil {
				return nil, conditionError("applies of the pattern", err)
			}
		}
	}
	if tag := s.Policy.ZoneTag(); tag != "" {
		if out.zone, err = parsePath("policy.windows: zoneTag", tag); err != nil {
			return nil, err
		}
	}
	out.diverse, err = diversePaths(t.DiverseBy)
	return out, err
}

// parseTargetQuery returns the query for a job's targets, nil when they are
// named.
func (h *Hub) parseTargetQuery(t *JobTargets, source query.Source, saved savedText) (q *query.Query, all bool, err error) {
	strict := query.Options{Strict: h.limits.Profile == ProfileAzure}
	everything := func(text string) bool { return strings.TrimSpace(text) == "*" }
	switch {
	case t.Where != "" && everything(t.Where):
		q, err = query.ParseCondition(source, "*", query.Options{})
		return q, true, err
	case t.Where != "":
		p, err := parsePredicate("targets.where", t.Where)
		if err != nil {
			return nil, false, err
		}
		return query.Select(source, p), false, nil
	case t.Condition != "":
		q, err := query.ParseCondition(query.Devices, t.Condition, strict)
		if err != nil {
			return nil, false, conditionError("queryCondition", err)
		}
		return q, everything(t.Condition), nil
	case t.Query == "":
		return nil, false, nil
	case query.IsQuery(saved.Text):
		q, err := query.Parse(saved.Text, strict)
		if err != nil {
			return nil, false, conditionError("the saved query "+fmt.Sprintf("%q", clip(t.Query)), err)
		}
		if !q.Plain() || q.Source() == query.Jobs || q.Source() == query.Runs {
			return nil, false, errf(CodeArgumentInvalid, "the saved query %q has groups, a number of rows or rows of jobs; expected one whose rows are all devices or modules that its WHERE selects", clip(t.Query))
		}
		return q, len(q.Predicate().Paths()) == 0, nil
	default:
		p, err := parsePredicate("the saved query "+fmt.Sprintf("%q", clip(t.Query)), saved.Text)
		if err != nil {
			return nil, false, err
		}
		return query.Select(saved.Source, p), false, nil
	}
}

// targetRows returns the rows of ids that a job lists, sorted, each once.
func (h *Hub) targetRows(member string, ids []TwinID) ([]string, error) {
	if most := h.limits.JobNamedTargets; len(ids) > most {
		return nil, errf(CodeArgumentInvalid, "%s has %d entries; expected at most %d, or a condition in their place", member, len(ids), most)
	}
	rows := make([]string, 0, len(ids))
	for i, id := range ids {
		if err := checkID(fmt.Sprintf("%s[%d]: the device id", member, i), id.DeviceID, h.limits.IdentityIDBytes); err != nil {
			return nil, err
		}
		if id.ModuleID != "" {
			if err := checkID(fmt.Sprintf("%s[%d]: the module id", member, i), id.ModuleID, h.limits.IdentityIDBytes); err != nil {
				return nil, err
			}
		}
		_, row := id.row()
		rows = append(rows, row)
	}
	slices.Sort(rows)
	return slices.Compact(rows), nil
}

// diverseDefaults are where fleets tell what a device is, when a job does not
// say: its model, its firmware, its site.
var diverseDefaults = [][]query.Path{
	{{"modelId"}, {"properties", "reported", "model"}, {"tags", "model"}},
	{
		{"properties", "reported", "fw", "version"}, {"properties", "reported", "firmware", "version"}, {"properties", "reported", "fw"},
		{"properties", "reported", "firmware"}, {"properties", "reported", "firmwareVersion"}, {"tags", "firmware"},
	},
	{{"tags", "site"}, {"tags", "location", "site"}, {"tags", "location", "plant"}, {"tags", "region"}, {"tags", "location", "region"}},
}

// diversePaths returns the places of each key by which a diverse wave is chosen;
// of one key the first place that has something counts.
func diversePaths(by []string) ([][]query.Path, error) {
	if len(by) == 0 {
		return diverseDefaults, nil
	}
	if len(by) > jobDiverseBy {
		return nil, errf(CodeArgumentInvalid, "targets.diverseBy has %d paths; expected at most %d", len(by), jobDiverseBy)
	}
	list := make([][]query.Path, len(by))
	for i, text := range by {
		p, err := parsePath(fmt.Sprintf("targets.diverseBy[%d]", i), text)
		if err != nil {
			return nil, err
		}
		list[i] = []query.Path{p}
	}
	return list, nil
}

// queryFault is what a job that runs gives as its reason when its condition
// can't be read, in IoT Hub's words.
func queryFault(err error) string {
	if e, ok := errors.AsType[*query.Error](err); ok {
		return "SQL query parse failed: " + e.Error()
	}
	return AsError(err).Message
}
