// The command bench measures Muster and, beside it, what people would use
// instead, doing the same work on the same machine in the same minutes. Each
// subcommand prints its raw figures and then the targets with their verdicts.
//
//	bench storage   updates of 1 KB documents: Muster, Pebble, Badger, PostgreSQL
//	bench mqtt      the same through MQTT sessions over TLS against a running hub
//	bench method    direct methods through REST
//	bench start     time until devices are served: first, second, large, killed
//	bench telemetry messages at QoS 1 over TLS, beside Mosquitto
//	bench events    subscribers of the event stream over TLS
//	bench webhooks  events posted to endpoints over TLS
//	bench backup    updates while a backup is made
//	bench idle      memory and processor time of idle connections
//	bench storm     a fleet that loses its network in one moment, and comes back
//	bench live      what live queries cost the updates of twins
//	bench query     queries over a million twins, beside PostgreSQL and SQLite
//	bench jobs      jobs over a fleet beside plain updates, previews, configurations
//	bench patterns  workers, waiting runs, resumed ones, a procedure beside plain Go
//	bench soak      memory, goroutines, files and disk of a hub under steady work
//
// run.sh builds everything and calls it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return errors.New("name a subcommand: storage, mqtt, telemetry, method, events, webhooks, backup, start, idle, storm, query, live, jobs, patterns or soak")
	}
	if args[0] == "worker" { // the child of storage
		return workerCommand(ctx, args[1:], stdout, stderr)
	}
	if args[0] == "bare" { // the child of idle
		return bareCommand(ctx, args[1:], stdout)
	}
	if args[0] == "readers" { // the child of storm
		return readersCommand(ctx, args[1:], os.Stdin, stdout)
	}
	commands := map[string]func(context.Context, []string, io.Writer) error{
		"storage": storageCommand, "mqtt": mqttCommand, "method": methodCommand, "start": startCommand, "idle": idleCommand,
		"telemetry": telemetryCommand, "events": eventsCommand, "webhooks": webhooksCommand, "storm": stormCommand, "soak": soakCommand, "backup": backupCommand, "query": queryCommand,
		"live": liveCommand, "jobs": jobsCommand, "patterns": patternsCommand,
	}
	command, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("subcommand %q is not known, expected storage, mqtt, telemetry, method, events, webhooks, backup, start, idle, storm, query, live, jobs, patterns or soak", args[0])
	}
	shown := slices.Clone(args)
	if i := slices.Index(shown, "-muster"); i >= 0 && i+1 < len(shown) { // run.sh adds it
		shown = slices.Delete(shown, i, i+2)
	}
	fmt.Fprintf(stdout, "command: test/bench/run.sh %s\ndate: %s\n", strings.Join(shown, " "), time.Now().UTC().Format(time.RFC3339))
	return command(ctx, args[1:], stdout)
}
