package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// importer is a hub with a container, whose jobs a test runs by hand.
type importer struct {
	testing.TB
	*Hub
	dir string
	o   Options
	c   Caller
	g   ContainerGrant
}

func newImporter(tb testing.TB, o Options) *importer {
	tb.Helper()
	m := &importer{TB: tb, dir: tb.TempDir(), o: o, c: Caller{Principal: auth.Principal{Kind: auth.Local, Name: "uid=0", Permissions: ^auth.Permission(0)}}}
	m.open()
	tb.Cleanup(func() { _ = m.Hub.Close() }) // a test may have closed it
	if _, err := m.CreateContainer(m.ctx(), m.c, "box"); err != nil {
		tb.Fatal(err)
	}
	m.grant()
	return m
}

func (m *importer) ctx() context.Context { return context.Background() }

func (m *importer) open() {
	m.Helper()
	m.o.Storage = storage.Options{Dir: m.dir, Memory: 64 << 20}
	h, err := Open(m.ctx(), m.o)
	if err != nil {
		m.Fatal(err)
	}
	m.Hub = h
}

func (m *importer) grant() {
	m.Helper()
	g, err := m.OpenContainer(m.ctx(), m.c, "box")
	if err != nil {
		m.Fatal(err)
	}
	m.g = g
}

func (m *importer) put(name, content string) {
	m.Helper()
	if _, err := m.PutBlob(m.ctx(), m.g, name, UploadBody{Reader: strings.NewReader(content), Size: int64(len(content))}, BlobCondition{}); err != nil {
		m.Fatal(err)
	}
}

func (m *importer) get(name string) string {
	m.Helper()
	_, r, err := m.OpenBlob(m.ctx(), m.g, name)
	if err != nil {
		m.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		m.Fatal(err)
	}
	return string(b)
}

func (m *importer) create(s IdentityJobSpec) IdentityJob {
	m.Helper()
	s.Output = BlobContainer{Name: "box"}
	if s.Type == IdentityImport {
		s.Input = s.Output
	}
	j, err := m.CreateIdentityJob(m.ctx(), m.c, s)
	if err != nil {
		m.Fatal(err)
	}
	return j
}

// settle runs jobs until there is nothing to do.
func (m *importer) settle() {
	m.Helper()
	for {
		some, err := m.advanceIdentityJobs(m.ctx())
		if err != nil {
			m.Fatal(err)
		}
		if !some {
			return
		}
	}
}

// run runs one job to its end.
func (m *importer) run(s IdentityJobSpec) IdentityJob {
	m.Helper()
	j := m.create(s)
	m.settle()
	return m.job(j.ID)
}

func (m *importer) job(id string) IdentityJob {
	m.Helper()
	j, err := m.IdentityJob(m.ctx(), m.c, id)
	if err != nil {
		m.Fatal(err)
	}
	return j
}

func (m *importer) importText(text string) IdentityJob {
	m.Helper()
	m.put("devices.txt", text)
	return m.run(IdentityJobSpec{Type: IdentityImport})
}

// faults are the lines of the error log, "line deviceId code".
func (m *importer) faults() []string {
	m.Helper()
	var list []string
	for line := range strings.SplitSeq(strings.TrimSuffix(m.get("importErrors.log"), "\n"), "\n") {
		if line == "" {
			continue
		}
		var f struct {
			DeviceID, ModuleID string
			ErrorCode          int
			ErrorStatus        string
			Line               int64
		}
		if err := json.Unmarshal([]byte(line), &f); err != nil || f.ErrorStatus == "" {
			m.Fatalf("the error log has %q: %v", line, err)
		}
		list = append(list, strings.TrimRight(fmt.Sprint(f.Line, " ", TwinID{f.DeviceID, f.ModuleID}, " ", f.ErrorCode), " "))
	}
	return list
}

func (m *importer) identity(id string) Identity {
	m.Helper()
	d, mod, _ := strings.Cut(id, "/")
	i, err := m.Identity(m.ctx(), m.c, TwinID{d, mod})
	if err != nil {
		m.Fatal(err)
	}
	return i
}

func (m *importer) twin(id string) Twin {
	m.Helper()
	d, mod, _ := strings.Cut(id, "/")
	t, err := m.Twin(m.ctx(), m.c, TwinID{d, mod})
	if err != nil {
		m.Fatal(err)
	}
	return t
}

const (
	key1 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	key2 = "HxwdHhsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA="
)

