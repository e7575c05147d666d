package engine

import (
	"time"

	"github.com/muster-hub/muster/engine/twin"
)

// Profile names a column of the limits table.
type Profile string

// The two profiles: ProfileAzure has IoT Hub's quotas and throttles,
// ProfileDefault keeps the structural rules and lifts the rest.
const (
	ProfileDefault Profile = "default"
	ProfileAzure   Profile = "azure"
)

// Limits bounds what a client can ask of the hub. Sizes are bytes; a rate of
// zero means no throttle.
type Limits struct {
	Profile Profile

	TagsBytes       int
	DesiredBytes    int
	ReportedBytes   int
	TwinDepth       int
	TwinKeyBytes    int
	TwinStringBytes int
	IntegerMin      int64
	IntegerMax      int64

	IdentityIDBytes   int
	ModulesPerDevice  int
	EdgeLayers        int
	BulkIdentities    int
	ListIdentities    int
	StatusReasonBytes int

	MessageBytes       int
	EventStreams       int           // open at once
	EventStreamsEach   int           // of one principal
	MessageAge         time.Duration // how long telemetry is kept, within its size
	DeviceboundBytes   int
	MessagesWaiting    int // cloud-to-device, per device
	MessageDeliveries  int // abandons before a message is given up
	MessageTTLMax      time.Duration
	MethodPayloadBytes int
	MethodNameBytes    int
	MethodsInFlight    int // per device or module
	MethodsWaiting     int // in the whole hub
	QueuedPerDevice    int // queued calls that wait, per device or module
	QueuedInHub        int
	QueuedFinished     int // finished calls that are kept, per device or module
	QueuedWaitMin      time.Duration
	QueuedWaitMax      time.Duration
	ResponseTimeoutMin time.Duration
	ResponseTimeoutMax time.Duration
	ConnectTimeoutMax  time.Duration

	FileNameBytes    int
	FileBytes        int64 // one file
	FileDeviceBytes  int64 // all of one device
	FilesPerDevice   int
	FileShareBytes   int64 // all of the hub, unless a tenth of the disk is less
	FileAge          time.Duration
	UploadsPerDevice int // under way
	UploadBlocks     int
	UploadTime       time.Duration // from its beginning to its notification
	UploadRate       float64

	Containers         int           // of blobs, in the whole hub
	ContainerBlobs     int           // of one container
	ContainerBlocks    int           // of one container, waiting to be joined
	ContainerBlobBytes int64         // one blob
	ContainerShare     int64         // bytes of all containers, unless a tenth of the disk is less
	ContainerAge       time.Duration // since something in it was changed
	IdentityJobs       int           // ended imports and exports that are kept
	IdentityJobsOpen   int           // that have not ended
	ImportLineBytes    int
	ImportLogBytes     int // of importErrors.log

	KeepAliveMax     time.Duration // largest idle time of a session
	TokenClockSkew   time.Duration
	TokenExpiryGrace time.Duration // how long a session outlives its token

	Webhooks            int
	WebhookURLBytes     int
	WebhookHeaderBytes  int           // of own headers, names and values
	WebhookBodyBytes    int           // of a batch
	WebhookBatch        int           // events in a batch
	WebhookPosts        int           // under way, of one webhook
	WebhookTimeout      time.Duration // of one request
	WebhookAttempts     int           // of an event
	WebhookDead         int           // dead letters of one webhook
	WebhookDeadBytes    int           // of their events
	WebhookRefusalsMost int           // events given up in a row before it is paused
	WebhookFailingMost  time.Duration // without one success before it is paused

	QueryPage       int           // rows of a page; IoT Hub's path gives 100
	QueryPageBytes  int           // of twins on a page, about
	LiveQueries     int           // distinct ones that are followed
	LiveStreams     int           // open at once
	LiveStreamsEach int           // of one principal
	QueryDocuments  int           // that one page of a result may load, for what columns don't hold
	QueryTime       time.Duration // of one page
	QueryMemory     int64         // of one page, for bitmaps, groups and sorted rows
	QuerySorted     int           // rows of a result with ORDER BY
	QuerySlow       time.Duration // from then on a query is logged

	SavedQueries       int
	SavedQueryBytes    int // of the text of one
	SavedQueryVersions int // that are kept of one
	SchemaBytes        int // a declared schema of one section

	JobsActive      int           // not ended, in the whole hub
	JobTargets      int           // of one job
	JobNamedTargets int           // listed one by one in a job
	JobsInFlight    int           // executions that wait for devices at once, in the whole hub
	JobStartAhead   time.Duration // from now to the start of a job
	JobAge          time.Duration // how long an ended job is kept
	JobTemplates    int
	JobBytes        int     // of a job as it is sent
	JobDeviceRate   float64 // executions started, in the whole hub
	JobRate         float64

	RunsActive        int           // not ended, in the whole hub
	RunsPerDevice     int           // that wait for one device
	RunsKept          int           // ended ones
	RunAge            time.Duration // how long an ended run is kept
	Configurations    int
	ConfigMetrics     int // custom metrics of one configuration
	ConfigBytes       int // of a configuration as it is sent
	ConfigsBytes      int // of all configurations together
	ConfigRevisions   int // kept of one configuration
	ConfigurationRate float64

	Patterns            int // names of installed patterns
	PatternVersions     int // installed of one name
	PatternsBytes       int // files of all of them
	PatternKeys         int // whose signatures are trusted
	PatternSecrets      int
	PatternSecretBytes  int     // one of them
	PatternTriggerRate  float64 // runs that triggers start, in the whole hub
	PatternTriggerBurst int     // of them at once

	RegistryRate   float64 // registry operations a second, whole hub
	TwinReadRate   float64
	TwinUpdateRate float64
	ConnectRate    float64 // new sessions a second, whole hub
	MethodRate     float64
	QueryRate      float64

	DeviceMessageRate  float64 // messages a second of one session before it is slowed
	DeviceByteRate     float64 // bytes a second of one session before it is slowed
	HistoryDesired     int     // kept entries per identity: tags, desired properties, identity
	HistoryReported    int
	HistoryDesiredAge  time.Duration
	HistoryReportedAge time.Duration
}

