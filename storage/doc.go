// Package storage keeps typed records, indexes, logs, counters, cursors and sealed secrets in one
// data directory, so that what was acknowledged survives kill -9 and power cuts. It knows no
// word of any domain, and it is the only package that imports Badger.
//
// # How a change becomes durable
//
// Update runs in two halves. The first runs in the caller's goroutine on a snapshot and remembers
// what it read. The second runs in the one committer, which verifies that nothing of it has
// changed (else it prepares again), and gathers all that waits into one group. A group is one
// journal record, written and synced once, then visible, then acknowledged. Three goroutines do
// that, so that a group gathers while the one before syncs (commit.go, journal.go). A fourth
// hands groups over to Badger afterwards, several at once (settle.go); until then readers look
// through them first.
//
// Badger never syncs by itself. Checkpoints sync its files beside the writers and record, outside
// Badger, up to which sequence they are complete and how long they were (checkpoint.go). Open
// verifies what the record vouches for, repairs what lies past it, and replays the journal from
// there (recover.go, replay.go). The docs describe the files: docs/reference/storage-format.md.
//
// # What is promised
//
//   - A change that was acknowledged is there after any crash. One that was not is there wholly
//     or not at all.
//   - A reader sees one state, and only what is durable. Whoever got the answer of an Update
//     reads its effects from then on.
//   - Transactions are serializable: what one read is what it would read at its commit.
//   - Damage is named, with file and offset where it can be, and never skipped.
//   - After a failed write or sync nothing more is written until a restart.
//
// # Beside the tables
//
// Messages (directory "messages") are append-only segment files with their own retention, never
// Badger. Blobs (directory "blobs") are files named by their SHA-256, made by temporary name, sync,
// rename and sync of the directory, counted by references in a table. Backup and restore are
// streams of one snapshot, taken while serving; a restore starts a new epoch. What a program has
// computed from all records can be kept from one Close to the next Open (kept.go).
package storage