func TestImportModes(t *testing.T) {
	t.Parallel()
	m := newImporter(t, Options{})
	for _, id := range []string{"old", "gone", "gone2", "twin", "keep"} {
		if _, err := m.CreateIdentity(m.ctx(), m.c, Identity{DeviceID: id}); err != nil {
			t.Fatal(err)
		}
	}
	keys := m.identity("keep").Authentication
	e := m.identity("old").ETag
	j := m.importText(strings.Join([]string{
		"\ufeffa sentence for people",
		`{"id":"new","status":"Enabled","authentication":{"symmetricKey":{"primaryKey":"` + key1 + `","secondaryKey":"` + key2 + `"},"type":"sas"},"tags":{"a":1},"properties":{"desired":{"b":2},"reported":{"c":3}}}`,
		`{"id":"new","moduleId":"m","status":"enabled","managedBy":"me"}`,
		``,
		`{"id":"old","importMode":"create","status":"enabled"}`,
		`{"id":"none","importMode":"UPDATE","status":"enabled"}`,
		`{"id":"old","importMode":"updateIfMatchETag","eTag":"` + e + `","status":"disabled","statusReason":"sold"}`,
		`{"id":"old","importMode":"updateIfMatchETag","eTag":"` + e + `","status":"enabled"}`,
		`{"id":"gone","importMode":"delete","status":"enabled"}`,
		`{"id":"gone2","importMode":"deleteIfMatchETag","eTag":"bm8=","status":"enabled"}`,
		`{"id":"gone","importMode":"delete","status":"enabled"}`,
		`{"id":"twin","importMode":"updateTwin","status":"disabled","tags":{"a":1}}`,
		`{"id":"twin","importMode":"updateTwinIfMatchETag","twinETag":"AAAAAAAAAAE=","status":"enabled","tags":{"a":2}}`,
		`{"id":"nostatus"}`,
		`{"id":"spelt","status":"enabled","authentication":{"type":"SELF_SIGNED"}}`,
		`{"id":"mode","status":"enabled","importMode":"replace"}`,
		`{"status":"enabled"}`,
		`{"id":"cut","status":`,
		`{"id":"keep","status":"enabled","tags":{"x":1},"authentication":{"symmetricKey":{"primaryKey":null,"secondaryKey":null},"type":"sas"}}`,
		`{"id":"keep","status":"enabled","tags":{"b.ad":1}}`,
		`{"id":"keep","ID":"x","status":"enabled"}`,
		`{"id":"bad id","status":"enabled"}`,
		`{"id":"lonely","moduleId":"m","status":"enabled"}`,
		`{"id":"$edge","status":"enabled"}`,
	}, "\n"))
	want := []string{
		"5 old 409001", "6 none 404001", "8 old 412001", "10 gone2 412001", "11 gone 404001", "13 twin 412001", "14 nostatus 400005", "15 spelt 400012",
		"16 mode 400012", "17  400005", "18  400012", "20 keep 400004", "21  400012", "22 bad id 400004", "23 lonely/m 404001", "24 $edge 400004",
	}
	if got := m.faults(); !slices.Equal(got, want) {
		t.Errorf("errors\n%q, want\n%q", got, want)
	}
	for _, reason := range []string{`"There is no such device identity: \"none\""`, `"There is no such device identity: \"lonely\""`} {
		if log := m.get("importErrors.log"); !strings.Contains(log, reason) {
			t.Errorf("the log does not say %s:\n%s", reason, log)
		}
	}
	counts := IdentityJobCounts{Lines: 24, Skipped: 2, Created: 2, Updated: 3, Deleted: 1, Failed: 16, Logged: 16}
	if j.Status != IdentityJobCompleted || j.FailureReason != "" || j.Counts != counts || j.Progress != 100 || j.Bytes != j.Total {
		t.Errorf("job %+v, want counts %+v", j, counts)
	}
	if i := m.identity("new"); i.Authentication.PrimaryKey.Reveal() != key1 || i.Authentication.SecondaryKey.Reveal() != key2 {
		t.Error("the keys are not those of the file")
	}
	if i := m.identity("new/m"); i.ManagedBy != "me" {
		t.Errorf("module %+v", i)
	}
	if w := m.twin("new"); string(w.Tags.Plain(nil))+string(w.Desired.Plain(nil))+string(w.Reported.Plain(nil)) != `{"a":1}{"b":2}{"c":3}` {
		t.Errorf("twin %s %s %s", w.Tags.Plain(nil), w.Desired.Plain(nil), w.Reported.Plain(nil))
	}
	if i := m.identity("old"); !i.Disabled || i.StatusReason != "sold" {
		t.Errorf("old %+v", i)
	}
	if i := m.identity("twin"); i.Disabled {
		t.Error("updateTwin has touched the identity")
	}
	if i := m.identity("keep"); i.Authentication != keys {
		t.Error("a line without keys has changed them")
	}
	if w := m.twin("keep"); string(w.Tags.Plain(nil)) != `{"x":1}` {
		t.Errorf("a line that failed has left %s", w.Tags.Plain(nil))
	}
	if s, err := m.Statistics(m.ctx(), m.c); err != nil || s.Devices != 5 || s.Disabled != 1 || s.Modules != 1 {
		t.Errorf("statistics %+v, %v", s, err)
	}
	page, err := m.Query(m.ctx(), m.c, QueryRequest{Where: "tags.a == 1"})
	if err != nil || len(page.Twins) != 2 {
		t.Errorf("the query finds %d, %v", len(page.Twins), err)
	}
	entries, _, err := m.TwinHistory(m.ctx(), m.c, TwinID{DeviceID: "new"}, "", "", 10)
	if err != nil || len(entries) != 4 || entries[0].Cause != "job:"+j.ID || entries[0].Principal != "local:uid=0" {
		t.Errorf("history %+v, %v", entries, err)
	}
}

// What one hub exports another one imports, to the same identities, twins and
// stamps, whatever the order of parents and children.
func TestExportImports(t *testing.T) {
	t.Parallel()
	a := newImporter(t, Options{})
	parent, err := a.CreateIdentity(a.ctx(), a.c, Identity{DeviceID: "z-edge", Edge: true})
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{
		`{"id":"leaf","status":"disabled","statusReason":"it \"is\"","deviceScope":"` + parent.DeviceScope + `","tags":{"site":"lyon","x":{"y":[1,{"z":true}]}},"properties":{"desired":{"fw":"2.0"},"reported":{"fw":"1.0"}}}`,
		`{"id":"cert","status":"enabled","authentication":{"x509Thumbprint":{"primaryThumbprint":"` + strings.Repeat("ab", 20) + `"},"type":"selfSigned"}}`,
		`{"id":"ca","status":"enabled","authentication":{"type":"certificateAuthority"}}`,
		`{"id":"leaf","moduleId":"m","properties":{"desired":{"p":1}}}`,
	}
	if j := a.importText(strings.Join(lines, "\n")); j.Counts.Failed != 0 {
		t.Fatal(a.get("importErrors.log"))
	}
	j := a.run(IdentityJobSpec{Type: IdentityExport, OutputBlob: "out.txt"})
	if j.Status != IdentityJobCompleted || j.Counts.Created != 7 || j.Total != 4 || j.Bytes != 4 {
		t.Errorf("export %+v", j)
	}
	text := a.get("out.txt")
	b := newImporter(t, Options{})
	if j := b.importText(text); j.Counts.Failed != 0 || j.Counts.Created+j.Counts.Updated != 7 {
		t.Fatalf("%+v\n%s", j.Counts, b.get("importErrors.log"))
	}
	b.run(IdentityJobSpec{Type: IdentityExport})
	if got, want := withoutETags(t, b.get("devices.txt")), withoutETags(t, text); got != want {
		t.Errorf("exported again\n%s\nwant\n%s", got, want)
	}
	// Once more over what is there.
	if j := b.importText(text); j.Counts.Failed != 0 || j.Counts.Updated != 7 {
		t.Errorf("%+v\n%s", j.Counts, b.get("importErrors.log"))
	}

	a.run(IdentityJobSpec{Type: IdentityExport, ExcludeKeys: true, Where: "tags.site == 'lyon'"})
	if text := a.get("devices.txt"); strings.Count(text, "\n") != 2 || !strings.Contains(text, `"symmetricKey":{"primaryKey":null,"secondaryKey":null}`) || strings.Contains(text, `Key":"`) {
		t.Errorf("without keys: %s", text)
	}
}

