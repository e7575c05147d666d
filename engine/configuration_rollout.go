package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/configuration"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// configurationSpread says that not all twins get a configuration's newest
// revision: those whose turn has come in a job do, the others keep what they had.
type configurationSpread struct {
	Job    string            `json:"j"`
	Former []uint64          `json:"f,omitempty"` // revisions that twins may have: first the one of those that have none; none: nothing
	Ended  rollout.JobStatus `json:"e,omitempty"` // otherwise than completed; empty: it has not
}

// formerMost is how many earlier revisions twins may have beside the newest one:
// that many rollouts can be given up in a row before those furthest behind get the
// first of them.
const formerMost = 4

func (s *configurationSpread) job() string {
	if s == nil {
		return ""
	}
	return s.Job
}

// rolloutMember is what a configuration calls the policy of its rollout.
const rolloutMember = "rollout"

// checkConfigurationRollout says what is wrong with a configuration's rollout,
// whatever it selects.
func (h *Hub) checkConfigurationRollout(p *rollout.Policy) error {
	if p == nil {
		return nil
	}
	if p.Repeat != "" {
		return errf(CodeArgumentInvalid, "rollout.repeat is %q; expected none: a configuration that is spread goes on holding", clip(p.Repeat))
	}
	p.SetDefaults()
	_, err := h.checkRollout(rolloutMember, p, time.Now())
	return err
}

// sizedRollout refuses a rollout that can't be done with as many targets as the
// revision selects now, and says what may not be meant of it: as of a job that is
// made without a preview.
func (h *Hub) sizedRollout(ctx context.Context, id string, r *configurationRecord) ([]rollout.Fault, error) {
	if !r.rollsOut() {
		return nil, nil
	}
	now := time.Now().UTC()
	checked := rolloutJob(id, r)
	var err error
	if checked.warnings, err = checked.sizedWarnings(now, -1); err != nil { // however many there are
		return nil, err
	}
	if checked.targets, err = h.parseTargets(&checked.spec, checked.saved); err != nil {
		return nil, err
	}
	err = h.checkTargets(ctx, checked, now)
	return checked.warnings, err
}

// rollsOut reports whether a revision that is applied anew has a job to spread it.
func (r *configurationRecord) rollsOut() bool {
	return r.Rollout != nil && strings.TrimSpace(r.Condition) != ""
}

// goesOn reports whether a revision that is otherwise as the former one changes how
// that one spreads.
func (r *configurationRecord) goesOn(old *configurationRecord) bool {
	return old.Spread != nil && (r.Rollout == nil || old.Spread.Ended != "")
}

// spreadConfigurationTx has the twins of a revision follow it, as its rollout says;
// the caller stores it. old is the revision before, nil when there is none.
func (h *Hub) spreadConfigurationTx(tx *storage.Tx, c Caller, id string, old, r *configurationRecord) error {
	anew := old == nil || r.Effect != old.Effect
	if !anew && !r.goesOn(old) {
		return h.changeSetTx(tx, id, false) // what it does is done as whoever made the revision
	}
	var former []uint64
	if old != nil {
		if err := h.endRolloutTx(tx, c, old.Spread, "another revision of the configuration takes its place"); err != nil {
			return err
		}
		if old.Spread != nil {
			former = old.Spread.Former
		}
		if anew {
			former = append(slices.Clip(former), old.Effect)
		}
		if over := len(former) - formerMost; over > 0 {
			former = slices.Delete(slices.Clone(former), 1, 1+over)
		}
	}
	r.Spread = nil
	if !r.rollsOut() {
		return h.beginSpreadTx(tx, id, anew)
	}
	job, err := h.beginRolloutTx(tx, c, id, r)
	r.Spread = &configurationSpread{Job: job, Former: former}
	return errors.Join(err, h.changeSetTx(tx, id, anew))
}

// beginRolloutTx makes the job that spreads a revision.
func (h *Hub) beginRolloutTx(tx *storage.Tx, c Caller, id string, r *configurationRecord) (string, error) {
	job := newJobID(tx.Now())
	_, err := h.createJobTx(tx, c, job, rolloutJob(id, r), planRecord{Run: 1})
	return job, err
}

// rolloutJob is the job that spreads a revision.
func rolloutJob(id string, r *configurationRecord) *checkedJob {
	action := &JobConfiguration{ID: id, Revision: r.Effect}
	return &checkedJob{
		spec: JobSpec{
			Description: "rollout of a configuration", Labels: map[string]string{"configuration": id},
			Targets: JobTargets{Query: "configuration " + id}, Action: JobAction{Configuration: action}, Policy: *r.Rollout, AllowEmpty: true,
		},
		member: rolloutMember, saved: savedText{Text: systemMetrics(id, r)[MetricTargeted]}, action: (*configurationAction)(action),
	}
}

// endRolloutTx cancels a rollout that is under way.
func (h *Hub) endRolloutTx(tx *storage.Tx, c Caller, s *configurationSpread, why string) error {
	if s == nil {
		return nil
	}
	r, err := loadJob(tx, s.Job)
	if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeJobNotFound || err == nil && r.State.Status.Final() {
		return nil
	}
	if err != nil {
		return err
	}
	if r.State.Status != rollout.JobCanceling {
		if err := r.State.Cancel(why); err != nil {
			return jobState(s.Job, err)
		}
	}
	return h.storeJobTx(tx, c, s.Job, &r)
}

