package engine

import (
	"testing"
	"time"

	"github.com/muster-hub/muster/storage"
)

// A hub whose store does not answer does not work, and says so; before and
// after that it does. No write is made to find out.
func TestWorking(t *testing.T) {
	t.Parallel()
	h := openHub(t)
	ctx := t.Context()
	if err := h.Working(ctx, 0); err != nil {
		t.Fatalf("idle: %v", err)
	}
	syncs := h.db.Stats().Syncs
	for range 100 {
		if err := h.Working(ctx, 0); err != nil {
			t.Fatal(err)
		}
	}
	if n := h.db.Stats().Syncs; n != syncs {
		t.Errorf("the probe made %d syncs", n-syncs)
	}
	entered, release, answered := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		answered <- h.db.Update(ctx, func(tx *storage.Tx) error {
			tx.Add("test", 1)
			tx.OnCommit(func(uint64) {
				close(entered)
				<-release
			})
			return nil
		})
	}()
	<-entered
	for began := time.Now(); time.Since(began) < time.Millisecond; {
	}
	if err := h.Working(ctx, time.Millisecond); err == nil || AsError(err).Code != CodeUnavailable {
		t.Errorf("with a stuck committer: %v", err)
	}
	if err := h.Working(ctx, time.Hour); err != nil {
		t.Errorf("when an hour is allowed: %v", err)
	}
	close(release)
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	if err := h.Working(ctx, time.Minute); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
