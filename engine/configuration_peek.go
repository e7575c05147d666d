package engine

import (
	"bytes"
	"encoding/json"
)

// changePeek is what configurations need of an entry of the change log.
type changePeek struct {
	kind, device, module, cause string
	data                        []byte
}

// peekChange reads the beginning of an entry as changeRecord.append writes it, up
// to what changed: the whole twin, which may follow, is most of it. Every change of
// the hub passes here while there is a configuration.
func peekChange(entry []byte) (changePeek, error) {
	var p changePeek
	rest, ok := bytes.CutPrefix(entry, []byte("{"))
	for ok && len(rest) > 0 && rest[0] != '}' {
		var name, value []byte
		if name, rest, ok = peekText(rest); !ok || len(rest) == 0 || rest[0] != ':' {
			break
		}
		rest = rest[1:]
		switch string(name) {
		case "k", "d", "m", "p", "c":
			if value, rest, ok = peekText(rest); !ok {
				return decodePeek(entry)
			}
			switch name[0] {
			case 'k':
				p.kind = string(value)
			case 'd':
				p.device = string(value)
			case 'm':
				p.module = string(value)
			case 'c':
				p.cause = string(value)
			}
		case "v", "tv":
			end := bytes.IndexAny(rest, ",}")
			if end < 0 {
				return decodePeek(entry)
			}
			rest = rest[end:]
		case "x":
			if p.data, _, ok = peekValue(rest); !ok {
				return decodePeek(entry)
			}
			return p, nil
		default:
			return p, nil // behind what changed
		}
		rest = bytes.TrimPrefix(rest, []byte(","))
	}
	if !ok {
		return decodePeek(entry)
	}
	return p, nil
}

func decodePeek(entry []byte) (changePeek, error) {
	var r changeRecord
	err := json.Unmarshal(entry, &r)
	return changePeek{r.Kind, r.DeviceID, r.ModuleID, r.Cause, r.Data}, err
}

// peekText reads a string without escapes.
func peekText(b []byte) (text, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil, false
	}
	end := bytes.IndexByte(b[1:], '"')
	if end < 0 || bytes.IndexByte(b[1:1+end], '\\') >= 0 {
		return nil, nil, false
	}
	return b[1 : 1+end], b[2+end:], true
}

// peekValue reads an object, or what is neither an object nor an array nor a string.
func peekValue(b []byte) (value, rest []byte, ok bool) {
	depth, inText := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				return b[:i+1], b[i+1:], true
			}
		}
		if depth <= 0 {
			return nil, nil, false
		}
	}
	return nil, nil, false
}
