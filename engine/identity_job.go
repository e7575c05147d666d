package engine

import (
	"context"
	"errors"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
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
	Type        IdentityJobType
	Description string // own; at most 1,024 bytes

	Input      BlobContainer // import: where the lines are
	InputBlob  string
	Output     BlobContainer // export: where the lines go; import: where importErrors.log goes, Input when empty
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
	// Configurations are those that were written, or made and changed.
	Configurations int64 `json:"cf,omitempty"`
}

// IdentityJob is an import or an export of identities.
type IdentityJob struct {
	ID              string
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

// The names that blobs of identity jobs have unless a job says otherwise.
const (
	devicesBlob        = "devices.txt"
	configurationsBlob = "configurations.txt"
	importErrorsBlob   = "importErrors.log"
)

// identityJobRecord is a stored job; its key is the id.
type identityJobRecord struct {
	Type           IdentityJobType   `json:"t"`
	Description    string            `json:"x,omitempty"`
	Input          jobContainer      `json:"ic,omitzero"`
	InputBlob      string            `json:"ib,omitempty"`
	Output         jobContainer      `json:"oc"`
	OutputBlob     string            `json:"ob,omitempty"`
	ExcludeKeys    bool              `json:"ek,omitempty"`
	Configurations bool              `json:"cf,omitempty"`
	ConfigBlob     string            `json:"cb,omitempty"`
	Where          string            `json:"wh,omitempty"`
	Mode           ImportMode        `json:"im,omitempty"`
	DryRun         bool              `json:"dr,omitempty"`
	Content        *fileContent      `json:"h,omitempty"` // import: what is read, whatever becomes of the blob
	ConfigContent  *fileContent      `json:"hc,omitempty"`
	Owner          identityJobOwner  `json:"o"`
	Status         IdentityJobStatus `json:"s"`
	Reason         string            `json:"r,omitempty"`
	Stage          identityJobStage  `json:"sg,omitempty"`
	Created        time.Time         `json:"c"`
	Started        time.Time         `json:"st,omitzero"`
	Ended          time.Time         `json:"e,omitzero"`
}

// identityJobStage says what the runner has to do for a job. The values are
// stored and never change.
type identityJobStage uint8

const (
	stageWork identityJobStage = iota // its lines
	stageLog                          // the status is final; the error log is to be written
	stageTidy                         // the entries of the error log are to be removed
	stageDone
)

// jobContainer is a container as it was when the job was made.
type jobContainer struct {
	Name string `json:"n"`
	ID   string `json:"i"`
}

func (c jobContainer) grant() ContainerGrant { return ContainerGrant{Name: c.Name, id: c.ID} }

// identityJobOwner is whose permission a job acts with.
type identityJobOwner struct {
	Kind auth.Kind `json:"k"`
	Name string    `json:"n"`
}

func (o identityJobOwner) principal() auth.Principal {
	return auth.Principal{Kind: o.Kind, Name: o.Name}
}

// identityJobPlace is how far a job is. It moves in the transaction of what it
// counts, and apart from the job, which is larger and mostly stays as it is.
type identityJobPlace struct {
	IdentityJobCounts
	Offset   int64     `json:"o,omitempty"` // import: behind the last line that was dealt with; export: identities written
	Total    int64     `json:"t,omitempty"`
	LogBytes int       `json:"b,omitempty"` // of the entries of the error log
	Moved    time.Time `json:"m,omitzero"`
	// ConfigLine is the last line of configurations that was dealt with.
	ConfigLine int64 `json:"cl,omitempty"`
}

var (
	identityJobTable = storage.NewTable("identity_job", 1, storage.JSON[identityJobRecord](),
		storage.Index[identityJobRecord]{Name: "open", Keys: func(_ storage.Key, r identityJobRecord) []storage.Key {
			if r.Stage == stageDone {
				return nil
			}
			return []storage.Key{storage.Tuple(r.Created)}
		}},
		storage.Index[identityJobRecord]{Name: "ended", Keys: func(_ storage.Key, r identityJobRecord) []storage.Key {
			if r.Stage != stageDone {
				return nil
			}
			return []storage.Key{storage.Tuple(r.Ended)}
		}})
	identityJobPlaceTable = storage.NewTable("identity_job.place", 1, storage.JSON[identityJobPlace]())
)

func identityJobKey(id string) storage.Key { return storage.Tuple(id) }

// identityJobKeeper is who refers to what an import reads.
func identityJobKeeper(id string) storage.Key { return storage.Tuple("identity_job", id) }

func (r *identityJobRecord) show(id string, p identityJobPlace) IdentityJob {
	j := IdentityJob{
		ID: id,
		IdentityJobSpec: IdentityJobSpec{
			Type: r.Type, Description: r.Description, Input: BlobContainer{Name: r.Input.Name}, InputBlob: r.InputBlob, Output: BlobContainer{Name: r.Output.Name}, OutputBlob: r.OutputBlob,
			ExcludeKeys: r.ExcludeKeys, Configurations: r.Configurations, ConfigurationsBlob: r.ConfigBlob, Where: r.Where, DefaultMode: r.Mode, DryRun: r.DryRun,
		},
		Status: r.Status, FailureReason: r.Reason, Counts: p.IdentityJobCounts, Bytes: p.Offset, Total: p.Total,
		Principal: r.Owner.principal().String(), Created: r.Created.UTC(), Started: r.Started.UTC(), Updated: p.Moved.UTC(), Ended: r.Ended.UTC(),
	}
	switch {
	case r.Status == IdentityJobCompleted:
		j.Progress = 100
	case p.Total > 0:
		j.Progress = int(min(99, 100*p.Offset/p.Total))
	}
	return j
}

// CreateIdentityJob makes an import or export job and returns it enqueued. One
// of them runs at a time; CodeJobQuotaExceeded when as many wait as may, of
// which there is none under the azure limits. CodeBlobContainer for a container
// that is not there, can't be used with its token, or has no such blob. It needs
// RegistryWrite.
func (h *Hub) CreateIdentityJob(ctx context.Context, c Caller, s IdentityJobSpec) (IdentityJob, error) {
	op := opIdentityImport
	if s.Type == IdentityExport {
		op = opIdentityExport
	}
	if err := h.authorize(ctx, c, op, "*"); err != nil {
		return IdentityJob{}, err
	}
	if s.Configurations && s.Type == IdentityImport && !s.DryRun {
		if err := h.authorize(ctx, c, opConfigurationWrite, "*"); err != nil {
			return IdentityJob{}, err
		}
	}
	r, err := h.checkIdentityJob(ctx, c, s)
	if err != nil {
		return IdentityJob{}, err
	}
	var id string
	var place identityJobPlace
	err = h.step(ctx, "import.create", func(tx *storage.Tx) error {
		now := tx.Now().UTC()
		open := 0
		for item, err := range identityJobTable.Lookup(tx, "open", storage.Range{}) {
			if err != nil {
				return err
			}
			if !item.Value.Status.Final() {
				open++
			}
		}
		if most := h.limits.IdentityJobsOpen; open >= most {
			return errf(CodeJobQuotaExceeded, "%d imports and exports have not ended, at most %d may; wait until one has, or cancel it", open, most)
		}
		id, r.Created, place = newTimedID(now), now, identityJobPlace{Moved: now}
		if r.Type == IdentityImport {
			content, err := h.pinInputTx(tx, id, &r)
			if err != nil {
				return err
			}
			place.Total = content.Size
		}
		if _, err := r.Output.grant().load(tx); err != nil {
			return containerFault("output", err)
		}
		details, err := identityJobDetails(id, &r)
		return errors.Join(err,
			identityJobTable.Put(tx, identityJobKey(id), r),
			identityJobPlaceTable.Put(tx, identityJobKey(id), place),
			appendChange(tx, c, changeJobCreated, TwinID{}, 0, details),
			h.auditTx(tx, c, op, id, details),
		)
	})
	if err != nil {
		return IdentityJob{}, err
	}
	h.wakeImports()
	return r.show(id, place), nil
}

// wakeImports has the runner look for work.
func (h *Hub) wakeImports() {
	select {
	case h.imports.wake <- struct{}{}:
	default:
	}
}

func identityJobDetails(id string, r *identityJobRecord) ([]byte, error) {
	return marshal(struct {
		Job    string            `json:"job"`
		Kind   IdentityJobType   `json:"kind"`
		Status IdentityJobStatus `json:"status"`
		Reason string            `json:"reason,omitempty"`
	}{id, r.Type, r.Status, r.Reason})
}

// The longest description of an identity job, in bytes.
const identityJobDescription = 1024

// checkIdentityJob looks at what was asked for and opens the containers.
func (h *Hub) checkIdentityJob(ctx context.Context, c Caller, s IdentityJobSpec) (identityJobRecord, error) {
	r := identityJobRecord{
		Type: s.Type, Description: s.Description, InputBlob: orElse(s.InputBlob, devicesBlob), OutputBlob: orElse(s.OutputBlob, devicesBlob),
		ExcludeKeys: s.ExcludeKeys, Configurations: s.Configurations, ConfigBlob: orElse(s.ConfigurationsBlob, configurationsBlob),
		Where: s.Where, Mode: s.DefaultMode, DryRun: s.DryRun, Owner: identityJobOwner{c.Kind, c.Name}, Status: IdentityJobEnqueued,
	}
	if len(s.Description) > identityJobDescription {
		return r, errf(CodeArgumentInvalid, "description has %d bytes; expected at most %d", len(s.Description), identityJobDescription)
	}
	for what, name := range map[string]string{"inputBlobName": r.InputBlob, "outputBlobName": r.OutputBlob, "configurationsBlobName": r.ConfigBlob} {
		if err := checkFileName(name, h.limits.FileNameBytes); err != nil {
			return r, errf(CodeArgumentInvalid, "%s: %s", what, AsError(err).Message)
		}
	}
	var err error
	switch s.Type {
	case IdentityImport:
		if r.Mode != "" {
			if r.Mode, err = ParseImportMode(string(r.Mode)); err != nil {
				return r, err
			}
		}
		if s.Output.Name == "" {
			s.Output = s.Input
		}
		if r.Input, err = h.jobContainer(ctx, c, s.Input); err != nil {
			return r, containerFault("input", err)
		}
	case IdentityExport:
		r.InputBlob = ""
		if s.Where != "" {
			if _, err := h.ParseQuery(QueryRequest{Where: s.Where}); err != nil {
				return r, err
			}
		}
	default:
		return r, errf(CodeArgumentInvalid, "type %.40q is not known; expected import or export", string(s.Type))
	}
	if r.Output, err = h.jobContainer(ctx, c, s.Output); err != nil {
		return r, containerFault("output", err)
	}
	return r, nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// jobContainer finds a container and checks that the caller may use it.
func (h *Hub) jobContainer(ctx context.Context, c Caller, b BlobContainer) (jobContainer, error) {
	if b.Name == "" {
		return jobContainer{}, errf(CodeArgumentNull, "the container is missing")
	}
	var g ContainerGrant
	var err error
	if b.Token != nil {
		g, err = h.AuthorizeContainer(ctx, b.Name, *b.Token)
	} else {
		g, err = h.OpenContainer(ctx, c, b.Name)
	}
	return jobContainer{g.Name, g.id}, err
}

// containerFault says that a container can't be used, and which.
func containerFault(which string, err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	switch e.Code {
	case CodeBlobContainerNotFound, CodeUnauthorized, CodeBlobNotFound, CodeArgumentNull:
		return wrapf(CodeBlobContainer, err, "the %s container: %s", which, e.Message)
	}
	return err
}

// pinInputTx keeps what an import is to read, whatever becomes of the blobs.
func (h *Hub) pinInputTx(tx *storage.Tx, id string, r *identityJobRecord) (fileContent, error) {
	container, err := r.Input.grant().load(tx)
	if err != nil {
		return fileContent{}, containerFault("input", err)
	}
	pin := func(name string) (*fileContent, error) {
		blob, err := blobRecordTable.Get(tx, blobKey(container.ID, name))
		if errors.Is(err, storage.ErrNotFound) {
			return nil, containerFault("input", blobNotFound(name))
		}
		if err != nil {
			return nil, err
		}
		c := &fileContent{Digest: blob.Digest, Size: blob.Size}
		return c, h.db.Blobs().Refer(tx, c.blob(), identityJobKeeper(id))
	}
	if r.Content, err = pin(r.InputBlob); err != nil {
		return fileContent{}, err
	}
	if r.Configurations {
		if r.ConfigContent, err = pin(r.ConfigBlob); err != nil {
			return fileContent{}, err
		}
	}
	return *r.Content, nil
}

func loadIdentityJob(r storage.Reader, id string) (identityJobRecord, identityJobPlace, error) {
	record, err := identityJobTable.Get(r, identityJobKey(id))
	if errors.Is(err, storage.ErrNotFound) {
		return record, identityJobPlace{}, errf(CodeJobNotFound, "there is no import or export job %.80q", id)
	}
	if err != nil {
		return record, identityJobPlace{}, err
	}
	place, err := identityJobPlaceTable.Get(r, identityJobKey(id))
	return record, place, err
}

// IdentityJob returns a job; CodeJobNotFound when there is none. It needs
// RegistryRead.
func (h *Hub) IdentityJob(ctx context.Context, c Caller, id string) (IdentityJob, error) {
	if err := h.authorize(ctx, c, opIdentityJobRead, id); err != nil {
		return IdentityJob{}, err
	}
	var j IdentityJob
	err := h.view(ctx, "read job", func(r storage.Reader) error {
		record, place, err := loadIdentityJob(r, id)
		j = record.show(id, place)
		return err
	})
	return j, err
}

// IdentityJobs lists import and export jobs, the newest first, at most limit (1
// to 1000) of those made before the one whose id is given; next is empty at the
// end. It needs RegistryRead.
func (h *Hub) IdentityJobs(ctx context.Context, c Caller, before string, limit int) (list []IdentityJob, next string, err error) {
	if err := h.authorize(ctx, c, opIdentityJobRead, "*"); err != nil {
		return nil, "", err
	}
	if limit <= 0 || limit > filePage {
		limit = filePage
	}
	list = []IdentityJob{}
	g := storage.Range{Reverse: true} // ids are in order of time
	if before != "" {
		g.End = identityJobKey(before)
	}
	err = h.view(ctx, "list jobs", func(r storage.Reader) error {
		for item, err := range identityJobTable.Scan(r, g) {
			if err != nil {
				return err
			}
			if len(list) == limit {
				next = list[limit-1].ID
				return nil
			}
			id, err := firstText(item.Key)
			if err != nil {
				return err
			}
			place, err := identityJobPlaceTable.Get(r, item.Key)
			if err != nil {
				return err
			}
			list = append(list, item.Value.show(id, place))
		}
		return nil
	})
	return list, next, err
}

// CancelIdentityJob ends a job that has not ended; what it has done stays done,
// and an import's importErrors.log is written. CodeJobState when it has ended.
// It needs RegistryWrite.
func (h *Hub) CancelIdentityJob(ctx context.Context, c Caller, id string) (IdentityJob, error) {
	if err := h.authorize(ctx, c, opIdentityImport, id); err != nil {
		return IdentityJob{}, err
	}
	var j IdentityJob
	err := h.step(ctx, "import.cancel", func(tx *storage.Tx) error {
		r, place, err := loadIdentityJob(tx, id)
		if err != nil {
			return err
		}
		if r.Status.Final() {
			return errf(CodeJobState, "the job %q has ended: it is %s", id, r.Status)
		}
		if err := h.endIdentityJobTx(tx, c, id, &r, IdentityJobCancelled, "canceled by "+c.Principal.String()); err != nil {
			return err
		}
		j = r.show(id, place)
		return h.auditTx(tx, c, opIdentityImport, id, []byte(`{"canceled":true}`))
	})
	if err == nil {
		h.wakeImports()
	}
	return j, err
}

// endIdentityJobTx gives a job its final status. What an import's log holds is
// written afterwards, where that is not done yet.
func (h *Hub) endIdentityJobTx(tx *storage.Tx, c Caller, id string, r *identityJobRecord, s IdentityJobStatus, reason string) error {
	r.Status, r.Reason, r.Ended, r.Stage = s, reason, tx.Now().UTC(), stageDone
	if r.Type == IdentityImport {
		r.Stage = stageLog
	}
	for _, content := range []*fileContent{r.Content, r.ConfigContent} {
		if content == nil {
			continue
		}
		if err := h.releaseTx(tx, content.Digest, identityJobKeeper(id)); err != nil {
			return err
		}
	}
	details, err := identityJobDetails(id, r)
	return errors.Join(err, identityJobTable.Put(tx, identityJobKey(id), *r), appendChange(tx, c, changeJobStatus, TwinID{}, 0, details))
}
