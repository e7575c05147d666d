package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
)

func deviceContent(text string) engine.ConfigurationContent {
	return engine.ConfigurationContent{Device: json.RawMessage(text)}
}

func TestConfigurations(t *testing.T) {
	dir := t.TempDir()
	h, owner := enginetest.New(t, enginetest.Dir(dir)), enginetest.Owner()
	first := engine.Configuration{
		ID: "rate-1", SchemaVersion: "1.0", Labels: map[string]string{"team": "north"}, TargetCondition: "tags.site = 'lyon'", Priority: 7,
		Content: deviceContent(`{ "properties.desired.rate": 1.0 }`), Metrics: engine.ConfigurationMetrics{Queries: map[string]string{"all": "SELECT deviceId FROM devices"}},
	}
	made, err := h.PutConfiguration(t.Context(), owner, first, engine.IfMatch{})
	if err != nil {
		t.Fatal(err)
	}
	if made.Revision != 1 || made.ETag == "" || made.Created.IsZero() || made.Principal != "local:uid=0" || string(made.Content.Device) != `{"properties.desired.rate":1.0}` || made.SystemMetrics.Queries[engine.MetricTargeted] != "SELECT deviceId FROM devices WHERE tags.site = 'lyon'" {
		t.Errorf("%+v", made)
	}
	_, err = h.PutConfiguration(t.Context(), owner, first, engine.IfMatch{})
	wantCode(t, err, engine.CodeConfigurationAlreadyExists)
	same, err := h.PutConfiguration(t.Context(), owner, first, engine.ParseIfMatch(`"`+made.ETag+`"`))
	if err != nil || same.ETag != made.ETag {
		t.Errorf("the same again made a revision: %+v %v", same, err)
	}
	second := first
	second.Labels, second.Metrics = nil, engine.ConfigurationMetrics{}
	changed, err := h.PutConfiguration(t.Context(), owner, second, engine.ParseIfMatch(made.ETag))
	if err != nil || changed.Revision != 2 || changed.ETag == made.ETag || changed.Labels != nil || !changed.Created.Equal(made.Created) {
		t.Errorf("%+v %v", changed, err)
	}
	_, err = h.PutConfiguration(t.Context(), owner, second, engine.ParseIfMatch(made.ETag))
	wantCode(t, err, engine.CodePreconditionFailed)
	third := first
	third.Content = deviceContent(`{"properties.desired.rate":2}`)
	if changed, err = h.PutConfiguration(t.Context(), owner, third, engine.ParseIfMatch("*")); err != nil || changed.Revision != 3 {
		t.Errorf("%+v %v", changed, err)
	}
	other := first
	other.ID = "none"
	_, err = h.PutConfiguration(t.Context(), owner, other, engine.ParseIfMatch("*"))
	wantCode(t, err, engine.CodeConfigurationNotFound)
	module := first
	module.TargetCondition, module.Content = "FROM devices.modules", engine.ConfigurationContent{Module: json.RawMessage(`{"properties.desired.rate":1}`)}
	_, err = h.PutConfiguration(t.Context(), owner, module, engine.ParseIfMatch("*"))
	wantCode(t, err, engine.CodeConfigurationContent)

	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h = enginetest.New(t, enginetest.Dir(dir))
	list, next, err := h.Configurations(t.Context(), owner, "", 0)
	if err != nil || len(list) != 1 || next != "" || list[0].ETag != changed.ETag || list[0].Labels["team"] != "north" {
		t.Errorf("%+v %q %v", list, next, err)
	}
	revisions, before, err := h.ConfigurationRevisions(t.Context(), owner, "rate-1", 0, 2)
	if err != nil || len(revisions) != 2 || before != 2 || revisions[0].Revision != 3 || revisions[1].Labels != nil {
		t.Errorf("%+v %d %v", revisions, before, err)
	}
	revisions, before, err = h.ConfigurationRevisions(t.Context(), owner, "rate-1", before, 2)
	if err != nil || len(revisions) != 1 || before != 0 || revisions[0].Revision != 1 {
		t.Errorf("%+v %d %v", revisions, before, err)
	}
	back, err := h.RollbackConfiguration(t.Context(), owner, "rate-1", 1, engine.ParseIfMatch(changed.ETag))
	if err != nil || back.Revision != 4 || string(back.Content.Device) != `{"properties.desired.rate":1.0}` || back.Metrics.Queries["all"] == "" {
		t.Errorf("%+v %v", back, err)
	}
	_, err = h.RollbackConfiguration(t.Context(), owner, "rate-1", 1, engine.ParseIfMatch(changed.ETag))
	wantCode(t, err, engine.CodePreconditionFailed)
	_, err = h.RollbackConfiguration(t.Context(), owner, "rate-1", 9, engine.IfMatch{})
	wantCode(t, err, engine.CodeConfigurationNotFound)

	wantCode(t, h.DeleteConfiguration(t.Context(), owner, "rate-1", engine.ParseIfMatch(made.ETag)), engine.CodePreconditionFailed)
	wantCode(t, h.DeleteConfiguration(t.Context(), owner, "none", engine.IfMatch{}), engine.CodeConfigurationNotFound)
	if err := h.DeleteConfiguration(t.Context(), owner, "rate-1", engine.IfMatch{}); err != nil {
		t.Fatal(err)
	}
	_, err = h.Configuration(t.Context(), owner, "rate-1")
	wantCode(t, err, engine.CodeConfigurationNotFound)
	_, _, err = h.ConfigurationRevisions(t.Context(), owner, "rate-1", 0, 0)
	wantCode(t, err, engine.CodeConfigurationNotFound)
	_, err = h.ConfigurationProgress(t.Context(), owner, "rate-1")
	wantCode(t, err, engine.CodeConfigurationNotFound)
	// A namesake is another one: it begins anew, and the ETag of then does not fit.
	again, err := h.PutConfiguration(t.Context(), owner, first, engine.IfMatch{})
	if err != nil || again.Revision != 1 || again.ETag == made.ETag {
		t.Errorf("%+v %v", again, err)
	}
}

