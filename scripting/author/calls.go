package author

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/yuin/gopher-lua/ast"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/engine/wording"
)

func quote(s string) string { return strconv.Quote(s) }

// call looks at a call.
func (w *walker) call(e *ast.FuncCallExpr) {
	if e.Receiver == nil {
		w.plainCall(e)
		return
	}
	w.receiver(e.Receiver)
	k := w.kindOf(e.Receiver)
	switch {
	case k == kindParams:
		w.passed = true
	case k != "":
		w.member(e, string(k), e.Method)
		w.hostCall(e, string(k), e.Method, e.Args)
	default:
		w.unknownCall()
	}
	w.exprs(e.Args)
}

// receiver walks what stands before the colon: parameters are not passed there.
func (w *walker) receiver(e ast.Expr) {
	if id, ok := e.(*ast.IdentExpr); ok {
		w.ident(id)
		return
	}
	w.expr(e)
}

func (w *walker) unknownCall() {
	for _, l := range w.loops {
		l.calls = true
	}
}

func (w *walker) plainCall(e *ast.FuncCallExpr) {
	if id, ok := e.Func.(*ast.IdentExpr); ok {
		if _, local := w.lookup(id.Value); !local && w.host.globals[id.Value] {
			w.globalCall(e, id.Value)
			return
		}
	}
	if a, ok := e.Func.(*ast.AttrGetExpr); ok {
		if w.dotCall(e, a) {
			return
		}
	}
	w.unknownCall()
	w.expr(e.Func)
	w.exprs(e.Args)
}

// globalCall is a call of a function that is always there.
func (w *walker) globalCall(e *ast.FuncCallExpr, name string) {
	switch name {
	case "pattern":
		if len(e.Args) != 1 || w.file != pattern.MainFile {
			break
		}
		if t, ok := e.Args[0].(*ast.TableExpr); ok {
			w.patternTable(t)
			return
		}
	case "require":
		w.require(e)
	case "error":
		w.leave()
	case "pcall", "xpcall": // pcall(dev.call, dev, ...)
		if len(e.Args) >= 2 {
			if a, ok := e.Args[0].(*ast.AttrGetExpr); ok && w.kindOf(a.Object) != "" && w.kindOf(a.Object) == w.kindOf(e.Args[1]) {
				if key, ok := a.Key.(*ast.StringExpr); ok {
					w.member(a, string(w.kindOf(a.Object)), key.Value)
					w.hostCall(e, string(w.kindOf(a.Object)), key.Value, e.Args[2:])
					w.exprs(e.Args[2:])
					return
				}
			}
		}
		w.unknownCall()
	}
	w.exprs(e.Args)
	for _, a := range e.Args { // a function that is handed on is called there, as far as one knows
		if f, ok := a.(*ast.FunctionExpr); ok && awaits(f) {
			for _, l := range w.loops {
				l.awaits = true
			}
		}
	}
}

// awaits reports whether a function calls a method of anything: it may be a step.
func awaits(f *ast.FunctionExpr) bool {
	found := false
	var list func(stmts []ast.Stmt)
	look := func(e ast.Expr) {
		visit(e, func(e ast.Expr) {
			if c, ok := e.(*ast.FuncCallExpr); ok && c.Receiver != nil {
				found = true
			}
		})
	}
	list = func(stmts []ast.Stmt) {
		for _, s := range stmts {
			switch s := s.(type) {
			case *ast.FuncCallStmt:
				look(s.Expr)
			case *ast.LocalAssignStmt:
				for _, e := range s.Exprs {
					look(e)
				}
			case *ast.AssignStmt:
				for _, e := range s.Rhs {
					look(e)
				}
			case *ast.ReturnStmt:
				for _, e := range s.Exprs {
					look(e)
				}
			case *ast.IfStmt:
				list(s.Then)
				list(s.Else)
			case *ast.WhileStmt:
				list(s.Stmts)
			case *ast.RepeatStmt:
				list(s.Stmts)
			case *ast.NumberForStmt:
				list(s.Stmts)
			case *ast.GenericForStmt:
				list(s.Stmts)
			case *ast.DoBlockStmt:
				list(s.Stmts)
			}
		}
	}
	list(f.Stmts)
	return found
}

