package service

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine"
)

func TestExportIsPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttled := &engine.Error{Code: engine.CodeThrottled, Message: "later"}
		begun, calls := time.Now(), 0
		err := patiently(t.Context(), func() error {
			if calls++; calls < 4 {
				return throttled
			}
			return nil
		})
		if err != nil || calls != 4 || time.Since(begun) != 3*exportPause {
			t.Errorf("%v after %d calls and %s", err, calls, time.Since(begun))
		}
		begun = time.Now()
		if err := patiently(t.Context(), func() error { return throttled }); !errors.Is(err, throttled) || time.Since(begun) != exportPatience {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		other := &engine.Error{Code: engine.CodeQueryBudget}
		if err := patiently(t.Context(), func() error { return other }); !errors.Is(err, other) {
			t.Error(err)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		begun = time.Now()
		if err := patiently(gone, func() error { return throttled }); !errors.Is(err, throttled) || time.Since(begun) != 0 {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
	})
}