func TestConfigurationsAreRefused(t *testing.T) {
	h, owner := enginetest.New(t), enginetest.Owner()
	for _, c := range []struct {
		name string
		edit func(g *engine.Configuration)
		code engine.Code
		want string
	}{
		{"no id", func(g *engine.Configuration) { g.ID = "" }, engine.CodeArgumentNull, "the id of the configuration is missing"},
		{"upper case", func(g *engine.Configuration) { g.ID = "Rate" }, engine.CodeArgumentInvalid, `the character 'R' at position 0; expected lower-case`},
		{"a dot", func(g *engine.Configuration) { g.ID = "a.b" }, engine.CodeArgumentInvalid, `the character '.' at position 1`},
		{"a long id", func(g *engine.Configuration) { g.ID = strings.Repeat("a", 129) }, engine.CodeArgumentInvalid, "129 characters; expected at most 128"},
		{"a priority below zero", func(g *engine.Configuration) { g.Priority = -1 }, engine.CodeArgumentInvalid, "priority is -1; expected 0 to 2147483647"},
		{"a long label", func(g *engine.Configuration) { g.Labels = map[string]string{"a": strings.Repeat("x", 257)} }, engine.CodeArgumentInvalid, `the value of label "a" has 257 bytes`},
		{"no content", func(g *engine.Configuration) { g.Content = engine.ConfigurationContent{} }, engine.CodeConfigurationContent, "the content is missing"},
		{"null content", func(g *engine.Configuration) { g.Content = deviceContent("null") }, engine.CodeConfigurationContent, "the content is missing"},
		{"tags", func(g *engine.Configuration) { g.Content = deviceContent(`{"tags.x":1}`) }, engine.CodeConfigurationContent, "deviceContent.tags.x: this is no place in desired properties"},
		{"two contents", func(g *engine.Configuration) { g.Content.Module = g.Content.Device }, engine.CodeConfigurationContent, "deviceContent and moduleContent"},
		{"no JSON", func(g *engine.Configuration) { g.Content = deviceContent(`{"x`) }, engine.CodeConfigurationContent, "the content is not JSON"},
		{"a bad condition", func(g *engine.Configuration) { g.TargetCondition = "tags.site = = 'x'" }, engine.CodeConfigurationCondition, `targetCondition can't be read: column 13: found "="`},
		{"the time", func(g *engine.Configuration) { g.TargetCondition = "properties.reported.seen < now() - 1h" }, engine.CodeConfigurationCondition, "now() in a target condition"},
		{"a condition of modules", func(g *engine.Configuration) { g.TargetCondition = "FROM devices.modules" }, engine.CodeConfigurationCondition, "column 1"},
		{"a long condition", func(g *engine.Configuration) { g.TargetCondition = "tags.a = '" + strings.Repeat("x", 9000) + "'" }, engine.CodeConfigurationCondition, "bytes; expected at most 8192"},
		{"a bad metric", func(g *engine.Configuration) { g.Metrics.Queries = map[string]string{"m": "SELECT"} }, engine.CodeConfigurationMetrics, `the query of metric "m" can't be read: column 7`},
		{"a metric of jobs", func(g *engine.Configuration) {
			g.Metrics.Queries = map[string]string{"m": "SELECT * FROM devices.jobs"}
		}, engine.CodeConfigurationMetrics, "reads devices.jobs"},
		{"a metric without a name", func(g *engine.Configuration) { g.Metrics.Queries = map[string]string{"": "SELECT * FROM devices"} }, engine.CodeConfigurationMetrics, "a name of 0 bytes"},
		{"many metrics", func(g *engine.Configuration) {
			g.Metrics.Queries = map[string]string{}
			for i := range 21 {
				g.Metrics.Queries[fmt.Sprint("m", i)] = "SELECT * FROM devices"
			}
		}, engine.CodeConfigurationMetrics, "metrics.queries has 21 members; expected at most 20"},
		{"a content that no twin takes", func(g *engine.Configuration) {
			g.Content = deviceContent(`{"properties.desired":{"a":"` + strings.Repeat("x", 5000) + `"}}`)
		}, engine.CodeConfigurationContent, "desired.a"},
		{"a huge content", func(g *engine.Configuration) {
			g.Content = deviceContent(`{"properties.desired":{"a":"` + strings.Repeat("x", 2<<20) + `"}}`)
		}, engine.CodeTooLarge, "the content has"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := engine.Configuration{ID: "g", TargetCondition: "*", Content: deviceContent(`{"properties.desired.a":1}`)}
			c.edit(&g)
			_, err := h.PutConfiguration(t.Context(), owner, g, engine.IfMatch{})
			wantCode(t, err, c.code)
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, expected %s", err, c.want)
			}
		})
	}
	stranger := engine.Caller{Principal: auth.Principal{Kind: auth.Policy, Name: "read", Permissions: auth.RegistryRead}}
	g := engine.Configuration{ID: "g", Content: deviceContent(`{"properties.desired.a":1}`)}
	_, err := h.PutConfiguration(t.Context(), stranger, g, engine.IfMatch{})
	wantCode(t, err, engine.CodeForbidden)
	_, err = h.Configuration(t.Context(), stranger, "g")
	wantCode(t, err, engine.CodeForbidden)
	wantCode(t, h.DeleteConfiguration(t.Context(), stranger, "g", engine.IfMatch{}), engine.CodeForbidden)
}

