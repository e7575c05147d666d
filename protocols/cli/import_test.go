package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/protocols/client/clienttest"
)

func readCSV(t testing.TB, text string, comma byte) (records [][]string, lines []int, faults []string) {
	t.Helper()
	c, err := newCSVReader(strings.NewReader(text), comma)
	if err != nil {
		t.Fatal(err)
	}
	for {
		fields, line, err := c.next()
		if f, ok := errors.AsType[*csvFault](err); ok {
			faults = append(faults, f.Error())
			continue
		}
		if errors.Is(err, io.EOF) {
			return records, lines, faults
		}
		if err != nil {
			t.Fatal(err)
		}
		records, lines = append(records, slices.Clone(fields)), append(lines, line)
	}
}

func TestCSVReader(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text    string
		records string // fields by |, records by newline sign
		lines   []int
		faults  string
	}{
		"plain":                 {"a,b\n1,2\n", "a|b¶1|2", []int{1, 2}, ""},
		"no end, empty cells":   {"a,b,c\n,,", "a|b|c¶||", []int{1, 2}, ""},
		"semicolons and a BOM":  {"\ufeffa;b,c;d\r\n1;2;3\r\n", "a|b,c|d¶1|2|3", []int{1, 2}, ""},
		"tabs":                  {"a\tb\n1,5\t2\n", "a|b¶1,5|2", []int{1, 2}, ""},
		"quotes":                {"\"a,\"\"b\"\"\",\" c \"\n\"x\ny\",z\nlast,1\n", "a,\"b\"| c ¶x\ny|z¶last|1", []int{1, 2, 4}, ""},
		"the header is quoted":  {"\"a;b;c\",d\n1,2\n", "a;b;c|d¶1|2", []int{1, 2}, ""},
		"blank lines":           {"\n\na\n\n1\n\n", "a¶1", []int{3, 5}, ""},
		"a bare quote":          {"a,b\nx\"y,1\nz,2\n", "a|b¶z|2", []int{1, 3}, "line 2, column 2: a quote stands within"},
		"text behind a quote":   {"a,b\n\"x\"y,1\nz,2\n", "a|b¶z|2", []int{1, 3}, "line 2, column 4: 'y' stands behind"},
		"a quote is not closed": {"a,b\nx,\"y\nz,2\n", "a|b", []int{1}, "line 2, column 3: the quote is not closed"},
		"not UTF-8":             {"a,b\nx,\xff\nz,2\n", "a|b¶z|2", []int{1, 3}, "line 2, column 4: the field is not UTF-8"},
		"a record too long":     {"a,b\n" + strings.Repeat("x", csvRecordBytes+5) + "\nz,2\n", "a|b¶z|2", []int{1, 3}, "line 2, column 1048577: the record has more than"},
		"a quote swallows":      {"a,b\n\"" + strings.Repeat("x\n", csvRecordBytes/2) + "z,2\n", "a|b¶z|2", []int{1, csvRecordBytes/2 + 2}, "line 2, column 1: the record has more than"},
		"too many fields":       {"a\n" + strings.Repeat(",", csvColumns) + "\nb\n", "a¶b", []int{1, 3}, "line 2, column 1001: the record has more than 1000 fields"},
		"empty":                 {"", "", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			records, lines, faults := readCSV(t, c.text, 0)
			var all []string
			for _, r := range records {
				all = append(all, strings.Join(r, "|"))
			}
			if got := strings.Join(all, "¶"); got != c.records || !slices.Equal(lines, c.lines) {
				t.Errorf("got %q at %v, want %q at %v", got, lines, c.records, c.lines)
			}
			if got := strings.Join(faults, "; "); c.faults == "" && got != "" || !strings.HasPrefix(got, c.faults) {
				t.Errorf("faults %.200q, want %q", got, c.faults)
			}
		})
	}
}

// Where encoding/csv takes a text, this reader reads the same.
func FuzzCSVReader(f *testing.F) {
	for _, text := range []string{"a,b\n1,2", "\"a\"\"b\",c\r\n\"x\ny\",z", "a;b\n\"", "\ufeffa\n\n\nb,\"", "a,\"b\"c\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			return
		}
		records, _, faults := readCSV(t, text, ',')
		std := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "\ufeff")))
		std.FieldsPerRecord = -1
		want, err := std.ReadAll()
		if err != nil || len(faults) > 0 || strings.Contains(text, "\r") { // line ends within and behind quotes are another matter
			return
		}
		want = slices.DeleteFunc(want, func(r []string) bool { return len(r) == 1 && r[0] == "" }) // "" alone
		if fmt.Sprint(records) != fmt.Sprint(want) {
			t.Errorf("%q is %q, want %q", text, records, want)
		}
	})
}

