package storage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"strconv"
)

// FORMAT and CHECKPOINT are one line of JSON and one line with its checksum, so that a person can
// read them and a flipped bit is found.

func encodeText(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(b, "\ncrc32c %08x\n", crc32.Checksum(b, castagnoli)), nil
}

func writeText(fs fsys, name string, v any) error {
	b, err := encodeText(v)
	if err != nil {
		return err
	}
	return writeDurably(fs, name, b, 0o600)
}

// readText reads what writeText wrote. peek sees the line before the checksum is judged.
func readText(fs fsys, name string, v any, peek func(line []byte) error) error {
	b, err := readWhole(fs, name, 1<<20)
	if err != nil {
		return err
	}
	return decodeText(name, b, v, peek)
}

// decodeText is readText of what was read from a file.
func decodeText(name string, b []byte, v any, peek func(line []byte) error) error {
	line, rest, ok := bytes.Cut(b, []byte("\n"))
	if peek != nil {
		if err := peek(line); err != nil {
			return err
		}
	}
	if !ok {
		return damage(name, int64(len(b)), "the line with the checksum is missing")
	}
	if want := fmt.Sprintf("crc32c %08x\n", crc32.Checksum(line, castagnoli)); string(rest) != want {
		return damage(name, int64(len(line)+1), "the checksum does not match")
	}
	if err := json.Unmarshal(line, v); err != nil {
		return damage(name, 0, "%v", err)
	}
	return nil
}

func exists(fs fsys, name string) (bool, error) {
	_, err := fs.Stat(name)
	if os.IsNotExist(err) {
		return false, nil
	}
	return err == nil, err
}

func utoa(n uint64) string { return strconv.FormatUint(n, 10) }
