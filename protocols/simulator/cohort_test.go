package simulator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/client/clienttest"
	"github.com/muster-hub/muster/protocols/simulator"
)

func TestCohortErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ cohorts, err string }{
		{"- name: a\n  share: 8%\n  offline: true", ""},
		{"- name: a\n  share: 3\n  method_status: 500\n  methods: [a]", ""},
		{"- share: 8%\n  offline: true", "[2:1] cohort 1 (\"\") needs a name of its own"},
		{"- name: a\n  share: 8%\n  ill: true\n- name: a\n  share: 8%\n  ill: true", "cohort 2 (\"a\") needs a name of its own"},
		{"- name: a\n  offline: true", "has no share"},
		{"- name: a\n  share: 0%\n  offline: true", "expected more than 0% and at most 100%"},
		{"- name: a\n  share: some\n  offline: true", "expected a count or a percentage"},
		{"- name: a\n  share: -1\n  offline: true", "expected a count or a percentage"},
		{"- name: a\n  share: 60%\n  offline: true\n- name: b\n  share: 50%\n  ill: true", "more than the whole fleet"},
		{"- name: a\n  share: 8%", "has no trouble"},
		{"- name: a\n  share: 8%\n  ill: true\n  methods: [x]", "names methods without"},
		{"- name: a\n  share: 8%\n  method_status: 5", "method_status of cohort 1 (\"a\") is out of bounds"},
		{"- name: a\n  share: 8%\n  method_delay: 6m", "method_delay of"},
		{"- name: a\n  share: 8%\n  offline: true\n  until: x", "would never see the property"},
		{"- name: a\n  share: 8%\n  ofline: true", "ofline"},
		{strings.Repeat("- {name: a, share: 1, ill: true}\n", 21), "at most 20"},
	} {
		text := "description: x\ncohorts:\n" + c.cohorts
		_, err := simulator.ParseBehaviour([]byte(text))
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s\ngot %v, want %s", c.cohorts, err, c.err)
		}
	}
	for _, tags := range []string{"tags: {site: []}", "tags: {site: {a: b}}", "tags: [a]"} {
		if _, err := simulator.ParseBehaviour([]byte(tags)); err == nil {
			t.Errorf("%s is taken", tags)
		}
	}
}

const cohorts = `
interval: 20ms
report_every: 1
tags:
  site: [lyon, oslo]
  model: [PX-200, VT-15]
cohorts:
  - {name: failing, share: 10%, tags: {batch: B}, methods: [apply], method_status: 500, method_message: not calibrated, until: calibrated}
  - {name: slow, share: 1, method_delay: 300ms}
  - {name: offline, share: 2, offline: true}
  - {name: stubborn, share: 3, refuse: [interval]}
  - {name: ill, share: 4, ill: true, once: firmware=2.1.0}
`

