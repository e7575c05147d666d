package engine_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

func patch(t *testing.T, h *engine.Hub, id engine.TwinID, u engine.TwinUpdate) engine.Twin {
	t.Helper()
	tw, err := h.PatchTwin(t.Context(), enginetest.Owner(), id, u, engine.IfMatch{})
	if err != nil {
		t.Fatalf("patch: %v", err)
	}
	return tw
}

func TestTwinVersionsAndETags(t *testing.T) {
	h := enginetest.New(t)
	i := mustCreate(t, h, engine.Identity{DeviceID: "d"})
	fresh, err := h.Twin(t.Context(), enginetest.Owner(), i.ID())
	if err != nil {
		t.Fatal(err)
	}
	if fresh.ETag != "AAAAAAAAAAE=" || fresh.Desired.Version() != 1 || fresh.Reported.Version() != 1 || !fresh.Tags.Empty() {
		t.Errorf("fresh twin %+v", fresh)
	}
	tagged := patch(t, h, i.ID(), engine.TwinUpdate{Tags: []byte(`{"a":{"b":1}}`)})
	tagged = patch(t, h, i.ID(), engine.TwinUpdate{Tags: []byte(`{"a":{"c":2}}`)})
	if got := string(tagged.Tags.JSON(nil, false)); got != `{"a":{"b":1,"c":2}}` {
		t.Errorf("tags %s", got)
	}
	if tagged.ETag == fresh.ETag || tagged.Desired.Version() != 1 || tagged.Version <= fresh.Version {
		t.Errorf("after tags: %+v", tagged)
	}
	if tagged.Identity.ETag != i.ETag {
		t.Error("a twin patch moved the identity's ETag")
	}
	moved, err := h.UpdateIdentity(t.Context(), enginetest.Owner(), engine.Identity{DeviceID: "d"}, anyETag)
	if err != nil {
		t.Fatal(err)
	}
	after, _ := h.Twin(t.Context(), enginetest.Owner(), i.ID())
	if after.ETag != tagged.ETag || after.Identity.ETag != moved.ETag {
		t.Error("an identity write must move deviceEtag and leave the twin's ETag")
	}
	_, err = h.PatchTwin(t.Context(), enginetest.Owner(), i.ID(), engine.TwinUpdate{Tags: []byte(`{}`)}, engine.IfMatch{Present: true, ETag: fresh.ETag})
	wantCode(t, err, engine.CodePreconditionFailed)
	if _, err := h.PatchTwin(t.Context(), enginetest.Owner(), i.ID(), engine.TwinUpdate{Tags: []byte(`{}`)}, engine.IfMatch{Present: true, ETag: after.ETag}); err != nil {
		t.Error(err)
	}
	_, err = h.PatchTwin(t.Context(), enginetest.Owner(), engine.TwinID{DeviceID: "d", ModuleID: "ghost"}, engine.TwinUpdate{}, engine.IfMatch{})
	wantCode(t, err, engine.CodeModuleNotFound)
}

func TestTwinBounds(t *testing.T) {
	h := enginetest.New(t, enginetest.Azure)
	i := mustCreate(t, h, engine.Identity{DeviceID: "d"})
	f := func(name string, u engine.TwinUpdate, want engine.Code) {
		t.Helper()
		before, _ := h.Twin(t.Context(), enginetest.Owner(), i.ID())
		_, err := h.PatchTwin(t.Context(), enginetest.Owner(), i.ID(), u, engine.IfMatch{})
		if err == nil {
			t.Errorf("%s: accepted", name)
			return
		}
		if e := engine.AsError(err); e.Code != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
		after, _ := h.Twin(t.Context(), enginetest.Owner(), i.ID())
		if after.Version != before.Version || after.ETag != before.ETag {
			t.Errorf("%s: a refused patch changed the twin", name)
		}
	}
	big := func(n int) []byte {
		m := map[string]string{}
		for k := 0; k*1000 < n; k++ {
			m[fmt.Sprintf("k%03d", k)] = strings.Repeat("x", 1000)
		}
		b, _ := json.Marshal(m)
		return b
	}
	f("tags too large", engine.TwinUpdate{Tags: big(9000)}, engine.CodeArgumentInvalid)
	f("desired too large", engine.TwinUpdate{Desired: big(34000)}, engine.CodeArgumentInvalid)
	f("dot in key", engine.TwinUpdate{Tags: []byte(`{"a.b":1}`)}, engine.CodeArgumentInvalid)
	f("null in array", engine.TwinUpdate{Desired: []byte(`{"a":[1,null]}`)}, engine.CodeArgumentInvalid)
	f("integer too large", engine.TwinUpdate{Desired: []byte(`{"a":4503599627370496}`)}, engine.CodeArgumentInvalid)
	f("not an object", engine.TwinUpdate{Desired: []byte(`[1]`)}, engine.CodeArgumentInvalid)
	f("not JSON", engine.TwinUpdate{Desired: []byte(`{"a":`)}, engine.CodeArgumentInvalid)
}

