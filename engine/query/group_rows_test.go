package query

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestGroupsOfRows compares groups of rows without columns with counting by hand.
func TestGroupsOfRows(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	type row struct {
		pattern, phase string
		steps          int
	}
	var rows []row
	for range 500 {
		rows = append(rows, row{[]string{"reboot", "configure"}[random.IntN(2)], []string{"", "asking", "rebooting"}[random.IntN(3)], random.IntN(9)})
	}
	q, err := Parse("SELECT phase, COUNT() AS n, MAX(stepCount) AS most FROM devices.runs WHERE pattern = 'reboot' GROUP BY phase", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if q.Source() != Runs || !q.Grouped() {
		t.Fatalf("source %s, grouped %t", q.Source(), q.Grouped())
	}
	g, err := NewGroups(q, Ask{Limit: 100, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	n, most := map[string]int{}, map[string]int{}
	for _, one := range rows {
		members := []Member{{"pattern", StringValue(one.pattern)}, {"stepCount", NumberValue(float64(one.steps))}}
		if one.phase != "" {
			members = append(members, Member{"phase", StringValue(one.phase)})
		}
		doc := ObjectValue(members)
		if !q.Predicate().Match(doc, time.Now()) {
			continue
		}
		n[one.phase]++
		most[one.phase] = max(most[one.phase], one.steps)
		if err := g.Add(doc); err != nil {
			t.Fatal(err)
		}
	}
	page, err := g.Page()
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, r := range page.Rows {
		got = append(got, string(r))
	}
	for phase := range n {
		text := fmt.Sprintf(`{"phase":"%s","n":%d,"most":%d}`, phase, n[phase], most[phase])
		want = append(want, strings.Replace(text, `"phase":"",`, "", 1))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestRunsAreRead parses what one asks of runs, and refuses what they do not have.
func TestRunsAreRead(t *testing.T) {
	t.Parallel()
	for text, part := range map[string]string{
		"SELECT * FROM devices.runs": "",
		"SELECT runId, deviceId, step FROM devices.runs WHERE state = 'waiting' AND progress < 0.5":      "",
		"SELECT COUNT() AS n FROM devices.runs WHERE devices.runs.pattern = 'reboot'":                    "",
		"SELECT phase, COUNT() AS n FROM devices.runs GROUP BY phase HAVING COUNT() > 1 ORDER BY n DESC": "",
		"SELECT * FROM devices.runs WHERE phaze = 'x'":                                                   "phase",
		"SELECT * FROM devices.runs WHERE tags.site = 'x'":                                               "an attribute of a run",
		"SELECT * FROM devices.runs WHERE connected = true":                                              "an attribute of a run",
	} {
		q, err := Parse(text, Options{})
		switch {
		case part == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case part != "" && (err == nil || !strings.Contains(err.Error(), part)):
			t.Errorf("%s: %v, expected a word of %q", text, err, part)
		case part == "" && CheckLive(q) == nil:
			t.Errorf("%s can be followed", text)
		}
	}
	if _, err := Parse("SELECT * FROM devices.runs", Options{Strict: true}); err == nil {
		t.Error("IoT Hub has no runs")
	}
}
