package device

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
)

// TestPage keeps the tables of the reference page equal to the code's.
func TestPage(t *testing.T) {
	b, err := os.ReadFile("../../docs/reference/protocol-mqtt.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	codes := wireCodes()
	for _, info := range engine.Codes() {
		c := codes[info.Code]
		if row := fmt.Sprintf("| `%s` | %d | %d | %d |\n", info.Name, c.connack, c.status, c.number); !strings.Contains(page, row) {
			t.Errorf("the page lacks the row %s", row)
		}
	}
	for r := range reasonCount {
		if name, number := r.info(); !strings.Contains(page, fmt.Sprintf("| `%s` | %d |", name, number)) && !strings.Contains(page, fmt.Sprintf("| `%s` | that of ", name)) {
			t.Errorf("the page lacks the reason %q with %d", name, number)
		}
	}
	for _, key := range []string{"mid", "cid", "uid", "to", "ct", "ce", "exp", "ctime", "on", "ifid", "sub", "cdid", "cmid", "schema", "diagid", "diagctx"} {
		if name, _ := systemName("$." + key); !strings.Contains(page, fmt.Sprintf("| `$.%s` | %s |", key, name)) {
			t.Errorf("the page lacks the system property $.%s, %s", key, name)
		}
	}
}