// Modules follow their device in the order of the names, also where a page begins or ends with it,
// and where one device's name begins with another's.
func TestExportOrdersModules(t *testing.T) {
	t.Parallel()
	m := newImporter(t, Options{})
	var lines, want []string
	device := func(id string, modules ...string) {
		lines = append(lines, fmt.Sprintf(`{"id":%q,"status":"enabled"}`, id))
		want = append(want, id)
		for _, name := range modules {
			lines = append(lines, fmt.Sprintf(`{"id":%q,"moduleId":%q}`, id, name))
			want = append(want, id+"/"+name)
		}
	}
	device("a", "x")
	device("a!", "y", "z")
	for i := 3; i <= exportPage+3; i++ {
		id := fmt.Sprintf("d%04d", i)
		if i >= exportPage-1 && i <= exportPage+2 || i == 7 {
			device(id, "m1", "m2")
		} else {
			device(id)
		}
	}
	device("e")
	if j := m.importText(strings.Join(lines, "\n")); j.Counts.Failed != 0 {
		t.Fatal(m.get("importErrors.log"))
	}
	m.run(IdentityJobSpec{Type: IdentityExport})
	var got []string
	for line := range strings.SplitSeq(strings.TrimSpace(m.get("devices.txt")), "\n") {
		var l struct{ ID, ModuleID string }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		if l.ModuleID != "" {
			l.ID += "/" + l.ModuleID
		}
		got = append(got, l.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("exported %d lines, expected %d; from the first that differs on:", len(got), len(want))
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Fatalf("%q, expected %q", got[i:min(len(got), i+4)], want[i:min(len(want), i+4)])
			}
		}
	}
}

// withoutETags drops what differs between two hubs.
func withoutETags(t *testing.T, text string) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		var m map[string]json.RawMessage
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		delete(m, "eTag")
		delete(m, "twinETag")
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(append(b, '\n'))
	}
	return out.String()
}

// A parent may come after its children, and then closes no circle and makes no
// tree too high.
func TestImportOfEdgeParents(t *testing.T) {
	t.Parallel()
	m := newImporter(t, Options{})
	scope := func(id string) string { return edgeScopePrefix + id + "-637503999671234567" }
	edge := func(id, parent string) string {
		return `{"id":"` + id + `","status":"enabled","capabilities":{"iotEdge":true},"deviceScope":"` + scope(id) + `","parentScopes":["` + scope(parent) + `"]}`
	}
	lines := []string{edge("self", "self"), edge("a", "b"), edge("b", "c"), edge("c", "a")}
	most := m.limits.EdgeLayers
	for i := range most + 1 {
		lines = append(lines, edge("d"+strconv.Itoa(i), "d"+strconv.Itoa(i+1)))
	}
	lines = append(lines, `{"id":"d`+strconv.Itoa(most+1)+`","status":"enabled","capabilities":{"iotEdge":true},"deviceScope":"`+scope("d"+strconv.Itoa(most+1))+`"}`)
	m.importText(strings.Join(lines, "\n"))
	if got, want := m.faults(), []string{"1 self 400028", "4 c 400028", strconv.Itoa(most+5) + " d" + strconv.Itoa(most) + " 400028"}; !slices.Equal(got, want) {
		t.Errorf("refused %q, want %q", got, want)
	}
}

