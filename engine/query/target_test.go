package query

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	for _, c := range []struct {
		source Source
		text   string
		want   string // error from its place on; empty: none
	}{
		{Devices, "*", ""},
		{Devices, " * ", ""},
		{Devices, "tags.site = 'lyon' AND properties.reported.fw IN ['1','2']", ""},
		{Devices, "deviceId = 'a' OR NOT is_defined(tags)", ""},
		{Devices, "devices.tags.site = 'lyon'", ""},
		{Devices, "tags.now = 'where'", ""},
		{Modules, "FROM devices.modules WHERE moduleId = 'm' AND tags.x = 1", ""},
		{Modules, "from devices.modules", ""},
		{Devices, "", `column 1: found the end of the text, expected `},
		{Devices, "tags.site = ", `column 13: found the end of the text, expected `},
		{Devices, "tags.site == 'x'", `column 11: found "=="`},
		{Devices, "tags.site = 'x' ORDER BY deviceId", `found ORDER BY, expected a condition and nothing behind it`},
		{Devices, "tags.site = 'x' GROUP BY deviceId", `column 17: found`},
		{Devices, "tags.site = 'x' LIMIT 3", `expected a condition and nothing behind it`},
		{Devices, "properties.desired.x = 1", `column 1: found "properties.desired.x" in a target condition, expected deviceId, tags.* or properties.reported.*`},
		{Devices, "tags.x = 1 AND status = 'enabled'", `column 16: found "status" in a target condition`},
		{Devices, "connectionState = 'Connected'", `column 1: found "connectionState" in a target condition`},
		{Devices, "properties.reported.seen < now() - 1h", `column 28: found now() in a target condition`},
		{Devices, "configurations.[[x]].status = 'Applied'", `column 1: found "configurations.x.status" in a target condition`},
		{Devices, "FROM devices.modules WHERE moduleId = 'm'", `column 1: found`},
		{Modules, "*", `column 1: found`},
		{Modules, "FROM devices WHERE tags.x = 1", `column 1: found devices, which the content is not for, expected FROM devices.modules`},
		{Modules, "FROM devices.jobs", `column 1: found devices.jobs, which the content is not for`},
		{Modules, "FROM devices.modules WHERE status = 'x'", `column 28: found "status" in a target condition, expected deviceId, moduleId, tags.* or properties.reported.*`},
	} {
		q, err := ParseTarget(c.source, c.text, Options{})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%q: %v", c.text, err)
		case c.want == "":
			if q.Source() != c.source || !q.Star() || !q.Plain() {
				t.Errorf("%q: it reads %s", c.text, q.Source())
			}
		case err == nil:
			t.Errorf("%q is read", c.text)
		default:
			if e, ok := errors.AsType[*Error](err); !ok || e.Text != c.text || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q: %v, expected %s", c.text, err, c.want)
			}
		}
	}
}

func TestCount(t *testing.T) {
	c := NewColumns(ColumnOptions{Memory: 1 << 20})
	for _, id := range []string{"a", "b", "c"} {
		site := StringValue("lyon")
		if id == "b" {
			site = StringValue("oslo")
		}
		c.Apply([]Change{{ID: id, Replace: true, Fields: []Field{{Path{"deviceId"}, StringValue(id)}, {Path{"tags", "site"}, site}}}})
	}
	for _, w := range []struct{ text, want string }{
		{"SELECT * FROM devices", `{"count":3}`},
		{"SELECT deviceId FROM devices WHERE tags.site = 'lyon'", `{"count":2}`},
		{"SELECT deviceId FROM devices WHERE tags.site = 'nowhere'", `{"count":0}`},
	} {
		q, err := Parse(w.text, Options{})
		if err != nil {
			t.Fatal(err)
		}
		page, err := c.Run(context.Background(), q.Count(), Ask{Limit: 10})
		if err != nil || len(page.Rows) != 1 || string(page.Rows[0]) != w.want {
			t.Errorf("%s: %q %v", w.text, page.Rows, err)
		}
		if !q.Plain() {
			t.Errorf("%s is not plain", w.text)
		}
	}
	for _, text := range []string{"SELECT COUNT() FROM devices", "SELECT TOP 2 deviceId FROM devices", "SELECT tags.site FROM devices GROUP BY tags.site"} {
		if q, err := Parse(text, Options{}); err != nil || q.Plain() {
			t.Errorf("%s is plain: %v", text, err)
		}
	}
}
