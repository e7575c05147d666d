package engine

import (
	"testing"

	"github.com/muster-hub/muster/engine/twin"
)

func TestFirstTouchAfterRestoreRaisesDesiredVersionOnce(t *testing.T) {
	r := newTwinRecord("1")
	r.Desired = r.Desired.WithVersion(7)
	r.enter(1)
	if v := r.Desired.Version(); v != 7 {
		t.Errorf("in the first epoch the version is %d", v)
	}
	r.enter(3) // two restores without a write between
	r.enter(3)
	if v := r.Desired.Version(); v != 2_000_007 {
		t.Errorf("version %d, want 2000007", v)
	}
	b, err := twinCodec{}.Append(nil, r)
	if err != nil {
		t.Fatal(err)
	}
	again, err := twinCodec{}.Decode(b)
	if err != nil || again.Epoch != 3 || again.Desired.Version() != 2_000_007 {
		t.Errorf("read again: epoch %d, version %d, %v", again.Epoch, again.Desired.Version(), err)
	}
	again.Desired = again.Desired.WithVersion(twin.New(twin.Desired).Version())
	if again.enter(3); again.Desired.Version() != 1 {
		t.Error("a record of this epoch was raised")
	}
}
