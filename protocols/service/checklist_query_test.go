package service

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// queried asks IoT Hub's way.
func (f *fixture) queried(text string, options ...option) *reply {
	f.Helper()
	return f.do("POST", "/devices/query", string(encode(map[string]string{"query": text})), options...)
}

func maxItemCount(n string) option     { return header("x-ms-max-item-count", n) }
func continuation(token string) option { return header("x-ms-continuation", token) }

// rows returns an answer's items, which must be a bare array.
func (a *reply) rows(item string) []any {
	a.Helper()
	a.want(200)
	list, ok := a.doc.([]any)
	if !ok {
		a.Fatalf("%s: the body is no array: %s", a.what, a.body)
	}
	if got := a.header.Get("X-Ms-Item-Type"); got != item {
		a.Errorf("%s: x-ms-item-type %q, want %q", a.what, got, item)
	}
	return list
}

// pages reads all pages and returns the number of rows of each, and all rows.
func (f *fixture) pages(text, size string, between func(page int)) (sizes []int, all []any) {
	f.Helper()
	options := []option{maxItemCount(size)}
	for {
		a := f.queried(text, options...).want(200)
		list := a.rows(a.header.Get("X-Ms-Item-Type"))
		sizes, all = append(sizes, len(list)), append(all, list...)
		token, more := a.header["X-Ms-Continuation"]
		if !more {
			return sizes, all
		}
		if token[0] == "" {
			f.Fatal("an empty continuation")
		}
		options = []option{maxItemCount(size), continuation(token[0])}
		if between != nil {
			between(len(sizes))
		}
	}
}

func idsOf(list []any) (ids []string) {
	for _, row := range list {
		id, _ := dig(row, "deviceId").(string)
		ids = append(ids, id)
	}
	return ids
}

