package engine_test

import (
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

func TestCodesHaveOneCompleteRowEach(t *testing.T) {
	names := map[string]bool{}
	for i, row := range engine.Codes() {
		if int(row.Code) != i {
			t.Errorf("row %d is for code %d", i, row.Code)
		}
		if row.Name == "" || row.Text == "" || row.Next == "" {
			t.Errorf("row %d (%q) is not complete", i, row.Name)
		}
		if names[row.Name] {
			t.Errorf("name %q appears twice", row.Name)
		}
		names[row.Name] = true
		if row.Code.String() != row.Name {
			t.Errorf("String of %d is %q, want %q", i, row.Code, row.Name)
		}
	}
	if got := engine.Code(250).String(); got != "ServerError" {
		t.Errorf("unknown code is %q", got)
	}
}

func TestOperationsAreCompleteRows(t *testing.T) {
	for _, row := range engine.Operations() {
		if row.Name == "" || row.Permission == 0 && row.Name != "authenticate" || row.Text == "" {
			t.Errorf("row %+v is not complete", row)
		}
	}
}

func TestLimitProfiles(t *testing.T) {
	if _, err := engine.LimitsFor("generous"); err == nil {
		t.Error("an unknown profile is taken")
	}
	azure, err := engine.LimitsFor(engine.ProfileAzure)
	if err != nil {
		t.Fatal(err)
	}
	if azure.TagsBytes != 8<<10 || azure.DesiredBytes != 32<<10 || azure.ReportedBytes != 32<<10 {
		t.Errorf("azure sections are %d, %d, %d bytes", azure.TagsBytes, azure.DesiredBytes, azure.ReportedBytes)
	}
	relaxed, err := engine.LimitsFor(engine.ProfileDefault)
	if err != nil {
		t.Fatal(err)
	}
	if relaxed.TagsBytes != 256<<10 || relaxed.RegistryRate != 0 || azure.RegistryRate == 0 {
		t.Errorf("default: tags %d bytes, registry %v/s; azure registry %v/s", relaxed.TagsBytes, relaxed.RegistryRate, azure.RegistryRate)
	}
	names := map[string]bool{}
	for _, row := range engine.LimitTable() {
		if row.Name == "" || row.Text == "" || names[row.Name] {
			t.Errorf("row %+v is not complete or not unique", row)
		}
		names[row.Name] = true
	}
}

func TestParseIfMatch(t *testing.T) {
	f := func(header string, want engine.IfMatch) {
		t.Helper()
		if got := engine.ParseIfMatch(header); got != want {
			t.Errorf("ParseIfMatch(%q) = %+v, want %+v", header, got, want)
		}
	}
	f("", engine.IfMatch{})
	f("*", engine.IfMatch{Present: true, Any: true, ETag: "*"})
	f(`"*"`, engine.IfMatch{Present: true, Any: true, ETag: "*"})
	f(`"MQ=="`, engine.IfMatch{Present: true, ETag: "MQ=="})
	f(`MQ==`, engine.IfMatch{Present: true, ETag: "MQ=="})
	f(`W/"MQ=="`, engine.IfMatch{Present: true, ETag: "MQ=="})
}

func wantCode(t *testing.T, err error, want engine.Code) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", want)
	}
	if got := engine.AsError(err); got.Code != want {
		t.Fatalf("got %v, want code %s", err, want)
	}
}

func mustCreate(t *testing.T, h *engine.Hub, i engine.Identity) engine.Identity {
	t.Helper()
	made, err := h.CreateIdentity(t.Context(), enginetest.Owner(), i)
	if err != nil {
		t.Fatalf("create %s: %v", i.DeviceID, err)
	}
	return made
}