// LimitsFor returns a profile's limits.
func LimitsFor(p Profile) (Limits, error) {
	l := Limits{Profile: p}
	switch p {
	case ProfileDefault, ProfileAzure:
	default:
		return l, errf(CodeArgumentInvalid, "limits profile %q is not known, expected %q or %q", p, ProfileDefault, ProfileAzure)
	}
	for _, row := range limitTable {
		row.set(&l, p == ProfileAzure)
	}
	return l, nil
}

// twinLimits returns the rules for one section of a twin.
func (l *Limits) twinLimits(k twin.Kind) twin.Limits {
	t := twin.Limits{
		MaxDepth: l.TwinDepth, MaxKeyBytes: l.TwinKeyBytes, MaxStringBytes: l.TwinStringBytes,
		MinInteger: l.IntegerMin, MaxInteger: l.IntegerMax,
	}
	switch k {
	case twin.Tags:
		t.MaxBytes = l.TagsBytes
	case twin.Desired:
		t.MaxBytes = l.DesiredBytes
	case twin.Reported:
		t.MaxBytes = l.ReportedBytes
	}
	return t
}

// history returns how many entries of a section are kept, and for how long.
func (l *Limits) history(s historyNumber) (entries uint64, age time.Duration) {
	if s == historyReported {
		return uint64(l.HistoryReported), l.HistoryReportedAge
	}
	return uint64(l.HistoryDesired), l.HistoryDesiredAge
}

// LimitRow is a row of the limits table, as the documentation shows it.
type LimitRow struct {
	Name    string // stable, snake_case
	Text    string
	Unit    string // "bytes", "s", "1/s", "" for a plain count
	Default float64
	Azure   float64

	set func(l *Limits, azure bool)
}

// LimitTable returns every limit with its value in both profiles.
func LimitTable() []LimitRow { return limitTable[:] }

const (
	kib = 1 << 10
)

func count(name, text, unit string, def, azure int, field func(*Limits) *int) LimitRow {
	return LimitRow{name, text, unit, float64(def), float64(azure), func(l *Limits, a bool) { *field(l) = pick(a, def, azure) }}
}

func count64(name, text string, def, azure int64, field func(*Limits) *int64) LimitRow {
	return LimitRow{name, text, "", float64(def), float64(azure), func(l *Limits, a bool) { *field(l) = pick(a, def, azure) }}
}

func bytes64(name, text string, def, azure int64, field func(*Limits) *int64) LimitRow {
	r := count64(name, text, def, azure, field)
	r.Unit = "bytes"
	return r
}

