package service

import (
	"strings"
	"unicode"

	"github.com/muster-hub/muster/engine"
)

// formCommand is the command that begins what was entered in a form. It names the
// version, so that what was checked is what runs.
func formCommand(p *engine.FormCheck, e engine.FormEntry) string {
	words := []string{"muster pattern run", p.Name, "--version=" + shellWord(p.Version)}
	switch {
	case p.Fleet:
	case e.Where != "":
		words = append(words, "--where="+shellWord(e.Where))
	case len(e.IDs) == 1:
		words = append(words, "--device="+shellWord(e.IDs[0].String()))
	default:
		list := make([]string, len(e.IDs))
		for i, id := range e.IDs {
			list[i] = strings.ReplaceAll(id.String(), ",", `\,`) // ids may have commas
		}
		words = append(words, "--ids="+shellWord(strings.Join(list, ",")))
	}
	for _, text := range p.Filled.Texts {
		name, value, _ := strings.Cut(text, "=")
		words = append(words, "--param="+name+"="+shellWord(value))
	}
	return strings.Join(words, " ")
}

// shellWord writes a text so that a POSIX shell takes it as it is. It may not have
// the character NUL.
func shellWord(text string) string {
	plain := func(r rune) bool {
		return r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_@%+=:,./-", r))
	}
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool { return !plain(r) }) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// notPasted reports whether a character does something to a shell at a terminal
// when it is pasted there, even between quotes.
func notPasted(r rune) bool { return unicode.IsControl(r) && r != '\n' }
