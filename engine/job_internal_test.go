package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

func TestJobRefusals(t *testing.T) {
	h := jobFleet(t, 10)
	if _, err := h.PutSavedQuery(t.Context(), everybody(), SavedQuery{Name: "counted", Text: "SELECT COUNT() AS n FROM devices"}, ""); err != nil {
		t.Fatal(err)
	}
	ids := func(n int) (list []TwinID) {
		for i := range n {
			list = append(list, TwinID{DeviceID: fmt.Sprintf("d%05d", i)})
		}
		return list
	}
	method := func(m JobMethodCall) JobAction { return JobAction{Method: &m} }
	patch := JobAction{Twin: &JobTwinPatch{Tags: []byte(`{"a":1}`)}}
	where := JobTargets{Where: "*"}
	window := func(w rollout.Window) rollout.Policy { return rollout.Policy{Windows: []rollout.Window{w}} }
	for name, c := range map[string]struct {
		s     JobSpec
		code  Code
		parts []string
	}{
		"id with a slash":         {JobSpec{ID: "a/b", Targets: where, Action: patch}, CodeArgumentInvalid, []string{`'/' at position 1`}},
		"id that is too long":     {JobSpec{ID: strings.Repeat("x", 129), Targets: where, Action: patch}, CodeArgumentInvalid, []string{"129 characters"}},
		"id that is a path":       {JobSpec{ID: "..", Targets: where, Action: patch}, CodeArgumentInvalid, nil},
		"long description":        {JobSpec{Description: strings.Repeat("x", 1025), Targets: where, Action: patch}, CodeArgumentInvalid, []string{"1025 bytes"}},
		"label with a space":      {JobSpec{Labels: map[string]string{"a b": ""}, Targets: where, Action: patch}, CodeArgumentInvalid, []string{"label"}},
		"no targets":              {JobSpec{Action: patch}, CodeArgumentNull, []string{"where, query or ids"}},
		"two kinds of targets":    {JobSpec{Targets: JobTargets{Where: "*", IDs: ids(1)}, Action: patch}, CodeArgumentInvalid, []string{"exactly one"}},
		"bad predicate":           {JobSpec{Targets: JobTargets{Where: "tags.site = 's'"}, Action: patch}, CodeArgumentInvalid, []string{"targets.where", "column 11", "muster query"}},
		"bad exclusion":           {JobSpec{Targets: JobTargets{Where: "*", ExcludeWhere: "tags."}, Action: patch}, CodeArgumentInvalid, []string{"targets.excludeWhere"}},
		"source of nothing":       {JobSpec{Targets: JobTargets{Where: "*", Source: "things"}, Action: patch}, CodeArgumentInvalid, []string{"devices or modules"}},
		"source of ids":           {JobSpec{Targets: JobTargets{IDs: ids(1), Source: "devices"}, Action: patch}, CodeArgumentInvalid, []string{"with where only"}},
		"a bad id":                {JobSpec{Targets: JobTargets{IDs: []TwinID{{DeviceID: "d00001"}, {DeviceID: "a b"}}}, Action: patch}, CodeArgumentInvalid, []string{"targets.ids[1]"}},
		"no id exists":            {JobSpec{Targets: JobTargets{IDs: []TwinID{{DeviceID: "ghost"}}}, Action: patch}, CodeArgumentInvalid, []string{"none of the 1 id exists"}},
		"nothing matches":         {twinJob("tags.site == 'nowhere'"), CodeArgumentInvalid, []string{"nothing matches"}},
		"all are excluded":        {JobSpec{Targets: JobTargets{Where: "tags.site == 's3'", Exclude: ids(10)}, Action: patch}, CodeArgumentInvalid, []string{"excluded"}},
		"dynamic ids":             {JobSpec{Targets: JobTargets{IDs: ids(1), Dynamic: true}, Action: patch}, CodeArgumentInvalid, []string{"targets.dynamic"}},
		"dynamic with the time":   {JobSpec{Targets: JobTargets{Where: "now() > '2020'", Dynamic: true}, Action: patch}, CodeArgumentInvalid, nil},
		"query that there is not": {JobSpec{Targets: JobTargets{Query: "ghost"}, Action: patch}, CodeQueryNotFound, nil},
		"query that counts":       {JobSpec{Targets: JobTargets{Query: "counted"}, Action: patch}, CodeArgumentInvalid, []string{"counted"}},
		"bad diversity":           {JobSpec{Targets: JobTargets{Where: "*", DiverseBy: []string{"tags.a == 1"}}, Action: patch}, CodeArgumentInvalid, []string{"diverseBy[0]"}},
		"no action":               {JobSpec{Targets: where}, CodeArgumentNull, []string{"twin or method"}},
		"two actions":             {JobSpec{Targets: where, Action: JobAction{Twin: patch.Twin, Method: &JobMethodCall{Name: "m"}}}, CodeArgumentInvalid, []string{"one of them"}},
		"empty patch":             {JobSpec{Targets: where, Action: JobAction{Twin: &JobTwinPatch{}}}, CodeArgumentNull, []string{"tags nor desired"}},
		"patch that is no object": {JobSpec{Targets: where, Action: JobAction{Twin: &JobTwinPatch{Tags: []byte(`[1]`)}}}, CodeArgumentInvalid, []string{"action.twin"}},
		"patch with a bad key":    {JobSpec{Targets: where, Action: JobAction{Twin: &JobTwinPatch{Desired: []byte(`{"a.b":1}`)}}}, CodeArgumentInvalid, []string{"action.twin", "desired"}},
		"patch of an offline":     {JobSpec{Targets: where, Action: JobAction{Twin: patch.Twin, Offline: JobOfflineFail}}, CodeArgumentInvalid, []string{"action.offline"}},
		"method without a name":   {JobSpec{Targets: where, Action: method(JobMethodCall{})}, CodeArgumentNull, []string{"action.method"}},
		"bad method name":         {JobSpec{Targets: where, Action: method(JobMethodCall{Name: "a/b"})}, CodeArgumentInvalid, []string{"action.method"}},
		"bad payload":             {JobSpec{Targets: where, Action: method(JobMethodCall{Name: "m", Payload: []byte(`{`)})}, CodeFormat, []string{"payload"}},
		"short response timeout":  {JobSpec{Targets: where, Action: method(JobMethodCall{Name: "m", ResponseTimeout: rollout.Duration(time.Second)})}, CodeArgumentInvalid, []string{"action.method"}},
		"connect timeout of wait": {JobSpec{Targets: where, Action: method(JobMethodCall{Name: "m", ConnectTimeout: rollout.Duration(time.Second)})}, CodeArgumentInvalid, []string{"connectTimeout"}},
		"bad offline":             {JobSpec{Targets: where, Action: JobAction{Method: &JobMethodCall{Name: "m"}, Offline: "later"}}, CodeArgumentInvalid, []string{"action.offline"}},
		"a rate too slow":         {JobSpec{Targets: where, Action: patch, Policy: rollout.Policy{Rate: &rollout.Rate{PerMinute: 0.1}, End: time.Now().Add(time.Hour)}}, CodeArgumentInvalid, []string{"policy.rate.perMinute", "10 targets", "a later end"}},
		"bad evidence":            {JobSpec{Targets: where, Action: JobAction{Twin: patch.Twin, Confirm: "a ="}}, CodeArgumentInvalid, []string{"action.confirm"}},
		"bad cron":                {JobSpec{Targets: where, Action: patch, Policy: window(rollout.Window{Cron: "x", Duration: rollout.Duration(time.Hour)})}, CodeArgumentInvalid, []string{"policy.windows[0].cron"}},
		"window that never opens": {JobSpec{Targets: where, Action: patch, Policy: window(rollout.Window{Cron: "0 0 31 2 *", Duration: rollout.Duration(time.Hour)})}, CodeArgumentInvalid, []string{"policy.windows"}},
		"zone tag of two paths":   {JobSpec{Targets: where, Action: patch, Policy: window(rollout.Window{Cron: "0 0 * * *", Duration: rollout.Duration(time.Hour), TimeZone: "UTC", ZoneTag: "tags.a + tags.b"})}, CodeArgumentInvalid, nil},
		"bad health":              {JobSpec{Targets: where, Action: patch, Policy: rollout.Policy{Waves: []rollout.Wave{{Size: rollout.Percent(100), Health: &rollout.Health{Where: "tags.=="}}}}}, CodeArgumentInvalid, []string{"policy.waves[0].health.where"}},
		"waves that end early":    {JobSpec{Targets: where, Action: patch, Policy: rollout.Policy{Waves: []rollout.Wave{{Size: rollout.Percent(50)}}}}, CodeArgumentInvalid, []string{"policy.waves"}},
		"start in ten years":      {JobSpec{Targets: where, Action: patch, Policy: rollout.Policy{Start: time.Now().Add(10 * 366 * 24 * time.Hour)}}, CodeArgumentInvalid, []string{"policy.start"}},
		"end that has passed":     {JobSpec{Targets: where, Action: patch, Policy: rollout.Policy{End: time.Now().Add(-time.Hour)}}, CodeArgumentInvalid, []string{"policy.end"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.CreateJob(t.Context(), everybody(), c.s, "")
			refusal(t, err, c.code, c.parts...)
		})
	}
	many := twinJob("")
	many.Targets.IDs = ids(h.limits.JobNamedTargets + 1)
	_, err := h.CreateJob(t.Context(), everybody(), many, "")
	refusal(t, err, CodeArgumentInvalid, "10001 entries")
	h.limits.JobBytes = 1000
	many.Targets.IDs = ids(200)
	_, err = h.CreateJob(t.Context(), everybody(), many, "")
	refusal(t, err, CodeTooLarge, "expected at most 1000")
	if list, _, err := h.Jobs(t.Context(), everybody(), JobFilter{}, "", 0); err != nil || len(list) > 0 {
		t.Errorf("refused jobs were made: %d, %v", len(list), err)
	}
	weak := everybody()
	weak.Permissions = auth.RegistryRead
	_, err = h.CreateJob(t.Context(), weak, twinJob("*"), "")
	refusal(t, err, CodeForbidden)
}

