package rollout

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const fullPolicy = `{
	"waves": [{"size": "1", "diverse": true, "soak": "10m", "health": {"where": "reported.health != 'good'", "atMost": "2%", "otherwise": "abort"}},
	          {"size": "10%", "approval": true}, {"size": "100%"}],
	"rate": {"perMinute": 50, "factor": 2, "every": 1000, "of": "succeeded", "most": 10000},
	"parallel": 500,
	"windows": [{"cron": "0 22 * * 1-5", "duration": "6h", "timeZone": "Europe/Paris", "zoneTag": "tags.timezone"}],
	"start": "2026-12-01T00:00:00Z", "end": "2027-03-01T00:00:00Z", "atEnd": "cancel", "repeat": "0 3 * * 0", "repeatZone": "Europe/Paris",
	"timeout": "1h", "attemptTimeout": "5m",
	"retry": {"attempts": 3, "on": ["failed", "timedOut", "uncertain", "offline"], "backoff": "30s", "factor": 2, "most": "10m"},
	"pause": [{"share": "5%", "of": ["failed", "timedOut"], "least": 20, "per": "wave"}],
	"abort": [{"share": "100", "of": ["failed"], "per": "job"}],
	"priority": 5}`

func TestPolicyReadAndWritten(t *testing.T) {
	t.Parallel()
	p, err := Parse([]byte(fullPolicy), "policy")
	if err != nil {
		t.Fatal(err)
	}
	if warnings, err := p.Validate("policy", base(), 10_000); err != nil || len(warnings) > 0 {
		t.Errorf("warnings %v, error %v", warnings, err)
	}
	if p.Waves[0].Health.AtMost != Percent(2) || p.Waves[1].Size != Percent(10) || p.Windows[0].Duration != 6*Duration(time.Hour) || p.Retry.On[3] != AttemptOffline || p.Priority != 5 {
		t.Errorf("read as %+v", p)
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(text, "policy")
	if err != nil || !reflect.DeepEqual(again, p) {
		t.Errorf("written as %s, read again as %+v, %v", text, again, err)
	}
	var plain Policy
	if err := json.Unmarshal(text, &plain); err != nil || !reflect.DeepEqual(plain, p) {
		t.Errorf("read by encoding/json: %+v, %v", plain, err)
	}
}

func TestPolicyDefaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{}`:                             `{"waves":[{"size":"100%"}],"timeout":"1d","attemptTimeout":"5m"}`,
		`{"timeout":"2m"}`:               `{"waves":[{"size":"100%"}],"timeout":"2m","attemptTimeout":"2m"}`,
		`{"retry":{"attempts":2}}`:       `{"waves":[{"size":"100%"}],"timeout":"1d","attemptTimeout":"5m","retry":{"attempts":2,"on":["failed","timedOut","offline"],"backoff":"30s","factor":2,"most":"10m"}}`,
		`{"pause":[{"share":"5%"}]}`:     `{"waves":[{"size":"100%"}],"timeout":"1d","attemptTimeout":"5m","pause":[{"share":"5%","of":["failed","timedOut","rejected","uncertain"],"least":1,"per":"wave"}]}`,
		`{"end":"2027-01-01T00:00:00Z"}`: `{"waves":[{"size":"100%"}],"end":"2027-01-01T00:00:00Z","atEnd":"stop","timeout":"1d","attemptTimeout":"5m"}`,
		`{"rate":{"perMinute":5,"factor":2,"every":10}}`:                    `{"waves":[{"size":"100%"}],"rate":{"perMinute":5,"factor":2,"every":10,"of":"started","most":1000000},"timeout":"1d","attemptTimeout":"5m"}`,
		`{"windows":[{"cron":"@daily","duration":"1h"}],"repeat":"@daily"}`: `{"waves":[{"size":"100%"}],"windows":[{"cron":"@daily","duration":"1h","timeZone":"UTC"}],"repeat":"@daily","repeatZone":"UTC","timeout":"1d","attemptTimeout":"5m"}`,
		`{"waves":[{"size":"100%","health":{"where":"a"}}]}`:                `{"waves":[{"size":"100%","health":{"where":"a","atMost":"0","otherwise":"pause"}}],"timeout":"1d","attemptTimeout":"5m"}`,
	} {
		p, err := Parse([]byte(text), "policy")
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(p)
		if err != nil || string(got) != want {
			t.Errorf("%s\n got %s\nwant %s (%v)", text, got, want, err)
		}
		if _, err := p.Validate("policy", base(), -1); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestPolicyDecodeErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``:                                 `policy: is empty`,
		`{`:                                `policy: is not JSON at byte 1`,
		`[]`:                               `policy: found a list; expected an object`,
		`{"wave":[]}`:                      `policy: has no member "wave"; expected waves, rate,`,
		`{"Waves":[]}`:                     `did you mean "waves"?`,
		`{"windows":[{"timezone":"UTC"}]}`: `policy.windows[0]: has no member "timezone"; expected cron, duration, timeZone or zoneTag; did you mean "timeZone"?`,
		`{"retry":{"on":"failed"}}`:        `policy.retry.on: found "failed"; expected a list`,
		`{"parallel":"5"}`:                 `policy.parallel: found "5"; expected a whole number`,
		`{"parallel":5.5}`:                 `policy.parallel: found 5.5; expected a whole number`,
		`{"timeout":5}`:                    `policy.timeout: found 5; expected a duration such as`,
		`{"timeout":"5"}`:                  `policy.timeout: found "5"; expected a duration such as`,
		`{"waves":[{"size":"half"}]}`:      `policy.waves[0].size: found "half"; expected a count such as`,
		`{"waves":[null]}`:                 `policy.waves[0]: found null`,
		`{"waves":[{"size":"1"},7]}`:       `policy.waves[1]: found 7; expected an object`,
		`{"start":"tomorrow"}`:             `policy.start: found "tomorrow"; expected a time such as`,
		`{"rate":{"perMinute":"x"}}`:       `policy.rate.perMinute: found "x"; expected a number`,
		`{"waves":[{"approval":1}]}`:       `policy.waves[0].approval: found 1; expected true or false`,
		`{"repeat":["a"]}`:                 `policy.repeat: found a list; expected a text`,
		`{"priority":1,"priority":2}`:      `policy.priority: comes twice`,
		`{"a":1,"b":2}`:                    `policy: has no member "b"`,
	} {
		_, err := Parse([]byte(text), "policy")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
		if _, ok := errors.AsType[Faults](err); !ok {
			t.Errorf("%s: the error is %T", text, err)
		}
	}
	if p, err := Parse([]byte(`{"waves":null,"rate":null}`), "policy"); err != nil || p.Rate != nil {
		t.Errorf("null is as if nothing were there: %+v, %v", p, err)
	}
	many := "{" + strings.Repeat(`"x":1,`, 50) + `"y":1}`
	if _, err := Parse([]byte(many), "policy"); err == nil || strings.Count(err.Error(), "has no member") != faultsMost {
		t.Errorf("errors are told up to a bound: %v", err)
	}
}

func TestPolicyValidate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		policy         string
		total          int
		fault, warning string // empty: none
	}{
		{`{}`, 0, "", ""},
		{fullPolicy, 10_000, "", ""},
		{`{"waves":[{"size":"10%"}]}`, -1, `policy.waves[0].size: is 10%: the last wave would leave targets out; expected "100%"`, ""},
		{`{"waves":[{"size":"10%"},{"size":"5%"},{"size":"100%"}]}`, -1, "policy.waves[1].size: is 5%, after 10%", ""},
		{`{"waves":[{"size":"10"},{"size":"10"},{"size":"100%"}]}`, -1, "policy.waves[1].size: is 10, after 10", ""},
		{`{"waves":[{"size":"0%"},{"size":"100%"}]}`, -1, "a wave of nothing", ""},
		{`{"waves":[{"size":"150%"}]}`, -1, "is 150%; expected at most 100%", ""},
		{`{"waves":[{"size":"50"},{"size":"10%"},{"size":"100%"}]}`, 100, "", "policy.waves[1].size: is 10%, which for 100 targets is no more than the 50 before it"},
		{`{"waves":[{"size":"1%"},{"size":"2%"},{"size":"100%"}]}`, 20, "", "policy.waves[1].size: is 2%, which for 20 targets is no more than the 1% before it: the wave is empty"},
		{`{"waves":[{"size":"10"},{"size":"50"},{"size":"100%"}]}`, 8, "", "policy.waves[1].size: is 50, which for 8 targets is no more than the 10 before it: the wave is empty"},
		{`{"waves":[{"size":"1%"},{"size":"10%"},{"size":"100%"}]}`, 20, "", ""},
		{`{"waves":[{"size":"1%"},{"size":"2%"},{"size":"100%"}]}`, -1, "", ""},
		{`{"waves":[{"size":"50"},{"size":"10%"},{"size":"100%"}]}`, 1000, "", ""},
		{`{"waves":[{"size":"100%","health":{"where":" ","otherwise":"stop"}}]}`, -1, `policy.waves[0].health.otherwise: is "stop"; expected pause or abort`, ""},
		{`{"waves":[{"size":"100%","health":{"where":" "}}]}`, -1, "policy.waves[0].health.where: has 1 bytes; expected a condition", ""},
		{`{"waves":[{"size":"100%","health":{"where":"a","atMost":"100%"}}]}`, -1, "the check could never fail", ""},
		{`{"waves":[` + strings.Repeat(`{"size":"1"},`, 100) + `{"size":"100%"}]}`, -1, "policy.waves: are 101; expected at most 100", ""},
		{`{"windows":[{"cron":"0 25 * * *","duration":"1h"}]}`, -1, `policy.windows[0].cron: the hour is "25"; expected 0 to 23`, ""},
		{`{"windows":[{"cron":"0 0 30 2 *","duration":"1h"}]}`, -1, "doesn't come within two years", ""},
		{`{"windows":[{"cron":"0 0 29 2 *","duration":"1h"}]}`, -1, "", ""}, // 2028
		{`{"windows":[{"cron":"@daily","duration":"1h","timeZone":"Europe/Pariss"}]}`, -1, `policy.windows[0].timeZone: "Europe/Pariss" is no time zone`, ""},
		{`{"windows":[{"cron":"@daily","duration":"1h","timeZone":"Local"}]}`, -1, `"Local" is no time zone`, ""},
		{`{"windows":[{"cron":"@daily","duration":"30s"}]}`, -1, "policy.windows[0].duration: is 30s; expected 1m to 31d", ""},
		{`{"windows":[{"cron":"@daily","duration":"1h","zoneTag":"reported.zone"}]}`, -1, "policy.windows[0].zoneTag: is \"reported.zone\"; expected the path of a tag", ""},
		{`{"windows":[{"cron":"@daily","duration":"1h","zoneTag":"tags.a"},{"cron":"@daily","duration":"1h","zoneTag":"tags.b"}]}`, -1, "policy.windows[1].zoneTag: is \"tags.b\"; expected the same tag", ""},
		{`{"windows":[{"cron":"0 22 * * 0","duration":"1h"}],"end":"2026-12-02T00:00:00Z"}`, -1, "policy.windows: don't open between 2026-11-30T12:00:00Z and the end at 2026-12-02T00:00:00Z; the next one opens at 2026-12-06T22:00:00Z", ""},
		{`{"windows":[{"cron":"0 11 * * 1","duration":"2h"}],"end":"2026-12-02T00:00:00Z"}`, -1, "", ""},                    // it is open
		{`{"windows":[{"cron":"0 13 * * 1","duration":"2h","zoneTag":"tags.z"}],"end":"2026-11-30T12:30:00Z"}`, -1, "", ""}, // in some zone it opens
		{`{"start":"2026-12-02T00:00:00Z","end":"2026-12-01T00:00:00Z"}`, -1, "policy.end: is 2026-12-01T00:00:00Z, not after the start; expected a time after 2026-12-02T00:00:00Z", ""},
		{`{"end":"2026-11-30T11:00:00Z"}`, -1, "which has passed", ""},
		{`{"start":"2026-11-30T11:00:00Z"}`, -1, "", "the job starts at once"},
		{`{"atEnd":"stop"}`, -1, "policy.atEnd: says what happens at the end, and there is none", ""},
		{`{"end":"2027-01-01T00:00:00Z","atEnd":"cancle"}`, -1, `policy.atEnd: is "cancle"; expected stop or cancel; did you mean "cancel"?`, ""},
		{`{"timeout":"5m","attemptTimeout":"10m"}`, -1, "policy.timeout: is 5m, shorter than the 10m of one attempt", ""},
		{`{"parallel":-1}`, -1, "policy.parallel: is -1", ""},
		{`{"priority":101}`, -1, "policy.priority: is 101; expected -100 to 100", ""},
		{`{"repeat":"0 0 31 2 *"}`, -1, "policy.repeat: \"0 0 31 2 *\" never comes", ""},
		{`{"repeat":"x"}`, -1, "policy.repeat: found \"x\" with 1 fields", ""},
		{`{"repeat":"@daily","repeatZone":"Mars"}`, -1, "policy.repeatZone: \"Mars\" is no time zone", ""},
		{`{"repeatZone":"UTC"}`, -1, "policy.repeatZone: is the zone of a repetition, and there is none", ""},
		{`{"repeat":"@yearly","end":"2026-12-24T00:00:00Z"}`, -1, "", "after the end: the job runs once"},
		{`{"rate":{"perMinute":0}}`, -1, "policy.rate.perMinute: is 0; expected more than 0", ""},
		{`{"rate":{"perMinute":5,"every":7}}`, -1, "policy.rate.factor: is missing", ""},
		{`{"rate":{"perMinute":5,"factor":0.5,"every":7}}`, -1, "policy.rate.factor: is 0.5; expected 1 to 100", ""},
		{`{"rate":{"perMinute":5,"factor":2}}`, -1, "policy.rate.every: is 0", ""},
		{`{"rate":{"perMinute":50,"factor":2,"every":7,"most":5}}`, -1, "policy.rate.most: is 5; expected at least perMinute", ""},
		{`{"rate":{"perMinute":50,"factor":2,"every":7,"of":"failed"}}`, -1, `policy.rate.of: is "failed"; expected started or succeeded`, ""},
		{`{"rate":{"perMinute":10},"end":"2026-11-30T13:00:00Z"}`, 1000, "policy.rate.perMinute: lets 1000 targets start within 1h40m at the soonest, and until the end there are 1h", ""},
		{`{"rate":{"perMinute":10},"end":"2026-11-30T14:00:00Z"}`, 1000, "", ""},
		{`{"rate":{"perMinute":10},"end":"2026-11-30T13:00:00Z"}`, -1, "", ""},
		{`{"rate":{"perMinute":10,"factor":2,"every":100},"end":"2026-11-30T13:00:00Z"}`, 1000, "", ""},
		{`{"rate":{"perMinute":10},"windows":[{"cron":"0 13 * * *","duration":"1h"}],"end":"2026-12-01T12:00:00Z"}`, 1000, "until the end there are 1h, with an open window", ""},
		{`{"rate":{"perMinute":10},"windows":[{"cron":"0 13 * * *","duration":"1h"}],"end":"2026-12-02T12:00:00Z"}`, 1000, "", ""},
		{`{"waves":[{"size":"1","soak":"40m"},{"size":"100%"}],"rate":{"perMinute":10},"end":"2026-11-30T14:00:00Z"}`, 1000, "until the end there are 1h20m, the waves' soaks left out", ""},
		{`{"waves":[{"size":"1","soak":"2h"},{"size":"100%"}],"end":"2026-11-30T14:00:00Z"}`, -1, "policy.end: comes 2h after the start, and the waves soak for 2h", ""},
		{`{"retry":{"attempts":0}}`, -1, "policy.retry.attempts: is 0; expected 1 to 10", ""},
		{`{"retry":{"attempts":2,"on":["faild"]}}`, -1, `policy.retry.on[0]: is "faild"; expected failed, timedOut, rejected, uncertain or offline; did you mean "failed"?`, ""},
		{`{"retry":{"attempts":2,"backoff":"5m","most":"1m"}}`, -1, "policy.retry.most: is 1m, less than the backoff of 5m", ""},
		{`{"retry":{"attempts":2,"backoff":"2h"},"timeout":"1h"}`, -1, "", "policy.retry.attempts: is 2, and an execution ends after 1h (timeout): with the waits between them there are at most 1"},
		{`{"retry":{"attempts":4,"backoff":"30m"},"timeout":"61m"}`, -1, "", "is 4, and an execution ends after 1h1m (timeout): with the waits between them there are at most 3"},
		{`{"retry":{"attempts":4,"backoff":"10m","most":"1h"},"timeout":"2h"}`, -1, "", ""},
		{`{"pause":[{"share":"0"}]}`, -1, "policy.pause[0].share: is 0: it would always be reached", ""},
		{`{"abort":[{"share":"101%"}]}`, -1, "policy.abort[0].share: is 101%: it could never be reached", ""},
		{`{"pause":[{"share":"5%","of":["succeeded"]}]}`, -1, `policy.pause[0].of[0]: is "succeeded"; expected failed, timedOut, rejected or uncertain`, ""},
		{`{"pause":[{"share":"5%","per":"fleet"}]}`, -1, `policy.pause[0].per: is "fleet"; expected wave or job`, ""},
		{`{"pause":[{"share":"5%","least":-1}]}`, -1, "policy.pause[0].least: is -1", ""},
		{`{"waves":[{"size":"10%"},{"size":"100%"}],"pause":[{"share":"5%","least":95}]}`, 100, "", "policy.pause[0].least: is 95, and the largest wave has 90 targets: it is never reached"},
		{`{"waves":[{"size":"10%"},{"size":"100%"}],"pause":[{"share":"5%","least":95,"per":"job"}]}`, 100, "", ""},
		{`{"abort":[{"share":"200"}]}`, 100, "", "policy.abort[0].share: is 200, and the largest wave has 100 targets"},
		{`{"pause":[{"share":"10%"}],"abort":[{"share":"10%"}]}`, -1, "", "policy.pause[0].share: is 10%, and at 10% the job is aborted"},
		{`{"pause":[{"share":"5%"}],"abort":[{"share":"10%"}]}`, -1, "", ""},
		{`{"pause":[` + strings.Repeat(`{"share":"5"},`, 10) + `{"share":"5"}]}`, -1, "policy.pause: are 11; expected at most 10", ""},
	} {
		p, err := Parse([]byte(c.policy), "policy")
		if err != nil {
			t.Errorf("%.200s: %v", c.policy, err)
			continue
		}
		warnings, err := p.Validate("policy", base(), c.total)
		if got := text(err); c.fault == "" && got != "" || !strings.Contains(got, c.fault) {
			t.Errorf("%.200s: error %q, want %q", c.policy, got, c.fault)
		}
		if got := text(Faults(warnings)); c.warning == "" && got != "" && c.fault == "" || !strings.Contains(got, c.warning) {
			t.Errorf("%.200s: warnings %q, want %q", c.policy, got, c.warning)
		}
	}
}

// TestPolicySlow has policies that can end in time, and would not if devices took
// all the time that they may.
func TestPolicySlow(t *testing.T) {
	t.Parallel()
	const end = `"end":"2026-11-30T13:00:00Z"` // an hour from now
	for _, c := range []struct {
		policy string
		total  int
		waits  bool
		want   string // empty: no warning
	}{
		{`{"parallel":5,"attemptTimeout":"10m"}`, 300, true, ""},
		{`{"parallel":5,"attemptTimeout":"10m",` + end + `}`, -1, true, ""},
		{`{"parallel":5,"attemptTimeout":"10m",` + end + `}`, 30, true, ""}, // the last five begin after 50 minutes
		{`{"parallel":5,"attemptTimeout":"10m",` + end + `}`, 31, true, "policy.end: may come first: if each attempt takes the 10m that it may (attemptTimeout), the last of 31 targets begins after 1h with 5 at a time (parallel), and until the end there are 1h, the waves' soaks left out; expected a later end"},
		{`{"attemptTimeout":"10m",` + end + `}`, 100_000, true, ""},
		{`{"waves":[{"size":"1"},{"size":"100%"}],"attemptTimeout":"1h",` + end + `}`, 10, true, "the last of 10 targets begins after 1h, and"},
		{`{"waves":[{"size":"1"},{"size":"100%"}],"attemptTimeout":"1h",` + end + `}`, 1, true, ""}, // the second wave is empty
		{`{"waves":[{"size":"1","soak":"55m"},{"size":"100%"}],"attemptTimeout":"5m",` + end + `}`, 10, true, "until the end there are 5m"},
		{`{"waves":[{"size":"1"},{"size":"100%"}],` + end + `}`, 10, true, "may come before the last wave: devices that are away may hold up each wave for 1d (timeout), those before the last for 1d in all, and until"},
		{`{"waves":[{"size":"1"},{"size":"100%"}],` + end + `}`, 10, false, ""},
		{`{"waves":[{"size":"1"},{"size":"100%"}],"timeout":"30m",` + end + `}`, 10, true, ""},
		{`{"windows":[{"cron":"0 12 * * *","duration":"20m"}],"parallel":5,"attemptTimeout":"10m",` + end + `}`, 15, true, "until the end there are 20m, with an open window"},
	} {
		p, err := Parse([]byte(c.policy), "policy")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Validate("policy", base(), c.total); err != nil {
			t.Errorf("%s: %v", c.policy, err)
		}
		if got := text(Faults(p.Slow("policy", base(), c.total, c.waits))); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.policy, got, c.want)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestWaveSizes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		policy string
		total  int
		want   []int
	}{
		{`{}`, 7, []int{7}},
		{`{"waves":[{"size":"1"},{"size":"10%"},{"size":"100%"}]}`, 2000, []int{1, 199, 1800}},
		{`{"waves":[{"size":"1"},{"size":"10%"},{"size":"100%"}]}`, 5, []int{1, 0, 4}},
		{`{"waves":[{"size":"1"},{"size":"10%"},{"size":"100%"}]}`, 0, []int{0, 0, 0}},
		{`{"waves":[{"size":"50"},{"size":"10%"},{"size":"100%"}]}`, 100, []int{50, 0, 50}},
		{`{"waves":[{"size":"0.1%"},{"size":"100%"}]}`, 2_000_000, []int{2000, 1_998_000}},
	} {
		p, err := Parse([]byte(c.policy), "policy")
		if err != nil {
			t.Fatal(err)
		}
		if got := p.WaveSizes(c.total); !slices.Equal(got, c.want) {
			t.Errorf("%s of %d: got %v, want %v", c.policy, c.total, got, c.want)
		}
	}
}

// FuzzParse reads anything, says what is wrong with it without a panic, and runs
// what is right.
func FuzzParse(f *testing.F) {
	f.Add([]byte(fullPolicy), 1000)
	f.Add([]byte(`{"windows":[{"cron":"* * * * *","duration":"31d"}],"end":"2027-01-01T00:00:00Z","rate":{"perMinute":0.001}}`), 50)
	f.Add([]byte(`{"waves":[{"size":"1"},{"size":"5"}],"pause":[{"share":7}]}`), -1)
	f.Fuzz(func(t *testing.T, text []byte, total int) {
		p, err := Parse(text, "policy")
		if err != nil {
			return
		}
		if _, err := p.Validate("policy", base(), total%1_000_000); err != nil {
			return
		}
		made, err := NewPlan(p)
		if err != nil {
			t.Fatalf("valid, and no plan can be made: %v", err)
		}
		written, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Parse(written, "policy"); err != nil || !reflect.DeepEqual(again, p) {
			t.Fatalf("written as %s, read as %+v, %v", written, again, err)
		}
		n := max(0, total%1000)
		sizes := p.WaveSizes(n)
		sum := 0
		for _, size := range sizes {
			if size < 0 {
				t.Fatalf("sizes %v", sizes)
			}
			sum += size
		}
		if sum != n {
			t.Fatalf("sizes %v of %d", sizes, n)
		}
		s := NewState(false)
		if err := s.LayOut(sizes); err != nil {
			t.Fatal(err)
		}
		now := base()
		for range 20 {
			d := made.Advance(&s, Input{Now: now, Room: 100, Zones: []Zone{{Pending: true}}})
			if d.Start < 0 || d.Again < 0 || d.Start > 100 {
				t.Fatalf("%+v", d)
			}
			if err := s.Move(d.Wave, PhasePending, PhaseSucceeded, d.Start); d.Start > 0 && err != nil {
				t.Fatal(err)
			}
			if now = now.Add(time.Minute); d.Wake.After(now) {
				now = d.Wake
			}
		}
	})
}
