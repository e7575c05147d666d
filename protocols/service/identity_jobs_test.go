package service

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
)

// blob sends a request of the storage protocol.
func (f *fixture) blob(method, uri, body string, options ...option) (int, http.Header, string) {
	f.Helper()
	r, err := http.NewRequestWithContext(f.Context(), method, uri, strings.NewReader(body))
	if err != nil {
		f.Fatal(err)
	}
	for _, o := range options {
		o(r)
	}
	w, err := f.client.Do(r)
	if err != nil {
		f.Fatal(err)
	}
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	if err != nil {
		f.Fatal(err)
	}
	return w.StatusCode, w.Header, string(text)
}

// container makes a container and returns its address, and that of a blob in it.
func (f *fixture) container(name string) (uri string, blob func(string) string) {
	f.Helper()
	f.do("POST", "/api/v1/containers", `{"name":"`+name+`"}`).want(201)
	uri = f.do("POST", "/api/v1/containers/"+name+"/access", `{"expiresIn":"1h"}`).want(200).text("uri")
	return uri, func(b string) string { return strings.Replace(uri, "?", "/"+b+"?", 1) }
}

func blockBlob(r *http.Request) { r.Header.Set("x-ms-blob-type", "BlockBlob") }

// done waits for a job of IoT Hub's path.
func (f *fixture) done(id string) reply {
	f.Helper()
	for {
		r := f.do("GET", "/jobs/"+id+"?api-version=2021-04-12", "").want(200)
		switch r.text("status") {
		case "completed", "failed", "cancelled":
			return *r
		}
		select {
		case <-f.Context().Done():
			f.Fatal("the job does not end")
		case <-time.After(10 * time.Millisecond): // the hub works beside the test
		}
	}
}

func TestImportExportJobs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.runs()
	uri, blob := f.container("box")
	lines := `{"id":"a","status":"enabled","tags":{"x":1}}` + "\n" + `{"id":"b","status":"enabled","authentication":{"type":"SELF_SIGNED"}}` + "\n" + `{"id":"a","moduleId":"m"}` + "\n"
	if status, _, text := f.blob("PUT", blob("devices.txt"), lines, blockBlob); status != 201 {
		t.Fatal(status, text)
	}
	const version = "?api-version=2021-04-12"
	j := f.do("POST", "/jobs/create"+version, `{"type":"import","inputBlobContainerUri":"`+uri+`","outputBlobContainerUri":"`+uri+`"}`).want(200)
	if j.text("status") != "enqueued" && j.text("status") != "running" || j.text("type") != "import" || j.text("inputBlobContainerUri") != "" {
		t.Errorf("made %s", j.body)
	}
	got := f.done(j.text("jobId"))
	if got.text("status") != "completed" || !strings.Contains(string(got.body), `"failureReason":null`) || !strings.Contains(string(got.body), `"progress":100`) {
		t.Errorf("ended %s", got.body)
	}
	if status, head, text := f.blob("GET", blob("importErrors.log"), ""); status != 200 || strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, `{"deviceId":"b","errorCode":400012,"errorStatus":"Invalid device format in line`) || head.Get("x-ms-blob-type") != "BlockBlob" {
		t.Errorf("%d %v %s", status, head, text)
	}
	f.do("GET", "/devices/a/modules/m"+version, "").want(200)
	j = f.do("POST", "/jobs/create"+version, `{"type":"export","outputBlobContainerUri":"`+strings.Split(uri, "?")[0]+`","outputBlobName":"out.txt","excludeKeysInExport":true,"storageAuthenticationType":"IdentityBased"}`).want(200)
	got = f.done(j.text("jobId"))
	if _, _, text := f.blob("GET", blob("out.txt"), ""); strings.Count(text, "\n") != 2 || !strings.Contains(text, `"primaryKey":null`) || !strings.Contains(text, `"moduleId":"m"`) {
		t.Errorf("%s exported %s", got.body, text)
	}
	f.do("GET", "/jobs/none"+version, "").want(404)
	f.do("DELETE", "/jobs/none"+version, "").want(404)
	f.do("DELETE", "/jobs/"+j.text("jobId")+version, "", ifMatch(`"x"`)).want(204)
	if r := f.do("GET", "/jobs"+version, "").want(200); strings.Count(string(r.body), `"jobId"`) != 2 {
		t.Errorf("list %s", r.body)
	}
	for _, bad := range []string{
		`{"type":"import","inputBlobContainerUri":"https://acc.blob.core.windows.net/box?sv=1"}`, `{"type":"import","inputBlobContainerUri":"box"}`, `{"type":"import"}`,
		`{"type":"import","inputBlobContainerUri":"` + uri + `x"}`, `{"type":"import","inputBlobContainerUri":"` + uri + `","inputBlobName":"none"}`,
		`{"type":"export","outputBlobContainerUri":"` + strings.Split(uri, "?")[0] + `"}`,
	} {
		if r := f.do("POST", "/jobs/create"+version, bad).want(400); !strings.Contains(string(r.body), "BlobContainerValidationError") {
			t.Errorf("%s answers %s", bad, r.body)
		}
	}
	f.do("POST", "/jobs/create"+version, `{"type":"import","inputBlobContainerUri":"`+uri+`"}`, f.as("registryRead")).want(401)
}

