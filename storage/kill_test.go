package storage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestKill kills a child under load with SIGKILL at a random moment, opens its directory, compares
// it with what the child had acknowledged through a pipe, and goes on with the same directory.
// Each writer of the child writes its keys in turn, so that the state must be that after its
// last acknowledged operation or after the one behind it.
func TestKill(t *testing.T) {
	if os.Getenv("STORAGE_TEST_CHILD") != "" {
		t.Skip("this is the child")
	}
	rounds := scaled(100)
	if testing.Short() {
		rounds = 10
	}
	rng := seeded(t)
	const lanes = 4
	var wg sync.WaitGroup
	for lane := range lanes {
		seed := rng.Uint64()
		wg.Go(func() { killLane(t, rounds/lanes, rand.New(rand.NewPCG(seed, uint64(lane)))) })
	}
	wg.Wait()
}

const (
	killWriters = 6
	killKeys    = 20
)

func killLane(t *testing.T, rounds int, rng *rand.Rand) {
	dir, err := os.MkdirTemp(t.TempDir(), "lane")
	if err != nil {
		t.Error(err)
		return
	}
	next := make([]uint64, killWriters) // the first operation of the coming round
	acknowledged := 0
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKillChild$", "-test.v")
		cmd.Env = append(os.Environ(), "STORAGE_TEST_CHILD="+dir, "STORAGE_TEST_NEXT="+strings.Trim(fmt.Sprint(next), "[]"))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Error(err)
			return
		}
		var complaint strings.Builder
		cmd.Stderr = &complaint
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return
		}
		last := make([]uint64, killWriters)
		for w := range last {
			last[w] = next[w] - min(1, next[w])
		}
		var once sync.Once
		var timer *time.Timer
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var w int
			var op uint64
			if n, _ := fmt.Sscanf(lines.Text(), "ack %d %d\n", &w, &op); n == 2 {
				once.Do(func() { // the load runs: now choose the moment
					timer = time.AfterFunc(time.Duration(rng.IntN(400))*time.Millisecond, func() { _ = cmd.Process.Kill() })
				})
				last[w] = op
				acknowledged++
			} else if strings.Contains(lines.Text(), "child:") {
				t.Error(lines.Text())
			}
		}
		err = cmd.Wait()
		if timer == nil || err == nil || err.Error() != "signal: killed" {
			t.Errorf("round %d: the child was not killed: %v\n%s", round, err, complaint.String())
			return
		}
		timer.Stop()
		if !killCheck(t, dir, last, next) {
			t.Errorf("round %d", round)
			return
		}
	}
	t.Logf("%d operations acknowledged in %d rounds", acknowledged, rounds)
}

// killCheck compares and sets next to where each writer stands. It opens and closes the store
// every time, which the child does not.
func killCheck(t *testing.T, dir string, last, next []uint64) bool {
	db, err := openWith(context.Background(), testOptions(t, dir), osFS{}, small())
	if err != nil {
		t.Errorf("open after a kill: %v", err)
		return false
	}
	ok := true
	err = db.View(context.Background(), func(r Reader) error {
		var logged int64
		for w := range killWriters {
			done, err := Cursor(r, fmt.Sprint("writer", w))
			if err != nil {
				return err
			}
			if done < last[w] || done > last[w]+1 {
				t.Errorf("writer %d: the store is at operation %d, acknowledged were %d", w, done, last[w])
				ok = false
			}
			next[w] = done + 1
			logged += int64(done)
			want := map[int]uint64{}
			for op := uint64(1); op <= done; op++ {
				if k := int(op % killKeys); op%11 == 0 {
					delete(want, k)
				} else {
					want[k] = op
				}
			}
			for k := range killKeys {
				v, err := docs().Get(r, Tuple(uint64(w), uint64(k)))
				if errors.Is(err, ErrNotFound) {
					err = nil
				}
				if err != nil {
					return err
				}
				if uint64(v.Number) != want[k] {
					t.Errorf("writer %d key %d: found operation %d, want %d", w, k, v.Number, want[k])
					ok = false
				}
			}
		}
		n, err := Counter(r, "operations")
		if n != logged || err != nil {
			t.Errorf("counter %d, %v, want %d", n, err, logged)
			ok = false
		}
		if n, bad, err := auditLog().Verify(context.Background(), r); n != uint64(logged) || bad != 0 || err != nil {
			t.Errorf("log: %d entries, bad %d, %v, want %d", n, bad, err, logged)
			ok = false
		}
		return nil
	})
	if err != nil {
		t.Error(err)
		ok = false
	}
	if err := db.Close(); err != nil {
		t.Error(err)
		ok = false
	}
	return ok
}

// TestKillChild is the child of TestKill.
func TestKillChild(t *testing.T) {
	dir := os.Getenv("STORAGE_TEST_CHILD")
	if dir == "" {
		t.Skip("only TestKill runs it")
	}
	var next [killWriters]uint64
	for w, s := range strings.Fields(os.Getenv("STORAGE_TEST_NEXT")) {
		if _, err := fmt.Sscan(s, &next[w]); err != nil {
			t.Fatalf("child: %v", err)
		}
	}
	o := testOptions(t, dir)
	o.CheckpointEvery = 30 * time.Millisecond
	o.CheckpointBytes = 200 << 10
	db, err := openWith(context.Background(), o, osFS{}, small())
	if err != nil {
		fmt.Printf("child: %v\n", err)
		os.Exit(1)
	}
	var out sync.Mutex
	var wg sync.WaitGroup
	for w := range killWriters {
		wg.Go(func() {
			for op := max(1, next[w]); ; op++ {
				err := db.Update(context.Background(), func(tx *Tx) error {
					key := Tuple(uint64(w), op%killKeys)
					tx.Add("operations", 1)
					tx.SetCursor(fmt.Sprint("writer", w), op)
					if err := auditLog().Append(tx, fmt.Appendf(nil, "%d %d", w, op)); err != nil {
						return err
					}
					if op%11 == 0 {
						return docs().Delete(tx, key)
					}
					return docs().Put(tx, key, doc{City: fmt.Sprint(op % 5), Number: int64(op), Text: text(700, fmt.Sprint(op, " "))})
				})
				out.Lock()
				if err != nil {
					fmt.Printf("child: %v\n", err)
				} else {
					fmt.Printf("ack %d %d\n", w, op)
				}
				out.Unlock()
			}
		})
	}
	wg.Wait()
}
