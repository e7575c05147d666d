package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// memory is a process's resident memory in bytes; anonymous is the part that
// is not backed by a file.
type memory struct{ resident, anonymous int64 }

// memoryOf reads what the kernel says of a process.
func memoryOf(pid int) (memory, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return memory{}, err
	}
	var m memory
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "VmRSS:":
			m.resident = n << 10
		case "RssAnon:":
			m.anonymous = n << 10
		}
	}
	return m, nil
}

// cpuOf returns the processor time that a process has used, to 10 ms.
func cpuOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat is cut short", pid)
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * (time.Second / 100), nil
}

// ownCPU is the processor time of this process.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak follows a process's memory until ctx ends and keeps the most it saw.
type peak struct{ resident, anonymous atomic.Int64 }

func (p *peak) watch(ctx context.Context, pid int) {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		if m, err := memoryOf(pid); err == nil {
			p.resident.Store(max(p.resident.Load(), m.resident))
			p.anonymous.Store(max(p.anonymous.Load(), m.anonymous))
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// diskUse returns the bytes that a directory's files occupy: blocks, not
// lengths, since some files are sparse.
func diskUse(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // a file that was deleted meanwhile
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += st.Blocks * 512
			}
		}
		return nil
	})
	return sum
}

// syncTime is the median time to overwrite 8 KiB of a file and sync it: the
// floor of every durable write here.
func syncTime(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	page := bytes.Repeat([]byte{1}, 8<<10)
	var h histogram
	for i := range 300 {
		began := time.Now()
		if _, err := f.WriteAt(page, int64(i%16)*int64(len(page))); err != nil {
			return 0, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		if i >= 16 { // the file has its size
			h.add(time.Since(began))
		}
	}
	return h.summary().P50, nil
}

// machine says in a few lines where the figures come from.
func machine(dir string) string {
	field := func(file, key string) string {
		f, err := os.Open(file)
		if err != nil {
			return "?"
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == key {
				return strings.TrimSpace(v)
			}
		}
		return "?"
	}
	read := func(file string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			return "?"
		}
		return strings.TrimSpace(string(b))
	}
	var st syscall.Statfs_t
	kind := "?"
	if syscall.Statfs(dir, &st) == nil {
		kind = map[int64]string{0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x01021994: "tmpfs"}[int64(st.Type)]
		if kind == "" {
			kind = fmt.Sprintf("type %#x", st.Type)
		}
	}
	cpus, _ := os.ReadDir("/sys/devices/system/cpu")
	count := 0
	for _, c := range cpus {
		if _, err := strconv.Atoi(strings.TrimPrefix(c.Name(), "cpu")); err == nil {
			count++
		}
	}
	took := "?"
	if d, err := syncTime(dir); err == nil {
		took = d.Round(time.Microsecond).String()
	}
	return fmt.Sprintf("%d x %s; memory %s; Linux %s; %s, 8 KiB overwritten and synced in %s; load average %s",
		count, field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal"), read("/proc/sys/kernel/osrelease"), kind, took, read("/proc/loadavg"))
}

func mib(n int64) string { return strconv.FormatFloat(float64(n)/(1<<20), 'f', 0, 64) + " MiB" }
