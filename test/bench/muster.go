package main

import (
	"context"
	"slices"

	"github.com/muster-hub/muster/storage"
)

// raw is the codec of records that are bytes already.
type raw struct{}

func (raw) Append(dst, v []byte) ([]byte, error) { return append(dst, v...), nil }
func (raw) Decode(b []byte) ([]byte, error)      { return slices.Clone(b), nil }

// musterStore does the work with Muster's storage package, as the engine uses
// it: one Update, a table with an index, a table of history, the change log.
type musterStore struct {
	db        *storage.DB
	documents *storage.Table[[]byte]
	history   *storage.Table[[]byte]
	log       *storage.Log
}

func openMuster(dir string, memory int64, threads int) (*musterStore, error) {
	db, err := storage.Open(context.Background(), storage.Options{Dir: dir, Memory: memory, Threads: threads})
	if err != nil {
		return nil, err
	}
	return &musterStore{
		db: db,
		documents: storage.NewTable[[]byte]("document", 1, raw{}, storage.Index[[]byte]{
			Name: "battery",
			Keys: func(_ storage.Key, doc []byte) []storage.Key {
				return []storage.Key{storage.Tuple(uint64(batteryOf(doc)))}
			},
		}),
		history: storage.NewTable[[]byte]("history", 1, raw{}),
		log:     storage.NewLog("changes", storage.LogOptions{}),
	}, nil
}

func (s *musterStore) load(n int) error {
	return s.db.BulkLoad(context.Background(), func(yield func(func(tx *storage.Tx) error) bool) {
		for i := range n {
			if !yield(func(tx *storage.Tx) error { return s.documents.Put(tx, storage.Tuple(documentID(i)), newDocument(i)) }) {
				return
			}
		}
	})
}

func (s *musterStore) update(ctx context.Context, c change) error {
	id := documentID(c.document)
	return s.db.Update(ctx, func(tx *storage.Tx) error {
		key := storage.Tuple(id)
		doc, err := s.documents.Get(tx, key)
		if err != nil {
			return err
		}
		r := c.apply(doc, tx.Now())
		if err := s.documents.Put(tx, key, r.document); err != nil {
			return err
		}
		if err := s.history.Put(tx, storage.Tuple(id, uint64(r.version)), r.history); err != nil {
			return err
		}
		return s.log.Append(tx, r.log)
	})
}

func (s *musterStore) versions() (sum int, err error) {
	err = s.db.View(context.Background(), func(r storage.Reader) error {
		for item, err := range s.documents.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			sum += versionOf(item.Value)
		}
		return nil
	})
	return sum, err
}

func (s *musterStore) stats() map[string]any {
	t := s.db.Stats()
	return map[string]any{
		"groups": t.Groups, "commits": t.Commits, "syncs": t.Syncs, "conflicts": t.Conflicts, "reprepared": t.Reprepared,
		"checkpoints": t.Checkpoints, "last_checkpoint_ms": t.CheckpointTime.Milliseconds(), "journal_waits": t.JournalWaits,
		"journal_segments": t.JournalSegments, "journal_mib": t.JournalBytes >> 20,
	}
}

// readable counts what the interface can read; the index is counted by its
// entries, which hold the record's key.
func (s *musterStore) readable() (rows, bytes int64, err error) {
	err = s.db.View(context.Background(), func(r storage.Reader) error {
		for _, t := range []*storage.Table[[]byte]{s.documents, s.history} {
			for item, err := range t.Scan(r, storage.Range{}) {
				if err != nil {
					return err
				}
				rows++
				bytes += int64(len(item.Key) + len(item.Value))
				if t == s.documents {
					rows++
					bytes += int64(len(storage.Tuple(uint64(0))) + len(item.Key))
				}
			}
		}
		for e, err := range s.log.Read(r, 0) {
			if err != nil {
				return err
			}
			rows++
			bytes += 8 + int64(len(e.Data))
		}
		return nil
	})
	return rows, bytes, err
}

func (s *musterStore) close() error { return s.db.Close() }
