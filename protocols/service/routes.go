package service

import (
	"net/http"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

// Tags group operations in the OpenAPI document.
const (
	tagDevices    = "Device identities"
	tagModules    = "Module identities"
	tagTwins      = "Twins"
	tagMethods    = "Direct methods"
	tagStatistics = "Statistics"
	tagHub        = "Hub"
	tagHistory    = "Twin history"
	tagPolicies   = "Shared access policies"
	tagAudit      = "Audit"
	tagEvents     = "Events"
)

// routes is the table of everything that is served here.
func routes() []*route {
	table := append(hubRoutes(), append(ownRoutes(), eventRoutes()...)...)
	table = append(table, queryRoutes()...)
	table = append(table, liveRoutes()...)
	table = append(table, queuedMethodRoutes()...)
	table = append(table, restoreRoutes()...)
	table = append(table, connectionRoutes()...)
	table = append(table, messageRoutes()...)
	table = append(table, fileRoutes()...)
	table = append(table, faultRoutes()...)
	table = append(table, positionRoutes()...)
	table = append(table, webhookRoutes()...)
	table = append(table, backupRoutes()...)
	table = append(table, ownQueryRoutes()...)
	table = append(table, savedQueryRoutes()...)
	table = append(table, declaredRoutes()...)
	table = append(table, schemaRoutes()...)
	table = append(table, configurationRoutes()...)
	table = append(table, ownConfigurationRoutes()...)
	table = append(table, explainRoutes()...)
	table = append(table, hubJobRoutes()...)
	table = append(table, ownJobRoutes()...)
	table = append(table, executionRoutes()...)
	table = append(table, templateRoutes()...)
	table = append(table, jobStreamRoutes()...)
	table = append(table, patternRoutes()...)
	table = append(table, patternFormRoutes()...)
	table = append(table, patternKeyRoutes()...)
	table = append(table, runRoutes()...)
	table = append(table, runStreamRoutes()...)
	table = append(table, containerRoutes()...)
	table = append(table, identityJobRoutes()...)
	return append(table, laterRoutes()...)
}

// hubRoutes are IoT Hub's, on its paths and with its shapes.
func hubRoutes() []*route {
	const read, write, connect = auth.RegistryRead, auth.RegistryWrite, auth.ServiceConnect
	top := []parameter{{name: "top", kind: "integer", text: "At most so many, 1 to 1000; 1000 when absent."}}
	table := []*route{
		{
			method: http.MethodGet, pattern: "/devices", operation: "listDevices", tag: tagDevices, permission: read, query: top,
			summary: "Lists device identities in id order, without paging.", response: []deviceDocument{}, handle: listDevices,
		},
		{
			method: http.MethodPost, pattern: "/devices", operation: "bulkDevices", tag: tagDevices, permission: write,
			summary: "Creates, changes or deletes up to 100 identities; each item stands alone.",
			request: []bulkItem{}, response: bulkResult{}, maxBody: bulkBytes, handle: bulkDevices,
			also: map[int]string{http.StatusBadRequest: "Some items failed, with the same body and the header IotHubErrorCode: BulkRegistryOperationFailure; or the request is no list of items."},
		},
		{
			method: http.MethodPost, pattern: "/devices/keys/regenerate", operation: "regenerateKeys", tag: tagDevices, permission: write,
			summary: "Gives SAS identities new keys in the slot named, and ends their sessions.",
			request: regenerateBody{}, response: regenerateResult{}, handle: regenerateKeys,
			also: map[int]string{http.StatusMultiStatus: "Some identities failed; the body says which.", http.StatusBadRequest: "All identities failed, with the same body; or the request is wrong."},
		},
		{
			method: http.MethodGet, pattern: "/devices/{id}", operation: "getDevice", tag: tagDevices, permission: read,
			summary: "Returns a device identity.", response: deviceDocument{}, handle: getDevice,
		},
		{
			method: http.MethodPut, pattern: "/devices/{id}", operation: "putDevice", tag: tagDevices, permission: write, ifMatch: optional,
			summary: "Creates a device identity, or replaces it when If-Match is there. Without authentication in the body new keys are made, also on an update.",
			request: identityBody{}, response: deviceDocument{}, handle: putDevice,
		},
		{
			method: http.MethodDelete, pattern: "/devices/{id}", operation: "deleteDevice", tag: tagDevices, permission: write, ifMatch: required,
			summary: "Deletes a device identity with its twin and modules.", status: http.StatusNoContent, handle: deleteIdentity,
		},
		{
			method: http.MethodGet, pattern: "/devices/{id}/modules", operation: "listModules", tag: tagModules, permission: read,
			summary: "Lists a device's module identities.", response: []moduleDocument{}, handle: listModules,
		},
		{
			method: http.MethodGet, pattern: "/devices/{id}/modules/{mid}", operation: "getModule", tag: tagModules, permission: read,
			summary: "Returns a module identity.", response: moduleDocument{}, handle: getModule,
		},
		{
			method: http.MethodPut, pattern: "/devices/{id}/modules/{mid}", operation: "putModule", tag: tagModules, permission: write, ifMatch: optional,
			summary: "Creates a module identity, or replaces it when If-Match is there.",
			request: identityBody{}, response: moduleDocument{}, handle: putModule,
		},
		{
			method: http.MethodDelete, pattern: "/devices/{id}/modules/{mid}", operation: "deleteModule", tag: tagModules, permission: write, ifMatch: required,
			summary: "Deletes a module identity with its twin.", status: http.StatusNoContent, handle: deleteIdentity,
		},
		{
			method: http.MethodGet, pattern: "/statistics/devices", operation: "getDeviceStatistics", tag: tagStatistics, permission: read,
			summary: "Counts device identities.", response: deviceStatistics{}, handle: getDeviceStatistics,
		},
		{
			method: http.MethodGet, pattern: "/statistics/service", operation: "getServiceStatistics", tag: tagStatistics, permission: read,
			summary: "Counts connected devices.", response: serviceStatistics{}, handle: getServiceStatistics,
		},
	}
	for _, of := range []struct{ pattern, name, what string }{{"/twins/{id}", "Twin", "a device's twin"}, {"/twins/{id}/modules/{mid}", "ModuleTwin", "a module's twin"}} {
		table = append(table,
			&route{
				method: http.MethodGet, pattern: of.pattern, operation: "get" + of.name, tag: tagTwins, permission: connect,
				summary: "Returns " + of.what + ".", response: twinDocument{}, handle: getTwin,
			},
			&route{
				method: http.MethodPatch, pattern: of.pattern, operation: "patch" + of.name, tag: tagTwins, permission: connect, ifMatch: optional,
				summary: "Merges tags and desired properties into " + of.what + "; null deletes. Clients without PATCH send POST with X-HTTP-Method-Override: PATCH.",
				request: twinBody{}, response: twinDocument{}, handle: patchTwin,
			},
			&route{
				method: http.MethodPut, pattern: of.pattern, operation: "replace" + of.name, tag: tagTwins, permission: connect, ifMatch: optional,
				summary: "Replaces those of tags and desired properties of " + of.what + " that the body holds.",
				request: twinBody{}, response: twinDocument{}, handle: replaceTwin,
			},
			&route{
				method: http.MethodPost, pattern: of.pattern + "/methods", operation: "invoke" + of.name + "Method", tag: tagMethods, permission: connect, shape: shapeNested,
				summary: "Calls a direct method and waits for the answer; 200 whatever status the device chose.",
				request: methodBody{}, response: methodResult{}, maxBody: methodBytes, handle: invokeMethod,
			},
		)
	}
	return table
}

// ownRoutes are Muster's.
func ownRoutes() []*route {
	limit := parameter{name: "limit", kind: "integer", text: "At most so many items, 1 to 1000; 100 when absent."}
	cursor := parameter{name: "cursor", kind: "string", text: "The cursor of the page before."}
	key := []parameter{{name: "key", kind: "string", text: "primary (when absent) or secondary."}}
	section := parameter{name: "section", kind: "string", text: "identity, tags, desired or reported; all when absent."}
	moments := []parameter{
		{name: "from", kind: "string", required: true, text: "A history id (the twin right after it), an RFC 3339 time or now."},
		{name: "to", kind: "string", text: "The same; now when absent."},
	}
	table := []*route{
		{
			method: http.MethodGet, pattern: "/api/v1/hub", operation: "getHub", tag: tagHub,
			summary: "Says what the hub is and whether it is ready.", response: hubDocument{}, handle: getHub,
		},
		{
			method: http.MethodGet, pattern: "/api/v1/status", operation: "getStatus", tag: tagHub, permission: auth.StatusRead,
			summary: "Returns a snapshot for people: counts, rates, newest changes, live sessions.", response: statusDocument{}, handle: getStatus,
		},
		{
			method: http.MethodGet, pattern: "/api/v1/doctor", operation: "getDoctor", tag: tagHub, permission: auth.HubManage,
			summary: "Has the hub look at itself: clock, disk, store, audit, limits.", response: findings{}, handle: getDoctor,
		},
		{
			method: http.MethodGet, pattern: "/api/v1/openapi.json", operation: "getOpenAPI", tag: tagHub,
			summary: "Returns this document.", response: map[string]any{}, handle: getOpenAPI,
		},
		{
			method: http.MethodGet, pattern: "/api/v1/devices", operation: "pageDevices", tag: tagDevices, permission: auth.RegistryRead,
			summary: "Lists device identities in id order, page by page.", response: page[deviceRecord]{}, handle: pageDevices,
			query: []parameter{limit, cursor, {name: "prefix", kind: "string", text: "Only ids that begin so."}},
		},
		{
			method: http.MethodGet, pattern: "/api/v1/devices/{id}/modules", operation: "pageModules", tag: tagModules, permission: auth.RegistryRead,
			summary: "Lists a device's module identities.", response: page[moduleRecord]{}, handle: pageModules,
		},
		{
			method: http.MethodGet, pattern: "/api/v1/policies", operation: "listPolicies", tag: tagPolicies, permission: auth.PolicyManage,
			summary: "Lists the shared access policies by name, without keys.", response: page[policyDocument]{}, handle: listPolicies,
		},
		{
			method: http.MethodGet, pattern: "/api/v1/policies/{name}", operation: "getPolicy", tag: tagPolicies, permission: auth.PolicyManage,
			summary: "Returns a policy with its keys.", response: policyDocument{}, handle: getPolicy,
		},
		{
			method: http.MethodPut, pattern: "/api/v1/policies/{name}", operation: "putPolicy", tag: tagPolicies, permission: auth.PolicyManage,
			summary: "Makes or changes a policy. Nobody grants more than they hold.", request: policyBody{}, response: policyDocument{}, handle: putPolicy,
		},
		{
			method: http.MethodDelete, pattern: "/api/v1/policies/{name}", operation: "deletePolicy", tag: tagPolicies, permission: auth.PolicyManage,
			summary: "Deletes a policy; the five standard ones stay.", status: http.StatusNoContent, handle: deletePolicy,
		},
		{
			method: http.MethodPost, pattern: "/api/v1/policies/{name}/rotate", operation: "rotatePolicyKey", tag: tagPolicies, permission: auth.PolicyManage, idempotent: true,
			summary: "Gives a policy a new key in the slot named.", request: rotateBody{}, response: policyDocument{}, handle: rotatePolicy,
		},
		{
			method: http.MethodGet, pattern: "/api/v1/policies/{name}/connection-string", operation: "getPolicyConnectionString", tag: tagPolicies, permission: auth.PolicyManage,
			summary: "Returns a policy's connection string.", query: key, response: connectionString{}, handle: getPolicyConnectionString,
		},
		{
			method: http.MethodGet, pattern: "/api/v1/audit", operation: "getAudit", tag: tagAudit, permission: auth.AuditRead,
			summary: "Lists the audit log, newest first.", query: []parameter{limit, cursor}, response: page[engine.AuditEntry]{}, handle: getAudit,
		},
		{
			method: http.MethodPost, pattern: "/api/v1/audit/verify", operation: "verifyAudit", tag: tagAudit, permission: auth.AuditRead, idempotent: true,
			summary: "Recomputes every hash of the audit chain.", response: engine.AuditCheck{}, handle: verifyAudit,
		},
	}
	for _, of := range []struct{ path, name, what string }{{"{id}", "", "a device"}, {"{id}/modules/{mid}", "Module", "a module"}} {
		table = append(table,
			&route{
				method: http.MethodGet, pattern: "/api/v1/devices/" + of.path + "/connection-string", operation: "get" + of.name + "ConnectionString",
				tag: tagDevices, permission: auth.RegistryWrite, query: key,
				summary: "Returns IoT Hub's connection string of " + of.what + ".", response: connectionString{}, handle: getConnectionString,
			},
			&route{
				method: http.MethodGet, pattern: "/api/v1/twins/" + of.path + "/history", operation: "get" + of.name + "TwinHistory",
				tag: tagHistory, permission: auth.ServiceConnect, query: []parameter{section, limit, cursor},
				summary: "Lists the changes of " + of.what + " and its twin, newest first, with who and when.", response: page[historyDocument]{}, handle: getHistory,
			},
			&route{
				method: http.MethodGet, pattern: "/api/v1/twins/" + of.path + "/diff", operation: "get" + of.name + "TwinDiff",
				tag: tagHistory, permission: auth.ServiceConnect, query: moments,
				summary: "Compares the twin of " + of.what + " at two moments.", response: differences{}, handle: getDifference,
			},
		)
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

// laterRoutes are IoT Hub's paths that this hub does not serve yet. They ask
// for their permission, so that a caller without it learns nothing new later.
func laterRoutes() []*route {
	var table []*route
	for _, l := range []struct {
		pattern    string
		what       string
		permission auth.Permission
		methods    []string
	}{
		{"/messages/{rest...}", "sending of cloud-to-device messages by /messages", auth.ServiceConnect, []string{http.MethodGet, http.MethodPost, http.MethodDelete}},
		{"/digitaltwins/{rest...}", "digital twins", auth.ServiceConnect, []string{http.MethodGet, http.MethodPatch, http.MethodPost}},
	} {
		for _, m := range l.methods {
			table = append(table, &route{method: m, pattern: l.pattern, permission: l.permission, later: l.what})
		}
	}
	return table
}
