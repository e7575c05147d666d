package cli

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/muster-hub/muster/protocols/client"
)

type deviceImportCmd struct {
	HubFlags
	OutputFlags
	Format    string   `help:"Form of the file: jsonl (lines of IoT Hub's export) or csv; without it, by the file's ending." enum:"auto,jsonl,csv" default:"auto"`
	Mode      string   `help:"What becomes of lines that have no importMode: create, update, createOrUpdate, updateTwin or delete." enum:"create,update,createOrUpdate,updateTwin,delete" default:"createOrUpdate"`
	Map       []string `help:"CSV: TARGET=COLUMN, as in deviceId=serial or tags.floor:number=level; the types are string, number, bool and json." placeholder:"TARGET=COLUMN" sep:"none"`
	Delimiter string   `help:"CSV: what separates fields: comma, semicolon or tab; without it, by the first line." enum:"auto,comma,semicolon,tab" default:"auto"`
	DryRun    bool     `help:"Check every line on the hub, and change nothing."`
	Errors    string   `help:"File for the lines that fail, with reasons, made or replaced; without it, the file's name with .errors.jsonl." placeholder:"FILE"`
	NoWait    bool     `help:"Print the job and do not wait for it."`
	Follow    string   `help:"Take up a job that goes on, after this command was ended." placeholder:"JOB"`
	File      string   `arg:"" optional:"" help:"File to import; - is standard input."`
}

