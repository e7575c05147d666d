package cli

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/client/clienttest"
)

func configured(t *testing.T, options ...enginetest.Option) (*clienttest.Hub, map[string]string) {
	t.Helper()
	h := clienttest.Start(t, options...)
	for id, site := range map[string]string{"pump-1": "lyon", "pump-2": "lyon", "pump-3": "paris"} {
		if _, err := h.Engine.CreateIdentity(t.Context(), enginetest.Owner(), engine.Identity{DeviceID: id}); err != nil {
			t.Fatal(err)
		}
		tagged(t, h, id, `{"site":"`+site+`"}`)
	}
	t.Chdir(t.TempDir())
	return h, map[string]string{"MUSTER_DATA": h.Dir}
}

func TestConfigurationCommands(t *testing.T) {
	_, env := configured(t)
	const lyon = "tags.site = 'lyon'"
	for _, s := range []queryStep{
		{[]string{"configuration", "list"}, ExitOK, "muster configuration apply", ""},
		{[]string{"configuration", "apply"}, ExitUsage, "neither an id nor a file", ""},
		{[]string{"configuration", "apply", "fan"}, ExitUsage, "nothing to change", ""},
		{[]string{"configuration", "apply", "fan", "--desired", "fan.speed"}, ExitUsage, "PATH=VALUE", ""},
		{[]string{"configuration", "apply", "fan", "--desired", "fan..speed=1"}, ExitUsage, "single dots", ""},
		{[]string{"configuration", "apply", "fan", "--where", "tags.site = = 1", "--desired", "a=1"}, ExitFailed, "InvalidConfigurationTargetCondition", ""},
		{[]string{"configuration", "apply", "fan", "--where", lyon, "--desired", "fan.speed=3", "--desired", "name=big", "--priority", "10", "--label", "team=north",
			"--metric", "fast=SELECT deviceId FROM devices WHERE properties.desired.fan.speed > 2", "--wait", "20s"}, ExitOK, "settled on 2 of 2, applied on 2", "refused"},
		{[]string{"configuration", "apply", "fan", "--create", "--desired", "a=1"}, ExitConflict, "exists", ""},
		{[]string{"configuration", "apply", "fan", "--etag", "wrong", "--priority", "1"}, ExitConflict, "ETag", ""},
		{[]string{"configuration", "show", "fan"}, ExitOK, "sets desired.fan.speed", ""},
		{[]string{"config", "show", "fan"}, ExitOK, "where", ""},
		{[]string{"configuration", "show", "fan", "-o", "json"}, ExitOK, `"properties.desired.fan.speed": 3`, ""},
		{[]string{"configuration", "list"}, ExitOK, "fan", "muster configuration apply"},
		{[]string{"configuration", "list", "--label", "team=south"}, ExitOK, "No configurations", ""},
		{[]string{"configuration", "list", "--label", "team", "-o", "csv"}, ExitOK, "fan,10,2,2,1,", ""},
		{[]string{"configuration", "metrics", "fan"}, ExitOK, "fast", ""},
		{[]string{"configuration", "metrics", "fan", "-o", "jsonl"}, ExitOK, `"name":"appliedCount","system":true`, ""},
		{[]string{"configuration", "show", "none"}, ExitNotFound, "muster configuration list", ""},

		{[]string{"configuration", "apply", "fan", "--desired", "fan.speed=4", "--drop", "name", "--label", "team=", "--wait", "20s"}, ExitOK, "desired.fan.speed  4", "north"},
		{[]string{"configuration", "apply", "fan", "--drop", "name"}, ExitUsage, "does not set name", ""},
		{[]string{"twin", "show", "pump-1", "--section", "desired", "-o", "jsonl"}, ExitOK, `"fan":{"speed":4}`, "big"},
		{[]string{"configuration", "revisions", "fan"}, ExitOK, "desired.fan.speed=3 desired.name=\"big\"", ""},
		{[]string{"configuration", "show", "fan", "--revision", "1"}, ExitOK, "desired.name", ""},
		{[]string{"configuration", "show", "fan", "--revision", "7"}, ExitNotFound, "muster configuration revisions fan", ""},
		{[]string{"configuration", "rollback", "fan", "--wait", "20s"}, ExitOK, "Revision 3 is as revision 1 was.", ""},
		{[]string{"twin", "show", "pump-1", "--section", "desired", "-o", "jsonl"}, ExitOK, `"speed":3`, ""},
		{[]string{"configuration", "rollback", "fan", "--to", "9"}, ExitNotFound, "", ""},

		{[]string{"configuration", "test", "--where", lyon}, ExitOK, "where            2", ""},
		{[]string{"configuration", "test", "--where", "*", "-o", "jsonl"}, ExitOK, `{"name":"where","selects":3}`, ""},
		{[]string{"configuration", "test", "--modules", "--where", "moduleId = 'camera'"}, ExitOK, "where            0", ""},
		{[]string{"configuration", "test", "--where", `tags.site == "lyon"`, "-o", "jsonl"}, ExitOK, `{"name":"where","selects":2,"stored":"tags.site = 'lyon'"}`, ""},
		{[]string{"configuration", "test", "--modules", "--where", `moduleId == "camera"`}, ExitOK, "from devices.modules where moduleId = 'camera'", ""},
		{[]string{"configuration", "apply", "bare", "--where", `tags.site == "lyon"`, "--desired", "bare=1", "--wait", "20s"}, ExitOK, "settled on 2 of 2", ""},
		{[]string{"configuration", "show", "bare"}, ExitOK, "tags.site = 'lyon'", "=="},
		{[]string{"configuration", "apply", "bare", "--where", `tags.site == "lyon" and tag.x`}, ExitFailed, "column 25", ""},
		{[]string{"configuration", "delete", "bare", "--yes"}, ExitOK, "", ""},
		{[]string{"configuration", "test", "--where", lyon, "--metric", "m=SELEC"}, ExitFailed, "1 of 2 can't be used", ""},

		{[]string{"configuration", "apply", "base", "--where", "*", "--desired", "fan.speed=1", "--desired", "interval=60", "--priority", "1", "--wait", "20s"}, ExitOK, "settled on 3 of 3", ""},
		{[]string{"twin", "show", "pump-1"}, ExitOK, "configurations: base applied, fan applied\n", ""},

		{[]string{"configuration", "apply", "fan", "--where", "", "--wait", "20s"}, ExitOK, "settled on 0 of 0", ""},
		{[]string{"twin", "show", "pump-1", "--section", "desired", "-o", "jsonl"}, ExitOK, `"fan":{"speed":1}`, "name"},
		{[]string{"configuration", "delete", "fan"}, ExitUsage, "--yes", ""},
		{[]string{"configuration", "delete", "fan", "--yes"}, ExitOK, "Deleted the configuration fan.", ""},
		{[]string{"configuration", "delete", "fan", "--yes"}, ExitNotFound, "fan", ""},
	} {
		s.run(t, env)
	}
}