// An export as Azure IoT Hub writes it.
func TestImportAzureExport(t *testing.T) {
	t.Parallel()
	m := newImporter(t, Options{})
	j := m.importText(strings.Join([]string{
		"The keys of this export are excluded.",
		`{"id":"edge1","eTag":"MTIz","status":"enabled","authentication":{"symmetricKey":{"primaryKey":"` + key1 + `","secondaryKey":"` + key2 + `"},"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"type":"sas"},"twinETag":"AAAAAAAAAAc=","tags":{},"properties":{"desired":{"$metadata":{"$lastUpdated":"2021-03-04T05:06:07.1234567Z"},"$version":1},"reported":{"$metadata":{"$lastUpdated":"2021-03-04T05:06:07.1234567Z"},"$version":1}},"capabilities":{"iotEdge":true},"deviceScope":"ms-azure-iot-edge://edge1-637503999671234567","parentScopes":[]}`,
		`{"id":"leaf1","eTag":"MTI0","status":"enabled","authentication":{"symmetricKey":{"primaryKey":"` + key1 + `","secondaryKey":"` + key2 + `"},"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"type":"sas"},"twinETag":"AAAAAAAAAAc=","tags":{"a":"b"},"properties":{"desired":{"t":5,"$metadata":{"$lastUpdated":"2021-03-04T05:06:07.1234567Z","$lastUpdatedVersion":9,"t":{"$lastUpdated":"2021-03-04T05:06:07.1234567Z","$lastUpdatedVersion":9}},"$version":9},"reported":{"$metadata":{"$lastUpdated":"2021-03-04T05:06:07.1234567Z"},"$version":1}},"capabilities":{"iotEdge":false},"deviceScope":"ms-azure-iot-edge://edge0-637503999671234567","parentScopes":["ms-azure-iot-edge://edge0-637503999671234567"]}`,
		`{"id":"edge1","moduleId":"$edgeAgent","eTag":"MTI1","status":"enabled","authentication":{"symmetricKey":{"primaryKey":null,"secondaryKey":null},"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"type":"none"},"twinETag":"AAAAAAAAAAc=","properties":{"desired":{"schemaVersion":"1.1","$metadata":{"$lastUpdated":"2021-03-04T05:06:07.1234567Z","$lastUpdatedVersion":2},"$version":2}},"managedBy":"iotEdge"}`,
		`{"id":"edge1","moduleId":"app","eTag":"MTI1","status":"enabled","authentication":{"symmetricKey":{"primaryKey":"` + key1 + `","secondaryKey":"` + key2 + `"},"type":"sas"}}`,
		`{"id":"edge0","status":"enabled","capabilities":{"iotEdge":true},"deviceScope":"ms-azure-iot-edge://edge0-637503999671234567"}`,
		`{"id":"stray","status":"enabled","deviceScope":"somewhere"}`,
	}, "\r\n"))
	if got := m.faults(); !slices.Equal(got, []string{"7 stray 400028"}) || j.Counts.Created != 4 || j.Counts.Updated != 1 {
		t.Errorf("%+v %q", j.Counts, got)
	}
	if i := m.identity("edge1"); i.DeviceScope != "ms-azure-iot-edge://edge1-637503999671234567" {
		t.Errorf("the edge device has the scope %s", i.DeviceScope)
	}
	if i := m.identity("leaf1"); !slices.Equal(i.ParentScopes, []string{m.identity("edge0").DeviceScope}) {
		t.Errorf("the leaf's parents are %v", i.ParentScopes)
	}
	if d := string(m.twin("leaf1").Desired.JSON(nil, true)); !strings.Contains(d, `"t":{"$lastUpdated":"2021-03-04T05:06:07.1234567Z","$lastUpdatedVersion":9}`) || !strings.Contains(d, `"$version":9`) {
		t.Errorf("desired %s", d)
	}
	if a := m.identity("edge1/$edgeAgent").Authentication.Type; a != AuthNone {
		t.Errorf("the system module authenticates by %s", a)
	}
}

func TestImportDryRun(t *testing.T) {
	t.Parallel()
	m := newImporter(t, Options{})
	if _, err := m.CreateIdentity(m.ctx(), m.c, Identity{DeviceID: "old"}); err != nil {
		t.Fatal(err)
	}
	lines := []string{`{"id":"old","status":"enabled","importMode":"delete"}`, `{"id":"new","status":"enabled"}`}
	for len(lines) < 2*importLines { // another step follows
		lines = append(lines, `# comment`, `{"id":"filler","status":"enabled"}`)
	}
	lines = append(lines, `{"id":"new","moduleId":"m","status":"enabled"}`, `{"id":"new","status":"enabled","importMode":"create"}`, `{"id":"old","status":"enabled","importMode":"update"}`)
	text := strings.Join(lines, "\n")
	m.put("devices.txt", text)
	first := m.list()
	dry := m.run(IdentityJobSpec{Type: IdentityImport, DryRun: true})
	faults := m.faults()
	if got := m.list(); !slices.Equal(got, first) {
		t.Errorf("a dry run has made %v of %v", got, first)
	}
	if len(faults) != 2 {
		t.Errorf("errors %q", faults)
	}
	real := m.run(IdentityJobSpec{Type: IdentityImport})
	if dry.Counts != real.Counts || !slices.Equal(faults, m.faults()) {
		t.Errorf("the dry run said %+v %q, then came %+v %q", dry.Counts, faults, real.Counts, m.faults())
	}
}

func (m *importer) list() []string {
	m.Helper()
	list, _, err := m.Devices(m.ctx(), m.c, "", "", 1000)
	if err != nil {
		m.Fatal(err)
	}
	var ids []string
	for _, i := range list {
		ids = append(ids, i.DeviceID+" "+i.ETag)
	}
	return ids
}

// Lines keep their order, whatever step they are in.
func TestImportOrder(t *testing.T) {
	t.Parallel()
	m := newImporter(t, Options{})
	var text strings.Builder
	for i := range 1500 {
		fmt.Fprintf(&text, `{"id":"d%d","status":"enabled","tags":{"n":%d}}`+"\n", i%7, i)
	}
	text.WriteString(`{"id":"d3","status":"enabled","importMode":"delete"}` + "\n" + `{"id":"d3","status":"enabled","importMode":"create","tags":{"n":"again"}}`)
	j := m.importText(text.String())
	if j.Counts != (IdentityJobCounts{Lines: 1502, Created: 8, Updated: 1493, Deleted: 1}) {
		t.Errorf("%+v %v", j.Counts, m.faults())
	}
	for i := range 7 {
		want := fmt.Sprintf(`{"n":%d}`, 1499-(1499-i)%7)
		if i == 3 {
			want = `{"n":"again"}`
		}
		if got := string(m.twin(fmt.Sprint("d", i)).Tags.Plain(nil)); got != want {
			t.Errorf("d%d has %s, want %s", i, got, want)
		}
	}
}

