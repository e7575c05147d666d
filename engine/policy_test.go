package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// TestPolicyTakesEffectWithoutItsCaller cancels callers while their change is
// on its way: what is stored must be what authenticates.
func TestPolicyTakesEffectWithoutItsCaller(t *testing.T) {
	h := openHub(t)
	for i := range 40 {
		ctx, cancel := context.WithCancel(t.Context())
		name := fmt.Sprint("p", i)
		_, err := h.changePolicy(ctx, owner, opPolicyWrite, name, func(auth.SharedAccessPolicy, bool) (auth.SharedAccessPolicy, error) {
			go cancel()
			return auth.SharedAccessPolicy{Name: name, Permissions: auth.ServiceConnect, PrimaryKey: auth.NewKey(), SecondaryKey: auth.NewKey()}, nil
		})
		cancel()
		_ = err // whether it came in time is chance
	}
	// A change that everybody waits for: those before it have settled.
	if _, err := h.CreateIdentity(t.Context(), owner, Identity{DeviceID: "last"}); err != nil {
		t.Fatal(err)
	}
	stored := map[string]bool{}
	err := h.db.View(t.Context(), func(r storage.Reader) error {
		for item, err := range policyTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			parts, err := item.Key.Parts()
			if err != nil {
				return err
			}
			stored[parts[0].(string)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	effective := *h.policies.Load()
	if len(effective) != len(stored) {
		t.Errorf("%d policies are stored, %d authenticate", len(stored), len(effective))
	}
	for name := range stored {
		if _, ok := effective[name]; !ok {
			t.Errorf("policy %s is stored and does not authenticate", name)
		}
	}
}

func TestPolicyManageGivesNothingMore(t *testing.T) {
	h := openHub(t)
	weak := Caller{Principal: auth.Principal{Kind: auth.Policy, Name: "manager", Permissions: auth.PolicyManage}}
	if _, err := h.PutPolicy(t.Context(), owner, auth.SharedAccessPolicy{Name: "ops", Permissions: auth.ServiceConnect}); err != nil {
		t.Fatal(err)
	}
	f := func(what string, call func(c Caller) error) {
		t.Helper()
		if err := call(weak); err == nil || AsError(err).Code != CodeForbidden {
			t.Errorf("%s by a caller who holds less: %v", what, err)
		}
		if err := call(owner); err != nil {
			t.Errorf("%s by the owner: %v", what, err)
		}
	}
	f("reading keys", func(c Caller) error { _, err := h.Policy(t.Context(), c, "ops"); return err })
	f("a connection string", func(c Caller) error {
		_, err := h.PolicyConnectionString(t.Context(), c, "ops", KeyPrimary)
		return err
	})
	f("rotating", func(c Caller) error { _, err := h.RotatePolicyKey(t.Context(), c, "ops", KeyBoth); return err })
	f("narrowing", func(c Caller) error {
		p := auth.SharedAccessPolicy{Name: "ops", Permissions: auth.PolicyManage}
		_, err := h.PutPolicy(t.Context(), c, p)
		if err == nil {
			p.Permissions = auth.ServiceConnect
			_, err = h.PutPolicy(t.Context(), c, p)
		}
		return err
	})
	f("deleting", func(c Caller) error { return h.DeletePolicy(t.Context(), c, "ops") })
	entries, _, err := h.Audit(t.Context(), owner, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, e := range entries {
		if e.Outcome == outcomeRefused && e.Principal == weak.String() && e.Target == "ops" && e.Code == CodeForbidden.String() {
			refused++
		}
	}
	if refused != 5 {
		t.Errorf("the audit has %d of 5 refusals", refused)
	}
	list, err := h.Policies(t.Context(), weak)
	if err != nil || len(list) != 5 {
		t.Fatalf("%d policies, %v", len(list), err)
	}
	for _, p := range list {
		if p.PrimaryKey != "" || p.SecondaryKey != "" {
			t.Errorf("the list shows keys of %s", p.Name)
		}
	}
}

// A hub that came up without room at its first start would be without policies
// until the next one, whatever room there is meanwhile.
func TestFirstStartNeedsRoom(t *testing.T) {
	o := Options{Storage: storage.Options{Dir: t.TempDir(), Memory: 64 << 20, Reserve: 1 << 60}}
	h, err := Open(t.Context(), o)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeReadOnly || !errors.Is(err, storage.ErrReserve) {
		if h != nil {
			_ = h.Close()
		}
		t.Fatalf("opened with %v, want the reserve to be told", err)
	}
	o.Storage.Reserve = 1
	if h, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if list, err := h.Policies(t.Context(), owner); err != nil || len(list) != len(auth.StandardPolicies()) {
		t.Errorf("%d policies, %v", len(list), err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	o.Storage.Reserve = 1 << 60 // who exists already is served without room
	if h, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
}