// The numbers in the error log are those of the REST interface, but for a line
// that can't be read.
func TestImportNumbers(t *testing.T) {
	t.Parallel()
	for _, info := range engine.Codes() {
		want, got := wireOf(info.Code).number, engine.ImportNumber(info.Code)
		if got != want && got != 500001 && info.Code != engine.CodeFormat {
			t.Errorf("%s is %d in the log, and %d otherwise", info.Name, got, want)
		}
	}
	if engine.ImportNumber(engine.CodeFormat) != 400012 || engine.ImportNumber(engine.CodeDeviceAlreadyExists) != 409001 {
		t.Error("the log has other numbers than IoT Hub's")
	}
}

func TestIdentityJobsOwnAPI(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(o *engine.Options) { o.Profile = engine.ProfileDefault })
	_, blob := f.container("box")
	var lines strings.Builder
	for i := range 30 {
		fmt.Fprintf(&lines, `{"id":"d%02d","status":"enabled","tags":{"n":%d}}`+"\n", i, i)
	}
	f.blob("PUT", blob("devices.txt"), lines.String(), blockBlob)
	waits := f.do("POST", "/api/v1/identity-jobs", `{"type":"import","container":"box"}`).want(201)
	if r := f.do("POST", "/api/v1/identity-jobs/"+waits.text("id")+"/cancel", "").want(200); r.text("status") != "cancelled" {
		t.Errorf("%s", r.body)
	}
	f.do("POST", "/api/v1/identity-jobs/"+waits.text("id")+"/cancel", "").want(409)
	for _, bad := range []string{`{}`, `{"type":"import","container":"none"}`, `{"type":"import","container":"box","mode":"x"}`, `{"type":"export","container":"box","where":"tags."}`, `{"type":5}`} {
		f.do("POST", "/api/v1/identity-jobs", bad).want(400)
	}
	f.runs()
	dry := f.do("POST", "/api/v1/identity-jobs", `{"type":"import","container":"box","dryRun":true}`).want(201)
	if r := f.done(dry.text("id")); r.text("status") != "completed" {
		t.Errorf("%s", r.body)
	}
	made := f.do("POST", "/api/v1/identity-jobs", `{"type":"import","container":"box","mode":"create","description":"thirty"}`).want(201)
	f.done(made.text("id"))
	r := f.do("GET", "/api/v1/identity-jobs/"+made.text("id"), "").want(200)
	if !strings.Contains(string(r.body), `"created":30`) || r.text("description") != "thirty" || r.text("mode") != "create" {
		t.Errorf("%s", r.body)
	}
	f.done(f.do("POST", "/api/v1/identity-jobs", `{"type":"export","container":"box","blob":"some.txt","where":"tags.n < 3"}`).want(201).text("id"))
	if _, _, text := f.blob("GET", blob("some.txt"), ""); strings.Count(text, "\n") != 3 {
		t.Errorf("exported %s", text)
	}
	first := f.do("GET", "/api/v1/identity-jobs?limit=2", "").want(200)
	if n := strings.Count(string(first.body), `"id"`); n != 2 || first.text("cursor") == "" {
		t.Errorf("%s", first.body)
	}
	f.do("GET", "/api/v1/identity-jobs?cursor="+first.text("cursor"), "").want(200)
	f.do("GET", "/api/v1/identity-jobs/none", "").want(404)
}