func TestConfigurationQueries(t *testing.T) {
	h, owner := enginetest.New(t), enginetest.Owner()
	for _, condition := range []string{"", "*", "tags.site = 'lyon'", "from devices.modules where tags.x = 1"} {
		if got, err := h.TestConfigurationQueries(t.Context(), owner, condition, nil); err != nil || got.TargetCondition != "" || len(got.Metrics) != 0 {
			t.Errorf("%s: %+v %v", condition, got, err)
		}
	}
	got, err := h.TestConfigurationQueries(t.Context(), owner, "tags.site = ", map[string]string{"good": "SELECT deviceId FROM devices", "bad": "SELECT deviceId FRM devices"})
	if err != nil || !strings.Contains(got.TargetCondition, "column 13") || len(got.Metrics) != 1 || !strings.Contains(got.Metrics["bad"], "column 17") {
		t.Errorf("%+v %v", got, err)
	}
}

// A condition that is a bare predicate is stored in IoT Hub's language, and selects the same.
func TestConfigurationOfPredicate(t *testing.T) {
	withFleet(t, func(t *testing.T, f *fleet) {
		h, owner, ctx := f.hub, enginetest.Owner(), context.Background()
		f.device("in", `{"site":"lyon"}`)
		f.device("out", `{"site":"paris"}`)
		const written, stored = `tags.site == "lyon" and deviceId startsWith "i"`, `tags.site = 'lyon' AND STARTSWITH(deviceId, 'i')`
		g := f.store(engine.Configuration{ID: "g", TargetCondition: written, Content: deviceContent(`{"properties.desired.a":1}`)})
		if g.TargetCondition != stored {
			t.Errorf("the condition is %q, expected %q", g.TargetCondition, stored)
		}
		f.want("in", `{"a":1} g=Applied`)
		f.want("out", `{}`)
		if got, err := h.TestConfigurationQueries(ctx, owner, written, nil); err != nil || got.TargetCondition != "" || got.Translated != stored {
			t.Errorf("%+v %v", got, err)
		}
		if got, err := h.TestConfigurationQueries(ctx, owner, stored, nil); err != nil || got.Translated != "" {
			t.Errorf("%+v %v", got, err)
		}
		if again := f.store(engine.Configuration{ID: "g", TargetCondition: written, Content: g.Content}); again.Revision != g.Revision {
			t.Errorf("the same condition made revision %d of %d", again.Revision, g.Revision)
		}
	})
}

