package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// jobFleet is a hub with n devices d00000, d00001, ... in ten sites, with five
// models and, of most, a zone.
func jobFleet(t testing.TB, n int, change ...func(*Options)) *Hub {
	t.Helper()
	h := queryHub(t, change...)
	makeDevices(t, h, n, fleetTags)
	<-h.queries.ready
	return h
}

func fleetTags(i int) string {
	zone := []string{"Europe/Paris", "Asia/Tokyo", "no zone", ""}[i%4]
	return fmt.Sprintf(`{"site":"s%d","ring":%d,"model":"m%d","zone":"%s"}`, i%10, i%100, i%5, zone)
}

func twinJob(where string) JobSpec {
	return JobSpec{Targets: JobTargets{Where: where}, Action: JobAction{Twin: &JobTwinPatch{Desired: []byte(`{"fw":{"version":"2.0"}}`)}}}
}

func mustShare(t testing.TB, text string) rollout.Share {
	t.Helper()
	var s rollout.Share
	if err := s.UnmarshalJSON([]byte(`"` + text + `"`)); err != nil {
		t.Fatal(err)
	}
	return s
}

func waves(t testing.TB, sizes ...string) []rollout.Wave {
	list := make([]rollout.Wave, len(sizes))
	for i, s := range sizes {
		list[i].Size = mustShare(t, s)
	}
	return list
}