func TestBlobs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	uri, blob := f.container("box")
	check := func(status int, _ http.Header, text string) func(want int, code string) {
		t.Helper()
		return func(want int, code string) {
			t.Helper()
			if status != want || !strings.Contains(text, code) {
				t.Errorf("got %d %s, want %d %s", status, text, want, code)
			}
		}
	}
	check(f.blob("PUT", blob("dir%2Fa.txt"), "hello blob", blockBlob))(201, "")
	check(f.blob("PUT", blob("dir/a.txt"), "x", blockBlob, header("If-None-Match", "*")))(409, "BlobAlreadyExists")
	check(f.blob("PUT", blob("dir/a.txt"), "x", blockBlob, header("If-Match", `"0x1"`)))(412, "ConditionNotMet")
	check(f.blob("PUT", blob("a"), "x"))(400, "InvalidHeaderValue")
	check(f.blob("PUT", blob("a"), "x", blockBlob, header("Content-Md5", base64.StdEncoding.EncodeToString(make([]byte, 16)))))(400, "Md5Mismatch")
	check(f.blob("PUT", blob("a"), "x", blockBlob, header("Content-Md5", "x")))(400, "InvalidMd5")
	check(f.blob("PUT", blob("a%5Cb"), "x", blockBlob))(400, "InvalidInput")
	check(f.blob("PUT", blob("..%2Fb"), "x", blockBlob))(400, "InvalidInput")
	check(f.blob("GET", blob("dir/a.txt"), ""))(200, "hello blob")
	check(f.blob("GET", blob("dir/a.txt"), "", header("X-Ms-Range", "bytes=6-9")))(206, "blob")
	check(f.blob("GET", blob("none"), ""))(404, "BlobNotFound")
	check(f.blob("PATCH", blob("dir/a.txt"), ""))(400, "UnsupportedHttpVerb")
	status, head, _ := f.blob("HEAD", blob("dir/a.txt"), "")
	if status != 200 || head.Get("Content-Length") != "10" || head.Get("ETag") == "" {
		t.Errorf("%d %v", status, head)
	}
	with := func(u, more string) string { return u + "&" + more }
	id := func(n int) string { return base64.StdEncoding.EncodeToString(fmt.Append(nil, "block-", n)) }
	for i, part := range []string{"one ", "two ", "three"} {
		check(f.blob("PUT", with(blob("joined"), "comp=block&blockid="+id(i)), part))(201, "")
	}
	check(f.blob("PUT", with(blob("joined"), "comp=block&blockid=!"), "x"))(400, "InvalidQueryParameterValue")
	check(f.blob("PUT", with(blob("joined"), "comp=blocklist"), "<BlockList><Latest>"+id(9)+"</Latest></BlockList>"))(400, "InvalidBlockList")
	check(f.blob("PUT", with(blob("joined"), "comp=blocklist"), "<X/>"))(400, "InvalidXmlDocument")
	check(f.blob("PUT", with(blob("joined"), "comp=blocklist"), "<BlockList><Latest>"+id(1)+"</Latest><Latest>"+id(0)+"</Latest><Latest>"+id(2)+"</Latest></BlockList>"))(201, "")
	check(f.blob("GET", blob("joined"), ""))(200, "two one three")
	check(f.blob("GET", with(uri, "restype=container"), ""))(200, "")
	check(f.blob("PUT", with(uri, "restype=container"), ""))(409, "ContainerAlreadyExists")
	check(f.blob("DELETE", with(uri, "restype=container"), ""))(403, "AuthorizationPermissionMismatch")
	check(f.blob("GET", uri, ""))(400, "InvalidUri")
	_, _, list := f.blob("GET", with(uri, "restype=container&comp=list&maxresults=1"), "")
	if strings.Count(list, "<Blob>") != 1 || !strings.Contains(list, "<Name>dir/a.txt</Name>") || !strings.Contains(list, "<NextMarker>") {
		t.Errorf("list %s", list)
	}
	marker := list[strings.Index(list, "<NextMarker>")+12 : strings.Index(list, "</NextMarker>")]
	check(f.blob("GET", with(uri, "restype=container&comp=list&marker="+marker), ""))(200, "<Name>joined</Name>")
	check(f.blob("GET", with(uri, "restype=container&comp=list&marker=!"), ""))(400, "InvalidQueryParameterValue")
	check(f.blob("DELETE", blob("joined"), ""))(202, "")
	check(f.blob("DELETE", blob("joined"), ""))(404, "BlobNotFound")
	for _, bad := range []string{strings.Replace(uri, "box", "bux", 1), strings.Replace(uri, "sp=racwdl", "sp=r", 1), strings.Split(uri, "?")[0], uri + "&sig=AAAA"} {
		check(f.blob("GET", with(strings.Replace(bad, "?", "/dir/a.txt?", 1), "x=1"), ""))(403, "AuthenticationFailed")
	}
	if !bytes.Contains(f.do("GET", "/api/v1/containers/box/blobs", "").want(200).body, []byte(`"dir/a.txt"`)) {
		t.Error("the own list lacks the blob")
	}
	f.do("GET", "/api/v1/containers/box", "").want(200)
	f.do("GET", "/api/v1/containers/box/blobs", "", f.as("registryRead")).want(403)
	f.do("POST", "/api/v1/containers", `{"name":"box"}`).want(409)
	f.do("POST", "/api/v1/containers", `{"name":"B"}`).want(400)
	f.do("POST", "/api/v1/containers/box/access", `{"expiresIn":"9000h"}`).want(400)
	f.do("POST", "/api/v1/containers/box/access", `{"expiresIn":"soon"}`).want(400)
	if r := f.do("POST", "/api/v1/containers", "").want(201); !strings.HasPrefix(r.text("name"), "c-") {
		t.Errorf("made %s", r.body)
	}
	f.do("DELETE", "/api/v1/containers/box", "").want(204)
	check(f.blob("GET", blob("dir/a.txt"), ""))(404, "ContainerNotFound")
	f.do("GET", "/api/v1/containers/box", "").want(404)
}

