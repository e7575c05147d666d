package engine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/muster-hub/muster/storage"
)

// TestStoreFindings: damage is told as damage, and its next step is no restart.
func TestStoreFindings(t *testing.T) {
	t.Parallel()
	damage := fmt.Errorf("%w: messages/000000000001.seg at byte 4096: no whole record", storage.ErrCorrupt)
	for _, test := range []struct {
		name          string
		tables        uint64
		health        error
		store, damage string // level: text; or what the text has
		next          string // of both
	}{
		{"sound", 0, nil, "ok: the store takes writes", "ok: the background scan has checked 7 tables and found no damage", ""},
		{"damage at a read", 0, damage, "fail: " + damage.Error(), "fail: something that was read is damaged: see the line on the store", "muster repair"},
		{"damaged tables", 2, damage, "fail: " + damage.Error(), "fail: 2 of the store's tables are damaged", "muster repair"},
		{"damage, and then a failed write", 2, storage.ErrReadOnly, "fail: " + storage.ErrReadOnly.Error(), "fail: 2 of the store's tables are damaged", ""},
		{"a failed write", 0, storage.ErrReadOnly, "fail: " + storage.ErrReadOnly.Error(), "ok: the background scan", ""},
	} {
		got := map[string]Finding{}
		for _, f := range storeFindings(storage.Stats{ScannedTables: 7, DamagedTables: test.tables}, test.health) {
			got[f.Check] = f
			if f.Level != "ok" && f.Next == "" {
				t.Errorf("%s: no next step for %s", test.name, f.Text)
			}
		}
		for check, want := range map[string]string{"store": test.store, "damage": test.damage} {
			if f := got[check]; !strings.HasPrefix(f.Level+": "+f.Text, want) || !strings.Contains(f.Next, test.next) {
				t.Errorf("%s: %+v, want %s", test.name, f, want)
			}
		}
	}
}
