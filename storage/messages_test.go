package storage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// appendMessages stores n messages and waits for the last.
func appendMessages(t *testing.T, db *DB, n int, data string) {
	t.Helper()
	var wg sync.WaitGroup
	before := uint64(0)
	for i := range n {
		wg.Add(1)
		err := db.Messages().Append(fmt.Appendf(nil, "%s %d", data, i), func(p uint64, err error) {
			if err != nil || p <= before {
				t.Errorf("message %d: position %d after %d, %v", i, p, before, err)
			}
			before = p
			wg.Done()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}

func readMessages(t *testing.T, db *DB, after uint64) (n int, last uint64) {
	t.Helper()
	for e, err := range db.Messages().Read(after) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Position <= after || last != 0 && e.Position != last+1 {
			t.Fatalf("position %d after %d", e.Position, last)
		}
		n, last = n+1, e.Position
	}
	return n, last
}

func TestShare(t *testing.T) {
	db := mustOpen(t, testOptions(t, t.TempDir()), osFS{}, small())
	defer mustClose(t, db)
	if n, err := db.Share(1000); n != 1000 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(db.opt.Dir, &st); err != nil {
		t.Fatal(err)
	}
	if n, err := db.Share(1 << 62); n != int64(st.Blocks)*int64(st.Bsize)/10 || err != nil {
		t.Errorf("%d of %d blocks, %v", n, st.Blocks, err)
	}
}

// TestMessagesStayWithinTheirSize: nobody calls Trim while somebody floods.
func TestMessagesStayWithinTheirSize(t *testing.T) {
	o, tune := testOptions(t, t.TempDir()), small()
	tune.messageSegment, tune.messageBytes = 8<<10, 32<<10
	db := mustOpen(t, o, osFS{}, tune)
	defer mustClose(t, db)
	for range 100 {
		appendMessages(t, db, 20, text(100, "x"))
		if n := db.Stats().MessageBytes; n > tune.messageBytes+2*tune.messageSegment {
			t.Fatalf("the log has %d bytes, %d are allowed", n, tune.messageBytes)
		}
	}
	if n, last := readMessages(t, db, 0); last != 2000 || n < 100 || n > 500 {
		t.Errorf("%d messages up to %d are left", n, last)
	}
}

// TestOldSegmentsAreNotReadFromTheFront: after a restart nothing is known of where records begin in
// old segments. A reader who goes through one page by page must not read all of it for each page.
func TestOldSegmentsAreNotReadFromTheFront(t *testing.T) {
	o, tune := testOptions(t, t.TempDir()), small()
	tune.messageSegment = 4 << 20
	db := mustOpen(t, o, osFS{}, tune)
	for range 60 {
		appendMessages(t, db, 10, text(10<<10, "x"))
	}
	mustClose(t, db)
	db = mustOpen(t, o, osFS{}, tune)
	defer mustClose(t, db)
	l := db.Messages()
	old := l.segments[0]
	if len(l.segments) < 2 || len(old.marks) != 0 {
		t.Fatalf("%d segments, the oldest with %d marks: not what the test is about", len(l.segments), len(old.marks))
	}
	for after := uint64(0); after < 600; after += 20 { // pages
		n := uint64(0)
		for e, err := range l.Read(after) {
			if err != nil || e.Position != after+n+1 {
				t.Fatalf("%d after %d, %v", e.Position, after, err)
			}
			if n++; n == 20 {
				break
			}
		}
	}
	if want := int(old.size / messageMarkEvery); len(old.marks) < want-1 {
		t.Errorf("%d marks are remembered, %d are expected", len(old.marks), want)
	}
	for i, m := range old.marks[1:] {
		if before := old.marks[i]; m.offset <= before.offset || m.position <= before.position {
			t.Errorf("mark %+v after %+v", m, before)
		}
	}
	if n, last := readMessages(t, db, 300); n != 300 || last != 600 {
		t.Errorf("%d messages up to %d after 300", n, last)
	}
}

func TestMessagesSurviveAndTrim(t *testing.T) {
	o, tune := testOptions(t, t.TempDir()), small()
	tune.messageSegment = 8 << 10
	db := mustOpen(t, o, osFS{}, tune)
	for range 20 {
		appendMessages(t, db, 20, text(100, "x"))
	}
	mustClose(t, db)
	db = mustOpen(t, o, osFS{}, tune)
	defer mustClose(t, db)
	if n, last := readMessages(t, db, 0); n != 400 || last != 400 {
		t.Fatalf("%d messages up to %d", n, last)
	}
	if n, _ := readMessages(t, db, 399); n != 1 {
		t.Fatalf("%d messages after 399", n)
	}
	if n, err := db.Messages().Trim(time.Time{}, 16<<10); n == 0 || err != nil {
		t.Fatalf("trimmed %d, %v", n, err)
	}
	first := db.Messages().First()
	if n, last := readMessages(t, db, 0); first == 1 || uint64(n) != 401-first || last != 400 {
		t.Fatalf("%d messages from %d to %d", n, first, last)
	}
	if _, err := db.Messages().Trim(time.Now().Add(time.Hour), 0); err != nil {
		t.Fatal(err)
	}
	appendMessages(t, db, 1, "next")
	if got := db.Messages().Last(); got != 401 {
		t.Fatalf("last is %d after trimming", got)
	}
}

// TestMessagesPositionsGoOn: whatever is trimmed, and however often the store
// is opened again, no position comes twice.
func TestMessagesPositionsGoOn(t *testing.T) {
	o := testOptions(t, t.TempDir())
	last := uint64(0)
	for round := range 4 {
		db := mustOpen(t, o, osFS{}, small())
		l := db.Messages()
		if l.Last() != last || l.First() != last+1 {
			t.Fatalf("round %d: positions %d to %d, want none after %d", round, l.First(), l.Last(), last)
		}
		if round != 2 { // in which nothing comes
			appendMessages(t, db, 5, "old")
			last += 5
		}
		future := time.Now().Add(time.Hour)
		for deadline := time.Now().Add(10 * time.Second); l.First() <= l.Last(); {
			if time.Now().After(deadline) {
				t.Fatalf("messages %d to %d are never trimmed", l.First(), l.Last())
			}
			if _, err := l.Trim(future, 0); err != nil {
				t.Fatal(err)
			}
		}
		if n, _ := readMessages(t, db, 0); n != 0 || l.Last() != last {
			t.Errorf("round %d: %d messages are left, the last position is %d", round, n, l.Last())
		}
		mustClose(t, db)
		if r, err := Verify(t.Context(), o); err != nil {
			t.Fatalf("%v, %q", err, r.Problems)
		}
	}
	db := mustOpen(t, o, osFS{}, small())
	defer mustClose(t, db)
	appendMessages(t, db, 1, "new")
	if n, got := readMessages(t, db, 0); n != 1 || got != last+1 {
		t.Errorf("%d messages, the last at %d; want one at %d", n, got, last+1)
	}
}

func TestMessagesTornTailAndDamage(t *testing.T) {
	o := testOptions(t, t.TempDir())
	db := mustOpen(t, o, osFS{}, small())
	for range 4 {
		appendMessages(t, db, 1, text(1000, "y"))
	}
	mustClose(t, db)
	name := filepath.Join(o.Dir, messageDir, fmt.Sprintf("%020d.log", 1))
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	whole = bytes.TrimRight(whole, "\x00") // the room behind the records
	for cut := len(whole) - 1; cut > len(whole)-1000; cut -= 111 {
		if err := os.WriteFile(name, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		db = mustOpen(t, o, osFS{}, small())
		if n, _ := readMessages(t, db, 0); n != 3 {
			t.Fatalf("%d messages of a file cut at %d", n, cut)
		}
		mustClose(t, db)
	}
	bad := append([]byte(nil), whole...)
	bad[messageFileHeader+1500] ^= 1 // the second record
	if err := os.WriteFile(name, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = openWith(t.Context(), o, osFS{}, small())
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), name) {
		t.Fatalf("a damaged record: %v", err)
	}
	repairMessages(t, o, 3)
}

// repairMessages repairs, and expects that n messages are left and that new ones can be stored.
func repairMessages(t *testing.T, o Options, n int) {
	t.Helper()
	if r, err := Repair(t.Context(), o); err != nil || len(r.Actions) == 0 {
		t.Fatalf("repair: %v, %q", err, r.Actions)
	}
	db := mustOpen(t, o, osFS{}, tuning{})
	if got := countMessages(t, db); got != n {
		t.Fatalf("%d messages after a repair, %d were whole", got, n)
	}
	appendMessages(t, db, 2, "new")
	mustClose(t, db)
	if r, err := Verify(t.Context(), o); err != nil {
		t.Fatalf("verify after a repair: %v, %q", err, r.Problems)
	}
}

func TestMessagesDamagedOldSegment(t *testing.T) {
	o, tune := testOptions(t, t.TempDir()), small()
	tune.messageSegment = 1 << 10
	db := mustOpen(t, o, osFS{}, tune)
	for range 3 { // each a segment
		appendMessages(t, db, 20, text(100, "z"))
	}
	name := db.Messages().path(1)
	mustClose(t, db)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), o); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), name) {
		t.Fatalf("verify: %v", err)
	}
	db = mustOpen(t, o, osFS{}, tune)
	var last error
	for _, err := range db.Messages().Read(0) {
		last = err
	}
	health := db.Health()
	mustClose(t, db)
	if !errors.Is(last, ErrCorrupt) || !errors.Is(health, ErrCorrupt) {
		t.Fatalf("read: %v; the store's health: %v", last, health)
	}
	repairMessages(t, o, 59)
	db = mustOpen(t, o, osFS{}, tune) // now the newest, with older ones before it
	name = db.Messages().path(db.Messages().segments[len(db.Messages().segments)-1].first)
	left := countMessages(t, db) - messagesIn(db.Messages(), len(db.Messages().segments)-1)
	mustClose(t, db)
	if err := os.WriteFile(name, make([]byte, 500), 0o600); err != nil {
		t.Fatal(err)
	}
	repairMessages(t, o, left)
}

