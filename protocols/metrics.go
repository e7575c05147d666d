package protocols

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/protocols/device"
	"github.com/muster-hub/muster/protocols/service"
)

// MetricInfo documents one metric.
type MetricInfo struct {
	Name   string
	Kind   string // "counter", "gauge" or "histogram"
	Text   string
	Labels []string
}

// Metrics returns every metric of a hub, sorted by name, from the same rows
// from which /metrics is made.
func Metrics() []MetricInfo {
	var list []MetricInfo
	for _, r := range metricRows() {
		list = append(list, r.MetricInfo)
	}
	for _, m := range service.Metrics() {
		list = append(list, MetricInfo(m))
	}
	slices.SortFunc(list, func(a, b MetricInfo) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return list
}

// figures are what one scrape sees.
type figures struct {
	ready    bool
	totals   engine.Totals
	storage  engine.StoreStats
	device   device.Stats
	webPaced int64
	web      []device.RequestCount
	gate     admissionFigures
	webhooks []engine.Webhook
	backups  engine.BackupStats
	files    engine.FileTotals
	queries  engine.QueryStats
	jobs     engine.JobStats
	runs     engine.RunStats
	patterns []engine.Pattern
	workers  WorkerStats
	renewAt  float64 // unix time; 0 with given files
	certs    map[string]time.Time
	troubles map[string]string // of certificates, as troubles gives them
	failures int64             // of certificates
	trouble  string
	stalled  time.Duration
}

// metricRow reads one metric; each calls emit once for every set of labels.
type metricRow struct {
	MetricInfo
	read func(f *figures, emit func(v float64, labels ...string))
}

func plain(kind, name, text string, read func(*figures) float64) metricRow {
	return metricRow{MetricInfo{name, kind, text, nil}, func(f *figures, emit func(float64, ...string)) { emit(read(f)) }}
}

func counter(name, text string, read func(*figures) int64) metricRow {
	return plain("counter", name, text, func(f *figures) float64 { return float64(read(f)) })
}

func gauge(name, text string, read func(*figures) float64) metricRow {
	return plain("gauge", name, text, read)
}

// webhook reads a metric of each webhook; their number is bounded.
func webhook(kind, name, text string, read func(w *engine.Webhook) float64) metricRow {
	return metricRow{MetricInfo{name, kind, text, []string{"webhook"}}, func(f *figures, emit func(float64, ...string)) {
		for i := range f.webhooks {
			emit(read(&f.webhooks[i]), f.webhooks[i].ID)
		}
	}}
}

// perPattern reads a metric of each installed version of a pattern: their number
// is bounded.
func perPattern(kind, name, text string, read func(p *engine.Pattern) float64) metricRow {
	return metricRow{MetricInfo{name, kind, text, []string{"pattern", "version"}}, func(f *figures, emit func(float64, ...string)) {
		for i := range f.patterns {
			emit(read(&f.patterns[i]), f.patterns[i].Manifest.Name, f.patterns[i].Manifest.Version)
		}
	}}
}

// columns reads a metric of the columns of each source.
func columns(name, text string, read func(*query.Stats) float64) metricRow {
	return metricRow{MetricInfo{name, "gauge", text, []string{"source"}}, func(f *figures, emit func(float64, ...string)) {
		emit(read(&f.queries.Devices), query.Devices.String())
		emit(read(&f.queries.Modules), query.Modules.String())
	}}
}

func metricRows() []metricRow {
	return []metricRow{
		gauge("muster_ready", "1 when devices and reads are served.", func(f *figures) float64 {
			if f.ready {
				return 1
			}
			return 0
		}),
		counter("muster_messages_total", "Device-to-cloud messages taken.", func(f *figures) int64 { return f.totals.Messages }),
		counter("muster_message_bytes_total", "Bytes of device-to-cloud messages taken.", func(f *figures) int64 { return f.totals.MessageBytes }),
		counter("muster_reported_updates_total", "Updates of reported properties.", func(f *figures) int64 { return f.totals.ReportedUpdates }),
		counter("muster_desired_updates_total", "Updates of desired properties.", func(f *figures) int64 { return f.totals.DesiredUpdates }),
		counter("muster_twin_reads_total", "Twins read.", func(f *figures) int64 { return f.totals.TwinReads }),
		counter("muster_methods_total", "Direct methods called.", func(f *figures) int64 { return f.totals.Methods }),
		counter("muster_methods_failed_total", "Direct methods that got no answer from the device.", func(f *figures) int64 { return f.totals.MethodsFailed }),
		gauge("muster_faults", "Injected faults in force.", func(f *figures) float64 { return float64(f.totals.Faults) }),
		counter("muster_fault_lost_total", "Messages lost on purpose, by injected faults.", func(f *figures) int64 { return f.totals.FaultLost }),
		counter("muster_methods_queued_total", "Direct methods queued until their device is there.", func(f *figures) int64 { return f.totals.MethodsQueued }),
		counter("muster_methods_uncertain_total", "Queued methods that were taken for sending and got no answer.", func(f *figures) int64 { return f.totals.MethodsUncertain }),
		counter("muster_methods_expired_total", "Queued methods whose deadline passed before their device came.", func(f *figures) int64 { return f.totals.MethodsExpired }),
		counter("muster_methods_late_total", "Answers to direct methods that nobody waited for any more.", func(f *figures) int64 { return f.totals.LateAnswers }),
		gauge("muster_jobs_active", "Jobs that have not ended.", func(f *figures) float64 { return float64(f.jobs.Active) }),
		gauge("muster_job_executions_waiting", "Executions of jobs that wait for their device, or for another job on it.", func(f *figures) float64 { return float64(f.jobs.Waiting) }),
		gauge("muster_job_executions_in_flight", "Executions of jobs whose command is on its way.", func(f *figures) float64 { return float64(f.jobs.InFlight) }),
		{MetricInfo{"muster_job_executions_total", "counter", "Executions of jobs that ended.", []string{"status"}}, func(f *figures, emit func(float64, ...string)) {
			for status, n := range f.jobs.Ended {
				emit(float64(n), status)
			}
		}},
		counter("muster_job_late_answers_total", "Answers of devices to attempts of jobs that had been given up, or answered.", func(f *figures) int64 { return f.jobs.Late }),
		{MetricInfo{"muster_runs", "gauge", "Runs of patterns that have not ended, by state.", []string{"state"}}, func(f *figures, emit func(float64, ...string)) {
			for state, n := range f.runs.Active {
				emit(float64(n), string(state))
			}
		}},
		{MetricInfo{"muster_runs_ended_total", "counter", "Runs of patterns that ended, by state.", []string{"state"}}, func(f *figures, emit func(float64, ...string)) {
			for state, n := range f.runs.Ended {
				emit(float64(n), string(state))
			}
		}},
		gauge("muster_run_requests", "Requests and queries of runs under way.", func(f *figures) float64 { return float64(f.runs.Working) }),
		gauge("muster_run_conditions", "Devices on which runs wait for a condition.", func(f *figures) float64 { return float64(f.runs.Waiting) }),
		counter("muster_run_activations_total", "Activations of runs: one begins it, and one follows each answer that it waited for.", func(f *figures) int64 { return f.runs.Activations }),
		counter("muster_run_activations_failed_total", "Activations that could not be made, and are tried again.", func(f *figures) int64 { return f.runs.Failures }),
		counter("muster_run_steps_total", "Steps that runs took.", func(f *figures) int64 { return f.runs.Steps }),
		plain("counter", "muster_run_seconds_total", "Time of activations in workers, in seconds.", func(f *figures) float64 { return f.runs.Time.Seconds() }),
		perPattern("gauge", "muster_pattern_runs", "Runs that have not ended, by pattern.", func(p *engine.Pattern) float64 { return float64(p.Active) }),
		{MetricInfo{"muster_pattern_runs_ended_total", "counter", "Runs that ended, by pattern and state.", []string{"pattern", "version", "state"}}, func(f *figures, emit func(float64, ...string)) {
			for i := range f.patterns {
				p := &f.patterns[i]
				for state, n := range p.Cost.Ended {
					emit(float64(n), p.Manifest.Name, p.Manifest.Version, string(state))
				}
			}
		}},
		perPattern("counter", "muster_pattern_activations_total", "Activations, by pattern.", func(p *engine.Pattern) float64 { return float64(p.Cost.Activations) }),
		perPattern("counter", "muster_pattern_instructions_total", "Instructions that activations took, by pattern.", func(p *engine.Pattern) float64 { return float64(p.Cost.Instructions) }),
		perPattern("counter", "muster_pattern_calls_total", "Host calls, those answered from journals included, by pattern.", func(p *engine.Pattern) float64 { return float64(p.Cost.Calls) }),
		perPattern("counter", "muster_pattern_seconds_total", "Time in workers, in seconds, by pattern.", func(p *engine.Pattern) float64 { return p.Cost.Time.Seconds() }),
		perPattern("counter", "muster_pattern_journal_bytes_total", "Bytes of the journals of runs that ended, by pattern.", func(p *engine.Pattern) float64 { return float64(p.Cost.Journal) }),
		perPattern("gauge", "muster_pattern_slowest_seconds", "The slowest activation since the start, by pattern; `muster pattern show` names its run.", func(p *engine.Pattern) float64 { return p.Cost.Slowest.Seconds() }),
		gauge("muster_pattern_workers", "Processes that run patterns.", func(f *figures) float64 { return float64(f.workers.Alive) }),
		gauge("muster_pattern_workers_busy", "Of them, those at work.", func(f *figures) float64 { return float64(f.workers.Busy) }),
		gauge("muster_pattern_workers_wanted", "Activations that wait for such a process.", func(f *figures) float64 { return float64(f.workers.Waiting) }),
		counter("muster_pattern_worker_starts_total", "Starts of processes that run patterns.", func(f *figures) int64 { return f.workers.Starts }),
		counter("muster_pattern_worker_crashes_total", "Processes that run patterns and ended by themselves.", func(f *figures) int64 { return f.workers.Crashes }),
		{MetricInfo{"muster_pattern_worker_kills_total", "counter", "Processes that run patterns and were killed, since a program went over its budget of time or memory.", []string{"budget"}}, func(f *figures, emit func(float64, ...string)) {
			for _, budget := range slices.Sorted(maps.Keys(f.workers.Kills)) {
				emit(float64(f.workers.Kills[budget]), budget)
			}
		}},
		plain("counter", "muster_pattern_worker_wait_seconds_total", "How long activations waited for a process, in seconds.", func(f *figures) float64 { return f.workers.Waited.Seconds() }),
		counter("muster_devicebound_sent_total", "Cloud-to-device messages taken.", func(f *figures) int64 { return f.totals.MessagesSent }),
		counter("muster_devicebound_delivered_total", "Cloud-to-device messages published to devices, repeats included.", func(f *figures) int64 { return f.totals.MessagesDelivered }),
		counter("muster_devicebound_completed_total", "Cloud-to-device messages that devices completed.", func(f *figures) int64 { return f.totals.MessagesCompleted }),
		counter("muster_devicebound_dead_total", "Cloud-to-device messages that expired, were rejected, given up or purged.", func(f *figures) int64 { return f.totals.MessagesDead }),
		counter("muster_connects_total", "Sessions begun.", func(f *figures) int64 { return f.totals.Connects }),
		counter("muster_connects_refused_total", "Sessions refused by the hub.", func(f *figures) int64 { return f.totals.ConnectsRefused }),
		counter("muster_sessions_replaced_total", "Sessions that a newer one of the same identity took over.", func(f *figures) int64 { return f.totals.SessionsReplaced }),
		counter("muster_audit_lost_total", "Audit entries of refused or method calls that could not be stored.", func(f *figures) int64 { return f.totals.AuditLost }),
		counter("muster_schema_violations_total", "Changes of twins that the declared schema does not allow, stored with a warning.", func(f *figures) int64 { return f.totals.SchemaViolations }),
		counter("muster_schema_rejected_total", "Changes of twins that were refused, since the declared schema does not allow them.", func(f *figures) int64 { return f.totals.SchemaRejected }),
		counter("muster_presence_lost_total", "Presence changes that could not be stored.", func(f *figures) int64 { return f.totals.PresenceLost }),

		gauge("muster_sessions", "Device and module sessions.", func(f *figures) float64 { return float64(f.device.Sessions) }),
		gauge("muster_sessions_pending", "Device connections that have not authenticated yet.", func(f *figures) float64 { return float64(f.device.Pending) }),
		counter("muster_packets_total", "MQTT packets received in sessions.", func(f *figures) int64 { return f.device.Packets }),
		counter("muster_device_paced_total", "Reads put off because a session, or a device by HTTPS, sent more than device_message_rate or device_byte_rate.", func(f *figures) int64 { return f.device.Paced + f.webPaced }),
		counter("muster_device_connections_rejected_total", "Device connections closed without a CONNACK, and WebSocket handshakes refused.", func(f *figures) int64 { return f.device.Rejected }),
		{MetricInfo{"muster_connack_refused_total", "counter", "CONNACKs that refused, by return code.", []string{"code"}}, func(f *figures, emit func(float64, ...string)) {
			for code := 1; code < len(f.device.Refused); code++ {
				emit(float64(f.device.Refused[code]), strconv.Itoa(code))
			}
		}},
		{MetricInfo{"muster_disconnects_total", "counter", "Device connections ended, by reason.", []string{"reason"}}, func(f *figures, emit func(float64, ...string)) {
			for _, reason := range slices.Sorted(maps.Keys(f.device.Disconnects)) {
				emit(float64(f.device.Disconnects[reason]), reason)
			}
		}},

		{MetricInfo{"muster_device_http_requests_total", "counter", "Requests of the HTTPS device API answered, by operation (other: refused before it was known) and HTTP status.", []string{"operation", "code"}}, func(f *figures, emit func(float64, ...string)) {
			for _, one := range f.web {
				emit(float64(one.Count), one.Operation, strconv.Itoa(one.Status))
			}
		}},

		webhook("counter", "muster_webhook_delivered_total", "Events that a webhook took.", func(w *engine.Webhook) float64 { return float64(w.State.Delivered) }),
		webhook("counter", "muster_webhook_failed_total", "Requests to a webhook that failed.", func(w *engine.Webhook) float64 { return float64(w.State.Failed) }),
		webhook("counter", "muster_webhook_dead_total", "Events that a webhook gave up.", func(w *engine.Webhook) float64 { return float64(w.State.Dead) }),
		webhook("counter", "muster_webhook_dead_dropped_total", "Dead letters that fell out of the bound.", func(w *engine.Webhook) float64 { return float64(w.State.DeadDropped) }),
		webhook("gauge", "muster_webhook_dead_letters", "Dead letters that are kept.", func(w *engine.Webhook) float64 { return float64(w.State.DeadKept) }),
		webhook("gauge", "muster_webhook_lag_events", "Entries of the logs that a webhook has not dealt with, wanted or not.", func(w *engine.Webhook) float64 { return float64(w.State.Lag) }),
		webhook("gauge", "muster_webhook_lag_seconds", "Age of the oldest event that a webhook has not dealt with.", func(w *engine.Webhook) float64 { return w.State.LagTime.Seconds() }),
		webhook("gauge", "muster_webhook_paused", "1 when the hub paused a webhook because it failed.", func(w *engine.Webhook) float64 {
			if w.Paused != "" {
				return 1
			}
			return 0
		}),

		gauge("muster_backup_last_success_time_seconds", "When the newest backup that was made by schedule and read back began, unix time; 0: none yet.", func(f *figures) float64 {
			if f.backups.LastSuccess.IsZero() {
				return 0
			}
			return float64(f.backups.LastSuccess.Unix())
		}),
		gauge("muster_backup_last_duration_seconds", "How long that backup took, with reading it back.", func(f *figures) float64 { return f.backups.LastTime.Seconds() }),
		gauge("muster_backup_last_bytes", "Size of that backup.", func(f *figures) float64 { return float64(f.backups.LastBytes) }),
		counter("muster_backups_total", "Backups made in the directory of backups and read back.", func(f *figures) int64 { return f.backups.Made }),
		counter("muster_backups_failed_total", "Backups for the directory of backups that failed.", func(f *figures) int64 { return f.backups.Failed }),
		gauge("muster_backup_failures_in_a_row", "Backups that failed since the last one that was made.", func(f *figures) float64 { return float64(f.backups.InRow) }),
		gauge("muster_backup_scheduled", "1 when the hub makes backups by itself.", func(f *figures) float64 { return float64(f.backups.Scheduled) }),
		gauge("muster_backup_running", "1 while a backup is made, streamed ones included.", func(f *figures) float64 {
			if f.backups.Running {
				return 1
			}
			return 0
		}),

		gauge("muster_files", "Files that devices have uploaded and that are kept.", func(f *figures) float64 { return float64(f.files.Files) }),
		gauge("muster_file_bytes", "Bytes of these files.", func(f *figures) float64 { return float64(f.files.Bytes) }),
		gauge("muster_file_share_bytes", "Bytes that files may take; the oldest are removed beyond it. Unfinished uploads may take as many.", func(f *figures) float64 { return float64(f.files.Share) }),
		gauge("muster_uploads", "Uploads that are under way.", func(f *figures) float64 { return float64(f.files.Uploads) }),
		gauge("muster_upload_bytes", "Bytes that unfinished uploads hold on the disk.", func(f *figures) float64 { return float64(f.files.Staged) }),
		gauge("muster_upload_bodies", "Requests that send content of uploads now.", func(f *figures) float64 { return float64(f.files.Writing) }),
		counter("muster_uploads_completed_total", "Uploads that became files.", func(f *figures) int64 { return f.files.Completed }),
		counter("muster_uploads_failed_total", "Uploads that ended without a file: reported as failed, or expired.", func(f *figures) int64 { return f.files.Failed }),
		counter("muster_files_dropped_total", "Files that were removed because of their age or for room.", func(f *figures) int64 { return f.files.Dropped }),

		gauge("muster_queries_ready", "1 when queries are answered.", func(f *figures) float64 {
			if f.queries.Progress.Ready {
				return 1
			}
			return 0
		}),
		counter("muster_queries_total", "Pages of queries that were asked for.", func(f *figures) int64 { return f.queries.Queries }),
		plain("counter", "muster_query_seconds_total", "Time that these took, in seconds.", func(f *figures) float64 { return f.queries.Time.Seconds() }),
		counter("muster_query_rows_total", "Rows that they gave.", func(f *figures) int64 { return f.queries.Rows }),
		counter("muster_queries_failed_total", "Queries that were answered with an error.", func(f *figures) int64 { return f.queries.Failed }),
		counter("muster_queries_refused_total", "Queries refused for want of permission, of a turn, or because they were not ready.", func(f *figures) int64 { return f.queries.Refused }),
		counter("muster_queries_over_budget_total", "Queries that would have cost more than a query may.", func(f *figures) int64 { return f.queries.OverBudget }),
		counter("muster_queries_slow_total", "Queries that took query_slow or longer; the log has each.", func(f *figures) int64 { return f.queries.Slow }),
		columns("muster_column_rows", "Rows of columns, by source.", func(s *query.Stats) float64 { return float64(s.Rows) }),
		columns("muster_columns", "Columns, by source.", func(s *query.Stats) float64 { return float64(s.Columns) }),
		columns("muster_column_bytes", "Bytes of columns, their dictionaries and ids, by source.", func(s *query.Stats) float64 { return float64(s.Bytes) }),
		columns("muster_columns_missing", "Paths that have no column, by source; what asks for them reads documents.", func(s *query.Stats) float64 { return float64(len(s.Missing)) }),

		gauge("muster_connections", "TCP connections.", func(f *figures) float64 { return float64(f.gate.open) }),
		gauge("muster_strangers", "Connections that are not authenticated yet.", func(f *figures) float64 { return float64(f.gate.strangers) }),
		gauge("muster_strangers_waiting", "Connections that wait for room among the unauthenticated ones.", func(f *figures) float64 { return float64(f.gate.waiting) }),
		counter("muster_strangers_turned_away_total", "Connections closed at once because too many waited for room.", func(f *figures) int64 { return f.gate.turnedAway }),
		counter("muster_connections_paced_total", "Connections that had to wait because their address makes many, or showed wrong credentials.", func(f *figures) int64 { return f.gate.paced }),
		counter("muster_credentials_refused_total", "Wrong credentials shown by devices and services.", func(f *figures) int64 { return f.gate.refused }),
		gauge("muster_addresses_backing_off", "Addresses whose connections are slowed because they showed wrong credentials.", func(f *figures) float64 { return float64(f.gate.backingOff) }),
		counter("muster_connections_total", "TCP connections accepted.", func(f *figures) int64 { return f.gate.accepted }),
		counter("muster_handshakes_total", "TLS handshakes answered.", func(f *figures) int64 { return f.gate.handshakes }),
		counter("muster_strangers_evicted_total", "Connections closed unauthenticated to make room for newer ones.", func(f *figures) int64 { return f.gate.gaveWay }),
		counter("muster_strangers_expired_total", "Connections closed because they did not authenticate in time.", func(f *figures) int64 { return f.gate.tooSlow }),
		{MetricInfo{"muster_certificate_end_time_seconds", "gauge", "When a certificate ends, unix time: file (of --cert), own (the earliest of those that the hub signed), authority (the hub's own CA), or a name that ACME covers.", []string{"certificate"}}, func(f *figures, emit func(float64, ...string)) {
			for _, name := range slices.Sorted(maps.Keys(f.certs)) {
				emit(float64(f.certs[name].Unix()), name)
			}
		}},
		counter("muster_certificate_failures_total", "Renewals and reloads of certificates that failed, given files that stay as they are once; the former one stayed in use.", func(f *figures) int64 { return f.failures }),
		{MetricInfo{"muster_certificate_failing", "gauge", "1 while the last renewal or reload of a certificate failed, so that the former one stays in use: file (of --cert), own, or a name that ACME covers.", []string{"certificate"}}, func(f *figures, emit func(float64, ...string)) {
			for name, why := range f.troubles {
				v := 0.0
				if why != "" {
					v = 1
				}
				emit(v, name)
			}
		}},
		gauge("muster_certificate_renewal_time_seconds", "When the hub renews its own server certificates, unix time; 0 with given certificate files.", func(f *figures) float64 { return f.renewAt }),

		{MetricInfo{"muster_store_trouble", "gauge", "1 for the reason for which the store does not do everything it should: read_only, damaged, clock, space, other.", []string{"reason"}}, func(f *figures, emit func(float64, ...string)) {
			for _, reason := range engine.StoreTroubles() {
				v := 0.0
				if reason == f.trouble {
					v = 1
				}
				emit(v, reason)
			}
		}},
		gauge("muster_store_stalled_seconds", "How long changes or messages have waited while none was answered; 0 when none waits.", func(f *figures) float64 { return f.stalled.Seconds() }),
		counter("muster_store_commits_total", "Transactions committed.", func(f *figures) int64 { return int64(f.storage.Commits) }),
		counter("muster_store_groups_total", "Journal records written, each a group of transactions.", func(f *figures) int64 { return int64(f.storage.Groups) }),
		counter("muster_store_conflicts_total", "Transactions prepared again because a key that they had read was changed.", func(f *figures) int64 { return int64(f.storage.Conflicts) }),
		counter("muster_store_syncs_total", "Syncs of the journal.", func(f *figures) int64 { return int64(f.storage.Syncs) }),
		counter("muster_store_journal_bytes_total", "Bytes written to the journal.", func(f *figures) int64 { return int64(f.storage.JournalBytes) }),
		counter("muster_store_journal_waits_total", "Groups that waited for a free journal segment.", func(f *figures) int64 { return int64(f.storage.JournalWaits) }),
		counter("muster_store_dropped_total", "Submitted transactions that were refused or failed.", func(f *figures) int64 { return int64(f.storage.DroppedSubmits) }),
		counter("muster_store_checkpoints_total", "Checkpoints taken.", func(f *figures) int64 { return int64(f.storage.Checkpoints) }),
		gauge("muster_store_checkpoint_age_seconds", "Time since the newest checkpoint.", func(f *figures) float64 { return f.storage.CheckpointAge.Seconds() }),
		gauge("muster_store_checkpoint_seconds", "How long the newest checkpoint took.", func(f *figures) float64 { return f.storage.CheckpointTime.Seconds() }),
		gauge("muster_store_queue", "Transactions that wait for the committer.", func(f *figures) float64 { return float64(f.storage.Queue) }),
		gauge("muster_store_unsettled", "Journal records that are acknowledged and not in the tables yet.", func(f *figures) float64 { return float64(f.storage.Unsettled) }),
		gauge("muster_store_message_queue", "Device-to-cloud messages that wait to be stored.", func(f *figures) float64 { return float64(f.storage.MessageQueue) }),
		gauge("muster_store_message_bytes", "Bytes of the stored device-to-cloud messages.", func(f *figures) float64 { return float64(f.storage.MessageBytes) }),
		counter("muster_store_message_syncs_total", "Syncs of the message log.", func(f *figures) int64 { return int64(f.storage.MessageSyncs) }),
		gauge("muster_store_free_bytes", "Free space of the data directory's file system.", func(f *figures) float64 { return float64(f.storage.FreeBytes) }),
		gauge("muster_store_reserve_bytes", "Free space below which changes are refused.", func(f *figures) float64 { return float64(f.storage.ReserveBytes) }),
		gauge("muster_store_disk_bytes", "Bytes of the store's tables.", func(f *figures) float64 { return float64(f.storage.DiskBytes) }),
		gauge("muster_store_damaged_tables", "Tables in which the background scan found damage.", func(f *figures) float64 { return float64(f.storage.DamagedTables) }),
	}
}

// collector reads all rows from one look at the hub.
type collector struct {
	server *Server
	rows   []metricRow
	descs  []*prometheus.Desc
}

func newCollector(s *Server) *collector {
	c := &collector{server: s, rows: metricRows()}
	for _, r := range c.rows {
		c.descs = append(c.descs, prometheus.NewDesc(r.Name, r.Text, r.Labels, nil))
	}
	return c
}

// Describe sends the metrics' names [prometheus.Collector].
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect sends the metrics' values [prometheus.Collector].
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.server
	f := &figures{
		ready: s.hub.Ready() == nil, totals: s.hub.Totals(), storage: s.hub.StorageStats(), device: s.device.Stats(), web: s.web.Requests(), webPaced: s.web.Paced(), gate: s.gate.snapshot(),
		certs: s.certs.ends(), troubles: s.certs.troubles(), failures: s.certs.failures(), trouble: s.hub.StoreTrouble(), stalled: s.hub.Stalled(), backups: s.hub.BackupStats(), files: s.hub.FileTotals(), queries: s.hub.QueryStats(), jobs: s.hub.JobStats(), runs: s.hub.RunStats(),
	}
	if s.o.Workers != nil {
		f.workers = s.o.Workers()
	}
	if list, err := s.hub.PatternStats(context.Background()); err == nil { // else the store is about to close
		f.patterns = list
	}
	if a := s.certs.authority.Load(); a != nil {
		f.renewAt = float64(a.renewAt().Unix())
	}
	if list, err := s.hub.WebhookStats(context.Background()); err == nil { // else the store is about to close
		f.webhooks = list
	}
	for i, r := range c.rows {
		kind := prometheus.GaugeValue
		if r.Kind == "counter" {
			kind = prometheus.CounterValue
		}
		r.read(f, func(v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(c.descs[i], kind, v, labels...)
		})
	}
}
