package cli

import (
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// debugGroup are the commands that look into a running hub. They go through
// the unix socket only.
type debugGroup struct {
	LogLevel debugLevelCmd   `cmd:"" name:"log-level" help:"Show or change what the hub logs, until it is restarted."`
	Profile  debugProfileCmd `cmd:"" help:"Write a profile for go tool pprof."`
	Flight   debugFlightCmd  `cmd:"" help:"Turn the flight recorder on or off, or save the last ten seconds for go tool trace."`
}

// SocketFlags name a hub on this machine.
type SocketFlags struct {
	Data string `help:"Data directory of the hub." default:"./muster-data" placeholder:"DIR" group:"Which hub"`
}

func (a *app) local(f SocketFlags) (*client.Service, error) {
	return client.NewService(client.ServiceOptions{Socket: filepath.Join(f.Data, socketName), UserAgent: a.userAgent()})
}

type debugLevelCmd struct {
	SocketFlags
	Level string `arg:"" optional:"" enum:",debug,info,warn,error" default:"" help:"debug, info, warn or error; without it the level is shown."`
}

// Run shows or changes the level.
func (c *debugLevelCmd) Run(a *app) error {
	s, err := a.local(c.SocketFlags)
	if err != nil {
		return err
	}
	r := client.Request{Method: http.MethodGet, Path: "/debug/log-level"}
	if c.Level != "" {
		r.Method, r.Body = http.MethodPut, map[string]string{"level": c.Level}
	}
	var answer struct {
		Level string `json:"level"`
	}
	if err := s.Do(a.ctx, r, &answer); err != nil {
		return err
	}
	a.note("The hub logs from %s on.", answer.Level)
	return nil
}

type debugProfileCmd struct {
	SocketFlags
	Kind   string        `arg:"" enum:"cpu,heap,allocs,goroutine,mutex,block,trace" help:"cpu, heap, allocs, goroutine, mutex, block or trace."`
	File   string        `arg:"" help:"File to make, which must not exist." placeholder:"FILE"`
	Length time.Duration `name:"for" help:"How long cpu, trace, mutex and block look." default:"10s"`
}

// Run writes a profile.
func (c *debugProfileCmd) Run(a *app) error {
	name, q := c.Kind, url.Values{}
	switch c.Kind {
	case "cpu":
		name = "profile"
		fallthrough
	case "trace", "mutex", "block":
		if c.Length < time.Second {
			return usage("--for is shorter than a second", "Give at least 1s.")
		}
		q.Set("seconds", strconv.Itoa(int(c.Length.Seconds())))
	}
	return a.saveDebug(c.SocketFlags, "/debug/pprof/"+name, q, c.File)
}

type debugFlightCmd struct {
	SocketFlags
	What string `arg:"" help:"on, off, or the FILE to make, which must not exist."`
}

// Run controls or reads the flight recorder.
func (c *debugFlightCmd) Run(a *app) error {
	method := http.MethodPut
	switch c.What {
	case "off":
		method = http.MethodDelete
	case "on":
	default:
		return a.saveDebug(c.SocketFlags, "/debug/flight", nil, c.What)
	}
	s, err := a.local(c.SocketFlags)
	if err != nil {
		return err
	}
	var state struct {
		Running bool    `json:"running"`
		Seconds float64 `json:"seconds"`
	}
	if err := s.Do(a.ctx, client.Request{Method: method, Path: "/debug/flight"}, &state); err != nil {
		return err
	}
	if state.Running {
		a.note("The flight recorder keeps the last %.0f seconds. `muster debug flight FILE` saves them.", state.Seconds)
	} else {
		a.note("The flight recorder is off.")
	}
	return nil
}

// saveDebug writes what the hub answers to a file, whole or not at all. Profiles show
// what lives in memory: it is for the caller alone.
func (a *app) saveDebug(f SocketFlags, path string, q url.Values, file string) error {
	s, err := a.local(f)
	if err != nil {
		return err
	}
	to, err := createFile(file, false, takenNext)
	if err != nil {
		return err
	}
	defer to.drop()
	var data json.RawMessage
	if err := s.Do(a.ctx, client.Request{Method: http.MethodGet, Path: path, Query: q}, &data); err != nil {
		return err
	}
	if _, err := to.Write(data); err != nil {
		return err
	}
	if err := to.keep(); err != nil {
		return err
	}
	a.note("%d bytes written to %s.", len(data), printable(file))
	return nil
}
