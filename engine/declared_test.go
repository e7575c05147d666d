package engine_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

const batterySchema = `{"properties":{"battery":{"type":"number","minimum":0},"list":{"items":{"type":"string"}}},"required":["battery"]}`

func declare(t *testing.T, h *engine.Hub, d engine.DeclaredSchema) engine.DeclaredSchema {
	t.Helper()
	d, err := h.DeclareSchema(t.Context(), enginetest.Owner(), d, "")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDeclaredSchemaRejects(t *testing.T) {
	h := enginetest.New(t)
	d := enginetest.Connect(t, h, engine.TwinID{DeviceID: "d"})
	report := func(patch string) error {
		_, err := d.Session.PatchReported(t.Context(), []byte(patch), -1)
		return err
	}
	if err := report(`{"battery":"low","old":1}`); err != nil {
		t.Fatal(err)
	}
	declare(t, h, engine.DeclaredSchema{
		Mode: engine.SchemaReject, Reported: []byte(batterySchema),
		Tags:    []byte(`{"additionalProperties":false,"properties":{"site":{"enum":["A","B"]}}}`),
		Desired: []byte(`{"maxProperties":1}`),
	})
	// What was wrong before is no reason to refuse something else.
	if err := report(`{"old":2}`); err != nil {
		t.Error(err)
	}
	if err := report(`{"battery":50}`); err != nil {
		t.Error(err)
	}
	for patch, want := range map[string]string{
		`{"battery":"high"}`:     `ArgumentInvalid: reported.battery: found "high", expected number`,
		`{"battery":null}`:       `ArgumentInvalid: reported.battery: found nothing, expected a value: it is required`,
		`{"list":["a",7,"b",8]}`: `ArgumentInvalid: reported.list.1: found 7, expected string; 1 more are wrong`,
	} {
		if err := report(patch); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", patch, err, want)
		}
	}
	owner := enginetest.Owner()
	for _, u := range []engine.TwinUpdate{{Tags: []byte(`{"site":"C"}`)}, {Tags: []byte(`{"floor":1}`)}, {Desired: []byte(`{"a":1,"b":2}`)}} {
		if _, err := h.PatchTwin(t.Context(), owner, engine.TwinID{DeviceID: "d"}, u, engine.IfMatch{}); engine.AsError(err) == nil || engine.AsError(err).Code != engine.CodeArgumentInvalid {
			t.Errorf("%s%s: %v", u.Tags, u.Desired, err)
		}
	}
	patch(t, h, engine.TwinID{DeviceID: "d"}, engine.TwinUpdate{Tags: []byte(`{"site":"B"}`), Desired: []byte(`{"a":1}`)})

	// Modules have properties of their own.
	m := enginetest.Connect(t, h, engine.TwinID{DeviceID: "d", ModuleID: "m"})
	if _, err := m.Session.PatchReported(t.Context(), []byte(`{"battery":"none"}`), -1); err != nil {
		t.Error(err)
	}

	now, err := h.DeclaredSchema(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, v := range now.Violations {
		got[v.Path] = v.Rejected
		if v.Warned != 0 || v.Device != "d" || v.Last.IsZero() {
			t.Errorf("%+v", v)
		}
	}
	want := map[string]uint64{"reported.battery": 2, "reported.list.[]": 2, "tags.site": 1, "tags.floor": 1, "desired": 1}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("counted %v, want %v", got, want)
	}

	if err := h.DropDeclaredSchema(t.Context(), owner, now.ETag); err != nil {
		t.Fatal(err)
	}
	if err := report(`{"battery":"high"}`); err != nil {
		t.Error(err)
	}
	_, err = h.DeclaredSchema(t.Context(), owner)
	wantCode(t, err, engine.CodeSchemaNotFound)
	wantCode(t, h.DropDeclaredSchema(t.Context(), owner, ""), engine.CodeSchemaNotFound)
}