func TestJobIsMadeOnce(t *testing.T) {
	h := jobFleet(t, 10)
	s := twinJob("*")
	s.ID, s.Description, s.Labels = "j1", "new firmware", map[string]string{"team": "a"}
	j := createJob(t, h, s)
	if j.ID != "j1" || j.Kind != JobTwin || j.Status() != rollout.JobQueued || j.Run != 1 || j.Principal != "local:uid=0" || j.Created.IsZero() || j.ETag == "" {
		t.Errorf("%+v", j)
	}
	_, err := h.CreateJob(t.Context(), everybody(), s, "")
	refusal(t, err, CodeJobAlreadyExists, "j1")
	got := getJob(t, h, "j1")
	if got.ETag != j.ETag || got.Description != s.Description || got.Labels["team"] != "a" || got.Targets.Where != "*" || string(got.Action.Twin.Desired) != `{"fw":{"version":"2.0"}}` {
		t.Errorf("%+v", got)
	}
	s.ID = ""
	a, b := createJob(t, h, s), createJob(t, h, s)
	if a.ID == b.ID || a.ID == "" || checkJobID("id", a.ID) != nil {
		t.Errorf("ids %q and %q", a.ID, b.ID)
	}
	h.limits.JobsActive = 3
	_, err = h.CreateJob(t.Context(), everybody(), s, "")
	refusal(t, err, CodeTooManyJobs, "3 jobs")
	if _, err := h.CancelJob(t.Context(), everybody(), "j1", "", ""); err != nil {
		t.Fatal(err)
	}
	createJob(t, h, s)
	_, err = h.Job(t.Context(), everybody(), "ghost")
	refusal(t, err, CodeJobNotFound, "ghost")
}

