package engine

import (
	"context"
	"time"

	"github.com/muster-hub/muster/storage"
)

// targetTable holds the targets of jobs whose turn has not come, in blocks:
// (job, run, wave, zone, n). No execution exists of them yet, which keeps a job
// over a whole fleet cheap. A target that has an execution all the same (of a
// dynamic job, that came to match twice) is dropped when it is taken.
var targetTable = storage.NewTable[targetBlock]("job_target", 1, targetCodec{})

// targetBlock is a run of targets.
type targetBlock []TwinID

// targetBlockSize is how many targets a block holds at most.
const targetBlockSize = 500

// planTable holds how far the targets of a job are laid out: (job).
var planTable = storage.NewTable("job_plan", 1, storage.JSON[planRecord]())

// planRecord is how far the targets of a run are laid out.
type planRecord struct {
	Run   uint64 `json:"r"`
	Phase int    `json:"p"`
	After string `json:"a,omitempty"` // the row behind which collecting goes on
	Found int64  `json:"f,omitempty"`
	Cut   uint64 `json:"c,omitempty"` // collected blocks that are cut into waves
}

// layOutStep does the next part of laying out a queued job's targets, one
// transaction of it, and reports whether they are laid out: then State.LayOut
// was said, or State.Fail with the reason why they can't be. It resumes where a
// kill left it. The columns must be ready (CodeUnavailable else).
func (h *Hub) layOutStep(ctx context.Context, job string) (done bool, err error) {
	return false, errf(CodeInternal, "not built")
}

// targetZones returns the zones of which pending targets of a wave are left, at
// most most of them, in order.
func targetZones(r storage.Reader, job string, run uint64, wave int, most int) ([]string, error) {
	return nil, errf(CodeInternal, "not built")
}

// takeTargetsTx takes up to most pending targets of a wave and a zone, in order:
// they are pending no more. Whoever takes them writes their executions and
// says State.Move in the same transaction.
func takeTargetsTx(tx *storage.Tx, job string, run uint64, wave int, zone string, most int) ([]TwinID, error) {
	return nil, errf(CodeInternal, "not built")
}

// dropTargetsTx takes up to most pending targets of whatever wave from wave on,
// for a job that is canceled or reaches its end: of one wave at a time, which is
// returned. No ids: none are left.
func dropTargetsTx(tx *storage.Tx, job string, run uint64, wave, most int) (of int, ids []TwinID, err error) {
	return 0, nil, errf(CodeInternal, "not built")
}

// putTargetsTx adds pending targets to a wave and a zone, for dynamic jobs; the
// caller says State.Join.
func putTargetsTx(tx *storage.Tx, job string, run uint64, wave int, zone string, ids []TwinID) error {
	return errf(CodeInternal, "not built")
}

// beginRunTx makes a job's record ready for its next run: the number, an empty
// state and plan. Its targets are laid out anew.
func beginRunTx(tx *storage.Tx, job string, r *jobRecord) error {
	return errf(CodeInternal, "not built")
}

// targetMatches reports whether a twin belongs to the job's targets now, for
// dynamic ones.
func (h *Hub) targetMatches(s *jobSpecRecord, id TwinID, now time.Time) (bool, error) {
	return false, errf(CodeInternal, "not built")
}

// zoneOf returns the zone of a target by the policy's zone tag, "" when it has
// none.
func (h *Hub) zoneOf(path string, id TwinID) string { return "" }