func TestQueryChecklist(t *testing.T) {
	f := newFixture(t)
	for i := range 5 {
		f.create(fmt.Sprintf("q%d", i))
		f.do("PATCH", fmt.Sprintf("/twins/q%d", i), fmt.Sprintf(`{"tags":{"n":%d,"site":"A"},"properties":{"desired":{"x":{"y":1.50}}}}`, i)).want(200)
	}
	const all = "SELECT * FROM devices WHERE tags.site = 'A'"
	t.Run("70 item types", func(t *testing.T) {
		if got := idsOf(f.queried(all).rows("Twin")); !slices.Equal(got, []string{"q0", "q1", "q2", "q3", "q4"}) {
			t.Errorf("devices %v", got)
		}
		f.queried("SELECT deviceId FROM devices").rows("Raw")
		f.queried("SELECT COUNT() AS n FROM devices WHERE tags.site = 'A'").is("0.n", "5").rows("Raw")
		f.queried("SELECT * FROM devices.modules").rows("Twin")
		f.queried("SELECT * FROM devices.jobs").rows("DeviceJob")
	})
	t.Run("71 pages", func(t *testing.T) {
		sizes, rows := f.pages(all, "2", nil)
		if !slices.Equal(sizes, []int{2, 2, 1}) || !slices.Equal(idsOf(rows), []string{"q0", "q1", "q2", "q3", "q4"}) {
			t.Errorf("pages %v of %v", sizes, idsOf(rows))
		}
		if sizes, _ := f.pages("SELECT deviceId FROM devices WHERE tags.n < 4", "2", nil); !slices.Equal(sizes, []int{2, 2}) {
			t.Errorf("pages %v of four rows", sizes)
		}
		if sizes, rows := f.pages("SELECT TOP 3 * FROM devices WHERE tags.site = 'A'", "2", nil); !slices.Equal(sizes, []int{2, 1}) {
			t.Errorf("pages %v of TOP 3: %v", sizes, idsOf(rows))
		}
	})
	t.Run("72 max-item-count", func(t *testing.T) {
		for _, most := range []string{"10000", "99999999999999", "99999999999999999999999"} {
			if n := len(f.queried(all, maxItemCount(most)).rows("Twin")); n != 5 {
				t.Errorf("%s: %d rows", most, n)
			}
		}
		for _, bad := range []string{"0", "-1", "-99999999999999999999999", "many", "1.5"} {
			f.queried(all, maxItemCount(bad)).refused(400, "ArgumentInvalid")
		}
	})
	t.Run("73 tokens", func(t *testing.T) {
		token := f.queried(all, maxItemCount("2")).header.Get("X-Ms-Continuation")
		f.client.CloseIdleConnections()
		if got := idsOf(f.queried(all, maxItemCount("3"), continuation(token)).rows("Twin")); !slices.Equal(got, []string{"q2", "q3", "q4"}) {
			t.Errorf("behind the token: %v", got)
		}
		flipped := []byte(token)
		flipped[len(flipped)/2] ^= 1
		for _, bad := range []string{"garbage", "====", string(flipped), token[:len(token)-4], strings.Repeat("A", 9000)} {
			f.queried(all, continuation(bad)).refused(400, "ArgumentInvalid")
		}
		a := f.queried("SELECT * FROM devices", continuation(token)).refused(400, "ArgumentInvalid")
		if !strings.Contains(a.text("Message"), "another query") {
			t.Errorf("another query's token: %s", a.body)
		}
		other := newFixture(t)
		other.queried(all, continuation(token)).refused(400, "ArgumentInvalid")
	})
	t.Run("74 what is wrong", func(t *testing.T) {
		f.queried("SELEC nonsense").refused(400, "ArgumentInvalid")
		f.queried("SELECT * FROM c").refused(400, "ArgumentInvalid")
		f.queried("SELECT * FROM devices ORDER BY deviceId").refused(400, "ArgumentInvalid") // Muster's own, refused under IoT Hub's limits
		f.do("POST", "/devices/query", `{}`).refused(400, "ArgumentNull")
		f.do("POST", "/devices/query", `{"query":null}`).refused(400, "ArgumentNull")
		f.do("POST", "/devices/query", `{"query":7}`).refused(400, "IotHubFormatError")
		f.queried("SELECT * FROM devices WHERE tags.a = '"+strings.Repeat("x", 8200)+"'").refused(400, "ArgumentInvalid")
	})
	t.Run("75 nothing", func(t *testing.T) {
		a := f.queried("SELECT * FROM devices WHERE tags.site = 'nowhere'")
		if len(a.rows("Twin")) != 0 || string(bytes.TrimSpace(a.body)) != "[]" || a.header.Get("X-Ms-Continuation") != "" {
			t.Errorf("%s with %v", a.body, a.header)
		}
	})
	t.Run("76 deletes between pages", func(t *testing.T) {
		for i := range 6 {
			f.create(fmt.Sprintf("z%d", i))
		}
		sizes, rows := f.pages("SELECT * FROM devices WHERE STARTSWITH(deviceId, 'z')", "2", func(page int) {
			for _, i := range []int{page, page + 2} { // behind the place and before it
				f.do("DELETE", fmt.Sprintf("/devices/z%d", i), "", ifMatch("*"))
			}
		})
		got := idsOf(rows)
		if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Errorf("pages %v of %v", sizes, got)
		}
		for _, id := range []string{"z0", "z1", "z5"} {
			if !slices.Contains(got, id) {
				t.Errorf("%s is missing in %v", id, got)
			}
		}
	})
	t.Run("77 just created", func(t *testing.T) {
		for i := range 20 {
			id := fmt.Sprintf("fresh%d", i)
			f.create(id)
			if n := len(f.queried("SELECT deviceId FROM devices WHERE deviceId = '" + id + "'").rows("Raw")); n != 1 {
				t.Fatalf("%s: %d rows", id, n)
			}
		}
	})
}

