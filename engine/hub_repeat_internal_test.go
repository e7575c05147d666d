package engine

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestFailingWorkIsToldOnceAMinute: it is tried as often as ever.
func TestFailingWorkIsToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		h := &Hub{log: slog.New(slog.NewTextHandler(&log, nil))}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute+time.Millisecond)
		defer cancel()
		tries := 0
		h.regularly(ctx, time.Second, "sweep", func(context.Context) error { tries++; return errors.New("the disk is full") })
		if lines := strings.Count(log.String(), "the disk is full"); tries != 180 || lines != 3 {
			t.Errorf("%d tries and %d lines in three minutes", tries, lines)
		}
	})
}
