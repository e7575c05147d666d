package scripting

import (
	"testing"

	"github.com/muster-hub/muster/engine/pattern"
)

// TestLinesTellTheirStep: a line that was written behind a step which fails when
// it is stored is written again, and those before it are not.
func TestLinesTellTheirStep(t *testing.T) {
	t.Parallel()
	p, err := Compile(&pattern.Bundle{Files: map[string][]byte{pattern.MainFile: []byte(`
return pattern { name = "lines", version = "1.0.0", needs = { "twin:tags" }, run = function(dev, p, ctx)
  ctx:log("before")
  local ok = pcall(dev.tag, dev, { a = 1 })
  ctx:log("behind", ok)
end }`)}})
	if err != nil {
		t.Fatal(err)
	}
	var run pattern.Run
	run.State = pattern.Ready
	for run.State == pattern.Ready {
		a := pattern.Activation{Run: "r-1", Attempt: 1, Device: "device-1"}
		run.Fill(&a)
		o := Execute(p, &a)
		if err := run.Take(&o, refusing{}, pattern.Needs{"twin:tags"}, a.Now); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, l := range run.Logs {
		got = append(got, l.Text)
	}
	if len(got) != 2 || got[0] != "before" || got[1] != "behind false" || run.State != pattern.Succeeded {
		t.Errorf("it is %s, %v, and wrote %q", run.State, run.Fault, got)
	}
}

// refusing is a world in which every step fails.
type refusing struct{}

func (refusing) Begin(*pattern.Run, *pattern.Step) (pattern.Answer, error) {
	return pattern.Answer{Fault: &pattern.Fault{Code: pattern.FaultConflict, Message: "no"}}, nil
}
func (refusing) Withdraw(*pattern.Run, *pattern.Step) error { return nil }