func TestJobOfASavedQuery(t *testing.T) {
	h := jobFleet(t, 30)
	for _, q := range []SavedQuery{{Name: "text", Text: "SELECT deviceId FROM devices WHERE tags.site = 's3'"}, {Name: "bare", Text: "tags.site == 's4'"}} {
		if _, err := h.PutSavedQuery(t.Context(), everybody(), q, ""); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"text": "d00003", "bare": "d00004"} {
		s := twinJob("")
		s.ID, s.Targets.Query = name, name
		if j := createJob(t, h, s); j.QueryText == "" {
			t.Error("the text of the query is not told")
		}
		// What the query becomes later does not count.
		if _, err := h.PutSavedQuery(t.Context(), everybody(), SavedQuery{Name: name, Text: "tags.site == 's9'"}, ""); err != nil {
			t.Fatal(err)
		}
		layOutAll(t, h, name)
		if got := laidOut(t, h, name)["0 "]; len(got) != 3 || got[0] != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestJobWarns: whoever makes a job without a preview hears what the preview would
// have told of its policy.
func TestJobWarns(t *testing.T) {
	h := jobFleet(t, 10)
	slow := rollout.Policy{Parallel: 1, AttemptTimeout: rollout.Duration(10 * time.Minute), End: time.Now().Add(time.Hour)}
	method := JobAction{Method: &JobMethodCall{Name: "reboot"}}
	patch := JobAction{Twin: &JobTwinPatch{Tags: []byte(`{"a":1}`)}}
	confirmed := patch
	confirmed.Confirm = "reported.a == 1"
	for _, c := range []struct {
		name   string
		action JobAction
		policy rollout.Policy
		want   string // empty: no warning
	}{
		{"methods may be slow", method, slow, "policy.end: may come first: if each attempt takes the 10m that it may (attemptTimeout), the last of 10 targets begins after 1h30m with 1 at a time"},
		{"evidence may be slow", confirmed, slow, "may come first"},
		{"twins are written at once", patch, slow, ""},
		{"a threshold of many", method, rollout.Policy{Pause: []rollout.Threshold{{Share: rollout.Count(20)}}}, "policy.pause[0].share: is 20, and the largest wave has 10 targets"},
		{"nothing is wrong", method, rollout.Policy{}, ""},
	} {
		s := JobSpec{Targets: JobTargets{Where: "*"}, Action: c.action, Policy: c.policy}
		j, err := h.CreateJob(t.Context(), everybody(), s, "")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := ""
		if len(j.Warnings) > 0 {
			got = rollout.Faults(j.Warnings).Error()
		}
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: warnings %q, want %q", c.name, got, c.want)
		}
		if again := getJob(t, h, j.ID); len(again.Warnings) > 0 {
			t.Errorf("%s: they are told again: %v", c.name, again.Warnings)
		}
		p := previewOf(t, h, s, 0)
		if c.want != "" && !strings.Contains(rollout.Faults(p.Warnings).Error(), c.want) {
			t.Errorf("%s: the preview warns of %v, want %q", c.name, p.Warnings, c.want)
		}
		if j, err = h.CreateJob(t.Context(), everybody(), s, p.Token); err != nil || len(j.Warnings) > 0 {
			t.Errorf("%s: with a token: %v, %v", c.name, err, j.Warnings)
		}
	}
}

func TestControlJob(t *testing.T) {
	h := jobFleet(t, 100)
	ctx, c := t.Context(), everybody()
	s := twinJob("*")
	s.ID = "j"
	s.Policy.Waves = waves(t, "1", "10%", "100%")
	s.Policy.Waves[1].Approval, s.Policy.Waves[2].Approval = true, true
	made := createJob(t, h, s)
	_, err := h.PauseJob(ctx, c, "j", "", "wrong")
	refusal(t, err, CodePreconditionFailed, made.ETag)
	j, err := h.PauseJob(ctx, c, "j", "a look first", made.ETag)
	if err != nil || j.Status() != rollout.JobPaused || j.State.Reason != "a look first" || j.ETag == made.ETag {
		t.Errorf("%v, %s, %q", err, j.Status(), j.State.Reason)
	}
	_, err = h.PauseJob(ctx, c, "j", "", "")
	refusal(t, err, CodeJobState, "paused", "muster job show")
	_, err = h.PauseJob(ctx, c, "j", strings.Repeat("x", 513), "")
	refusal(t, err, CodeArgumentInvalid, "513 bytes")
	layOutAll(t, h, "j") // a paused job has its targets found
	if j = getJob(t, h, "j"); j.Status() != rollout.JobPaused || !j.State.LaidOut {
		t.Errorf("%s, laid out %v", j.Status(), j.State.LaidOut)
	}
	if j, err = h.ResumeJob(ctx, c, "j", "*"); err != nil || j.Status() != rollout.JobScheduled {
		t.Errorf("%v, %s", err, j.Status())
	}
	_, err = h.ResumeJob(ctx, c, "j", "")
	refusal(t, err, CodeJobState)
	_, err = h.ApproveJob(ctx, c, "j", 0, "")
	refusal(t, err, CodeJobState, "wave 1 needs no approval")
	for _, want := range []int{1, 2} {
		if j, err = h.ApproveJob(ctx, c, "j", -1, ""); err != nil || len(j.State.Approvals) != want || j.State.Approvals[want-1].Wave != want || j.State.Approvals[want-1].By != "local:uid=0" {
			t.Errorf("%v, %+v", err, j.State.Approvals)
		}
	}
	_, err = h.ApproveJob(ctx, c, "j", -1, "")
	refusal(t, err, CodeJobState, "no wave that waits")
	err = h.DeleteJob(ctx, c, "j", "")
	refusal(t, err, CodeJobState, "scheduled", "Cancel it first")
	if j, err = h.CancelJob(ctx, c, "j", "enough", ""); err != nil || j.Status() != rollout.JobCanceling || j.State.Reason != "enough" {
		t.Errorf("%v, %s", err, j.Status())
	}
	spec, err := h.CloneJob(ctx, c, "j", json.RawMessage(`{"policy":{"waves":null},"labels":{"again":"yes"}}`))
	if err != nil || spec.ID != "" || spec.Targets.Where != "*" || len(spec.Policy.Waves) > 1 || spec.Labels["again"] != "yes" {
		t.Errorf("%v, %+v", err, spec)
	}
	if spec, err = h.CloneJob(ctx, c, "j", json.RawMessage(`{"policy":{"end":"2999-01-01T00:00:00Z","atEnd":"cancel"}}`)); err != nil || spec.Policy.AtEnd != rollout.EndCancels {
		t.Errorf("%v, %+v", err, spec.Policy)
	}
	for name, f := range map[string]func(id string) error{
		"pause":   func(id string) error { _, err := h.PauseJob(ctx, c, id, "", ""); return err },
		"resume":  func(id string) error { _, err := h.ResumeJob(ctx, c, id, ""); return err },
		"cancel":  func(id string) error { _, err := h.CancelJob(ctx, c, id, "", ""); return err },
		"approve": func(id string) error { _, err := h.ApproveJob(ctx, c, id, -1, ""); return err },
		"retry":   func(id string) error { _, _, err := h.RetryFailedJob(ctx, c, id, nil, ""); return err },
		"delete":  func(id string) error { return h.DeleteJob(ctx, c, id, "") },
		"clone":   func(id string) error { _, err := h.CloneJob(ctx, c, id, nil); return err },
	} {
		t.Run(name, func(t *testing.T) { refusal(t, f("ghost"), CodeJobNotFound, "ghost") })
	}
	audited := map[string]int{}
	entries, _, err := h.Audit(ctx, c, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		audited[e.Operation+" "+e.Outcome]++
	}
	if audited["job.create done"] != 1 || audited["job.control done"] != 3 || audited["job.approve done"] != 2 {
		t.Errorf("audited are %v", audited)
	}
}

// TestOwnWarnings: what a pattern's author wrote for fleets of many sizes is no
// mistake of who runs it on a few devices.
func TestOwnWarnings(t *testing.T) {
	list := []rollout.Fault{{Path: "policy.waves[1].size"}, {Path: "policy.pause[0].least"}, {Path: "policy.end"}, {Path: "policy.retry.attempts"}, {Path: "policy.start"}}
	for want, given := range map[string]*rollout.Policy{
		"policy.end policy.start":                                            {},
		"policy.pause[0].least policy.end policy.start":                      {Pause: []rollout.Threshold{{}}},
		"policy.waves[1].size policy.end policy.retry.attempts policy.start": {Waves: []rollout.Wave{{}}, Retry: &rollout.Retry{}},
	} {
		var paths []string
		for _, f := range ownWarnings(list, given) {
			paths = append(paths, f.Path)
		}
		if got := strings.Join(paths, " "); got != want {
			t.Errorf("%+v: %s, want %s", given, got, want)
		}
	}
}

// TestCloneAfterTheEnd: an end that has passed is left out, and what it says of it.
func TestCloneAfterTheEnd(t *testing.T) {
	h := jobFleet(t, 10)
	s := twinJob("*")
	s.ID, s.Policy.End = "ended", time.Now().Add(time.Hour)
	createJob(t, h, s)
	err := h.db.Update(t.Context(), func(tx *storage.Tx) error {
		r, err := loadJobSpec(tx, "ended")
		r.Spec.Policy.End = time.Now().Add(-time.Minute)
		return errors.Join(err, jobSpecTable.Put(tx, jobKey("ended"), r))
	})
	if err != nil {
		t.Fatal(err)
	}
	clone, err := h.CloneJob(t.Context(), everybody(), "ended", nil)
	if err != nil || !clone.Policy.End.IsZero() {
		t.Fatalf("%v, %+v", err, clone.Policy)
	}
	createJob(t, h, clone)
}

func TestOwnerOfAJob(t *testing.T) {
	h := jobFleet(t, 10)
	if _, err := h.PutPolicy(t.Context(), everybody(), auth.SharedAccessPolicy{Name: "rollouts", Permissions: auth.ServiceConnect}); err != nil {
		t.Fatal(err)
	}
	c := Caller{Principal: auth.Principal{Kind: auth.Policy, Name: "rollouts", Permissions: auth.ServiceConnect}}
	s := twinJob("*")
	s.ID = "j"
	if _, err := h.CreateJob(t.Context(), c, s, ""); err != nil {
		t.Fatal(err)
	}
	record := func() (r jobRecord) {
		t.Helper()
		err := h.db.View(t.Context(), func(v storage.Reader) (err error) { r, err = loadJob(v, "j"); return err })
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := record()
	as, err := h.jobCaller("j", &r)
	if err != nil || as.Principal.String() != "policy:rollouts" || as.Permissions != auth.ServiceConnect || as.Cause != "job:j" {
		t.Errorf("%+v, %v", as, err)
	}
	if err := h.DeletePolicy(t.Context(), everybody(), "rollouts"); err != nil {
		t.Fatal(err)
	}
	_, err = h.jobCaller("j", &r)
	refusal(t, err, CodeForbidden, `"rollouts"`, "was deleted")
	if _, err := h.PauseJob(t.Context(), everybody(), "j", "", ""); err != nil {
		t.Fatal(err)
	}
	// Whoever resumes it answers for it.
	if j, err := h.ResumeJob(t.Context(), everybody(), "j", ""); err != nil || j.Principal != "local:uid=0" {
		t.Errorf("%v, %s", err, j.Principal)
	}
	r = record()
	if _, err := h.jobCaller("j", &r); err != nil {
		t.Error(err)
	}
}

func TestListJobs(t *testing.T) {
	h := jobFleet(t, 10)
	var ids []string
	for i := range 25 {
		s := twinJob("*")
		if i%5 == 0 {
			s.Action = JobAction{Method: &JobMethodCall{Name: "m"}}
		}
		s.ID, s.Labels = fmt.Sprintf("j%02d", (i*7)%25), map[string]string{"n": fmt.Sprint(i % 2)}
		ids = append(ids, createJob(t, h, s).ID)
		if i%4 == 0 {
			if _, err := h.CancelJob(t.Context(), everybody(), s.ID, "", ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	slices.Reverse(ids)
	list := func(f JobFilter, limit int) (got []string) {
		t.Helper()
		for cursor := ""; ; {
			page, next, err := h.Jobs(t.Context(), everybody(), f, cursor, limit)
			if err != nil {
				t.Fatal(err)
			}
			if limit > 0 && len(page) > limit {
				t.Fatalf("a page of %d", len(page))
			}
			for _, j := range page {
				got = append(got, j.ID)
			}
			if next == "" {
				return got
			}
			cursor = next
		}
	}
	where := func(keep func(i int) bool) (want []string) {
		for i := 24; i >= 0; i-- {
			if keep(i) {
				want = append(want, fmt.Sprintf("j%02d", (i*7)%25))
			}
		}
		return want
	}
	for _, limit := range []int{0, 1, 3, 25} {
		if got := list(JobFilter{}, limit); !slices.Equal(got, ids) {
			t.Errorf("%v, want %v", got, ids)
		}
		if got := list(JobFilter{Status: []rollout.JobStatus{rollout.JobCanceled}}, limit); !slices.Equal(got, where(func(i int) bool { return i%4 == 0 })) {
			t.Errorf("canceled: %v", got)
		}
		if got := list(JobFilter{Status: []rollout.JobStatus{rollout.JobCanceled, rollout.JobQueued}, Kind: JobMethod}, limit); !slices.Equal(got, where(func(i int) bool { return i%5 == 0 })) {
			t.Errorf("methods: %v", got)
		}
		if got := list(JobFilter{Label: "n=1"}, limit); !slices.Equal(got, where(func(i int) bool { return i%2 == 1 })) {
			t.Errorf("n=1: %v", got)
		}
	}
	if got := list(JobFilter{Label: "ghost"}, 0); len(got) > 0 {
		t.Errorf("a label that nobody has: %v", got)
	}
	for _, f := range []JobFilter{{Status: []rollout.JobStatus{"gone"}}, {Kind: "gone"}} {
		_, _, err := h.Jobs(t.Context(), everybody(), f, "", 0)
		refusal(t, err, CodeArgumentInvalid, "gone")
	}
	_, _, err := h.Jobs(t.Context(), everybody(), JobFilter{}, "xyz", 0)
	refusal(t, err, CodeArgumentInvalid, "cursor")
}

// runSome takes n targets of a laid out job and gives them an outcome, as the
// loop that runs jobs does.
func runSome(t testing.TB, h *Hub, job string, n int, outcome func(id TwinID) executionRecord) {
	t.Helper()
	err := h.db.Update(t.Context(), func(tx *storage.Tx) error {
		r, err := loadJob(tx, job)
		if err != nil {
			return err
		}
		if r.State.Status == rollout.JobScheduled {
			r.State.Status, r.State.Opened = rollout.JobRunning, true
		}
		ids, err := takeTargetsTx(tx, job, r.Run, r.State.Wave, "", n)
		if err != nil || len(ids) != n {
			return errors.Join(err, fmt.Errorf("%d targets came, not %d", len(ids), n))
		}
		for _, id := range ids {
			e := outcome(id)
			e.Created, e.Started, e.Updated = tx.Now(), tx.Now(), tx.Now()
			if e.Status.Phase(true).Final() {
				e.Ended = tx.Now()
			}
			err := r.State.Move(e.Wave, rollout.PhasePending, rollout.PhaseActive, 1)
			if to := e.Status.Phase(e.final()); err == nil && to != rollout.PhaseActive {
				err = r.State.Move(e.Wave, rollout.PhaseActive, to, 1)
			}
			if err != nil {
				return err
			}
			if err := executionTable.Put(tx, executionKey(job, r.Run, id), e); err != nil {
				return err
			}
		}
		return jobTable.Put(tx, jobKey(job), r)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func ended(s rollout.ExecutionStatus) func(TwinID) executionRecord {
	return func(TwinID) executionRecord { return executionRecord{Status: s, Attempts: 2} }
}

func TestListExecutions(t *testing.T) {
	h := jobFleet(t, 1300)
	s := twinJob("*")
	s.ID = "j"
	createJob(t, h, s)
	layOutAll(t, h, "j")
	runSome(t, h, "j", 300, ended(rollout.ExecutionSucceeded))
	runSome(t, h, "j", 200, ended(rollout.ExecutionFailed))
	runSome(t, h, "j", 50, ended(rollout.ExecutionRunning))
	list := func(f ExecutionFilter, limit int) (got []string) {
		t.Helper()
		for cursor := ""; ; {
			page, next, err := h.Executions(t.Context(), everybody(), "j", f, cursor, limit)
			if err != nil {
				t.Fatal(err)
			}
			if limit > 0 && len(page) > limit {
				t.Fatalf("a page of %d", len(page))
			}
			for _, e := range page {
				got = append(got, e.Target.DeviceID+" "+string(e.Status))
			}
			if next == "" {
				return got
			}
			cursor = next
		}
	}
	want := func(from, to int, s rollout.ExecutionStatus) (list []string) {
		for i := from; i < to; i++ {
			list = append(list, fmt.Sprintf("d%05d %s", i, s))
		}
		return list
	}
	ok, bad, run, rest := want(0, 300, "succeeded"), want(300, 500, "failed"), want(500, 550, "running"), want(550, 1300, "pending")
	zero := 0
	for _, limit := range []int{0, 7, 500, 1000} {
		for name, c := range map[string]struct {
			f    ExecutionFilter
			want []string
		}{
			"all":       {ExecutionFilter{}, slices.Concat(ok, bad, run, rest)},
			"succeeded": {ExecutionFilter{Status: rollout.ExecutionSucceeded}, ok},
			"failed":    {ExecutionFilter{Status: rollout.ExecutionFailed}, bad},
			"running":   {ExecutionFilter{Status: rollout.ExecutionRunning, Wave: &zero}, run},
			"pending":   {ExecutionFilter{Status: rollout.ExecutionPending}, rest},
			"canceled":  {ExecutionFilter{Status: rollout.ExecutionCanceled}, nil},
			"wave":      {ExecutionFilter{Status: rollout.ExecutionFailed, Wave: &zero}, bad},
			"run":       {ExecutionFilter{Run: 1, Status: rollout.ExecutionFailed}, bad},
		} {
			if got := list(c.f, limit); !slices.Equal(got, c.want) {
				t.Errorf("%s by %d: %d, want %d", name, limit, len(got), len(c.want))
			}
		}
	}
	for id, status := range map[string]rollout.ExecutionStatus{"d00000": "succeeded", "d00300": "failed", "d00549": "running", "d00550": "pending", "d01299": "pending", "d00999": "pending"} {
		e, err := h.Execution(t.Context(), everybody(), "j", 0, TwinID{DeviceID: id})
		if err != nil || e.Status != status {
			t.Errorf("%s is %s, %v", id, e.Status, err)
		}
	}
	for _, id := range []TwinID{{DeviceID: "ghost"}, {DeviceID: "d00001", ModuleID: "m"}, {DeviceID: "a"}} {
		_, err := h.Execution(t.Context(), everybody(), "j", 0, id)
		refusal(t, err, CodeJobNotFound, "none of the targets")
	}
	_, _, err := h.Executions(t.Context(), everybody(), "j", ExecutionFilter{Status: "gone"}, "", 0)
	refusal(t, err, CodeArgumentInvalid, "gone")
	_, _, err = h.Executions(t.Context(), everybody(), "ghost", ExecutionFilter{}, "", 0)
	refusal(t, err, CodeJobNotFound)
	staged := twinJob("*")
	staged.ID, staged.Policy.Waves = "staged", waves(t, "1", "10%", "100%")
	createJob(t, h, staged)
	for wave, want := range map[int]map[string]string{
		1:  {"j": `"j" has no wave 2; expected 1, its only one`, "staged": ""},
		98: {"j": "no wave 99", "staged": `"staged" has no wave 99; expected 1 to 3`},
		-1: {"j": "no wave 0", "staged": "no wave 0"},
	} {
		for job, want := range want {
			switch _, _, err := h.Executions(t.Context(), everybody(), job, ExecutionFilter{Wave: &wave}, "", 0); {
			case want != "":
				refusal(t, err, CodeArgumentInvalid, want)
			case err != nil:
				t.Error(err)
			}
		}
	}
	_, _, err = h.Executions(t.Context(), everybody(), "j", ExecutionFilter{Run: 99}, "", 0)
	refusal(t, err, CodeArgumentInvalid, `"j" has no run 99; its newest is 1`)
	for _, cursor := range []string{"x", "00", executionCursor{skip: 501}.String()} {
		_, _, err = h.Executions(t.Context(), everybody(), "j", ExecutionFilter{}, cursor, 0)
		refusal(t, err, CodeArgumentInvalid, "cursor")
	}

	s.ID = "other"
	s.Targets = JobTargets{IDs: []TwinID{{DeviceID: "d00001"}}}
	createJob(t, h, s)
	layOutAll(t, h, "other")
	of := func(id string) (got []string) {
		t.Helper()
		for cursor := ""; ; {
			page, next, err := h.DeviceJobs(t.Context(), everybody(), TwinID{DeviceID: id}, cursor, 1)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page {
				got = append(got, e.Job+" "+string(e.Status))
			}
			if cursor = next; next == "" {
				return got
			}
		}
	}
	if got := of("d00001"); !slices.Equal(got, []string{"j succeeded", "other pending"}) {
		t.Errorf("jobs of d00001: %v", got)
	}
	if got := of("d01000"); !slices.Equal(got, []string{"j pending"}) {
		t.Errorf("jobs of d01000: %v", got)
	}
	_, _, err = h.DeviceJobs(t.Context(), everybody(), TwinID{DeviceID: "ghost"}, "", 0)
	refusal(t, err, CodeDeviceNotFound)
}

func TestRetryFailedJob(t *testing.T) {
	h := jobFleet(t, 700)
	s := twinJob("*")
	s.ID = "j"
	createJob(t, h, s)
	layOutAll(t, h, "j")
	runSome(t, h, "j", 450, ended(rollout.ExecutionFailed))
	runSome(t, h, "j", 50, ended(rollout.ExecutionTimedOut))
	runSome(t, h, "j", 100, ended(rollout.ExecutionSucceeded))
	_, _, err := h.RetryFailedJob(t.Context(), everybody(), "j", []rollout.ExecutionStatus{rollout.ExecutionSucceeded}, "")
	refusal(t, err, CodeArgumentInvalid, "succeeded", "failed, timedOut, rejected, uncertain, canceled")
	_, _, err = h.RetryFailedJob(t.Context(), everybody(), "j", []rollout.ExecutionStatus{rollout.ExecutionRejected}, "")
	refusal(t, err, CodeJobState, "no execution to retry")
	j, n, err := h.RetryFailedJob(t.Context(), everybody(), "j", []rollout.ExecutionStatus{rollout.ExecutionTimedOut}, "")
	if err != nil || n != 50 || j.State.Total().Retrying != 50 || j.State.Total().Failed != 450 {
		t.Errorf("%d, %v, %+v", n, err, j.State.Total())
	}
	_, _, err = h.RetryFailedJob(t.Context(), everybody(), "j", nil, "wrong")
	refusal(t, err, CodePreconditionFailed)
	j, n, err = h.RetryFailedJob(t.Context(), everybody(), "j", nil, j.ETag)
	if total := j.State.Total(); err != nil || n != 450 || total.Retrying != 500 || total.Failed != 0 || total.Succeeded != 100 || total.Pending != 100 {
		t.Errorf("%d, %v, %+v", n, err, total)
	}
	e, err := h.Execution(t.Context(), everybody(), "j", 0, TwinID{DeviceID: "d00000"})
	if err != nil || e.Status != rollout.ExecutionRetrying || !e.Ended.IsZero() || e.Due.IsZero() || e.Attempts != 2 {
		t.Errorf("%+v, %v", e, err)
	}
	_, _, err = h.RetryFailedJob(t.Context(), everybody(), "j", nil, "")
	refusal(t, err, CodeJobState)
}

// TestRetryGoesOn: a retry that is cut off goes on when it is called again.
func TestRetryGoesOn(t *testing.T) {
	h := jobFleet(t, 700)
	s := twinJob("*")
	s.ID = "j"
	createJob(t, h, s)
	layOutAll(t, h, "j")
	runSome(t, h, "j", 600, ended(rollout.ExecutionFailed))
	steps := 0
	h.reached = func(place string) {
		if place == "job.retry:after" {
			if steps++; steps == 2 {
				panic(stopped{place})
			}
		}
	}
	func() {
		defer func() {
			if _, is := recover().(stopped); !is {
				t.Error("it was not stopped")
			}
		}()
		_, _, _ = h.RetryFailedJob(t.Context(), everybody(), "j", nil, "")
	}()
	h.reached = nil
	if total := getJob(t, h, "j").State; total.Waves[0].Retrying != 400 || total.Waves[0].Failed != 200 {
		t.Errorf("%+v", total.Waves)
	}
	j, n, err := h.RetryFailedJob(t.Context(), everybody(), "j", nil, "")
	if err != nil || n != 200 || j.State.Waves[0].Retrying != 600 {
		t.Errorf("%d, %v, %+v", n, err, j.State.Waves)
	}
}

func TestDeleteAndExpireJobs(t *testing.T) {
	h := jobFleet(t, 1500)
	ctx, c := t.Context(), everybody()
	make := func(id string) {
		s := twinJob("*")
		s.ID = id
		createJob(t, h, s)
		layOutAll(t, h, id)
		runSome(t, h, id, 600, ended(rollout.ExecutionSucceeded))
	}
	end := func(id string) {
		t.Helper()
		err := h.db.Update(ctx, func(tx *storage.Tx) error {
			r, err := loadJob(tx, id)
			if err != nil {
				return err
			}
			r.State.Status = rollout.JobCanceled
			return h.storeJobTx(tx, c, id, &r)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	count := func(id string) (n int) {
		t.Helper()
		err := h.db.View(ctx, func(r storage.Reader) error {
			g := storage.Range{Prefix: storage.Tuple(id)}
			for _, f := range []func() (int, error){
				func() (int, error) { k, err := firstKeys(executionTable, r, g, 10_000); return len(k), err },
				func() (int, error) { k, err := firstKeys(targetTable, r, g, 10_000); return len(k), err },
				func() (int, error) { k, err := firstKeys(targetQueueTable, r, g, 10_000); return len(k), err },
				func() (int, error) { k, err := firstKeys(planTable, r, g, 10_000); return len(k), err },
				func() (int, error) { k, err := firstKeys(jobSpecTable, r, g, 10_000); return len(k), err },
			} {
				more, err := f()
				if err != nil {
					return err
				}
				n += more
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	make("old")
	make("gone")
	make("kept")
	end("old")
	end("gone")
	kept := count("kept")
	if err := h.DeleteJob(ctx, c, "gone", ""); err != nil {
		t.Fatal(err)
	}
	_, err := h.Job(ctx, c, "gone")
	refusal(t, err, CodeJobNotFound)
	s := twinJob("*")
	s.ID = "gone"
	_, err = h.CreateJob(ctx, c, s, "")
	refusal(t, err, CodeJobAlreadyExists, "still being removed")
	if list, _, err := h.DeviceJobs(ctx, c, TwinID{DeviceID: "d00000"}, "", 0); err != nil || len(list) != 2 {
		t.Errorf("jobs of a device: %d, %v", len(list), err)
	}
	if err := h.sweepJobs(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	if n := count("gone"); n > 0 {
		t.Errorf("%d records of a job that is gone are left", n)
	}
	createJob(t, h, s)
	if err := h.sweepJobs(ctx, time.Now().Add(h.limits.JobAge-time.Minute)); err != nil {
		t.Fatal(err)
	}
	if getJob(t, h, "old").ID != "old" {
		t.Error("a job went too early")
	}
	for range 2 { // the job, then what belonged to it
		if err := h.sweepJobs(ctx, time.Now().Add(h.limits.JobAge+time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = h.Job(ctx, c, "old")
	refusal(t, err, CodeJobNotFound)
	if n := count("old"); n > 0 {
		t.Errorf("%d records of an old job are left", n)
	}
	if n := count("kept"); n != kept {
		t.Errorf("a job that has not ended has %d records, and had %d", n, kept)
	}
}

// TestRemovalGoesOn: what is left of a deleted job goes after a restart.
func TestRemovalGoesOn(t *testing.T) {
	dir := t.TempDir()
	open := func() *Hub {
		h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: dir, Memory: 64 << 20}})
		if err != nil {
			t.Fatal(err)
		}
		<-h.queries.ready
		return h
	}
	h := open()
	makeDevices(t, h, 900, fleetTags)
	s := twinJob("*")
	s.ID = "j"
	createJob(t, h, s)
	layOutAll(t, h, "j")
	runSome(t, h, "j", 700, ended(rollout.ExecutionSucceeded))
	err := h.db.Update(t.Context(), func(tx *storage.Tx) error {
		r, err := loadJob(tx, "j")
		if err != nil {
			return err
		}
		r.State.Status = rollout.JobCanceled
		return h.storeJobTx(tx, everybody(), "j", &r)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.DeleteJob(t.Context(), everybody(), "j", ""); err != nil {
		t.Fatal(err)
	}
	left := func() (n int) {
		t.Helper()
		err := h.db.View(t.Context(), func(r storage.Reader) error {
			for _, err := range executionTable.Scan(r, storage.Range{}) {
				if err != nil {
					return err
				}
				n++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	h.reached = func(place string) {
		if place == "job.remove:after" {
			panic(stopped{place})
		}
	}
	func() {
		defer func() {
			if _, is := recover().(stopped); !is {
				t.Error("it was not stopped")
			}
		}()
		_ = h.sweepJobs(t.Context(), time.Now())
	}()
	if n := left(); n != 700-goneBatch {
		t.Errorf("%d executions are left", n)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h = open()
	if err := h.sweepJobs(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if n := left(); n != 0 || len(laidOut(t, h, "j")) > 0 {
		t.Errorf("%d executions are left", n)
	}
	createJob(t, h, s) // its id is free again
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRuns: of a job that repeats the last runs keep their executions.
func TestRuns(t *testing.T) {
	h := jobFleet(t, 30)
	s := twinJob("*")
	s.ID = "j"
	createJob(t, h, s)
	for range jobRunsKept + 2 {
		layOutAll(t, h, "j")
		runSome(t, h, "j", 30, ended(rollout.ExecutionSucceeded))
		err := h.db.Update(t.Context(), func(tx *storage.Tx) error {
			r, err := loadJob(tx, "j")
			if err != nil {
				return err
			}
			return errors.Join(beginRunTx(tx, "j", &r), jobTable.Put(tx, jobKey("j"), r))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	layOutAll(t, h, "j")
	if err := h.sweepJobs(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	for run, want := range map[uint64]int{1: 0, 3: 0, 4: 30, jobRunsKept + 2: 30, 0: 30} {
		list, _, err := h.Executions(t.Context(), everybody(), "j", ExecutionFilter{Run: run}, "", 0)
		if err != nil || len(list) != want {
			t.Errorf("run %d has %d executions, want %d, %v", run, len(list), want, err)
		}
	}
	if j := getJob(t, h, "j"); j.Run != jobRunsKept+3 || j.State.Total().Pending != 30 {
		t.Errorf("run %d, %+v", j.Run, j.State.Total())
	}
}

func TestTargetsOfModules(t *testing.T) {
	h := jobFleet(t, 20)
	for i := range 5 {
		if _, err := h.CreateIdentity(t.Context(), everybody(), Identity{DeviceID: fmt.Sprintf("d%05d", i), ModuleID: "camera"}); err != nil {
			t.Fatal(err)
		}
	}
	s := twinJob("moduleId == 'camera'")
	s.ID, s.Targets.Source, s.Targets.Exclude = "modules", "modules", []TwinID{{DeviceID: "d00002", ModuleID: "camera"}, {DeviceID: "d00003"}}
	createJob(t, h, s)
	layOutAll(t, h, "modules")
	if got := laidOut(t, h, "modules")["0 "]; !slices.Equal(got, []string{"d00000/camera", "d00001/camera", "d00003/camera", "d00004/camera"}) {
		t.Errorf("%v", got)
	}
	spec := jobSpecRecord{Spec: s}
	for id, want := range map[TwinID]bool{{"d00001", "camera"}: true, {"d00002", "camera"}: false, {"d00001", ""}: false, {"d00009", "camera"}: false} {
		if got, err := h.targetMatches(&spec, id, time.Now()); err != nil || got != want {
			t.Errorf("%s matches: %v, %v", id, got, err)
		}
	}
	if p, err := parsePath("x", "tags.zone"); err != nil || !slices.Equal(p, query.Path{"tags", "zone"}) {
		t.Errorf("%v, %v", p, err)
	}
	for id, want := range map[string]string{"d00000": "Europe/Paris", "d00001": "Asia/Tokyo", "d00002": "", "d00003": "", "ghost": ""} {
		if got := h.zoneOf("tags.zone", TwinID{DeviceID: id}); got != want {
			t.Errorf("the zone of %s is %q, want %q", id, got, want)
		}
	}
}
