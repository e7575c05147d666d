package engine

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

func previewOf(t testing.TB, h *Hub, s JobSpec, sample int) JobPreview {
	t.Helper()
	p, err := h.PreviewJob(t.Context(), everybody(), s, sample)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPreviewJob(t *testing.T) {
	h := jobFleet(t, 1000)
	s := twinJob("tags.site == 's3'")
	s.Targets.Exclude = []TwinID{{DeviceID: "d00003"}, {DeviceID: "d00004"}}
	s.Targets.ExcludeWhere = "tags.ring > 90"
	p := previewOf(t, h, s, 20)
	if p.Count != 89 || len(p.Sample) != 20 || p.Kind != JobTwin {
		t.Errorf("%d targets, %d shown", p.Count, len(p.Sample))
	}
	if len(p.Excluded) != 2 || p.Excluded[0].Reason != "exclude" || p.Excluded[0].Count != 1 || p.Excluded[0].Sample[0].DeviceID != "d00003" ||
		p.Excluded[1].Reason != "excludeWhere" || p.Excluded[1].Count != 10 || len(p.Excluded[1].Sample) != 10 {
		t.Errorf("excluded are %+v", p.Excluded)
	}
	for _, target := range p.Sample {
		c := target.Effect.Changes
		if len(c) != 1 || c[0].Path != "desired.fw" || c[0].Before != nil || string(c[0].After) != `{"version":"2.0"}` || target.Effect.Connected || target.Effect.Fault != "" {
			t.Errorf("%s: %+v", target.ID, target.Effect)
		}
	}
	if len(p.Waves) != 1 || p.Waves[0].Size != 89 || p.First.IsZero() || time.Since(p.First) > time.Minute {
		t.Errorf("waves %+v, first %s", p.Waves, p.First)
	}

	if _, err := h.PatchTwin(t.Context(), everybody(), TwinID{DeviceID: "d00007"}, TwinUpdate{Desired: []byte(`{"fw":{"version":"1.0","a":1}}`)}, IfMatch{}); err != nil {
		t.Fatal(err)
	}
	s = twinJob("")
	s.Targets.IDs = []TwinID{{DeviceID: "d00007"}, {DeviceID: "ghost"}}
	p = previewOf(t, h, s, 0)
	if len(p.Sample) != 1 || len(p.Sample[0].Effect.Changes) != 1 || string(p.Sample[0].Effect.Changes[0].Before) != `"1.0"` || p.Sample[0].Effect.Changes[0].Path != "desired.fw.version" {
		t.Errorf("sample %+v", p.Sample)
	}
	if len(p.Excluded) != 1 || p.Excluded[0].Reason != "notFound" || p.Excluded[0].Sample[0].DeviceID != "ghost" {
		t.Errorf("excluded are %+v", p.Excluded)
	}

	s = JobSpec{Targets: JobTargets{Where: "*"}, Action: JobAction{Method: &JobMethodCall{Name: "reboot"}}}
	p = previewOf(t, h, s, 10)
	if p.Sample[0].Effect.Method != "reboot" || p.Sample[0].Effect.Fault != "" {
		t.Errorf("%+v", p.Sample[0])
	}
	var told strings.Builder
	for _, w := range p.Warnings {
		told.WriteString(w.Path + " " + w.Reason + "; ")
	}
	if !strings.Contains(told.String(), "are all 1000 devices of the hub") || !strings.Contains(told.String(), "10 of the 10 that are shown are not connected") {
		t.Errorf("warnings are %s", told.String())
	}
	s.Action.Offline = JobOfflineFail
	if p = previewOf(t, h, s, 10); !strings.Contains(p.Sample[0].Effect.Fault, "not connected") {
		t.Errorf("%+v", p.Sample[0])
	}

	// A patch that these twins do not take, and one that changes nothing.
	big := fmt.Sprintf(`{"a":"%s"}`, strings.Repeat("x", 4000))
	h.limits.TagsBytes = 4100
	s = JobSpec{Targets: JobTargets{Where: "deviceId == 'd00001'"}, Action: JobAction{Twin: &JobTwinPatch{Tags: []byte(big), Desired: []byte(`{}`)}}}
	if _, err := h.PatchTwin(t.Context(), everybody(), TwinID{DeviceID: "d00001"}, TwinUpdate{Tags: []byte(`{"text":"` + strings.Repeat("y", 500) + `"}`)}, IfMatch{}); err != nil {
		t.Fatal(err)
	}
	if p = previewOf(t, h, s, 10); !strings.Contains(p.Sample[0].Effect.Fault, "tags") {
		t.Errorf("%+v", p.Sample[0])
	}
}

// TestPreviewSeesTheWavesOfTheJob: the canary of a preview is that of the job.
func TestPreviewSeesTheWavesOfTheJob(t *testing.T) {
	h := jobFleet(t, 700)
	for name, diverse := range map[string]bool{"by-chance": false, "diverse": true} {
		s := twinJob("tags.ring < 90")
		s.ID = name
		s.Policy.Waves = waves(t, "7", "60", "100%")
		s.Policy.Waves[0].Diverse = diverse
		s.Policy.Waves[1].Approval = true
		s.Policy.Windows = []rollout.Window{{Cron: "0 22 * * *", Duration: rollout.Duration(6 * time.Hour), TimeZone: "UTC", ZoneTag: "tags.zone"}}
		p := previewOf(t, h, s, 0)
		if len(p.Waves) != 3 || p.Waves[0].Size != 7 || p.Waves[1].Size != 53 || p.Waves[2].Size != 570 || !p.Waves[1].Approval || p.Waves[0].Diverse != diverse {
			t.Fatalf("waves are %+v", p.Waves)
		}
		if p.First.IsZero() || time.Until(p.First) > 24*time.Hour {
			t.Errorf("it would begin at %s", p.First)
		}
		if _, err := h.CreateJob(t.Context(), everybody(), s, p.Token); err != nil {
			t.Fatal(err)
		}
		layOutAll(t, h, name)
		job := map[int][]string{}
		for place, ids := range laidOut(t, h, name) {
			var wave int
			fmt.Sscanf(place, "%d", &wave)
			job[wave] = append(job[wave], ids...)
		}
		for w := range 2 {
			var seen []string
			for _, id := range p.Waves[w].Targets {
				seen = append(seen, id.String())
			}
			slices.Sort(seen)
			slices.Sort(job[w])
			if !slices.Equal(seen, job[w]) {
				t.Errorf("%s: wave %d of the preview is %v, of the job %v", name, w, seen, job[w])
			}
		}
		for _, target := range p.Sample {
			if !slices.Contains(job[target.Wave], target.ID.String()) {
				t.Errorf("%s: %s is not in wave %d", name, target.ID, target.Wave)
			}
		}
	}
}

func TestPreviewTellsOfOtherJobs(t *testing.T) {
	h := jobFleet(t, 100)
	other := twinJob("tags.site == 's3'")
	other.ID, other.Policy.Priority = "other", 7
	createJob(t, h, other)
	elsewhere := twinJob("tags.site == 's4'")
	elsewhere.ID = "elsewhere"
	createJob(t, h, elsewhere)
	late := twinJob("")
	late.ID, late.Targets.Condition = "late", "nonsense ("
	createJob(t, h, late)
	s := twinJob("")
	s.Targets.IDs = []TwinID{{DeviceID: "d00003"}, {DeviceID: "d00013"}, {DeviceID: "d00005"}}
	p := previewOf(t, h, s, 0)
	if len(p.Active) != 1 || p.Active[0].Job != "other" || p.Active[0].Targets != 2 || p.Active[0].Priority != 7 || p.Active[0].Status != rollout.JobQueued {
		t.Errorf("active are %+v", p.Active)
	}
}

// TestPreviewTellsOfWorkThatIsLeft: of a job that is under way the devices count on
// which it has yet to be done.
func TestPreviewTellsOfWorkThatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := runningHub(t, nil)
		ids := jobDevices(t, h, 4)
		for _, id := range ids[:2] {
			attach(t, h, id, say(200, 200))
		}
		all := JobTargets{Where: "*"}
		staged := rollout.Policy{Waves: []rollout.Wave{{Size: rollout.Count(1)}, {Size: rollout.Percent(100), Approval: true}}}
		putJob(t, h, JobSpec{ID: "away", Targets: all, Action: method("reboot")}, nil) // two of the four have done it
		putJob(t, h, JobSpec{ID: "staged", Targets: all, Action: JobAction{Twin: &JobTwinPatch{Tags: []byte(`{"a":1}`)}}, Policy: staged}, nil)
		time.Sleep(time.Second)
		// It matches, and is no target of those that were made before it came.
		if _, err := h.CreateIdentity(context.Background(), everything, Identity{DeviceID: "late"}); err != nil {
			t.Fatal(err)
		}
		left := func() string {
			got := map[string]int{}
			for _, c := range previewOf(t, h, JobSpec{Targets: all, Action: method("other")}, 0).Active {
				got[c.Job] = c.Targets
			}
			return fmt.Sprint(got)
		}
		if got, want := left(), "map[away:2 staged:4]"; got != want {
			t.Errorf("left to do are %s, want %s", got, want)
		}
		if _, err := h.ApproveJob(context.Background(), everything, "staged", -1, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got, want := left(), "map[away:2]"; got != want {
			t.Errorf("after the approval, left to do are %s, want %s", got, want)
		}
	})
}

