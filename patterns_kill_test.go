package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// managedBehaviour is that of the devices of TestPatternsSurviveKills: quick ones,
// whose answers take long enough for a hub to die before they come.
const managedBehaviour = "managed: true\nmethod_delay: 150ms\ninterval: 1h\nrestart: 600ms\nstage: 50ms\ntags: {site: [lyon, oslo]}\n"

// patternDrill is how a shipped pattern is run over the fleet, and what must hold
// afterwards.
type patternDrill struct {
	name   string
	params []string
	// sure says that the pattern gives no command that may come to be uncertain.
	sure bool
	// commands are the names of those that a device takes once for each run.
	commands []string
	// proof selects the devices on which it has succeeded.
	proof string
}

func patternDrills() []patternDrill {
	return []patternDrill{
		{"reboot", []string{"within=PATIENCE"}, false, []string{"reboot"}, "reported.boot.reason = 'reboot'"},
		{"configure", []string{"section=pump", `settings={"rpm":900}`, "within=PATIENCE"}, true, []string{"pump"}, "reported.pump.rpm = 900 AND reported.configuration.pump.status = 'applied'"},
		{"firmware-update", []string{"version=2.1.0", "url=https://files.example/fw", "sha256=9f2c41aa", "soak=500ms", "download=PATIENCE", "restart=PATIENCE", "retries=0"}, false, []string{"firmware", "firmwareConfirm"}, "reported.firmware.state = 'good' AND reported.firmware.version = '2.1.0'"},
		{"report-status", []string{"retries=0", "within=PATIENCE"}, false, []string{"reportStatus"}, "reported.status.version = '2.1.0'"},
		{"factory-reset", []string{"reason=a drill", "within=PATIENCE"}, false, []string{"factoryReset"}, "reported.factoryReset.status = 'done' AND tags.lifecycle = 'in-stock'"},
	}
}

// TestPatternsSurviveKills runs five shipped patterns over a simulated fleet, each
// by one command, and kills the hub while they run. Every run ends as it should:
// with success, or as uncertain where the hub died between a command and its
// answer and the device shows nothing of it. No device gets a command twice.
//
// It is small in `go test`, and as the environment says in test/fleet/run.sh.
func TestPatternsSurviveKills(t *testing.T) {
	t.Parallel()
	number := func(name string, small int) int {
		n, err := strconv.Atoi(os.Getenv(name))
		if os.Getenv(name) == "" {
			return small
		}
		if err != nil || n < 0 {
			t.Fatalf("%s is no number", name)
		}
		return n
	}
	p := &patternFleet{fleet: newFleet(t), devices: number("MUSTER_PATTERN_DEVICES", 100), kills: number("MUSTER_PATTERN_KILLS", 1)}
	p.begin()
	for _, d := range patternDrills() {
		p.drill(d)
	}
	p.interrupt(p.simulator)
}

// patternFleet is a fleet whose devices do what patterns ask of them, and note
// what that was.
type patternFleet struct {
	*fleet
	devices, kills int
	simulator      *exec.Cmd
	log            string
}