// readFormer reads the revisions that twins may have whose turn has not come.
func (m *setMember) readFormer(r storage.Reader, known *setMember) error {
	if m.record.Spread == nil {
		return nil
	}
	m.former = map[uint64]*setMember{}
	for _, n := range m.record.Spread.Former {
		record, err := configurationRevisionTable.Get(r, configurationRevisionKey(m.id, n))
		if errors.Is(err, storage.ErrNotFound) {
			continue // so many revisions ago that it is no longer kept
		}
		if err != nil {
			return err
		}
		var before *setMember
		if known != nil {
			before = known.former[n]
		}
		if m.former[n], err = newSetMember(m.id, record, before); err != nil {
			return err
		}
	}
	return nil
}

// revisionFor returns the revision of a configuration that counts for a twin; nil:
// none does. turn is the configuration whose newest one it gets now.
func (m *setMember) revisionFor(has *configuredRecord, turn string) *setMember {
	s := m.record.Spread
	if s == nil || turn == m.id {
		return m
	}
	if b := has.find(m.id); b != nil && b.Created == m.record.Created.UnixNano() {
		if b.Effect == m.record.Effect {
			return m
		}
		if f := m.former[b.Effect]; f != nil {
			return f
		}
	}
	if len(s.Former) == 0 {
		return nil
	}
	return m.former[s.Former[0]]
}

// rollouts takes note of rollouts that have ended: after one that completed all
// twins follow.
func (f *configurationFollower) rollouts(ctx context.Context) error {
	for _, m := range f.set.list {
		s := m.record.Spread
		if s == nil || s.Ended != "" {
			continue
		}
		var status rollout.JobStatus
		err := f.hub.view(ctx, "look at a rollout", func(r storage.Reader) (err error) {
			status, err = rolloutStatus(r, s.Job)
			return err
		})
		if err != nil {
			return err
		}
		if !status.Final() {
			continue
		}
		err = f.hub.step(ctx, "configuration.rollout", func(tx *storage.Tx) error {
			r, err := loadConfiguration(tx, m.id)
			if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeConfigurationNotFound {
				return nil
			}
			if err != nil || r.Spread.job() != s.Job || !r.Created.Equal(m.record.Created) {
				return err
			}
			if status != rollout.JobCompleted {
				r.Spread.Ended = status
				return errors.Join(f.hub.changeSetTx(tx, m.id, false), configurationTable.Put(tx, configurationKey(m.id), r))
			}
			r.Spread = nil
			return errors.Join(f.hub.beginSpreadTx(tx, m.id, false), configurationTable.Put(tx, configurationKey(m.id), r))
		})
		if err != nil {
			return err
		}
		return errConfigurationsChanged // look again
	}
	return nil
}

// rolloutStatus is how a job stands; one that was removed was canceled.
func rolloutStatus(r storage.Reader, job string) (rollout.JobStatus, error) {
	record, err := loadJob(r, job)
	if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeJobNotFound {
		return rollout.JobCanceled, nil
	}
	return record.State.Status, err
}

// configurationAction gives a target the newest revision of a configuration, as a
// part of its rollout.
type configurationAction JobConfiguration

func (*configurationAction) kind() JobKind        { return JobConfigure }
func (*configurationAction) operation() operation { return opConfigurationWrite }

// check implements jobAction: only a configuration makes such a job.
func (a *configurationAction) check(*Hub) error {
	return &Error{
		Code: CodeArgumentInvalid, Message: "action.configuration is for rollouts of configurations, which make their job themselves; expected twin or method",
		Next: "Change the configuration " + a.ID + " with a rollout.",
	}
}

// preview implements jobAction. Nobody asks for it.
func (*configurationAction) preview(_ *Hub, t *Twin) JobEffect {
	return JobEffect{Connected: t.Identity.Connected}
}

// beginConfiguration gives a target its revision, as its execution's attempt.
func (t *jobTx) beginConfiguration(j *jobInTx, id TwinID, e *executionRecord) error {
	a := j.work.spec.Spec.Action.Configuration
	set, err := t.hub.configurationSetAt(t.Tx)
	if err != nil {
		return err
	}
	t.attempt(e, "")
	m := set.member(a.ID)
	if m == nil || m.record.Spread.job() != j.id {
		return t.endAttempt(j, id, e, rollout.AttemptFailed, CodeConfigurationNotFound.String(), "another revision of the configuration has taken this one's place, or it was deleted", 0)
	}
	twins := []TwinID{id}
	if m.content.Kind() == configuration.OfModules {
		if twins, err = edgeModules(t.Tx, nil, id); err != nil {
			return err
		}
	}
	fault := ""
	for _, twin := range twins {
		done, err := t.hub.configureTx(t.Tx, set, twin, a.ID)
		if err != nil {
			return err
		}
		if done != nil && fault == "" {
			fault = done.faults[a.ID]
		}
	}
	if fault != "" {
		return t.endAttempt(j, id, e, rollout.AttemptFailed, CodeConfigurationContent.String(), fault, 0)
	}
	return t.effect(j, id, e)
}
