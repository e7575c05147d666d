package engine_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/query"
)

func save(t *testing.T, h *engine.Hub, s engine.SavedQuery) engine.SavedQuery {
	t.Helper()
	s, err := h.PutSavedQuery(t.Context(), enginetest.Owner(), s, "")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSavedQueries(t *testing.T) {
	dir := t.TempDir()
	h := enginetest.New(t, enginetest.Dir(dir))
	owner := enginetest.Owner()
	first := save(t, h, engine.SavedQuery{Name: "low", Text: "reported.battery < 20", Labels: map[string]string{"team": "north"}})
	if first.Version != 1 || first.Principal != owner.Principal.String() || first.Created.IsZero() {
		t.Errorf("%+v", first)
	}
	if again := save(t, h, engine.SavedQuery{Name: "low", Text: "reported.battery < 20", Labels: map[string]string{"team": "north"}}); again.ETag != first.ETag {
		t.Errorf("the same again made a version: %+v", again)
	}
	second, err := h.PutSavedQuery(t.Context(), owner, engine.SavedQuery{Name: "low", Text: "reported.battery < 10", Description: "Change soon."}, first.ETag)
	if err != nil || second.Version != 2 || second.ETag == first.ETag || second.Created != first.Created {
		t.Fatalf("%+v %v", second, err)
	}
	_, err = h.PutSavedQuery(t.Context(), owner, engine.SavedQuery{Name: "low", Text: "reported.battery < 5"}, first.ETag)
	wantCode(t, err, engine.CodePreconditionFailed)
	_, err = h.PutSavedQuery(t.Context(), owner, engine.SavedQuery{Name: "new", Text: "reported.battery < 5"}, "*")
	wantCode(t, err, engine.CodeQueryNotFound)
	if sql := save(t, h, engine.SavedQuery{Name: "all", Text: "SELECT * FROM devices.modules", Source: query.Devices}); sql.Source != query.Modules {
		t.Errorf("a query's own source is %v", sql.Source)
	}

	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h = enginetest.New(t, enginetest.Dir(dir))
	list, err := h.SavedQueries(t.Context(), owner)
	if err != nil || len(list) != 2 || list[0].Name != "all" || list[1].Text != second.Text || list[1].ETag != second.ETag {
		t.Errorf("%+v %v", list, err)
	}
	old, err := h.SavedQuery(t.Context(), owner, "low", 1)
	if err != nil || old.Text != first.Text || old.Labels["team"] != "north" {
		t.Errorf("%+v %v", old, err)
	}
	_, err = h.SavedQuery(t.Context(), owner, "low", 3)
	wantCode(t, err, engine.CodeQueryNotFound)
	versions, err := h.SavedQueryVersions(t.Context(), owner, "low")
	if err != nil || len(versions) != 2 || versions[0].Version != 2 || versions[1].Version != 1 {
		t.Errorf("%+v %v", versions, err)
	}

	wantCode(t, h.DeleteSavedQuery(t.Context(), owner, "low", first.ETag), engine.CodePreconditionFailed)
	if err := h.DeleteSavedQuery(t.Context(), owner, "low", ""); err != nil {
		t.Fatal(err)
	}
	_, err = h.SavedQueryVersions(t.Context(), owner, "low")
	wantCode(t, err, engine.CodeQueryNotFound)
	// A namesake is another query: an ETag of the one before does not fit.
	save(t, h, engine.SavedQuery{Name: "low", Text: "reported.battery < 20"})
	_, err = h.PutSavedQuery(t.Context(), owner, engine.SavedQuery{Name: "low", Text: "reported.battery < 5"}, first.ETag)
	wantCode(t, err, engine.CodePreconditionFailed)

	events, _, err := h.ReadEvents(t.Context(), owner, engine.EventFilter{Kinds: []string{"query.*"}}, engine.CursorStart, 100)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, e := range events {
		told = append(told, e.Kind+string(e.Data))
	}
	want := `query.saved{"query":"low","version":1} query.saved{"query":"low","version":2} query.saved{"query":"all","version":1} query.deleted{"query":"low","version":2} query.saved{"query":"low","version":1}`
	if got := strings.Join(told, " "); got != want {
		t.Errorf("events\n%s, want\n%s", got, want)
	}
	audit, _, err := h.Audit(t.Context(), owner, 0, 2)
	if err != nil || audit[0].Operation != "query.saved.write" || audit[0].Target != "low" {
		t.Errorf("%+v %v", audit, err)
	}
}

func TestSavedQueriesAreBounded(t *testing.T) {
	h := enginetest.New(t)
	owner := enginetest.Owner()
	limits := h.Limits()
	for name, s := range map[string]engine.SavedQuery{
		"no name":     {Text: "connected"},
		"a long name": {Name: strings.Repeat("n", 65), Text: "connected"},
		"a bad name":  {Name: "a/b", Text: "connected"},
		"a long text": {Name: "x", Text: "connected" + strings.Repeat(" and connected", 1000)},
		"no text":     {Name: "x", Text: " \n"},
		"bad text":    {Name: "x", Text: "SELECT * FROM nowhere"},
		"bad where":   {Name: "x", Text: "tags.site =="},
		"description": {Name: "x", Text: "connected", Description: strings.Repeat("d", 513)},
		"label":       {Name: "x", Text: "connected", Labels: map[string]string{"k": strings.Repeat("v", 257)}},
		"label's key": {Name: "x", Text: "connected", Labels: map[string]string{"": "v"}},
	} {
		if _, err := h.PutSavedQuery(t.Context(), owner, s, ""); err == nil || engine.AsError(err).Code != engine.CodeArgumentInvalid && engine.AsError(err).Code != engine.CodeArgumentNull {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range limits.SavedQueryVersions + 5 {
		save(t, h, engine.SavedQuery{Name: "q", Text: fmt.Sprint("reported.battery < ", i)})
	}
	versions, err := h.SavedQueryVersions(t.Context(), owner, "q")
	if err != nil || len(versions) != limits.SavedQueryVersions || versions[0].Version != uint64(limits.SavedQueryVersions+5) {
		t.Errorf("%d versions, %v", len(versions), err)
	}
	var wg sync.WaitGroup
	for worker := range 64 { // their commits share syncs
		wg.Go(func() {
			for i := worker; i < limits.SavedQueries-1; i += 64 {
				if _, err := h.PutSavedQuery(t.Context(), owner, engine.SavedQuery{Name: fmt.Sprint("q-", i), Text: "connected"}, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	_, err = h.PutSavedQuery(t.Context(), owner, engine.SavedQuery{Name: "more", Text: "connected"}, "")
	wantCode(t, err, engine.CodeQuotaExceeded)
	save(t, h, engine.SavedQuery{Name: "q", Text: "connected"})
	if err := h.DeleteSavedQuery(t.Context(), owner, "q-7", ""); err != nil {
		t.Fatal(err)
	}
	save(t, h, engine.SavedQuery{Name: "more", Text: "connected"})
}

func TestSavedQueriesNeedPermission(t *testing.T) {
	h := enginetest.New(t)
	nobody := engine.Caller{Principal: auth.Principal{Kind: auth.Policy, Name: "r", Permissions: auth.RegistryRead | auth.RegistryWrite}}
	_, err := h.SavedQueries(t.Context(), nobody)
	wantCode(t, err, engine.CodeForbidden)
	_, err = h.PutSavedQuery(t.Context(), nobody, engine.SavedQuery{Name: "x", Text: "connected"}, "")
	wantCode(t, err, engine.CodeForbidden)
	wantCode(t, h.DeleteSavedQuery(t.Context(), nobody, "x", ""), engine.CodeForbidden)
	service := engine.Caller{Principal: auth.Principal{Kind: auth.Policy, Name: "s", Permissions: auth.ServiceConnect}}
	_, err = h.DeclareSchema(t.Context(), service, engine.DeclaredSchema{Tags: []byte(`{}`)}, "")
	wantCode(t, err, engine.CodeForbidden)
}