func TestPlanCSV(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header, mapping, record, want string
	}{
		{"deviceId,tags.site", "", "a,lyon", `{"id":"a","status":"enabled","tags":{"site":"lyon"}}`},
		{"serial,location,level", "deviceId=serial tags.site=location tags.floor:number=level", "a,,3.50", `{"id":"a","status":"enabled","tags":{"floor":3.50}}`},
		{"ID,Status,desired.a.b:json,reported.on:bool,iotEdge", "", `a,disabled,{"x":[1]},yes,true`,
			`{"capabilities":{"iotEdge":true},"id":"a","properties":{"desired":{"a":{"b":{"x":[1]}}},"reported":{"on":true}},"status":"disabled"}`},
		{"deviceId,primaryKey,secondaryKey", "", "a,k1,k2", `{"authentication":{"symmetricKey":{"primaryKey":"k1","secondaryKey":"k2"},"type":"sas"},"id":"a","status":"enabled"}`},
		{"deviceId,primaryThumbprint", "", "a,AB", `{"authentication":{"type":"selfSigned","x509Thumbprint":{"primaryThumbprint":"AB"}},"id":"a","status":"enabled"}`},
		{"deviceId,note", "", "a,x", `{"id":"a","status":"enabled"}`},
		{"deviceId,tags.t", "", "a, x ", `{"id":"a","status":"enabled","tags":{"t":" x "}}`},
		{"x,y", "", "", "error: no column is the device id"},
		{"deviceId,deviceId", "", "", "error: the column \"deviceId\" is there twice"},
		{"deviceId,a", "tags.x=b", "", "error: there is no column \"b\""},
		{"deviceId,a", "tags.x=a tags.y=a", "", "error: the column \"a\" is mapped twice"},
		{"deviceId,a,b", "tags.x=a tags.x.y=b", "d,1,", `{"id":"d","status":"enabled","tags":{"x":"1"}}`},
		{"deviceId,a,b", "tags.x=a tags.x.y=b", "d,,2", `{"id":"d","status":"enabled","tags":{"x":{"y":"2"}}}`},
		{"deviceId,a,b", "tags.x=a tags.x.y=b", "d,1,2", "error: in the column \"b\": tags.x.y lies within what another column"},
		{"deviceId,a,b", "tags.x.y=a tags.x=b", "d,1,2", "error: in the column \"b\": tags.x lies within what another column of the record sets, or holds it"},
		{"deviceId,a,b", "tags.x:json=a tags.x.y=b", "d,{},2", "error: in the column \"b\": tags.x.y lies within"},
		{"deviceId,a,b", "tags.x=a tags.x=b", "", "error: two columns set tags.x"},
		{"deviceId,a", "tags.x:int=a", "", "error: the type \"int\" is not known"},
		{"deviceId,a", "x=a", "", "error: \"x\" is no target"},
		{"deviceId,a", "tags.x", "", "error: \"tags.x\" is no mapping"},
		{"deviceId,tags.n:number", "", "a,NaN", "error: in the column \"tags.n:number\": \"NaN\" is no number"},
		{"deviceId,tags.n:bool", "", "a,perhaps", "error: in the column \"tags.n:bool\": \"perhaps\" is neither"},
		{"deviceId,tags.n:json", "", "a,{", "error: in the column \"tags.n:json\": \"{\" is not valid JSON"},
		{"deviceId,tags.n", "", "a,b,c", "error: the record has 3 fields, the header has 2"},
		{"deviceId,tags.n", "", ",b", "error: the device id is empty"},
	} {
		p, err := planCSV(strings.Split(c.header, ","), strings.Fields(c.mapping))
		var got []byte
		if err == nil {
			got, _, err = p.line(strings.Split(c.record, ","))
		}
		if err != nil {
			got = []byte("error: " + err.Error())
		}
		if c.want[0] == '{' && string(got) != c.want || !strings.HasPrefix(string(got), c.want) {
			t.Errorf("%s with %q of %q is\n%s\nwant\n%s", c.header, c.mapping, c.record, got, c.want)
		}
	}
}

