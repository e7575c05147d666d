package pattern

import (
	"fmt"
	"strings"
	"unicode"
)

// Bounds of the arguments of capabilities.
const (
	methodMost  = 100
	pathMost    = 256
	hostMost    = 253
	segmentMost = 64
)

// Check says what is wrong with a capability: that there is none such, or with
// its argument; nil: nothing.
func (n Need) Check() error {
	info, arg, err := n.Parse()
	if err != nil {
		return err
	}
	switch info.Arg {
	case "path":
		return checkPath(n, arg)
	case "name":
		if info.Need == "secret" && !isSecretName(arg) {
			return fmt.Errorf("%s names no secret; expected letters, digits, dots, dashes and underscores, at most %d", quote(string(n)), nameMost)
		}
		if info.Need == "method" && !isMethod(arg) {
			return fmt.Errorf("%s names no method; expected ASCII letters, digits and _ - . * : $, at most %d", quote(string(n)), methodMost)
		}
	case "host":
		return checkHost(n, arg)
	}
	return nil
}

// checkPath: names with dots between them; none stands for everything.
func checkPath(n Need, path string) error {
	if path == "" {
		return nil
	}
	for part := range strings.SplitSeq(path, ".") {
		if part == "" || len(part) > segmentMost || strings.ContainsFunc(part, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) || r == '$' || r == '*' }) {
			return fmt.Errorf("%s names no property; expected names with dots between them, such as firmware.version", quote(string(n)))
		}
	}
	if len(path) > pathMost {
		return fmt.Errorf("%s is too long; expected a path of at most %d bytes", quote(string(n)), pathMost)
	}
	return nil
}

func isMethod(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("_-.*:$", rune(c)) {
			return false
		}
	}
	return s != "" && len(s) <= methodMost
}

// checkHost: a name in small letters, perhaps with a port; no address, no
// wildcard.
func checkHost(n Need, host string) error {
	name, port, hasPort := strings.Cut(host, ":")
	ok := len(name) <= hostMost && strings.Contains(name, ".") && (!hasPort || isPort(port))
	digits := true
	for label := range strings.SplitSeq(name, ".") {
		ok = ok && isLabel(label)
		digits = digits && strings.Trim(label, "0123456789") == ""
	}
	if !ok || digits {
		return fmt.Errorf("%s names no host; expected its full name in small letters, such as hooks.example.net or hooks.example.net:8443, and no address", quote(string(n)))
	}
	return nil
}

func isLabel(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || i == 0 || i == len(s)-1) {
			return false
		}
	}
	return s != "" && len(s) <= 63
}

func isPort(s string) bool {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
		n = n*10 + int(s[i]-'0')
		if n > 65535 {
			return false
		}
	}
	return n > 0 && s[0] != '0'
}