// Run sends the file into a container of the hub, makes a job of it, and follows
// the job.
func (c *deviceImportCmd) Run(a *app) error {
	if (c.File == "") == (c.Follow == "") {
		return usage("expected a file, or --follow JOB", "Give the file to import, - for standard input, or the job to take up.")
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	faults := &faultFile{app: a, name: c.errorsName()}
	if c.Follow != "" {
		return c.finish(a, s, c.Follow, faults)
	}
	in, err := c.open(a, faults)
	if err != nil {
		return err
	}
	defer in.Close()
	id, err := c.send(a, s, in)
	if err != nil {
		return errors.Join(err, faults.close())
	}
	if c.NoWait {
		if err := faults.close(); err != nil {
			return err
		}
		var j client.IdentityJob
		if err := a.call(c.HubFlags, func(ctx context.Context) (err error) { j, err = s.IdentityJob(ctx, id); return err }); err != nil {
			return err
		}
		a.note("The hub works on it; `muster device import --follow %s` takes it up.", id)
		return a.printIdentityJob(c.OutputFlags, &j, faults.count)
	}
	return c.finish(a, s, id, faults)
}

func (c *deviceImportCmd) errorsName() string {
	switch {
	case c.Errors != "":
		return c.Errors
	case c.File == "" || c.File == "-":
		return "import.errors.jsonl"
	}
	return filepath.Base(c.File) + ".errors.jsonl"
}

// lines is what is sent, and what it is read from.
type lines struct {
	io.Reader
	io.Closer
}

// open returns the lines to import. What is wrong with a record of CSV goes to
// the faults as it is met.
func (c *deviceImportCmd) open(a *app, faults *faultFile) (lines, error) {
	var in lines
	if c.File == "-" {
		in = lines{a.io.In, io.NopCloser(nil)}
	} else {
		f, err := os.Open(c.File)
		if err != nil {
			return in, &problem{exit: ExitUsage, what: "the file cannot be read", why: pathError(err), next: "Check the file's name and rights."}
		}
		in = lines{bufio.NewReaderSize(f, 64<<10), f}
	}
	isCSV := c.Format == "csv" || c.Format == "auto" && strings.EqualFold(filepath.Ext(c.File), ".csv")
	if !isCSV {
		if len(c.Map) > 0 || c.Delimiter != "auto" {
			_ = in.Close() // was only read
			return in, usage("--map and --delimiter are for CSV", "Add --format csv, or leave them out.")
		}
		return in, nil
	}
	comma := map[string]byte{"auto": 0, "comma": ',', "semicolon": ';', "tab": '\t'}[c.Delimiter]
	csv, err := newCSVLines(in, comma, c.Map, func(line, column int, text string) {
		faults.add(importFault{Line: int64(line), Column: column, ErrorStatus: text})
	})
	if err != nil {
		_ = in.Close() // was only read
		return in, &problem{exit: ExitUsage, what: "the CSV can't be imported", why: err.Error(), next: "Name the columns in the first line, or map them with --map TARGET=COLUMN."}
	}
	if len(csv.plan.unused) > 0 {
		a.note("Not used: the columns %s. --map TARGET=COLUMN uses them.", quotedList(csv.plan.unused))
	}
	return lines{csv, in.Closer}, nil
}

// send puts the lines into a container of their own and makes a job of them.
func (c *deviceImportCmd) send(a *app, s *client.Service, in io.Reader) (id string, err error) {
	var box client.Container
	var access client.ContainerAccess
	err = a.call(c.HubFlags, func(ctx context.Context) (err error) {
		if box, err = s.CreateContainer(ctx, "", rand.Text()); err == nil {
			access, err = s.ContainerAccess(ctx, box.Name, 0)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	// Sending takes as long as the file is; each of its requests ends by itself.
	bar := sendProgress(a, c.OutputFlags)
	_, err = s.PutBlob(a.ctx, access, "devices.txt", in, bar.sent)
	bar.clear()
	if err == nil {
		err = a.call(c.HubFlags, func(ctx context.Context) error {
			j, err := s.CreateIdentityJob(ctx, client.IdentityJobAsk{
				Type: "import", Description: "muster device import " + filepath.Base(c.File), Container: box.Name, Mode: c.Mode, DryRun: c.DryRun,
			}, rand.Text())
			id = j.ID
			return err
		})
	}
	if err != nil {
		_ = a.call(c.HubFlags, func(ctx context.Context) error { return s.DeleteContainer(context.WithoutCancel(ctx), box.Name) }) // else it goes by its age
		return "", err
	}
	return id, nil
}

// sendBar shows how much was sent.
type sendBar struct {
	jobProgress
}

func sendProgress(a *app, o OutputFlags) *sendBar { return &sendBar{*newJobProgress(a, o)} }

func (b *sendBar) sent(n int64) {
	if !b.over {
		return
	}
	line := fmt.Sprintf("sent %.1f MiB", float64(n)/(1<<20))
	_, _ = fmt.Fprintf(b.app.io.Err, "\r%-*s", b.wide, line) // nobody is left to tell
	b.wide = max(b.wide, len(line))
}

// finish follows a job to its end, reads its errors, and removes its container.
func (c *deviceImportCmd) finish(a *app, s *client.Service, id string, faults *faultFile) error {
	j, err := a.followIdentityJob(c.HubFlags, c.OutputFlags, s, id)
	if err != nil {
		return errors.Join(err, faults.close())
	}
	if j.Type != "import" {
		return usage(id+" is no import", "`muster device export` makes exports and waits for them.")
	}
	own := faults.count // of CSV, which the hub has never seen
	if j.Counts.Failed > 0 {
		err = faults.readFaults(c.HubFlags, s, j.Container)
	}
	if err = errors.Join(err, faults.close()); err != nil {
		return err
	}
	if strings.HasPrefix(j.Container, "c-") { // made by this command; else it is somebody's
		if err := a.call(c.HubFlags, func(ctx context.Context) error { return s.DeleteContainer(ctx, j.Container) }); err != nil && a.explain(err).exit != ExitNotFound {
			a.note("The container %s is left: %s", printable(j.Container), a.explain(err).what)
		}
	}
	if err := a.printIdentityJob(c.OutputFlags, &j, own); err != nil {
		return err
	}
	failed := j.Counts.Failed + own
	switch {
	case j.Status == "cancelled":
		return &problem{exit: ExitCancelled, what: "the job was cancelled", why: j.FailureReason, next: "What it had done stays done; import the file again for the rest."}
	case j.Status == "failed":
		return &problem{exit: ExitFailed, what: "the job failed", why: j.FailureReason, next: "Mend the cause and import the file again: lines that are done change nothing."}
	case failed > 0:
		what := fmt.Sprintf("%d lines failed", failed)
		if failed == 1 {
			what = "one line failed"
		}
		return &problem{exit: ExitPartly, what: what, why: "each with its reason in " + printable(faults.name), next: "Mend these lines and import them again."}
	}
	return nil
}

// printIdentityJob shows what a job has done. own is how many records never reached it.
func (a *app) printIdentityJob(o OutputFlags, j *client.IdentityJob, own int64) error {
	n := &j.Counts
	fields := []field{{"job", j.ID}, {"type", j.Type}, {"status", j.Status}}
	if j.DryRun {
		fields = append(fields, field{"dry run", "nothing was changed"})
	}
	if j.Type == "export" {
		fields = append(fields, field{"identities", n.Created})
	} else {
		fields = append(fields, field{"created", n.Created}, field{"updated", n.Updated}, field{"deleted", n.Deleted}, field{"failed", n.Failed + own})
	}
	if !j.EndedTime.IsZero() && !j.StartedTime.IsZero() {
		took := j.EndedTime.Sub(j.StartedTime)
		fields = append(fields, field{"took", since(took)})
		if done := n.Created + n.Updated + n.Deleted; done > 0 && took > 0 {
			fields = append(fields, field{"per second", int64(float64(done) / took.Seconds())})
		}
	}
	if j.FailureReason != "" {
		fields = append(fields, field{"reason", j.FailureReason})
	}
	return a.printRecord(o, j, fields)
}
