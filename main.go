// Command muster is a device hub in one program: the hub itself, and the
// command line that manages it.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/muster-hub/muster/protocols/cli"
)

// version is what the next release will be called.
const version = "0.1.0"

// exitForced is the exit code after a second signal: the hub did not wait for
// its drain, and the next start recovers as after kill -9.
const exitForced = 11

func main() {
	asWorker()
	started := time.Now()
	ctx, stop := context.WithCancel(context.Background())
	signals, reload := make(chan os.Signal, 2), make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if os.Getenv("NOTIFY_SOCKET") != "" {
		signal.Notify(reload, syscall.SIGHUP) // a service manager asks
	} else {
		signal.Notify(signals, syscall.SIGHUP) // the terminal went away
	}
	go func() { // ends with the process
		obey(signals, stop)
		os.Exit(exitForced)
	}()
	b := readBuild()
	code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv, hooks(b, started, reload))
	stop()
	os.Exit(code)
}

// sameSignal is how long after the first signal the same one again is an echo:
// timeout(1) signals its child and then the child's whole group.
const sameSignal = 500 * time.Millisecond

// obey stops at the first signal, and returns when a second one asks for the
// end at once.
func obey(signals <-chan os.Signal, stop func()) {
	first := <-signals
	at := time.Now()
	stop()
	for s := range signals {
		if s != first || time.Since(at) >= sameSignal {
			return
		}
	}
}

// build is what the binary knows about its making.
type build struct {
	version string    // with the revision when it is known
	date    time.Time // of the revision; zero = unknown
}

func readBuild() build {
	b := build{version: version}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.version += "+" + s.Value[:min(len(s.Value), 12)]
		case "vcs.time":
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
				b.date = t
			}
		}
	}
	return b
}

// hooks are the commands that need no running hub: they are the hub, or work
// on its files.
func hooks(b build, started time.Time, reload <-chan os.Signal) cli.Hooks {
	return cli.Hooks{
		Version: b.version,
		Serve: func(ctx context.Context, f cli.ServeFlags, io cli.IO) error {
			return serve(ctx, f, io, b, started, reload)
		},
		Verify:        verify,
		Repair:        repair,
		AckSource:     ackSource,
		Backup:        backupHooks(),
		Upgrade:       func(f cli.UpgradeFlags) ([]cli.Finding, error) { return checkUpgrade(f, b, time.Now()) },
		CheckConfig:   checkConfig,
		DoctorOffline: doctorOffline,
		DoctorMachine: examineMachine,
		Author:        authorHooks(),
		ExitCode:      exitCode,
	}
}
