package service

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

const referenceHead = `# REST

<!-- Made from the tables in protocols/service by its tests: go test ./protocols/service -run TestReference -update -->

A hub serves two APIs on the same address. **IoT Hub's service API** stands on IoT Hub's paths in IoT Hub's shapes, so
that Microsoft's service SDKs and the az CLI extension work unchanged. **Muster's own API** stands under ` + "`/api/v1`" + `.
The OpenAPI 3.1 document of both is at ` + "`/api/v1/openapi.json`" + `; it is made from the same table as the routes.

## What holds for every request
- ` + "`Authorization: SharedAccessSignature sr=HOST&sig=SIGNATURE&se=EXPIRY&skn=POLICY`" + `, signed with either key of a shared
  access policy. HOST is one of the hub's names; a path behind it, as in ` + "`HOST/devices`" + `, narrows the token by whole segments.
  Over the unix socket in the data directory no token is needed.
- Paths without ` + "`/api/v1`" + ` need the query parameter ` + "`api-version`" + `; any date of the form YYYY-MM-DD will do, with or without ` + "`-preview`" + `.
- Ids are percent-encoded and decoded once. The fixed parts of a path are compared without case. One trailing slash is tolerated.
- Clients without PATCH send POST with ` + "`X-HTTP-Method-Override: PATCH`" + `.
- Bodies are JSON in UTF-8 without Content-Encoding, at most 1 MiB (method calls 144 KiB) and 64 levels deep, and take at most
  30 seconds to arrive. Names of members count exactly, and may not come twice. IoT Hub's documents may hold members that the
  hub does not know or sets itself: they are ignored.
- ` + "`If-Match`" + ` takes an ETag with or without quotes, or ` + "`*`" + `. A PUT of an identity without it creates, with it updates. A DELETE needs it.
- Every answer carries ` + "`x-ms-request-id`" + `: the request's ` + "`Request-Id`" + ` or ` + "`x-ms-client-request-id`" + `, if it is at most 64 plain characters, else a new one.
  The audit log and the twin history show the same id.
- Lists of Muster's own API take ` + "`limit`" + ` and ` + "`cursor`" + ` and answer ` + "`{items, cursor}`" + `; the cursor is empty at the end. Short ones,
  such as policies and modules, are given whole.
- Muster's own API refuses a query parameter that a request does not take, with 400; IoT Hub's paths ignore it, as IoT Hub does.
- POSTs of Muster's own API take an ` + "`Idempotency-Key`" + ` of at most 255 visible characters. The same request with the same key
  gets the first answer again, with the header ` + "`Idempotency-Replayed: true`" + `. Answers are kept sealed in the
  store for 24 hours, the newest 10,000 at most. The same key with another body is refused.
- A hub that was restored and not resumed takes messages, queued methods, jobs, runs and configurations, and does nothing about them yet:
  those answers have the header ` + "`" + heldField + "`" + `, which says so.

## Worth knowing beside IoT Hub's documentation
- A PUT of a device without ` + "`authentication`" + ` makes new keys, also on an update. IoT Hub does the same.
- A module of a device that does not exist is 404, where IoT Hub answers 401 under SAS.
- ` + "`null`" + ` for ` + "`tags`" + ` or ` + "`properties.desired`" + ` counts as absent in a PATCH, and as empty in a PUT.
- ` + "`errorCode`" + ` in the result of a bulk request is IoT Hub's number, not its name.
- An unknown ` + "`importMode`" + ` or a wrong value in one item of a bulk request is that item's error; the others are applied. An item without a readable id
  refuses the whole request, with its place: the result could not name it.
- Not served yet, and answered with 404: %s.

## Operations
`

// TestReference keeps docs/reference/rest.md equal to the tables.
func TestReference(t *testing.T) {
	var b bytes.Buffer
	var later []string
	for _, r := range routes() {
		if r.later != "" && !slices.Contains(later, r.later) {
			later = append(later, r.later)
		}
	}
	fmt.Fprintf(&b, referenceHead, strings.Join(later, ", "))
	var tags []string
	for _, r := range routes() {
		if r.tag != "" && !slices.Contains(tags, r.tag) {
			tags = append(tags, r.tag)
		}
	}
	for _, tag := range tags {
		fmt.Fprintf(&b, "\n### %s\n| request | permission | what it does |\n| --- | --- | --- |\n", tag)
		for _, r := range routes() {
			if r.tag != tag {
				continue
			}
			needs := "any known caller"
			if r.permission != 0 {
				needs = r.permission.String()
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.label(), needs, r.summary)
		}
	}
	b.WriteString("\n## Permissions\n| name | what it allows |\n| --- | --- |\n")
	for _, p := range auth.Permissions() {
		fmt.Fprintf(&b, "| %s | %s |\n", p.Name, p.Text)
	}
	b.WriteString(`
## Errors
On IoT Hub's paths the body is ` + "`{\"Message\":\"ErrorCode:NAME;text\",\"ExceptionMessage\":\"Tracking ID:...\"}`" + `, on direct methods
` + "`Message`" + ` is a JSON text with the six-digit number and ` + "`ExceptionMessage`" + ` is empty. The header ` + "`iothub-errorcode`" + ` always has the name.
On Muster's own paths the body is problem+json (RFC 9457) with ` + "`type`, `title`, `status`, `code`, `detail`, `next` and `requestId`" + `;
` + "`code`" + ` is the first column.

| code | meaning | status | IoT Hub's number and name | again? |
| --- | --- | --- | --- | --- |
`)
	for _, info := range engine.Codes() {
		w := wireOf(info.Code)
		status := strconv.Itoa(w.status)
		if w.own != 0 {
			status += "; own " + strconv.Itoa(w.own)
		}
		again := "no"
		if info.Retryable {
			again = "yes"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %d %s | %s |\n", info.Name, info.Text, status, w.number, w.name, again)
	}
	b.WriteString("| PathNotFound, NotBuiltYet | There is nothing at this path, or not yet. | 404 | 404000 GenericNotFound | no |\n" +
		"| MethodNotAllowed | The path does not take that method; the header Allow names those it takes. | 405 | 405000 GenericMethodNotAllowed | no |\n" +
		"| CrossOrigin | A browser sent it for a page of another origin. | 403 | 403000 GenericForbidden | no |\n" +
		"| UnsupportedMediaType | The body has a Content-Encoding. | 415 | 415000 GenericUnsupportedMediaType | no |\n" +
		"| IdempotencyKeyInUse | The first request with this Idempotency-Key still runs. | 409 | | yes |\n" +
		"| IdempotencyAnswerNotKept | The first request with this Idempotency-Key was done; its answer, above 192 KiB, was not kept. | 409 | | no |\n" +
		"| IdempotencyOutcomeUnknown | The first request with this Idempotency-Key did not end in an answer; whether it had an effect is not known. | 409 | | no |\n" +
		"| IdempotencyKeyReused | The Idempotency-Key was used with another body. | 422 | | no |\n")

	file := filepath.Join("..", "..", "docs", "reference", "rest.md")
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, b.Bytes()) {
		t.Errorf("%s does not say what the tables say; -update writes it", file)
	}
}
