package engine_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
)

var anyETag = engine.IfMatch{Present: true, Any: true}

func key(n int) auth.Secret {
	return auth.Secret(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", n))))
}

func TestIdentityRules(t *testing.T) {
	h := enginetest.New(t)
	sas := func(a, b auth.Secret) engine.Authentication {
		return engine.Authentication{Type: engine.AuthSAS, PrimaryKey: a, SecondaryKey: b}
	}
	thumb := func(s string) engine.Authentication {
		return engine.Authentication{Type: engine.AuthSelfSigned, PrimaryThumbprint: s}
	}
	for _, c := range []struct {
		name string
		i    engine.Identity
		want engine.Code // CodeInternal: accepted
	}{
		{"every mark", engine.Identity{DeviceID: "a-:.+%_#*?!(),=@;$'"}, 0},
		{"empty id", engine.Identity{}, engine.CodeArgumentNull},
		{"space", engine.Identity{DeviceID: "a b"}, engine.CodeArgumentInvalid},
		{"slash", engine.Identity{DeviceID: "a/b"}, engine.CodeArgumentInvalid},
		{"not ASCII", engine.Identity{DeviceID: "ä"}, engine.CodeArgumentInvalid},
		{"128 characters", engine.Identity{DeviceID: strings.Repeat("x", 128)}, 0},
		{"129 characters", engine.Identity{DeviceID: strings.Repeat("x", 129)}, engine.CodeArgumentInvalid},
		{"16-byte keys", engine.Identity{DeviceID: "k16", Authentication: sas(key(16), key(16))}, 0},
		{"64-byte keys", engine.Identity{DeviceID: "k64", Authentication: sas(key(64), key(64))}, 0},
		{"8-byte key", engine.Identity{DeviceID: "k8", Authentication: sas(key(8), key(8))}, engine.CodeArgumentInvalid},
		{"65-byte key", engine.Identity{DeviceID: "k65", Authentication: sas(key(65), key(65))}, engine.CodeArgumentInvalid},
		{"one key", engine.Identity{DeviceID: "k1", Authentication: sas(key(32), "")}, engine.CodeArgumentInvalid},
		{"not base64", engine.Identity{DeviceID: "kb", Authentication: sas("no base64!", "no base64!")}, engine.CodeArgumentInvalid},
		{"type none", engine.Identity{DeviceID: "n", Authentication: engine.Authentication{Type: engine.AuthNone}}, engine.CodeArgumentInvalid},
		{"type unknown", engine.Identity{DeviceID: "u", Authentication: engine.Authentication{Type: "magic"}}, engine.CodeArgumentInvalid},
		{"thumbprint with colons", engine.Identity{DeviceID: "t1", Authentication: thumb("aa:bb")}, engine.CodeArgumentInvalid},
		{"SHA-1 thumbprint", engine.Identity{DeviceID: "t2", Authentication: thumb(strings.Repeat("aB", 20))}, 0},
		{"SHA-256 thumbprint", engine.Identity{DeviceID: "t3", Authentication: thumb(strings.Repeat("0f", 32))}, 0},
		{"no thumbprint", engine.Identity{DeviceID: "t4", Authentication: thumb("")}, 0},
		{"long reason", engine.Identity{DeviceID: "r", StatusReason: strings.Repeat("x", 129)}, engine.CodeArgumentInvalid},
		{"two parents", engine.Identity{DeviceID: "p", Edge: true, ParentScopes: []string{"a", "b"}}, engine.CodeInvalidDeviceScope},
		{"module without device", engine.Identity{DeviceID: "ghost", ModuleID: "m"}, engine.CodeDeviceNotFound},
		{"system module", engine.Identity{DeviceID: "k16", ModuleID: "$x"}, engine.CodeArgumentInvalid},
		{"module of type none", engine.Identity{DeviceID: "k16", ModuleID: "m", Authentication: engine.Authentication{Type: engine.AuthNone}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			made, err := h.CreateIdentity(t.Context(), enginetest.Owner(), c.i)
			if c.want != 0 {
				wantCode(t, err, c.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			read, err := h.Identity(t.Context(), enginetest.Owner(), c.i.ID())
			if err != nil {
				t.Fatal(err)
			}
			if read.ETag != made.ETag || read.GenerationID != made.GenerationID || read.Authentication != made.Authentication {
				t.Errorf("read %+v, made %+v", read, made)
			}
			if c.i.Authentication.PrimaryKey != "" && read.Authentication.PrimaryKey != c.i.Authentication.PrimaryKey {
				t.Error("the key was not kept as it was")
			}
			if made.Authentication.Type == engine.AuthSAS && made.Authentication.PrimaryKey == made.Authentication.SecondaryKey && c.i.Authentication.PrimaryKey == "" {
				t.Error("generated keys are the same")
			}
		})
	}
}

func TestIdentityLifeCycle(t *testing.T) {
	h := enginetest.New(t)
	ctx, owner := t.Context(), enginetest.Owner()
	first := mustCreate(t, h, engine.Identity{DeviceID: "d"})
	_, err := h.CreateIdentity(ctx, owner, engine.Identity{DeviceID: "d"})
	wantCode(t, err, engine.CodeDeviceAlreadyExists)

	_, err = h.UpdateIdentity(ctx, owner, engine.Identity{DeviceID: "d"}, engine.IfMatch{})
	wantCode(t, err, engine.CodePreconditionFailed)
	_, err = h.UpdateIdentity(ctx, owner, engine.Identity{DeviceID: "d"}, engine.IfMatch{Present: true, ETag: "stale"})
	wantCode(t, err, engine.CodePreconditionFailed)
	_, err = h.UpdateIdentity(ctx, owner, engine.Identity{DeviceID: "ghost"}, anyETag)
	wantCode(t, err, engine.CodeDeviceNotFound)

	second, err := h.UpdateIdentity(ctx, owner, engine.Identity{DeviceID: "d", Disabled: true, StatusReason: "lost"}, engine.IfMatch{Present: true, ETag: first.ETag})
	if err != nil {
		t.Fatal(err)
	}
	if second.ETag == first.ETag || second.GenerationID != first.GenerationID || second.StatusUpdated.IsZero() {
		t.Errorf("after update: %+v", second)
	}
	if second.Authentication.PrimaryKey == first.Authentication.PrimaryKey {
		t.Error("a replace without keys kept the old ones")
	}
	s, err := h.Statistics(ctx, owner)
	if err != nil || s.Devices != 1 || s.Disabled != 1 || s.Enabled != 0 {
		t.Errorf("statistics %+v, %v", s, err)
	}

	wantCode(t, h.DeleteIdentity(ctx, owner, first.ID(), engine.IfMatch{}), engine.CodePreconditionFailed)
	wantCode(t, h.DeleteIdentity(ctx, owner, first.ID(), engine.IfMatch{Present: true, ETag: first.ETag}), engine.CodePreconditionFailed)
	if err := h.DeleteIdentity(ctx, owner, first.ID(), anyETag); err != nil {
		t.Fatal(err)
	}
	wantCode(t, h.DeleteIdentity(ctx, owner, first.ID(), anyETag), engine.CodeDeviceNotFound)
	_, err = h.Twin(ctx, owner, first.ID())
	wantCode(t, err, engine.CodeDeviceNotFound)
	again := mustCreate(t, h, engine.Identity{DeviceID: "d"})
	if again.GenerationID == first.GenerationID {
		t.Error("the generation id did not change")
	}
	if s, _ := h.Statistics(ctx, owner); s.Devices != 1 || s.Disabled != 0 {
		t.Errorf("statistics %+v", s)
	}
}

func TestEdgeDevicesAndScopes(t *testing.T) {
	h := enginetest.New(t)
	ctx, owner := t.Context(), enginetest.Owner()
	edge := mustCreate(t, h, engine.Identity{DeviceID: "gate-way", Edge: true, DeviceScope: "mine"})
	if !strings.HasPrefix(edge.DeviceScope, "ms-azure-iot-edge://gate-way-") {
		t.Fatalf("scope %q", edge.DeviceScope)
	}
	modules, err := h.Modules(ctx, owner, "gate-way")
	if err != nil || len(modules) != 2 || modules[0].ModuleID != "$edgeAgent" || modules[0].Authentication.Type != engine.AuthNone || modules[1].ManagedBy != "iotEdge" {
		t.Fatalf("modules %+v, %v", modules, err)
	}
	leaf := mustCreate(t, h, engine.Identity{DeviceID: "leaf", DeviceScope: edge.DeviceScope})
	if len(leaf.ParentScopes) != 1 || leaf.ParentScopes[0] != edge.DeviceScope {
		t.Errorf("leaf %+v", leaf)
	}
	alone := mustCreate(t, h, engine.Identity{DeviceID: "alone", ParentScopes: []string{edge.DeviceScope}})
	if alone.ParentScopes != nil || alone.DeviceScope != "" {
		t.Errorf("a leaf with parentScopes alone was attached: %+v", alone)
	}
	child := mustCreate(t, h, engine.Identity{DeviceID: "child", Edge: true, ParentScopes: []string{edge.DeviceScope}})
	if len(child.ParentScopes) != 1 {
		t.Errorf("edge child %+v", child)
	}
	_, err = h.CreateIdentity(ctx, owner, engine.Identity{DeviceID: "x", DeviceScope: "ms-azure-iot-edge://ghost-1"})
	wantCode(t, err, engine.CodeInvalidDeviceScope)
	_, err = h.UpdateIdentity(ctx, owner, engine.Identity{DeviceID: "gate-way", Edge: true}, anyETag)
	wantCode(t, err, engine.CodeInvalidDeviceScope)
	off, err := h.UpdateIdentity(ctx, owner, engine.Identity{DeviceID: "gate-way"}, anyETag)
	if err != nil || off.DeviceScope != "" {
		t.Fatalf("edge off: %+v, %v", off, err)
	}
	if modules, _ := h.Modules(ctx, owner, "gate-way"); len(modules) != 0 {
		t.Errorf("system modules stayed: %+v", modules)
	}
	on, err := h.UpdateIdentity(ctx, owner, engine.Identity{DeviceID: "gate-way", Edge: true}, anyETag)
	if err != nil || on.DeviceScope != "ms-azure-iot-edge://gate-way" {
		t.Fatalf("edge on: %+v, %v", on, err)
	}
}

func TestChildOfADeletedParentCanBeDisabled(t *testing.T) {
	h := enginetest.New(t)
	owner := enginetest.Owner()
	parent := mustCreate(t, h, engine.Identity{DeviceID: "edge", Edge: true})
	for _, child := range []engine.Identity{{DeviceID: "leaf", DeviceScope: parent.DeviceScope}, {DeviceID: "nested", Edge: true, ParentScopes: []string{parent.DeviceScope}}} {
		mustCreate(t, h, child)
	}
	if err := h.DeleteIdentity(t.Context(), owner, parent.ID(), anyETag); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"leaf", "nested"} {
		i, err := h.Identity(t.Context(), owner, engine.TwinID{DeviceID: id})
		if err != nil {
			t.Fatal(err)
		}
		i.Disabled = true
		after, err := h.UpdateIdentity(t.Context(), owner, i, anyETag)
		if err != nil || !after.Disabled || len(after.ParentScopes) != 1 {
			t.Errorf("%s: %+v, %v", id, after, err)
		}
	}
	_, err := h.CreateIdentity(t.Context(), owner, engine.Identity{DeviceID: "late", DeviceScope: parent.DeviceScope})
	wantCode(t, err, engine.CodeInvalidDeviceScope)
}

func TestListDevices(t *testing.T) {
	h := enginetest.New(t)
	for _, id := range []string{"b", "a", "b2", "c", "b1"} {
		mustCreate(t, h, engine.Identity{DeviceID: id})
		mustCreate(t, h, engine.Identity{DeviceID: id, ModuleID: "m"})
	}
	f := func(prefix string, limit int, want ...string) {
		t.Helper()
		var got []string
		after := ""
		for {
			list, next, err := h.Devices(t.Context(), enginetest.Owner(), prefix, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			if len(list) > limit {
				t.Fatalf("%d devices in a page of %d", len(list), limit)
			}
			for _, i := range list {
				got = append(got, i.DeviceID)
			}
			if next == "" {
				break
			}
			after = next
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("prefix %q, pages of %d: got %v, want %v", prefix, limit, got, want)
		}
	}
	f("", 100, "a", "b", "b1", "b2", "c")
	f("", 2, "a", "b", "b1", "b2", "c")
	f("b", 1, "b", "b1", "b2")
	f("b", 100, "b", "b1", "b2")
	f("zz", 100)
}

func TestBulk(t *testing.T) {
	h := enginetest.New(t)
	ctx, owner := t.Context(), enginetest.Owner()
	mustCreate(t, h, engine.Identity{DeviceID: "there"})
	item := func(id string, m engine.ImportMode) engine.BulkItem {
		return engine.BulkItem{Identity: engine.Identity{DeviceID: id}, Mode: m}
	}
	_, err := h.Bulk(ctx, owner, nil)
	wantCode(t, err, engine.CodeArgumentInvalid)
	many := make([]engine.BulkItem, 101)
	for i := range many {
		many[i] = item(fmt.Sprint("n", i), engine.ImportCreate)
	}
	_, err = h.Bulk(ctx, owner, many)
	wantCode(t, err, engine.CodeTooManyDevices)
	failed, err := h.Bulk(ctx, owner, many[:100])
	if err != nil || len(failed) != 0 {
		t.Fatalf("100 creates: %v, %v", failed, err)
	}
	withTwin := item("with-twin", engine.ImportCreate)
	withTwin.Tags, withTwin.Desired = []byte(`{"site":"A"}`), []byte(`{"n":1}`)
	failed, err = h.Bulk(ctx, owner, []engine.BulkItem{
		item("there", engine.ImportCreate),
		item("twice", engine.ImportCreate), item("twice", engine.ImportCreate),
		item("ghost", engine.ImportUpdate),
		item("n1", engine.ImportUpdateIfMatch),
		item("n2", engine.ImportDelete),
		item("n3", engine.ImportCreateOrUpdate), item("new", engine.ImportCreateOrUpdate),
		withTwin,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]engine.Code{
		"there": engine.CodeDeviceAlreadyExists, "twice": engine.CodeDeviceDefinedMultipleTimes,
		"ghost": engine.CodeDeviceNotFound, "n1": engine.CodePreconditionFailed,
	}
	for _, f := range failed {
		if want[f.ID.DeviceID] != f.Err.Code {
			t.Errorf("%s: %v", f.ID, f.Err)
		}
	}
	if len(failed) != 5 {
		t.Errorf("%d failures: %+v", len(failed), failed)
	}
	tw, err := h.Twin(ctx, owner, engine.TwinID{DeviceID: "with-twin"})
	if err != nil || string(tw.Tags.JSON(nil, false)) != `{"site":"A"}` || tw.Desired.Version() != 2 {
		t.Errorf("twin made in bulk: %+v, %v", tw, err)
	}
	if _, err := h.Identity(ctx, owner, engine.TwinID{DeviceID: "n2"}); err == nil {
		t.Error("n2 was not deleted")
	}
}

func TestBulkKeepsTheOrderOfADevice(t *testing.T) {
	h := enginetest.New(t)
	var create, remove []engine.BulkItem
	for n := range 25 {
		d := fmt.Sprint("d", n)
		for _, m := range []string{"", "m1", "m2"} {
			create = append(create, engine.BulkItem{Identity: engine.Identity{DeviceID: d, ModuleID: m}, Mode: engine.ImportCreateOrUpdate})
		}
		for _, m := range []string{"m1", ""} { // m2 goes with its device
			remove = append(remove, engine.BulkItem{Identity: engine.Identity{DeviceID: d, ModuleID: m}, Mode: engine.ImportDelete})
		}
	}
	for _, items := range [][]engine.BulkItem{create, remove, create, create} {
		failed, err := h.Bulk(t.Context(), enginetest.Owner(), items)
		if err != nil || len(failed) > 0 {
			t.Fatalf("%d of %d failed, the first: %+v; %v", len(failed), len(items), failed[0], err)
		}
	}
}

func TestRegenerateKeys(t *testing.T) {
	h := enginetest.New(t)
	before := mustCreate(t, h, engine.Identity{DeviceID: "d"})
	changed, failed, err := h.RegenerateKeys(t.Context(), enginetest.Owner(), engine.KeySecondary, []engine.TwinID{{DeviceID: "d"}, {DeviceID: "ghost"}})
	if err != nil || len(changed) != 1 || len(failed) != 1 || failed[0].Err.Code != engine.CodeDeviceNotFound {
		t.Fatalf("%+v, %+v, %v", changed, failed, err)
	}
	a, b := before.Authentication, changed[0].Authentication
	if a.PrimaryKey != b.PrimaryKey || a.SecondaryKey == b.SecondaryKey {
		t.Error("not exactly the secondary key was changed")
	}
}

func TestPermissions(t *testing.T) {
	h := enginetest.New(t)
	mustCreate(t, h, engine.Identity{DeviceID: "d"})
	caller := func(p auth.Permission) engine.Caller {
		return engine.Caller{Principal: auth.Principal{Kind: auth.Policy, Name: "p", Permissions: p}}
	}
	id := engine.TwinID{DeviceID: "d"}
	reader, service := caller(auth.RegistryRead), caller(auth.ServiceConnect)
	_, err := h.Identity(t.Context(), reader, id)
	if err != nil {
		t.Error(err)
	}
	_, err = h.CreateIdentity(t.Context(), reader, engine.Identity{DeviceID: "e"})
	wantCode(t, err, engine.CodeForbidden)
	_, err = h.Twin(t.Context(), caller(auth.RegistryWrite), id)
	wantCode(t, err, engine.CodeForbidden)
	if _, err := h.Twin(t.Context(), service, id); err != nil {
		t.Error(err)
	}
	_, err = h.Policies(t.Context(), service)
	wantCode(t, err, engine.CodeForbidden)
	if _, err := h.CreateIdentity(t.Context(), enginetest.Owner(), engine.Identity{DeviceID: "flush"}); err != nil {
		t.Fatal(err)
	}
	entries, _, err := h.Audit(t.Context(), enginetest.Owner(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, e := range entries {
		if e.Outcome == "refused" && e.Code == "OperationNotAllowed" {
			refused++
		}
	}
	if refused != 3 {
		t.Errorf("%d refused calls in the audit, want 3: %+v", refused, entries)
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	h := enginetest.New(t, enginetest.Dir(dir))
	made := mustCreate(t, h, engine.Identity{DeviceID: "d"})
	policy, err := h.Policy(t.Context(), enginetest.Owner(), "service")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	again := enginetest.New(t, enginetest.Dir(dir))
	read, err := again.Identity(t.Context(), enginetest.Owner(), made.ID())
	if err != nil || read.Authentication != made.Authentication || read.ETag != made.ETag {
		t.Fatalf("%+v, %v", read, err)
	}
	same, err := again.Policy(t.Context(), enginetest.Owner(), "service")
	if err != nil || same != policy {
		t.Fatalf("%+v, %v", same, err)
	}
	if e := new(engine.Error); !errors.As(again.DeleteIdentity(t.Context(), engine.Caller{}, made.ID(), anyETag), &e) {
		t.Error("a caller without permissions deleted a device")
	}
}