// cohortFleet runs twenty devices with cohorts, and returns the ids of each.
func cohortFleet(ctx context.Context, t *testing.T, h *clienttest.Hub, prefix string, seed uint64) map[string][]string {
	t.Helper()
	b, err := simulator.ParseBehaviour([]byte(cohorts))
	if err != nil {
		t.Fatal(err)
	}
	l, err := simulator.NewLoad(simulator.LoadOptions{
		Service: h.Service, Hub: "localhost", Transport: client.MQTT, Address: h.MQTTS, RootCAs: h.RootCAs,
		Prefix: prefix, Devices: 20, Seed: seed, Behaviour: b,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	run, end := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- l.Run(run) }()
	t.Cleanup(func() {
		there := l.Report().Online
		end()
		<-done
		if got := l.Report().Online; there == 0 || got != there {
			t.Errorf("the report of the end says that %d were online, want %d", got, there)
		}
	})
	eventually(ctx, t, "all but two are there", func() bool { return l.Report().Online == 18 })
	return l.Cohorts()
}

func TestCohorts(t *testing.T) {
	t.Parallel()
	h := clienttest.Start(t)
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	of := cohortFleet(ctx, t, h, "c-", 5)
	for name, want := range map[string]int{"failing": 2, "slow": 1, "offline": 2, "stubborn": 3, "ill": 4} {
		if len(of[name]) != want {
			t.Errorf("%s are %v, want %d", name, of[name], want)
		}
	}
	in := map[string]string{}
	for name, ids := range of {
		for _, id := range ids {
			if in[id] != "" {
				t.Errorf("%s is %s and %s", id, in[id], name)
			}
			in[id] = name
		}
	}
	sites := map[string]int{}
	for i := range 20 {
		id := fmt.Sprintf("c-%06d", i+1)
		tw, err := h.Service.Twin(ctx, id, "")
		if err != nil {
			t.Fatal(err)
		}
		var tags struct{ Site, Model, Batch string }
		if err := json.Unmarshal(tw.Tags, &tags); err != nil {
			t.Fatal(err)
		}
		sites[tags.Site+"/"+tags.Model]++
		if (tags.Batch == "B") != (in[id] == "failing") {
			t.Errorf("%s, which is %q, has the tags %s", id, in[id], tw.Tags)
		}
	}
	if len(sites) != 4 || sites["oslo/VT-15"] != 5 {
		t.Errorf("tags are dealt out as %v", sites)
	}

	failing := of["failing"][0]
	if r := invoke(ctx, t, h, failing, "apply", ""); r.Status != 500 || !strings.Contains(string(r.Payload), "not calibrated") {
		t.Errorf("apply on one that fails: %d %s", r.Status, r.Payload)
	}
	if r := invoke(ctx, t, h, failing, "other", ""); r.Status != 200 {
		t.Errorf("another method: %d", r.Status)
	}
	desire(ctx, t, h, failing, `{"calibrated":true}`)
	eventually(ctx, t, failing+" is calibrated", func() bool { return invoke(ctx, t, h, failing, "apply", "").Status == 200 })
	began := time.Now()
	if r := invoke(ctx, t, h, of["slow"][0], "apply", ""); r.Status != 200 || time.Since(began) < 300*time.Millisecond {
		t.Errorf("slow: %d after %s", r.Status, time.Since(began))
	}

	for name, want := range map[string]float64{"stubborn": 400, "ill": 200} {
		id := of[name][0]
		desire(ctx, t, h, id, `{"interval":30,"gone":1}`)
		eventually(ctx, t, id+" answers", func() bool {
			a, _ := reported(ctx, t, h, id)["interval"].(map[string]any)
			return a != nil && a["ac"] == want && a["value"] == 30.0 && a["av"] == 2.0
		})
		desire(ctx, t, h, id, `{"gone":null}`)
		eventually(ctx, t, id+" forgets", func() bool { return reported(ctx, t, h, id)["gone"] == nil })
	}

	ill := of["ill"][0]
	eventually(ctx, t, ill+" is well", func() bool { return reported(ctx, t, h, ill)["health"] == "good" })
	desire(ctx, t, h, ill, `{"firmware":"2.1.0"}`)
	eventually(ctx, t, ill+" falls ill", func() bool { return reported(ctx, t, h, ill)["health"] == "bad" })
	desire(ctx, t, h, ill, `{"firmware":"2.0.0"}`)
	eventually(ctx, t, ill+" is well again", func() bool { return reported(ctx, t, h, ill)["health"] == "good" })

	if again := cohortFleet(ctx, t, h, "d-", 5); again["ill"][3] != "d"+of["ill"][3][1:] {
		t.Errorf("the same seed: %v and %v", of, again)
	}
}

func desire(ctx context.Context, t *testing.T, h *clienttest.Hub, id, patch string) {
	t.Helper()
	if _, err := h.Service.PatchTwin(ctx, id, "", json.RawMessage(`{"properties":{"desired":`+patch+`}}`), ""); err != nil {
		t.Fatal(err)
	}
}
