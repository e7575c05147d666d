package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/muster-hub/muster/protocols"
	"github.com/muster-hub/muster/protocols/cli"
)

// The dashboard, the alerts and their page are made from the two tables below
// and the program's table of metrics; `make docs` writes them.

// alert is a rule for Prometheus.
type alert struct {
	name, expr, wait string
	severity         string // critical: somebody gets up; warning: somebody looks in the morning
	summary          string
	next             string
}

func alerts() []alert {
	return []alert{
		{"MusterDown", `up{job="muster"} == 0`, "2m", "critical", "Prometheus does not reach the hub.", "`systemctl status muster`, `journalctl -u muster -e`; is the metrics token the same on both sides?"},
		{"MusterNotReady", `muster_ready == 0`, "2m", "critical", "The hub does not serve devices.", "`/readyz` and `muster doctor` say what is missing."},
		{"MusterStoreTrouble", `muster_store_trouble == 1`, "1m", "critical", "The store does not do everything it should: {{ $labels.reason }}.", "read_only: look at the disk, then restart. damaged: [Recover from damage](../how-to/recover.md). clock: set the system's clock. space: free disk space."},
		{"MusterStoreStalled", `muster_store_stalled_seconds > 5`, "1m", "critical", "Changes wait and none is answered.", "The disk does not return from a sync: look at the kernel's log. The watchdog restarts the hub after 30 to 45 seconds."},
		{"MusterDamage", `muster_store_damaged_tables > 0`, "0m", "critical", "The background scan found damaged tables.", "Copy the data directory before anything else; then [Recover from damage](../how-to/recover.md)."},
		{"MusterRestarts", `changes(process_start_time_seconds{job="muster"}[30m]) > 2`, "0m", "critical", "The hub restarts again and again.", "`journalctl -u muster` has the reason; a bundle helps: `muster doctor --bundle FILE`."},
		{"MusterDiskNearReserve", `muster_store_free_bytes < 2 * muster_store_reserve_bytes`, "5m", "critical", "Soon the hub takes no changes: the disk is nearly full.", "Free disk space, or make the disk larger. Below the reserve only deletes and reads run."},
		{"MusterDiskFills", `predict_linear(muster_store_free_bytes[6h], 86400) < muster_store_reserve_bytes and muster_store_free_bytes > 2 * muster_store_reserve_bytes`, "1h", "warning", "At this pace the disk is full within a day.", "What grows: `muster status`, `du` in the data directory."},
		{"MusterJournalWaits", `rate(muster_store_journal_waits_total[5m]) > 0`, "10m", "warning", "Changes wait for the journal, since the disk does not keep up.", "A faster disk, or less load: `rate(muster_store_commits_total[5m])` shows how much there is."},
		{"MusterChangesDropped", `increase(muster_store_dropped_total[15m]) > 0`, "0m", "warning", "Entries that nobody waits for, such as refusals in the audit, could not be stored.", "The queue was full or the store refused writes: see the other alerts."},
		{"MusterCheckpointOld", `muster_store_checkpoint_age_seconds > 300 and rate(muster_store_commits_total[5m]) > 0`, "5m", "warning", "No checkpoint for five minutes, so that a restart would take long.", "Look at the hub's log and at the disk."},
		{"MusterBackupFailing", `muster_backup_failures_in_a_row > 0`, "5m", "warning", "The last backup failed.", "`muster doctor` says why."},
		{"MusterBackupOld", `muster_backup_scheduled == 1 and time() - muster_backup_last_success_time_seconds > 2 * 86400`, "1h", "critical", "No backup for two days.", "`muster doctor` says why. For another schedule than daily change the bound."},
		{"MusterCertificateEnds", `muster_certificate_end_time_seconds - time() < 7 * 86400`, "1h", "warning", "The certificate {{ $labels.certificate }} ends within a week.", "file: put a new one in place, the hub takes it up. A host's name: ACME fails, look at the hub's log. own: restart the hub."},
		{"MusterCertificateEnded", `muster_certificate_end_time_seconds - time() < 86400`, "0m", "critical", "The certificate {{ $labels.certificate }} ends within a day, and then no client connects.", "As for MusterCertificateEnds."},
		{"MusterCertificateFails", `muster_certificate_failing == 1`, "30m", "warning", "The certificate {{ $labels.certificate }} can't be renewed or read.", "`muster doctor` on the hub's machine says why, and so does the hub's log; the former one stays in use."},
		{"MusterWebhookPaused", `muster_webhook_paused == 1`, "5m", "warning", "The hub paused webhook {{ $labels.webhook }}, because it failed.", "`muster webhook show {{ $labels.webhook }}` says why; `muster webhook enable {{ $labels.webhook }}` goes on."},
		{"MusterWebhookBehind", `muster_webhook_lag_seconds > 300`, "10m", "warning", "Webhook {{ $labels.webhook }} is more than five minutes behind.", "Its receiver is slow or refuses: `muster webhook show {{ $labels.webhook }}`."},
		{"MusterDeadLetters", `increase(muster_webhook_dead_total[1h]) > 0`, "0m", "warning", "Webhook {{ $labels.webhook }} gave events up.", "`muster webhook dead-letters list {{ $labels.webhook }}` shows them; `muster webhook dead-letters retry` posts them again."},
		{"MusterDeadLettersLost", `increase(muster_webhook_dead_dropped_total[1h]) > 0`, "0m", "critical", "Webhook {{ $labels.webhook }} has so many dead letters that the oldest fell out.", "Mend the receiver; `muster webhook replay` goes back to where the gap begins."},
		{"MusterPatternWorkersFail", `rate(muster_run_activations_failed_total[10m]) > 0`, "10m", "critical", "Programs of patterns can't be run, so that runs stand still.", "`muster doctor` says why: most often the system refuses processes or memory."},
		{"MusterPatternWorkersKilled", `sum by (budget) (increase(muster_pattern_worker_kills_total[1h])) > 10`, "0m", "warning", "Programs of patterns go over their budget of {{ $labels.budget }} again and again.", "`muster run list --state failed` shows which; `muster pattern disable NAME` stops one."},
		{"MusterRunsFail", `sum(increase(muster_runs_ended_total{state=~"failed|uncertain"}[1h])) > 10 and sum(increase(muster_runs_ended_total{state=~"failed|uncertain"}[1h])) > 0.2 * sum(increase(muster_runs_ended_total[1h]))`, "10m", "warning", "A fifth of the runs of patterns fail.", "`muster pattern counts` shows which, `muster run list --state failed` where and why."},
		{"MusterCredentialsRefused", `rate(muster_credentials_refused_total[10m]) > 1`, "10m", "warning", "Many connections show wrong credentials.", "`muster audit list` and the hub's log name devices and addresses: a fleet with old keys, or somebody who tries."},
		{"MusterConnectionsRefused", `rate(muster_connects_refused_total[10m]) + rate(muster_strangers_turned_away_total[10m]) > 1`, "10m", "warning", "Many connections are refused or turned away.", "`muster device connections DEVICE` names the reasons for one device, the log those for all."},
		{"MusterDevicesLost", `muster_sessions < 0.7 * max_over_time(muster_sessions[1h] offset 10m) and max_over_time(muster_sessions[1h] offset 10m) > 10`, "10m", "warning", "Three of ten devices are gone, compared with the hour before.", "`sum by (reason) (rate(muster_disconnects_total[10m]))` tells why they left; `muster device connections DEVICE` for one of them."},
		{"MusterAuditLost", `increase(muster_audit_lost_total[1h]) > 0`, "0m", "warning", "Audit entries of refused or method calls were lost.", "A client that is refused again and again, or a store that took no writes."},
		{"MusterFilesNearLimit", `process_open_fds{job="muster"} / process_max_fds{job="muster"} > 0.8`, "10m", "warning", "The hub has four fifths of the files open that it may, and each device needs one.", "Raise LimitNOFILE= in the unit."},
		{"MusterFaultsInForce", `muster_faults > 0`, "1h", "warning", "Somebody disturbs devices on purpose, for more than an hour.", "`muster fault list`."},
	}
}

