package storage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestRepairKeepsMessages: of a damaged segment repair keeps what can be read before and behind the
// damage, the newest or an older one, and says which messages are lost and when they were stored.
// What it writes is whole for verify, and no position comes twice.
func TestRepairKeepsMessages(t *testing.T) {
	const size = messageRecord + 100 // of each record
	at := func(n int) int { return messageFileHeader + (n-1)*size }
	for _, c := range []struct {
		name   string
		harm   func(b []byte) []byte
		lost   []uint64 // positions, of 20
		says   []string
		aside  []uint64 // files beside, by position
		older  bool     // the same for a segment that is not the newest
		unsure bool     // how many are lost is not known
		cut    bool     // as a power cut that no sync had come before may leave the end
	}{
		{name: "one record", harm: func(b []byte) []byte { b[at(7)+50] ^= 1; return b }, lost: []uint64{7},
			says: []string{"message 7 is lost, stored not before 20", ", stored not after 20", fmt.Sprintf("bytes %d to %d", at(7), at(8)-1)}, aside: []uint64{7}, older: true},
		{name: "the first record", harm: func(b []byte) []byte { b[at(1)+50] ^= 1; return b }, lost: []uint64{1},
			says: []string{"message 1 is lost, stored not after 20"}, aside: []uint64{1}, older: true},
		{name: "two places", harm: func(b []byte) []byte { b[at(3)+50] ^= 1; b[at(15)+60] ^= 1; return b }, lost: []uint64{3, 15},
			says: []string{"message 3 is lost", "message 15 is lost"}, aside: []uint64{3, 15}, older: true},
		{name: "a length", harm: func(b []byte) []byte { b[at(7)+1] ^= 0xff; return b }, lost: []uint64{7},
			says: []string{"message 7 is lost"}, aside: []uint64{7}, older: true},
		{name: "a length that leads into another record", harm: func(b []byte) []byte { b[at(7)] ^= 7; return b }, lost: []uint64{7},
			says: []string{"message 7 is lost"}, aside: []uint64{7}, older: true},
		{name: "zeros", harm: func(b []byte) []byte { clear(b[at(4)+30 : at(9)+5]); return b }, lost: []uint64{4, 5, 6, 7, 8, 9},
			says: []string{"6 messages, positions 4 to 9, are lost, stored not before 20"}, aside: []uint64{4}, older: true},
		{name: "the header", harm: func(b []byte) []byte { clear(b[:messageFileHeader]); return b },
			says: []string{"header", "written anew"}, older: true},
		{name: "the end, cut off", harm: func(b []byte) []byte { b[at(5)+50] ^= 1; return b[:at(12)+3] }, lost: []uint64{5, 12, 13, 14, 15, 16, 17, 18, 19, 20},
			says: []string{"message 5 is lost", "the messages from position 12 on are lost, at most 1, stored not before 20"}, aside: []uint64{5, 12}, cut: true},
		{name: "all of it", harm: func(b []byte) []byte { return bytes.Repeat([]byte{7}, len(b)) }, lost: upTo(20),
			says: []string{"the messages from position 1 on are lost, at most"}, aside: []uint64{1}, older: true, unsure: true},
	} {
		for _, newest := range []bool{true, false} {
			if !newest && !c.older {
				continue
			}
			t.Run(fmt.Sprintf("%s, newest %t", c.name, newest), func(t *testing.T) {
				o, tune := testOptions(t, t.TempDir()), small()
				tune.messageSegment = int64(at(21))
				db := mustOpen(t, o, osFS{}, tune)
				for range 20 { // one by one: each says that those before it are durable
					appendMessages(t, db, 1, text(98, "y"))
				}
				if !newest {
					appendMessages(t, db, 3, "behind")
				}
				name, last := db.Messages().path(1), db.Messages().Last()
				mustClose(t, db)
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if len(b) < at(21) {
					t.Fatalf("%d bytes, %d are 20 records", len(b), at(21))
				}
				if err := os.WriteFile(name, c.harm(slices.Clone(b[:at(21)])), 0o600); err != nil {
					t.Fatal(err)
				}
				r, err := Repair(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				said := strings.Join(r.Actions, "\n")
				for _, want := range append(c.says, name) {
					if !strings.Contains(said, want) {
						t.Errorf("repair does not say %q:\n%s", want, said)
					}
				}
				for _, p := range c.aside {
					aside := db.Messages().path(p) + ".damaged"
					if _, err := os.Stat(aside); err != nil || !strings.Contains(said, aside) {
						t.Errorf("%s: %v; said:\n%s", filepath.Base(aside), err, said)
					}
				}
				if _, err := Verify(t.Context(), o); err != nil {
					t.Errorf("verify: %v", err)
				}
				db = mustOpen(t, o, osFS{}, tune)
				defer mustClose(t, db)
				var got, want []uint64
				for e, err := range db.Messages().Read(0) {
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, e.Position)
				}
				for p := uint64(1); p <= last; p++ {
					if !slices.Contains(c.lost, p) {
						want = append(want, p)
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("left are %d, want %d", got, want)
				}
				appendMessages(t, db, 1, "new")
				if p := db.Messages().Last(); c.unsure && p <= last || !c.unsure && !c.cut && p != last+1 || c.cut && p != 13 {
					t.Errorf("the next message has position %d after %d", p, last)
				}
				if err := db.Health(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func upTo(n uint64) (list []uint64) {
	for p := uint64(1); p <= n; p++ {
		list = append(list, p)
	}
	return list
}

// TestRepairOfMessagesThatFails: whatever operation of a repair fails, what could be read before can be
// read after the next, also where the damage is in the newest segment.
func TestRepairOfMessagesThatFails(t *testing.T) {
	whole := testOptions(t, t.TempDir())
	db := mustOpen(t, whole, osFS{}, small())
	for range 20 {
		appendMessages(t, db, 1, text(98, "y"))
	}
	name := db.Messages().path(1)
	mustClose(t, db)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{3, 9} {
		b[messageFileHeader+n*(messageRecord+100)+50] ^= 1
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	failures := 0
	for n := 1; ; n++ {
		o := whole
		o.Dir = filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(o.Dir, os.DirFS(whole.Dir)); err != nil {
			t.Fatal(err)
		}
		fs := &messagesFail{left: n}
		var r Report
		db, err := recoverStore(t.Context(), o.withDefaults(), fs, small(), mode{repair: true, report: &r})
		if db != nil && err == nil {
			mustClose(t, db)
		}
		if fs.left > 0 { // it needs no more
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		failures++
		if !errors.Is(err, errMessagesFail) {
			t.Fatalf("operation %d: %v", n, err)
		}
		if _, err := Repair(t.Context(), o); err != nil {
			t.Fatalf("after operation %d: %v", n, err)
		}
		if _, err := Verify(t.Context(), o); err != nil {
			t.Errorf("after operation %d: verify: %v", n, err)
		}
		db = mustOpen(t, o, osFS{}, small())
		if got := countMessages(t, db); got != 18 {
			t.Errorf("after operation %d: %d messages, want 18", n, got)
		}
		appendMessages(t, db, 1, "new")
		if p := db.Messages().Last(); p < 21 {
			t.Errorf("after operation %d: position %d came twice", n, p)
		}
		mustClose(t, db)
	}
	if failures < 8 {
		t.Errorf("%d operations of a repair were made to fail", failures)
	}
}

var errMessagesFail = errors.New("made to fail")

// messagesFail fails an operation on the message log's directory, and all after it.
type messagesFail struct {
	osFS
	left int // operations that succeed, and 1
}

func (f *messagesFail) fails(name string) bool {
	if !strings.Contains(name, string(filepath.Separator)+messageDir) {
		return false
	}
	f.left--
	return f.left <= 0
}

func (f *messagesFail) OpenFile(name string, flag int, perm os.FileMode) (file, error) {
	if flag&(os.O_RDWR|os.O_CREATE) != 0 && f.fails(name) {
		return nil, errMessagesFail
	}
	opened, err := f.osFS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &messagesFailFile{opened, f, name}, nil
}

func (f *messagesFail) Rename(from, to string) error {
	if f.fails(from) {
		return errMessagesFail
	}
	return f.osFS.Rename(from, to)
}

func (f *messagesFail) SyncDir(name string) error {
	if f.fails(name) {
		return errMessagesFail
	}
	return f.osFS.SyncDir(name)
}

type messagesFailFile struct {
	file
	fs   *messagesFail
	name string
}

func (f *messagesFailFile) WriteAt(b []byte, at int64) (int, error) {
	if f.fs.fails(f.name) {
		return 0, errMessagesFail
	}
	return f.file.WriteAt(b, at)
}

func (f *messagesFailFile) Truncate(size int64) error {
	if f.fs.fails(f.name) {
		return errMessagesFail
	}
	return f.file.Truncate(size)
}

func (f *messagesFailFile) Datasync() error {
	if f.fs.fails(f.name) {
		return errMessagesFail
	}
	return f.file.Datasync()
}