func TestDeclaredSchemaWarns(t *testing.T) {
	var log bytes.Buffer
	dir := t.TempDir()
	h := enginetest.New(t, enginetest.Dir(dir), enginetest.Logger(slog.New(slog.NewTextHandler(&log, nil))))
	d := enginetest.Connect(t, h, engine.TwinID{DeviceID: "d"})
	declared := declare(t, h, engine.DeclaredSchema{Reported: []byte(batterySchema)})
	if declared.Mode != engine.SchemaWarn || declared.Version != 1 {
		t.Errorf("%+v", declared)
	}
	owner := enginetest.Owner()
	_, begin, err := h.ReadEvents(t.Context(), owner, engine.EventFilter{}, "", 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{`{"battery":"low"}`, `{"other":1}`, `{"battery":"lower"}`, `{"battery":3}`} {
		if _, err := d.Session.PatchReported(t.Context(), []byte(p), -1); err != nil {
			t.Fatal(err)
		}
	}
	events, _, err := h.ReadEvents(t.Context(), owner, engine.EventFilter{Kinds: []string{"schema.*"}}, begin, 10)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, e := range events {
		var data struct {
			Violations []struct{ Path, Found, Expected string }
		}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			t.Fatal(err)
		}
		told = append(told, e.Kind+" "+e.ID.String()+" "+data.Violations[0].Path+" "+data.Violations[0].Found)
	}
	if want := []string{`schema.violated d reported.battery "low"`, `schema.violated d reported.battery "lower"`}; !slices.Equal(told, want) {
		t.Errorf("events %q, want %q", told, want)
	}
	if n := strings.Count(log.String(), "a twin is not as the declared schema says"); n != 1 {
		t.Errorf("the log says it %d times within a minute, want once:\n%s", n, log.String())
	}
	if declared, err = h.DeclaredSchema(t.Context(), owner); err != nil || len(declared.Violations) != 1 || declared.Violations[0].Warned != 2 {
		t.Errorf("%+v %v", declared.Violations, err)
	}
	totals, err := h.Status(t.Context(), owner)
	if err != nil || totals.Totals.SchemaViolations != 2 || totals.Totals.SchemaRejected != 0 {
		t.Errorf("%+v %v", totals.Totals, err)
	}

	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h = enginetest.New(t, enginetest.Dir(dir))
	d = enginetest.Connect(t, h, engine.TwinID{DeviceID: "d"})
	if _, err := d.Session.PatchReported(t.Context(), []byte(`{"battery":"lowest"}`), -1); err != nil {
		t.Fatal(err)
	}
	if declared, err = h.DeclaredSchema(t.Context(), owner); err != nil || len(declared.Violations) != 1 {
		t.Errorf("after a restart: %+v %v", declared, err)
	}
}

func TestDeclaredSchemaRefusesBadInput(t *testing.T) {
	h := enginetest.New(t)
	for name, c := range map[string]struct {
		d    engine.DeclaredSchema
		want engine.Code
	}{
		"nothing":  {engine.DeclaredSchema{}, engine.CodeArgumentNull},
		"mode":     {engine.DeclaredSchema{Tags: []byte(`{}`), Mode: "perhaps"}, engine.CodeArgumentInvalid},
		"large":    {engine.DeclaredSchema{Tags: []byte(`{"title":"` + strings.Repeat("x", 70_000) + `"}`)}, engine.CodeArgumentInvalid},
		"remote":   {engine.DeclaredSchema{Tags: []byte(`{"$ref":"http://127.0.0.1/x"}`)}, engine.CodeArgumentInvalid},
		"no JSON":  {engine.DeclaredSchema{Tags: []byte(`{`)}, engine.CodeArgumentInvalid},
		"a number": {engine.DeclaredSchema{Tags: []byte(`7`)}, engine.CodeArgumentInvalid},
	} {
		_, err := h.DeclareSchema(t.Context(), enginetest.Owner(), c.d, "")
		if engine.AsError(err) == nil || engine.AsError(err).Code != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	_, err := h.DeclareSchema(t.Context(), enginetest.Owner(), engine.DeclaredSchema{Tags: []byte(`{}`)}, "*")
	wantCode(t, err, engine.CodeSchemaNotFound)
	first := declare(t, h, engine.DeclaredSchema{Tags: []byte(`{}`)})
	second, err := h.DeclareSchema(t.Context(), enginetest.Owner(), engine.DeclaredSchema{Tags: []byte(`{"type":"object"}`)}, first.ETag)
	if err != nil || second.Version != 2 || second.ETag == first.ETag {
		t.Fatalf("%+v %v", second, err)
	}
	_, err = h.DeclareSchema(t.Context(), enginetest.Owner(), engine.DeclaredSchema{Tags: []byte(`{}`)}, first.ETag)
	wantCode(t, err, engine.CodePreconditionFailed)
	wantCode(t, h.DropDeclaredSchema(t.Context(), enginetest.Owner(), first.ETag), engine.CodePreconditionFailed)
}