// panel is a picture of the dashboard.
type panel struct {
	title, unit string
	lines       []curve
	text        string // "" = from the table of metrics
}

// curve is one expression; $i stands for the chosen instance.
type curve struct{ expr, legend string }

type row struct {
	title  string
	panels []panel
}

func dashboard() []row {
	rate := func(metric string) string { return "rate(" + metric + "{$i}[$__rate_interval])" }
	return []row{
		{"State", []panel{
			{"Ready", "bool_yes_no", []curve{{"muster_ready{$i}", "{{instance}}"}}, ""},
			{"Trouble of the store", "short", []curve{{"muster_store_trouble{$i} == 1", "{{reason}}"}}, ""},
			{"Sessions", "short", []curve{{"muster_sessions{$i}", "sessions"}, {"muster_strangers{$i}", "not authenticated"}}, "Devices and modules that are connected, and connections that are not authenticated yet."},
			{"Certificates end in", "s", []curve{{"muster_certificate_end_time_seconds{$i} - time()", "{{certificate}}"}}, "The time that each certificate has left."},
		}},
		{"Work", []panel{
			{"Messages", "ops", []curve{{rate("muster_messages_total"), "device to cloud"}, {rate("muster_devicebound_sent_total"), "cloud to device, taken"}, {rate("muster_devicebound_completed_total"), "completed"}, {rate("muster_devicebound_dead_total"), "dead"}}, "Messages a second, in both directions."},
			{"Twins", "ops", []curve{{rate("muster_reported_updates_total"), "reported"}, {rate("muster_desired_updates_total"), "desired"}, {rate("muster_twin_reads_total"), "read"}}, "Updates and reads of twins a second."},
			{"Direct methods", "ops", []curve{{rate("muster_methods_total"), "called"}, {rate("muster_methods_failed_total"), "no answer"}, {rate("muster_methods_queued_total"), "queued"}, {rate("muster_methods_expired_total"), "expired"}}, "Direct methods a second."},
			{"Bytes of messages", "Bps", []curve{{rate("muster_message_bytes_total"), "device to cloud"}}, ""},
		}},
		{"Connections", []panel{
			{"Connects and disconnects", "ops", []curve{{rate("muster_connects_total"), "connects"}, {"sum by (reason) (" + rate("muster_disconnects_total") + ")", "{{reason}}"}}, "Sessions begun, and connections ended by reason."},
			{"Refused", "ops", []curve{{rate("muster_connects_refused_total"), "by the hub"}, {rate("muster_credentials_refused_total"), "wrong credentials"}, {rate("muster_strangers_turned_away_total"), "no room"}, {rate("muster_strangers_expired_total"), "too slow"}, {rate("muster_strangers_evicted_total"), "made room"}}, "Connections that were not let in, by why."},
			{"Paced", "ops", []curve{{rate("muster_connections_paced_total"), "connections"}, {rate("muster_device_paced_total"), "messages"}, {"muster_addresses_backing_off{$i}", "addresses that back off"}}, "What was slowed: connections of busy addresses, and devices that send too much."},
			{"TLS handshakes", "ops", []curve{{rate("muster_handshakes_total"), "handshakes"}, {"muster_strangers_waiting{$i}", "waiting"}}, "TLS handshakes a second, and connections that wait for room."},
		}},
		{"Store", []panel{
			{"Commits and syncs", "ops", []curve{{rate("muster_store_commits_total"), "commits"}, {rate("muster_store_syncs_total"), "syncs"}, {rate("muster_store_conflicts_total"), "conflicts"}, {rate("muster_store_message_syncs_total"), "message syncs"}}, "Transactions, and the syncs that many of them share."},
			{"Waiting", "short", []curve{{"muster_store_queue{$i}", "transactions"}, {"muster_store_message_queue{$i}", "messages"}, {"muster_store_unsettled{$i}", "not settled"}, {rate("muster_store_journal_waits_total"), "waits for the journal"}}, "What waits in the store."},
			{"Longest wait", "s", []curve{{"muster_store_stalled_seconds{$i}", "stalled"}, {"muster_store_checkpoint_age_seconds{$i}", "age of the checkpoint"}, {"muster_store_checkpoint_seconds{$i}", "length of the checkpoint"}}, "Stalled is over 0 for long when the disk hangs."},
			{"Disk", "bytes", []curve{{"muster_store_free_bytes{$i}", "free"}, {"muster_store_reserve_bytes{$i}", "reserve"}, {"muster_store_disk_bytes{$i}", "tables"}, {"muster_store_message_bytes{$i}", "messages"}}, "Free space and what the hub keeps. Below the reserve changes are refused."},
		}},
		{"Webhooks and backups", []panel{
			{"Delivered and failed", "ops", []curve{{"sum by (webhook) (" + rate("muster_webhook_delivered_total") + ")", "{{webhook}}"}, {"sum by (webhook) (" + rate("muster_webhook_failed_total") + ")", "{{webhook}} failed"}}, "Events that webhooks took, and requests that failed."},
			{"Behind", "s", []curve{{"muster_webhook_lag_seconds{$i}", "{{webhook}}"}}, ""},
			{"Dead letters", "short", []curve{{"muster_webhook_dead_letters{$i}", "{{webhook}}"}}, ""},
			{"Age of the newest backup", "s", []curve{{"time() - (muster_backup_last_success_time_seconds{$i} > 0)", "age"}, {"muster_backup_last_duration_seconds{$i}", "took"}}, "How old the newest backup by schedule is, and how long it took."},
		}},
		{"Patterns", []panel{
			{"Runs", "short", []curve{{"muster_runs{$i}", "{{state}}"}}, ""},
			{"Runs that ended", "ops", []curve{{"sum by (state) (" + rate("muster_runs_ended_total") + ")", "{{state}}"}}, "Runs that ended a second, by how they did."},
			{"Activations", "ops", []curve{{rate("muster_run_activations_total"), "activations"}, {rate("muster_run_steps_total"), "steps"}, {rate("muster_run_activations_failed_total"), "failed"}}, "Activations and steps of runs a second."},
			{"Workers", "short", []curve{{"muster_pattern_workers{$i}", "processes"}, {"muster_pattern_workers_busy{$i}", "busy"}, {"muster_pattern_workers_wanted{$i}", "activations that wait"}, {rate("muster_pattern_worker_starts_total"), "starts a second"}, {"sum by (budget) (" + rate("muster_pattern_worker_kills_total") + ")", "killed for {{budget}}"}}, "The processes that run patterns."},
			{"Time by pattern", "percentunit", []curve{{"sum by (pattern) (" + rate("muster_pattern_seconds_total") + ")", "{{pattern}}"}}, "Processors that each pattern uses in workers."},
			{"Slowest activation", "s", []curve{{"max by (pattern) (muster_pattern_slowest_seconds{$i})", "{{pattern}}"}}, "The slowest activation of each pattern since the hub's start."},
			{"Runs by pattern", "short", []curve{{"sum by (pattern) (muster_pattern_runs{$i})", "{{pattern}}"}}, "Runs that have not ended, by pattern."},
		}},
		{"Process", []panel{
			{"Processor", "percentunit", []curve{{rate("process_cpu_seconds_total"), "processors"}}, "Processors that the hub uses."},
			{"Memory", "bytes", []curve{{"process_resident_memory_bytes{$i}", "resident"}, {"go_memstats_heap_inuse_bytes{$i}", "heap"}}, "Memory of the process."},
			{"Goroutines", "short", []curve{{"go_goroutines{$i}", "goroutines"}}, "Goroutines, about one a device and some."},
			{"Open files", "short", []curve{{"process_open_fds{$i}", "open"}, {"process_max_fds{$i}", "limit"}}, "Each device needs one."},
		}},
	}
}

