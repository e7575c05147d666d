package engine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"iter"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/twin"
	"github.com/muster-hub/muster/storage"
)

// An export walks all devices, page after page, each as of its own moment. It
// begins again after a restart: nothing of it is seen before it is whole.
const (
	exportPage  = 500             // identities of one look at the store
	exportTells = 2 * time.Second // between two steps that say how far it is
)

// runExport writes the blob of an export, and ends it.
func (h *Hub) runExport(ctx context.Context, id string, r identityJobRecord, _ identityJobPlace) error {
	w, err := h.db.Blobs().Create()
	if err != nil {
		return storeError(err, "begin an export")
	}
	defer w.Abort() // nothing, once it is committed
	e := exporter{hub: h, job: id, record: &r, out: bufio.NewWriterSize(w, lineBuffer), told: time.Now()}
	if err := e.begin(ctx); err != nil {
		return err
	}
	walk := e.all
	if r.Where != "" {
		walk = e.matching
	}
	if err := walk(ctx); err != nil {
		return err
	}
	if err := e.out.Flush(); err != nil {
		return storeError(err, "write an export")
	}
	if r.Configurations {
		if err := h.exportConfigurations(ctx, id, &r); err != nil {
			return err
		}
	}
	return h.stepBlob(ctx, "export.finish", w, func(tx *storage.Tx, b storage.Blob) error {
		now, place, err := loadIdentityJob(tx, id)
		if err != nil {
			return err
		}
		if now.Status != IdentityJobRunning {
			return errJobEnded
		}
		if _, err := h.setBlobTx(tx, r.Output.grant(), r.OutputBlob, fileContent{b.Digest, b.Size, "application/x-ndjson", ""}, BlobCondition{}); err != nil {
			return containerFault("output", err)
		}
		e.tell(tx, &place)
		return errors.Join(
			identityJobPlaceTable.Put(tx, identityJobKey(id), place),
			h.endIdentityJobTx(tx, importCaller(now.Owner, id), id, &now, IdentityJobCompleted, ""))
	})
}

// exporter writes the lines of one export.
type exporter struct {
	hub     *Hub
	job     string
	record  *identityJobRecord
	out     *bufio.Writer
	line    []byte
	written int64 // identities
	devices int64 // that were looked at
	total   int64
	told    time.Time
}

// begin sets how much there is to do.
func (e *exporter) begin(ctx context.Context) error {
	return e.hub.step(ctx, "export.begin", func(tx *storage.Tx) error {
		_, place, err := loadIdentityJob(tx, e.job)
		if err != nil {
			return err
		}
		if e.total, err = storage.Counter(tx, counterDevices); err != nil {
			return err
		}
		e.tell(tx, &place)
		return identityJobPlaceTable.Put(tx, identityJobKey(e.job), place)
	})
}

func (e *exporter) tell(tx *storage.Tx, p *identityJobPlace) {
	p.Lines, p.Created, p.Offset, p.Total, p.Moved = e.written, e.written, e.devices, e.total, tx.Now().UTC()
}

// look stores now and then how far the export is, and stops it when the job has
// ended or its owner may no longer.
func (e *exporter) look(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := e.hub.mayGoOn(e.record.Owner, opIdentityExport); err != nil {
		return err
	}
	if time.Since(e.told) < exportTells {
		return nil
	}
	e.told = time.Now()
	return e.hub.step(ctx, "export.progress", func(tx *storage.Tx) error {
		r, place, err := loadIdentityJob(tx, e.job)
		if err != nil {
			return err
		}
		if r.Status != IdentityJobRunning {
			return errJobEnded
		}
		e.tell(tx, &place)
		return identityJobPlaceTable.Put(tx, identityJobKey(e.job), place)
	})
}

