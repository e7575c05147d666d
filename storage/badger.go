package storage

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// openBadger opens Badger as the place where the journal settles: no syncs of its own, versions
// given by us, every value in the tables, nothing in the value log. Blocks are verified when
// they are read; tables were verified before. With merges false it merges no tables, however many
// gather in level 0: for a short while only, since each of them costs a read time.
func openBadger(dir string, t tuning, merges bool, log *badgerLog) (db *badger.DB, err error) {
	// The threshold lies above every value (limits.value), so that the value log stays empty.
	maxBatch := t.memTable * 15 / 100
	o := badger.DefaultOptions(dir).
		WithLogger(log).
		WithSyncWrites(false).
		WithDetectConflicts(false).
		WithNumVersionsToKeep(1).
		WithValueThreshold(min(1<<20, maxBatch)).
		WithValueLogFileSize(1 << 20).
		WithVerifyValueChecksum(true).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithMemTableSize(t.memTable).
		WithNumMemtables(t.numMemtables).
		WithBaseTableSize(t.tableSize).
		WithBaseLevelSize(t.baseLevelSize).
		WithMaxLevels(t.levels).
		WithNumCompactors(2).
		WithNumLevelZeroTables(t.levelZero).
		WithNumLevelZeroTablesStall(3 * t.levelZero).
		WithCompression(tableCompression).
		WithBlockCacheSize(t.blockCache).
		WithIndexCacheSize(t.indexCache).
		WithBypassLockGuard(true). // the directory is ours (lock.go)
		WithMetricsEnabled(false)
	// Tables are as large on every level: what builds them takes memory by their size (tuning).
	o.TableSizeMultiplier = 1
	if !merges {
		o = o.WithNumCompactors(0).WithNumLevelZeroTablesStall(math.MaxInt)
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("badger panicked: %v", p)
		}
	}()
	return badger.OpenManaged(o)
}

// levelZeroMost is how many bytes of memtables gather in level 0, with the most memory, before they
// are merged into the level below, which is rewritten whole each time but for logs (Log.place): twice as
// many are merged half as often. The price is paid by those who come while a merge runs that takes
// twice as long (threads.go), by the look-up of a key, which asks a filter in memory for each table, and
// by a scan, which reads in each: 0.2 ms with 46 tables, 0.5 with 77.
const levelZeroMost = 2400 << 20

// tableCompression: documents resemble one another, and the disk is often slower than Snappy.
const tableCompression = options.Snappy

// closeBadger closes without letting a panic of a damaged store escape.
func closeBadger(db *badger.DB) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("closing badger panicked: %v", p)
		}
	}()
	return db.Close()
}

// badgerLog passes Badger's messages on. Badger retries failed flushes and compactions forever and
// ignores what it cannot read; the message is the only sign, so errors raise Health.
type badgerLog struct {
	log    *slog.Logger
	raise  atomic.Pointer[func(error)]
	errors atomic.Pointer[string] // the first one
}

func (l *badgerLog) line(level slog.Level, format string, args []any) string {
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	l.log.Log(context.Background(), level, "badger: "+text)
	return text
}

func (l *badgerLog) complain(text string) {
	l.errors.CompareAndSwap(nil, &text)
	if raise := l.raise.Load(); raise != nil {
		(*raise)(fmt.Errorf("badger reports: %s; look at the disk and its free space, then restart", text))
	}
}

func (l *badgerLog) Errorf(format string, args ...any) {
	l.complain(l.line(slog.LevelError, format, args))
}

func (l *badgerLog) Warningf(format string, args ...any) {
	text := l.line(slog.LevelWarn, format, args)
	if strings.Contains(text, "While running doCompact") {
		l.complain(text)
	}
}

func (l *badgerLog) Infof(format string, args ...any)  { l.line(slog.LevelDebug, format, args) }
func (l *badgerLog) Debugf(format string, args ...any) {}
