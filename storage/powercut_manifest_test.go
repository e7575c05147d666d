package storage

import (
	"encoding/binary"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/dgraph-io/badger/v4/pb"
	"google.golang.org/protobuf/proto"
)

// manifestRecord is a record of MANIFEST as Badger writes it.
func manifestRecord(t *testing.T, changes ...*pb.ManifestChange) []byte {
	t.Helper()
	body, err := proto.Marshal(&pb.ManifestChangeSet{Changes: changes})
	if err != nil {
		t.Fatal(err)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(body, castagnoli))
	return append(b, body...)
}

// Badger appends a record to MANIFEST and syncs it. When power ends in between, each sector of the
// record may be there or hold zeros, and the file may have any length up to the record's end.
// None of these is damage: Badger had not acted on the record yet.
func TestManifestWithATornLastRecordOpens(t *testing.T) {
	const sector = 512
	dir := t.TempDir()
	every := 1
	if raceDetector {
		every = 8
	}
	for start := sector - 80; start <= sector; start += every { // where the last record begins
		b := []byte{'B', 'd', 'g', 'r', 0, 0, 0, 8}
		id := uint64(1)
		want := map[uint64]manifestTable{}
		for len(b) < start-24 {
			b = append(b, manifestRecord(t, &pb.ManifestChange{Id: id, Op: pb.ManifestChange_CREATE})...)
			want[id] = manifestTable{}
			id++
		}
		for (start-len(b))%8 != 0 && len(b) < start { // records of other lengths, to reach every offset
			b = append(b, manifestRecord(t, &pb.ManifestChange{Id: id, Op: pb.ManifestChange_CREATE, Level: 1})...)
			want[id] = manifestTable{level: 1}
			id++
		}
		synced := len(b)
		var changes []*pb.ManifestChange
		for i := range uint64(12) {
			changes = append(changes, &pb.ManifestChange{Id: id + i, Op: pb.ManifestChange_CREATE, Level: 1})
		}
		b = append(b, manifestRecord(t, changes...)...)
		all := maps.Clone(want)
		for i := range uint64(12) {
			all[id+i] = manifestTable{level: 1}
		}
		for _, lost := range [][2]int{{synced, synced}, {synced, sector}, {max(sector, synced), len(b)}, {synced, len(b)}} {
			for _, end := range []int{synced, synced + 3, synced + 8, sector - 1, sector, sector + 5, len(b) - 1, len(b)} {
				if lost[0] > lost[1] || end < synced || end > len(b) {
					continue
				}
				torn := append([]byte(nil), b[:end]...)
				clear(torn[min(lost[0], end):min(lost[1], end)])
				whole := lost[0] >= lost[1] && end == len(b)
				checkTornManifest(t, dir, torn, int64(synced), want, all, whole)
			}
		}
	}
}

func checkTornManifest(t *testing.T, dir string, b []byte, synced int64, want, all map[uint64]manifestTable, whole bool) {
	t.Helper()
	name := filepath.Join(dir, "MANIFEST")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	db := &DB{fs: osFS{}, opt: Options{Dir: dir}.withDefaults()}
	man, err := readManifest(db.fs, name)
	if err != nil {
		t.Fatalf("%d bytes, synced %d: %v", len(b), synced, err)
	}
	inode, err := fileInode(db.fs, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.checkManifest(name, man, checkpoint{Inode: inode, Manifest: synced}); err != nil {
		t.Fatalf("%d bytes, synced %d: refused: %v", len(b), synced, err)
	}
	if whole {
		want = all
	}
	if !maps.Equal(man.tables, want) || man.length < synced {
		t.Fatalf("%d bytes, synced %d: %d tables in %d bytes, expected %d", len(b), synced, len(man.tables), man.length, len(want))
	}
}
