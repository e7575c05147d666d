package engine

import (
	"testing"
	"time"
)

func TestBackupDue(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.ParseInLocation("2006-01-02 15:04", s, time.Local)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	run := func(s string, failed string) *BackupRun {
		if s == "" {
			return nil
		}
		return &BackupRun{Started: at(s), Ended: at(s).Add(time.Minute), Error: failed}
	}
	hourly, daily := BackupPlan{Dir: "d", Every: time.Hour}, BackupPlan{Dir: "d", Every: backupDay, At: "03:30"}
	for _, c := range []struct {
		name           string
		plan           BackupPlan
		last, bad, now string
		inRow          int
		want           string
	}{
		{"the first at once", hourly, "", "", "2026-05-01 10:00", 0, "2026-05-01 10:00"},
		{"the first at once, also of a daily one", daily, "", "", "2026-05-01 10:00", 0, "2026-05-01 10:00"},
		{"after its time", hourly, "2026-05-01 10:00", "", "2026-05-01 10:10", 0, "2026-05-01 11:00"},
		{"one that was missed", hourly, "2026-05-01 10:00", "", "2026-05-03 10:10", 0, "2026-05-01 11:00"},
		{"later today", daily, "2026-05-01 01:00", "", "2026-05-01 02:00", 0, "2026-05-01 03:30"},
		{"tomorrow", daily, "2026-05-01 03:30", "", "2026-05-01 04:00", 0, "2026-05-02 03:30"},
		{"over a month's end", daily, "2026-01-31 12:00", "", "2026-01-31 13:00", 0, "2026-02-01 03:30"},
		{"the clock was set back", hourly, "2026-05-01 10:00", "", "2026-04-01 10:00", 0, "2026-04-01 11:00"},
		{"a failure", hourly, "2026-05-01 10:00", "2026-05-01 11:00", "2026-05-01 11:01", 1, "2026-05-01 11:02"},
		{"the fourth", hourly, "2026-05-01 10:00", "2026-05-01 11:00", "2026-05-01 11:01", 4, "2026-05-01 11:09"},
		{"the fortieth", hourly, "2026-05-01 10:00", "2026-05-01 11:00", "2026-05-01 11:01", 40, "2026-05-01 12:01"},
		{"a failure in a future that is none", hourly, "2026-05-01 10:00", "2026-06-01 11:00", "2026-05-01 11:01", 40, "2026-05-01 11:00"},
	} {
		b := &backups{plan: c.plan, last: run(c.last, ""), bad: run(c.bad, "no room"), inRow: c.inRow}
		if got := b.due(at(c.now)); !got.Equal(at(c.want)) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
