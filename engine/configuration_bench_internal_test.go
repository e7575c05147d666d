package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

func benchOwner() Caller {
	return Caller{Principal: auth.Principal{Kind: auth.Local, Name: "uid=0", Permissions: ^auth.Permission(0)}}
}

// benchHub is a hub with a device of 20 tags and 20 reported properties, and
// configurations of five paths each, as many of which select it as matching says.
func benchHub(b *testing.B, configurations, matching int) (*Hub, TwinID) {
	b.Helper()
	ctx := context.Background()
	h, err := Open(ctx, Options{Storage: storage.Options{Dir: b.TempDir(), Memory: 64 << 20}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = h.Close() })
	id := TwinID{DeviceID: "d1"}
	if _, err := h.CreateIdentity(ctx, benchOwner(), Identity{DeviceID: id.DeviceID}); err != nil {
		b.Fatal(err)
	}
	tags := map[string]any{"site": "lyon"}
	for i := range 20 {
		tags[fmt.Sprint("tag", i)] = fmt.Sprint("value ", i)
	}
	text, err := json.Marshal(tags)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := h.PatchTwin(ctx, benchOwner(), id, TwinUpdate{Tags: text}, IfMatch{}); err != nil {
		b.Fatal(err)
	}
	for i := range configurations {
		site := "lyon"
		if i >= matching {
			site = "oslo"
		}
		g := Configuration{
			ID: fmt.Sprintf("g%d", i), Priority: i % 10, TargetCondition: fmt.Sprintf("tags.site = '%s' AND (tags.tag3 = 'value 3' OR properties.reported.fw = '%d')", site, i),
			Content: ConfigurationContent{Device: fmt.Appendf(nil, `{"properties.desired":{"common":{"rate":%d},"own%d":{"a":1,"b":"text","c":true,"d":[1,2,3]}}}`, i, i)},
		}
		if _, err := h.PutConfiguration(ctx, benchOwner(), g, IfMatch{}); err != nil {
			b.Fatal(err)
		}
	}
	return h, id
}

// What it costs to find out whether a changed twin is as 100 configurations want
// it: each change of what their conditions read, or of what they set, costs that.
func BenchmarkConfigurationsOfATwin(b *testing.B) {
	for _, matching := range []int{0, 10, 100} {
		b.Run(fmt.Sprintf("100 of which %d match", matching), func(b *testing.B) {
			h, id := benchHub(b, 100, matching)
			ctx := context.Background()
			set, err := h.configurationSet(ctx)
			if err != nil {
				b.Fatal(err)
			}
			f := &configurationFollower{hub: h, set: set}
			if err := f.configure(ctx, []TwinID{id}, "configuration.bench", nil); err != nil {
				b.Fatal(err)
			}
			err = h.view(ctx, "bench", func(r storage.Reader) error {
				for b.Loop() {
					e, err := h.evaluate(r, set, id, time.Now())
					if err != nil {
						return err
					}
					if e.changes() {
						b.Fatal("it is not as it should be")
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}

// What it costs to make 1,000 configurations and to have the whole set after each.
func BenchmarkConfigurationSet(b *testing.B) {
	for b.Loop() {
		h, _ := benchHub(b, 0, 0)
		ctx, stop := context.WithCancel(context.Background())
		var following sync.WaitGroup
		following.Go(func() { h.runConfigurations(ctx) })
		for i := range 1000 {
			g := Configuration{
				ID: fmt.Sprintf("g%d", i), Priority: i % 10, TargetCondition: fmt.Sprintf("tags.site = 'oslo' AND properties.reported.fw = '%d'", i),
				Content: ConfigurationContent{Device: fmt.Appendf(nil, `{"properties.desired":{"common":{"rate":%d},"own%d":{"a":1,"b":"text","c":true,"d":[1,2,3]}}}`, i, i)},
			}
			if _, err := h.PutConfiguration(ctx, benchOwner(), g, IfMatch{}); err != nil {
				b.Fatal(err)
			}
			if set, err := h.configurationSet(ctx); err != nil || set.member(g.ID) == nil {
				b.Fatal(err)
			}
		}
		stop()
		following.Wait()
	}
}

// What a change costs that concerns no configuration.
func BenchmarkConfigurationsPassOver(b *testing.B) {
	h, id := benchHub(b, 100, 10)
	set, err := h.configurationSet(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	f := &configurationFollower{hub: h, set: set}
	r := changeRecord{Kind: changeReported, DeviceID: id.DeviceID, Principal: "device:d1", Version: 7, Data: json.RawMessage(`{"temperature":21.5,"net":{"rssi":-70,"ssid":"plant"}}`), TwinVersion: 9}
	entry := r.append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := f.concerns(entry); ok {
			b.Fatal("it concerns one")
		}
	}
}