// What a query shows of a twin is what a read shows: whole, and each attribute
// by itself.
func TestQueryShowsWhatTwinReadsShow(t *testing.T) {
	f := newFixture(t)
	f.do("PUT", "/devices/edge", `{"deviceId":"edge","capabilities":{"iotEdge":true},"status":"disabled","statusReason":"lost","authentication":{"type":"selfSigned","x509Thumbprint":{"primaryThumbprint":"`+strings.Repeat("aB", 20)+`"}}}`).want(200)
	scope := f.do("GET", "/devices/edge", "").at("deviceScope")
	f.do("PUT", "/devices/leaf", `{"deviceId":"leaf","deviceScope":`+scope+`}`).want(200)
	f.create("plain")
	d := enginetest.Connect(t, f.hub, engine.TwinID{DeviceID: "live"})
	f.do("PUT", "/devices/live/modules/m", `{"deviceId":"live","moduleId":"m"}`).want(200)
	if _, err := d.Session.PatchReported(t.Context(), []byte(`{"a":{"b":[1,"x",{}],"n":null},"t":true,"f":1.25}`), -1); err != nil {
		t.Fatal(err)
	}
	f.do("PATCH", "/twins/live", `{"tags":{"a":{"b":"c"},"é'b\"":1},"properties":{"desired":{"x":{"y":{}}}}}`).want(200)
	f.do("PATCH", "/twins/live/modules/m", `{"tags":{"k":true},"properties":{"desired":{"x":1}}}`).want(200)
	for source, path := range map[string]func(row any) string{
		"devices": func(row any) string { return fmt.Sprint("/twins/", dig(row, "deviceId")) },
		"devices.modules": func(row any) string {
			return fmt.Sprint("/twins/", dig(row, "deviceId"), "/modules/", dig(row, "moduleId"))
		},
	} {
		rows := f.queried("SELECT * FROM " + source).rows("Twin")
		if len(rows) < 3 {
			t.Fatalf("%s: %d rows", source, len(rows))
		}
		for _, row := range rows {
			read := f.do("GET", path(row), "").want(200)
			if got, want := string(encode(row)), string(encode(read.doc)); got != want {
				t.Errorf("%s shows\n%s\nand a read\n%s", source, got, want)
			}
			where := fmt.Sprintf(" FROM %s WHERE deviceId = '%s'", source, dig(row, "deviceId"))
			if m, ok := dig(row, "moduleId").(string); ok {
				where += " AND moduleId = '" + m + "'"
			}
			for name, want := range read.doc.(map[string]any) {
				if name == "configurations" {
					continue
				}
				a := f.queried("SELECT " + name + where)
				list := a.rows("Raw")
				if len(list) != 1 {
					t.Fatalf("SELECT %s%s: %s", name, where, a.body)
				}
				got := dig(list[0], name)
				if fmt.Sprint(floats(got)) != fmt.Sprint(floats(want)) {
					t.Errorf("SELECT %s%s shows\n%v\nand a read\n%v", name, where, floats(got), floats(want))
				}
			}
		}
	}
	for _, q := range []string{
		"connectionState = 'Connected'", "capabilities.iotEdge = false AND properties.reported.t = true", "properties.reported.$version = 2",
		"properties.desired.$metadata.x.$lastUpdatedVersion = 2", "version > 3 AND tags.a.b = 'c'", "lastActivityTime > '2020-01-01'", "cloudToDeviceMessageCount = 0 AND IS_DEFINED(tags)",
	} {
		if got := idsOf(f.queried("SELECT * FROM devices WHERE " + q).rows("Twin")); !slices.Equal(got, []string{"live"}) {
			t.Errorf("%s: %v", q, got)
		}
	}
}

// floats makes numbers comparable: a row's are written anew.
func floats(v any) any {
	switch v := v.(type) {
	case json.Number:
		f, _ := v.Float64()
		return f
	case map[string]any:
		m := map[string]any{}
		for k, e := range v {
			m[k] = floats(e)
		}
		return m
	case []any:
		list := []any{}
		for _, e := range v {
			list = append(list, floats(e))
		}
		return list
	}
	return v
}
