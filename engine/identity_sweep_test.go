package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

// importsSweep is an import of some batches with lines that are wrong: once tried
// out, once done, and an export of what came of it.
const sweepLines = 900

var importsSweep = sweepWork{begin: beginSweepImports, done: sweepImportsDone, state: sweepImportsState, check: checkSweepImports}

// sweepImportText creates devices and updates each tenth of them again; each
// hundredth line is no JSON.
func sweepImportText() []byte {
	var b bytes.Buffer
	for i := range sweepLines {
		switch {
		case i%100 == 99:
			b.WriteString("{bad\n")
		case i%10 == 9:
			fmt.Fprintf(&b, `{"id":"i%04d","importMode":"update","status":"disabled"}`+"\n", i-1)
		default:
			fmt.Fprintf(&b, `{"id":"i%04d","importMode":"create","status":"enabled","tags":{"n":%d}}`+"\n", i, i)
		}
	}
	return b.Bytes()
}

func beginSweepImports(ctx context.Context, h *engine.Hub) error {
	_, err := h.CreateContainer(ctx, enginetest.Owner(), "box")
	if e := engine.AsError(err); err != nil && e.Code != engine.CodeBlobContainerExists {
		return err
	}
	g, err := h.OpenContainer(ctx, enginetest.Owner(), "box")
	if err != nil {
		return err
	}
	text := sweepImportText()
	_, err = h.PutBlob(ctx, g, "devices.txt", engine.UploadBody{Reader: bytes.NewReader(text), Size: int64(len(text))}, engine.BlobCondition{})
	return err
}

// sweepIdentityJobs are the jobs by their description.
func sweepIdentityJobs(ctx context.Context, h *engine.Hub) (map[string]engine.IdentityJob, error) {
	list, _, err := h.IdentityJobs(ctx, enginetest.Owner(), "", 100)
	jobs := map[string]engine.IdentityJob{}
	for _, j := range list {
		if _, twice := jobs[j.Description]; twice {
			return nil, fmt.Errorf("there are two jobs %q", j.Description)
		}
		jobs[j.Description] = j
	}
	return jobs, err
}

func sweepImportsDone(ctx context.Context, h *engine.Hub) (bool, error) {
	jobs, err := sweepIdentityJobs(ctx, h)
	if err != nil {
		return false, err
	}
	box := engine.BlobContainer{Name: "box"}
	for _, s := range []engine.IdentityJobSpec{
		{Description: "try", Type: engine.IdentityImport, Input: box, Output: box, DryRun: true},
		{Description: "import", Type: engine.IdentityImport, Input: box, Output: box},
		{Description: "export", Type: engine.IdentityExport, Output: box, OutputBlob: "exported.txt", ExcludeKeys: true},
	} {
		j, there := jobs[s.Description]
		if !there {
			_, err := h.CreateIdentityJob(ctx, enginetest.Owner(), s)
			return false, err
		}
		if j.Ended.IsZero() {
			return false, nil
		}
	}
	return true, nil
}

func sweepImportsState(ctx context.Context, h *engine.Hub) (map[string]string, error) {
	jobs, err := sweepIdentityJobs(ctx, h)
	if err != nil {
		return nil, err
	}
	state := map[string]string{}
	for name, j := range jobs {
		state[name] = fmt.Sprintf("%s %s %+v %d", j.Status, j.FailureReason, j.Counts, j.Progress)
	}
	g, err := h.OpenContainer(ctx, enginetest.Owner(), "box")
	if err != nil {
		return nil, err
	}
	for name, sign := range map[string]string{"importErrors.log": "\n", "exported.txt": `"status":"disabled"`} {
		_, r, err := h.OpenBlob(ctx, g, name)
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(r)
		if err := r.Close(); err != nil {
			return nil, err
		}
		if err != nil {
			return nil, err
		}
		state[name] = fmt.Sprint(bytes.Count(b, []byte(sign)), " in ", bytes.Count(b, []byte("\n")))
	}
	return state, nil
}

func checkSweepImports(t *testing.T, want, got map[string]string, _ map[string][]string) {
	if w, g := fmt.Sprint(want), fmt.Sprint(got); w != g {
		t.Errorf("it ended as\n%s\nwant\n%s", g, w)
	}
	if want["exported.txt"] != "81 in 810" || want["importErrors.log"] != "9 in 9" {
		t.Errorf("the import came to %v", want)
	}
}
