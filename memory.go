package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/cli"
)

// shares say how a hub's memory is divided.
type shares struct {
	total   int64 // the runtime's soft limit
	store   int64 // of that, for the store's memtables and caches
	columns int64 // of that, for the columns of queries
}

const (
	mib = 1 << 20
	// What the store gets at least and at most: below, it can't work; above,
	// more does not help it.
	storeLeast, storeMost = 64 * mib, 1024 * mib
	// What the columns get at least: a small fleet's fit, and beyond it queries read documents.
	columnsLeast = 32 * mib
	// A hub whose memory can't be found out behaves as on a small machine.
	memoryUnknown = 1024 * mib
)

// gcMost lets the heap of a busy hub grow to three times what lives before it is collected: a hub
// allocates much and keeps little. Go's own 100 collects so often that the slowest of a hundred
// direct methods in flight takes 43 ms instead of 26. Near the memory limit the runtime collects
// earlier all the same.
const gcMost = 200

// divide shares out the memory asked for; 0 takes 70 % of what the machine or
// the cgroup has, whichever is less.
func divide(asked int64) shares {
	total := asked
	if total <= 0 {
		total = availableMemory("/") / 10 * 7
	}
	return shares{total: total, store: min(max(total/4, storeLeast), storeMost), columns: max(total/4, columnsLeast)}
}

// enough refuses less memory than the parts that can't do with less: the hub
// would go beyond it from the start, and the collector of garbage would never
// rest. What the machine leaves is another matter: a hub runs as well as it can.
func (s shares) enough(asked int64) error {
	if asked <= 0 || s.store+s.columns <= s.total {
		return nil
	}
	return &engine.Error{
		Code:    engine.CodeArgumentInvalid,
		Message: fmt.Sprintf("--memory %s is less than the %d MiB that the store and the columns of queries alone take", cli.Bytes(s.total), (s.store+s.columns)/mib),
		Next:    fmt.Sprintf("Give at least %dMiB, better %dMiB; a number without a unit is of bytes.", (storeLeast+columnsLeast)/mib, 2*storeLeast/mib),
	}
}

// doubt says what is not well about the memory, and what to do about it; both
// are empty when all is well.
func (s shares) doubt() (text, next string) {
	if have := availableMemory("/"); s.total > have {
		return fmt.Sprintf("the hub may take %d MiB, and the machine or cgroup has %d", s.total/mib, have/mib), fmt.Sprintf("The machine or cgroup has %d MiB: give --memory less than that.", have/mib)
	}
	if s.total < 2*storeLeast {
		return fmt.Sprintf("the hub may take %d MiB, %d of them for the store", s.total/mib, s.store/mib), fmt.Sprintf("Give --memory at least %d MiB.", 2*storeLeast/mib)
	}
	return "", ""
}

// availableMemory reads the machine's memory and the limits of the cgroups
// that this process is in, below root.
func availableMemory(root string) int64 {
	least := int64(math.MaxInt64)
	if n := machineMemory(filepath.Join(root, "proc/meminfo")); n > 0 {
		least = n
	}
	data, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err == nil {
		for line := range strings.Lines(string(data)) {
			group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::") // cgroup v2
			for ok {
				if n := number(filepath.Join(root, "sys/fs/cgroup", group, "memory.max")); n > 0 {
					least = min(least, n)
				}
				if group == "/" || group == "." || group == "" {
					break
				}
				group = filepath.Dir(group)
			}
		}
	}
	if n := number(filepath.Join(root, "sys/fs/cgroup/memory/memory.limit_in_bytes")); n > 0 { // cgroup v1
		least = min(least, n)
	}
	if least == math.MaxInt64 {
		return memoryUnknown
	}
	return least
}

func machineMemory(file string) int64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return 0
			}
			return kb << 10
		}
	}
	return 0
}

// number reads a file with one number; 0 when there is none, "max" included.
func number(file string) int64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