// begin starts the hub and the devices.
func (p *patternFleet) begin() {
	p.t.Helper()
	p.start(p.data)
	p.log = filepath.Join(p.dir, "commands.jsonl")
	behaviour := filepath.Join(p.dir, "managed.yaml")
	if err := os.WriteFile(behaviour, []byte(managedBehaviour), 0o600); err != nil {
		p.t.Fatal(err)
	}
	c := exec.Command(p.binary, "simulate", "--data", p.data, "--devices", strconv.Itoa(p.devices), "--behaviour", behaviour, "--command-log", p.log, "--quiet", "-o", "json") //nolint:noctx // ended by interrupt
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.simulator = c
	p.t.Cleanup(func() {
		if c.ProcessState == nil {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
		if p.t.Failed() {
			p.t.Logf("the simulator said: %s", &said)
		}
	})
	p.allBack(p.devices)
	p.until("all devices have said what they are", func(context.Context) (string, bool) {
		n := p.count("reported.boot.count > 0")
		return strconv.Itoa(n), n == p.devices
	})
}

// query runs a query and returns its rows, without the header.
func (p *patternFleet) query(text string) [][]string {
	p.t.Helper()
	rows, err := csv.NewReader(strings.NewReader(p.muster(0, "query", "--data", p.data, "-o", "csv", text))).ReadAll()
	if err != nil || len(rows) == 0 {
		p.t.Fatalf("%s: %v, %v", text, rows, err)
	}
	return rows[1:]
}

// count counts the devices that a condition selects.
func (p *patternFleet) count(where string) int {
	p.t.Helper()
	rows := p.query("SELECT COUNT() AS n FROM devices WHERE " + where)
	if len(rows) == 0 {
		return 0
	}
	n, err := strconv.Atoi(rows[0][0])
	if err != nil {
		p.t.Fatalf("COUNT() gave %v", rows)
	}
	return n
}

// drill runs a pattern over the whole fleet by one command, with kills meanwhile,
// and looks at what came of it.
func (p *patternFleet) drill(d patternDrill) {
	p.t.Helper()
	before, began := len(p.commands()), time.Now()
	job := p.run(d)
	for k := range p.kills {
		p.until("commands are taken", func(ctx context.Context) (string, bool) {
			p.approve(ctx, d)
			taken := len(p.commands()) - before
			return fmt.Sprintf("%d of %d", taken, p.devices), taken >= p.devices*(k+1)/(p.kills+1)
		})
		p.kill(syscall.SIGKILL)
		p.start(p.data)
	}
	p.until("the job "+d.name+" has ended", func(ctx context.Context) (string, bool) {
		p.approve(ctx, d)
		j, err := p.service.Job(ctx, job)
		return fmt.Sprintf("%s %+v, %v", j.Status, j.Total, err), err == nil && j.Final()
	})
	states, doubtful := p.ended(d, job)
	p.once(d, before, doubtful)
	if have := p.count(d.proof); have < states["succeeded"] {
		p.t.Errorf("%s: %d runs have succeeded, and %d devices show it", d.name, states["succeeded"], have)
	}
	var lines []string
	n := 0
	for _, row := range p.query(fmt.Sprintf("SELECT phase, state, COUNT() AS n FROM devices.runs WHERE pattern = '%s' GROUP BY phase, state", d.name)) {
		lines = append(lines, strings.Join(row, " "))
		c, err := strconv.Atoi(row[len(row)-1])
		if err != nil {
			p.t.Fatalf("COUNT() gave %v", row)
		}
		n += c
	}
	if n != p.devices {
		p.t.Errorf("%s: a query finds %d runs by phase, want %d", d.name, n, p.devices)
	}
	p.t.Logf("%s: %d devices, %d kills, %.1f s, load average %s: %v; by phase: %s", d.name, p.devices, p.kills, time.Since(began).Seconds(), load(), states, strings.Join(lines, "; "))
}

// patience is how long evidence may take: devices that have lost a hub again and
// again wait up to half a minute, and more, before they try once more.
func (p *patternFleet) patience() string {
	if p.kills > 1 {
		return "3m"
	}
	return "40s"
}

// run starts a pattern over the fleet and returns its job.
func (p *patternFleet) run(d patternDrill) string {
	p.t.Helper()
	args := []string{
		"pattern", "run", d.name, "--data", p.data, "--where", "tags.simulated == true",
		"--waves", "100%", "--parallel", strconv.Itoa(max(p.devices/4, 1)), "--pause-at", "1000000", "--yes", "--over-most", "--no-watch",
	}
	for _, param := range d.params {
		args = append(args, "--param", strings.ReplaceAll(param, "PATIENCE", p.patience()))
	}
	var job struct{ ID string }
	p.json(&job, args...)
	if job.ID == "" {
		p.t.Fatalf("muster %s gave no job", strings.Join(args, " "))
	}
	return job.ID
}

// approve agrees to whatever the runs of a drill ask.
func (p *patternFleet) approve(ctx context.Context, d patternDrill) {
	p.t.Helper()
	if d.name != "factory-reset" {
		return
	}
	if _, err := p.service.DecideRuns(ctx, client.RunFilter{Pattern: d.name, Asks: true}, true, "a drill"); err != nil {
		p.t.Logf("approve: %v", err)
	}
}

// ended looks at all runs of a job, counts them by state, and returns the devices
// whose run is uncertain.
func (p *patternFleet) ended(d patternDrill, job string) (states map[string]int, doubtful []string) {
	p.t.Helper()
	ctx, stop := context.WithTimeout(p.t.Context(), time.Minute)
	defer stop()
	states = map[string]int{}
	devices := map[string]int{}
	for r, err := range p.service.Runs(ctx, client.RunFilter{JobID: job}) {
		if err != nil {
			p.t.Fatal(err)
		}
		states[r.State]++
		devices[r.DeviceID]++
		switch {
		case r.State == "succeeded":
		case r.State == "uncertain" && !d.sure && p.kills > 0 && r.Fault != nil && r.Fault.Code == "uncertain":
			doubtful = append(doubtful, r.DeviceID)
		default:
			p.t.Errorf("%s: the run %s on %s ended as %s: %+v, %s", d.name, r.ID, r.DeviceID, r.State, r.Fault, r.Raw)
		}
	}
	if len(devices) != p.devices || slices.Max(slices.Collect(maps.Values(devices))) != 1 {
		p.t.Errorf("%s: runs on %d devices, want one on each of %d", d.name, len(devices), p.devices)
	}
	if states["succeeded"] < p.devices/2 {
		p.t.Errorf("%s: %v, want most to succeed", d.name, states)
	}
	return states, doubtful
}

// command is a line of the simulator's command log.
type command struct {
	Device, Kind, Name, ID string
	Times                  int
}

// commands reads the log.
func (p *patternFleet) commands() []command {
	p.t.Helper()
	text, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	var list []command
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(line, "\n") {
			break // it is being written
		}
		var c command
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			p.t.Fatalf("%v: %s", err, line)
		}
		list = append(list, c)
	}
	return list
}

// once finds that no device took a command of the drill twice, and tells how many
// of the doubtful ones have taken the last one: those showed nothing of it in time.
func (p *patternFleet) once(d patternDrill, before int, doubtful []string) {
	p.t.Helper()
	taken := map[string]int{}
	for _, c := range p.commands()[before:] {
		if slices.Contains(d.commands, c.Name) {
			taken[c.Device+" "+c.Name]++
		}
	}
	for what, n := range taken {
		if n > 1 {
			p.t.Errorf("%s: %s came %d times", d.name, what, n)
		}
	}
	if len(doubtful) > 0 {
		n := 0
		for _, id := range doubtful {
			n += taken[id+" "+d.commands[len(d.commands)-1]]
		}
		p.t.Logf("%s: %d of the %d devices whose run is uncertain have taken the command", d.name, n, len(doubtful))
	}
	if len(taken) < p.devices/2 {
		p.t.Errorf("%s: the log has %d commands of %v", d.name, len(taken), d.commands)
	}
}
