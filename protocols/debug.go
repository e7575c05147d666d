package protocols

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"runtime"
	"runtime/trace"
	"strconv"
	"sync"
	"time"
)

// What somebody needs who looks into a running hub: profiles, the log's level, and a flight
// recorder. It is served on the unix socket only: a profile tells of keys in memory, and a trace
// costs processor time.

const (
	profileMost = 5 * time.Minute
	// What the flight recorder keeps: enough for what happened before somebody noticed.
	flightAge   = 10 * time.Second
	flightBytes = 32 << 20
	debugBody   = 4 << 10

	mutexFraction = 10                    // one of so many waits for a lock is counted
	blockRate     = 10 * time.Microsecond // a wait of so long is counted, shorter ones by chance
)

// debugHandler serves /debug/ on the unix socket.
type debugHandler struct {
	level *slog.LevelVar // nil: the log is not ours
	log   *slog.Logger
	mux   *http.ServeMux

	looking sync.Mutex // one look at contention at a time

	mu     sync.Mutex
	flight *trace.FlightRecorder // nil while it does not run
}

func newDebugHandler(level *slog.LevelVar, log *slog.Logger) *debugHandler {
	d := &debugHandler{level: level, log: log, mux: http.NewServeMux()}
	d.mux.HandleFunc("GET /debug/log-level", d.readLevel)
	d.mux.HandleFunc("PUT /debug/log-level", d.writeLevel)
	d.mux.HandleFunc("PUT /debug/flight", d.startFlight)
	d.mux.HandleFunc("GET /debug/flight", d.readFlight)
	d.mux.HandleFunc("DELETE /debug/flight", d.stopFlight)
	d.mux.HandleFunc("GET /debug/pprof/profile", bounded(pprof.Profile))
	d.mux.HandleFunc("GET /debug/pprof/trace", bounded(pprof.Trace))
	d.mux.HandleFunc("GET /debug/pprof/mutex", bounded(d.contention))
	d.mux.HandleFunc("GET /debug/pprof/block", bounded(d.contention))
	d.mux.HandleFunc("GET /debug/pprof/", pprof.Index) // heap, goroutine, allocs, threadcreate
	return d
}

// ServeHTTP is called for paths below /debug/ only.
func (d *debugHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.mux.ServeHTTP(w, r) }

// close ends the flight recorder.
func (d *debugHandler) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.flight != nil {
		d.flight.Stop()
		d.flight = nil
	}
}

// logLevel is the body of /debug/log-level.
type logLevel struct {
	Level string `json:"level"`
}

func (d *debugHandler) readLevel(w http.ResponseWriter, _ *http.Request) {
	if d.level == nil {
		debugError(w, http.StatusNotFound, "NotFound", "the log's level is not under the server's control", "Set --log-level at the start.")
		return
	}
	writeDebug(w, logLevel{d.level.Level().String()})
}

func (d *debugHandler) writeLevel(w http.ResponseWriter, r *http.Request) {
	if d.level == nil {
		d.readLevel(w, r)
		return
	}
	var asked logLevel
	var level slog.Level
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, debugBody))
	if err == nil {
		err = json.Unmarshal(body, &asked)
	}
	if err == nil {
		err = level.UnmarshalText([]byte(asked.Level))
	}
	if err != nil {
		debugError(w, http.StatusBadRequest, "ArgumentInvalid", "the level is not known: "+err.Error(), "Send {\"level\": \"debug\"}; there are debug, info, warn and error.")
		return
	}
	before := d.level.Level()
	d.level.Set(level)
	// Seen whatever the level is now: who reads the log must know why it changed.
	d.log.Log(r.Context(), max(level, slog.LevelInfo), "the log's level changed", slog.String("from", before.String()), slog.String("to", level.String()))
	writeDebug(w, logLevel{level.String()})
}

// flightState is the answer of PUT and DELETE /debug/flight.
type flightState struct {
	Running bool    `json:"running"`
	Seconds float64 `json:"seconds"` // how much of the past is kept
}

func (d *debugHandler) startFlight(w http.ResponseWriter, _ *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.flight == nil {
		f := trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: flightAge, MaxBytes: flightBytes})
		if err := f.Start(); err != nil {
			debugError(w, http.StatusConflict, "Conflict", "the flight recorder did not start: "+err.Error(), "Wait until the other trace has ended.")
			return
		}
		d.flight = f
		d.log.Info("the flight recorder runs", slog.Duration("keeps", flightAge))
	}
	writeDebug(w, flightState{true, flightAge.Seconds()})
}

func (d *debugHandler) stopFlight(w http.ResponseWriter, _ *http.Request) {
	d.close()
	writeDebug(w, flightState{})
}

func (d *debugHandler) readFlight(w http.ResponseWriter, _ *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.flight == nil {
		debugError(w, http.StatusConflict, "Conflict", "the flight recorder does not run", "`muster debug flight on` starts it.")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if _, err := d.flight.WriteTo(w); err != nil {
		d.log.Warn("the flight recorder's trace was not written to its end", slog.Any("error", err))
		panic(http.ErrAbortHandler) // a trace that ends early must not look whole
	}
}

// contention has the runtime count waits for locks and channels while it looks,
// since counting costs something and is off else.
func (d *debugHandler) contention(w http.ResponseWriter, r *http.Request) {
	if !d.looking.TryLock() {
		debugError(w, http.StatusConflict, "Conflict", "somebody looks at contention already", "Try again when that has ended.")
		return
	}
	defer d.looking.Unlock()
	runtime.SetMutexProfileFraction(mutexFraction)
	defer runtime.SetMutexProfileFraction(0)
	runtime.SetBlockProfileRate(int(blockRate))
	defer runtime.SetBlockProfileRate(0)
	pprof.Index(w, r)
}

// bounded refuses a profile that would run for very long.
func bounded(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if text := r.URL.Query().Get("seconds"); text != "" {
			n, err := strconv.ParseFloat(text, 64)
			if err != nil || n <= 0 || n > profileMost.Seconds() {
				debugError(w, http.StatusBadRequest, "ArgumentInvalid", "seconds must be over 0 and at most "+strconv.Itoa(int(profileMost.Seconds())), "Ask for a shorter profile.")
				return
			}
		}
		h(w, r)
	}
}

func writeDebug(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if err := json.NewEncoder(w).Encode(v); err != nil && !errors.Is(err, http.ErrHandlerTimeout) {
		return // the caller went away
	}
}

// debugError answers in the shape of Muster's own paths.
func debugError(w http.ResponseWriter, status int, code, detail, next string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(struct { // the caller may have gone
		Code   string `json:"code"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Next   string `json:"next"`
	}{code, http.StatusText(status), status, detail, next})
}