// After a kill at any step an import ends as if there had been none.
func TestImportResumes(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for i := range 1200 {
		fmt.Fprintf(&text, `{"id":"d%d","status":"enabled","tags":{"n":%d}}`+"\n", i*5%1100, i)
		if i%100 == 7 {
			fmt.Fprintf(&text, "{bad %d}\n", i)
		}
		if i%90 == 4 {
			text.WriteString("\n")
		}
	}
	plain := newImporter(t, Options{})
	want := plain.importText(text.String())
	log := plain.get("importErrors.log")
	reached := map[string]int{}
	var stop func(string) bool
	kill := errors.New("killed")
	m := newImporter(t, Options{Reached: func(step string) {
		if stop != nil && stop(step) {
			panic(kill)
		}
	}})
	for round := 0; ; round++ {
		m.put("devices.txt", text.String())
		j := m.create(IdentityJobSpec{Type: IdentityImport})
		places, stopped := 0, false
		stop = func(step string) bool {
			if !strings.HasPrefix(step, "import.") {
				return false
			}
			places++
			stopped = places == round+1
			if stopped {
				reached[step]++
			}
			return stopped
		}
		func() {
			defer func() {
				if p := recover(); p != nil && p != kill { //nolint:errorlint // the value itself
					panic(p)
				}
			}()
			m.settle()
		}()
		if m.job(j.ID).Status == IdentityJobCompleted && !stopped {
			break
		}
		stop = nil
		if err := m.Hub.Close(); err != nil {
			t.Fatal(err)
		}
		m.open()
		m.grant()
		m.settle()
		got := m.job(j.ID)
		if got.Status != IdentityJobCompleted || got.Counts.Lines != want.Counts.Lines || got.Counts.Created+got.Counts.Updated != want.Counts.Created+want.Counts.Updated ||
			got.Counts.Failed != want.Counts.Failed || got.Counts.Skipped != want.Counts.Skipped || got.Counts.Logged != want.Counts.Logged || m.get("importErrors.log") != log {
			t.Fatalf("killed at %v it ends as %+v with\n%s\nwant %+v with\n%s", reached, got.Counts, m.get("importErrors.log"), want.Counts, log)
		}
		if s, err := m.Statistics(m.ctx(), m.c); err != nil || s.Devices != want.Counts.Created {
			t.Fatalf("there are %d devices, %v, want %d", s.Devices, err, want.Counts.Created)
		}
		_ = m.view(m.ctx(), "", func(r storage.Reader) error {
			for item := range importLogTable.Scan(r, storage.Range{}) {
				t.Errorf("an entry of the log is left: %v", item.Key)
			}
			return nil
		})
	}
	for _, step := range []string{"import.begin", "import.lines", "import.finish", "import.tidy"} {
		for _, when := range []string{":before", ":after"} {
			if reached[step+when] == 0 {
				t.Errorf("it was never killed at %s", step+when)
			}
		}
	}
}

