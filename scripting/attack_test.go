package scripting

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/pattern"
)

// attack is a body of run that means no good.
type attack struct {
	name string
	body string
	// ends says that the attack is over by itself, without any harm: the sandbox
	// lets it, or what it needs is not there.
	ends bool
	// outside says that only the walls of a worker stop it.
	outside bool
}

// attacks are those of testdata/attacks.txt.
func attacks(t *testing.T) []attack {
	t.Helper()
	text, err := os.ReadFile("testdata/attacks.txt")
	if err != nil {
		t.Fatal(err)
	}
	var list []attack
	for part := range strings.SplitSeq("\n"+string(text), "\n== ") {
		head, body, ok := strings.Cut(part, "\n")
		if !ok || strings.HasPrefix(part, "\n#") {
			continue
		}
		name, marks, _ := strings.Cut(head, " | ")
		list = append(list, attack{name: name, body: body, ends: strings.Contains(marks, "ends"), outside: strings.Contains(marks, "outside")})
	}
	return list
}

func bundleOf(body string) *pattern.Bundle {
	return &pattern.Bundle{Files: map[string][]byte{pattern.MainFile: []byte(`return pattern { name = "x", version = "1.0.0", run = function(dev, p, ctx) ` + body + ` end }`)}}
}

func activationOf() pattern.Activation {
	return pattern.Activation{Run: "r-1", Attempt: 1, Device: "d1", Entry: pattern.EntryRun}
}

// TestAttacksInside lets the sandbox alone stop each attack.
func TestAttacksInside(t *testing.T) {
	for _, a := range attacks(t) {
		if a.outside {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			p, err := Compile(bundleOf(a.body))
			if err != nil {
				t.Fatal(err)
			}
			in := activationOf()
			o := Execute(p, &in)
			if most := insideMost; o.Cost.Time > most {
				t.Errorf("took %s, at most %s", o.Cost.Time, most)
			}
			if a.ends == (o.Ending == pattern.EndFailed) {
				t.Errorf("ended %s: %v", o.Ending, o.Fault)
			}
			if most := int64(pattern.MaxInstructions) * 4; o.Cost.Instructions > most {
				t.Errorf("ran %d instructions, at most %d", o.Cost.Instructions, most)
			}
			size := len(o.Result)
			for _, s := range o.Steps {
				size += len(s.Args) + len(s.Result)
			}
			for _, l := range o.Logs {
				size += len(l.Text)
			}
			for _, k := range o.Kept {
				size += len(k)
			}
			if o.Fault != nil {
				size += len(o.Fault.Message) + len(o.Fault.Cause) + len(o.Fault.Payload)
				for _, line := range o.Fault.Trace {
					size += len(line)
				}
			}
			if most := pattern.MaxJournal + pattern.MaxValue + pattern.MaxLogs*(pattern.MaxLogLine+3); size > most {
				t.Errorf("the outcome has %d bytes, at most %d", size, most)
			}
		})
	}
}

// TestAttacksOutside takes the sandbox away: gopher-lua's own libraries, no
// budget. The worker's walls alone must stop each attack, and the next activation
// must not notice.
func TestAttacksOutside(t *testing.T) {
	p := testPool(t, "__worker-open", 2)
	good := bundleOf(`return 1`)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i, a := range attacks(t) {
		if raceDetector && i%10 != 0 { // most take their whole second
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			o := activateOne(t, p, bundleOf(a.body))
			if o.Fault != nil {
				o.Fault.Message = clip(o.Fault.Message, 100)
			}
			t.Logf("%s %v", o.Ending, o.Fault)
			if o := activateOne(t, p, good); o.Ending != pattern.EndReturned {
				t.Errorf("the next one: %v", o)
			}
		})
	}
	t.Cleanup(func() {
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 20<<20 {
			t.Errorf("the pool's process has %d bytes more in its heap", grown)
		}
		t.Logf("%+v", p.Stats())
	})
}

// activateOne runs an activation, again when the machine had no time for it.
func activateOne(t *testing.T, p *Pool, b *pattern.Bundle) pattern.Outcome {
	t.Helper()
	for try := 1; ; try++ {
		o, err := p.Activate(t.Context(), b, []pattern.Activation{activationOf()})
		if err == nil {
			return o[0]
		}
		if try == 10 {
			t.Fatal(err)
		}
	}
}
