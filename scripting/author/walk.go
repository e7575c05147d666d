package author

import (
	"slices"

	"github.com/yuin/gopher-lua/ast"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/wording"
)

// kind is what is known of a variable: that it holds an object of the host
// ("dev", "ctx"), or the parameters. Empty: nothing.
type kind string

const kindParams kind = "parameters"

// walker goes through one file.
type walker struct {
	*checker
	file   string
	test   bool // it is a file of tests
	scopes []map[string]kind
	loops  []*loop
}

// loop is what is known of a loop while its body is walked.
type loop struct {
	awaits bool // a step is in it
	calls  bool // something is called that is not known
	leaves bool // break, return, error or goto
	writes map[string]bool
}

func (c *checker) walk(file string, chunk []ast.Stmt) {
	w := &walker{checker: c, file: file, test: isTest(file)}
	w.block(chunk)
}

func (w *walker) find(level Level, n ast.PositionHolder, rule, message, next string) {
	w.add(w.file, n.Line(), level, rule, message, next)
}

// lookup says what a name holds; ok is false when it is no local variable.
func (w *walker) lookup(name string) (kind, bool) {
	for i := len(w.scopes) - 1; i >= 0; i-- {
		if k, ok := w.scopes[i][name]; ok {
			return k, true
		}
	}
	return "", false
}

func (w *walker) declare(name string, k kind) { w.scopes[len(w.scopes)-1][name] = k }

func (w *walker) block(list []ast.Stmt) {
	w.scopes = append(w.scopes, map[string]kind{})
	w.statements(list)
	w.scopes = w.scopes[:len(w.scopes)-1]
}

func (w *walker) statements(list []ast.Stmt) {
	for _, s := range list {
		w.statement(s)
	}
}

func (w *walker) statement(s ast.Stmt) {
	switch s := s.(type) {
	case *ast.AssignStmt:
		w.exprs(s.Rhs)
		for _, e := range s.Lhs {
			w.assign(e)
		}
	case *ast.LocalAssignStmt:
		w.local(s)
	case *ast.FuncCallStmt:
		w.expr(s.Expr)
	case *ast.DoBlockStmt:
		w.block(s.Stmts)
	case *ast.WhileStmt:
		w.whileLoop(s)
	case *ast.RepeatStmt:
		w.repeatLoop(s)
	case *ast.IfStmt:
		w.expr(s.Condition)
		w.block(s.Then)
		w.block(s.Else)
	case *ast.NumberForStmt:
		w.expr(s.Init)
		w.expr(s.Limit)
		w.expr(s.Step)
		w.forLoop([]string{s.Name}, s.Stmts)
	case *ast.GenericForStmt:
		w.exprs(s.Exprs)
		w.forLoop(s.Names, s.Stmts)
	case *ast.FuncDefStmt:
		if s.Name.Func != nil {
			w.assign(s.Name.Func)
		}
		w.function(s.Func, nil, s.Name.Receiver != nil)
	case *ast.ReturnStmt:
		w.exprs(s.Exprs)
		w.leave()
	case *ast.BreakStmt, *ast.GotoStmt:
		w.leave()
	}
}

// leave notes that the loops around may end here.
func (w *walker) leave() {
	for _, l := range w.loops {
		l.leaves = true
	}
}

func (w *walker) local(s *ast.LocalAssignStmt) {
	kinds := make([]kind, len(s.Names))
	if len(s.Names) == 1 && len(s.Exprs) == 1 {
		if f, ok := s.Exprs[0].(*ast.FunctionExpr); ok { // it may call itself
			w.declare(s.Names[0], "")
			w.function(f, nil, false)
			return
		}
	}
	for i, e := range s.Exprs {
		w.expr(e)
		if i < len(kinds) {
			kinds[i] = w.kindOf(e)
		}
	}
	for i, name := range s.Names {
		w.declare(name, kinds[i])
	}
}

// kindOf says what an expression gives.
func (w *walker) kindOf(e ast.Expr) kind {
	switch e := e.(type) {
	case *ast.IdentExpr:
		k, _ := w.lookup(e.Value)
		return k
	case *ast.FuncCallExpr:
		if e.Receiver != nil && e.Method == "kv" && w.kindOf(e.Receiver) == "ctx" {
			return "kv"
		}
	}
	return ""
}

func (w *walker) assign(e ast.Expr) {
	switch e := e.(type) {
	case *ast.IdentExpr:
		for _, l := range w.loops {
			l.writes[e.Value] = true
		}
		if _, ok := w.lookup(e.Value); !ok {
			w.find(LevelError, e, "global-write", pattern.AssignedGlobal(e.Value), "")
		}
	case *ast.AttrGetExpr:
		for _, l := range w.loops {
			if name := root(e); name != "" {
				l.writes[name] = true
			}
		}
		w.expr(e.Object)
		w.expr(e.Key)
	}
}

// root is the variable at the beginning of a.b.c.
func root(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.IdentExpr:
			return x.Value
		case *ast.AttrGetExpr:
			e = x.Object
		default:
			return ""
		}
	}
}

func (w *walker) exprs(list []ast.Expr) {
	for _, e := range list {
		w.expr(e)
	}
}

