package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// What can be wrong with a list of blocks.
var (
	ErrBlockList = errors.New("the body is not a list of blocks; expected <BlockList><Latest>ID</Latest>...</BlockList>")
	ErrBlockID   = errors.New("a block of the list has an id that is not base64 of 1 to 64 bytes")
	ErrBlocks    = errors.New("the list has too many blocks")
)

// BlockID returns a block's id as bytes, so that all spellings of it are one.
// Azure Storage's rule is base64 of 1 to 64 bytes; some clients take a plus sign
// for a space.
func BlockID(text string) (id string, ok bool) {
	raw, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(text, " ", "+"))
	return string(raw), err == nil && len(raw) > 0 && len(raw) <= 64
}

const blockListDepth = 2

// BlockList reads Azure Storage's list of blocks, whose size the caller has
// bounded, and returns their ids as bytes. It takes no more than most of them.
// Errors are ErrBlockList, ErrBlockID, and ErrBlocks with the bound.
func BlockList(data []byte, most int) ([]string, error) {
	ids := []string{}
	d := xml.NewDecoder(bytes.NewReader(data))
	depth, ended, text := 0, false, ""
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			if !ended {
				return nil, ErrBlockList
			}
			return ids, nil
		}
		if err != nil {
			return nil, ErrBlockList
		}
		switch t := token.(type) {
		case xml.StartElement:
			depth++
			switch {
			case ended, depth > blockListDepth, depth == 1 && t.Name.Local != "BlockList",
				depth == 2 && t.Name.Local != "Latest" && t.Name.Local != "Uncommitted" && t.Name.Local != "Committed":
				return nil, ErrBlockList
			}
			text = ""
		case xml.EndElement:
			if depth == 2 {
				id, ok := BlockID(strings.TrimSpace(text))
				if !ok {
					return nil, ErrBlockID
				}
				if ids = append(ids, id); len(ids) > most {
					return nil, fmt.Errorf("%w: more than %d; send larger ones", ErrBlocks, most)
				}
			}
			depth--
			ended = ended || depth == 0
		case xml.CharData:
			if depth == 2 {
				if text += string(t); len(text) > 256 {
					return nil, ErrBlockList
				}
			} else if len(bytes.Trim(t, " \t\r\n\ufeff")) > 0 {
				return nil, ErrBlockList
			}
		case xml.Directive: // a document type
			return nil, ErrBlockList
		}
	}
}
