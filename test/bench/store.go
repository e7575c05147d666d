package main

import (
	"context"
	"fmt"
	"time"
)

// store is one of the embedded stores that do the work.
type store interface {
	// load writes the first n documents with their index entries.
	load(n int) error
	// update runs one durable transaction. It may be called concurrently.
	update(ctx context.Context, c change) error
	// versions is the sum of the versions of all documents, to prove that no
	// acknowledged update is missing.
	versions() (int, error)
	// stats are figures of the store's own, for the report.
	stats() map[string]any
	// readable counts the rows and bytes (keys and values) that can be read.
	readable() (rows, bytes int64, err error)
	close() error
}

// openStore opens one of the stores by its name. memory is what it may use for
// memtables and caches, and threads how many run Go (0: it leaves that alone), for
// those that have such a setting.
func openStore(name, dir string, memory int64, threads int) (store, error) {
	switch name {
	case "muster":
		return openMuster(dir, memory, threads)
	case "pebble":
		return openPebble(dir, memory)
	case "badger":
		return openNaive(dir)
	default:
		return nil, fmt.Errorf("store %q is not known, expected muster, pebble or badger", name)
	}
}

// stamp is the time of an update where the store gives none.
func stamp() time.Time { return time.Now().UTC() }
