package service

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/query/querytest"
)

// TestQueryScenarios runs the scenarios of the query language once more through
// POST /devices/query, on twins that were made as clients make them. What a
// client can't bring about (nulls in properties, times, versions, parents, modules
// of the system) is
// left to the language's own tests.
func TestQueryScenarios(t *testing.T) {
	subjects, err := querytest.Load(os.DirFS("../../engine/query/testdata"))
	if err != nil {
		t.Fatal(err)
	}
	azure := newFixture(t)
	asked := 0
	for _, s := range subjects {
		f := newFixture(t, func(o *engine.Options) { o.Profile = engine.ProfileDefault })
		f.scenarioTwins(s.Twins)
		for _, c := range s.Cases {
			if slices.ContainsFunc([]string{"battery", "modes", "lastactivitytime", "$version", "parentscopes", "now()", "$edge"}, func(w string) bool {
				return strings.Contains(strings.ToLower(c.Query), w)
			}) {
				continue
			}
			asked++
			on := f
			if c.Strict && c.Error != "" {
				on = azure
			}
			t.Run(fmt.Sprintf("%s:%d", s.File, c.Line), func(t *testing.T) { on.scenario(t, c) })
		}
	}
	if asked < 220 {
		t.Errorf("only %d cases were asked", asked)
	}
}

// scenarioTwins makes twins with their modules: attributes and tags by REST,
// reported properties by their devices, of which those that are to be connected
// stay so.
func (f *fixture) scenarioTwins(twins []querytest.Twin) {
	f.Helper()
	for _, twin := range twins {
		var d struct {
			DeviceID, ModuleID, Status, StatusReason, ConnectionState string
			Capabilities                                              struct{ IotEdge bool }
			Tags                                                      json.RawMessage
			Properties                                                struct{ Desired, Reported map[string]json.RawMessage }
		}
		if err := json.Unmarshal(twin.Document, &d); err != nil {
			f.Fatal(err)
		}
		path := d.DeviceID
		if twin.Module() {
			path += "/modules/" + d.ModuleID
			if strings.HasPrefix(d.ModuleID, "$") { // the system's, which report only through their device
				continue
			}
			f.do("PUT", "/devices/"+path, string(encode(map[string]string{"deviceId": d.DeviceID, "moduleId": d.ModuleID}))).want(200)
		} else {
			f.do("PUT", "/devices/"+path, fmt.Sprintf(`{"deviceId":%q,"capabilities":{"iotEdge":%t}}`, d.DeviceID, d.Capabilities.IotEdge)).want(200)
		}
		if tags := clientMade(d.Properties.Desired); d.Tags != nil || len(tags) > 2 {
			body := `{"properties":{"desired":` + tags + `}}`
			if d.Tags != nil {
				body = `{"tags":` + string(d.Tags) + `,` + body[1:]
			}
			f.do("PATCH", "/twins/"+path, body).want(200)
		}
		if body := clientMade(d.Properties.Reported); len(body) > 2 || d.ConnectionState == "Connected" {
			device := enginetest.Connect(f, f.hub, engine.TwinID{DeviceID: d.DeviceID, ModuleID: d.ModuleID})
			if _, err := device.Session.PatchReported(f.Context(), []byte(body), -1); err != nil {
				f.Fatalf("%s: %v", twin.ID, err)
			}
			if d.ConnectionState != "Connected" {
				device.Session.Close(nil)
			}
		}
		if d.Status != "" {
			f.do("PUT", "/devices/"+path, fmt.Sprintf(`{"deviceId":%q,"status":%q,"statusReason":%q}`, d.DeviceID, d.Status, d.StatusReason), header("If-Match", "*")).want(200)
		}
	}
}

// clientMade returns properties without those that the hub makes and without
// nulls, which a twin does not keep.
func clientMade(properties map[string]json.RawMessage) string {
	kept := map[string]json.RawMessage{}
	for key, v := range properties {
		if !strings.HasPrefix(key, "$") && !bytes.Contains(v, []byte("null")) {
			kept[key] = v
		}
	}
	return string(encode(kept))
}

// scenario asks one case and compares rows and errors.
func (f *fixture) scenario(t *testing.T, c querytest.Case) {
	path, body := "/devices/query", map[string]string{"query": c.Query}
	if c.Bare {
		path, body = "/api/v1/query", map[string]string{"where": c.Query}
	}
	a := f.do("POST", path, string(encode(body)))
	if c.Error != "" {
		if text := fmt.Sprintf("column %d: %s", c.At, c.Error); a.status != 400 || !strings.Contains(flat(a.doc), text) {
			t.Errorf("%s\nanswered with %d: %s\nwant: %s", c.Query, a.status, a.body, text)
		}
		return
	}
	if a.status != 200 {
		t.Errorf("%s\nanswered with %d: %s", c.Query, a.status, a.body)
		return
	}
	rows, _ := a.doc.([]any)
	if c.Bare {
		rows, _ = dig(a.doc, "items").([]any)
	}
	var got []string
	for _, row := range rows {
		if c.Rows != nil {
			got = append(got, string(encode(row)))
			continue
		}
		id, _ := dig(row, "deviceId").(string)
		if module, ok := dig(row, "moduleId").(string); ok {
			id += "/" + module
		}
		got = append(got, id)
	}
	want := slices.Clone(c.IDs)
	for _, row := range c.Rows {
		var v any
		d := json.NewDecoder(strings.NewReader(row))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		want = append(want, string(encode(v))) // members by name, as above
	}
	if c.AnyOrder {
		slices.Sort(got)
		slices.Sort(want)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s\nanswered %s\nwant %s", c.Query, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// flat joins all strings of an answer.
func flat(v any) string {
	switch v := v.(type) {
	case string:
		return v + "\n"
	case map[string]any:
		var b strings.Builder
		for _, m := range v {
			b.WriteString(flat(m))
		}
		return b.String()
	case []any:
		var b strings.Builder
		for _, m := range v {
			b.WriteString(flat(m))
		}
		return b.String()
	}
	return ""
}