// Each record comes out as one line of JSON, on the line where it stood.
func FuzzCSVLines(f *testing.F) {
	f.Add("deviceId,tags.a,tags.b:json\na,\"x\ny\",{}\n\nb,,\"[1,\n2]\"\nc,\"")
	f.Fuzz(func(t *testing.T, text string) {
		faulty := map[int]bool{}
		l, err := newCSVLines(strings.NewReader(text), 0, nil, func(line, _ int, _ string) { faulty[line] = true })
		if err != nil {
			return
		}
		out, err := io.ReadAll(l)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(out, []byte("\n")); n > strings.Count(text, "\n")+1 {
			t.Fatalf("%d lines out of %q", n, text)
		}
		for i, line := range bytes.Split(bytes.TrimSuffix(out, []byte("\n")), []byte("\n")) {
			if len(line) > 0 && (!json.Valid(line) || line[0] != '{') {
				t.Fatalf("line %d is %q", i+1, line)
			}
		}
	})
}

func TestImportAndExport(t *testing.T) {
	h := clienttest.Start(t)
	t.Chdir(t.TempDir())
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.jsonl", `{"id":"a1","status":"enabled","tags":{"site":"lyon","n":1},"properties":{"desired":{"fw":{"v":"1.0"}}}}`+"\n"+`{"id":"a2","status":"enabled"}`+"\n")
	write("bad.jsonl", `{"id":"b1","status":"enabled"}`+"\n"+`{"id":"b 2","status":"enabled"}`+"\nrest\n"+`{"id":"b3"}`+"\n")
	write("c.csv", "\ufeffserial;location;floor;note\nc-1;\"Lyon; \"\"Part-Dieu\"\"\nlevel 2\";3;x\nc-2;Paris;;\nc-3;Nice;many;\nc 4;Rome;1;\n")
	write("none.csv", "a,b\n1,2\n")
	env := map[string]string{"MUSTER_DATA": h.Dir}
	mapping := words("--map deviceId=serial --map tags.site=location --map tags.floor:number=floor")
	for _, s := range []struct {
		args []string
		code int
		want string // in standard output or error
		not  string
	}{
		{words("device import a.jsonl --dry-run"), ExitOK, "nothing was changed", ""},
		{words("device show a1"), ExitNotFound, "", ""},
		{words("device import a.jsonl"), ExitOK, "created     2", "errors"},
		{words("device import a.jsonl --mode create --errors again"), ExitPartly, "2 lines failed", ""},
		{words("device import bad.jsonl -o json"), ExitPartly, `"failed": 2`, ""},
		{append(words("device import c.csv"), mapping...), ExitPartly, "line 5, column 3: in the column \"floor\"", ""},
		{words("device import c.csv"), ExitUsage, "--map deviceId=COLUMN", ""},
		{words("device import none.csv"), ExitUsage, "\"a\", \"b\"", ""},
		{words("device import missing.csv"), ExitUsage, "cannot be read", ""},
		{words("device import a.jsonl --map tags.a=b"), ExitUsage, "--format csv", ""},
		{words("device import"), ExitUsage, "--follow JOB", ""},
		{words("device import --follow none"), ExitNotFound, "muster job list", ""},
		{words("device import a.jsonl --follow x"), ExitUsage, "--follow JOB", ""},
		{words("twin show c-1"), ExitOK, `"floor": 3`, ""},
		{words("device export out.jsonl"), ExitOK, "5 identities", ""},
		{words("device export out.jsonl"), ExitConflict, "--force", ""},
		{words("device export out.jsonl --force --exclude-keys"), ExitOK, "5 identities", ""},
		{append(words("device export all.csv -o csv --where"), "tags.n == 1 or tags.floor == 3"), ExitOK, "2 identities", ""},
		{words("device export --where tags."), ExitFailed, "the query can't be read", ""},
		{words("container list"), ExitOK, "No containers", ""},
		{words("container create box --expires 2h -o json"), ExitOK, "/containers/box?sv=", ""},
		{words("container create box"), ExitConflict, "there is a container", ""},
		{words("container put box a.jsonl devices.txt"), ExitOK, "devices.txt: ", ""},
		{words("container blobs box"), ExitOK, "devices.txt", ""},
		{words("container get box devices.txt"), ExitOK, `"id":"a2"`, ""},
		{words("container get box none"), ExitNotFound, "", ""},
		{words("container access box"), ExitOK, "sig=", ""},
		{words("container access none"), ExitNotFound, "muster container list", ""},
		{words("container delete box --blob devices.txt --yes"), ExitOK, "", ""},
		{words("container blobs box"), ExitOK, "No blobs", ""},
		{words("container delete box"), ExitUsage, "--yes", ""},
		{words("container delete box --yes"), ExitOK, "", ""},
	} {
		got := call{args: s.args, env: env}.run(t)
		if all := got.out + got.err; got.code != s.code || !strings.Contains(all, s.want) || s.not != "" && strings.Contains(all, s.not) {
			t.Errorf("muster %s: exit code %d, want %d; it must say %q and not %q, and says:\n%s", strings.Join(s.args, " "), got.code, s.code, s.want, s.not, all)
		}
	}
	for name, want := range map[string]string{
		"again":                  `{"line":1,"deviceId":"a1","errorCode":409001`,
		"bad.jsonl.errors.jsonl": `{"line":2,"deviceId":"b 2","errorCode":400004`,
		"c.csv.errors.jsonl":     `{"line":5,"column":3,"errorStatus":"in the column`,
		"all.csv":                "deviceId,moduleId,status,statusReason,managedBy,authenticationType,primaryKey,secondaryKey,primaryThumbprint,secondaryThumbprint,iotEdge,deviceScope,desired.fw.v,tags.floor:number,tags.n:number,tags.site\na1,,enabled",
		"out.jsonl":              `{"id":"a1"`,
	} {
		if got, err := os.ReadFile(name); err != nil || !strings.HasPrefix(string(got), want) {
			t.Errorf("%s holds %s, %v; want %q", name, got, err, want)
		}
	}
	// What was exported as CSV is imported again as it was.
	before := call{args: words("twin show c-1 -o json"), env: env}.run(t).out
	if got := (call{args: words("device delete c-1 a1 --yes"), env: env}).run(t); got.code != ExitOK {
		t.Fatal(got.err)
	}
	if got := (call{args: words("device import all.csv"), env: env}).run(t); got.code != ExitOK {
		t.Fatal(got.err)
	}
	after := call{args: words("twin show c-1 -o json"), env: env}.run(t).out
	tags := func(text string) string {
		var twin struct{ Tags json.RawMessage }
		if err := json.Unmarshal([]byte(text), &twin); err != nil {
			t.Fatal(err)
		}
		return string(twin.Tags)
	}
	if tags(before) != tags(after) {
		t.Errorf("it was %s and is %s", tags(before), tags(after))
	}
}