// layOutAll lays a job out to its end.
func layOutAll(t testing.TB, h *Hub, id string) {
	t.Helper()
	for range 1000 {
		done, err := h.layOutStep(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if done {
			return
		}
	}
	t.Fatal("the targets are never laid out")
}

// laidOut returns the targets of a job by wave and zone.
func laidOut(t testing.TB, h *Hub, id string) map[string][]string {
	t.Helper()
	got := map[string][]string{}
	err := h.db.View(t.Context(), func(r storage.Reader) error {
		for item, err := range targetTable.Scan(r, storage.Range{Prefix: storage.Tuple(id)}) {
			if err != nil {
				return err
			}
			p, err := placeOfKey(item.Key)
			if err != nil {
				return err
			}
			place := fmt.Sprintf("%d %s", p.wave, p.zone)
			for _, id := range item.Value {
				got[place] = append(got[place], id.String())
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func createJob(t testing.TB, h *Hub, s JobSpec) Job {
	t.Helper()
	j, err := h.CreateJob(t.Context(), everybody(), s, "")
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func getJob(t testing.TB, h *Hub, id string) Job {
	t.Helper()
	j, err := h.Job(t.Context(), everybody(), id)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestLayOut(t *testing.T) {
	h := jobFleet(t, 1200)
	all := make([]string, 1200)
	for i := range all {
		all[i] = fmt.Sprintf("d%05d", i)
	}
	inSite := func(site int) (ids []string) {
		for i := range all {
			if i%10 == site {
				ids = append(ids, all[i])
			}
		}
		return ids
	}
	spec := twinJob("*")
	createJob(t, h, func() JobSpec { s := spec; s.ID = "all"; return s }())
	layOutAll(t, h, "all")
	if got := laidOut(t, h, "all"); len(got) != 1 || !slices.Equal(got["0 "], all) {
		t.Errorf("all: %d places, %d targets", len(got), len(got["0 "]))
	}
	if j := getJob(t, h, "all"); j.Status() != rollout.JobScheduled || j.Found != 1200 || j.State.Total().Pending != 1200 {
		t.Errorf("the job is %s, found %d, %+v", j.Status(), j.Found, j.State.Total())
	}
	if done, err := h.layOutStep(t.Context(), "all"); !done || err != nil {
		t.Errorf("again: %v, %v", done, err)
	}

	s := twinJob("tags.site == 's3'")
	s.ID, s.Targets.Exclude, s.Targets.ExcludeWhere = "site", []TwinID{{DeviceID: "d00003"}, {DeviceID: "d00001"}, {DeviceID: "nobody"}}, "tags.ring > 50"
	createJob(t, h, s)
	layOutAll(t, h, "site")
	want := slices.DeleteFunc(inSite(3), func(id string) bool {
		var n int
		fmt.Sscanf(id, "d%d", &n)
		return n == 3 || n%100 > 50
	})
	if got := laidOut(t, h, "site"); !slices.Equal(got["0 "], want) {
		t.Errorf("with exclusions: %d targets, want %d", len(got["0 "]), len(want))
	}

	s = twinJob("")
	s.ID, s.Targets.IDs, s.Targets.ExcludeWhere = "named", []TwinID{{DeviceID: "d00009"}, {DeviceID: "nobody"}, {DeviceID: "d00002"}, {DeviceID: "d00002"}, {DeviceID: "d00005"}}, "tags.site == 's5'"
	createJob(t, h, s)
	layOutAll(t, h, "named")
	if got := laidOut(t, h, "named"); !slices.Equal(got["0 "], []string{"d00002", "d00009"}) {
		t.Errorf("named: %v", got)
	}

	s = twinJob("tags.site == 's1'")
	s.ID, s.Policy.Windows = "zones", []rollout.Window{{Cron: "0 22 * * *", Duration: rollout.Duration(6 * time.Hour), TimeZone: "UTC", ZoneTag: "tags.zone"}}
	createJob(t, h, s)
	layOutAll(t, h, "zones")
	got := laidOut(t, h, "zones")
	if places := slices.Sorted(maps.Keys(got)); !slices.Equal(places, []string{"0 ", "0 Asia/Tokyo"}) {
		t.Errorf("zones: %v", places) // of site s1, the zones are Tokyo and none
	}

	s = twinJob("*")
	s.ID, s.Policy.Waves = "waves", waves(t, "1", "10%", "100%")
	createJob(t, h, s)
	layOutAll(t, h, "waves")
	got = laidOut(t, h, "waves")
	if len(got["0 "]) != 1 || len(got["1 "]) != 119 || len(got["2 "]) != 1080 || len(got) != 3 {
		t.Errorf("waves: %d, %d, %d", len(got["0 "]), len(got["1 "]), len(got["2 "]))
	}
	if both := slices.Sorted(slices.Values(slices.Concat(got["0 "], got["1 "], got["2 "]))); !slices.Equal(both, all) {
		t.Error("waves have other targets than the job")
	}
	if slices.Equal(got["1 "], all[1:120]) {
		t.Error("the second wave is the beginning of the alphabet")
	}

	s.ID, s.Policy.Waves[0].Diverse, s.Policy.Waves[0].Size = "diverse", true, mustShare(t, "10")
	createJob(t, h, s)
	layOutAll(t, h, "diverse")
	got = laidOut(t, h, "diverse")
	kinds := map[string]bool{}
	for _, id := range got["0 "] {
		var n int
		fmt.Sscanf(id, "d%d", &n)
		kinds[fmt.Sprint(n%10)] = true // site and model
	}
	if len(got["0 "]) != 10 || len(kinds) != 10 {
		t.Errorf("the diverse wave %v has %d kinds", got["0 "], len(kinds))
	}
}

func TestLayOutOfWhatCannotBe(t *testing.T) {
	h := jobFleet(t, 10)
	s := twinJob("")
	s.ID, s.Targets.Condition = "late", "tags.site = = 's1'"
	createJob(t, h, s)
	layOutAll(t, h, "late")
	if j := getJob(t, h, "late"); j.Status() != rollout.JobFailed || !strings.Contains(j.State.Reason, "SQL query parse failed: column 13") || j.Ended.IsZero() {
		t.Errorf("a bad condition: %s, %q", j.Status(), j.State.Reason)
	}
	s.ID, s.Targets.Condition = "none", "tags.site = 'nowhere'"
	createJob(t, h, s)
	layOutAll(t, h, "none")
	if j := getJob(t, h, "none"); j.Status() != rollout.JobScheduled || !j.State.LaidOut || j.Found != 0 {
		t.Errorf("a condition that matches nothing: %s, %d", j.Status(), j.Found)
	}
	h.limits.JobTargets = 5
	s.ID, s.Targets.Condition = "many", "*"
	createJob(t, h, s)
	layOutAll(t, h, "many")
	if j := getJob(t, h, "many"); j.Status() != rollout.JobFailed || !strings.Contains(j.State.Reason, "more than 5 targets") {
		t.Errorf("too many: %s, %q", j.Status(), j.State.Reason)
	}
	if _, err := h.CancelJob(t.Context(), everybody(), "none", "", ""); err != nil {
		t.Fatal(err)
	}
	s.ID = "canceled"
	h.limits.JobTargets = 100
	createJob(t, h, s)
	if _, err := h.CancelJob(t.Context(), everybody(), "canceled", "", ""); err != nil {
		t.Fatal(err)
	}
	layOutAll(t, h, "canceled")
	if j := getJob(t, h, "canceled"); j.Status() != rollout.JobCanceled || j.State.LaidOut || len(laidOut(t, h, "canceled")) > 0 {
		t.Errorf("a job that was canceled: %s", j.Status())
	}
}

// stopped is what a test panics with in place of a kill.
type stopped struct{ place string }

// TestLayOutResumes stops the laying out before and after each of its steps,
// opens the store again, and compares what comes of it with a run without.
func TestLayOutResumes(t *testing.T) {
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
	makeDevices(t, h, 4500, fleetTags)
	one := twinJob("tags.ring < 99")
	one.Policy.Windows = []rollout.Window{{Cron: "0 22 * * *", Duration: rollout.Duration(6 * time.Hour), TimeZone: "UTC", ZoneTag: "tags.zone"}}
	several := one
	several.Policy.Waves = waves(t, "20", "30%", "100%")
	several.Policy.Waves[0].Diverse = true
	every := 1
	if raceDetector {
		every = 3 // some before a step, some after
	}
	places := map[string]bool{}
	for name, spec := range map[string]JobSpec{"one": one, "several": several} {
		spec.ID = name
		preview, err := h.PreviewJob(t.Context(), everybody(), spec, 0)
		if err != nil {
			t.Fatal(err)
		}
		create := func(id string) {
			spec.ID = id
			if _, err := h.CreateJob(t.Context(), everybody(), spec, preview.Token); err != nil {
				t.Fatal(err)
			}
		}
		create(name)
		count := 0
		h.reached = func(place string) { places[place] = true; count++ }
		layOutAll(t, h, name)
		h.reached = nil
		want := laidOut(t, h, name)
		for at := 1; at <= count; at += every {
			id := fmt.Sprintf("%s-%d", name, at)
			create(id)
			n := 0
			h.reached = func(place string) {
				if n++; n == at {
					panic(stopped{place})
				}
			}
			func() {
				defer func() {
					if _, is := recover().(stopped); !is {
						t.Fatalf("%s was not stopped", id)
					}
				}()
				layOutAll(t, h, id)
			}()
			if err := h.Close(); err != nil {
				t.Fatal(err)
			}
			h = open()
			layOutAll(t, h, id)
			if got := laidOut(t, h, id); !maps.EqualFunc(got, want, slices.Equal) {
				t.Errorf("%s: %d places, want %d", id, len(got), len(want))
				for place := range want {
					t.Logf("%s: %d targets, want %d", place, len(got[place]), len(want[place]))
				}
			}
			if j := getJob(t, h, id); !j.State.LaidOut || j.Status() != rollout.JobScheduled {
				t.Errorf("%s is %s: %s", id, j.Status(), j.State.Reason)
			}
		}
	}
	for _, step := range []string{"job.collect", "job.choose", "job.deal", "job.laidOut"} {
		if !places[step+":before"] || !places[step+":after"] {
			t.Errorf("the step %s was never come to", step)
		}
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTargetQueues(t *testing.T) {
	h := queryHub(t)
	p := targetPlace{"j", 1, 0, "Europe/Paris"}
	var want []TwinID
	update := func(f func(tx *storage.Tx) error) {
		t.Helper()
		if err := h.db.Update(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		var ids []TwinID
		for k := range 700 {
			ids = append(ids, TwinID{DeviceID: fmt.Sprintf("d%d-%03d", i, k)})
		}
		want = append(want, ids...)
		update(func(tx *storage.Tx) error {
			return putTargetsTx(tx, p.job, p.run, p.wave, p.zone, ids)
		})
	}
	update(func(tx *storage.Tx) error { return putTargetsTx(tx, "j", 1, 2, "", want[:1]) })
	zones := func(wave int) (list []string) {
		t.Helper()
		err := h.db.View(t.Context(), func(r storage.Reader) (err error) {
			list, err = targetZones(r, "j", 1, wave, 10)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if got := zones(0); !slices.Equal(got, []string{"Europe/Paris"}) {
		t.Errorf("zones are %q", got)
	}
	var got []TwinID
	for n := 0; len(got) < 1500; n++ {
		update(func(tx *storage.Tx) error {
			ids, err := takeTargetsTx(tx, p.job, p.run, p.wave, p.zone, 300+n)
			got = append(got, ids...)
			return err
		})
	}
	for {
		of, ids := -1, []TwinID(nil)
		update(func(tx *storage.Tx) (err error) {
			of, ids, err = dropTargetsTx(tx, "j", 1, 0, 250)
			return err
		})
		if len(ids) == 0 {
			break
		}
		if of == 0 {
			got = append(got, ids...)
		} else if of != 2 || !slices.Equal(ids, want[:1]) {
			t.Errorf("of wave %d came %v", of, ids)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d targets of %d came, or in another order", len(got), len(want))
	}
	if len(zones(0)) > 0 || len(laidOut(t, h, "j")) > 0 {
		t.Error("an empty queue leaves something")
	}
}