// messagesIn says how many messages segment i holds; nothing may be written meanwhile.
func messagesIn(l *MessageLog, i int) int {
	end := l.Last() + 1
	if i+1 < len(l.segments) {
		end = l.segments[i+1].first
	}
	return int(end - l.segments[i].first)
}

func TestMessagesFailedSync(t *testing.T) {
	fs := &faultFS{}
	db := mustOpen(t, testOptions(t, t.TempDir()), fs, small())
	defer db.Close() // it has failed
	appendMessages(t, db, 3, "fine")
	fs.set(func(op, name string) error {
		if op == "sync" && strings.Contains(name, messageDir) {
			return unix.EIO
		}
		return nil
	})
	answer := make(chan error, 1)
	if err := db.Messages().Append([]byte("lost"), func(_ uint64, err error) { answer <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; !errors.Is(err, ErrUncertain) {
		t.Fatalf("the answer is %v", err)
	}
	if err := db.Messages().Append(nil, nil); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("after it: %v", err)
	}
	if n, _ := readMessages(t, db, 0); n != 3 {
		t.Fatalf("%d messages", n)
	}
}

func FuzzMessageRecord(f *testing.F) {
	f.Add(appendMessage(nil, 1, 2, 0, []byte("hello")))
	f.Add([]byte("\xff\xff\xff\xff0123456789012345678901234567"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, durable, size, ok := decodeMessage(b)
		if ok && string(appendMessage(nil, e.Position, e.Time.UnixNano(), durable, e.Data)) != string(b[:size]) {
			t.Fatal("a record that was read differs from the one that it is written as")
		}
	})
}

func countMessages(t *testing.T, db *DB) (n int) {
	t.Helper()
	for _, err := range db.Messages().Read(0) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}
