package service

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-hub/muster/engine"
)

// bulkItem is one entry of POST /devices, for the OpenAPI document.
type bulkItem struct {
	ID             string              `json:"id"`
	ModuleID       string              `json:"moduleId,omitempty"`
	ImportMode     string              `json:"importMode,omitempty" doc:"create, update, updateIfMatchETag, delete, deleteIfMatchETag, createOrUpdate (when absent), createOrUpdateIfMatchETag, updateTwin or updateTwinIfMatchETag, in any case."`
	ETag           string              `json:"eTag,omitempty" doc:"Condition of the IfMatch modes."`
	Status         string              `json:"status,omitempty" enum:"enabled,disabled"`
	StatusReason   *string             `json:"statusReason,omitempty"`
	Authentication *authenticationBody `json:"authentication,omitempty"`
	TwinETag       string              `json:"twinETag,omitempty"`
	Tags           map[string]any      `json:"tags,omitempty"`
	Properties     *desiredBody        `json:"properties,omitempty"`
	Capabilities   *capabilities       `json:"capabilities,omitempty"`
	DeviceScope    *string             `json:"deviceScope,omitempty"`
	ParentScopes   []string            `json:"parentScopes,omitempty"`
	ManagedBy      *string             `json:"managedBy,omitempty"`
}

type bulkResult struct {
	Successful bool          `json:"isSuccessful"`
	Errors     []bulkError   `json:"errors"`
	Warnings   []bulkWarning `json:"warnings"`
}

type bulkError struct {
	DeviceID    string `json:"deviceId"`
	ModuleID    string `json:"moduleId,omitempty"`
	ErrorCode   int    `json:"errorCode" doc:"IoT Hub's number, 409001 for example."`
	ErrorStatus string `json:"errorStatus"`
	Operation   string `json:"operation,omitempty"`
}

type bulkWarning struct {
	DeviceID      string `json:"deviceId"`
	WarningCode   string `json:"warningCode"`
	WarningStatus string `json:"warningStatus"`
}

// failed is one item that was not applied, with its place in the request.
type failed struct {
	id        engine.TwinID
	operation engine.ImportMode
	err       error
}

func bulkDevices(c *call) (answer, error) {
	body, err := c.body()
	if err != nil {
		return answer{}, err
	}
	items, order, bad, err := parseBulk(body, c.hub.Limits().BulkIdentities)
	if err != nil {
		return answer{}, err
	}
	if len(items) > 0 {
		errs, err := c.hub.Bulk(c.r.Context(), c.caller, items)
		if err != nil {
			return answer{}, err
		}
		for _, e := range errs {
			bad = append(bad, failed{e.ID, e.Operation, e.Err})
		}
	} else if !c.caller.Permissions.Has(c.route.permission) {
		return answer{}, c.refused()
	}
	result := bulkResult{Successful: len(bad) == 0, Errors: []bulkError{}, Warnings: []bulkWarning{}}
	slices.SortStableFunc(bad, func(a, b failed) int { return order[a.id] - order[b.id] })
	for _, f := range bad {
		w := failureOf(f.err, shapeMessage)
		result.Errors = append(result.Errors, bulkError{f.id.DeviceID, f.id.ModuleID, w.number, w.text, string(f.operation)})
	}
	a := answer{body: result}
	if !result.Successful {
		// With this header C# takes the 400 for a result instead of a failure.
		a.status = http.StatusBadRequest
		a.header = map[string]string{"IotHubErrorCode": "BulkRegistryOperationFailure", "iothub-errorcode": "BulkRegistryOperationFailure"}
	}
	return a, nil
}

// parseBulk reads the array. What is wrong with the value of one item is that
// item's error; what is no item at all refuses the request.
func parseBulk(body []byte, most int) (items []engine.BulkItem, order map[engine.TwinID]int, bad []failed, err error) {
	list, err := elements(body, "", most)
	if err != nil {
		return nil, nil, nil, err
	}
	if len(list) == 0 || len(list) > most {
		return nil, nil, nil, invalid("the body must hold 1 to %d identities", most)
	}
	order = map[engine.TwinID]int{}
	for n, raw := range list {
		f, err := object(raw, "["+strconv.Itoa(n)+"]")
		if err != nil {
			return nil, nil, nil, err
		}
		item, err := parseItem(f)
		if item.Identity.DeviceID == "" {
			if err == nil {
				err = &engine.Error{Code: engine.CodeArgumentNull, Message: f.name("id") + " is missing; expected the device id"}
			}
			return nil, nil, nil, err
		}
		id := item.Identity.ID()
		if _, ok := order[id]; !ok {
			order[id] = n
		}
		if err != nil {
			bad = append(bad, failed{id, item.Mode, err})
			continue
		}
		items = append(items, item)
	}
	return items, order, bad, nil
}

func parseItem(f fields) (engine.BulkItem, error) {
	var item engine.BulkItem
	var id engine.TwinID
	var mode, etag string
	err := firstError(
		func() error { return f.into("id", &id.DeviceID) },
		func() error { return f.into("moduleId", &id.ModuleID) },
	)
	item.Identity.DeviceID, item.Identity.ModuleID = id.DeviceID, id.ModuleID
	if err != nil {
		return item, err
	}
	if err := f.into("importMode", &mode); err != nil {
		return item, err
	}
	if item.Mode, err = importMode(f, mode); err != nil {
		return item, err
	}
	i, err := identityFrom(f, id)
	if err != nil {
		return item, err
	}
	item.Identity = i
	err = firstError(
		func() error { return f.into("eTag", &etag) },
		func() error { return f.into("twinETag", &item.TwinETag) },
		func() (err error) { item.Tags, item.Desired, err = sections(f, false); return err },
	)
	item.Identity.ETag = etag // the engine takes it with or without quotes, or *
	return item, err
}

