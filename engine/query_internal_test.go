package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

func queryHub(t testing.TB, change ...func(*Options)) *Hub {
	t.Helper()
	o := Options{Storage: storage.Options{Dir: t.TempDir(), Memory: 64 << 20}, Hosts: []string{"hub.muster.test"}}
	for _, f := range change {
		f(&o)
	}
	h, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func everybody() Caller {
	return Caller{Principal: auth.Principal{Kind: auth.Local, Name: "uid=0", Permissions: ^auth.Permission(0)}}
}

func makeDevices(t testing.TB, h *Hub, n int, tags func(i int) string) {
	t.Helper()
	for at := 0; at < n; at += 100 {
		var items []BulkItem
		for i := at; i < min(at+100, n); i++ {
			items = append(items, BulkItem{Identity: Identity{DeviceID: fmt.Sprintf("d%05d", i)}, Mode: ImportCreate, Tags: []byte(tags(i))})
		}
		if failed, err := h.Bulk(t.Context(), everybody(), items); err != nil || len(failed) > 0 {
			t.Fatal(failed, err)
		}
	}
}

func refusal(t testing.TB, err error, code Code, parts ...string) {
	t.Helper()
	e := AsError(err)
	if e == nil || e.Code != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	for _, part := range parts {
		if !strings.Contains(e.Message+" "+e.NextStep(), part) {
			t.Errorf("%q does not say %q", e.Message, part)
		}
	}
}

func TestTokensOpenOnlyWhatTheySeal(t *testing.T) {
	h := queryHub(t)
	q := h.queries
	var one, other [tokenHash]byte
	one[0], other[0] = 1, 2
	for _, last := range []string{"", "d1", "d\x00m", strings.Repeat("x", tokenLast), "\xff\xfe"} {
		p := queryPlace{query: one, given: 12345, last: last, list: 7}
		token := q.token(p)
		got, err := q.place(token, one)
		if err != nil || got != p {
			t.Errorf("%+v became %+v, %v", p, got, err)
		}
		_, err = q.place(token, other)
		refusal(t, err, CodeArgumentInvalid, "another query")
		for i := range len(token) {
			bad := []byte(token)
			bad[i] ^= 1
			if got, err := q.place(string(bad), one); err == nil && got != p { // the last sign may have spare bits
				t.Fatalf("a token with sign %d changed opens as %+v", i, got)
			}
		}
		_, err = q.place(token[:len(token)/2], one)
		refusal(t, err, CodeArgumentInvalid, "not one that this hub gave")
	}
	_, err := queryHub(t).queries.place(q.token(queryPlace{query: one}), one)
	refusal(t, err, CodeArgumentInvalid, "not one that this hub gave")
}

func FuzzToken(f *testing.F) {
	h := queryHub(f)
	var hash [tokenHash]byte
	f.Add(h.queries.token(queryPlace{query: hash, given: 3, last: "d"}))
	f.Add("")
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, token string) {
		if p, err := h.queries.place(token, hash); err == nil && h.queries.token(p) != strings.TrimRight(token, "=") {
			t.Errorf("%q opens as %+v", token, p)
		}
	})
}

// FuzzPlace opens what a token may hold, without its seal.
func FuzzPlace(f *testing.F) {
	f.Add([]byte{})
	f.Add(append([]byte{1, 'e'}, make([]byte, tokenHash+3)...))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _, _ = openPlace(b) })
}

