package cli

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"
)

// readObject reads what is to be an object in JSON, or in YAML, of which aliases
// are not taken: a few lines with them stand for gigabytes. shown is what errors
// call it, next what they advise. A member that is there twice is an error.
func readObject(data []byte, shown, next string) (json.RawMessage, error) {
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	if text := bytes.TrimSpace(data); len(text) == 0 || text[0] != '{' {
		for _, t := range lexer.Tokenize(string(data)) {
			if t.Type == token.AliasType {
				return nil, usage(fmt.Sprintf("%s has an alias in line %d, which is not taken", shown, t.Position.Line), "Write out what it stands for.")
			}
		}
		var err error
		if data, err = yaml.YAMLToJSON(data); err != nil {
			return nil, &problem{exit: ExitUsage, what: shown + " is not valid YAML", why: firstLine(yaml.FormatError(err, false, false)), next: next}
		}
	}
	raw, err := readDocument(bytes.NewReader(data), shown)
	if err != nil {
		return nil, err
	}
	if twice := memberTwice(raw); twice != "" {
		return nil, usage(fmt.Sprintf("%s has the member %q twice", shown, printable(twice)), "Write each once.")
	}
	return raw, nil
}