func TestPreviewTokens(t *testing.T) {
	h := jobFleet(t, 300)
	s := twinJob("tags.site == 's3'")
	token := previewOf(t, h, s, 0).Token
	create := func(s JobSpec, token string) error {
		_, err := h.CreateJob(t.Context(), everybody(), s, token)
		return err
	}
	for i, bad := range []string{"x", "%%%", token[:len(token)-1], token[1:], token + "AAAA", strings.Repeat("A", 9000), flip(t, token, 0), flip(t, token, 30), flip(t, token, -1)} {
		if err := create(s, bad); AsError(err) == nil || AsError(err).Code != CodeArgumentInvalid {
			t.Errorf("token %d: %v", i, err)
		}
	}
	for name, other := range map[string]JobSpec{
		"targets": twinJob("tags.site == 's4'"),
		"action":  {Targets: s.Targets, Action: JobAction{Twin: &JobTwinPatch{Desired: []byte(`{"fw":{"version":"3.0"}}`)}}},
		"policy":  {Targets: s.Targets, Action: s.Action, Policy: rollout.Policy{Priority: 1}},
	} {
		t.Run(name, func(t *testing.T) { refusal(t, create(other, token), CodeJobPreviewChanged, "another job's") })
	}
	named := s
	named.ID, named.Description, named.Labels = "named", "what it is called does not count", map[string]string{"a": "b"}
	if err := create(named, token); err != nil {
		t.Errorf("the same job with a name: %v", err)
	}

	// Two go, three come.
	for _, id := range []string{"d00003", "d00013"} {
		if err := h.DeleteIdentity(t.Context(), everybody(), TwinID{DeviceID: id}, IfMatch{Present: true, Any: true}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		if _, err := h.PatchTwin(t.Context(), everybody(), TwinID{DeviceID: fmt.Sprintf("d0000%d", i)}, TwinUpdate{Tags: []byte(`{"site":"s3"}`)}, IfMatch{}); err != nil {
			t.Fatal(err)
		}
	}
	refusal(t, create(s, token), CodeJobPreviewChanged, "30 targets in its preview and has 31 now", "more", "fewer", "came", "Preview it again")
	if err := create(s, previewOf(t, h, s, 0).Token); err != nil {
		t.Errorf("with a new token: %v", err)
	}
}

// flip changes a byte of a token.
func flip(t testing.TB, token string, at int) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 4
	return base64.RawURLEncoding.EncodeToString(b)
}

func TestPreviewTokensExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := jobFleet(t, 20)
		s := twinJob("tags.site == 's3'")
		token := previewOf(t, h, s, 0).Token
		time.Sleep(previewLifetime - time.Second)
		if _, err := h.CreateJob(t.Context(), everybody(), s, token); err != nil {
			t.Errorf("in time: %v", err)
		}
		time.Sleep(2 * time.Second)
		_, err := h.CreateJob(t.Context(), everybody(), s, token)
		refusal(t, err, CodeJobPreviewChanged, "older than 15 minutes")
	})
}

// TestPreviewBindsTheStart: targets that change between creation and laying out
// make the job fail before it touches a device.
func TestPreviewBindsTheStart(t *testing.T) {
	h := jobFleet(t, 100)
	s := twinJob("tags.site == 's3'")
	s.ID = "bound"
	if _, err := h.CreateJob(t.Context(), everybody(), s, previewOf(t, h, s, 0).Token); err != nil {
		t.Fatal(err)
	}
	if _, err := h.PatchTwin(t.Context(), everybody(), TwinID{DeviceID: "d00000"}, TwinUpdate{Tags: []byte(`{"site":"s3"}`)}, IfMatch{}); err != nil {
		t.Fatal(err)
	}
	layOutAll(t, h, "bound")
	if j := getJob(t, h, "bound"); j.Status() != rollout.JobFailed || !strings.Contains(j.State.Reason, "no longer those of the preview: 1 target more, 0 targets fewer") {
		t.Errorf("%s: %q", j.Status(), j.State.Reason)
	}

	// One that starts later has its targets fixed now.
	s.ID, s.Policy.Start = "later", time.Now().Add(time.Hour)
	j, err := h.CreateJob(t.Context(), everybody(), s, previewOf(t, h, s, 0).Token)
	if err != nil || !j.State.LaidOut || j.Found != 11 || j.Status() != rollout.JobScheduled {
		t.Errorf("%v, %s, %d targets", err, j.Status(), j.Found)
	}
}

