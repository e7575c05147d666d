package storage

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/y"
	"github.com/klauspost/compress/snappy"
	"google.golang.org/protobuf/proto"
)

// This file reads the formats of Badger 4's files without Badger: before Badger opens them (it
// stops the process at some kinds of damage and ignores damaged tables at others), while it
// runs, and for Verify and Repair. It never maps a file: Badger truncates files that it deletes,
// and touching a mapped page behind the end kills the process.

// manifest is what Badger's MANIFEST says.
type manifest struct {
	tables  map[uint64]manifestTable
	first   string // length and checksum of the first record; another after each time that Badger wrote the file anew
	length  int64  // bytes up to the end of the last whole record
	size    int64  // bytes of the file
	badAt   int64  // offset of a record that is not whole although more follows, or has a wrong checksum; -1: none
	badLast bool   // no whole record follows the bad one: it was torn
}

type manifestTable struct {
	level       int
	compression options.CompressionType
}

const manifestHeader = 8

// readManifest parses MANIFEST. The error is for the header and for what cannot be read at all.
func readManifest(fs fsys, name string) (manifest, error) {
	b, err := readWhole(fs, name, 1<<30)
	if err != nil {
		return manifest{}, err
	}
	m := manifest{tables: map[uint64]manifestTable{}, size: int64(len(b)), badAt: -1}
	if len(b) < manifestHeader || string(b[:4]) != "Bdgr" || binary.BigEndian.Uint16(b[6:]) != 8 {
		return m, damage(name, 0, "the header is not that of Badger 4's manifest")
	}
	at := int64(manifestHeader)
	for {
		m.length = at
		if at+8 > int64(len(b)) {
			return m, nil
		}
		n := int64(binary.BigEndian.Uint32(b[at:]))
		if at+8+n > int64(len(b)) { // cut short: an incomplete last record, or a damaged length
			if recordFollows(b, at) {
				m.badAt = at
			}
			return m, nil
		}
		body := b[at+8 : at+8+n]
		bad := crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[at+4:])
		var set pb.ManifestChangeSet
		if !bad {
			bad = proto.Unmarshal(body, &set) != nil
		}
		if bad {
			m.badAt, m.badLast = at, !recordFollows(b, at)
			return m, nil
		}
		for _, c := range set.GetChanges() {
			if c.GetOp() == pb.ManifestChange_DELETE {
				delete(m.tables, c.GetId())
				continue
			}
			m.tables[c.GetId()] = manifestTable{level: int(c.GetLevel()), compression: options.CompressionType(c.GetCompression())}
		}
		if m.first == "" {
			m.first = hex.EncodeToString(b[at : at+8])
		}
		at += 8 + n
	}
}

// recordFollows reports whether a whole record with content begins anywhere behind at. Badger
// syncs each record before it writes the next, so a record torn by a power cut is the last one,
// and what its lost sectors leave may look like anything but that.
func recordFollows(b []byte, at int64) bool {
	for at++; at+8 < int64(len(b)); at++ {
		n := int64(binary.BigEndian.Uint32(b[at:]))
		if n == 0 || at+8+n > int64(len(b)) {
			continue
		}
		body := b[at+8 : at+8+n]
		if crc32.Checksum(body, castagnoli) == binary.BigEndian.Uint32(b[at+4:]) && proto.Unmarshal(body, new(pb.ManifestChangeSet)) == nil {
			return true
		}
	}
	return false
}

// memScan is what a write-ahead log of a memtable (.mem) holds up to some place.
type memScan struct {
	length      int64  // end of the last whole transaction
	first, last uint64 // lowest and highest version; 0 when it is empty
}

const memHeader = 20

// scanMem reads transactions of a .mem from offset s.length on and returns where it ended. It
// stops before the first transaction above limit, so that what Badger is just writing is not
// looked at. With check, checksums are verified too.
func scanMem(fs fsys, name string, s memScan, limit uint64, check bool) (memScan, error) {
	f, err := fs.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return s, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return s, err
	}
	if s.length < memHeader {
		s.length = memHeader
	}
	buf := make([]byte, 0, 1<<20)
	start, at := s.length, s.length // start: file offset of buf[0]
	fill := func(n int64) ([]byte, bool) {
		if n < 0 || at+n > size {
			return nil, false
		}
		if at-start+n <= int64(len(buf)) {
			return buf[at-start : at-start+n], true
		}
		start = at
		want := min(max(n, 1<<20), size-at)
		if int64(cap(buf)) < want {
			buf = make([]byte, want)
		}
		buf = buf[:want]
		got, rerr := f.ReadAt(buf, start)
		if rerr != nil && rerr != io.EOF {
			err = rerr
			return nil, false
		}
		buf = buf[:got]
		if int64(got) < n {
			return nil, false
		}
		return buf[:n], true
	}
	var inTxn bool
	var txn uint64
	for {
		h, ok := fill(min(32, size-at))
		if !ok || len(h) < 5 {
			return s, err
		}
		meta := h[0]
		i := 2
		klen, w := binary.Uvarint(h[i:])
		if w <= 0 {
			return s, err
		}
		i += w
		vlen, w := binary.Uvarint(h[i:])
		if w <= 0 {
			return s, err
		}
		i += w
		_, w = binary.Uvarint(h[i:])
		if w <= 0 {
			return s, err
		}
		i += w
		if klen < 8 || klen > 1<<16 || vlen > 1<<31 {
			return s, err
		}
		total := int64(i) + int64(klen) + int64(vlen) + 4
		e, ok := fill(total)
		if !ok {
			return s, err
		}
		if check && crc32.Checksum(e[:total-4], castagnoli) != binary.BigEndian.Uint32(e[total-4:]) {
			return s, err
		}
		version := y.ParseTs(e[i : i+int(klen)])
		if version > limit {
			return s, err
		}
		at += total
		switch {
		case meta&(1<<7) != 0: // end of a transaction
			v, perr := strconv.ParseUint(string(e[i+int(klen):total-4]), 10, 64)
			if perr != nil || !inTxn || v != txn {
				return s, err
			}
			inTxn = false
		case meta&(1<<6) != 0:
			if inTxn && version != txn {
				return s, err
			}
			inTxn, txn = true, version
			continue
		default:
			if inTxn {
				return s, err
			}
			txn = version
		}
		s.length = at
		if s.first == 0 || txn < s.first {
			s.first = txn
		}
		s.last = max(s.last, txn)
	}
}

