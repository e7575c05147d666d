package storage

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// The ladder: every format that a release ever wrote, oldest first. A program opens its own rung
// and those below (by climbing, one resumable step a rung) and refuses what is above.
var ladder = [...]string{
	1: "journal-1",
	2: "packs-2", // values may hold several log entries
	3: "front-3", // logs that are not chained lie in front of all other keys
}

const currentRung = len(ladder) - 1

const (
	formatFile     = "FORMAT"
	checkpointFile = "CHECKPOINT"
	lockFile       = "LOCK"
	masterKeyFile  = "master.key"
	journalDir     = "journal"
	badgerDir      = "badger"
)

// format is the content of FORMAT. It is written last when a directory is made: a directory
// without it holds no store yet.
type format struct {
	Rung      int       `json:"rung"`
	Name      string    `json:"name"`
	EpochID   string    `json:"epoch"`
	Ordinal   uint32    `json:"ordinal"`
	Started   time.Time `json:"started"`
	MasterKey string    `json:"masterKey"`        // fingerprint of the master key
	Paused    bool      `json:"paused,omitempty"` // restored, and not resumed
}

func newFormat(ordinal uint32, fingerprint string) format {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return format{
		Rung: currentRung, Name: ladder[currentRung], EpochID: hex.EncodeToString(id[:]),
		Ordinal: ordinal, Started: time.Now().UTC(), MasterKey: fingerprint,
	}
}

func (f format) epoch() (id [16]byte) {
	b, _ := hex.DecodeString(f.EpochID)
	copy(id[:], b)
	return id
}

// readFormat returns ok false when the directory holds no store.
func readFormat(fs fsys, dir string) (f format, ok bool, err error) {
	name := filepath.Join(dir, formatFile)
	err = readText(fs, name, &f, func(line []byte) error {
		// What is newer may have another shape; only its rung is looked at.
		var newer struct {
			Rung int    `json:"rung"`
			Name string `json:"name"`
		}
		if json.Unmarshal(line, &newer) == nil && newer.Rung > currentRung {
			return fmt.Errorf("%w: %s says rung %d (%s), this program knows up to %d (%s); start a newer version of the program",
				ErrNewerFormat, name, newer.Rung, newer.Name, currentRung, ladder[currentRung])
		}
		return nil
	})
	if os.IsNotExist(err) {
		return format{}, false, nil
	}
	if err != nil {
		return format{}, false, err
	}
	if f.Rung < 1 || ladder[f.Rung] != f.Name || len(f.EpochID) != 32 {
		return format{}, false, damage(name, 0, "rung %d is called %q and the epoch is %q", f.Rung, f.Name, f.EpochID)
	}
	return f, true, nil
}