func TestPreviewRefusals(t *testing.T) {
	h := jobFleet(t, 10)
	ask := func(s JobSpec) error {
		_, err := h.PreviewJob(t.Context(), everybody(), s, 0)
		return err
	}
	refusal(t, ask(twinJob("tags.site == 'nowhere'")), CodeArgumentInvalid, "nothing matches", "allowEmpty")
	late := twinJob("")
	late.Targets.Condition = "tags.site = = 1"
	refusal(t, ask(late), CodeArgumentInvalid, "queryCondition can't be read: column 13")
	empty := twinJob("tags.site == 'nowhere'")
	empty.AllowEmpty = true
	if p := previewOf(t, h, empty, 0); p.Count != 0 || len(p.Sample) != 0 || p.Token == "" {
		t.Errorf("%+v", p)
	}
	h.limits.JobTargets = 5
	refusal(t, ask(twinJob("*")), CodeArgumentInvalid, "more than 5 targets")
	weak := everybody()
	weak.Permissions = 0
	_, err := h.PreviewJob(t.Context(), weak, twinJob("*"), 0)
	refusal(t, err, CodeForbidden, "job.read")
}

// The token outlives a restart, and no other hub takes it.
func TestPreviewTokensElsewhere(t *testing.T) {
	dir := t.TempDir()
	open := func(dir string) *Hub {
		h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: dir, Memory: 64 << 20}})
		if err != nil {
			t.Fatal(err)
		}
		<-h.queries.ready
		return h
	}
	h := open(dir)
	makeDevices(t, h, 20, fleetTags)
	s := twinJob("*")
	token := previewOf(t, h, s, 0).Token
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h = open(dir)
	if _, err := h.CreateJob(t.Context(), everybody(), s, token); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	other := jobFleet(t, 20)
	_, err := other.CreateJob(t.Context(), everybody(), s, token)
	refusal(t, err, CodeArgumentInvalid, "not one that a preview of this hub gave")
}

func FuzzPreviewToken(f *testing.F) {
	h := queryHub(f)
	sum := h.newTargetSum()
	sum.add("d1")
	now := time.Now()
	token := h.previewToken([32]byte{1}, sum, now.Add(time.Minute))
	f.Add(token)
	f.Add(token[:40])
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := h.openPreview(text, [32]byte{1}, now)
		if err == nil && !got.same(sum) {
			t.Fatalf("%q vouches for what was never previewed", text)
		}
	})
}