// patternTable walks the argument of pattern{}.
func (w *walker) patternTable(t *ast.TableExpr) {
	for _, f := range t.Fields {
		key, ok := f.Key.(*ast.StringExpr)
		fn, isFunction := f.Value.(*ast.FunctionExpr)
		if ok && isFunction {
			w.entry(key.Value, fn)
			continue
		}
		w.expr(f.Key)
		w.expr(f.Value)
	}
}

func (w *walker) require(e *ast.FuncCallExpr) {
	if len(e.Args) != 1 {
		return
	}
	name, ok := e.Args[0].(*ast.StringExpr)
	if !ok {
		w.find(LevelError, e, "require", "require takes a name that is written out", "")
		return
	}
	file := strings.ReplaceAll(name.Value, ".", "/") + ".lua"
	if _, there := w.bundle.Files[file]; there {
		return
	}
	var libs []string
	for f := range w.bundle.Files {
		if strings.HasPrefix(f, "lib/") && strings.HasSuffix(f, ".lua") {
			libs = append(libs, strings.ReplaceAll(strings.TrimSuffix(f, ".lua"), "/", "."))
		}
	}
	slices.Sort(libs)
	next := `Files of the pattern are named from its folder on: require "lib.x" is lib/x.lua.`
	if n := wording.Nearest(name.Value, libs); n != "" {
		next = "Do you mean " + quote(n) + "?"
	}
	w.find(LevelError, e, "require", "the pattern has no file "+quote(file), next)
}

// dotCall is a call written with a dot; it reports whether it was looked at.
func (w *walker) dotCall(e *ast.FuncCallExpr, a *ast.AttrGetExpr) bool {
	id, named := a.Object.(*ast.IdentExpr)
	key, constant := a.Key.(*ast.StringExpr)
	if !named || !constant {
		return false
	}
	k, local := w.lookup(id.Value)
	if local && k != "" && k != kindParams {
		w.member(a, string(k), key.Value)
		if len(e.Args) == 0 || w.kindOf(e.Args[0]) != k {
			w.find(LevelError, e, "dot-call", "methods of "+id.Value+" are called with a colon", "Write "+id.Value+":"+key.Value+"(...).")
		} else {
			w.hostCall(e, string(k), key.Value, e.Args[1:])
		}
		w.exprs(e.Args)
		return true
	}
	if _, isLibrary := w.host.objects[id.Value]; !local && isLibrary {
		w.attribute(a)
		w.exprs(e.Args)
		return true
	}
	return false
}

// hostCall looks at a call of the host.
func (w *walker) hostCall(e *ast.FuncCallExpr, object, method string, args []ast.Expr) {
	f, ok := w.host.functions[object+"."+method]
	if !ok {
		return
	}
	if f.Op != "" {
		op, _ := pattern.Find(f.Op)
		for _, l := range w.loops {
			l.awaits = l.awaits || op.Way == pattern.Open || op.Way == pattern.Immediate
		}
	} else if method == "skip" {
		w.leave()
	}
	switch object + "." + method {
	case "dev.call":
		w.useNamed("method", e, args, "the name of the method")
		w.options(e, args, 2, f)
	case "dev.wait":
		w.useNeed("twin:read")
		w.predicate(e, args, true)
		w.waitOptions(e, args, 1)
	case "dev.wait_online":
		w.useNeed("twin:read")
		w.waitOptions(e, args, 0)
	case "dev.desire":
		w.usePatch("twin:desired", args)
	case "dev.tag":
		w.usePatch("twin:tags", args)
	case "ctx.http":
		w.useHost(e, args)
	case "ctx.secret":
		w.useNamed("secret", e, args, "the name of the secret")
	case "fleet.query", "fleet.count", "run.count":
		w.predicate(e, args, false)
		w.useOp(f.Op)
	case "ctx.sleep":
		w.duration(e, args, 0)
	default:
		w.useOp(f.Op)
	}
}

