package engine

import (
	"context"
	"errors"
	"strconv"

	"github.com/muster-hub/muster/storage"
)

// ConfigurationRevisions lists the revisions of a configuration that are kept,
// newest first and without metric results; at most limit of those below before,
// fewer when they are large. 0 stands for all of either. next is the before of
// the next page, 0 at the end. It needs ServiceConnect.
func (h *Hub) ConfigurationRevisions(ctx context.Context, c Caller, id string, before uint64, limit int) (list []Configuration, next uint64, err error) {
	if err := h.authorize(ctx, c, opConfigurationRead, id); err != nil {
		return nil, 0, err
	}
	if limit <= 0 || limit > configurationPage {
		limit = configurationPage
	}
	err = h.view(ctx, "read a configuration's revisions", func(r storage.Reader) error {
		list, next = []Configuration{}, 0
		if _, err := loadConfiguration(r, id); err != nil {
			return err
		}
		g := storage.Range{Prefix: storage.Tuple(id), Reverse: true}
		if before > 0 {
			g.End = configurationRevisionKey(id, before)
		}
		bytes := int64(0)
		for item, err := range configurationRevisionTable.Scan(r, g) {
			if err != nil {
				return err
			}
			if len(list) == limit || bytes >= configurationBytes {
				next = list[len(list)-1].Revision
				return nil
			}
			list = append(list, item.Value.show(h.db.Epoch().Ordinal, id))
			bytes += item.Value.size()
		}
		return nil
	})
	return list, next, err
}

// RollbackConfiguration makes a new revision that is as an earlier one was:
// content, condition, priority, metrics and labels; all twins get it at once. The
// condition is as in DeleteConfiguration. Under the azure limits the content
// stays. It needs ServiceConnect.
func (h *Hub) RollbackConfiguration(ctx context.Context, c Caller, id string, revision uint64, m IfMatch) (Configuration, error) {
	if err := h.authorize(ctx, c, opConfigurationWrite, id); err != nil {
		return Configuration{}, err
	}
	var stored configurationRecord
	err := h.step(ctx, "configuration.rollback", func(tx *storage.Tx) error {
		old, err := loadConfiguration(tx, id)
		if err != nil {
			return err
		}
		earlier, err := configurationRevisionTable.Get(tx, configurationRevisionKey(id, revision))
		if errors.Is(err, storage.ErrNotFound) {
			return &Error{
				Code: CodeConfigurationNotFound, Message: "the configuration \"" + id + "\" has no revision " + strconv.FormatUint(revision, 10) + ", or it is no longer kept",
				Next: "`muster configuration revisions " + id + "` shows which are kept.",
			}
		}
		if err != nil {
			return err
		}
		earlier.Rollout = nil
		stored, err = h.changeConfigurationTx(tx, c, id, old, earlier, m)
		return err
	})
	if err != nil {
		return Configuration{}, err
	}
	return h.showConfiguration(ctx, id, &stored), nil
}
