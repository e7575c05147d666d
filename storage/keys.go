package storage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// Every raw key is built here. Who owns which prefix:
//
//	t/<table>\x00<key>                      a record (table.go)
//	i/<table>/<index>\x00<index key><key>   an index entry (index.go); its value says where <key> begins
//	a/<log>\x00<position, 8 bytes>          log entries, the last one has this position (logpack.go)
//	l/<log>\x00<position, 8 bytes>          those of a chained log, and older ones of any (Log.place)
//	c/<name>                                a counter (counter.go)
//	u/<name>                                a cursor into a log (counter.go)
//
// Numbers are big-endian, so that the order of the bytes is their order. The prefix "!badger!" is
// Badger's own.
const (
	prefixTable   = "t/"
	prefixIndex   = "i/"
	prefixFront   = "a/"
	prefixLog     = "l/"
	prefixCounter = "c/"
	prefixCursor  = "u/"
)

// logPlaces are where the entries of a log may lie, the older ones first.
var logPlaces = [...]string{prefixLog, prefixFront}

// checkName panics on a name that cannot stand in a raw key: names are constants of the program.
func checkName(what, name string) {
	if name == "" || len(name) > 100 || strings.ContainsAny(name, "\x00/") {
		panic(fmt.Sprintf("storage: the %s name %q must have 1 to 100 bytes without '/' and zero", what, name))
	}
}

func tablePrefix(table string) []byte { return []byte(prefixTable + table + "\x00") }

func indexPrefix(table, index string) []byte {
	return []byte(prefixIndex + table + "/" + index + "\x00")
}

func logPrefix(place, log string) []byte { return []byte(place + log + "\x00") }

func logKey(prefix []byte, position uint64) []byte {
	return binary.BigEndian.AppendUint64(bytes.Clone(prefix), position)
}

func counterKey(name string) []byte { return []byte(prefixCounter + name) }

func cursorKey(name string) []byte { return []byte(prefixCursor + name) }

// splitLogKey returns the log's name and the position of a raw log key.
func splitLogKey(key []byte) (name string, position uint64, ok bool) {
	rest, ok := bytes.CutPrefix(key, []byte(prefixFront))
	if !ok {
		rest, ok = bytes.CutPrefix(key, []byte(prefixLog))
	}
	if !ok || len(rest) < 9 || rest[len(rest)-9] != 0 {
		return "", 0, false
	}
	return string(rest[:len(rest)-9]), binary.BigEndian.Uint64(rest[len(rest)-8:]), true
}

// splitIndexKey returns the raw key of the record that an index entry points to.
func splitIndexKey(key []byte, at int) (record []byte, table string, ok bool) {
	rest, ok := bytes.CutPrefix(key, []byte(prefixIndex))
	if !ok {
		return nil, "", false
	}
	table, _, ok = strings.Cut(string(rest), "/")
	if !ok || at <= len(prefixIndex) || at > len(key) {
		return nil, "", false
	}
	return append(tablePrefix(table), key[at:]...), table, true
}

// successor returns the smallest key above every key that begins with prefix; nil when there is none.
func successor(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xFF {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}
