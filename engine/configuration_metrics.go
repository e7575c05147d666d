package engine

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/muster-hub/muster/engine/configuration"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

// ConfigurationMetrics are queries by name, and how many rows each selects.
// Results are set by the hub; one that can't be counted now is missing.
type ConfigurationMetrics struct {
	Queries map[string]string
	Results map[string]int64
}

// Names of the system metrics. Those of what was reported are of edge
// configurations only.
const (
	MetricTargeted           = "targetedCount"
	MetricApplied            = "appliedCount"
	MetricReportedSuccessful = "reportedSuccessfulCount"
	MetricReportedFailed     = "reportedFailedCount"
)

// systemMetrics are the queries of the system metrics, which can be run as they are.
func systemMetrics(id string, r *configurationRecord) map[string]string {
	status := "configurations.[[" + id + "]].status"
	condition := strings.TrimSpace(r.Condition)
	switch r.Content.kind() {
	case configuration.OfModules:
		agent := "SELECT deviceId FROM devices.modules WHERE moduleId = '$edgeAgent' AND " + status + " = 'Applied'"
		reported := agent + " AND properties.desired.$version = properties.reported.lastDesiredVersion AND properties.reported.lastDesiredStatus.code "
		targeted := "SELECT deviceId FROM devices WHERE capabilities.iotEdge = true AND "
		switch condition {
		case "":
			targeted += status + " = 'Applied'" // of devices, none of which has it
		case "*":
			targeted = strings.TrimSuffix(targeted, " AND ")
		default:
			targeted += "(" + condition + ")"
		}
		return map[string]string{
			MetricTargeted: targeted, MetricApplied: agent, MetricReportedSuccessful: reported + "= 200", MetricReportedFailed: reported + "!= 200",
		}
	case configuration.OfModule:
		const all = "SELECT deviceId, moduleId FROM devices.modules"
		targeted := "SELECT deviceId, moduleId " + condition
		if condition == "" {
			targeted = all + " WHERE " + status + " = 'Applied'"
		}
		return map[string]string{MetricTargeted: targeted, MetricApplied: all + " WHERE " + status + " = 'Applied'"}
	default:
		const all = "SELECT deviceId FROM devices"
		applied := all + " WHERE " + status + " = 'Applied'"
		switch condition {
		case "":
			return map[string]string{MetricTargeted: applied, MetricApplied: applied}
		case "*":
			return map[string]string{MetricTargeted: all, MetricApplied: applied}
		}
		return map[string]string{MetricTargeted: all + " WHERE " + condition, MetricApplied: applied}
	}
}

// Configuration returns a configuration with the results of its metrics. It
// needs ServiceConnect.
func (h *Hub) Configuration(ctx context.Context, c Caller, id string) (Configuration, error) {
	if err := h.authorize(ctx, c, opConfigurationRead, id); err != nil {
		return Configuration{}, err
	}
	var record configurationRecord
	err := h.view(ctx, "read configuration", func(r storage.Reader) (err error) {
		record, err = loadConfiguration(r, id)
		return err
	})
	if err != nil {
		return Configuration{}, err
	}
	return h.showConfiguration(ctx, id, &record), nil
}

// Bounds of a page of configurations.
const (
	configurationPage  = 100
	configurationBytes = 8 << 20
)

