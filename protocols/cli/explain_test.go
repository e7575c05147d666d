package cli

import "testing"

func TestExplainCommands(t *testing.T) {
	_, env := configured(t)
	for _, s := range []queryStep{
		{[]string{"configuration", "apply", "fan", "--where", "tags.site = 'lyon'", "--desired", "fan.speed=3", "--priority", "10", "--wait", "20s"}, ExitOK, "settled on 2 of 2", ""},
		{[]string{"configuration", "apply", "base", "--where", "*", "--desired", "fan.speed=1", "--desired", "interval=60", "--priority", "1", "--wait", "20s"}, ExitOK, "settled on 3 of 3", ""},
		{[]string{"device", "explain", "pump-1"}, ExitOK, "configuration fan", ""},
		{[]string{"device", "explain", "pump-1"}, ExitOK, "base: 1, ", ""},
		{[]string{"device", "explain", "pump-1", "-o", "json"}, ExitOK, `"winner": "fan"`, ""},
		{[]string{"device", "explain", "pump-1", "-o", "csv"}, ExitOK, "path,value,set_by,when,lost\n", ""},
		{[]string{"device", "explain", "pump-1", "--if", "tags.site=paris"}, ExitOK, "pump-1 would lose fan", ""},
		{[]string{"device", "explain", "pump-1", "--if", "tags.site=paris"}, ExitOK, "configuration base", ""},
		{[]string{"device", "explain", "pump-3", "--if", "tags.site=lyon", "-o", "jsonl"}, ExitOK, `"gained":["fan"]`, ""},
		{[]string{"device", "explain", "pump-3", "--if", "tags.floor=1"}, ExitOK, "No desired property would change.", ""},
		{[]string{"device", "explain", "pump-3", "--if", "site=lyon"}, ExitUsage, "tags.PATH=VALUE", ""},
		{[]string{"device", "explain", "pump-3", "--if", "desired.a=1"}, ExitUsage, "tags.PATH=VALUE", ""},
		{[]string{"device", "explain", "nobody"}, ExitNotFound, "nobody", ""},
		{[]string{"configuration", "delete", "base", "--yes"}, ExitOK, "Deleted", ""},
		{[]string{"device", "explain", "pump-3"}, ExitOK, "configuration base, which no longer does", ""},
	} {
		s.run(t, env)
	}
}
