package engine_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// configurationChanges are changes, each of which can be made again.
var configurationChanges = []func(f *fleet){
	func(f *fleet) { f.put("low", 1, "*", `{"properties.desired":{"rate":1,"extra":true}}`) },
	func(f *fleet) {
		f.put("high", 2, "tags.site = 'lyon'", `{"properties.desired":{"rate":2,"gone":null}}`)
	},
	func(f *fleet) { f.patch("d1", `{"site":"oslo"}`, "") },
	func(f *fleet) { f.patch("d2", "", `{"rate":9,"gone":1,"own":1}`) },
	func(f *fleet) {
		f.put("high", 2, "tags.site = 'lyon'", `{"properties.desired":{"rate":3,"a":{"b":1}}}`)
	},
	func(f *fleet) {
		err := f.hub.DeleteIdentity(context.Background(), enginetest.Owner(), twinID("d3"), engine.ParseIfMatch("*"))
		if err != nil && engine.AsError(err).Code != engine.CodeDeviceNotFound {
			f.Fatal(err)
		}
	},
	func(f *fleet) {
		content := engine.ConfigurationContent{Modules: []byte(`{"$edgeAgent":{"properties.desired":{"x":1}}}`)}
		if err := f.hub.ApplyConfigurationContent(context.Background(), enginetest.Owner(), "e1", content); err != nil {
			f.Fatal(err)
		}
	},
	func(f *fleet) {
		if _, err := f.hub.RollbackConfiguration(context.Background(), enginetest.Owner(), "high", 1, engine.IfMatch{}); err != nil {
			f.Fatal(err)
		}
	},
	func(f *fleet) {
		f.spread("waves", "tags.site = 'lyon'", `{"properties.desired.w":1}`, `{"waves":[{"size":"1"},{"size":"100%"}]}`)
	},
	func(f *fleet) {
		err := f.hub.DeleteConfiguration(context.Background(), enginetest.Owner(), "low", engine.IfMatch{})
		if err != nil && engine.AsError(err).Code != engine.CodeConfigurationNotFound {
			f.Fatal(err)
		}
	},
}

// ends is what all twins and configurations have come to.
func (f *fleet) ends(devices int) string {
	f.Helper()
	var b strings.Builder
	for i := range devices {
		id := fmt.Sprint("d", i)
		if _, err := f.hub.Twin(context.Background(), enginetest.Owner(), twinID(id)); err == nil {
			fmt.Fprintln(&b, id, f.state(id))
		}
	}
	fmt.Fprintln(&b, "agent", f.state("e1/$edgeAgent"))
	list, _, err := f.hub.Configurations(context.Background(), enginetest.Owner(), "", 0)
	if err != nil {
		f.Fatal(err)
	}
	for _, g := range list {
		p := f.progress(g.ID)
		fmt.Fprintln(&b, g.ID, string(g.Content.Device), g.TargetCondition, p.Working, p.Targeted, p.Settled, p.Applied, p.Pending, p.Failed)
	}
	return b.String()
}

// The process ends right before and after each transaction: what a hub finds
// that is started then, with the changes that were not answered made again, ends as
// if nothing had happened.
func TestConfigurationsAfterAKillAtEachStep(t *testing.T) {
	const devices, copies = 5, 1 // copies of each step
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		type image struct {
			step, dir string
			change    int // that is being made
		}
		var images []image
		seen := map[string]int{}
		change := -1
		var mu sync.Mutex // several goroutines come to steps
		reached := func(step string) {
			mu.Lock()
			defer mu.Unlock()
			if change < 0 || seen[step] == copies {
				return
			}
			seen[step]++
			to := filepath.Join(t.TempDir(), "data")
			if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
				t.Error(err)
			}
			images = append(images, image{step, to, change})
		}
		f := openFleet(t, dir, func(o *engine.Options) { o.Reached = reached })
		for i := range devices {
			f.device(fmt.Sprint("d", i), `{"site":"lyon"}`)
		}
		mustCreate(t, f.hub, engine.Identity{DeviceID: "e1", Edge: true})
		synctest.Wait()
		for i, make := range configurationChanges {
			mu.Lock()
			change = i
			mu.Unlock()
			make(f)
			synctest.Wait()
		}
		mu.Lock()
		change = -1
		mu.Unlock()
		want := f.ends(devices)
		f.stop()
		for _, step := range []string{"put", "follow", "spread", "delete", "rollback", "apply", "rollout"} {
			for _, side := range []string{"before", "after"} {
				if name := "configuration." + step + ":" + side; seen[name] == 0 {
					t.Errorf("%s was never reached, of %v", name, slices.Sorted(maps.Keys(seen)))
				}
			}
		}
		for _, image := range images {
			g := openFleet(t, image.dir)
			time.Sleep(time.Second) // what is spread waits until queries are ready
			synctest.Wait()
			for _, make := range configurationChanges[image.change:] {
				make(g)
				synctest.Wait()
			}
			if got := g.ends(devices); got != want {
				t.Errorf("killed at %s of change %d it ends as\n%sexpected\n%s", image.step, image.change, got, want)
			}
			g.stop()
		}
		t.Logf("%d images; %s", len(images), want)
	})
}
