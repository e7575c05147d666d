package storage

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestMessagesKill kills a process (SIGKILL) in the middle of its appends, again and again, and
// checks that every position that it had printed as durable is there, with what was written.
func TestMessagesKill(t *testing.T) {
	rounds := scaled(20)
	if testing.Short() {
		rounds = 4
	}
	rng := seeded(t)
	dir := t.TempDir()
	for round := range rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMessagesKillChild$", "-test.v")
		cmd.Env = append(os.Environ(), "STORAGE_TEST_MESSAGES="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var acknowledged uint64
		enough := 500 + rng.IntN(4000)
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "child: ") {
				t.Error(lines.Text())
			}
			if c, _ := fmt.Sscanf(lines.Text(), "ack %d", &acknowledged); c == 1 {
				if n++; n == enough {
					if err := cmd.Process.Kill(); err != nil { // the lines that were written before are still read
						t.Error(err)
					}
				}
			}
		}
		_ = cmd.Wait() // killed
		tune := small()
		tune.messageSegment = 64 << 10
		db := mustOpen(t, testOptions(t, dir), osFS{}, tune)
		last := uint64(0)
		for e, err := range db.Messages().Read(0) {
			if err != nil || e.Position != last+1 || !strings.HasPrefix(string(e.Data), fmt.Sprint(e.Position, " ")) {
				t.Fatalf("round %d: entry %d after %d, %.20q, %v", round, e.Position, last, e.Data, err)
			}
			last = e.Position
		}
		if last < acknowledged || acknowledged == 0 {
			t.Fatalf("round %d: %d was acknowledged, %d is the last", round, acknowledged, last)
		}
		mustClose(t, db)
	}
}

// TestMessagesKillChild is the child of TestMessagesKill.
func TestMessagesKillChild(t *testing.T) {
	dir := os.Getenv("STORAGE_TEST_MESSAGES")
	if dir == "" {
		t.Skip("only TestMessagesKill runs it")
	}
	tune := small()
	tune.messageSegment = 64 << 10
	db, err := openWith(context.Background(), testOptions(t, dir), osFS{}, tune)
	if err != nil {
		fmt.Printf("child: %v\n", err)
		os.Exit(1)
	}
	turn := make(chan struct{}, 32)
	for n := db.Messages().Last() + 1; ; n++ {
		turn <- struct{}{}
		err := db.Messages().Append([]byte(fmt.Sprint(n, " ")+text(200, "k")), func(p uint64, err error) {
			if err != nil || p != n {
				fmt.Printf("child: message %d got position %d: %v\n", n, p, err)
			}
			fmt.Printf("ack %d\n", p)
			<-turn
		})
		if err != nil {
			fmt.Printf("child: %v\n", err)
			os.Exit(1)
		}
	}
}
