package storage

import "time"

// Stats are the store's counters since Open and its gauges of this moment.
type Stats struct {
	Groups           uint64        // journal records written
	Commits          uint64        // transactions committed
	Conflicts        uint64        // transactions prepared again because a key that they read had changed
	Reprepared       uint64        // transactions prepared in the committer for any reason, conflicts included
	Syncs            uint64        // journal syncs
	JournalBytes     uint64        // bytes written to the journal
	DroppedSubmits   uint64        // submitted transactions that were refused or failed
	Checkpoints      uint64        // checkpoints taken
	CheckpointAge    time.Duration // since the newest checkpoint
	CheckpointTime   time.Duration // how long the newest checkpoint took
	JournalSegments  int           // segment files
	JournalWaits     uint64        // groups that waited for a free segment
	Visible          uint64        // newest visible sequence
	Unsettled        int           // groups that are visible and not yet in Badger
	Queue            int           // transactions that wait for the committer
	FreeBytes        int64         // free space of the file system when last looked
	ReserveBytes     int64         // free space below which only deletes and reads run
	DiskBytes        int64         // bytes of Badger's tables
	Replayed         uint64        // journal records replayed at Open
	ScannedTables    uint64        // tables checked by the background scan
	DamagedTables    uint64        // tables in which it found damage
	OldestSnapshot   uint64        // sequence of the oldest open snapshot
	MessageQueue     int           // messages that wait for the message log
	MessageBytes     int64         // bytes of the message log's segments
	MessageSyncs     uint64        // groups of messages written and synced
	LastGroupCommits int           // transactions in the newest group
}

// Epoch names one life of a data directory. Cursors, tokens and ETags carry it; a restore starts
// a new one.
type Epoch struct {
	ID      string    // 32 hexadecimal digits
	Ordinal uint32    // 1 for a new directory
	Started time.Time // UTC
}

// Sequence returns the newest visible commit. Whatever was acknowledged before the call is at or
// below it; a Backup that names it, or a higher one, holds that.
func (db *DB) Sequence() uint64 { return db.visible.Load() }