// Imports and exports appear among the other jobs, in the order of all, page by
// page, for callers who may read them.
func TestImportsAmongJobs(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(o *engine.Options) { o.Profile = engine.ProfileDefault })
	f.do("PUT", "/devices/d?api-version=2021-04-12", `{"deviceId":"d"}`).want(200)
	f.container("box")
	var want []string
	for i := range 7 {
		if i%3 == 1 {
			want = append(want, f.do("POST", "/api/v1/jobs", `{"targets":{"ids":["d"]},"action":{"twin":{"tags":{"a":1}}}}`).want(201).text("id"))
		} else {
			want = append(want, f.do("POST", "/api/v1/identity-jobs", `{"type":"export","container":"box","description":"all"}`).want(201).text("id"))
		}
	}
	slices.Reverse(want)
	for _, limit := range []int{1, 2, 3, 5, 100} {
		var got []string
		for cursor := ""; ; {
			r := f.do("GET", fmt.Sprintf("/api/v1/jobs?limit=%d&cursor=%s", limit, cursor), "").want(200)
			var page struct {
				Items  []struct{ ID, Kind, Status string }
				Cursor string
			}
			if err := json.Unmarshal(r.body, &page); err != nil {
				t.Fatal(err)
			}
			for _, j := range page.Items {
				got = append(got, j.ID)
				if j.Kind != "export" && j.Kind != "scheduleUpdateTwin" || j.Status == "" {
					t.Errorf("%+v", j)
				}
			}
			if cursor = page.Cursor; cursor == "" || len(got) > 20 {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pages of %d: %q, want %q", limit, got, want)
		}
	}
	if r := f.do("GET", "/api/v1/jobs?kind=export", "").want(200); strings.Count(string(r.body), `"kind":"export"`) != 5 || strings.Contains(string(r.body), "scheduleUpdateTwin") {
		t.Errorf("%s", r.body)
	}
	if r := f.do("GET", "/api/v1/jobs?kind=import", "").want(200); strings.Contains(string(r.body), `"kind"`) {
		t.Errorf("%s", r.body)
	}
	if r := f.do("GET", "/api/v1/jobs", "", f.as("service")).want(200); strings.Contains(string(r.body), `"kind":"export"`) {
		t.Errorf("without RegistryRead: %s", r.body)
	}
	if r := f.do("GET", "/api/v1/jobs/"+want[0], "").want(200); r.text("kind") != "export" || r.text("status") != "queued" || r.text("description") != "all" {
		t.Errorf("%s", r.body)
	}
	f.do("GET", "/api/v1/jobs/"+want[0], "", f.as("service")).want(404)
	if r := f.do("POST", "/api/v1/jobs/"+want[0]+"/cancel", "").want(200); r.text("status") != "canceled" {
		t.Errorf("%s", r.body)
	}
	f.do("GET", "/api/v1/jobs/none", "").want(404)
}
