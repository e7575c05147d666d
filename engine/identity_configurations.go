package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/muster-hub/muster/storage"
)

// Configurations travel beside identities, in a blob of their own with a line for
// each. Its names are spelled as IoT Hub spells them there, and read in any case.

// configurationLine is a line of configurations.txt.
type configurationLine struct {
	ID              string                   `json:"Id"`
	SchemaVersion   string                   `json:"SchemaVersion,omitempty"`
	Labels          map[string]string        `json:"Labels,omitempty"`
	Content         configurationLineContent `json:"Content"`
	ContentType     string                   `json:"ContentType,omitempty"`
	TargetCondition string                   `json:"TargetCondition"`
	Created         time.Time                `json:"CreatedTimeUtc,omitzero"`
	Updated         time.Time                `json:"LastUpdatedTimeUtc,omitzero"`
	Priority        int                      `json:"Priority"`
	Metrics         configurationLineMetrics `json:"Metrics"`
	ETag            string                   `json:"ETag,omitempty"`
}

type configurationLineContent struct {
	Device  json.RawMessage `json:"DeviceContent,omitempty"`
	Module  json.RawMessage `json:"ModuleContent,omitempty"`
	Modules json.RawMessage `json:"ModulesContent,omitempty"`
}

type configurationLineMetrics struct {
	Queries map[string]string `json:"Queries"`
}

// configuration is what the line asks for. An export writes null for what is
// not there.
func (l *configurationLine) configuration() Configuration {
	some := func(raw json.RawMessage) json.RawMessage {
		if string(raw) == "null" {
			return nil
		}
		return raw
	}
	return Configuration{
		ID: l.ID, SchemaVersion: l.SchemaVersion, ContentType: l.ContentType, Labels: l.Labels,
		Content:         ConfigurationContent{some(l.Content.Device), some(l.Content.Module), some(l.Content.Modules)},
		TargetCondition: l.TargetCondition, Priority: l.Priority, Metrics: ConfigurationMetrics{Queries: l.Metrics.Queries},
	}
}

// exportConfigurations writes the blob of configurations.
func (h *Hub) exportConfigurations(ctx context.Context, id string, r *identityJobRecord) error {
	w, err := h.db.Blobs().Create()
	if err != nil {
		return storeError(err, "begin an export")
	}
	defer w.Abort() // nothing, once it is committed
	out := bufio.NewWriterSize(w, lineBuffer)
	epoch, n := h.db.Epoch().Ordinal, int64(0)
	err = h.view(ctx, "export configurations", func(rd storage.Reader) error { // there is a bound on all of them
		for item, err := range configurationTable.Scan(rd, storage.Range{}) {
			if err != nil {
				return err
			}
			name, err := firstText(item.Key)
			if err != nil {
				return err
			}
			c := &item.Value
			text, err := marshal(configurationLine{
				ID: name, SchemaVersion: c.Schema, Labels: c.Labels, Content: configurationLineContent(c.Content), ContentType: c.ContentType, TargetCondition: c.Condition,
				Created: c.Created.UTC(), Updated: c.Updated.UTC(), Priority: c.Priority, Metrics: configurationLineMetrics{c.Metrics}, ETag: c.etag(epoch),
			})
			if err != nil {
				return err
			}
			if _, err := out.Write(append(text, '\n')); err != nil {
				return storeError(err, "write an export")
			}
			n++
		}
		return nil
	})
	if err == nil {
		err = storeError(out.Flush(), "write an export")
	}
	if err != nil {
		return err
	}
	return h.stepBlob(ctx, "export.configurations", w, func(tx *storage.Tx, b storage.Blob) error {
		now, place, err := loadIdentityJob(tx, id)
		if err != nil {
			return err
		}
		if now.Status != IdentityJobRunning {
			return errJobEnded
		}
		if _, err := h.setBlobTx(tx, r.Output.grant(), r.ConfigBlob, fileContent{b.Digest, b.Size, "application/x-ndjson", ""}, BlobCondition{}); err != nil {
			return containerFault("output", err)
		}
		place.Configurations = n
		return identityJobPlaceTable.Put(tx, identityJobKey(id), place)
	})
}

// importConfigurations makes and changes configurations as their blob says, each
// line in a step of its own.
func (h *Hub) importConfigurations(ctx context.Context, id string, r *identityJobRecord) error {
	content, err := h.db.Blobs().Open(r.ConfigContent.Digest)
	if errors.Is(err, storage.ErrNotFound) {
		return errf(CodeInternal, "the content of the blob %q is missing; run `muster verify` on the stopped hub", r.ConfigBlob)
	}
	if err != nil {
		return storeError(err, "open the configurations of an import")
	}
	defer content.Close()
	lines := newLineReader(content, 2*h.limits.ConfigBytes, 0, 0)
	for {
		text, long, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return storeError(err, "read the configurations of an import")
		}
		if !long && !isIdentityLine(text) {
			continue
		}
		var l configurationLine
		switch {
		case long:
			err = badLine("it has more than %d bytes", 2*h.limits.ConfigBytes)
		default:
			if err = json.Unmarshal(text, &l); err != nil {
				err = badLine("%s", err.Error())
			}
		}
		g := l.configuration()
		if err == nil {
			err = h.checkConfiguration(&g)
		}
		if err := h.importConfiguration(ctx, id, lines.number, g, err); err != nil {
			return err
		}
	}
}

// importConfiguration does one line, unless that was done before a restart.
func (h *Hub) importConfiguration(ctx context.Context, id string, line int64, g Configuration, fault error) error {
	return h.step(ctx, "import.configuration", func(tx *storage.Tx) error {
		r, place, err := loadIdentityJob(tx, id)
		switch {
		case err != nil:
			return err
		case r.Status != IdentityJobRunning:
			return errJobEnded
		case place.ConfigLine >= line:
			return nil
		}
		if err := h.mayGoOn(r.Owner, opConfigurationWrite); err != nil {
			return err
		}
		wrong := fault
		if wrong == nil && !r.DryRun {
			wrong = tx.Try(func() error { return h.putConfigurationTx(tx, importCaller(r.Owner, id), g) })
		}
		log := importLog{place: &place, most: h.limits.ImportLogBytes}
		if wrong == nil {
			place.Configurations++
		} else {
			e, ok := errors.AsType[*Error](wrong)
			if !ok {
				return wrong
			}
			log.add(importFault{line: line, configuration: g.ID, err: e})
		}
		place.ConfigLine, place.Moved = line, tx.Now().UTC()
		// Behind the keys of what lines of identities did wrong.
		return errors.Join(identityJobPlaceTable.Put(tx, identityJobKey(id), place), log.putTx(tx, id, place.Lines+line))
	})
}

// putConfigurationTx makes a configuration, or changes the one of its name.
func (h *Hub) putConfigurationTx(tx *storage.Tx, c Caller, g Configuration) error {
	next := configurationRecord{
		Schema: g.SchemaVersion, ContentType: g.ContentType, Labels: g.Labels, Content: g.Content, Condition: g.TargetCondition,
		Priority: g.Priority, Metrics: g.Metrics.Queries,
	}
	old, err := loadConfiguration(tx, g.ID)
	switch e, is := errors.AsType[*Error](err); {
	case err == nil:
		_, err = h.changeConfigurationTx(tx, c, g.ID, old, next, IfMatch{})
	case is && e.Code == CodeConfigurationNotFound:
		_, err = h.createConfigurationTx(tx, c, g.ID, next)
	}
	return err
}
