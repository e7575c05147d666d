package main

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"

	"github.com/muster-hub/muster/protocols"
	"github.com/muster-hub/muster/protocols/cli"
	"github.com/muster-hub/muster/scripting"
)

// workerCommand is the hidden command by which the binary becomes a worker for
// patterns.
const workerCommand = "__worker"

// asWorker runs a worker for patterns, when that is what the process was started
// for, and never returns then. Nothing else of the binary runs in a worker.
func asWorker() {
	if len(os.Args) != 2 || os.Args[1] != workerCommand {
		return
	}
	if err := scripting.Worker(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// scriptWorkers makes the pool of workers that run patterns; none starts before
// it is needed.
func scriptWorkers(f cli.ServeFlags, log *slog.Logger) (*scripting.Pool, error) {
	binary := "/proc/self/exe" // also when an upgrade has replaced the file meanwhile
	if runtime.GOOS != "linux" {
		var err error
		if binary, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	return scripting.NewPool(scripting.Options{Command: []string{binary, workerCommand}, Workers: f.Workers, Logger: log})
}

// workerStats tells of the workers for metrics.
func workerStats(p *scripting.Pool) func() protocols.WorkerStats {
	return func() protocols.WorkerStats {
		s := p.Stats()
		return protocols.WorkerStats{Alive: s.Workers, Busy: s.Busy, Waiting: s.Waiting, Starts: s.Starts, Crashes: s.Crashes, Kills: s.Kills, Waited: s.Queued}
	}
}
