package service

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
)

// The document that describes a job names exactly the members that the engine
// reads and writes, and needs none that may be missing.
func TestJobSpecIsDescribed(t *testing.T) {
	var walk func(where string, real, doc reflect.Type)
	walk = func(where string, real, doc reflect.Type) {
		for real.Kind() == reflect.Pointer || real.Kind() == reflect.Slice && real != reflect.TypeFor[json.RawMessage]() {
			if doc.Kind() != real.Kind() {
				t.Errorf("%s is a %s, described as a %s", where, real.Kind(), doc.Kind())
				return
			}
			real, doc = real.Elem(), doc.Elem()
		}
		if doc.Kind() != reflect.Struct {
			return // a text, such as of a span, or a value
		}
		members := func(of reflect.Type) map[string]reflect.StructField {
			m := map[string]reflect.StructField{}
			for f := range of.Fields() {
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				m[name] = f
			}
			return m
		}
		docs := members(doc)
		for name, f := range members(real) {
			d, ok := docs[name]
			if !ok {
				t.Errorf("%s.%s is not described", where, name)
				continue
			}
			delete(docs, name)
			if strings.Contains(f.Tag.Get("json"), "omit") && !strings.Contains(d.Tag.Get("json"), "omit") {
				t.Errorf("%s.%s may be missing and is described as needed", where, name)
			}
			walk(where+"."+name, f.Type, d.Type)
		}
		for name := range docs {
			t.Errorf("%s.%s is described and does not exist", where, name)
		}
	}
	walk("job", reflect.TypeFor[engine.JobSpec](), reflect.TypeFor[jobSpecDocument]())
}