func TestDesiredNotificationsComeInOrder(t *testing.T) {
	h := enginetest.New(t)
	id := engine.TwinID{DeviceID: "d"}
	d := enginetest.Connect(t, h, id, engine.EndpointDesired)
	const writers, each = 8, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				u := engine.TwinUpdate{Desired: fmt.Appendf(nil, `{"w%d":%d}`, w, n)}
				if _, err := h.PatchTwin(t.Context(), enginetest.Owner(), id, u, engine.IfMatch{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := d.Notifications()
	if len(got) != writers*each {
		t.Fatalf("%d notifications, want %d", len(got), writers*each)
	}
	for i, n := range got {
		if n.Version != int64(i)+2 {
			t.Fatalf("notification %d has version %d", i, n.Version)
		}
		if !strings.Contains(n.Patch, fmt.Sprintf(`"$version":%d`, n.Version)) {
			t.Fatalf("notification %s has no $version", n.Patch)
		}
	}
}

func TestReplaceTellsWhatWasDropped(t *testing.T) {
	h := enginetest.New(t)
	id := engine.TwinID{DeviceID: "d"}
	d := enginetest.Connect(t, h, id, engine.EndpointDesired)
	patch(t, h, id, engine.TwinUpdate{Tags: []byte(`{"keep":1}`), Desired: []byte(`{"a":1,"b":{"c":2}}`)})
	tw, err := h.ReplaceTwin(t.Context(), enginetest.Owner(), id, engine.TwinUpdate{Desired: []byte(`{"a":2}`)}, engine.IfMatch{})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(tw.Desired.JSON(nil, false)); got != `{"a":2,"$version":3}` {
		t.Errorf("desired %s", got)
	}
	if got := string(tw.Tags.JSON(nil, false)); got != `{"keep":1}` {
		t.Errorf("an absent section was replaced: %s", got)
	}
	last := d.Notifications()[1].Patch
	var m map[string]any
	if err := json.Unmarshal([]byte(last), &m); err != nil {
		t.Fatal(err)
	}
	if v, ok := m["b"]; !ok || v != nil || m["a"] != 2.0 {
		t.Errorf("notification %s does not drop b", last)
	}
}

func TestReported(t *testing.T) {
	h := enginetest.New(t)
	id := engine.TwinID{DeviceID: "d"}
	d := enginetest.Connect(t, h, id)
	doc, err := d.Session.Twin(t.Context())
	if err != nil || string(doc) != `{"desired":{"$version":1},"reported":{"$version":1}}` {
		t.Fatalf("fresh twin document %s, %v", doc, err)
	}
	before, _ := h.Twin(t.Context(), enginetest.Owner(), id)
	v, err := d.Session.PatchReported(t.Context(), []byte(`{"fw":{"v":"1.0","n":1.0}}`), -1)
	if err != nil || v != 2 {
		t.Fatalf("version %d, %v", v, err)
	}
	after, _ := h.Twin(t.Context(), enginetest.Owner(), id)
	if got := string(after.Reported.JSON(nil, false)); got != `{"fw":{"v":"1.0","n":1.0},"$version":2}` {
		t.Errorf("reported %s", got)
	}
	if after.ETag != before.ETag || after.Version <= before.Version {
		t.Error("a reported patch must move the version and leave the ETag")
	}
	for _, bad := range []string{`{"$version":3}`, `{"$metadata":{}}`, `[]`, `7`, ``, `{"a":1`, `{"a":1,"a":2}`} {
		_, err := d.Session.PatchReported(t.Context(), []byte(bad), -1)
		wantCode(t, err, engine.CodeArgumentInvalid)
	}
	_, err = d.Session.PatchReported(t.Context(), []byte(`{"x":1}`), 1)
	wantCode(t, err, engine.CodePreconditionFailed)
	if v, err := d.Session.PatchReported(t.Context(), []byte(`{"x":1}`), 2); err != nil || v != 3 {
		t.Errorf("version %d, %v", v, err)
	}
}

func TestHistoryWalksBack(t *testing.T) {
	h := enginetest.New(t)
	id := engine.TwinID{DeviceID: "d"}
	d := enginetest.Connect(t, h, id)
	patch(t, h, id, engine.TwinUpdate{Desired: []byte(`{"a":1,"b":{"x":1}}`)})
	patch(t, h, id, engine.TwinUpdate{Desired: []byte(`{"a":2,"b":{"x":null,"y":2}}`)})
	patch(t, h, id, engine.TwinUpdate{Tags: []byte(`{"site":"A"}`)})
	if _, err := d.Session.PatchReported(t.Context(), []byte(`{"ok":true}`), -1); err != nil {
		t.Fatal(err)
	}
	list, next, err := h.TwinHistory(t.Context(), enginetest.Owner(), id, "", "", 100)
	if err != nil || next != "" {
		t.Fatal(err, next)
	}
	var ids []string
	for _, e := range list {
		ids = append(ids, e.ID+" "+e.Principal)
	}
	want := []string{"reported:1 device:d", "tags:1 local:uid=0", "desired:2 local:uid=0", "desired:1 local:uid=0", "identity:1 local:uid=0"}
	if len(ids) != len(want) {
		t.Fatalf("history %v", ids)
	}
	var paged []engine.HistoryEntry
	for cursor := ""; ; cursor = next {
		var page []engine.HistoryEntry
		if page, next, err = h.TwinHistory(t.Context(), enginetest.Owner(), id, "", cursor, 2); err != nil {
			t.Fatal(err)
		}
		paged = append(paged, page...)
		if next == "" {
			break
		}
	}
	for i := range list {
		if len(paged) != len(list) || paged[i].ID != list[i].ID {
			t.Fatalf("pages %+v, whole %+v", paged, list)
		}
	}
	diff, err := h.TwinDifference(t.Context(), enginetest.Owner(), id, "desired:1", "now")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, x := range diff {
		got[x.Path] = string(x.Before) + ">" + string(x.After)
	}
	for path, change := range map[string]string{"desired.a": "1>2", "desired.b.x": "1>", "desired.b.y": ">2"} {
		if got[path] != change {
			t.Errorf("%s: %q, want %q (all: %v)", path, got[path], change, got)
		}
	}
	_, err = h.TwinDifference(t.Context(), enginetest.Owner(), id, "desired:99", "now")
	wantCode(t, err, engine.CodeHistoryNotFound)
	_, err = h.TwinDifference(t.Context(), enginetest.Owner(), id, "yesterday", "now")
	wantCode(t, err, engine.CodeArgumentInvalid)
	_, err = h.TwinDifference(t.Context(), enginetest.Owner(), id, "2001-01-01T00:00:00Z", "now")
	wantCode(t, err, engine.CodeHistoryNotFound)
}

func TestReportedHistoryIsBounded(t *testing.T) {
	h := enginetest.New(t)
	id := engine.TwinID{DeviceID: "d"}
	d := enginetest.Connect(t, h, id)
	most := h.Limits().HistoryReported
	for n := range most + 10 {
		if _, err := d.Session.PatchReported(t.Context(), fmt.Appendf(nil, `{"n":%d}`, n), -1); err != nil {
			t.Fatal(err)
		}
	}
	list, _, err := h.TwinHistory(t.Context(), enginetest.Owner(), id, engine.HistoryReported, "", 1000)
	if err != nil || len(list) != most {
		t.Fatalf("%d entries, want %d, %v", len(list), most, err)
	}
	if list[0].ID != fmt.Sprint("reported:", most+10) {
		t.Errorf("newest is %s", list[0].ID)
	}
	_, err = h.TwinDifference(t.Context(), enginetest.Owner(), id, "reported:11", "now")
	if err != nil {
		t.Errorf("the oldest kept entry can't be reached: %v", err)
	}
}
