package engine_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// attach makes parent the parent of an edge device; nil detaches it.
func attach(ctx context.Context, h *engine.Hub, id string, parent *engine.Identity) error {
	i, err := h.Identity(ctx, enginetest.Owner(), engine.TwinID{DeviceID: id})
	if err != nil {
		return err
	}
	i.ParentScopes = nil
	if parent != nil {
		i.ParentScopes = []string{parent.DeviceScope}
	}
	_, err = h.UpdateIdentity(ctx, enginetest.Owner(), i, anyETag)
	return err
}

func TestEdgeDevicesMakeNoCircle(t *testing.T) {
	h := enginetest.New(t)
	ctx, owner := t.Context(), enginetest.Owner()
	a := mustCreate(t, h, engine.Identity{DeviceID: "a", Edge: true})
	b := mustCreate(t, h, engine.Identity{DeviceID: "b", Edge: true, ParentScopes: []string{a.DeviceScope}})
	c := mustCreate(t, h, engine.Identity{DeviceID: "c", Edge: true, ParentScopes: []string{b.DeviceScope}})
	for name, parent := range map[string]engine.Identity{"itself": a, "its child": b, "its grandchild": c} {
		err := attach(ctx, h, "a", &parent)
		wantCode(t, err, engine.CodeInvalidDeviceScope)
		if err != nil && !strings.Contains(err.Error(), "itself") && !strings.Contains(err.Error(), "its own") {
			t.Errorf("below %s: %v", name, err)
		}
	}
	bulk, err := h.Identity(ctx, owner, a.ID())
	if err != nil {
		t.Fatal(err)
	}
	bulk.ParentScopes = []string{c.DeviceScope}
	failed, err := h.Bulk(ctx, owner, []engine.BulkItem{{Identity: bulk, Mode: engine.ImportUpdate}})
	if err != nil || len(failed) != 1 || failed[0].Err.Code != engine.CodeInvalidDeviceScope {
		t.Errorf("in bulk: %+v, %v", failed, err)
	}
	// Turned round by detaching first.
	if err := attach(ctx, h, "b", nil); err != nil {
		t.Fatal(err)
	}
	if err := attach(ctx, h, "a", &c); err != nil {
		t.Error(err)
	}
	wantCode(t, attach(ctx, h, "b", &a), engine.CodeInvalidDeviceScope)
}

// A device keeps its parent, and its children their scope, while it is no edge
// device: becoming one again must not close a circle either.
func TestEdgeDeviceAgainMakesNoCircle(t *testing.T) {
	h := enginetest.New(t)
	ctx, owner := t.Context(), enginetest.Owner()
	mustCreate(t, h, engine.Identity{DeviceID: "a"})
	update := func(i engine.Identity) (engine.Identity, error) { return h.UpdateIdentity(ctx, owner, i, anyETag) }
	a, err := update(engine.Identity{DeviceID: "a", Edge: true}) // its scope has no ticks, and returns
	if err != nil {
		t.Fatal(err)
	}
	b := mustCreate(t, h, engine.Identity{DeviceID: "b", Edge: true, ParentScopes: []string{a.DeviceScope}})
	if _, err := update(engine.Identity{DeviceID: "a"}); err != nil {
		t.Fatal(err)
	}
	if _, err := update(engine.Identity{DeviceID: "a", DeviceScope: b.DeviceScope}); err != nil {
		t.Fatal(err)
	}
	_, err = update(engine.Identity{DeviceID: "a", Edge: true, ParentScopes: []string{b.DeviceScope}})
	wantCode(t, err, engine.CodeInvalidDeviceScope)
	if _, err := update(engine.Identity{DeviceID: "a", Edge: true}); err != nil {
		t.Error(err)
	}
}

func TestEdgeLayers(t *testing.T) {
	h := enginetest.New(t)
	ctx := t.Context()
	most := h.Limits().EdgeLayers
	chain := func(name string, n int) []engine.Identity {
		var list []engine.Identity
		for i := range n {
			e := engine.Identity{DeviceID: fmt.Sprint(name, i), Edge: true}
			if i > 0 {
				e.ParentScopes = []string{list[i-1].DeviceScope}
			}
			list = append(list, mustCreate(t, h, e))
		}
		return list
	}
	whole := chain("w", most+1)
	last := whole[most]
	_, err := h.CreateIdentity(ctx, enginetest.Owner(), engine.Identity{DeviceID: "deep", Edge: true, ParentScopes: []string{last.DeviceScope}})
	wantCode(t, err, engine.CodeInvalidDeviceScope)
	mustCreate(t, h, engine.Identity{DeviceID: "leaf", DeviceScope: last.DeviceScope}) // is no layer

	half := chain("h", 3)
	mustCreate(t, h, engine.Identity{DeviceID: "leaf2", DeviceScope: half[2].DeviceScope})
	wantCode(t, attach(ctx, h, "h0", &whole[most-2]), engine.CodeInvalidDeviceScope)
	if err := attach(ctx, h, "h0", &whole[most-3]); err != nil {
		t.Error(err)
	}
	// Within its own tree it counts where it will be.
	if err := attach(ctx, h, "h0", &whole[0]); err != nil {
		t.Error(err)
	}
}

// Two changes that are right by themselves, and together make a circle.
func TestEdgeParentsAtOnce(t *testing.T) {
	h := enginetest.New(t)
	ctx := t.Context()
	for n := range 50 {
		a := mustCreate(t, h, engine.Identity{DeviceID: fmt.Sprint("a", n), Edge: true})
		b := mustCreate(t, h, engine.Identity{DeviceID: fmt.Sprint("b", n), Edge: true})
		var errs [2]error
		var both sync.WaitGroup
		both.Go(func() { errs[0] = attach(ctx, h, a.DeviceID, &b) })
		both.Go(func() { errs[1] = attach(ctx, h, b.DeviceID, &a) })
		both.Wait()
		refused := errs[0]
		if refused == nil {
			refused = errs[1]
		}
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("of two changes at once: %v, %v; want one to pass", errs[0], errs[1])
		}
		wantCode(t, refused, engine.CodeInvalidDeviceScope)
	}
}
