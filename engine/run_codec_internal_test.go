package engine

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/pattern"
)

// fill sets every member below v that a stored run has to something.
func fill(v reflect.Value, r *rand.Rand) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(r.Int64N(1<<33), r.Int64N(1e9)).UTC()))
		return
	case json.RawMessage:
		v.Set(reflect.ValueOf(json.RawMessage(`{"a":"<b>"}`)))
		return
	case auth.Kind:
		v.Set(reflect.ValueOf(auth.Local))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), r)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), r)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), r)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, r)
		fill(value, r)
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString(string(rune('a'+r.IntN(26))) + "x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(r.Float64())
	case reflect.Uint8:
		v.SetUint(uint64(r.IntN(200)))
	default:
		if v.CanInt() {
			v.SetInt(r.Int64N(1000) + 1)
		} else {
			v.SetUint(r.Uint64N(1000) + 1)
		}
	}
}

func TestRunCodec(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var full runRecord
	fill(reflect.ValueOf(&full).Elem(), r)
	var plain runRecord
	plain.State.State = pattern.Ready
	for _, want := range []runRecord{full, plain, {}} {
		b, err := runCodec{}.Append(nil, want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := runCodec{}.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Hash) == 0 {
			got.Hash = nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("read %+v\nwant %+v", got, want)
		}
		for n := range b {
			if _, err := (runCodec{}).Decode(b[:n]); err == nil {
				t.Errorf("the first %d of %d bytes are a run", n, len(b))
			}
		}
		if _, err := (runCodec{}).Decode(append(b, 0)); err == nil {
			t.Error("a byte after the end is taken")
		}
	}
}

// TestRunCodecFaultOfBefore: faults were stored as JSON once.
func TestRunCodecFaultOfBefore(t *testing.T) {
	want := &pattern.Fault{Code: pattern.FaultLua, Message: "no", Status: 404, Cause: json.RawMessage(`{"a":1}`), Line: "main.lua:3", Trace: []string{"x", "y"}}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	d := runReader{binaryReader{b: appendText(nil, string(text))}}
	if got := d.fault(); d.end() != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, want %+v", got, want)
	}
	d = runReader{binaryReader{b: appendText(nil, string(text[1:]))}}
	if d.fault(); d.end() == nil {
		t.Error("what is neither is taken for a fault")
	}
}

func FuzzRunCodec(f *testing.F) {
	var full runRecord
	fill(reflect.ValueOf(&full).Elem(), rand.New(rand.NewPCG(1, 2)))
	b, err := runCodec{}.Append(nil, full)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := runCodec{}.Decode(b)
		if err != nil {
			return
		}
		again, err := runCodec{}.Append(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		other, err := runCodec{}.Decode(again)
		if err != nil || len(other.State.Steps) != len(r.State.Steps) {
			t.Errorf("what was read can't be read again: %v", err)
		}
	})
}
