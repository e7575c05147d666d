package engine

import (
	"slices"
	"strings"
)

// EventKinds are the kinds of events that this hub tells. What each of them
// is says docs/reference/events.md, which a test compares with this list.
func EventKinds() []string {
	return []string{
		changeIdentityCreated, changeIdentityUpdated, changeIdentityDeleted,
		changeTags, changeDesired, changeReported, changeModel,
		changeConnected, changeDisconnected,
		changeMethodQueued, changeMethodSending, changeMethodFinished,
		changeFileUploaded, changeFileFailed, changeFileDeleted,
		changeQuerySaved, changeQueryDeleted,
		changeSchemaDeclared, changeSchemaDropped, changeSchemaViolated,
		changeJobCreated, changeJobStatus, changeJobDeleted, changeExecution,
		changeConfiguration, changeConfigDeleted, changeConfigured,
		changePattern, changePatternState, changePatternRemoved, changePatternEvent,
		changeRun, changeRunStep,
		changeWebhookPaused, changeFaultAdded, changeFaultRemoved,
		changeBackupCompleted, changeBackupFailed,
		EventTelemetry, EventGap,
	}
}

// checkKinds refuses an item that no event can match: whoever misspells a
// kind would wait for it for ever.
func checkKinds(items []string) error {
	known := EventKinds()
	for _, item := range items {
		if !slices.ContainsFunc(known, func(kind string) bool { return matchesAny([]string{item}, kind) }) {
			return errf(CodeArgumentInvalid, "%.80q is no kind of event; expected %s, or a beginning with *, such as %q", item, strings.Join(known, ", "), "twin.*")
		}
	}
	return nil
}
