package engine

import (
	"log/slog"
	"strconv"
	"time"

	"github.com/muster-hub/muster/engine/schema"
	"github.com/muster-hub/muster/engine/twin"
	"github.com/muster-hub/muster/storage"
)

// checkDeclared checks a section after a change against its declared schema: it
// refuses the change, or returns what to warn of. What was wrong before and
// stayed as it was is not held against the change, else a device could not
// report anything until all of its twin is right.
func (h *Hub) checkDeclared(now time.Time, id TwinID, before, after *twin.Section) ([]schema.Violation, error) {
	wrong, refusal := h.compareDeclared(id, before, after)
	if refusal == nil {
		return wrong, nil
	}
	h.count.schemaRejected.Add(1)
	h.declared.note(now, id, after.Kind(), wrong, true)
	return nil, refusal
}

// compareDeclared says what checkDeclared would, and notes nothing.
func (h *Hub) compareDeclared(id TwinID, before, after *twin.Section) (wrong []schema.Violation, refusal error) {
	current := h.declared.current.Load()
	if current == nil || id.ModuleID != "" || current.sections[after.Kind()] == nil {
		return nil, nil
	}
	for _, v := range current.sections[after.Kind()].Check(func() any { return plainValue(before.View()) }, plainValue(after.View())) {
		if !v.Known {
			wrong = append(wrong, v)
		}
	}
	if len(wrong) == 0 || current.mode != SchemaReject {
		return wrong, nil
	}
	more := ""
	if len(wrong) > 1 {
		more = "; " + strconv.Itoa(len(wrong)-1) + " more are wrong"
	}
	return wrong, &Error{
		Code:    CodeArgumentInvalid,
		Message: sectionPath(after.Kind(), wrong[0].Path) + ": found " + wrong[0].Found + ", expected " + wrong[0].Expected + more,
		Next:    "Send what the declared schema allows; GET /api/v1/schema/declared shows it.",
	}
}

// tellViolationsTx writes the event of what a change, which is stored all the
// same, has otherwise than the declared schema says; log and counters follow
// when it is durable.
func (h *Hub) tellViolationsTx(tx *storage.Tx, c Caller, id TwinID, after *twin.Section, wrong []schema.Violation) error {
	if len(wrong) == 0 {
		return nil
	}
	type violation struct {
		Path     string `json:"path"`
		Found    string `json:"found"`
		Expected string `json:"expected"`
	}
	var list []violation
	for _, v := range wrong[:min(len(wrong), violationsTold)] {
		list = append(list, violation{sectionPath(after.Kind(), v.Path), v.Found, v.Expected})
	}
	details, err := marshal(struct {
		Violations []violation `json:"violations"`
		Count      int         `json:"count"`
	}{list, len(wrong)})
	if err != nil {
		return err
	}
	now := tx.Now()
	tx.OnCommit(func(uint64) {
		h.count.schemaViolations.Add(1)
		for _, v := range h.declared.note(now, id, after.Kind(), wrong, false) {
			h.log.Warn("a twin is not as the declared schema says", slog.String("device", id.DeviceID), slog.String("path", v.Path),
				slog.String("found", v.Found), slog.String("expected", v.Expected), slog.Uint64("times", v.Warned))
		}
	})
	return appendChange(tx, c, changeSchemaViolated, id, after.Version(), details)
}

// plainValue is a section as package schema takes it. A section holds no number
// beyond the range.
func plainValue(v twin.View) any {
	switch v.Form() {
	case 't', 'f':
		return v.Form() == 't'
	case '0':
		if n, err := strconv.ParseInt(v.Text(), 10, 64); err == nil {
			return n
		}
		f, _ := strconv.ParseFloat(v.Text(), 64)
		return f
	case '"':
		return v.Text()
	case '[':
		list := make([]any, v.Len())
		for i := range list {
			_, item := v.At(i)
			list[i] = plainValue(item)
		}
		return list
	case '{':
		members := make(map[string]any, v.Len())
		for i := range v.Len() {
			key, value := v.At(i)
			members[key] = plainValue(value)
		}
		return members
	default:
		return nil
	}
}

// violationsTold is how many violations an event tells.
const violationsTold = 10

func sectionPath(kind twin.Kind, path string) string {
	if path == "" {
		return kind.String()
	}
	return kind.String() + "." + path
}