func TestConfigurationFiles(t *testing.T) {
	_, env := configured(t)
	for name, text := range map[string]string{
		// What az iot hub configuration show prints.
		"az.json": `{"content":{"deviceContent":{"properties.desired.fan.speed":3},"moduleContent":null,"modulesContent":null},"contentType":"assignment",
			"createdTimeUtc":"2026-11-30T09:00:00.1234567Z","etag":"MQ==","id":"fan","labels":{"team":"north"},"lastUpdatedTimeUtc":"2026-11-30T09:00:00Z",
			"metrics":{"queries":{},"results":{}},"priority":10,"schemaVersion":"2.0","systemMetrics":{"queries":{},"results":{"appliedCount":7}},"targetCondition":"tags.site='lyon'"}`,
		"list.json":   `[{"id":"a","content":{"deviceContent":{"properties.desired.a":1}}},{"id":"b","content":{"deviceContent":{"properties.desired.b":1}}}]`,
		"noid.json":   `{"content":{"deviceContent":{"properties.desired.c":4503599627370495}},"targetCondition":"*"}`,
		"typo.json":   `{"id":"fan","contents":{}}`,
		"type.json":   `{"id":"fan","priority":"high"}`,
		"broken.json": `{"id":`,
		"empty.json":  `[]`,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []queryStep{
		{[]string{"configuration", "apply", "-f", "az.json", "--wait", "20s"}, ExitOK, "settled on 2 of 2", ""},
		{[]string{"configuration", "apply", "-f", "az.json", "--priority", "11"}, ExitOK, "revision                2\n", ""},
		{[]string{"configuration", "apply", "-f", "list.json", "-o", "jsonl"}, ExitOK, `"id":"b"`, ""},
		{[]string{"configuration", "apply", "c", "-f", "list.json"}, ExitUsage, "several", ""},
		{[]string{"configuration", "apply", "-f", "list.json", "--priority", "2"}, ExitUsage, "several", ""},
		{[]string{"configuration", "apply", "-f", "noid.json"}, ExitUsage, "has no id", ""},
		{[]string{"configuration", "apply", "c", "-f", "noid.json"}, ExitOK, "4503599627370495", ""},
		{[]string{"configuration", "apply", "-f", "typo.json"}, ExitUsage, `unknown field "contents"`, ""},
		{[]string{"configuration", "apply", "-f", "type.json"}, ExitUsage, "priority is string", ""},
		{[]string{"configuration", "apply", "-f", "broken.json"}, ExitUsage, "not valid JSON", ""},
		{[]string{"configuration", "apply", "-f", "empty.json"}, ExitUsage, "holds no configuration", ""},
		{[]string{"configuration", "apply", "-f", "none.json"}, ExitUsage, "none.json", ""},
	} {
		s.run(t, env)
	}
	// What the command line shows it takes again, as nothing new.
	shown := call{args: words("configuration show fan -o json"), env: env}.run(t)
	again := call{args: words("configuration apply -f - -o json"), env: env, in: shown.out}.run(t)
	var before, after client.Configuration
	if err := json.Unmarshal([]byte(shown.out), &before); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(again.out), &after); err != nil {
		t.Fatalf("%v in %s%s", err, again.out, again.err)
	}
	if after.TargetCondition != before.TargetCondition || after.Priority != 11 || after.Labels["team"] != "north" || string(after.Content.Device["properties.desired.fan.speed"]) != "3" {
		t.Errorf("got %s", again.out)
	}
}