// memFiles lists the .mem files of a directory with their sizes.
func memFiles(fs fsys, dir string) (map[string]int64, error) {
	entries, err := fs.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	sizes := map[string]int64{}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".mem") {
			continue
		}
		st, err := fs.Stat(filepath.Join(dir, e.Name()))
		switch {
		case err == nil:
			sizes[e.Name()] = st.Size()
		case !errors.Is(err, os.ErrNotExist):
			return nil, err
		}
	}
	return sizes, nil
}

func tableName(id uint64) string { return fmt.Sprintf("%06d.sst", id) }

// tableCheck reads one table from end to end and verifies the checksum of its index and of
// each block; newest is the highest version in it. pause is called after each block with its length; an error of it ends the check.
func tableCheck(fs fsys, name string, c options.CompressionType, pause func(n int) error) (newest uint64, err error) {
	f, err := fs.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	at := size
	back := func(n int64, what string) ([]byte, error) {
		if n < 0 || n > at {
			return nil, damage(name, at, "%s has the length %d", what, n)
		}
		at -= n
		b := make([]byte, n)
		if _, err := f.ReadAt(b, at); err != nil {
			return nil, err
		}
		return b, nil
	}
	number := func(what string) (int64, error) {
		b, err := back(4, what)
		if err != nil {
			return 0, err
		}
		return int64(binary.BigEndian.Uint32(b)), nil
	}
	n, err := number("the footer")
	if err != nil {
		return newest, err
	}
	raw, err := back(n, "the index checksum")
	if err != nil {
		return newest, err
	}
	sum := &pb.Checksum{}
	if proto.Unmarshal(raw, sum) != nil {
		return newest, damage(name, at, "the index checksum cannot be read")
	}
	if n, err = number("the index length"); err != nil {
		return newest, err
	}
	index, err := back(n, "the index")
	if err != nil {
		return newest, err
	}
	if len(index) < 8 || !sumMatches(index, sum) {
		return newest, damage(name, at, "the checksum of the index does not match")
	}
	ti := fb.GetRootAsTableIndex(index, 0)
	newest = ti.MaxVersion()
	var bo fb.BlockOffset
	var packed, plain []byte
	for i := range ti.OffsetsLength() {
		if !ti.Offsets(&bo, i) {
			return newest, damage(name, at, "block %d is not in the index", i)
		}
		off, n := int64(bo.Offset()), int64(bo.Len())
		if off+n > at {
			return newest, damage(name, off, "block %d ends behind the index", i)
		}
		if int64(cap(packed)) < n {
			packed = make([]byte, n)
		}
		b := packed[:n]
		if _, err := f.ReadAt(b, off); err != nil {
			return newest, err
		}
		if c == options.Snappy {
			if plain, err = snappy.Decode(plain[:cap(plain)], b); err != nil {
				return newest, damage(name, off, "block %d cannot be decompressed", i)
			}
			b = plain
		}
		if !blockMatches(b) {
			return newest, damage(name, off, "the checksum of block %d does not match", i)
		}
		if err := pause(int(n)); err != nil {
			return newest, err
		}
	}
	return newest, nil
}

// blockMatches verifies a block: data, checksum, length of the checksum.
func blockMatches(b []byte) bool {
	if len(b) < 8 {
		return false
	}
	n := int64(binary.BigEndian.Uint32(b[len(b)-4:]))
	end := int64(len(b)) - 4 - n
	if end < 4 || n > 64 {
		return false
	}
	sum := &pb.Checksum{}
	if proto.Unmarshal(b[end:len(b)-4], sum) != nil {
		return false
	}
	return sumMatches(b[:end], sum)
}

// sumMatches accepts Badger's default algorithm only: a flipped bit must not select another one.
func sumMatches(data []byte, sum *pb.Checksum) bool {
	return sum.GetAlgo() == pb.Checksum_CRC32C && sum.GetSum() == uint64(crc32.Checksum(data, castagnoli))
}
