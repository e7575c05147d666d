package author

import "github.com/yuin/gopher-lua/ast"

// body walks the body of a loop and returns what it does.
func (w *walker) body(names []string, list []ast.Stmt, until ast.Expr) *loop {
	l := &loop{writes: map[string]bool{}}
	w.loops = append(w.loops, l)
	scope := map[string]kind{}
	for _, n := range names {
		scope[n] = ""
	}
	w.scopes = append(w.scopes, scope)
	w.statements(list)
	w.expr(until) // sees the body's variables
	w.scopes = w.scopes[:len(w.scopes)-1]
	w.loops = w.loops[:len(w.loops)-1]
	return l
}

func (w *walker) forLoop(names []string, list []ast.Stmt) { w.body(names, list, nil) }

func (w *walker) whileLoop(s *ast.WhileStmt) {
	w.expr(s.Condition)
	l := w.body(nil, s.Stmts, nil)
	w.endless(s, l, s.Condition, true)
}

func (w *walker) repeatLoop(s *ast.RepeatStmt) {
	l := w.body(nil, s.Stmts, s.Condition)
	w.endless(s, l, s.Condition, false)
}

// endless looks for loops that do not end, or only when a budget is used up.
func (w *walker) endless(s ast.Stmt, l *loop, condition ast.Expr, goesOn bool) {
	if w.test {
		return
	}
	const next = "Wait in it (dev:wait, ctx:sleep), or count how often it runs."
	truth, constant := constantOf(condition)
	switch {
	case constant && truth == goesOn && !l.leaves:
		if l.awaits {
			w.find(LevelWarning, s, "endless-loop", "the loop has no end: the run fails when it has taken as many steps as it may", "Give it an end, or a count.")
		} else if !l.calls {
			w.find(LevelError, s, "endless-loop", "the loop has no end and waits for nothing: the run fails when its instructions are used up", next)
		} else {
			w.find(LevelWarning, s, "endless-loop", "the loop has no end of its own, and nothing in it is known to wait", next)
		}
	case constant && truth == goesOn && !l.awaits && !l.calls && len(l.writes) == 0:
		w.find(LevelWarning, s, "endless-loop", "nothing changes in the loop that could lead to its end", next)
	case !constant && !l.leaves && !l.awaits && !l.calls && !mentionsCall(condition) && !writesAny(condition, l.writes):
		w.find(LevelError, s, "endless-loop", "nothing in the loop changes its condition, and nothing waits", next)
	}
}

func constantOf(e ast.Expr) (truth, constant bool) {
	switch e := e.(type) {
	case *ast.TrueExpr, *ast.NumberExpr, *ast.StringExpr:
		return true, true
	case *ast.FalseExpr, *ast.NilExpr:
		return false, true
	case *ast.UnaryNotOpExpr:
		truth, constant = constantOf(e.Expr)
		return !truth, constant
	}
	return false, false
}

// visit calls f with an expression and those in it, but for bodies of functions.
func visit(e ast.Expr, f func(e ast.Expr)) {
	if e == nil {
		return
	}
	f(e)
	switch e := e.(type) {
	case *ast.AttrGetExpr:
		visit(e.Object, f)
		visit(e.Key, f)
	case *ast.TableExpr:
		for _, field := range e.Fields {
			visit(field.Key, f)
			visit(field.Value, f)
		}
	case *ast.FuncCallExpr:
		visit(e.Func, f)
		visit(e.Receiver, f)
		for _, a := range e.Args {
			visit(a, f)
		}
	case *ast.LogicalOpExpr:
		visit(e.Lhs, f)
		visit(e.Rhs, f)
	case *ast.RelationalOpExpr:
		visit(e.Lhs, f)
		visit(e.Rhs, f)
	case *ast.StringConcatOpExpr:
		visit(e.Lhs, f)
		visit(e.Rhs, f)
	case *ast.ArithmeticOpExpr:
		visit(e.Lhs, f)
		visit(e.Rhs, f)
	case *ast.UnaryMinusOpExpr:
		visit(e.Expr, f)
	case *ast.UnaryNotOpExpr:
		visit(e.Expr, f)
	case *ast.UnaryLenOpExpr:
		visit(e.Expr, f)
	}
}

func mentionsCall(e ast.Expr) bool {
	found := false
	visit(e, func(e ast.Expr) {
		if _, ok := e.(*ast.FuncCallExpr); ok {
			found = true
		}
	})
	return found
}

func writesAny(e ast.Expr, names map[string]bool) bool {
	found := false
	visit(e, func(e ast.Expr) {
		if id, ok := e.(*ast.IdentExpr); ok && names[id.Value] {
			found = true
		}
	})
	return found
}
