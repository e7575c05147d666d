package scripting

import (
	"os"
	"testing"
)

// TestMain is a worker when a pool of a test has started it as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "__worker":
			exit(Worker(os.Stdin, os.Stdout))
		case "__worker-open": // the sandbox is off, the walls of the process stand
			exit(work(os.Stdin, os.Stdout, confine(), walls{open: true}))
		}
	}
	os.Exit(m.Run())
}

func exit(err error) {
	if err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

func testPool(t testing.TB, arg string, workers int) *Pool {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPool(Options{Command: []string{binary, arg}, Workers: workers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}
