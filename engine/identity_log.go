package engine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"strings"

	"github.com/muster-hub/muster/storage"
)

// importLogTable has the entries of an import's error log, as the lines that
// they will be: job and number of the first line of the file that they are
// about. They are written to a blob when the import ends.
var importLogTable = storage.NewTable[[]byte]("identity_job.error", 1, rawCodec{})

// rawCodec stores bytes as they are.
type rawCodec struct{}

func (rawCodec) Append(dst, v []byte) ([]byte, error) { return append(dst, v...), nil }
func (rawCodec) Decode(b []byte) ([]byte, error)      { return b, nil }

// importNumbers are IoT Hub's numbers of what can be wrong with a line; a test
// compares them with those of the REST interface, from which one differs: a line
// that can't be read has a number of its own.
var importNumbers = map[Code]int{
	CodeFormat:              400012,
	CodeArgumentInvalid:     400004,
	CodeArgumentNull:        400005,
	CodeInvalidDeviceScope:  400028,
	CodeDeviceNotFound:      404001,
	CodeModuleNotFound:      404010,
	CodeDeviceAlreadyExists: 409001,
	CodeModuleAlreadyExists: 409301,
	CodePreconditionFailed:  412001,
	CodeTooLarge:            413001,
	CodeTooManyModules:      413003,

	CodeConfigurationCondition: 400401,
	CodeConfigurationContent:   400402,
	CodeConfigurationMetrics:   400404,
	CodeTooManyConfigurations:  413101,
	CodeInternal:               500001,
}

// ImportNumber is the number by which importErrors.log tells an error of a line.
func ImportNumber(c Code) int {
	if n, ok := importNumbers[c]; ok {
		return n
	}
	return importNumbers[CodeInternal]
}

// importFault is what is wrong with a line of an import.
type importFault struct {
	line int64
	id   TwinID // empty when the line could not be read so far
	err  *Error
	// configuration names it when the line is one of configurations.
	configuration string
}

// append is the fault's line in importErrors.log.
func (f importFault) append(dst []byte) []byte {
	m := beginMembers(dst)
	m.textUnlessEmpty("deviceId", f.id.DeviceID)
	m.textUnlessEmpty("moduleId", f.id.ModuleID)
	m.textUnlessEmpty("configurationId", f.configuration)
	m.number("errorCode", int64(ImportNumber(f.err.Code)))
	m.text("errorStatus", clip(f.reason()))
	m.number("line", f.line)
	return append(m.end(), '\n')
}

// reason says what is wrong in words: some messages are the name alone of what is
// missing.
func (f importFault) reason() string {
	switch c := f.err.Code; c {
	case CodeDeviceNotFound, CodeModuleNotFound:
		return strings.TrimSuffix(c.Info().Text, ".") + ": " + strconv.Quote(f.err.Message)
	default:
		return f.err.Message
	}
}

// importLog collects the faults of one step.
type importLog struct {
	place *identityJobPlace
	most  int // bytes of the whole log
	text  []byte
}

// add counts a fault and keeps it while the log has room. The line that says
// that it was cut is the last one.
func (l *importLog) add(f importFault) {
	l.place.Failed++
	if l.place.LogBytes >= l.most {
		return
	}
	was := len(l.text)
	l.text = f.append(l.text)
	if l.place.LogBytes += len(l.text) - was; l.place.LogBytes < l.most {
		l.place.Logged++
		return
	}
	l.text = importFault{line: f.line, err: errf(CodeTooLarge, "the log is cut here, at its bound of %d bytes; the counts of the job are whole", l.most)}.append(l.text[:was])
	l.place.LogBytes = l.most
}

// putTx stores what was collected.
func (l *importLog) putTx(tx *storage.Tx, job string, line int64) error {
	if len(l.text) == 0 {
		return nil
	}
	return importLogTable.Put(tx, storage.Tuple(job, uint64(line)), l.text)
}