func TestTokensOutliveARestart(t *testing.T) {
	dir := t.TempDir()
	inDir := func(o *Options) { o.Storage.Dir = dir }
	h := queryHub(t, inDir)
	makeDevices(t, h, 5, func(i int) string { return fmt.Sprintf(`{"n":%d}`, i) })
	ask := QueryRequest{Text: "SELECT * FROM devices WHERE tags.n >= 1", Max: 2}
	first, err := h.Query(t.Context(), everybody(), ask)
	if err != nil || len(first.Twins) != 2 || first.Token == "" {
		t.Fatalf("%d twins, token %q, %v", len(first.Twins), first.Token, err)
	}
	sorted := QueryRequest{Text: "SELECT * FROM devices ORDER BY tags.n DESC", Max: 2}
	list, err := h.Query(t.Context(), everybody(), sorted)
	if err != nil || list.Token == "" {
		t.Fatal(list, err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h = queryHub(t, inDir)
	ask.Token, ask.Max = first.Token, 10
	second, err := h.Query(t.Context(), everybody(), ask)
	if err != nil || len(second.Twins) != 2 || second.Twins[0].Identity.DeviceID != "d00003" || second.Token != "" {
		t.Fatalf("%+v, %v", second, err)
	}
	sorted.Token = list.Token
	_, err = h.Query(t.Context(), everybody(), sorted)
	refusal(t, err, CodeArgumentInvalid, "kept no more", "restart")
}

func TestSortedPages(t *testing.T) {
	h := queryHub(t)
	makeDevices(t, h, 50, func(i int) string { return fmt.Sprintf(`{"n":%d,"g":"%s"}`, 100-i, strings.Repeat("g", i%5+1)) })
	h.limits.QuerySorted = 60
	var ids []string
	ask := QueryRequest{Text: "SELECT * FROM devices ORDER BY tags.n", Max: 20}
	for {
		page, err := h.Query(t.Context(), everybody(), ask)
		if err != nil {
			t.Fatal(err)
		}
		for _, twin := range page.Twins {
			ids = append(ids, twin.Identity.DeviceID)
		}
		if len(ids) == 20 { // the list stands: what is deleted is left out, what changes keeps its place
			if err := h.DeleteIdentity(t.Context(), everybody(), TwinID{DeviceID: "d00010"}, IfMatch{Present: true, Any: true}); err != nil {
				t.Fatal(err)
			}
			if _, err := h.PatchTwin(t.Context(), everybody(), TwinID{DeviceID: "d00005"}, TwinUpdate{Tags: []byte(`{"n":0}`)}, IfMatch{}); err != nil {
				t.Fatal(err)
			}
		}
		if ask.Token = page.Token; ask.Token == "" {
			break
		}
	}
	if len(ids) != 49 {
		t.Fatalf("%d ids: %v", len(ids), ids)
	}
	for i := range ids[1:] {
		if ids[i] <= ids[i+1] {
			t.Fatalf("%s stands before %s", ids[i], ids[i+1])
		}
	}
	h.limits.QuerySorted = 10
	_, err := h.Query(t.Context(), everybody(), QueryRequest{Text: "SELECT deviceId FROM devices ORDER BY tags.n"})
	refusal(t, err, CodeQueryBudget, "10 rows", "TOP")
	page, err := h.Query(t.Context(), everybody(), QueryRequest{Text: "SELECT TOP 10 deviceId FROM devices ORDER BY tags.n"})
	if err != nil || len(page.Rows) != 10 {
		t.Errorf("%d rows, %v", len(page.Rows), err)
	}
}

func TestSortedListsAreBounded(t *testing.T) {
	l := newResultLists()
	now := time.Unix(1e9, 0)
	var hash [tokenHash]byte
	first := l.keep(&resultList{ids: []string{"a"}}, now)
	for i := range listCount {
		l.keep(&resultList{ids: []string{"b"}}, now.Add(time.Duration(i+1)*time.Second))
	}
	_, err := l.find(first, hash, now.Add(5*time.Minute))
	refusal(t, err, CodeArgumentInvalid, "kept no more")
	big := []json.RawMessage{bytes.Repeat([]byte("x"), listBytes/2+1)}
	one := l.keep(&resultList{rows: big}, now.Add(6*time.Minute))
	two := l.keep(&resultList{rows: big}, now.Add(7*time.Minute))
	if _, err := l.find(one, hash, now.Add(8*time.Minute)); err == nil {
		t.Error("two lists fill more than there is room for")
	}
	if _, err := l.find(two, hash, now.Add(17*time.Minute)); err != nil {
		t.Error(err)
	}
	l.sweep(now.Add(28 * time.Minute))
	if len(l.lists) != 0 || l.bytes != 0 {
		t.Errorf("%d lists of %d bytes are left", len(l.lists), l.bytes)
	}
}

func TestQueriesSayWhenTheyAreNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := queryHub(t)
		if _, err := h.Query(t.Context(), everybody(), QueryRequest{Text: "SELECT * FROM devices"}); err != nil {
			t.Fatal(err)
		}
		if p := h.QueryProgress(); !p.Ready {
			t.Errorf("%+v", p)
		}
		ready := h.queries.ready
		h.queries.ready = make(chan struct{})
		h.queries.done.Store(300)
		h.queries.total.Store(1000)
		_, err := h.Query(t.Context(), everybody(), QueryRequest{Text: "SELECT * FROM devices"})
		refusal(t, err, CodeUnavailable, "300 of 1000 rows")
		if f := h.doctorQueries(); f.Level != "warn" || !strings.Contains(f.Text, "300 of 1000") {
			t.Errorf("the doctor says %+v", f)
		}
		if err := h.Ready(); err != nil {
			t.Errorf("the hub itself: %v", err)
		}
		h.queries.ready = ready
		if f := h.doctorQueries(); f.Level != "ok" {
			t.Errorf("the doctor says %+v", f)
		}
	})
}

func TestQueriesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := queryHub(t)
		for range queriesAtOnce() {
			h.queries.slots <- struct{}{}
		}
		_, err := h.Query(t.Context(), everybody(), QueryRequest{Text: "SELECT COUNT() AS n FROM devices"})
		refusal(t, err, CodeThrottled, "turn")
		<-h.queries.slots
		if _, err := h.Query(t.Context(), everybody(), QueryRequest{Text: "SELECT COUNT() AS n FROM devices"}); err != nil {
			t.Error(err)
		}
	})
}

func TestQueryBudgetAndSlowLog(t *testing.T) {
	var log bytes.Buffer
	h := queryHub(t, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	makeDevices(t, h, 200, func(i int) string { return fmt.Sprintf(`{"n":%d}`, i) })
	h.limits.QueryDocuments = 20
	h.limits.QuerySlow = time.Nanosecond
	_, err := h.Query(t.Context(), everybody(), QueryRequest{Text: "SELECT * FROM devices WHERE version > 100"})
	refusal(t, err, CodeQueryBudget)
	long := "SELECT * FROM devices WHERE tags.n = 7 AND tags.x != '" + strings.Repeat("y", 5000) + "'"
	if _, err := h.Query(t.Context(), everybody(), QueryRequest{Text: long}); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"slow query", "version > 100", "tags.n = 7", "local:uid=0", "plan="} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("the log does not have %q:\n%s", part, log.String())
		}
	}
	if log.Len() > 4000 {
		t.Errorf("the log has %d bytes", log.Len())
	}
	if s := h.QueryStats(); s.Slow != 2 || s.OverBudget != 1 || s.Queries != 2 || s.Failed != 1 || s.Devices.Rows != 200 {
		t.Errorf("%+v", s)
	}
}

func TestQueryRefusals(t *testing.T) {
	h := queryHub(t)
	_, err := h.Query(t.Context(), Caller{Principal: auth.Principal{Kind: auth.Local, Name: "x", Permissions: auth.RegistryRead}}, QueryRequest{Text: "SELECT * FROM devices"})
	refusal(t, err, CodeForbidden, "ServiceConnect")
	_, err = h.Query(t.Context(), everybody(), QueryRequest{Text: " "})
	refusal(t, err, CodeArgumentNull)
	_, err = h.Query(t.Context(), everybody(), QueryRequest{Text: "SELECT * FROM devices WHERE", Where: "tags.a == 1"})
	refusal(t, err, CodeArgumentInvalid)
	_, err = h.Query(t.Context(), everybody(), QueryRequest{Text: "SELECT * FROM devices WHERE tags.a ="})
	refusal(t, err, CodeArgumentInvalid, "column")
	page, err := h.Query(t.Context(), everybody(), QueryRequest{Where: `tags.a == 1`, Source: query.Modules})
	if err != nil || page.Item != QueryTwins || len(page.Twins) != 0 {
		t.Errorf("%+v, %v", page, err)
	}
}

// Large rows make shorter pages, and neither they nor large documents fill the
// memory.
func TestPagesOfLargeRowsAreShorter(t *testing.T) {
	h := queryHub(t)
	const devices, size = 200, 4000
	makeDevices(t, h, devices, func(int) string { return fmt.Sprintf(`{"a":"%[1]s","b":"%[1]s"}`, strings.Repeat("x", size)) })
	h.limits.QueryMemory = 400 << 10
	h.limits.QueryPageBytes = 100 << 10
	for text, most := range map[string]int{"SELECT deviceId, tags FROM devices": 50, "SELECT * FROM devices": 13} {
		rows, pages := 0, 0
		for ask := (QueryRequest{Text: text}); ; pages++ {
			page, err := h.Query(t.Context(), everybody(), ask)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if n := len(page.Rows) + len(page.Twins); n == 0 || n > most {
				t.Fatalf("%s: a page of %d rows", text, n)
			}
			rows += len(page.Rows) + len(page.Twins)
			if ask.Token = page.Token; ask.Token == "" {
				break
			}
		}
		if rows != devices {
			t.Errorf("%s: %d rows on %d pages", text, rows, pages)
		}
	}
	h.limits.QueryMemory = 60 << 10
	_, err := h.Query(t.Context(), everybody(), QueryRequest{Text: "SELECT * FROM devices WHERE version > 1000"})
	refusal(t, err, CodeQueryBudget, "large")
}