// all writes every device, each followed by its modules.
func (e *exporter) all(ctx context.Context) error {
	var after storage.Key
	for {
		if err := e.look(ctx); err != nil {
			return err
		}
		n := 0
		err := e.hub.view(ctx, "export identities", func(r storage.Reader) error {
			modules := newModuleCursor(r, after)
			defer modules.stop()
			for item, err := range deviceTable.Scan(r, storage.Range{After: after}) {
				if err != nil {
					return err
				}
				if n++; n > exportPage {
					return nil
				}
				after = append(storage.Key(nil), item.Key...)
				id, err := firstText(item.Key)
				if err != nil {
					return err
				}
				if err := e.device(r, id, item.Value, modules.of(after)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || n <= exportPage {
			return err
		}
	}
}

// matching writes the devices of a predicate.
func (e *exporter) matching(ctx context.Context) error {
	token := ""
	for {
		if err := e.look(ctx); err != nil {
			return err
		}
		page, err := e.hub.queries.answer(ctx, QueryRequest{Where: e.record.Where, Source: query.Devices, Max: exportPage, Token: token})
		if err != nil {
			return err
		}
		err = e.hub.view(ctx, "export identities", func(r storage.Reader) error {
			for i := range page.Twins {
				id := page.Twins[i].Identity.DeviceID
				record, err := deviceTable.Get(r, deviceKey(id))
				if errors.Is(err, storage.ErrNotFound) {
					continue // deleted since
				}
				if err == nil {
					err = e.device(r, id, record, moduleTable.Scan(r, storage.Range{Prefix: deviceKey(id)}))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if token = page.Token; err != nil || token == "" {
			return err
		}
	}
}

// moduleCursor goes through the modules beside the devices, which have the same order: to look for
// each device's own costs more than the rest of its line, and most devices have none.
type moduleCursor struct {
	next func() (storage.Item[identityRecord], error, bool)
	stop func()
	item storage.Item[identityRecord]
	err  error
	more bool
}

// newModuleCursor begins with the modules of the devices behind a key, or with the first.
func newModuleCursor(r storage.Reader, after storage.Key) *moduleCursor {
	c := &moduleCursor{}
	c.next, c.stop = iter.Pull2(moduleTable.Scan(r, storage.Range{After: after}))
	c.advance()
	return c
}

func (c *moduleCursor) advance() { c.item, c.err, c.more = c.next() }

// of yields the modules of a device; the devices must come in their order.
func (c *moduleCursor) of(device storage.Key) iter.Seq2[storage.Item[identityRecord], error] {
	return func(yield func(storage.Item[identityRecord], error) bool) {
		for ; c.more; c.advance() {
			switch {
			case c.err != nil:
				yield(c.item, c.err)
				return
			case bytes.HasPrefix(c.item.Key, device):
				if !yield(c.item, nil) {
					return
				}
			case bytes.Compare(c.item.Key, device) > 0:
				return
			}
		}
	}
}

func (e *exporter) device(r storage.Reader, id string, record identityRecord, modules iter.Seq2[storage.Item[identityRecord], error]) error {
	if err := e.identity(r, TwinID{DeviceID: id}, record); err != nil {
		return err
	}
	e.devices++
	for item, err := range modules {
		if err != nil {
			return err
		}
		module, err := (TwinID{}).fromKey(item.Key)
		if err != nil {
			return err
		}
		if err := e.identity(r, module, item.Value); err != nil {
			return err
		}
	}
	return nil
}

func (e *exporter) identity(r storage.Reader, id TwinID, record identityRecord) error {
	i, err := e.hub.fromRecord(id, record, !e.record.ExcludeKeys)
	if err != nil {
		return err
	}
	t, err := e.hub.getTwin(r, id)
	if err != nil {
		return err
	}
	e.line = appendIdentityLine(e.line[:0], &i, &t, twinETag(e.hub.db.Epoch().Ordinal, t.Revision))
	if _, err := e.out.Write(append(e.line, '\n')); err != nil {
		return storeError(err, "write an export")
	}
	e.written++
	return nil
}

// appendIdentityLine writes an ExportImportDevice. Keys that the identity lacks
// are null.
func appendIdentityLine(dst []byte, i *Identity, t *twinRecord, twinETag string) []byte {
	m := beginMembers(dst)
	m.text("id", i.DeviceID)
	m.textUnlessEmpty("moduleId", i.ModuleID)
	m.text("eTag", i.ETag)
	m.text("status", map[bool]string{false: "enabled", true: "disabled"}[i.Disabled])
	m.textUnlessEmpty("statusReason", i.StatusReason)
	m.textUnlessEmpty("managedBy", i.ManagedBy)
	m.raw("authentication", exportAuthentication(&i.Authentication))
	m.text("twinETag", twinETag)
	if i.ModuleID == "" {
		m.raw("capabilities", []byte(map[bool]string{false: `{"iotEdge":false}`, true: `{"iotEdge":true}`}[i.Edge]))
		m.textUnlessEmpty("deviceScope", i.DeviceScope)
		if len(i.ParentScopes) > 0 {
			list := []byte{'['}
			for n, scope := range i.ParentScopes {
				if n > 0 {
					list = append(list, ',')
				}
				list = twin.AppendString(list, scope)
			}
			m.raw("parentScopes", append(list, ']'))
		}
	}
	m.raw("tags", t.Tags.JSON(nil, true))
	m.name("properties")
	p := beginMembers(m.b)
	p.name("desired")
	p.b = t.Desired.JSON(p.b, true)
	p.name("reported")
	p.b = t.Reported.JSON(p.b, true)
	m.b = p.end()
	return m.end()
}

func exportAuthentication(a *Authentication) []byte {
	text := func(m *members, name, v string) {
		if v == "" {
			m.raw(name, nil)
		} else {
			m.text(name, v)
		}
	}
	var keys, prints [2]string
	switch a.Type {
	case AuthSAS:
		keys = [2]string{a.PrimaryKey.Reveal(), a.SecondaryKey.Reveal()}
	case AuthSelfSigned:
		prints = [2]string{a.PrimaryThumbprint, a.SecondaryThumbprint}
	case AuthCertificateAuthority, AuthNone:
	}
	k, p := beginMembers(nil), beginMembers(nil)
	text(&k, "primaryKey", keys[0])
	text(&k, "secondaryKey", keys[1])
	text(&p, "primaryThumbprint", prints[0])
	text(&p, "secondaryThumbprint", prints[1])
	m := beginMembers(nil)
	m.raw("symmetricKey", k.end())
	m.raw("x509Thumbprint", p.end())
	m.text("type", string(a.Type))
	return m.end()
}