func TestIdentityJobControl(t *testing.T) {
	t.Parallel()
	m := newImporter(t, Options{Profile: ProfileAzure})
	m.put("devices.txt", `{"id":"a","status":"enabled"}`)
	code := func(want Code, err error) {
		t.Helper()
		if e := AsError(err); err == nil || e.Code != want || e.NextStep() == "" {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	in := IdentityJobSpec{Type: IdentityImport, Input: BlobContainer{Name: "box"}}
	try := func(s IdentityJobSpec) error { _, err := m.CreateIdentityJob(m.ctx(), m.c, s); return err }
	bad := func(change func(s *IdentityJobSpec)) error { s := in; change(&s); return try(s) }
	code(CodeBlobContainer, bad(func(s *IdentityJobSpec) { s.InputBlob = "other.txt" }))
	code(CodeBlobContainer, bad(func(s *IdentityJobSpec) { s.Input.Name = "other" }))
	code(CodeBlobContainer, bad(func(s *IdentityJobSpec) { s.Input.Name = "" }))
	code(CodeBlobContainer, bad(func(s *IdentityJobSpec) { s.Input.Token = &auth.ContainerToken{} }))
	code(CodeBlobContainer, bad(func(s *IdentityJobSpec) { s.Output.Name = "other" }))
	code(CodeArgumentInvalid, bad(func(s *IdentityJobSpec) { s.InputBlob = "../x" }))
	code(CodeArgumentInvalid, bad(func(s *IdentityJobSpec) { s.DefaultMode = "x" }))
	code(CodeArgumentInvalid, bad(func(s *IdentityJobSpec) { s.Description = strings.Repeat("x", 1025) }))
	code(CodeArgumentInvalid, bad(func(s *IdentityJobSpec) { s.Type = "" }))
	code(CodeArgumentInvalid, bad(func(s *IdentityJobSpec) { s.Type, s.Output, s.Where = IdentityExport, s.Input, "tags." }))
	_, err := m.CreateIdentityJob(m.ctx(), Caller{}, in)
	code(CodeForbidden, err)

	j := m.create(in)
	if j.Status != IdentityJobEnqueued || j.ID == "" {
		t.Errorf("made %+v", j)
	}
	code(CodeJobQuotaExceeded, try(in))
	_, err = m.IdentityJob(m.ctx(), m.c, "none")
	code(CodeJobNotFound, err)
	_, err = m.CancelIdentityJob(m.ctx(), m.c, "none")
	code(CodeJobNotFound, err)
	if j, err = m.CancelIdentityJob(m.ctx(), m.c, j.ID); err != nil || j.Status != IdentityJobCancelled {
		t.Errorf("%+v, %v", j, err)
	}
	_, err = m.CancelIdentityJob(m.ctx(), m.c, j.ID)
	code(CodeJobState, err)
	m.settle()
	if text := m.get("importErrors.log"); text != "" || len(m.list()) != 0 {
		t.Errorf("a job that was canceled has made %v and %q", m.list(), text)
	}
	second := m.run(in)
	list, next, err := m.IdentityJobs(m.ctx(), m.c, "", 1)
	if err != nil || len(list) != 1 || list[0].ID != second.ID || next == "" {
		t.Errorf("list %+v %q %v", list, next, err)
	}
	if list, next, err = m.IdentityJobs(m.ctx(), m.c, next, 1); err != nil || len(list) != 1 || list[0].ID != j.ID || next != "" {
		t.Errorf("list %+v %q %v", list, next, err)
	}
	m.limits.IdentityJobs = 1
	if err := m.retainIdentityJobs(m.ctx()); err != nil {
		t.Fatal(err)
	}
	if _, err = m.IdentityJob(m.ctx(), m.c, j.ID); err == nil || m.job(second.ID).Status != IdentityJobCompleted {
		t.Errorf("the older job is left: %v", err)
	}
}

// A job stops when who made it may no longer do that, in the middle of it too.
func TestIdentityJobOwner(t *testing.T) {
	t.Parallel()
	m := newImporter(t, Options{})
	owner := Caller{Principal: auth.Principal{Kind: auth.Policy, Name: "ops", Permissions: auth.RegistryWrite}}
	if _, err := m.PutPolicy(m.ctx(), m.c, auth.SharedAccessPolicy{Name: "ops", Permissions: auth.RegistryWrite}); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for i := range 3 * importLines {
		fmt.Fprintf(&text, `{"id":"d%d","status":"enabled"}`+"\n", i)
	}
	m.put("devices.txt", text.String())
	j, err := m.CreateIdentityJob(m.ctx(), owner, IdentityJobSpec{Type: IdentityImport, Input: BlobContainer{Name: "box"}})
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	m.reached = func(step string) {
		if step == "import.lines:after" {
			if steps++; steps == 1 {
				if err := m.DeletePolicy(m.ctx(), m.c, "ops"); err != nil {
					t.Error(err)
				}
			}
		}
	}
	m.settle()
	if j = m.job(j.ID); j.Status != IdentityJobFailed || !strings.Contains(j.FailureReason, "policy:ops") || j.Counts.Created != importLines || len(m.list()) != importLines {
		t.Errorf("%+v with %d devices", j, len(m.list()))
	}
}

func TestImportHostile(t *testing.T) {
	t.Parallel()
	m := newImporter(t, Options{})
	m.limits.ImportLogBytes = 2000
	m.limits.ImportLineBytes = 4000
	var text strings.Builder
	for range 500 {
		text.WriteString("{\n")
	}
	text.WriteString(`{"id":"` + strings.Repeat("x", 5000) + `","status":"enabled"}` + "\n")
	text.WriteString(`{"id":"deep","status":"enabled","x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + "}\n")
	text.WriteString("{\"id\":\"utf\xff\",\"status\":\"enabled\"}\n")
	text.WriteString(`{"id":"last","status":"enabled"}`)
	j := m.importText(text.String())
	if j.Counts.Created != 1 || j.Counts.Failed != 503 || j.Counts.Logged == 0 || j.Counts.Logged >= 503 {
		t.Errorf("%+v", j.Counts)
	}
	log := m.get("importErrors.log")
	lines := m.faults()
	if len(log) > 2500 || !strings.Contains(log, "the log is cut here") || int64(len(lines)) != j.Counts.Logged+1 || !strings.HasSuffix(lines[len(lines)-1], " 413001") {
		t.Errorf("the log has %d bytes and ends with %q", len(log), lines[len(lines)-1])
	}

	m.limits.ImportLogBytes = 1 << 20
	j = m.importText(`{"id":"long","status":"enabled","x":"` + strings.Repeat("x", 4000) + `"}` + "\n" +
		`{"id":"deep","status":"enabled","x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}\n" + `{"id":"fine","status":"enabled","unknown":{"x":[1,2,{"y":null}]}}`)
	if got := m.faults(); !slices.Equal(got, []string{"1  400012", "2  400012"}) || j.Counts.Created != 1 {
		t.Errorf("%q %+v", got, j.Counts)
	}
	if j := m.importText(""); j.Status != IdentityJobCompleted || j.Counts != (IdentityJobCounts{}) || m.get("importErrors.log") != "" {
		t.Errorf("an empty file: %+v", j)
	}
}

// A batch that the store can't take at once is divided, and nothing of it is lost.
func TestImportLargeTwins(t *testing.T) {
	t.Parallel()
	m := newImporter(t, Options{})
	var text strings.Builder
	for i := range 30 {
		text.WriteString(fmt.Sprintf(`{"id":"d%d","status":"enabled","tags":{`, i))
		for k := range 50 {
			fmt.Fprintf(&text, `"k%d":"%s",`, k, strings.Repeat("x", 3900))
		}
		text.WriteString("\"z\":1}}\n\n")
	}
	j := m.importText(text.String())
	if j.Counts != (IdentityJobCounts{Lines: 60, Skipped: 30, Created: 30}) || len(m.list()) != 30 {
		t.Errorf("%+v %v", j.Counts, m.faults())
	}
}

func TestContainers(t *testing.T) {
	t.Parallel()
	m := newImporter(t, Options{})
	ctx := m.ctx()
	code := func(want Code, err error) {
		t.Helper()
		if e := AsError(err); err == nil || e.Code != want {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	for _, name := range []string{"ab", "Abc", "-abc", "abc-", "a--b", "a/b", strings.Repeat("a", 64), "a.b", "../x"} {
		_, err := m.CreateContainer(ctx, m.c, name)
		code(CodeArgumentInvalid, err)
	}
	_, err := m.CreateContainer(ctx, m.c, "box")
	code(CodeBlobContainerExists, err)
	a, err := m.ContainerAccess(ctx, m.c, "box", 0)
	if err != nil {
		t.Fatal(err)
	}
	q, _ := url.ParseQuery(strings.TrimPrefix(a.Token, "?"))
	token, err := auth.ParseContainerToken(q)
	if err != nil {
		t.Fatal(err)
	}
	g, err := m.AuthorizeContainer(ctx, "box", token)
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.AuthorizeContainer(ctx, "other", token)
	code(CodeUnauthorized, err)
	for _, name := range []string{"", "../a", "a//b", `a\b`, "a\x00b", "/a"} {
		_, err := m.PutBlob(ctx, g, name, UploadBody{Reader: strings.NewReader("x"), Size: 1}, BlobCondition{})
		if err == nil {
			t.Errorf("the name %q is taken", name)
		}
	}
	body := func(s string) UploadBody { return UploadBody{Reader: strings.NewReader(s), Size: int64(len(s))} }
	first, err := m.PutBlob(ctx, g, "dir/a.txt", body("one"), BlobCondition{Absent: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.PutBlob(ctx, g, "dir/a.txt", body("two"), BlobCondition{Absent: true})
	code(CodePreconditionFailed, err)
	_, err = m.PutBlob(ctx, g, "dir/a.txt", body("two"), BlobCondition{ETag: "0x1"})
	code(CodePreconditionFailed, err)
	if _, err = m.PutBlob(ctx, g, "dir/a.txt", body("twelve"), BlobCondition{ETag: first.ETag}); err != nil {
		t.Error(err)
	}
	for i, b := range []string{"B", "A", "B2"} {
		if err := m.StageBlobBlock(ctx, g, "joined", string("bab"[i]), body(b)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = m.CommitBlobBlocks(ctx, g, "joined", []string{"a", "c"}, "", "", BlobCondition{})
	code(CodeBlockUnknown, err)
	if b, err := m.CommitBlobBlocks(ctx, g, "joined", []string{"a", "b", "a"}, "text/plain", "", BlobCondition{}); err != nil || b.Size != 4 || m.get("joined") != "AB2A" {
		t.Errorf("%+v %v", b, err)
	}
	list, _, err := m.Blobs(ctx, g, "dir/", "", 10)
	if err != nil || len(list) != 1 || list[0].Size != 6 {
		t.Errorf("%+v %v", list, err)
	}
	if c, err := m.Container(ctx, m.c, "box"); err != nil || c.Blobs != 2 || c.Bytes != 10 || m.imports.kept.Load() != 10 {
		t.Errorf("%+v %v", c, err)
	}
	m.imports.share = 12
	_, err = m.PutBlob(ctx, g, "more", body("xyz"), BlobCondition{})
	code(CodeQuotaExceeded, err)
	m.imports.share = 1 << 20
	if err := m.DeleteBlob(ctx, g, "joined"); err != nil {
		t.Error(err)
	}
	_, err = m.Blob(ctx, g, "joined")
	code(CodeBlobNotFound, err)
	if err := m.StageBlobBlock(ctx, g, "staged", "x", body("waits")); err != nil {
		t.Fatal(err)
	}
	if err := m.DeleteContainer(ctx, m.c, "box"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.CreateContainer(ctx, m.c, "box"); err != nil {
		t.Fatal(err)
	}
	_, err = m.Blob(ctx, g, "dir/a.txt") // a token of the one before
	code(CodeBlobContainerNotFound, err)
	if err := errors.Join(m.sweepContainers(ctx), m.sweepBlobs(ctx)); err != nil {
		t.Fatal(err)
	}
	if n := m.imports.kept.Load(); n != 0 {
		t.Errorf("%d bytes are left", n)
	}
	m.limits.ContainerAge = -1
	if err := m.sweepContainers(ctx); err != nil {
		t.Fatal(err)
	}
	if list, _, err := m.Containers(ctx, m.c, "", 10); err != nil || len(list) != 0 {
		t.Errorf("%+v %v", list, err)
	}
}

func FuzzIdentityLine(f *testing.F) {
	for _, line := range []string{
		`{"id":"a","status":"enabled","authentication":{"symmetricKey":{"primaryKey":"x"},"type":"sas"},"tags":{"a":1},"properties":{"desired":{"$version":1},"reported":null}}`,
		`{"ID":"a","id":"b"}`, `{"id":"a","parentScopes":["x",1]}`, `{"id":"a","capabilities":{"iotEdge":1}}`, `{`, "\ufeff{}", `{"id":"a","properties":{"Desired":{},"desired":{}}}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		l, err := parseIdentityLine(line, ImportCreateOrUpdate)
		if err == nil && l.identity.DeviceID == "" {
			t.Fatal("a line without an id is taken")
		}
		if err != nil {
			if _, ok := importNumbers[AsError(err).Code]; !ok || AsError(err).Code == CodeInternal {
				t.Fatalf("%v has no number", err)
			}
		}
	})
}

func FuzzLineReader(f *testing.F) {
	f.Add([]byte("a\r\n\nbb\nlast"), 3)
	f.Add([]byte(strings.Repeat("x", 200)+"\ny"), 10)
	f.Fuzz(func(t *testing.T, text []byte, most int) {
		if most < 1 || most > 1<<16 {
			return
		}
		read := func(from []byte, number, offset int64) (list []string, ends []int64) {
			r := newLineReader(strings.NewReader(string(from)), most, number, offset)
			for {
				line, long, err := r.next()
				if err != nil {
					if !errors.Is(err, io.EOF) {
						t.Fatal(err)
					}
					return list, ends
				}
				if long {
					list = append(list, "long")
				} else if list = append(list, string(line)); len(line) > most {
					t.Fatalf("a line of %d bytes, at most %d", len(line), most)
				}
				ends = append(ends, r.offset)
				if int(r.number-number) != len(list) {
					t.Fatal("lines are miscounted")
				}
			}
		}
		list, ends := read(text, 0, 0)
		want := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
		if len(text) == 0 {
			want = nil
		}
		if len(list) != len(want) {
			t.Fatalf("%d lines, want %d", len(list), len(want))
		}
		for i := range want {
			w := strings.TrimSuffix(want[i], "\r")
			if len(w) > most {
				w = "long"
			}
			if list[i] != w {
				t.Fatalf("line %d is %q, want %q", i, list[i], w)
			}
		}
		for i, at := range ends { // from everywhere it reads on as it would have
			if rest, _ := read(text[at:], int64(i+1), at); !slices.Equal(rest, list[i+1:]) {
				t.Fatalf("from %d on it reads %q, want %q", at, rest, list[i+1:])
			}
		}
	})
}

// BenchmarkImport measures an import of new devices with twins of about 500
// bytes, all in one job.
func BenchmarkImport(b *testing.B) {
	m := newImporter(b, Options{})
	var text strings.Builder
	for i := range b.N {
		fmt.Fprintf(&text, `{"id":"device-%07d","status":"enabled","authentication":{"symmetricKey":{"primaryKey":"%s","secondaryKey":"%s"},"type":"sas"},"tags":{"site":"site-%d","ring":%d,"location":{"lat":%d.25,"lon":%d.5,"country":"DE"},"owner":"team-%d","model":"m%d"},"properties":{"desired":{"fw":{"version":"1.%d.0","slot":"a"},"interval":%d,"mode":"auto","text":"%0100d"}}}`+"\n",
			i, key1, key2, i%1000, i%10, i%90, i%180, i%50, i%20, i%10, i%60, i)
	}
	m.put("devices.txt", text.String())
	m.create(IdentityJobSpec{Type: IdentityImport})
	b.ReportAllocs()
	b.ResetTimer()
	used := usedTime()
	m.settle()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "identities/s")
	b.ReportMetric(float64(usedTime()-used)/1000/float64(b.N), "cpu-us/op")
	if s, err := m.Statistics(m.ctx(), m.c); err != nil || s.Devices != int64(b.N) {
		b.Fatal(s, err)
	}
}

// Configurations travel with identities, in IoT Hub's spelling, and a kill after
// any of their lines changes nothing of the outcome.
func TestConfigurationsTravel(t *testing.T) {
	t.Parallel()
	a := newImporter(t, Options{})
	for _, id := range []string{"first", "second"} {
		_, err := a.PutConfiguration(a.ctx(), a.c, Configuration{
			ID: id, Labels: map[string]string{"team": "a"}, TargetCondition: "tags.site = 'lyon'", Priority: 7,
			Content: ConfigurationContent{Device: json.RawMessage(`{"properties.desired.` + id + `":{"on":true}}`)},
			Metrics: ConfigurationMetrics{Queries: map[string]string{"all": "SELECT deviceId FROM devices"}},
		}, IfMatch{})
		if err != nil {
			t.Fatal(err)
		}
	}
	j := a.run(IdentityJobSpec{Type: IdentityExport, Configurations: true})
	text := a.get("configurations.txt")
	if j.Counts.Configurations != 2 || strings.Count(text, "\n") != 2 || !strings.HasPrefix(text, `{"Id":"first","Labels":{"team":"a"},"Content":{"DeviceContent":{"properties.desired.first":{"on":true}}},"TargetCondition":"tags.site = 'lyon'","CreatedTimeUtc":`) {
		t.Errorf("%+v\n%s", j.Counts, text)
	}
	text += `{"id":"UPPER","content":{}}` + "\n{bad\n" + `{"id":"first","content":{"deviceContent":{"properties.desired.first":1},"moduleContent":null},"targetCondition":"*"}` + "\n"

	lines := 0
	killed := errors.New("killed")
	b := newImporter(t, Options{})
	b.put("devices.txt", `{"id":"d","status":"enabled"}`)
	b.put("configurations.txt", text)
	job := b.create(IdentityJobSpec{Type: IdentityImport, Configurations: true})
	for round := range 6 {
		b.reached = func(step string) {
			if lines++; step == "import.configuration:after" && lines%3 == 0 {
				panic(killed)
			}
		}
		func() {
			defer func() {
				if p := recover(); p != nil && p != killed { //nolint:errorlint // the value itself
					panic(p)
				}
			}()
			b.settle()
		}()
		b.reached = nil
		if b.job(job.ID).Status == IdentityJobCompleted {
			break
		}
		if round == 5 {
			b.settle()
		}
		if err := b.Hub.Close(); err != nil {
			t.Fatal(err)
		}
		b.open()
		b.grant()
	}
	b.settle()
	job = b.job(job.ID)
	if got := b.faults(); job.Status != IdentityJobCompleted || job.Counts.Configurations != 3 || job.Counts.Created != 1 || !slices.Equal(got, []string{"3  400004", "4  400012"}) {
		t.Errorf("%+v %q", job, got)
	}
	for id, want := range map[string]string{"first": "*", "second": "tags.site = 'lyon'"} {
		g, err := b.Configuration(b.ctx(), b.c, id)
		if err != nil || g.TargetCondition != want || id == "second" && (g.Priority != 7 || g.Labels["team"] != "a" || g.Metrics.Queries["all"] == "") {
			t.Errorf("%+v, %v", g, err)
		}
	}
	b.put("configurations.txt", `{"Id":"third","Content":{"DeviceContent":{"properties.desired.x":1}},"TargetCondition":"*"}`)
	if j := b.run(IdentityJobSpec{Type: IdentityImport, Configurations: true, DryRun: true}); j.Counts.Configurations != 1 || j.Counts.Failed != 0 {
		t.Errorf("%+v", j.Counts)
	}
	if _, err := b.Configuration(b.ctx(), b.c, "third"); err == nil {
		t.Error("a dry run has made a configuration")
	}
}
