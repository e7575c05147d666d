package engine

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"
)

// runIDPrefix begins the ids of runs.
const runIDPrefix = "r-"

func isRunID(id string) bool {
	return len(id) > len(runIDPrefix) && id[:len(runIDPrefix)] == runIDPrefix
}

const (
	runIDsMost    = 36 * 36 * 36 // of a millisecond; more take those of the next one
	runIDsChances = 36 * 36 * 36 * 36 * 36 * 36 * 36 * 36 * 36 * 36
)

// runIDs makes the ids of runs, which sort by when they were made: also those of
// one transaction, whose time is one, and when the clock goes back. The zero value
// is ready; it is safe for concurrent use.
type runIDs struct {
	mu   sync.Mutex
	last int64 // milliseconds of the newest
	made int64 // in that millisecond
}

// next makes an id that nobody else makes.
func (g *runIDs) next(now time.Time) string {
	g.mu.Lock()
	if at := now.UnixMilli(); at > g.last {
		g.last, g.made = at, 0
	}
	if g.made == runIDsMost {
		g.last, g.made = g.last+1, 0
	}
	at, n := g.last, g.made
	g.made++
	g.mu.Unlock()
	return runIDPrefix + strconv.FormatInt(at, 36) + "-" + digits(n, 3) + digits(rand.Int64N(runIDsChances), 10)
}

// digits writes a number with at least so many digits.
func digits(n int64, least int) string {
	text := strconv.FormatInt(n, 36)
	return strings.Repeat("0", max(0, least-len(text))) + text
}
