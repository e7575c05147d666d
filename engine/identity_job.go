package engine

import (
	"context"
	"time"

	"github.com/muster-hub/muster/engine/auth"
)

// IdentityJobType says what an identity job does; the texts are IoT Hub's.
type IdentityJobType string

// The types of identity jobs.
const (
	IdentityImport IdentityJobType = "import" // lines of a blob become identities and twins
	IdentityExport IdentityJobType = "export" // identities and twins become lines of a blob
)

// IdentityJobStatus says how far an identity job is; the texts are IoT Hub's.
type IdentityJobStatus string

// The statuses of identity jobs. The last three are final.
const (
	IdentityJobEnqueued  IdentityJobStatus = "enqueued" // waits for the job before it
	IdentityJobRunning   IdentityJobStatus = "running"
	IdentityJobCompleted IdentityJobStatus = "completed" // also when lines failed: Counts.Failed says how many
	IdentityJobFailed    IdentityJobStatus = "failed"    // it could not go on; FailureReason says why
	IdentityJobCancelled IdentityJobStatus = "cancelled" // what it had done stays done
)

// Final reports whether the status never changes again.
func (s IdentityJobStatus) Final() bool {
	return s == IdentityJobCompleted || s == IdentityJobFailed || s == IdentityJobCancelled
}

// BlobContainer names a container of this hub, and how it may be used.
type BlobContainer struct {
	Name string
	// Token is what the container's address carried; nil when the caller's own
	// permission is to count.
	Token *auth.ContainerToken
}

// IdentityJobSpec is what to import or export, and how. Empty names of blobs
// are IoT Hub's: devices.txt and configurations.txt.
type IdentityJobSpec struct {
	ID          string // empty: the hub makes one
	Type        IdentityJobType
	Description string // own; at most 1,024 bytes

	Input      BlobContainer // import: where the lines are
	InputBlob  string
	Output     BlobContainer // export: where the lines go; import: where importErrors.log goes; empty: Input
	OutputBlob string

	ExcludeKeys        bool       // export: authentication without keys
	Configurations     bool       // also ConfigurationsBlob
	ConfigurationsBlob string     // of the input when importing, else of the output
	Where              string     // export: only identities that match this predicate; own
	DefaultMode        ImportMode // import: of lines that name none; empty: createOrUpdate; own
	DryRun             bool       // import: check each line and change nothing; own
}

// IdentityJobCounts are exact: they move in the transaction of what they count.
type IdentityJobCounts struct {
	Lines   int64 `json:"l,omitempty"` // read so far, blank and skipped ones too
	Skipped int64 `json:"s,omitempty"` // blank, or not beginning with {
	Created int64 `json:"c,omitempty"` // identities; of an export: written
	Updated int64 `json:"u,omitempty"`
	Deleted int64 `json:"d,omitempty"`
	Failed  int64 `json:"f,omitempty"` // lines; each has one entry in importErrors.log, up to its bound
	// Logged is how many of Failed importErrors.log holds: a log has a bound.
	Logged int64 `json:"g,omitempty"`
}

// IdentityJob is an import or an export of identities.
type IdentityJob struct {
	IdentityJobSpec // its tokens are nil

	Status        IdentityJobStatus
	FailureReason string
	Progress      int // percent
	Counts        IdentityJobCounts
	Bytes, Total  int64 // import: of the blob, read so far and in all; export: identities
	Principal     string
	Created       time.Time
	Started       time.Time // zero: it has not begun
	Updated       time.Time // of the last step
	Ended         time.Time // zero: it has not ended
}

// CreateIdentityJob makes an import or export job and returns it enqueued. One
// of them runs at a time; under the azure limits a second one is
// CodeJobQuotaExceeded. CodeBlobContainer for a container that is not there,
// can't be used with its token, or has no such blob; CodeJobAlreadyExists for
// an id that is taken. It needs RegistryWrite.
func (h *Hub) CreateIdentityJob(ctx context.Context, c Caller, s IdentityJobSpec) (IdentityJob, error) {
	return IdentityJob{}, errf(CodeInternal, "not built")
}

// IdentityJob returns a job; CodeJobNotFound when there is none. It needs
// RegistryRead.
func (h *Hub) IdentityJob(ctx context.Context, c Caller, id string) (IdentityJob, error) {
	return IdentityJob{}, errf(CodeJobNotFound, "there is no import or export job %q", id)
}

// IdentityJobs lists import and export jobs, the newest first, at most limit (1
// to 1000) of those behind the one whose id is before; next is empty at the
// end. It needs RegistryRead.
func (h *Hub) IdentityJobs(ctx context.Context, c Caller, before string, limit int) (list []IdentityJob, next string, err error) {
	return []IdentityJob{}, "", nil
}

// CancelIdentityJob ends a job that has not ended; what it has done stays done.
// CodeJobState when it has ended. It needs RegistryWrite.
func (h *Hub) CancelIdentityJob(ctx context.Context, c Caller, id string) (IdentityJob, error) {
	return IdentityJob{}, errf(CodeJobNotFound, "there is no import or export job %q", id)
}
