package engine

import (
	"strings"
	"testing"

	"github.com/muster-hub/muster/storage"
)

func TestRefusalsDoNotFillTheAudit(t *testing.T) {
	h := openHub(t)
	long := strings.Repeat("é", 10_000)
	stranger := Caller{Address: "192.0.2.1"}
	for range 3 * refusalsBurst {
		if _, err := h.AuthenticateService(t.Context(), stranger, "SharedAccessSignature sr=x&sig=AAAA&se=9999999999&skn=nobody", "/"+long); err == nil {
			t.Fatal("a stranger was let in")
		}
	}
	// What was submitted before an update that is waited for has settled too.
	if err := h.update(t.Context(), "", func(tx *storage.Tx) error { tx.Add("settled", 1); return nil }); err != nil {
		t.Fatal(err)
	}
	entries, bytes := 0, 0
	err := h.db.View(t.Context(), func(r storage.Reader) error {
		for e, err := range auditLog.Read(r, 0) {
			if err != nil {
				return err
			}
			entries++
			bytes += len(e.Data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	lost := int(h.Totals().AuditLost)
	if entries > refusalsBurst*3/2 || entries+lost != 3*refusalsBurst {
		t.Errorf("%d refusals were written and %d counted, of %d", entries, lost, 3*refusalsBurst)
	}
	if most := 600 * entries; bytes > most {
		t.Errorf("%d entries have %d bytes, want at most %d", entries, bytes, most)
	}
}

func TestAuditIsVerifiedOnceAtATime(t *testing.T) {
	h := openHub(t)
	h.audits.verifying.Store(true)
	if _, err := h.VerifyAudit(t.Context(), owner); err == nil || AsError(err).Code != CodeThrottled {
		t.Errorf("a second walk: %v", err)
	}
	h.audits.verifying.Store(false)
	for range 2 {
		if check, err := h.VerifyAudit(t.Context(), owner); err != nil || !check.OK {
			t.Errorf("%+v, %v", check, err)
		}
	}
}

func TestETagsOfAnotherEpochDoNotMatch(t *testing.T) {
	if identityETag(1, 7) == identityETag(2, 7) || twinETag(1, 7) == twinETag(2, 7) {
		t.Error("an ETag is the same in two epochs")
	}
	if got := identityETag(1, 1); got != "MQ==" {
		t.Errorf("the ETag of revision 1 is %s", got)
	}
}