// useOp notes the capabilities of an operation that needs the same whatever its
// arguments are.
func (w *walker) useOp(name string) {
	op, ok := pattern.Find(name)
	if !ok || op.Needs == nil {
		return
	}
	if needs, err := op.Needs(json.RawMessage(`{}`)); err == nil {
		for _, n := range needs {
			w.useNeed(n)
		}
	}
}

func (w *walker) useNeed(n pattern.Need) {
	if !w.test {
		w.used[n] = true
	}
}

// missing says that a capability is used and not declared.
func (w *walker) missing(e ast.Expr, n pattern.Need) {
	w.useNeed(n)
	if w.manifest != nil && !w.test && !pattern.Needs(w.manifest.Needs).Allows(n) {
		w.find(LevelError, e, "undeclared-need", "this needs "+quote(string(n))+", which the manifest does not declare", "Add it to needs.")
	}
}

// useNamed notes a capability whose argument is the call's first one.
func (w *walker) useNamed(sort string, e *ast.FuncCallExpr, args []ast.Expr, what string) {
	if len(args) == 0 {
		w.find(LevelError, e, "arguments", what+" is missing", "")
		return
	}
	if s, ok := args[0].(*ast.StringExpr); ok {
		w.missing(e, pattern.Need(sort+":"+s.Value))
		return
	}
	w.dynamic[sort] = true
}

// usePatch notes the capabilities of a patch, as far as it is written out.
func (w *walker) usePatch(section string, args []ast.Expr) {
	w.dynamic[section] = true // needs of deeper paths are not told apart here
	if len(args) == 0 {
		return
	}
	t, ok := args[0].(*ast.TableExpr)
	if !ok || w.manifest == nil {
		return
	}
	for _, f := range t.Fields {
		key, ok := f.Key.(*ast.StringExpr)
		if !ok {
			continue
		}
		need := pattern.Need(section + ":" + key.Value)
		below := slices.ContainsFunc(w.manifest.Needs, func(n pattern.Need) bool { return strings.HasPrefix(string(n), string(need)+".") })
		if !below {
			w.missing(f.Value, need)
		}
	}
}

// useHost notes the capability of a request.
func (w *walker) useHost(e *ast.FuncCallExpr, args []ast.Expr) {
	if len(args) == 0 {
		return
	}
	t, ok := args[0].(*ast.TableExpr)
	if !ok {
		w.dynamic["http"] = true
		return
	}
	for _, f := range t.Fields {
		key, isName := f.Key.(*ast.StringExpr)
		if !isName || key.Value != "url" {
			continue
		}
		s, written := f.Value.(*ast.StringExpr)
		whole := written
		if !written { // "https://host/" .. path
			if c, ok := f.Value.(*ast.StringConcatOpExpr); ok {
				s, written = c.Lhs.(*ast.StringExpr)
				if written {
					w.encrypted(f.Value, s.Value)
				}
				written = written && strings.Count(s.Value, "/") >= 3
			}
		}
		if whole && w.encrypted(f.Value, s.Value) {
			if err := pattern.CheckURL(s.Value); err != nil {
				w.find(LevelError, f.Value, "arguments", quote(s.Value)+": "+err.Error(), "")
				return
			}
		}
		if !written {
			w.dynamic["http"] = true
			return
		}
		op, _ := pattern.Find("ctx.http")
		text, err := json.Marshal(pattern.HTTPArgs{URL: s.Value})
		if err != nil {
			return
		}
		if needs, err := op.Needs(text); err == nil {
			for _, n := range needs {
				w.missing(e, n)
			}
		}
		return
	}
	w.find(LevelError, e, "arguments", "the request has no url", "")
}

// encrypted looks at the beginning of a request's URL.
func (w *walker) encrypted(at ast.PositionHolder, begin string) bool {
	const plain = "http://"
	if len(begin) < len(plain) || !strings.EqualFold(begin[:len(plain)], plain) {
		return true
	}
	w.find(LevelError, at, "arguments", "only https is taken: the URL begins with "+plain, "Write https://.")
	return false
}

