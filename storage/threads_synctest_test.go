package storage

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestPaceThreads: more threads while level 0 is merged, as few as before at other times, and at
// the end.
func TestPaceThreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const few = 4
		began := time.Now()
		merging := func() bool {
			at := time.Since(began)
			return at >= time.Second && at < 3*time.Second || at >= 5*time.Second
		}
		type change struct {
			at time.Duration
			n  int
		}
		var changes []change
		closing := make(chan struct{})
		time.AfterFunc(6*time.Second-threadsLook/2, func() { close(closing) })
		paceThreads(closing, few, merging, func(n int) { changes = append(changes, change{time.Since(began), n}) })
		want := []change{
			{0, few}, {time.Second, few + mergeThreads}, {3 * time.Second, few}, {5 * time.Second, few + mergeThreads},
			{6*time.Second - threadsLook/2, few},
		}
		if !slices.Equal(changes, want) {
			t.Errorf("changes %v, want %v", changes, want)
		}
	})
}