// copyImportLog writes the stored entries, page by page.
func (h *Hub) copyImportLog(ctx context.Context, job string, to io.Writer) error {
	var after storage.Key
	for {
		n := 0
		var page [][]byte
		err := h.view(ctx, "read an import's errors", func(r storage.Reader) error {
			for item, err := range importLogTable.Scan(r, storage.Range{Prefix: storage.Tuple(job), After: after}) {
				if err != nil {
					return err
				}
				page, after = append(page, append([]byte(nil), item.Value...)), append(storage.Key(nil), item.Key...)
				if n += len(item.Value); n >= 1<<20 {
					return nil
				}
			}
			return nil
		})
		if err != nil || len(page) == 0 {
			return err
		}
		for _, text := range page {
			if _, err := to.Write(text); err != nil {
				return storeError(err, "write an import's errors")
			}
		}
	}
}

// endImport writes the error log and, in the same transaction, says that the
// job is complete.
func (h *Hub) endImport(ctx context.Context, id string, r identityJobRecord) error {
	return h.logImport(ctx, "import.finish", id, r, func(tx *storage.Tx, r *identityJobRecord, reason string) error {
		return h.endIdentityJobTx(tx, importCaller(r.Owner, id), id, r, IdentityJobCompleted, reason)
	})
}

// writeImportLog writes the error log of an import that has ended otherwise.
func (h *Hub) writeImportLog(ctx context.Context, id string, r identityJobRecord) error {
	return h.logImport(ctx, "import.log", id, r, func(_ *storage.Tx, r *identityJobRecord, reason string) error {
		if reason != "" {
			r.Reason += "; " + reason
		}
		return nil
	})
}

// logImport makes a blob of the error log. A container that has gone meanwhile
// takes the log with it: the job says so.
func (h *Hub) logImport(ctx context.Context, step, id string, r identityJobRecord, end func(tx *storage.Tx, r *identityJobRecord, reason string) error) error {
	w, err := h.db.Blobs().Create()
	if err != nil {
		return storeError(err, "begin an import's error log")
	}
	if err := h.copyImportLog(ctx, id, w); err != nil {
		w.Abort()
		return err
	}
	return h.stepBlob(ctx, step, w, func(tx *storage.Tx, b storage.Blob) error {
		now, _, err := loadIdentityJob(tx, id)
		if err != nil {
			return err
		}
		if now.Stage != r.Stage {
			return errJobEnded
		}
		reason := ""
		_, err = h.setBlobTx(tx, r.Output.grant(), importErrorsBlob, fileContent{b.Digest, b.Size, "application/x-ndjson", ""}, BlobCondition{})
		if e, ok := errors.AsType[*Error](err); ok {
			reason, err = importErrorsBlob+" could not be written: "+e.Message, nil
			h.log.Warn("an import's error log could not be written", slog.String("job", id), slog.String("error", e.Message))
		}
		if err != nil {
			return err
		}
		if err := end(tx, &now, reason); err != nil {
			return err
		}
		now.Stage = stageTidy
		return identityJobTable.Put(tx, identityJobKey(id), now)
	})
}

// tidyImportLog removes the stored entries, which the blob has now.
func (h *Hub) tidyImportLog(ctx context.Context, id string) error {
	for {
		more := false
		err := h.step(ctx, "import.tidy", func(tx *storage.Tx) error {
			more = false
			var keys []storage.Key
			for item, err := range importLogTable.Scan(tx, storage.Range{Prefix: storage.Tuple(id)}) {
				if err != nil {
					return err
				}
				if keys = append(keys, append(storage.Key(nil), item.Key...)); len(keys) == retainBatch {
					more = true
					break
				}
			}
			for _, k := range keys {
				if err := importLogTable.Delete(tx, k); err != nil {
					return err
				}
			}
			if more {
				return nil
			}
			r, _, err := loadIdentityJob(tx, id)
			if err != nil {
				return err
			}
			r.Stage = stageDone
			return identityJobTable.Put(tx, identityJobKey(id), r)
		})
		if err != nil || !more {
			return err
		}
	}
}
