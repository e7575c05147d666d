package cli

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/muster-hub/muster/protocols/client"
)

type deviceExportCmd struct {
	HubFlags
	Output      string `short:"o" help:"Form of the file: jsonl (lines of IoT Hub's export) or csv, with a column for each property." enum:"jsonl,csv" default:"jsonl" placeholder:"FORMAT"`
	ExcludeKeys bool   `help:"Leave the identities' keys out."`
	Where       string `help:"Only devices that this predicate matches, with their modules." placeholder:"PREDICATE"`
	Force       bool   `help:"Replace a file that exists."`
	File        string `arg:"" optional:"" help:"File to make, readable by its owner alone; - or none is standard output."`
}

// Run has the hub export into a container of its own, and fetches the file.
func (c *deviceExportCmd) Run(a *app) error {
	var to io.Writer = a.io.Out
	keep := func() error { return nil }
	if c.File != "" && c.File != "-" {
		f, err := createFile(c.File, c.Force, takenForce)
		if err != nil {
			return err
		}
		defer f.drop()
		to, keep = f, f.keep
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	var j client.IdentityJob
	err = a.call(c.HubFlags, func(ctx context.Context) error {
		box, err := s.CreateContainer(ctx, "", rand.Text())
		if err != nil {
			return err
		}
		j, err = s.CreateIdentityJob(ctx, client.IdentityJobAsk{
			Type: "export", Description: "muster device export", Container: box.Name, ExcludeKeys: c.ExcludeKeys, Where: c.Where,
		}, rand.Text())
		if err != nil {
			_ = s.DeleteContainer(ctx, box.Name) // else it goes by its age
		}
		return err
	})
	if err != nil {
		return err
	}
	defer func() {
		_ = a.call(c.HubFlags, func(ctx context.Context) error { return s.DeleteContainer(context.WithoutCancel(ctx), j.Container) }) // it holds keys; else it goes by its age
	}()
	if j, err = a.followIdentityJob(c.HubFlags, OutputFlags{}, s, j.ID); err != nil {
		return err
	}
	if j.Status != "completed" {
		return &problem{exit: ExitFailed, what: "the export " + j.Status, why: j.FailureReason, next: "Mend the cause and export again."}
	}
	return c.finish(a, s, &j, to, keep)
}

// finish fetches the lines and writes them in the form that was asked for.
func (c *deviceExportCmd) finish(a *app, s *client.Service, j *client.IdentityJob, to io.Writer, keep func() error) error {
	var access client.ContainerAccess
	if err := a.call(c.HubFlags, func(ctx context.Context) (err error) {
		access, err = s.ContainerAccess(ctx, j.Container, 0)
		return err
	}); err != nil {
		return err
	}
	fetch := func(to io.Writer) error {
		if c.Output == "jsonl" {
			_, err := s.GetBlob(a.ctx, access, j.Blob, to)
			return err
		}
		// Which columns there are is known when all lines were read.
		lines, err := os.CreateTemp("", "muster-export-*")
		if err != nil {
			return fmt.Errorf("make a temporary file: %w", err)
		}
		defer os.Remove(lines.Name()) //nolint:errcheck // a temporary file
		defer lines.Close()
		if _, err := s.GetBlob(a.ctx, access, j.Blob, lines); err != nil {
			return err
		}
		return exportCSV(lines, to)
	}
	var err error
	if to == a.io.Out {
		err = a.stream(fetch)
	} else {
		err = fetch(to)
	}
	if err != nil {
		return err
	}
	if err := keep(); err != nil {
		return err
	}
	a.note("%d identities.", j.Counts.Created)
	return nil
}

// csvColumnsOf are the columns that every export has.
func csvColumnsOf() []string {
	return []string{
		"deviceId", "moduleId", "status", "statusReason", "managedBy", "authenticationType", "primaryKey", "secondaryKey", "primaryThumbprint", "secondaryThumbprint",
		"iotEdge", "deviceScope",
	}
}

// exportLine is what CSV has of a line.
type exportLine struct {
	ID             string `json:"id"`
	ModuleID       string `json:"moduleId"`
	Status         string `json:"status"`
	StatusReason   string `json:"statusReason"`
	ManagedBy      string `json:"managedBy"`
	Authentication struct {
		Type         string `json:"type"`
		SymmetricKey struct {
			Primary   string `json:"primaryKey"`
			Secondary string `json:"secondaryKey"`
		} `json:"symmetricKey"`
		Thumbprint struct {
			Primary   string `json:"primaryThumbprint"`
			Secondary string `json:"secondaryThumbprint"`
		} `json:"x509Thumbprint"`
	} `json:"authentication"`
	Capabilities struct {
		Edge bool `json:"iotEdge"`
	} `json:"capabilities"`
	DeviceScope string         `json:"deviceScope"`
	Tags        map[string]any `json:"tags"`
	Properties  struct {
		Desired  map[string]any `json:"desired"`
		Reported map[string]any `json:"reported"`
	} `json:"properties"`
}

// properties calls f for each value that is no object.
func (l *exportLine) properties(f func(path string, v any)) {
	for _, s := range []struct {
		name  string
		value map[string]any
	}{{"tags", l.Tags}, {"desired", l.Properties.Desired}, {"reported", l.Properties.Reported}} {
		walkProperties(s.name, s.value, f)
	}
}

func walkProperties(path string, m map[string]any, f func(path string, v any)) {
	for key, v := range m {
		if key == "$metadata" || key == "$version" {
			continue
		}
		if sub, ok := v.(map[string]any); ok && len(sub) > 0 {
			walkProperties(path+"."+key, sub, f)
		} else {
			f(path+"."+key, v)
		}
	}
}

// csvKind is the type of a column, with which it can be imported again.
func csvKind(v any) string {
	switch v := v.(type) {
	case json.Number:
		return "number"
	case bool:
		return "bool"
	case string:
		if strings.TrimSpace(v) == v && v != "" {
			return "string"
		}
	}
	return "json"
}

// exportCSV writes the lines of an export as CSV: once to learn the columns, and
// once more to write them.
func exportCSV(lines io.ReadSeeker, to io.Writer) error {
	kinds := map[string]string{}
	err := eachExportLine(lines, func(l *exportLine) error {
		l.properties(func(path string, v any) {
			kind := csvKind(v)
			if was, ok := kinds[path]; ok && was != kind {
				kind = "json"
			}
			kinds[path] = kind
		})
		if n := len(kinds) + len(csvColumnsOf()); n > csvColumns {
			return &problem{exit: ExitLimited, what: fmt.Sprintf("the twins have more than %d properties", csvColumns), next: "Export as jsonl, or fewer devices with --where."}
		}
		return nil
	})
	if err != nil {
		return err
	}
	paths := make([]string, 0, len(kinds))
	for path := range kinds {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	header := csvColumnsOf()
	for _, path := range paths {
		if kind := kinds[path]; kind != "string" {
			path += ":" + kind
		}
		header = append(header, path)
	}
	out := csv.NewWriter(to)
	if err := out.Write(header); err != nil {
		return err
	}
	err = eachExportLine(lines, func(l *exportLine) error {
		a := &l.Authentication
		edge := ""
		if l.Capabilities.Edge {
			edge = "true"
		}
		row := []string{
			l.ID, l.ModuleID, l.Status, l.StatusReason, l.ManagedBy, a.Type, a.SymmetricKey.Primary, a.SymmetricKey.Secondary, a.Thumbprint.Primary, a.Thumbprint.Secondary,
			edge, l.DeviceScope,
		}
		values := map[string]any{}
		l.properties(func(path string, v any) { values[path] = v })
		for _, path := range paths {
			cell, err := exportCell(kinds[path], values, path)
			if err != nil {
				return err
			}
			row = append(row, cell)
		}
		return out.Write(row)
	})
	out.Flush()
	return errors.Join(err, out.Error())
}

func exportCell(kind string, values map[string]any, path string) (string, error) {
	v, ok := values[path]
	if !ok {
		return "", nil
	}
	if text, ok := v.(string); ok && kind == "string" {
		return text, nil
	}
	text, err := encodeJSON(v)
	return string(text), err
}

func eachExportLine(lines io.ReadSeeker, f func(l *exportLine) error) error {
	if _, err := lines.Seek(0, io.SeekStart); err != nil {
		return err
	}
	d := json.NewDecoder(bufio.NewReaderSize(lines, 64<<10))
	d.UseNumber() // the text of numbers stays as it is
	for {
		var l exportLine
		err := d.Decode(&l)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the export: %w", err)
		}
		if err := f(&l); err != nil {
			return err
		}
	}
}