// optionsOf is the table of options of a call; ok is false when it is not written
// out.
func optionsOf(args []ast.Expr, n int) (t *ast.TableExpr, ok bool) {
	if n >= len(args) {
		return nil, true
	}
	t, ok = args[n].(*ast.TableExpr)
	return t, ok
}

// options looks for members that a call does not have.
func (w *walker) options(e *ast.FuncCallExpr, args []ast.Expr, n int, f pattern.Function) {
	t, ok := optionsOf(args, n)
	if !ok || t == nil || n >= len(f.Params) {
		return
	}
	var names []string
	for _, m := range f.Params[n].Members {
		names = append(names, m.Name)
	}
	for _, field := range t.Fields {
		key, ok := field.Key.(*ast.StringExpr)
		if !ok || len(names) == 0 {
			continue
		}
		if !slices.Contains(names, key.Value) {
			next := "It has " + strings.Join(names, ", ") + "."
			if n := wording.Nearest(key.Value, names); n != "" {
				next = "Do you mean " + n + "?"
			}
			w.find(LevelError, e, "unknown-option", f.Name+" has no option "+quote(key.Value), next)
			continue
		}
		if slices.Contains([]string{"timeout", "online"}, key.Value) {
			w.durationText(field.Value)
		}
	}
}

// waitOptions looks at the options of a wait, which has a timeout if its author
// has thought of that.
func (w *walker) waitOptions(e *ast.FuncCallExpr, args []ast.Expr, n int) {
	t, ok := optionsOf(args, n)
	if !ok {
		return
	}
	if t != nil {
		for _, f := range t.Fields {
			if key, ok := f.Key.(*ast.StringExpr); ok && key.Value == "timeout" {
				w.durationText(f.Value)
				return
			}
		}
	}
	if !w.test {
		w.find(LevelWarning, e, "no-timeout", "the wait has no timeout: it may take "+rollout.Duration(pattern.MaxWait).String(), `Say how long it may take: timeout = "10m".`)
	}
}

func (w *walker) duration(_ *ast.FuncCallExpr, args []ast.Expr, n int) {
	if n < len(args) {
		w.durationText(args[n])
	}
}

func (w *walker) durationText(e ast.Expr) {
	s, ok := e.(*ast.StringExpr)
	if !ok {
		if n, isNumber := e.(*ast.NumberExpr); isNumber {
			w.find(LevelError, e, "duration", "a duration is a text, such as "+quote(n.Value+"s"), "")
		}
		return
	}
	if _, err := rollout.ParseDuration(s.Value); err != nil {
		w.find(LevelError, e, "duration", err.Error(), "")
	}
}

// predicate looks at the condition of a wait or of a query, if it is written out.
func (w *walker) predicate(e *ast.FuncCallExpr, args []ast.Expr, variables bool) {
	if len(args) == 0 {
		return
	}
	text, ok := args[0].(*ast.StringExpr)
	if !ok || !variables && text.Value == "*" {
		return
	}
	if !variables {
		if _, err := query.ParsePredicate(text.Value); err != nil {
			w.find(LevelError, args[0], "predicate", "the condition: "+err.Error(), "")
		}
		return
	}
	t, ok := optionsOf(args, 1)
	if !ok {
		return // nobody knows what its variables are
	}
	names := map[string]query.Value{}
	if t != nil {
		for _, f := range t.Fields {
			if key, ok := f.Key.(*ast.StringExpr); ok {
				names[key.Value] = query.NullValue()
			}
		}
	}
	_, err := query.ParseWait(text.Value, names)
	if err == nil {
		return
	}
	// What stands for a list, or for an object, is not known here.
	for name := range maps.Clone(names) {
		names[name] = query.ArrayValue(nil)
	}
	if _, again := query.ParseWait(text.Value, names); again == nil {
		return
	}
	w.find(LevelError, args[0], "predicate", "the condition: "+err.Error(), "")
}
