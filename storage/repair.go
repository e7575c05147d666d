package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"

	"github.com/dgraph-io/badger/v4/pb"
	"google.golang.org/protobuf/proto"
)

// Repair brings a damaged directory, which no process has open, into a state that Open accepts. It
// keeps what can be read and says in Report.Actions what was cut or lost; it never loses
// anything silently. Damaged files are kept beside, with ".damaged" behind their names. A
// backup, when there is one, is the better way.
func Repair(ctx context.Context, o Options) (Report, error) {
	var r Report
	db, err := recoverStore(ctx, o.withDefaults(), osFS{}, tuning{}, mode{repair: true, report: &r})
	if err != nil {
		return r, err
	}
	var bad [][]byte
	err = db.audit(ctx, &r, func(key []byte, why error) {
		bad = append(bad, bytes.Clone(key))
	})
	for len(bad) > 0 && err == nil {
		n := min(len(bad), 100)
		err = db.Update(ctx, func(tx *Tx) error {
			for _, key := range bad[:n] {
				if err := tx.del(key); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			for _, key := range bad[:n] {
				r.act("removed %q, whose value is damaged", key)
			}
		}
		bad = bad[n:]
	}
	return r, errors.Join(err, db.Close())
}

// rescueFormat makes a new FORMAT for a directory whose own one cannot be read.
func (db *DB) rescueFormat(m mode, why error) (format, error) {
	f := newFormat(1, "")
	var c checkpoint
	if readText(db.fs, db.path(checkpointFile), &c, nil) == nil && len(c.Epoch) == 32 {
		f.EpochID = c.Epoch
	} else if id, ok := db.segmentEpoch(); ok {
		f.EpochID = id
	}
	m.report.act("FORMAT was damaged (%v): it was written anew, as epoch %s number %d", why, f.EpochID, f.Ordinal)
	return f, db.setAside(db.path(formatFile))
}

// segmentEpoch reads the epoch from any whole segment header.
func (db *DB) segmentEpoch() (string, bool) {
	dir := db.path(journalDir)
	entries, err := db.fs.ReadDir(dir)
	if err != nil {
		return "", false
	}
	for _, e := range entries {
		f, err := db.fs.OpenFile(filepath.Join(dir, e.Name()), os.O_RDONLY, 0)
		if err != nil {
			continue
		}
		var h [64]byte
		_, err = f.ReadAt(h[:], 0)
		if cerr := f.Close(); err == nil && cerr == nil && string(h[:8]) == segmentMagic &&
			binary.LittleEndian.Uint32(h[32:]) == crc32.Checksum(h[:32], castagnoli) {
			return fmt.Sprintf("%x", h[16:32]), true
		}
	}
	return "", false
}

// rescueKey makes a new master key where the right one is missing.
func (db *DB) rescueKey(m mode, why error) error {
	name := db.opt.masterKeyPath()
	if err := db.setAside(name); err != nil {
		return err
	}
	seal, err := loadMasterKey(db.fs, name, true)
	if err != nil {
		return err
	}
	db.seal = seal
	m.report.act("the master key was unusable (%v): a new one was made; everything that was sealed (keys of devices and policies, tokens) is lost and must be set again", why)
	return nil
}

// setAside renames a damaged file out of the way; an absent one is fine.
func (db *DB) setAside(name string) error {
	err := db.fs.Rename(name, name+".damaged")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// rebuildManifest lists every table file anew. Level 0 may hold tables in any order, since the
// newest version wins wherever it lies.
func (db *DB) rebuildManifest(m mode, why error) error {
	dir := db.path(badgerDir)
	name := filepath.Join(dir, "MANIFEST")
	entries, err := db.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	set := &pb.ManifestChangeSet{}
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".sst")
		if !ok {
			continue
		}
		var id uint64
		if _, err := fmt.Sscanf(base, "%d", &id); err != nil || tableName(id) != e.Name() {
			continue
		}
		set.Changes = append(set.Changes, &pb.ManifestChange{
			Id: id, Op: pb.ManifestChange_CREATE, Level: 0, Compression: uint32(tableCompression),
		})
	}
	if err := db.setAside(name); err != nil {
		return err
	}
	b := append([]byte("Bdgr"), 0, 0, 0, 8)
	if b, err = appendManifest(b, set); err != nil {
		return err
	}
	m.report.act("Badger's manifest was damaged (%v): it was made anew from %d table files; records deleted shortly before may be back", why, len(set.Changes))
	return writeDurably(db.fs, name, b, 0o600)
}

func appendManifest(b []byte, set *pb.ManifestChangeSet) ([]byte, error) {
	body, err := proto.Marshal(set)
	if err != nil {
		return nil, err
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(body, castagnoli))
	return append(b, body...), nil
}

// dropTable takes a damaged table out of the manifest and sets its file aside.
func (db *DB) dropTable(m mode, id uint64, why error) error {
	dir := db.path(badgerDir)
	name := filepath.Join(dir, "MANIFEST")
	man, err := readManifest(db.fs, name)
	if err != nil {
		return err
	}
	rec, err := appendManifest(nil, &pb.ManifestChangeSet{Changes: []*pb.ManifestChange{{Id: id, Op: pb.ManifestChange_DELETE}}})
	if err != nil {
		return err
	}
	f, err := db.fs.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = f.Truncate(man.length)
	if err == nil {
		_, err = f.WriteAt(rec, man.length)
	}
	if err == nil {
		err = f.Datasync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	m.report.act("table %s is damaged (%v): its records are lost, older versions of them and deleted records may be back", tableName(id), why)
	return db.setAside(filepath.Join(dir, tableName(id)))
}
