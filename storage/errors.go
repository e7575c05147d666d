package storage

import (
	"errors"
	"fmt"
)

// The errors that callers tell apart with errors.Is. What a call returns wraps one of them
// with the detail and the next step.
var (
	// ErrNotFound: no record has this key.
	ErrNotFound = errors.New("not found")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("storage is closed")
	// ErrCorrupt: bytes on disk are not what was written. The text names file and offset.
	ErrCorrupt = errors.New("storage is damaged")
	// ErrMasterKey: the master key is missing, or is not the one that sealed. It is an ErrCorrupt, too,
	// but what mends that would give up all that is sealed.
	ErrMasterKey = fmt.Errorf("%w", ErrCorrupt)
	// ErrReadOnly: an earlier write or sync failed; nothing is written until a restart.
	ErrReadOnly = errors.New("storage is read-only after a failed write")
	// ErrReserve: the file system is nearly full; only deletes, or only reads, are allowed.
	ErrReserve = errors.New("free disk space is below the reserve")
	// ErrTooLarge: a value, a key or a whole transaction is above its bound.
	ErrTooLarge = errors.New("too large")
	// ErrUncertain: the write may or may not have been stored; only a restart can tell.
	ErrUncertain = errors.New("it is uncertain whether this was stored")
	// ErrLocked: another process has the directory open.
	ErrLocked = errors.New("data directory is in use")
	// ErrNewerFormat: the directory was written by a newer version.
	ErrNewerFormat = errors.New("data directory has a newer format")
	// ErrClock: the wall clock is before the build date or well before the newest commit.
	ErrClock = errors.New("system clock is wrong")
	// ErrBusy: the bounded queue is full.
	ErrBusy = errors.New("storage queue is full")
)

// damage is the error for bytes that are not what was written.
func damage(file string, offset int64, format string, args ...any) error {
	return fmt.Errorf("%w: %s at byte %d: %s; restore a backup, or run `muster repair --data DIR`, which says what is lost",
		ErrCorrupt, file, offset, fmt.Sprintf(format, args...))
}
