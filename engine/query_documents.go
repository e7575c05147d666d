package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/twin"
	"github.com/muster-hub/muster/storage"
)

// hubDocuments gives queries whole documents, for what columns do not hold.
type hubDocuments struct {
	hub      *Hub
	metadata bool // with $metadata, which few ask for
}

// Documents implements query.Documents.
func (d hubDocuments) Documents(ctx context.Context, ids []string) ([]query.Value, error) {
	list := make([]query.Value, len(ids))
	most := d.hub.limits.QueryMemory / documentFactor
	bytes := int64(0)
	err := d.hub.db.View(ctx, func(r storage.Reader) error {
		for i, row := range ids {
			if err := ctx.Err(); err != nil {
				return err
			}
			v, size, err := d.document(r, twinIDOfRow(row))
			if isGone(err) {
				continue
			}
			if err != nil {
				return err
			}
			if bytes += int64(size); bytes > most {
				return &query.BudgetError{
					Exceeded: "memory", Limit: plural(int(most), "byte") + " of twins at once", Step: "document fetch",
					Advice: "these twins are large: compare and select properties that have a column, or narrow the condition to fewer twins",
				}
			}
			list[i] = v
		}
		return nil
	})
	return list, err
}

// documentFactor is how much more than a twin's size its document takes in memory.
const documentFactor = 4

// document is a twin as a twin read shows it, and its size.
func (d hubDocuments) document(r storage.Reader, id TwinID) (v query.Value, size int, err error) {
	h := d.hub
	identity, t, err := h.loadTwin(r, id)
	if err != nil {
		return v, 0, err
	}
	p, err := presenceTable.Get(r, id.key())
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return v, 0, err
	}
	waiting, err := h.messagesWaiting(r, id)
	if err != nil {
		return v, 0, err
	}
	epoch := h.db.Epoch().Ordinal
	configured, err := h.configured(r, id)
	if err != nil {
		return v, 0, err
	}
	f := newRow()
	f.whole(h, id, &identity, &t, p, configured)
	f.text(rowPaths.etag, twinETag(epoch, t.Revision))
	f.text(rowPaths.deviceETag, identityETag(epoch, identity.Revision))
	f.add(rowPaths.version, query.NumberValue(float64(t.Version)))
	f.add(rowPaths.messageCount, query.NumberValue(float64(waiting)))
	if d.metadata {
		for _, s := range [...]*twin.Section{t.Desired, t.Reported} {
			whole, err := query.ParseValue(s.JSON(nil, true))
			if err != nil {
				return v, 0, fmt.Errorf("the metadata of %s: %w", id, err)
			}
			f.add(sectionRows[s.Kind()].metadata, whole.Member("$metadata"))
		}
	}
	return f.document(), t.Tags.Bytes() + t.Desired.Bytes() + t.Reported.Bytes(), nil
}

// document makes one object of all fields.
func (f *rowFields) document() query.Value {
	var root query.Value
	for _, field := range f.list {
		if field.Value.Kind() != query.Undefined {
			root = withMember(root, field.Path, field.Value)
		}
	}
	return root
}

// withMember adds a value at a path that the object does not have.
func withMember(object query.Value, path query.Path, v query.Value) query.Value {
	members := object.Members()
	if len(path) == 1 {
		return query.ObjectValue(append(members[:len(members):len(members)], query.Member{Key: path[0], Value: v}))
	}
	for i := range members {
		if members[i].Key == path[0] {
			members[i].Value = withMember(members[i].Value, path[1:], v) // nobody else has the object yet
			return object
		}
	}
	return query.ObjectValue(append(members[:len(members):len(members)], query.Member{Key: path[0], Value: withMember(query.Value{}, path[1:], v)}))
}

// planSummary is a plan in one line.
func planSummary(p *query.Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d rows, %d documents", p.Selected, p.Rows, p.Documents)
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "; %s %s (%d of %d)", s.Kind, s.Path, s.Selected, s.Rows)
	}
	return b.String()
}
