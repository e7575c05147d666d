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
