package engine_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// explain is what is told of a twin, a line each.
func (f *fleet) explain(id string) string {
	f.Helper()
	synctest.Wait()
	x, err := f.hub.ExplainDevice(context.Background(), enginetest.Owner(), twinID(id))
	if err != nil {
		f.Fatal(err)
	}
	var b strings.Builder
	for _, g := range x.Configurations {
		fmt.Fprintf(&b, "%s %d rev%d %v %s %s\n", g.ID, g.Priority, g.Revision, g.Matches, g.Status, g.Reason)
	}
	for _, p := range x.Paths {
		if (p.Time.IsZero()) != (p.History == "") {
			f.Errorf("%+v", p)
		}
		fmt.Fprintf(&b, "%s=%s by %q: %s %s\n", p.Path, p.Value, p.Configuration, p.Principal, p.Cause)
		for _, l := range p.Lost {
			fmt.Fprintf(&b, "  not %s %s=%s: %s\n", l.Configuration, l.Path, l.Value, l.Reason)
		}
	}
	return b.String()
}

func (f *fleet) wantText(what, got, want string) {
	f.Helper()
	want = strings.ReplaceAll(strings.TrimSpace(want), "\n\t\t\t", "\n") + "\n"
	if got != want {
		f.Errorf("%s:\n%s\nexpected:\n%s", what, got, want)
	}
}

func TestExplainDevice(t *testing.T) {
	withFleet(t, func(t *testing.T, f *fleet) {
		ctx := context.Background()
		f.device("d1", `{"site":"lyon"}`)
		f.patch("d1", "", `{"own":{"a":1},"rate":7}`)
		job := enginetest.Owner()
		job.Cause = "job:spring"
		if _, err := f.hub.PatchTwin(ctx, job, twinID("d1"), engine.TwinUpdate{Desired: []byte(`{"own":{"b":2}}`)}, engine.IfMatch{}); err != nil {
			t.Fatal(err)
		}
		f.put("low", 1, "*", `{"properties.desired":{"rate":1,"net":{"mtu":1500}}}`)
		f.put("high", 2, "tags.site = 'lyon'", `{"properties.desired":{"rate":2,"net":9,"gone":null}}`)
		f.put("mid", 1, "tags.site = 'lyon'", `{"properties.desired.rate":3}`)
		f.put("none", 5, "tags.site = 'oslo'", `{"properties.desired.rate":5}`)
		f.wantText("it is explained", f.explain("d1"), `
			high 2 rev1 true Applied 
			mid 1 rev1 true Targeted all that it would set is set by stronger ones
			low 1 rev1 true Targeted all that it would set is set by stronger ones
			gone= by "high":  
			net=9 by "high": local:uid=0 configuration:high
			  not low net.mtu=1500: high sets net, which lies above it, and its priority is higher
			own.a=1 by "": local:uid=0 
			own.b=2 by "": local:uid=0 job:spring
			rate=2 by "high": local:uid=0 configuration:high
			  not mid rate=3: high sets this path, and its priority is higher
			  not low rate=1: high sets this path, and its priority is higher`)

		what, err := f.hub.WhatIf(ctx, enginetest.Owner(), twinID("d1"), []byte(`{"site":"oslo"}`))
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		fmt.Fprintf(&b, "gains %v, loses %v\n", what.Gained, what.Lost)
		for _, p := range what.Paths {
			fmt.Fprintf(&b, "%s: %s -> %s by %q\n", p.Path, p.Before, p.After, p.Configuration)
		}
		f.wantText("with another tag", b.String(), `
			gains [none], loses [high mid]
			net: 9 ->  by ""
			net.mtu:  -> 1500 by "low"
			rate: 2 -> 5 by "none"`)
		f.patch("d1", `{"site":"oslo"}`, "") // and so it comes
		f.want("d1", `{"net":{"mtu":1500},"own":{"a":1,"b":2},"rate":5} low=Applied none=Applied`)

		_, err = f.hub.WhatIf(ctx, enginetest.Owner(), twinID("d1"), []byte(`{"a b":1}`))
		wantCode(t, err, engine.CodeArgumentInvalid)
		_, err = f.hub.WhatIf(ctx, enginetest.Owner(), twinID("d1"), []byte(`[]`))
		wantCode(t, err, engine.CodeArgumentInvalid)
		_, err = f.hub.WhatIf(ctx, enginetest.Owner(), twinID("nobody"), []byte(`{}`))
		wantCode(t, err, engine.CodeDeviceNotFound)
		_, err = f.hub.ExplainDevice(ctx, engine.Caller{}, twinID("d1"))
		wantCode(t, err, engine.CodeForbidden)
	})
}

// A configuration that the twin does not take says why.
func TestExplainWhatIsNotTaken(t *testing.T) {
	withFleet(t, func(t *testing.T, f *fleet) {
		f.device("d1", "")
		text := strings.Repeat("x", 4000)
		f.put("large", 2, "*", fmt.Sprintf(`{"properties.desired":{"a":%q,"b":%q,"c":%q,"d":%q,"e":%q}}`, text, text, text, text, text))
		f.put("more", 1, "*", fmt.Sprintf(`{"properties.desired":{"f":%q,"g":%q,"h":%q,"i":%q}}`, text, text, text, text))
		f.put("small", 0, "*", `{"properties.desired.s":1}`)
		synctest.Wait()
		x, err := f.hub.ExplainDevice(context.Background(), enginetest.Owner(), twinID("d1"))
		if err != nil {
			t.Fatal(err)
		}
		if len(x.Configurations) != 3 || x.Configurations[1].ID != "more" || x.Configurations[1].Status != "Targeted" || !strings.Contains(x.Configurations[1].Reason, "the twin does not take it: desired") || !strings.HasPrefix(x.Error, "more: the twin does not take it: ") {
			t.Errorf("%+v", x.Configurations)
		}
		if x.Configurations[0].Status != "Applied" || x.Configurations[2].Status != "Applied" {
			t.Errorf("%+v", x.Configurations)
		}
	}, enginetest.Azure)
}