func (w *walker) expr(e ast.Expr) {
	switch e := e.(type) {
	case nil:
	case *ast.IdentExpr:
		w.ident(e)
		if k, _ := w.lookup(e.Value); k == kindParams {
			w.passed = true // as a whole: nobody knows what of it is read
		}
	case *ast.AttrGetExpr:
		w.attribute(e)
	case *ast.TableExpr:
		for _, f := range e.Fields {
			w.expr(f.Key)
			w.expr(f.Value)
		}
	case *ast.FuncCallExpr:
		w.call(e)
	case *ast.LogicalOpExpr:
		w.expr(e.Lhs)
		w.expr(e.Rhs)
	case *ast.RelationalOpExpr:
		w.expr(e.Lhs)
		w.expr(e.Rhs)
	case *ast.StringConcatOpExpr:
		w.expr(e.Lhs)
		w.expr(e.Rhs)
	case *ast.ArithmeticOpExpr:
		w.expr(e.Lhs)
		w.expr(e.Rhs)
	case *ast.UnaryMinusOpExpr:
		w.expr(e.Expr)
	case *ast.UnaryNotOpExpr:
		w.expr(e.Expr)
	case *ast.UnaryLenOpExpr:
		w.expr(e.Expr)
	case *ast.FunctionExpr:
		w.function(e, nil, false)
	}
}

// ident reads a variable.
func (w *walker) ident(e *ast.IdentExpr) {
	if _, ok := w.lookup(e.Value); ok || w.host.globals[e.Value] || w.test && e.Value == "test" {
		return
	}
	next := ""
	if names := []string{"dev", "ctx", "fleet"}; !w.test {
		for _, name := range names {
			if e.Value == name {
				next = "It is a parameter of run: hand it on to the function."
			}
		}
	}
	message := pattern.MissingGlobal(e.Value)
	if message == "" {
		message = "global \"" + e.Value + "\" does not exist here"
	}
	w.find(LevelError, e, "undefined-global", message, next)
}

// attribute reads a member.
func (w *walker) attribute(e *ast.AttrGetExpr) {
	key, constant := e.Key.(*ast.StringExpr)
	id, named := e.Object.(*ast.IdentExpr)
	if !named || !constant {
		w.expr(e.Object)
		w.expr(e.Key)
		return
	}
	w.ident(id)
	k, local := w.lookup(id.Value)
	switch {
	case local && k == kindParams:
		w.parameter(e, key.Value)
	case local && k != "":
		w.member(e, string(k), key.Value)
	case !local && w.host.globals[id.Value]:
		if o, ok := w.host.objects[id.Value]; ok && !o.Method {
			w.library(e, id.Value, key.Value)
		}
	}
}

// library reads a member of a library.
func (w *walker) library(e ast.Expr, name, member string) {
	names := w.host.members(name)
	if slices.Contains(names, member) {
		return
	}
	next := ""
	if n := wording.Nearest(member, names); n != "" {
		next = "Do you mean " + name + "." + n + "?"
	}
	message := pattern.MissingGlobal(name + "." + member)
	if message == "" {
		message = name + "." + member + " does not exist here"
	}
	w.find(LevelError, e, "undefined-member", message, next)
}

// member reads a member of an object of the host.
func (w *walker) member(e ast.Expr, object, member string) {
	names := w.host.members(object)
	if slices.Contains(names, member) {
		return
	}
	if len(names) == 0 {
		return
	}
	next := ""
	if n := wording.Nearest(member, names); n != "" {
		next = "Do you mean " + object + ":" + n + "?"
	}
	w.find(LevelError, e, "unknown-method", object+" has no "+quote(member), next)
}

// function walks the body of a function. kinds are of its parameters; nil: their
// names tell.
func (w *walker) function(f *ast.FunctionExpr, kinds []kind, method bool) {
	scope := map[string]kind{}
	if method {
		scope["self"] = ""
	}
	for i, name := range f.ParList.Names {
		var k kind
		switch {
		case i < len(kinds):
			k = kinds[i]
		case w.test:
		case name == "dev" || name == "ctx" || name == "fleet":
			k = kind(name)
		}
		scope[name] = k
	}
	loops := w.loops // what is done in a function of its own is done when that is called
	w.loops = nil
	w.scopes = append(w.scopes, scope)
	w.statements(f.Stmts)
	w.scopes = w.scopes[:len(w.scopes)-1]
	w.loops = loops
}

// entry walks a function of pattern{}.
func (w *walker) entry(name string, f *ast.FunctionExpr) {
	w.entries[name] = true
	subject := kind("dev")
	if w.manifest != nil && w.manifest.Scope == pattern.ScopeFleet {
		subject = "fleet"
	}
	switch pattern.Entry(name) {
	case pattern.EntryRun, pattern.EntryUndo:
		w.function(f, []kind{subject, kindParams, "ctx"}, false)
	case pattern.EntryCheck:
		w.function(f, []kind{subject, kindParams}, false)
	case pattern.EntryGate:
		w.function(f, []kind{"run", "", "ctx"}, false)
	default:
		w.function(f, nil, false)
	}
}
