package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/muster-hub/muster/storage"
)

func TestStoreErrorsHaveCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Code
	}{
		{storage.ErrReadOnly, CodeReadOnly},
		{storage.ErrReserve, CodeReadOnly},
		{fmt.Errorf("%w: %w", storage.ErrUncertain, errors.New("input/output error")), CodeUncertain},
		{fmt.Errorf("%w: %w", storage.ErrUncertain, context.Canceled), CodeCanceled},
		{fmt.Errorf("%w: %w", storage.ErrUncertain, context.DeadlineExceeded), CodeGatewayTimeout},
		{storage.ErrTooLarge, CodeTooLarge},
		{storage.ErrClock, CodeUnavailable},
		{storage.ErrBusy, CodeThrottled},
		{storage.ErrClosed, CodeClosed},
		{storage.ErrCorrupt, CodeInternal},
		{errors.Join(errf(CodeDeviceNotFound, "d"), storage.ErrClosed), CodeDeviceNotFound},
	} {
		if got := AsError(storeError(fmt.Errorf("wrapped: %w", c.err), "test")); got.Code != c.want {
			t.Errorf("%v: %v, want %s", c.err, got, c.want)
		}
	}
	if storeError(nil, "test") != nil {
		t.Error("nothing is an error")
	}
}