// A job that is waited for goes on when the command ends, and can be taken up.
func TestFollowImport(t *testing.T) {
	h := clienttest.Start(t)
	t.Chdir(t.TempDir())
	var text strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&text, `{"id":"d%d","status":"enabled"}`+"\n", i)
	}
	text.WriteString("{bad\n")
	if err := os.WriteFile("d.jsonl", []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"MUSTER_DATA": h.Dir}
	got := call{args: words("device import d.jsonl --no-wait -o json"), env: env}.run(t)
	var j struct{ ID string }
	if err := json.Unmarshal([]byte(got.out), &j); err != nil || got.code != ExitOK {
		t.Fatal(got.out, got.err, err)
	}
	got = call{args: []string{"job", "watch", j.ID}, env: env}.run(t)
	if got.code != ExitPartly || !strings.Contains(got.out, "created     2000") || !strings.Contains(got.err, "device import --follow "+j.ID) {
		t.Errorf("%d %s %s", got.code, got.out, got.err)
	}
	got = call{args: []string{"job", "watch", j.ID, "-o", "jsonl"}, env: env}.run(t)
	if got.code != ExitPartly || !strings.Contains(got.out, `"status":"completed"`) || strings.Count(got.out, "\n") != 1 {
		t.Errorf("%d %s %s", got.code, got.out, got.err)
	}
	if got = (call{args: words("job watch none"), env: env}).run(t); got.code != ExitNotFound {
		t.Errorf("%d %s %s", got.code, got.out, got.err)
	}
	got = call{args: []string{"device", "import", "--follow", j.ID, "--errors", "errors"}, env: env}.run(t)
	if got.code != ExitPartly || !strings.Contains(got.out, "created     2000") || !strings.Contains(got.err, "line 2001: Invalid device format") {
		t.Errorf("%d %s %s", got.code, got.out, got.err)
	}
	if b, err := os.ReadFile("errors"); err != nil || bytes.Count(b, []byte("\n")) != 1 {
		t.Errorf("errors %s, %v", b, err)
	}
}