// A hub with IoT Hub's limits leaves the content of a configuration as it is,
// and the command line says so instead of showing success.
func TestConfigurationContentIsKept(t *testing.T) {
	_, env := configured(t, enginetest.Azure)
	for _, s := range []queryStep{
		{[]string{"configuration", "apply", "fan", "--where", "*", "--desired", "a=1"}, ExitOK, "desired.a", ""},
		{[]string{"configuration", "apply", "fan", "--priority", "2"}, ExitOK, "desired.a", ""},
		{[]string{"configuration", "apply", "fan", "--desired", "a=2"}, ExitConflict, "keeps the content", ""},
	} {
		s.run(t, env)
	}
}

func TestConfigurationIDsComplete(t *testing.T) {
	h, env := configured(t)
	queryStep{[]string{"configuration", "apply", "fan-lyon", "--where", "tags.site = 'lyon'", "--desired", "a=1"}, ExitOK, "fan-lyon", ""}.run(t, env)
	for _, line := range []string{"configuration show", "config rollback", "configuration delete --yes"} {
		got := call{args: append(append([]string{"__complete", "--"}, strings.Fields(line)...), "--data", h.Dir, "fan")}.run(t)
		if got.out != "fan-lyon\ttags.site = 'lyon'\n" {
			t.Errorf("%s: got %q", line, got.out)
		}
	}
}

func TestConfigurationRolloutCommands(t *testing.T) {
	_, env := configured(t)
	for _, s := range []queryStep{
		{[]string{"configuration", "apply", "fan", "--where", "*", "--desired", "a=1", "--soak", "1m"}, ExitUsage, "--waves", ""},
		{[]string{"configuration", "apply", "fan", "--where", "*", "--desired", "a=1", "--parallel", "5", "--at-once"}, ExitUsage, "--at-once", ""},
		{[]string{"configuration", "apply", "fan", "--where", "*", "--desired", "a=1", "--waves", "1,100%", "--approve-from", "2"}, ExitOK, "muster job watch", ""},
		{[]string{"configuration", "show", "fan"}, ExitOK, "spread by the job", ""},
		{[]string{"job", "list", "-o", "csv"}, ExitOK, "revision 1 of the configuration fan", ""},
		{[]string{"configuration", "apply", "fan", "--at-once", "--wait", "20s"}, ExitOK, "settled on 3 of 3", "job"},
		{[]string{"configuration", "show", "fan", "-o", "json"}, ExitOK, `"properties.desired.a": 1`, "rollout"},
		{[]string{"configuration", "apply", "odd", "--where", "*", "--desired", "b=1", "--pause-at", "20"}, ExitOK, "Warning: rollout.pause[0].share is 20, and the largest wave has 3 targets", ""},
		{[]string{"configuration", "apply", "odd", "--label", "team=x"}, ExitOK, "odd", "Warning"},
	} {
		s.run(t, env)
	}
}