// IoT Hub keeps the content of a configuration as it was made, has 100 of them, and
// knows no predicates.
func TestConfigurationsUnderAzureLimits(t *testing.T) {
	withFleet(t, func(t *testing.T, f *fleet) {
		h, owner, ctx := f.hub, enginetest.Owner(), context.Background()
		g := engine.Configuration{ID: "g", Content: deviceContent(`{"properties.desired.a":1}`)}
		f.store(g)
		g.Content, g.Priority = deviceContent(`{"properties.desired.a":2}`), 3
		if changed := f.store(g); string(changed.Content.Device) != `{"properties.desired.a":1}` || changed.Priority != 3 {
			t.Errorf("%+v", changed)
		}
		g.Content = engine.ConfigurationContent{}
		_, err := h.PutConfiguration(ctx, owner, g, engine.ParseIfMatch("*"))
		wantCode(t, err, engine.CodeConfigurationContent)
		g.Content = deviceContent(`{"properties.desired.a":1}`)
		for i := range 99 {
			g.ID = fmt.Sprint("g", i)
			f.store(g)
		}
		g.ID = "more"
		_, err = h.PutConfiguration(ctx, owner, g, engine.IfMatch{})
		wantCode(t, err, engine.CodeTooManyConfigurations)
		g.ID, g.TargetCondition = "g", `tags.site == "lyon"`
		_, err = h.PutConfiguration(ctx, owner, g, engine.ParseIfMatch("*"))
		wantCode(t, err, engine.CodeConfigurationCondition)
	}, enginetest.Azure)
}

func TestRevisionsOfAConfigurationAreBounded(t *testing.T) {
	h, owner := enginetest.New(t), enginetest.Owner()
	for i := range 103 {
		m := engine.IfMatch{}
		if i > 0 {
			m = engine.ParseIfMatch("*")
		}
		g := engine.Configuration{ID: "g", Content: deviceContent(fmt.Sprintf(`{"properties.desired.a":%d}`, i))}
		if _, err := h.PutConfiguration(t.Context(), owner, g, m); err != nil {
			t.Fatal(err)
		}
	}
	list, before, err := h.ConfigurationRevisions(t.Context(), owner, "g", 0, 0)
	if err != nil || len(list) != 100 || before != 0 || list[0].Revision != 103 || list[99].Revision != 4 {
		t.Errorf("%d revisions, %d, %v", len(list), before, err)
	}
}
