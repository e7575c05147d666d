package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// importLinesFrom is how long the file is; test/fleet/run.sh import asks for 200,000.
func importLinesFrom(t *testing.T) int {
	t.Helper()
	n := 12_000
	if s := os.Getenv("MUSTER_IMPORT_LINES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// expectedImport is what a file must make, worked out line by line.
type expectedImport struct {
	text    bytes.Buffer
	line    int64
	counts  client.IdentityJobCounts
	devices map[string]int64 // line that wrote its tags last
	modules map[string]bool
	faults  map[int64]int // line -> errorCode
}

// add appends a line; code is 0 when it must succeed.
func (e *expectedImport) add(code int, format string, args ...any) {
	e.line++
	e.counts.Lines++
	fmt.Fprintf(&e.text, format+"\n", args...)
	if code != 0 {
		e.counts.Failed++
		e.counts.Logged++
		e.faults[e.line] = code
	}
}

func newExpectedImport(lines int, random *rand.Rand) *expectedImport {
	e := &expectedImport{devices: map[string]int64{}, modules: map[string]bool{}, faults: map[int64]int{}}
	var ids []string
	for i := range lines {
		switch n := random.IntN(100); {
		case n < 2:
			e.add(400012, `{"id":"cut-%d","status":`, i)
		case n < 4:
			e.add(404001, `{"id":"nobody-%d","status":"enabled","importMode":"update"}`, i)
		case n < 5:
			e.add(0, `# a remark`)
			e.counts.Skipped++
		case n < 12 && len(ids) > 0: // what is there is updated, or was deleted and comes again
			id := ids[random.IntN(len(ids))]
			if _, ok := e.devices[id]; ok {
				e.counts.Updated++
			} else {
				e.counts.Created++
			}
			e.add(0, `{"id":"%s","status":"enabled","tags":{"line":%d}}`, id, e.line+1)
			e.devices[id] = e.line
		case n < 15 && len(ids) > 0:
			id := ids[random.IntN(len(ids))]
			if _, ok := e.devices[id]; !ok {
				e.add(404001, `{"id":"%s","status":"enabled","importMode":"delete"}`, id)
				break
			}
			e.counts.Deleted++
			e.add(0, `{"id":"%s","status":"enabled","importMode":"delete"}`, id)
			delete(e.devices, id)
			delete(e.modules, id)
		case n < 20 && len(ids) > 0:
			id := ids[random.IntN(len(ids))]
			if _, ok := e.devices[id]; !ok {
				e.add(404001, `{"id":"%s","moduleId":"m","importMode":"create"}`, id)
				break
			}
			if e.modules[id] {
				e.add(409301, `{"id":"%s","moduleId":"m","importMode":"create"}`, id)
				break
			}
			e.counts.Created++
			e.add(0, `{"id":"%s","moduleId":"m","importMode":"create"}`, id)
			e.modules[id] = true
		default:
			id := fmt.Sprintf("imported-%07d", i)
			ids = append(ids, id)
			e.counts.Created++
			e.add(0, `{"id":"%s","status":"enabled","tags":{"line":%d,"site":"s%d"},"properties":{"desired":{"fw":"1.%d"}}}`, id, e.line+1, i%50, i%7)
			e.devices[id] = e.line
		}
	}
	return e
}

// TestKilledImportResumes kills a hub (SIGKILL) again and again in the middle of
// an import. It ends with exact counts, every identity there once with what its
// last line said, and every bad line in the error log once.
func TestKilledImportResumes(t *testing.T) {
	t.Parallel()
	lines := importLinesFrom(t)
	data := filepath.Join(t.TempDir(), "data")
	seed := rand.Uint64()
	t.Logf("seed %d, %d lines", seed, lines)
	random := rand.New(rand.NewPCG(seed, 0))
	want := newExpectedImport(lines, random)
	binary := program(t)
	stop := startHub(t, binary, data)
	service := localService(t, data)
	box, err := service.CreateContainer(t.Context(), "box", "")
	if err != nil {
		t.Fatal(err)
	}
	access, err := service.ContainerAccess(t.Context(), box.Name, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := service.PutBlob(t.Context(), access, "devices.txt", bytes.NewReader(want.text.Bytes()), nil); err != nil {
		t.Fatal(err)
	}
	job, err := service.CreateIdentityJob(t.Context(), client.IdentityJobAsk{Type: "import", Container: box.Name}, "")
	if err != nil {
		t.Fatal(err)
	}
	const kills = 5
	killed := 0
	for round := range kills {
		// Somewhere in the fifth of the file that this round is for, also at its end.
		at := int64(lines) * int64(round) / kills
		at += random.Int64N(int64(lines)/kills + 1)
		last, ended := untilLine(t, service, job.ID, at)
		if ended {
			break
		}
		stop()
		killed++
		stop = startHub(t, binary, data)
		service = localService(t, data)
		now, err := service.IdentityJob(t.Context(), job.ID)
		if err != nil || now.Counts.Lines < last {
			t.Fatalf("after the kill the job stands at line %d, %v; it said %d before", now.Counts.Lines, err, last)
		}
		t.Logf("killed behind line %d, goes on behind %d", last, now.Counts.Lines)
	}
	if killed < 3 {
		t.Fatalf("the import ended after %d kills: it was too short to say anything", killed)
	}
	if _, ended := untilLine(t, service, job.ID, int64(lines)+1); !ended {
		t.Fatal("the job does not end")
	}
	job, err = service.IdentityJob(t.Context(), job.ID)
	if err != nil || job.Status != "completed" || job.FailureReason != "" || job.Counts != want.counts {
		t.Errorf("the job ended as %s (%s) with %+v, %v; want %+v", job.Status, job.FailureReason, job.Counts, err, want.counts)
	}
	want.check(t, service, access, random)
	stop()
	if out, err := exec.CommandContext(t.Context(), binary, "verify", "--data", data).CombinedOutput(); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

// untilLine waits until a job is behind a line, or has ended.
func untilLine(t *testing.T, s *client.Service, id string, line int64) (at int64, ended bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); ; {
		j, err := s.IdentityJob(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if j.Ended() || j.Counts.Lines >= line {
			return j.Counts.Lines, j.Ended()
		}
		if time.Now().After(deadline) {
			t.Fatalf("the import stands at line %d", j.Counts.Lines)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// check compares what is there with what must be.
func (e *expectedImport) check(t *testing.T, s *client.Service, access client.ContainerAccess, random *rand.Rand) {
	t.Helper()
	status, err := s.Status(t.Context())
	if err != nil || status.Devices.Total != int64(len(e.devices)) || status.Modules != int64(len(e.modules)) {
		t.Errorf("the hub counts %d devices and %d modules, %v; want %d and %d", status.Devices.Total, status.Modules, err, len(e.devices), len(e.modules))
	}
	seen := map[string]bool{}
	for d, err := range s.Devices(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := e.devices[d.DeviceID]; !ok || seen[d.DeviceID] {
			t.Errorf("%s is there, and must not be, or is there twice", d.DeviceID)
		}
		seen[d.DeviceID] = true
	}
	looked := 0
	for id, line := range e.devices {
		if !seen[id] {
			t.Errorf("%s is missing", id)
		}
		if looked++; looked > 300 {
			continue
		}
		twin, err := s.Twin(t.Context(), id, "")
		if err != nil || !strings.Contains(string(twin.Tags), fmt.Sprintf(`"line":%d`, line)) {
			t.Errorf("%s has the tags %s, %v; want line %d", id, twin.Tags, err, line)
		}
	}
	for id := range e.modules {
		if random.IntN(len(e.modules)) > 50 {
			continue
		}
		if _, err := s.Identity(t.Context(), id, "m"); err != nil {
			t.Errorf("the module of %s: %v", id, err)
		}
	}
	var log bytes.Buffer
	if _, err := s.GetBlob(t.Context(), access, "importErrors.log", &log); err != nil {
		t.Fatal(err)
	}
	left := len(e.faults)
	for line := range strings.SplitSeq(strings.TrimSuffix(log.String(), "\n"), "\n") {
		var f struct {
			Line      int64
			ErrorCode int
		}
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("the error log has %q: %v", line, err)
		}
		if e.faults[f.Line] != f.ErrorCode {
			t.Errorf("the error log says %d of line %d, or says it twice; want %d", f.ErrorCode, f.Line, e.faults[f.Line])
		}
		delete(e.faults, f.Line)
		left--
	}
	if left != 0 || len(e.faults) != 0 {
		t.Errorf("%d errors are not in the log", len(e.faults))
	}
}
