package engine

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// What one page of jobs holds and looks at, at most.
const (
	jobPage     = 1000
	jobScanMost = 5000
)

// Job returns a job; CodeJobNotFound when there is none. It needs ServiceConnect.
func (h *Hub) Job(ctx context.Context, c Caller, id string) (j Job, err error) {
	if err := h.authorize(ctx, c, opJobRead, id); err != nil {
		return j, err
	}
	err = h.view(ctx, "read job", func(r storage.Reader) error {
		record, err := loadJob(r, id)
		if err != nil {
			return err
		}
		left := blockerLooks
		j, err = h.readJob(r, id, &record, &left)
		return err
	})
	return j, err
}

// readJob is showJob for who looks at jobs, not at one that is being changed: it also
// tells who holds the devices for which the job waits, at the cost of looks that are
// taken from left.
func (h *Hub) readJob(r storage.Reader, id string, record *jobRecord, left *int) (Job, error) {
	j, err := h.showJob(r, id, record)
	if err == nil {
		j.BlockedBy, err = blockerOf(r, id, record, left)
	}
	return j, err
}

// JobFilter selects jobs; what is empty selects all.
type JobFilter struct {
	Status []rollout.JobStatus
	Kind   JobKind
	Label  string // "key" or "key=value"
}

func (f *JobFilter) check() error {
	for _, s := range f.Status {
		if !slices.Contains(rollout.JobStatuses(), s) {
			return errf(CodeArgumentInvalid, "status %q is not known; expected some of %s", clip(string(s)), words(rollout.JobStatuses()))
		}
	}
	if f.Kind != "" && f.Kind != JobTwin && f.Kind != JobMethod && f.Kind != JobConfigure && f.Kind != JobRunPattern {
		return errf(CodeArgumentInvalid, "kind %q is not known; expected %s, %s, %s or %s", clip(string(f.Kind)), JobTwin, JobMethod, JobConfigure, JobRunPattern)
	}
	return nil
}

// words joins names for a message.
func words[T ~string](list []T) string {
	texts := make([]string, len(list))
	for i, s := range list {
		texts[i] = string(s)
	}
	return strings.Join(texts, ", ")
}

func (f *JobFilter) passes(j *Job) bool {
	key, value, exact := strings.Cut(f.Label, "=")
	got, has := j.Labels[key]
	return f.Label == "" || has && (!exact || got == value)
}

// Jobs lists jobs, the newest first. A page may hold fewer than limit; next is
// empty at the end. It needs ServiceConnect.
func (h *Hub) Jobs(ctx context.Context, c Caller, f JobFilter, cursor string, limit int) (list []Job, next string, err error) {
	if err := h.authorize(ctx, c, opJobRead, "*"); err != nil {
		return nil, "", err
	}
	if err := f.check(); err != nil {
		return nil, "", err
	}
	if limit <= 0 || limit > jobPage {
		limit = jobPage
	}
	after, err := hex.DecodeString(cursor)
	if err != nil {
		return nil, "", errf(CodeArgumentInvalid, "the cursor is not one that this list gave; start again without a cursor")
	}
	// One status has its own order; several of them share the order of all.
	index, prefix := "created", storage.Key(nil)
	if len(f.Status) == 1 {
		index, prefix = "status", storage.Tuple(string(f.Status[0]))
	}
	g := storage.Range{Prefix: prefix, Reverse: true}
	if len(after) > 0 {
		g.After = after
	}
	list = []Job{}
	err = h.view(ctx, "list jobs", func(r storage.Reader) error {
		list, next = list[:0], ""
		seen, size, left := 0, 0, blockerLooksPage
		for item, err := range jobTable.Lookup(r, index, g) {
			if err != nil {
				return err
			}
			parts, err := item.Key.Parts()
			if err != nil {
				return err
			}
			id, _ := parts[0].(string)
			record := item.Value
			if (len(f.Status) == 0 || slices.Contains(f.Status, record.State.Status)) && (f.Kind == "" || f.Kind == record.Kind) {
				j, err := h.readJob(r, id, &record, &left)
				if err != nil {
					return err
				}
				if f.passes(&j) {
					list = append(list, j)
				}
				size += 512 + 32*(len(j.Targets.IDs)+len(j.Targets.Exclude)) + len(j.Targets.Where)
				if a := j.Action.Twin; a != nil {
					size += len(a.Tags) + len(a.Desired)
				}
			}
			if seen++; len(list) == limit || seen == jobScanMost || size >= historyBytes {
				next = hex.EncodeToString(slices.Concat(prefix, storage.Tuple(record.Created), item.Key))
				return nil
			}
		}
		return nil
	})
	return list, next, err
}