// Configurations lists configurations by id, those behind the id after; at most
// limit of them (0: as many as the hub gives at once), fewer when they are large.
// next is the after of the next page, empty at the end. It needs ServiceConnect.
func (h *Hub) Configurations(ctx context.Context, c Caller, after string, limit int) (list []Configuration, next string, err error) {
	if err := h.authorize(ctx, c, opConfigurationRead, "*"); err != nil {
		return nil, "", err
	}
	if limit <= 0 || limit > configurationPage {
		limit = configurationPage
	}
	var ids []string
	var records []configurationRecord
	err = h.view(ctx, "list configurations", func(r storage.Reader) error {
		ids, records, next = nil, nil, ""
		g := storage.Range{}
		if after != "" {
			g.After = configurationKey(after)
		}
		bytes := int64(0)
		for item, err := range configurationTable.Scan(r, g) {
			if err != nil {
				return err
			}
			if len(ids) == limit || bytes >= configurationBytes {
				next = ids[len(ids)-1]
				return nil
			}
			id, err := configurationOfKey(item.Key)
			if err != nil {
				return err
			}
			ids, records = append(ids, id), append(records, item.Value)
			bytes += item.Value.size()
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	list = make([]Configuration, len(ids))
	for i, id := range ids {
		list[i] = h.showConfiguration(ctx, id, &records[i])
	}
	return list, next, nil
}

// showConfiguration returns the record as callers see it, with the results of its
// metrics, as far as they can be counted now.
func (h *Hub) showConfiguration(ctx context.Context, id string, r *configurationRecord) Configuration {
	g := r.show(h.db.Epoch().Ordinal, id)
	h.countMetrics(ctx, &g.Metrics)
	h.countMetrics(ctx, &g.SystemMetrics)
	return g
}

func (h *Hub) countMetrics(ctx context.Context, m *ConfigurationMetrics) {
	m.Results = map[string]int64{}
	for name, text := range m.Queries {
		q, err := query.Parse(text, query.Options{})
		if err != nil {
			continue // it was written under other limits
		}
		if n, err := h.countRows(ctx, q); err == nil {
			m.Results[name] = n
		}
	}
}

// countedMost bounds the rows of a query that can't be counted without being made.
const countedMost = 100_000

// countRows returns how many rows a query gives.
func (h *Hub) countRows(ctx context.Context, q *query.Query) (int64, error) {
	if !h.QueryProgress().Ready {
		return 0, errf(CodeUnavailable, "queries are not ready")
	}
	leave, err := h.queries.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	if q.Plain() {
		page, err := h.queries.run(ctx, q.Count(), queryPlace{}, 1)
		if err != nil {
			return 0, err
		}
		if len(page.Rows) == 0 { // of no rows there is no group
			return 0, nil
		}
		var row map[string]int64
		if err := json.Unmarshal(page.Rows[0], &row); err != nil {
			return 0, wrapf(CodeInternal, err, "the count can't be read")
		}
		return row[query.CountKey], nil
	}
	most := h.limits.QueryPage
	if q.Ordered() {
		most = h.limits.QuerySorted
	}
	at := queryPlace{}
	for at.given < countedMost {
		page, err := h.queries.run(ctx, q, at, most)
		if err != nil {
			return 0, err
		}
		at.given += len(page.IDs) + len(page.Rows)
		if at.last = page.Last; !page.More || q.Ordered() {
			return int64(at.given), nil
		}
	}
	return 0, errf(CodeQueryBudget, "the query gives more than %d rows", countedMost)
}

// ConfigurationProgress says how far a configuration is spread over the twins
// that its condition selects now.
type ConfigurationProgress struct {
	Revision uint64
	Working  bool  // twins are being looked for, or worked through
	Targeted int64 // twins that the condition selects
	Settled  int64 // that have this revision: all it sets is there, or set by another one
	Applied  int64 // in which it sets one path at least
	Pending  int64 // targeted, and not settled yet
	Failed   int64 // that can't take it: their size or the declared schema refuses it
}

// ConfigurationProgress returns how far a configuration is spread. It is cheap.
// It needs ServiceConnect.
func (h *Hub) ConfigurationProgress(ctx context.Context, c Caller, id string) (ConfigurationProgress, error) {
	if err := h.authorize(ctx, c, opConfigurationRead, id); err != nil {
		return ConfigurationProgress{}, err
	}
	var p ConfigurationProgress
	var record configurationRecord
	err := h.view(ctx, "read configuration", func(r storage.Reader) (err error) {
		if record, err = loadConfiguration(r, id); err != nil {
			return err
		}
		if p.Settled, err = storage.Counter(r, counterConfigurationSettled(id)); err != nil {
			return err
		}
		if p.Failed, err = storage.Counter(r, counterConfigurationFailed(id)); err != nil {
			return err
		}
		p.Working, err = spreads(r, id)
		return err
	})
	if err != nil {
		return ConfigurationProgress{}, err
	}
	p.Revision = record.Revision
	for name, into := range map[string]*int64{MetricTargeted: &p.Targeted, MetricApplied: &p.Applied} {
		q, err := query.Parse(systemMetrics(id, &record)[name], query.Options{})
		if err != nil {
			return ConfigurationProgress{}, wrapf(CodeInternal, err, "the query of %s can't be read", name)
		}
		if *into, err = h.countRows(ctx, q); err != nil {
			return ConfigurationProgress{}, err
		}
	}
	p.Pending = max(0, p.Targeted-p.Settled-p.Failed)
	return p, nil
}