// A note stands for an identity only if each field that a twin may show is as
// notedIdentity has it.
func TestIdentityNote(t *testing.T) {
	plain := identityRecord{Revision: 7, Type: AuthSAS}
	if n := plain.note(); n != 7 {
		t.Fatalf("the note is %d", n)
	}
	if r, ok := notedIdentity(7); !ok || !reflect.DeepEqual(r, plain) {
		t.Errorf("it is %+v", r)
	}
	hidden := []string{"GenerationID", "SealedKeys", "Created", "Updated", "History"}
	for i := range reflect.TypeFor[identityRecord]().NumField() {
		r := plain
		name := reflect.TypeFor[identityRecord]().Field(i).Name
		switch f := reflect.ValueOf(&r).Elem().Field(i); f.Interface().(type) {
		case string, AuthenticationType:
			f.SetString("x")
		case bool:
			f.SetBool(true)
		case uint64:
			f.SetUint(1 << 32)
		case time.Time:
			f.Set(reflect.ValueOf(time.Now()))
		case []byte:
			f.SetBytes([]byte("x"))
		case []string:
			f.Set(reflect.ValueOf([]string{"x"}))
		case [2]string:
			f.Set(reflect.ValueOf([2]string{"", "x"}))
		default:
			t.Fatalf("%s has a type that this test does not know", name)
		}
		if n := r.note(); (n != 0) != slices.Contains(hidden, name) {
			t.Errorf("with another %s the note is %d", name, n)
		}
	}
}

// The notes of rows are those of the newest group, after each change of an identity and
// after restarts with columns that were kept and built.
func TestNotesOfRows(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	open := func() *Hub {
		t.Helper()
		h, err := Open(t.Context(), Options{
			Storage: storage.Options{Dir: dir, Memory: 64 << 20}, Hosts: []string{"hub.muster.test"}, Build: "test",
			Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		if err != nil {
			t.Fatal(err)
		}
		<-h.queries.ready
		return h
	}
	h := open()
	check := func(when string) {
		t.Helper()
		rows := []string{"plain", "off", "nobody"}
		notes := h.queries.notes(rows)
		err := h.view(t.Context(), "check", func(r storage.Reader) error {
			got := notes.in(r, 0, len(rows))
			for i, id := range rows {
				want := uint32(0)
				if record, err := loadDevice(r, id); err == nil {
					want = record.note()
				}
				if got[i] != want || (want != 0) != (id == "plain") {
					t.Errorf("%s: the note of %s is %d, not %d", when, id, got[i], want)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	for _, id := range []string{"plain", "off"} {
		makeDevice(t, h, id)
	}
	for _, columns := range []string{"new", "kept", "built"} {
		for _, disabled := range []bool{true, false} {
			for _, id := range []string{"plain", "off"} {
				i, err := h.Identity(t.Context(), owner, TwinID{DeviceID: id})
				if err != nil {
					t.Fatal(err)
				}
				if i.Disabled = disabled && id == "off"; id == "plain" {
					i.Authentication.PrimaryKey, i.Authentication.SecondaryKey = i.Authentication.SecondaryKey, i.Authentication.PrimaryKey
				}
				if _, err := h.UpdateIdentity(t.Context(), owner, i, IfMatch{Present: true, Any: true}); err != nil {
					t.Fatal(err)
				}
			}
			check(columns)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		if built := strings.Contains(log.String(), "are built from all twins"); built == (columns == "kept") {
			t.Errorf("%s: columns were built: %t", columns, built)
		}
		log.Reset()
		if columns == "kept" {
			if err := os.Remove(filepath.Join(dir, "KEPT")); err != nil {
				t.Fatal(err)
			}
		}
		h = open()
		check("after " + columns)
	}
	// Of a snapshot that is older or younger nothing is known.
	notes := h.queries.notes([]string{"plain"})
	makeDevice(t, h, "another")
	err := h.view(t.Context(), "check", func(r storage.Reader) error {
		if got := notes.in(r, 0, 1); got[0] != 0 {
			t.Errorf("an old note is taken: %d", got[0])
		}
		return nil
	})
	if err := errors.Join(err, h.Close()); err != nil {
		t.Error(err)
	}
}
