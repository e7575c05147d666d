package author

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/yuin/gopher-lua/ast"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/wording"
)

// needs compares what is declared with what is used.
func (c *checker) needs() {
	for _, n := range []pattern.Need{"twin:read", "message", "query", "identity:rotate", "identity:disable", "identity:replace", "run:start", "alert", "release:read", "identity:sign", "identity:revoke"} {
		if c.used[n] && !pattern.Needs(c.manifest.Needs).Allows(n) {
			c.add(pattern.MainFile, c.lineOf("needs"), LevelError, "undeclared-need", "the program needs "+quote(string(n))+", which the manifest does not declare", "Add it to needs.")
		}
	}
	for i, n := range c.manifest.Needs {
		info, arg, err := n.Parse()
		if err != nil {
			continue // it has been said
		}
		used := c.used[n] || c.dynamic[info.Need]
		for u := range c.used {
			used = used || (pattern.Needs{n}).Allows(u)
		}
		if !used {
			what := "declared and not used: operators will be asked to grant it"
			if arg != "" && c.dynamic[info.Need] {
				continue
			}
			c.add(pattern.MainFile, c.lineOfItem("needs", i), LevelWarning, "unused-need", quote(string(n))+" is "+what, "Take it out of needs.")
		}
	}
	if len(c.manifest.Missing()) > 0 {
		c.add(pattern.MainFile, c.lineOf("needs"), LevelWarning, "missing-part", "it can be installed and not enabled: this Muster has no "+strings.Join(c.manifest.Missing(), ", no "), "")
	}
}

func (c *checker) lineOfItem(list string, n int) int {
	return c.lineOf(list + "[" + strconv.Itoa(n) + "]")
}

// declaredParams are the names of the parameters.
func (c *checker) declaredParams() []string {
	var list []string
	for _, p := range c.manifest.Parameters() {
		list = append(list, p.Name)
	}
	if len(list) == 0 && len(c.manifest.Params) > 0 {
		var m map[string]json.RawMessage
		if json.Unmarshal(c.manifest.Params, &m) == nil {
			for name := range m {
				list = append(list, name)
			}
		}
	}
	slices.Sort(list)
	return list
}

// params looks for parameters that are never read.
func (c *checker) params() {
	if c.passed {
		return
	}
	for _, name := range c.declaredParams() {
		if !c.read[name] {
			c.add(pattern.MainFile, c.lineOf("params."+name), LevelWarning, "unused-param", "the parameter "+quote(name)+" is never read", "Use it, or take it out of params.")
		}
	}
}

// parameter reads a parameter.
func (w *walker) parameter(e ast.Expr, name string) {
	w.read[name] = true
	if w.manifest == nil || w.test {
		return
	}
	names := w.declaredParams()
	if slices.Contains(names, name) {
		return
	}
	next := "Declare it in params."
	if n := wording.Nearest(name, names); n != "" {
		next = "Do you mean " + quote(n) + "?"
	}
	w.find(LevelError, e, "unknown-param", "there is no parameter "+quote(name), next)
}