func importMode(f fields, text string) (engine.ImportMode, error) {
	if text == "" {
		return engine.ImportCreateOrUpdate, nil
	}
	for _, m := range []engine.ImportMode{
		engine.ImportCreate, engine.ImportUpdate, engine.ImportUpdateIfMatch, engine.ImportDelete, engine.ImportDeleteIfMatch,
		engine.ImportCreateOrUpdate, engine.ImportCreateOrUpdateIfMatch, engine.ImportUpdateTwin, engine.ImportUpdateTwinIfMatch,
	} {
		if strings.EqualFold(text, string(m)) {
			return m, nil
		}
	}
	return "", invalid("%s is not a known import mode; expected create, update, delete, createOrUpdate, updateTwin or one with IfMatchETag", f.name("importMode"))
}

// regenerateBody is the body of POST /devices/keys/regenerate.
type regenerateBody struct {
	PolicyKey string         `json:"policyKey" enum:"primaryKey,secondaryKey,both"`
	Devices   []regenerateID `json:"devices"`
}

type regenerateID struct {
	ID       string `json:"id"`
	ModuleID string `json:"moduleId,omitempty"`
}

type regenerateResult struct {
	PolicyKey   string            `json:"policyKey"`
	RotatedKeys []rotatedKeys     `json:"rotatedKeys"`
	Errors      []regenerateError `json:"errors"`
}

type rotatedKeys struct {
	ID           string `json:"id"`
	ModuleID     string `json:"moduleId,omitempty"`
	PrimaryKey   string `json:"primaryKey"`
	SecondaryKey string `json:"secondaryKey"`
}

type regenerateError struct {
	ID          string `json:"id"`
	ModuleID    string `json:"moduleId,omitempty"`
	ErrorCode   int    `json:"errorCode"`
	ErrorStatus string `json:"errorStatus"`
}

func regenerateKeys(c *call) (answer, error) {
	body, err := c.body()
	if err != nil {
		return answer{}, err
	}
	slot, ids, err := parseRegenerate(body, c.hub.Limits().BulkIdentities)
	if err != nil {
		return answer{}, err
	}
	changed, errs, err := c.hub.RegenerateKeys(c.r.Context(), c.caller, slot, ids)
	if err != nil {
		return answer{}, err
	}
	result := regenerateResult{PolicyKey: string(slot), RotatedKeys: []rotatedKeys{}, Errors: []regenerateError{}}
	for _, i := range changed {
		result.RotatedKeys = append(result.RotatedKeys, rotatedKeys{
			i.DeviceID, i.ModuleID, i.Authentication.PrimaryKey.Reveal(), i.Authentication.SecondaryKey.Reveal(),
		})
	}
	for _, e := range errs {
		w := failureOf(e.Err, shapeMessage)
		result.Errors = append(result.Errors, regenerateError{e.ID.DeviceID, e.ID.ModuleID, w.number, w.text})
	}
	a := answer{body: result}
	switch {
	case len(errs) > 0 && len(changed) > 0:
		a.status = http.StatusMultiStatus
	case len(errs) > 0:
		a.status = http.StatusBadRequest
		a.header = map[string]string{"iothub-errorcode": "BulkRegenerateDeviceKeyOperationFailure"}
	}
	return a, nil
}

func parseRegenerate(body []byte, most int) (engine.KeySlot, []engine.TwinID, error) {
	f, err := object(body, "")
	if err != nil {
		return "", nil, err
	}
	slot, err := keySlot(f, "policyKey")
	if err != nil {
		return "", nil, err
	}
	raw, ok := f.get("devices")
	if !ok {
		return "", nil, &engine.Error{Code: engine.CodeArgumentNull, Message: "devices is missing; expected an array of {id, moduleId}"}
	}
	list, err := elements(raw, "devices", most)
	if err != nil {
		return "", nil, err
	}
	if len(list) == 0 || len(list) > most {
		return "", nil, invalid("devices must hold 1 to %d identities", most)
	}
	ids := make([]engine.TwinID, 0, len(list))
	for n, raw := range list {
		var id engine.TwinID
		g, err := object(raw, "devices["+strconv.Itoa(n)+"]")
		if err == nil {
			err = firstError(
				func() error { return g.into("id", &id.DeviceID) },
				func() error { return g.into("moduleId", &id.ModuleID) },
			)
		}
		if err != nil {
			return "", nil, err
		}
		ids = append(ids, id)
	}
	return slot, ids, nil
}

// keySlot reads which key of a pair is meant; "primary" is short for "primaryKey".
func keySlot(f fields, key string) (engine.KeySlot, error) {
	text, err := f.text(key)
	if err != nil {
		return "", err
	}
	return parseSlot(f.name(key), text)
}

func parseSlot(name, text string) (engine.KeySlot, error) {
	switch strings.ToLower(text) {
	case "":
		return "", &engine.Error{Code: engine.CodeArgumentNull, Message: name + " is missing; expected primaryKey, secondaryKey or both"}
	case "primarykey", "primary":
		return engine.KeyPrimary, nil
	case "secondarykey", "secondary":
		return engine.KeySecondary, nil
	case "both":
		return engine.KeyBoth, nil
	}
	return "", invalid("%s is not a known key; expected primaryKey, secondaryKey or both", name)
}
