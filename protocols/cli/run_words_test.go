package cli

import (
	"testing"

	"github.com/muster-hub/muster/protocols/client"
)

// TestStepText looks at what a trace shows of the arguments of steps.
func TestStepText(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ op, args, want string }{
		{"fleet.run", `{"pattern":"p","params":{"a":1},"where":"*","wait":true,"timeout":"1m"}`, `fleet.run p {"a":1} where=* timeout=1m`},
		{"dev.run", `{"pattern":"p","timeout":"2h"}`, "dev.run p timeout=2h"},
		{"dev.call", `{"method":"m","online":"1h"}`, "dev.call m online=1h"},
	} {
		if got := stepText(&client.RunStep{Op: test.op, Args: []byte(test.args)}); got != test.want {
			t.Errorf("%s is %q, want %q", test.args, got, test.want)
		}
	}
}

// TestWaitingStep looks at what a trace says of a step that waits.
func TestWaitingStep(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ op, run, want string }{
		{"dev.call", "the device to connect, for method m", "waits for the device to connect, for method m"},
		{"dev.call", "method m", "waits for an answer of the device"},
		{"ctx.approve", "approval", "waits for approval"},
	} {
		if got := (&app{}).waiting(&client.RunStep{Op: test.op}, test.run); got != test.want {
			t.Errorf("%s of a run that waits for %s %s, want that it %s", test.op, test.run, got, test.want)
		}
	}
}
