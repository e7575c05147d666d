package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

// Command is a line of a command log: something that a device was told to do,
// noted before it does it.
type Command struct {
	Time   time.Time `json:"time"`
	Device string    `json:"device"`
	Kind   string    `json:"kind"` // "method", or "desired" for desired properties that the device acts upon
	Name   string    `json:"name"` // of the method, or of the property
	// ID is how the command calls itself: id or job of its payload; empty: nothing.
	ID      string `json:"id,omitempty"`
	Version int64  `json:"version,omitempty"` // $version of the desired properties
	// Times counts how often this device was told so under this name and id, this
	// time included; 0 where there is no id. 2 says that a command came twice.
	Times int `json:"times,omitempty"`
}

// CommandLog appends what devices were told to do to a file. Each line is handed
// to the system before its device acts, so that it survives the end of the
// process, not of the machine. It is safe for concurrent use; a nil log takes no
// line.
type CommandLog struct {
	mu   sync.Mutex
	file *os.File
	err  error // the first of a write
}

// OpenCommandLog opens or makes the file, and locks it against other writers
// until Close.
func OpenCommandLog(name string) (*CommandLog, error) {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(&os.PathError{Op: "lock", Path: name, Err: errors.New("another simulator writes to it")}, f.Close())
	}
	return &CommandLog{file: f}, nil
}

func (l *CommandLog) add(c Command) {
	if l == nil {
		return
	}
	c.Time = time.Now().UTC()
	line, err := json.Marshal(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return // the devices must not stop for a log that is broken
	}
	if err == nil {
		_, err = l.file.Write(append(line, '\n'))
	}
	l.err = err
}

// Close returns the first error of a write.
func (l *CommandLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.err
	if err != nil {
		err = fmt.Errorf("write the command log: %w", err)
	}
	return errors.Join(err, l.file.Close())
}