func span(name, text string, def, azure time.Duration, field func(*Limits) *time.Duration) LimitRow {
	return LimitRow{name, text, "s", def.Seconds(), azure.Seconds(), func(l *Limits, a bool) { *field(l) = pick(a, def, azure) }}
}

func perSecond(name, text string, def, azure float64, field func(*Limits) *float64) LimitRow {
	return LimitRow{name, text, "1/s", def, azure, func(l *Limits, a bool) { *field(l) = pick(a, def, azure) }}
}

func pick[T any](azure bool, d, a T) T {
	if azure {
		return a
	}
	return d
}

// limitTable is the one place where limits and their defaults stand.
var limitTable = [...]LimitRow{
	count("tags_bytes", "Size of a twin's tags, by IoT Hub's formula.", "bytes", 256*kib, 8*kib, func(l *Limits) *int { return &l.TagsBytes }),
	count("desired_bytes", "Size of a twin's desired properties.", "bytes", 256*kib, 32*kib, func(l *Limits) *int { return &l.DesiredBytes }),
	count("reported_bytes", "Size of a twin's reported properties.", "bytes", 256*kib, 32*kib, func(l *Limits) *int { return &l.ReportedBytes }),
	count("twin_depth", "Nesting of objects and arrays below a section.", "", 10, 10, func(l *Limits) *int { return &l.TwinDepth }),
	count("twin_key_bytes", "Length of a property name, UTF-8.", "bytes", 1024, 1024, func(l *Limits) *int { return &l.TwinKeyBytes }),
	count("twin_string_bytes", "Length of a string value, UTF-8.", "bytes", 4096, 4096, func(l *Limits) *int { return &l.TwinStringBytes }),
	count64("integer_min", "Smallest integer in a twin.", -1<<52, -1<<52, func(l *Limits) *int64 { return &l.IntegerMin }),
	count64("integer_max", "Largest integer in a twin.", 1<<52-1, 1<<52-1, func(l *Limits) *int64 { return &l.IntegerMax }),

	count("identity_id_bytes", "Length of a device id or module id.", "bytes", 128, 128, func(l *Limits) *int { return &l.IdentityIDBytes }),
	count("modules_per_device", "Module identities on one device.", "", 50, 50, func(l *Limits) *int { return &l.ModulesPerDevice }),
	count("edge_layers", "Layers of edge devices below one that has no parent.", "", 5, 5, func(l *Limits) *int { return &l.EdgeLayers }),
	count("bulk_identities", "Identities in one bulk request.", "", 100, 100, func(l *Limits) *int { return &l.BulkIdentities }),
	count("list_identities", "Identities in one answer to a list.", "", 1000, 1000, func(l *Limits) *int { return &l.ListIdentities }),
	count("status_reason_bytes", "Length of a statusReason.", "bytes", 128, 128, func(l *Limits) *int { return &l.StatusReasonBytes }),

	count("message_bytes", "Size of a device-to-cloud message: body and properties.", "bytes", 256*kib, 256*kib, func(l *Limits) *int { return &l.MessageBytes }),
	span("message_age", "Age of stored device-to-cloud messages; they also stay within the smaller of 2 GiB and a tenth of the disk.", 24*time.Hour, 24*time.Hour, func(l *Limits) *time.Duration { return &l.MessageAge }),
	count("devicebound_bytes", "Size of a cloud-to-device message: body and properties.", "bytes", 64*kib, 64*kib, func(l *Limits) *int { return &l.DeviceboundBytes }),
	count("devicebound_waiting", "Cloud-to-device messages that wait for one device.", "", 50, 50, func(l *Limits) *int { return &l.MessagesWaiting }),
	count("devicebound_deliveries", "How often a device may abandon a cloud-to-device message before it is given up.", "", 10, 10, func(l *Limits) *int { return &l.MessageDeliveries }),
	span("devicebound_ttl_max", "Longest time to live of a cloud-to-device message; without one it lives an hour.", 48*time.Hour, 48*time.Hour, func(l *Limits) *time.Duration { return &l.MessageTTLMax }),
	count("event_streams", "Streams of events that are open at once.", "", 2000, 2000, func(l *Limits) *int { return &l.EventStreams }),
	count("event_streams_per_principal", "Streams of events that one principal, such as a shared access policy, has open at once.", "", 1000, 1000, func(l *Limits) *int { return &l.EventStreamsEach }),
	count("method_payload_bytes", "Size of a direct method's payload, each way.", "bytes", 128*kib, 128*kib, func(l *Limits) *int { return &l.MethodPayloadBytes }),
	count("method_name_bytes", "Length of a direct method's name.", "bytes", 100, 100, func(l *Limits) *int { return &l.MethodNameBytes }),
	count("methods_in_flight", "Direct method calls that wait for one device or module.", "", 64, 64, func(l *Limits) *int { return &l.MethodsInFlight }),
	count("methods_waiting", "Direct method calls that wait in the whole hub.", "", 10000, 10000, func(l *Limits) *int { return &l.MethodsWaiting }),
	count("queued_methods_per_device", "Queued method calls that wait for one device or module.", "", 100, 100, func(l *Limits) *int { return &l.QueuedPerDevice }),
	count("queued_methods_in_hub", "Queued method calls that wait in the whole hub.", "", 50_000, 50_000, func(l *Limits) *int { return &l.QueuedInHub }),
	count("queued_methods_finished", "Finished queued calls that are kept for one device or module, for 7 days at most.", "", 100, 100, func(l *Limits) *int { return &l.QueuedFinished }),
	span("queued_method_wait_min", "Shortest wait of a queued method call for its device.", time.Minute, time.Minute, func(l *Limits) *time.Duration { return &l.QueuedWaitMin }),
	span("queued_method_wait_max", "Longest wait of a queued method call for its device.", 30*24*time.Hour, 30*24*time.Hour, func(l *Limits) *time.Duration { return &l.QueuedWaitMax }),
	span("response_timeout_min", "Shortest responseTimeoutInSeconds.", 5*time.Second, 5*time.Second, func(l *Limits) *time.Duration { return &l.ResponseTimeoutMin }),
	span("response_timeout_max", "Longest responseTimeoutInSeconds.", 300*time.Second, 300*time.Second, func(l *Limits) *time.Duration { return &l.ResponseTimeoutMax }),
	span("connect_timeout_max", "Longest connectTimeoutInSeconds.", 300*time.Second, 300*time.Second, func(l *Limits) *time.Duration { return &l.ConnectTimeoutMax }),

	count("webhooks", "Webhooks of the hub.", "", 100, 100, func(l *Limits) *int { return &l.Webhooks }),
	count("webhook_url_bytes", "Length of a webhook's URL.", "bytes", 2048, 2048, func(l *Limits) *int { return &l.WebhookURLBytes }),
	count("webhook_header_bytes", "Size of a webhook's own headers, at most ten: names and values.", "bytes", 4*kib, 4*kib, func(l *Limits) *int { return &l.WebhookHeaderBytes }),
	count("webhook_body_bytes", "Size of a batch to a webhook; a larger event goes alone.", "bytes", 1024*kib, 1024*kib, func(l *Limits) *int { return &l.WebhookBodyBytes }),
	count("webhook_batch", "Events in a batch to a webhook.", "", 100, 100, func(l *Limits) *int { return &l.WebhookBatch }),
	count("webhook_posts", "Requests to one webhook that are under way at once.", "", 8, 8, func(l *Limits) *int { return &l.WebhookPosts }),
	span("webhook_timeout", "How long a webhook may take to answer.", 15*time.Second, 15*time.Second, func(l *Limits) *time.Duration { return &l.WebhookTimeout }),
	count("webhook_attempts", "How often an event is posted to a webhook that takes others before it is a dead letter.", "", 8, 8, func(l *Limits) *int { return &l.WebhookAttempts }),
	count("webhook_dead_letters", "Dead letters of one webhook; then the oldest is dropped, and counted.", "", 1000, 1000, func(l *Limits) *int { return &l.WebhookDead }),
	count("webhook_dead_bytes", "Size of a webhook's dead letters; then the oldest is dropped, and counted.", "bytes", 64<<20, 64<<20, func(l *Limits) *int { return &l.WebhookDeadBytes }),
	count("webhook_dead_in_a_row", "Events that become dead letters in a row, without one that is taken, before the hub pauses the webhook.", "", 100, 100, func(l *Limits) *int { return &l.WebhookRefusalsMost }),
	span("webhook_failing_time", "How long a webhook may fail without one success before the hub pauses it.", 3*24*time.Hour, 3*24*time.Hour, func(l *Limits) *time.Duration { return &l.WebhookFailingMost }),

	count("file_name_bytes", "Length of a file's name, UTF-8.", "bytes", 1024, 1024, func(l *Limits) *int { return &l.FileNameBytes }),
	bytes64("file_bytes", "Size of a file that a device uploads.", 1<<30, 1<<30, func(l *Limits) *int64 { return &l.FileBytes }),
	bytes64("file_device_bytes", "Size of all files of one device, and of its unfinished uploads, each; at most half of all files' share. Its oldest files are removed beyond it, and uploads refused.", 2<<30, 2<<30, func(l *Limits) *int64 { return &l.FileDeviceBytes }),
	count("files_per_device", "Files of one device; then its oldest is removed.", "", 1000, 1000, func(l *Limits) *int { return &l.FilesPerDevice }),
	bytes64("file_share_bytes", "Size of all files, and of all unfinished uploads, each; at most a tenth of the disk. The oldest files are removed beyond it, and uploads refused.", 10<<30, 10<<30, func(l *Limits) *int64 { return &l.FileShareBytes }),
	span("file_age", "Age of an uploaded file; then it is removed.", 30*24*time.Hour, 30*24*time.Hour, func(l *Limits) *time.Duration { return &l.FileAge }),
	count("uploads_per_device", "Uploads of one device that are under way.", "", 10, 10, func(l *Limits) *int { return &l.UploadsPerDevice }),
	count("upload_blocks", "Blocks of an upload.", "", 1000, 1000, func(l *Limits) *int { return &l.UploadBlocks }),
	count("containers", "Containers of blobs, for imports and exports.", "", 1000, 1000, func(l *Limits) *int { return &l.Containers }),
	count("container_blobs", "Blobs of one container.", "", 1000, 1000, func(l *Limits) *int { return &l.ContainerBlobs }),
	count("container_blocks", "Blocks of one container that wait to be joined.", "", 10_000, 10_000, func(l *Limits) *int { return &l.ContainerBlocks }),
	bytes64("container_blob_bytes", "Size of a blob of a container.", 5<<30, 5<<30, func(l *Limits) *int64 { return &l.ContainerBlobBytes }),
	bytes64("container_share_bytes", "Size of all blobs of all containers, blocks that wait to be joined included; at most a tenth of the disk.", 10<<30, 10<<30, func(l *Limits) *int64 { return &l.ContainerShare }),
	span("container_age", "How long a container is kept after something in it was changed.", 7*24*time.Hour, 7*24*time.Hour, func(l *Limits) *time.Duration { return &l.ContainerAge }),
	count("identity_jobs", "Ended imports and exports that are kept, for job_age at most.", "", 1000, 1000, func(l *Limits) *int { return &l.IdentityJobs }),
	count("identity_jobs_open", "Imports and exports that have not ended; one of them runs at a time.", "", 100, 1, func(l *Limits) *int { return &l.IdentityJobsOpen }),
	count("import_line_bytes", "Length of a line of an import.", "bytes", 4096*kib, 4096*kib, func(l *Limits) *int { return &l.ImportLineBytes }),
	count("import_log_bytes", "Size of an import's importErrors.log; then it says that it was cut.", "bytes", 16<<20, 16<<20, func(l *Limits) *int { return &l.ImportLogBytes }),
	span("upload_time", "How long an upload may take from its beginning to its notification.", time.Hour, time.Hour, func(l *Limits) *time.Duration { return &l.UploadTime }),
	perSecond("upload_rate", "Uploads of the whole hub begun.", 0, 5000.0/60, func(l *Limits) *float64 { return &l.UploadRate }),

	span("keep_alive_max", "Longest silence of a session, whatever keep-alive it asked for.", 1767*time.Second, 1767*time.Second, func(l *Limits) *time.Duration { return &l.KeepAliveMax }),
	span("token_clock_skew", "How far past its expiry a token still authenticates.", 0, 0, func(l *Limits) *time.Duration { return &l.TokenClockSkew }),
	span("token_expiry_grace", "How long a session outlives its token.", 10*time.Second, 10*time.Second, func(l *Limits) *time.Duration { return &l.TokenExpiryGrace }),

	count("query_page", "Rows of a page of a query's result; IoT Hub's path gives 100.", "", 1000, 1000, func(l *Limits) *int { return &l.QueryPage }),
	count("live_queries", "Distinct queries whose results are followed at once, of devices and of modules each.", "", 500, 500, func(l *Limits) *int { return &l.LiveQueries }),
	count("live_query_streams", "Streams of live queries that are open at once.", "", 5000, 5000, func(l *Limits) *int { return &l.LiveStreams }),
	count("live_query_streams_per_principal", "Streams of live queries that one principal, such as a shared access policy, has open at once.", "", 2500, 2500, func(l *Limits) *int { return &l.LiveStreamsEach }),
	count("query_page_bytes", "Size of the twins on a page, about; then the page ends early, and the next one goes on.", "bytes", 4<<20, 4<<20, func(l *Limits) *int { return &l.QueryPageBytes }),
	count("query_documents", "Documents that a page of a query's result may load, for what columns don't hold.", "", 2_000_000, 2_000_000, func(l *Limits) *int { return &l.QueryDocuments }),
	span("query_time", "How long a page of a query's result may take.", 30*time.Second, 30*time.Second, func(l *Limits) *time.Duration { return &l.QueryTime }),
	bytes64("query_memory", "Memory of a page of a query's result: bitmaps, groups, sorted rows.", 128<<20, 128<<20, func(l *Limits) *int64 { return &l.QueryMemory }),
	count("query_sorted", "Rows of a result that ORDER BY sorts.", "", 100_000, 100_000, func(l *Limits) *int { return &l.QuerySorted }),
	span("query_slow", "From when on a query is written to the log as slow.", time.Second, time.Second, func(l *Limits) *time.Duration { return &l.QuerySlow }),
	perSecond("query_rate", "Queries of the whole hub, a page each.", 0, 1000.0/60, func(l *Limits) *float64 { return &l.QueryRate }),
	count("saved_queries", "Saved queries.", "", 1000, 1000, func(l *Limits) *int { return &l.SavedQueries }),
	count("saved_query_bytes", "Length of a saved query, UTF-8.", "bytes", 8*kib, 8*kib, func(l *Limits) *int { return &l.SavedQueryBytes }),
	count("saved_query_versions", "Versions that are kept of a saved query.", "", 100, 100, func(l *Limits) *int { return &l.SavedQueryVersions }),
	count("schema_bytes", "Size of the declared schema of tags, desired or reported properties, each.", "bytes", 64*kib, 64*kib, func(l *Limits) *int { return &l.SchemaBytes }),

	count("jobs_active", "Jobs that have not ended, in the whole hub; the azure column is one S3 unit.", "", 10_000, 10, func(l *Limits) *int { return &l.JobsActive }),
	count("job_targets", "Targets of one job.", "", 2_000_000, 2_000_000, func(l *Limits) *int { return &l.JobTargets }),
	count("job_named_targets", "Targets and exclusions that a job lists one by one.", "", 10_000, 10_000, func(l *Limits) *int { return &l.JobNamedTargets }),
	count("jobs_in_flight", "Executions of jobs that wait for their device's answer at once, in the whole hub.", "", 2000, 2000, func(l *Limits) *int { return &l.JobsInFlight }),
	span("job_start_ahead", "How far ahead a job may be scheduled.", 2*365*24*time.Hour, 168*time.Hour, func(l *Limits) *time.Duration { return &l.JobStartAhead }),
	span("job_age", "Age of an ended job with its executions; then it is removed.", 30*24*time.Hour, 30*24*time.Hour, func(l *Limits) *time.Duration { return &l.JobAge }),
	count("job_templates", "Job templates.", "", 1000, 1000, func(l *Limits) *int { return &l.JobTemplates }),
	count("job_bytes", "Size of a job or a template as it is sent.", "bytes", 1024*kib, 1024*kib, func(l *Limits) *int { return &l.JobBytes }),
	perSecond("job_device_rate", "Executions of jobs that are started, in the whole hub; the azure column is one S3 unit.", 0, 50, func(l *Limits) *float64 { return &l.JobDeviceRate }),
	count("runs_active", "Runs of patterns that have not ended, in the whole hub.", "", 1_000_000, 1_000_000, func(l *Limits) *int { return &l.RunsActive }),
	count("runs_per_device", "Runs of patterns that wait until an earlier one on their device has ended.", "", 1000, 1000, func(l *Limits) *int { return &l.RunsPerDevice }),
	count("runs_kept", "Ended runs of patterns that are kept; the oldest of more are removed.", "", 200_000, 200_000, func(l *Limits) *int { return &l.RunsKept }),
	span("run_age", "Age of an ended run of a pattern; then it is removed.", 30*24*time.Hour, 30*24*time.Hour, func(l *Limits) *time.Duration { return &l.RunAge }),
	perSecond("job_rate", "Operations on jobs of the whole hub; the azure column is one S3 unit.", 0, 5000.0/60, func(l *Limits) *float64 { return &l.JobRate }),
	count("configurations", "Configurations.", "", 1000, 100, func(l *Limits) *int { return &l.Configurations }),
	count("configuration_metrics", "Custom metrics of one configuration.", "", 20, 5, func(l *Limits) *int { return &l.ConfigMetrics }),
	count("configuration_bytes", "Size of a configuration as it is sent.", "bytes", 512*kib, 512*kib, func(l *Limits) *int { return &l.ConfigBytes }),
	count("configurations_bytes", "Size of all configurations together.", "bytes", 64<<20, 64<<20, func(l *Limits) *int { return &l.ConfigsBytes }),
	count("configuration_revisions", "Revisions that are kept of one configuration.", "", 100, 100, func(l *Limits) *int { return &l.ConfigRevisions }),
	perSecond("configuration_rate", "Operations on configurations of the whole hub; the azure column is one S3 unit.", 0, 20.0/60*10, func(l *Limits) *float64 { return &l.ConfigurationRate }),

	count("patterns", "Installed patterns, whatever their versions.", "", 500, 500, func(l *Limits) *int { return &l.Patterns }),
	count("pattern_versions", "Installed versions of one pattern.", "", 20, 20, func(l *Limits) *int { return &l.PatternVersions }),
	count("patterns_bytes", "Size of the files of all installed patterns.", "bytes", 256<<20, 256<<20, func(l *Limits) *int { return &l.PatternsBytes }),
	count("pattern_keys", "Keys whose signatures of patterns are trusted.", "", 100, 100, func(l *Limits) *int { return &l.PatternKeys }),
	count("pattern_secrets", "Secrets that patterns use.", "", 1000, 1000, func(l *Limits) *int { return &l.PatternSecrets }),
	count("pattern_secret_bytes", "Size of a secret that patterns use.", "bytes", 16*kib, 16*kib, func(l *Limits) *int { return &l.PatternSecretBytes }),
	perSecond("pattern_trigger_rate", "Runs that triggers of patterns start, in the whole hub; what waits for its turn is not lost.", 100, 100, func(l *Limits) *float64 { return &l.PatternTriggerRate }),
	count("pattern_trigger_burst", "Runs that triggers of patterns start at once, after a pause.", "", 200, 200, func(l *Limits) *int { return &l.PatternTriggerBurst }),

	perSecond("registry_rate", "Registry operations of the whole hub; the azure column is one S3 unit.", 0, 5000.0/60, func(l *Limits) *float64 { return &l.RegistryRate }),
	perSecond("twin_read_rate", "Twin reads of the whole hub.", 0, 500, func(l *Limits) *float64 { return &l.TwinReadRate }),
	perSecond("twin_update_rate", "Twin updates of the whole hub.", 0, 250, func(l *Limits) *float64 { return &l.TwinUpdateRate }),
	perSecond("connect_rate", "New sessions of the whole hub.", 0, 6000, func(l *Limits) *float64 { return &l.ConnectRate }),
	perSecond("method_rate", "Direct method calls of the whole hub.", 0, 6000, func(l *Limits) *float64 { return &l.MethodRate }),
	perSecond("device_message_rate", "Packets of one session before its socket is read more slowly; also messages of one device by HTTPS.", 20000, 20000, func(l *Limits) *float64 { return &l.DeviceMessageRate }),
	perSecond("device_byte_rate", "Bytes of one session's packets before its socket is read more slowly; also of one device's messages by HTTPS.", 8<<20, 8<<20, func(l *Limits) *float64 { return &l.DeviceByteRate }),

	count("history_desired", "History entries of tags, desired properties and identity, each, per identity.", "", 1000, 1000, func(l *Limits) *int { return &l.HistoryDesired }),
	count("history_reported", "History entries of reported properties per identity.", "", 100, 100, func(l *Limits) *int { return &l.HistoryReported }),
	span("history_desired_age", "Age of those entries.", 90*24*time.Hour, 90*24*time.Hour, func(l *Limits) *time.Duration { return &l.HistoryDesiredAge }),
	span("history_reported_age", "Age of those entries.", 24*time.Hour, 24*time.Hour, func(l *Limits) *time.Duration { return &l.HistoryReportedAge }),
}
