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
		{Devices, "configurations.[[a-b]].status = 'Applied'", `column 1: found "configurations.[[a-b]].status" in a target condition`},
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

// TestParseWrittenTarget reads both languages; what it returns is in IoT Hub's, and that reads as
// the same condition.
func TestParseWrittenTarget(t *testing.T) {
	for _, c := range []struct {
		source Source
		text   string
		want   string // the condition, or the error from "column" on
	}{
		{Devices, "tags.site = 'lyon'", "tags.site = 'lyon'"},
		{Devices, " * ", " * "},
		{Devices, `tags.site == "lyon"`, `tags.site = 'lyon'`},
		{Devices, `tags.site == "lyon" and (reported.fw in ["1", "2"] or not (deviceId startsWith "a"))`,
			`tags.site = 'lyon' AND (properties.reported.fw IN ['1', '2'] OR NOT STARTSWITH(deviceId, 'a'))`},
		{Devices, `tags["odd name"] == "it's"`, `tags.[[odd name]] = 'it\'s'`},
		{Modules, "from devices.modules", "from devices.modules"},
		{Modules, `FROM devices.modules WHERE moduleId == "camera" && tags.x > 1`, `FROM devices.modules WHERE moduleId = 'camera' AND tags.x > 1`},
		// IoT Hub's language came further, or as far.
		{Devices, "tags.site = ", "column 13: found the end of the text"},
		{Devices, "tags.site = = 1", `column 13: found "="`},
		{Modules, `moduleId == "camera"`, "column 1: found"},
		// The predicate came further.
		{Devices, `tags.site == "lyon" and tag.x == 1`, `column 25: found `},
		{Modules, `from devices.modules where moduleId == "camera" and tag.x == 1`, `column 53: found `},
		// It is a predicate, but not one for targets.
		{Devices, `desired.x == 1`, `column 1: found "properties.desired.x" in a target condition`},
		{Devices, `connected and tags.x == 1`, `column 1: found "connectionState" in a target condition`},
		{Devices, `moduleId == "camera"`, `column 1: found`},
		{Devices, `reported.seen < now() - "1h"`, `found now() in a target condition`},
	} {
		q, condition, err := ParseWrittenTarget(c.source, c.text)
		if err != nil {
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q: %v, expected %s", c.text, err, c.want)
			}
			continue
		}
		again, err := ParseTarget(c.source, condition, Options{})
		if condition != c.want || err != nil {
			t.Errorf("%q is %q (%v), expected %q", c.text, condition, err, c.want)
		} else if q.Source() != c.source || format(q.where) != format(again.where) {
			t.Errorf("%q selects %q, and %q read again", c.text, format(q.where), format(again.where))
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
