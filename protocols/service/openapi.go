package service

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/rollout"
)

// obj is a JSON object of the OpenAPI document; encoding/json sorts its
// members, so that the document is the same on every start.
type obj map[string]any

// describe makes the OpenAPI 3.1 document of a table.
func describe(table []*route) []byte {
	s := schemas{components: obj{}}
	paths := obj{}
	for _, r := range table {
		if r.later != "" {
			continue
		}
		item, ok := paths[r.pattern].(obj)
		if !ok {
			item = obj{}
			if names := parametersOf(r.pattern); len(names) > 0 {
				item["parameters"] = names
			}
			paths[r.pattern] = item
		}
		item[strings.ToLower(r.method)] = s.operation(r)
	}
	s.of(reflect.TypeFor[hubError]())
	s.of(reflect.TypeFor[problem]())
	doc := obj{
		"openapi": "3.1.0",
		"info": obj{
			"title":       "Muster",
			"version":     "1",
			"description": "IoT Hub's service API on IoT Hub's paths, and Muster's own under /api/v1. Paths without /api/v1 need the query parameter api-version.",
			"license":     obj{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"security": []obj{{"sharedAccessSignature": []string{}}},
		"paths":    paths,
		"components": obj{
			"schemas": s.components,
			"securitySchemes": obj{"sharedAccessSignature": obj{
				"type": "apiKey", "in": "header", "name": "Authorization",
				"description": "SharedAccessSignature sr=HOST&sig=SIGNATURE&se=EXPIRY&skn=POLICY. " + permissionText(),
			}},
		},
	}
	return encode(doc)
}

// permissionText is the table of permissions as one paragraph.
func permissionText() string {
	var b strings.Builder
	b.WriteString("Permissions of policies:")
	for _, p := range auth.Permissions() {
		b.WriteString(" " + p.Name + ": " + p.Text)
	}
	return b.String()
}

// parametersOf describes the parameters of a path.
func parametersOf(pattern string) []obj {
	var list []obj
	for part := range strings.SplitSeq(pattern, "/") {
		name, ok := strings.CutPrefix(part, "{")
		if !ok {
			continue
		}
		name = strings.TrimSuffix(name, "}")
		text := map[string]string{"id": "Device id, percent-encoded.", "job": "Job id, percent-encoded.", "run": "Run id.", "pattern": "Name of a pattern.", "mid": "Module id, percent-encoded.", "name": "Name of a policy, webhook, saved query, job template, trusted key or secret, or of a file with its slashes as %2F.", "token": "Lock token.", "configuration": "Id of a configuration, percent-encoded."}[name]
		list = append(list, obj{"name": name, "in": "path", "required": true, "description": text, "schema": obj{"type": "string"}})
	}
	return list
}

// operation describes one route.
func (s *schemas) operation(r *route) obj {
	op := obj{"operationId": r.operation, "summary": r.summary, "tags": []string{r.tag}, "responses": s.responses(r)}
	needs := "Any caller that is known may ask."
	if r.permission != 0 {
		needs = "Needs the permission " + r.permission.String() + "."
	}
	op["description"] = needs
	var params []obj
	if r.shape != shapeProblem {
		params = append(params, parameter{name: "api-version", kind: "string", required: true, text: "Any date of the form YYYY-MM-DD, with or without -preview."}.describe("query"))
	}
	for _, p := range r.query {
		params = append(params, p.describe("query"))
	}
	if r.ifMatch != unused {
		params = append(params, parameter{name: "If-Match", kind: "string", required: r.ifMatch == required, text: "An ETag with or without quotes, or *."}.describe("header"))
	}
	if r.idempotent {
		params = append(params, parameter{name: "Idempotency-Key", kind: "string", text: "Asked again with the same key, the first answer is given again, for up to 24 hours, also after a restart of the hub."}.describe("header"))
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
	if r.request != nil {
		op["requestBody"] = obj{"required": r.content == "", "content": s.content("application/json", r.request)}
	}
	return op
}

func (p parameter) describe(in string) obj {
	return obj{"name": p.name, "in": in, "required": p.required, "description": p.text, "schema": obj{"type": p.kind}}
}

// responses describes success, what the route adds, and the errors that every
// operation may answer.
func (s *schemas) responses(r *route) obj {
	status := r.status
	if status == 0 {
		status = http.StatusOK
	}
	ok := obj{"description": "Done."}
	if r.response != nil {
		ok["content"] = s.content("application/json", r.response)
	}
	if r.content != "" {
		ok["content"] = obj{r.content: obj{"schema": obj{"type": "string", "format": "binary"}}}
	}
	failure := obj{"description": "Refused or failed.", "content": s.content("application/json", hubError{})}
	if r.shape == shapeProblem {
		failure["content"] = s.content("application/problem+json", problem{})
	} else {
		failure["headers"] = obj{"iothub-errorcode": obj{"description": "The error's name.", "schema": obj{"type": "string"}}}
	}
	all := obj{strconv.Itoa(status): ok, "default": failure}
	for code, text := range r.also {
		content := s.content("application/json", r.response)
		if code == http.StatusBadRequest { // a result of items, or an error of the request
			content = obj{"application/json": obj{"schema": obj{"anyOf": []obj{s.of(reflect.TypeOf(r.response)), s.of(reflect.TypeFor[hubError]())}}}}
		}
		all[strconv.Itoa(code)] = obj{"description": text, "content": content}
	}
	return all
}

func (s *schemas) content(mediaType string, v any) obj {
	if _, ok := v.(rawContent); ok {
		return obj{"application/octet-stream": obj{"schema": obj{"type": "string", "format": "binary"}}}
	}
	return obj{mediaType: obj{"schema": s.of(reflect.TypeOf(v))}}
}

// schemas turns Go types into JSON Schema; named structs become components.
type schemas struct{ components obj }

// of returns the schema of a type. Tags of fields say what reflection cannot
// see: doc the meaning, enum the allowed texts, schema the JSON type of what
// Go holds as raw JSON.
func (s *schemas) of(t reflect.Type) obj {
	switch t {
	case reflect.TypeFor[time.Time]():
		return obj{"type": "string", "format": "date-time"}
	case reflect.TypeFor[json.RawMessage]():
		return obj{}
	case reflect.TypeFor[[]byte]():
		return obj{"type": "string", "contentEncoding": "base64"}
	}
	t = described(t)
	switch t.Kind() {
	case reflect.Pointer:
		return orNullSchema(s.of(t.Elem()))
	case reflect.Slice:
		return obj{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		if t.Elem().Kind() == reflect.Interface {
			return obj{"type": "object"}
		}
		return obj{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		name := componentName(t)
		if _, ok := s.components[name]; !ok {
			s.components[name] = obj{} // ends recursion
			s.components[name] = s.structure(t)
		}
		return obj{"$ref": "#/components/schemas/" + name}
	case reflect.String:
		return obj{"type": "string"}
	case reflect.Bool:
		return obj{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		return obj{"type": "number"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return obj{"type": "integer"}
	default:
		return obj{}
	}
}

// described is the type that has the words about another one, which reads and
// writes itself.
func described(t reflect.Type) reflect.Type {
	switch t {
	case reflect.TypeFor[engine.JobSpec]():
		return reflect.TypeFor[jobSpecDocument]()
	case reflect.TypeFor[pattern.Manifest]():
		return reflect.TypeFor[manifestDocument]()
	}
	return t
}

func orNullSchema(inner obj) obj {
	if kind, ok := inner["type"].(string); ok {
		inner["type"] = []string{kind, "null"}
		return inner
	}
	return obj{"anyOf": []obj{inner, {"type": "null"}}}
}

// structure describes a struct with the members of what it embeds.
func (s *schemas) structure(t reflect.Type) obj {
	properties, needed := obj{}, []string{}
	s.members(t, properties, &needed)
	return obj{"type": "object", "properties": properties, "required": needed}
}

func (s *schemas) members(t reflect.Type, properties obj, needed *[]string) {
	for f := range described(t).Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		if f.Anonymous && name == "" {
			s.members(f.Type, properties, needed)
			continue
		}
		schema := s.of(f.Type)
		if kind := f.Tag.Get("schema"); kind != "" {
			schema = obj{"type": kind}
		}
		if list := f.Tag.Get("enum"); list != "" {
			schema["enum"] = strings.Split(list, ",")
		}
		if doc := f.Tag.Get("doc"); doc != "" {
			if _, ref := schema["$ref"]; ref {
				schema = obj{"allOf": []obj{schema}}
			}
			schema["description"] = doc
		}
		properties[name] = schema
		if !strings.Contains(options, "omit") {
			*needed = append(*needed, name)
		}
	}
}

// componentName is the type's name without suffix "Document" and package:
// deviceDocument is Device, page[deviceRecord] DeviceRecordPage. Rollouts have
// policies, too, and what is theirs says so.
func componentName(t reflect.Type) string {
	name := t.Name()
	if base, arg, ok := strings.Cut(name, "["); ok {
		arg = strings.TrimSuffix(arg, "]")
		arg = arg[strings.LastIndexByte(arg, '.')+1:]
		name = arg + strings.ToUpper(base[:1]) + base[1:]
	}
	if t.PkgPath() != reflect.TypeFor[engine.AuditEntry]().PkgPath() {
		name = strings.Replace(name, "Document", "", 1)
	}
	if t.PkgPath() == reflect.TypeFor[rollout.Policy]().PkgPath() {
		name = "Rollout" + name
	}
	return strings.ToUpper(name[:1]) + name[1:]
}
