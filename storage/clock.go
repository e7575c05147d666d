package storage

import (
	"fmt"
	"time"
)

// clockSlack is how far the wall clock may lie before the newest commit.
const clockSlack = 5 * time.Minute

// clockCheck compares the wall clock with the build date and the newest commit. Nothing is
// written while it is wrong: expiry and order would follow the wrong time.
func (db *DB) clockCheck(now time.Time) error {
	if now.Before(db.opt.Built) {
		return fmt.Errorf("%w: it says %s, but this program was built at %s; set the clock", ErrClock,
			now.UTC().Format(time.RFC3339), db.opt.Built.UTC().Format(time.RFC3339))
	}
	if newest := db.newest.Load(); newest != 0 && now.UnixNano() < newest-int64(clockSlack) {
		return fmt.Errorf("%w: it says %s, but the newest commit is of %s; set the clock, or, if that commit's time was the wrong one, stop the program and run `muster repair --data DIR`",
			ErrClock, now.UTC().Format(time.RFC3339), time.Unix(0, newest).UTC().Format(time.RFC3339))
	}
	return nil
}