// --- files -------------------------------------------------------------------

func alertRules() string {
	var b strings.Builder
	b.WriteString("# Alert rules for Prometheus, for a job that is called muster.\n# Made by `make docs` from the table in monitoring_test.go; a test compares them.\ngroups:\n  - name: muster\n    rules:\n")
	for _, a := range alerts() {
		fmt.Fprintf(&b, "      - alert: %s\n        expr: %s\n        for: %s\n        labels:\n          severity: %s\n        annotations:\n          summary: %s\n          next: %s\n",
			a.name, quoteYAML(a.expr), a.wait, a.severity, quoteYAML(a.summary), quoteYAML(plainText(a.next)))
	}
	return b.String()
}

func quoteYAML(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// plainText takes the links out of Markdown: an alert is read elsewhere.
func plainText(s string) string {
	return regexp.MustCompile(`\[([^\]]*)\]\([^)]*/([a-z-]+)\.md\)`).ReplaceAllString(s, "$1 (docs/how-to/$2.md)")
}

func alertsPage() string {
	var b strings.Builder
	b.WriteString("# Alerts\n\nThe rules of `packaging/monitoring/muster-alerts.yaml`, in the order of what hurts most. *critical* is for somebody to get up, *warning* for somebody to look in the morning. [Monitoring](../how-to/monitoring.md) says how to install them.\n\n| Alert | When | For | Severity | What it means | Next step |\n|---|---|---|---|---|---|\n")
	for _, a := range alerts() {
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s | %s | %s |\n", a.name, cell(a.expr), a.wait, a.severity, cell(a.summary), cell(a.next))
	}
	return b.String()
}

const instance = `instance=~"$instance"`

func dashboardJSON(t *testing.T) string {
	t.Helper()
	type object = map[string]any
	source := object{"type": "prometheus", "uid": "${datasource}"}
	texts := map[string]string{}
	for _, m := range protocols.Metrics() {
		texts[m.Name] = m.Text
	}
	var panels []object
	id, y := 0, 0
	for _, r := range dashboard() {
		id++
		panels = append(panels, object{"id": id, "type": "row", "title": r.title, "collapsed": false, "gridPos": object{"h": 1, "w": 24, "x": 0, "y": y}, "panels": []object{}})
		y++
		for i, p := range r.panels {
			id++
			var targets []object
			for n, c := range p.lines {
				targets = append(targets, object{"refId": string(rune('A' + n)), "datasource": source, "expr": strings.ReplaceAll(c.expr, "$i", instance), "legendFormat": c.legend})
			}
			text := p.text
			if text == "" {
				text = texts[names(p.lines[0].expr)[0]]
			}
			panels = append(panels, object{
				"id": id, "type": "timeseries", "title": p.title, "description": text, "datasource": source, "targets": targets,
				"gridPos":     object{"h": 8, "w": 6, "x": 6 * (i % 4), "y": y + 8*(i/4)},
				"fieldConfig": object{"defaults": object{"unit": p.unit, "min": 0}, "overrides": []object{}},
				"options":     object{"legend": object{"displayMode": "list", "placement": "bottom"}, "tooltip": object{"mode": "multi"}},
			})
		}
		y += 8 * ((len(r.panels) + 3) / 4)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(object{
		"title": "Muster", "uid": "muster-hub", "schemaVersion": 39, "version": 1, "editable": true, "refresh": "30s", "tags": []string{"muster"},
		"description": "A device hub. Made by make docs from the table in monitoring_test.go.",
		"time":        object{"from": "now-6h", "to": "now"},
		"templating": object{"list": []object{
			{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
			{"name": "instance", "label": "Hub", "type": "query", "datasource": source, "query": "label_values(muster_ready, instance)", "refresh": 2, "includeAll": true, "multi": true, "allValue": ".*"},
		}},
		"panels": panels,
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// --- tests -----------------------------------------------------------------------

// TestMonitoring compares the files with the tables they are made of.
func TestMonitoring(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		filepath.Join("packaging", "monitoring", "muster-alerts.yaml"):    alertRules(),
		filepath.Join("packaging", "monitoring", "muster-dashboard.json"): dashboardJSON(t),
		filepath.Join("docs", "reference", "alerts.md"):                   generatedNote + alertsPage(),
	} {
		if *update {
			if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		} else if string(got) != want {
			t.Errorf("%s is not what the tables say now; run `make docs`\n%s", file, firstDifference(string(got), want))
		}
	}
}

// names returns the metrics of an expression: the words that are not called,
// not labels and not words of the language.
func names(expr string) []string {
	s := regexp.MustCompile(`"[^"]*"`).ReplaceAllString(expr, "")
	s = regexp.MustCompile(`\{[^}]*\}|\[[^\]]*\]|\b(by|without|on|ignoring)\s*\([^)]*\)|\boffset\s+\w+`).ReplaceAllString(s, " ")
	var list []string
	for _, m := range regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)(\s*\()?`).FindAllStringSubmatch(s, -1) {
		if m[2] == "" && !slices.Contains([]string{"and", "or", "unless", "bool", "sum", "max", "min"}, m[1]) {
			list = append(list, m[1])
		}
	}
	return list
}

// knownMetrics are those that a scrape of a hub holds.
func knownMetrics(t *testing.T) map[string]bool {
	t.Helper()
	known := map[string]bool{"up": true} // Prometheus' own
	for _, m := range protocols.Metrics() {
		known[m.Name] = true
		if m.Kind == "histogram" {
			known[m.Name+"_bucket"], known[m.Name+"_sum"], known[m.Name+"_count"] = true, true, true
		}
	}
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		known[f.GetName()] = true
	}
	return known
}

// Each expression names only metrics that exist, and labels that they have.
func TestMonitoringNames(t *testing.T) {
	t.Parallel()
	if got := names(`sum by (reason) (rate(a_total{job="x", y!="z"}[5m] offset 1h)) / 2 > b and time() - c < 1e3 or d_1 == 1`); !slices.Equal(got, []string{"a_total", "b", "c", "d_1"}) && !slices.Equal(got, []string{"a_total", "b", "c", "e3", "d_1"}) {
		t.Fatalf("got %q", got)
	}
	known := knownMetrics(t)
	labels := map[string][]string{}
	for _, m := range protocols.Metrics() {
		labels[m.Name] = m.Labels
	}
	check := func(where, expr string, used []string) {
		t.Helper()
		list := names(expr)
		if len(list) == 0 {
			t.Errorf("%s: %s names no metric", where, expr)
		}
		var has []string
		for _, n := range list {
			if !known[n] {
				t.Errorf("%s: there is no metric %s", where, n)
			}
			has = append(has, labels[n]...)
		}
		for _, l := range used {
			if l != "instance" && !slices.Contains(has, l) {
				t.Errorf("%s: %s has no label %s", where, expr, l)
			}
		}
		if strings.Count(expr, "(") != strings.Count(expr, ")") {
			t.Errorf("%s: %s has a parenthesis too many or few", where, expr)
		}
	}
	words := func(pattern, s string) (list []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(s, -1) {
			list = append(list, m[1])
		}
		return list
	}
	reference, err := cli.Reference()
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for _, a := range alerts() {
		for _, command := range words("X", a.next) {
			if !strings.Contains(reference, command+"\n") && !strings.Contains(reference, command+"`") {
				t.Errorf("%s: there is no command %q", a.name, command)
			}
		}
		check(a.name, a.expr, words(`\$labels\.(\w+)`, a.summary+a.next))
		if slices.Contains(seen, a.name) || a.severity != "critical" && a.severity != "warning" || a.next == "" || !strings.HasSuffix(a.summary, ".") {
			t.Errorf("%s is there twice, or lacks something", a.name)
		}
		seen = append(seen, a.name)
	}
	for _, r := range dashboard() {
		for _, p := range r.panels {
			for _, c := range p.lines {
				check(r.title+"/"+p.title, c.expr, append(words(`\{\{(\w+)\}\}`, c.legend), words(`by \((\w+)\)`, c.expr)...))
				if !strings.Contains(c.expr, "{$i}") {
					t.Errorf("%s: %s is not of the chosen instance", p.title, c.expr)
				}
			}
		}
	}
}
