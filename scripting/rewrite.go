package scripting

import (
	"fmt"
	"slices"

	"github.com/yuin/gopher-lua/ast"
	"github.com/yuin/gopher-lua/parse"

	"github.com/muster-hub/muster/engine/pattern"
)

const (
	// concatName is the global that stands for the operator "..": no program can
	// write such a name.
	concatName = ".."
	// These stand for comparisons.
	lessName, atMostName, greaterName, atLeastName = "<", "<=", ">", ">="

	nestingMost  = 200 // of expressions and statements: what walks them is recursive
	operandsMost = 40  // of one call that joins texts
)

// rewrite changes a parsed file so that the sandbox can bound what it does.
//
// Each a .. b becomes a call of the function [concatName], which looks at the
// size before it makes a text, and so does what orders two values. An assignment to more than one variable goes
// through fresh locals: gopher-lua writes some variables before it has read them,
// so that a, b = b, a makes the two the same.
//
// Lines stay as they are. It returns what is wrong with the file.
func (w *rewriter) rewrite(chunk []ast.Stmt) (_ []ast.Stmt, fault *pattern.Fault) {
	defer func() {
		if v := recover(); v != nil {
			f, ok := v.(*pattern.Fault)
			if !ok {
				panic(v)
			}
			fault = f
		}
	}()
	return w.block(chunk), nil
}

// parseFile parses and rewrites a file.
func parseFile(file string, text []byte) ([]ast.Stmt, *pattern.Fault) {
	chunk, fault := parseLua(file, text)
	if fault != nil {
		return nil, fault
	}
	return (&rewriter{file: file}).rewrite(chunk)
}

type rewriter struct {
	file  string
	depth int
	plain bool // operators stay, for a test that compares
}

// enter is called where a recursion begins, and leave where it ends.
func (w *rewriter) enter(at ast.PositionHolder) {
	if w.depth++; w.depth > nestingMost {
		panic(&pattern.Fault{Code: pattern.FaultLua, Message: fmt.Sprintf("nests deeper than %d levels", nestingMost), Line: place(w.file, at.Line())})
	}
}

func (w *rewriter) leave() { w.depth-- }

func (w *rewriter) block(list []ast.Stmt) []ast.Stmt {
	for i := range list {
		list[i] = w.stmt(list[i])
	}
	return list
}

func (w *rewriter) exprs(list []ast.Expr) {
	for i := range list {
		list[i] = w.expr(list[i])
	}
}

func (w *rewriter) stmt(s ast.Stmt) ast.Stmt {
	w.enter(s)
	defer w.leave()
	switch s := s.(type) {
	case *ast.AssignStmt:
		w.exprs(s.Lhs)
		w.exprs(s.Rhs)
		if len(s.Lhs) > 1 {
			return apart(s)
		}
	case *ast.LocalAssignStmt:
		w.exprs(s.Exprs)
	case *ast.FuncCallStmt:
		s.Expr = w.expr(s.Expr)
	case *ast.DoBlockStmt:
		w.block(s.Stmts)
	case *ast.WhileStmt:
		s.Condition = w.expr(s.Condition)
		w.block(s.Stmts)
	case *ast.RepeatStmt:
		s.Condition = w.expr(s.Condition)
		w.block(s.Stmts)
	case *ast.IfStmt:
		s.Condition = w.expr(s.Condition)
		w.block(s.Then)
		w.block(s.Else)
	case *ast.NumberForStmt:
		s.Init, s.Limit = w.expr(s.Init), w.expr(s.Limit)
		if s.Step != nil {
			s.Step = w.expr(s.Step)
		}
		w.block(s.Stmts)
	case *ast.GenericForStmt:
		w.exprs(s.Exprs)
		w.block(s.Stmts)
	case *ast.FuncDefStmt:
		if s.Name.Func != nil {
			s.Name.Func = w.expr(s.Name.Func)
		}
		if s.Name.Receiver != nil {
			s.Name.Receiver = w.expr(s.Name.Receiver)
		}
		w.block(s.Func.Stmts)
	case *ast.ReturnStmt:
		w.exprs(s.Exprs)
	}
	return s
}

func (w *rewriter) expr(e ast.Expr) ast.Expr {
	w.enter(e)
	defer w.leave()
	switch e := e.(type) {
	case *ast.StringConcatOpExpr:
		if !w.plain {
			return w.concat(e)
		}
		e.Lhs, e.Rhs = w.expr(e.Lhs), w.expr(e.Rhs)
	case *ast.AttrGetExpr:
		e.Object, e.Key = w.expr(e.Object), w.expr(e.Key)
	case *ast.TableExpr:
		for _, f := range e.Fields {
			if f.Key != nil {
				f.Key = w.expr(f.Key)
			}
			f.Value = w.expr(f.Value)
		}
	case *ast.FuncCallExpr:
		if e.Func != nil {
			e.Func = w.expr(e.Func)
		}
		if e.Receiver != nil {
			e.Receiver = w.expr(e.Receiver)
		}
		w.exprs(e.Args)
	case *ast.LogicalOpExpr:
		e.Lhs, e.Rhs = w.expr(e.Lhs), w.expr(e.Rhs)
	case *ast.RelationalOpExpr:
		e.Lhs, e.Rhs = w.expr(e.Lhs), w.expr(e.Rhs)
		if !w.plain {
			return compare(e)
		}
	case *ast.ArithmeticOpExpr:
		e.Lhs, e.Rhs = w.expr(e.Lhs), w.expr(e.Rhs)
	case *ast.UnaryMinusOpExpr:
		e.Expr = w.expr(e.Expr)
	case *ast.UnaryNotOpExpr:
		e.Expr = w.expr(e.Expr)
	case *ast.UnaryLenOpExpr:
		e.Expr = w.expr(e.Expr)
	case *ast.FunctionExpr:
		w.block(e.Stmts)
	}
	return e
}

// concat makes calls of a chain a .. b .. c, which the parser has nested to the
// right: one call for all of it, or several when it is long.
func (w *rewriter) concat(e *ast.StringConcatOpExpr) ast.Expr {
	var operands []ast.Expr
	var last ast.Expr = e
	for {
		c, ok := last.(*ast.StringConcatOpExpr)
		if !ok {
			break
		}
		operands = append(operands, w.expr(c.Lhs))
		last = c.Rhs
	}
	operands = append(operands, single(w.expr(last)))
	for len(operands) > operandsMost {
		from := len(operands) - operandsMost
		operands = append(operands[:from:from], join(e, operands[from:]))
	}
	return join(e, operands)
}

// join calls the function that stands for "..". The call's own results are cut to
// one, so that it is no tail call and no list of values, as the operator is none.
func join(at ast.PositionHolder, operands []ast.Expr) ast.Expr {
	name := &ast.IdentExpr{Value: concatName}
	call := &ast.FuncCallExpr{Func: name, Args: operands, AdjustRet: true}
	copyLines(at, name, call)
	return call
}

// compare makes a call of an order of which both sides may be texts, since it
// takes as long as they are. Loops compare with a number or a length.
func compare(e *ast.RelationalOpExpr) ast.Expr {
	if numeric(e.Lhs) || numeric(e.Rhs) {
		return e
	}
	name := lessName
	switch e.Operator {
	case "<":
	case "<=":
		name = atMostName
	case ">":
		name = greaterName
	case ">=":
		name = atLeastName
	default:
		return e
	}
	id := &ast.IdentExpr{Value: name}
	call := &ast.FuncCallExpr{Func: id, Args: []ast.Expr{e.Lhs, single(e.Rhs)}, AdjustRet: true}
	copyLines(e, id, call)
	return call
}

// numeric reports whether an expression gives a number, unless a metatable has it
// give something else.
func numeric(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.NumberExpr, *ast.UnaryLenOpExpr, *ast.ArithmeticOpExpr:
		return true
	case *ast.UnaryMinusOpExpr:
		return numeric(e.Expr)
	}
	return false
}

// single cuts what an expression gives to one value.
func single(e ast.Expr) ast.Expr {
	switch e := e.(type) {
	case *ast.FuncCallExpr:
		e.AdjustRet = true
	case *ast.Comma3Expr:
		e.AdjustRet = true
	}
	return e
}

// apart makes
//
//	a, t[k] = x, y
//
// into
//
//	do local .o2, .k2 = t, k; local .v1, .v2 = x, y; t2[k2] = .v2; a = .v1 end
//
// where the names can't be those of a program.
func apart(s *ast.AssignStmt) ast.Stmt {
	block := &ast.DoBlockStmt{}
	copyLines(s, block)
	ident := func(name string) *ast.IdentExpr {
		id := &ast.IdentExpr{Value: name}
		copyLines(s, id)
		return id
	}
	local := func(names []string, values []ast.Expr) {
		l := &ast.LocalAssignStmt{Names: names, Exprs: values}
		copyLines(s, l)
		block.Stmts = append(block.Stmts, l)
	}
	var values []string
	targets := make([]ast.Expr, len(s.Lhs))
	for i, to := range s.Lhs {
		targets[i] = to
		if at, ok := to.(*ast.AttrGetExpr); ok {
			object, key := fmt.Sprintf(".o%d", i), fmt.Sprintf(".k%d", i)
			names, parts := []string{object}, []ast.Expr{at.Object}
			target := &ast.AttrGetExpr{Object: ident(object), Key: at.Key}
			if !constant(at.Key) {
				names, parts, target.Key = append(names, key), append(parts, single(at.Key)), ident(key)
			}
			local(names, parts)
			copyLines(at, target)
			targets[i] = target
		}
		values = append(values, fmt.Sprintf(".v%d", i))
	}
	local(values, s.Rhs)
	for i := len(targets) - 1; i >= 0; i-- { // as Lua does
		set := &ast.AssignStmt{Lhs: []ast.Expr{targets[i]}, Rhs: []ast.Expr{ident(values[i])}}
		copyLines(s, set)
		block.Stmts = append(block.Stmts, set)
	}
	return block
}

func copyLines(from ast.PositionHolder, to ...ast.PositionHolder) {
	for _, n := range to {
		n.SetLine(from.Line())
		n.SetLastLine(from.LastLine())
	}
}

// constant reports whether an expression is a literal, or a table of them.
func constant(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.TrueExpr, *ast.FalseExpr, *ast.NilExpr, *ast.NumberExpr, *ast.StringExpr:
		return true
	case *ast.UnaryMinusOpExpr:
		_, ok := e.Expr.(*ast.NumberExpr)
		return ok
	case *ast.TableExpr:
		for _, f := range e.Fields {
			if f.Key != nil && !constant(f.Key) || !constant(f.Value) {
				return false
			}
		}
		return true
	}
	return false
}

// trim leaves out of `return pattern { ... }` what only a manifest needs: members
// that are literals. Nothing can look at them when the program runs, and to make
// them takes longer than most activations. Functions and what is computed stay.
func trim(chunk []ast.Stmt) {
	if len(chunk) == 0 || declares(chunk, "pattern") {
		return
	}
	ret, ok := chunk[len(chunk)-1].(*ast.ReturnStmt)
	if !ok || len(ret.Exprs) != 1 {
		return
	}
	call, ok := ret.Exprs[0].(*ast.FuncCallExpr)
	if !ok || call.Func == nil || len(call.Args) != 1 {
		return
	}
	name, ok := call.Func.(*ast.IdentExpr)
	table, isTable := call.Args[0].(*ast.TableExpr)
	if !ok || name.Value != "pattern" || !isTable {
		return
	}
	kept := table.Fields[:0]
	for _, f := range table.Fields {
		if key, ok := f.Key.(*ast.StringExpr); ok && !isEntry(key.Value) && constant(f.Value) {
			continue
		}
		kept = append(kept, f)
	}
	table.Fields = kept
}

// declares reports whether a block has a local of that name.
func declares(block []ast.Stmt, name string) bool {
	for _, s := range block {
		if l, ok := s.(*ast.LocalAssignStmt); ok && slices.Contains(l.Names, name) {
			return true
		}
	}
	return false
}

func isEntry(name string) bool {
	switch pattern.Entry(name) {
	case pattern.EntryRun, pattern.EntryUndo, pattern.EntryGate, pattern.EntryCheck:
		return true
	}
	return false
}

// place is how a line is written everywhere: "pattern.lua:44".
func place(file string, line int) string { return fmt.Sprintf("%s:%d", file, line) }

// parseLua parses a file. What is wrong with it is a fault with its line.
func parseLua(file string, text []byte) (chunk []ast.Stmt, fault *pattern.Fault) {
	defer func() {
		if v := recover(); v != nil { // the lexer does, for some texts
			fault = &pattern.Fault{Code: pattern.FaultLua, Message: fmt.Sprintf("can't be read as Lua: %v", v), Line: place(file, 1)}
		}
	}()
	chunk, err := parse.Parse(newSource(text), file)
	if err == nil {
		return chunk, nil
	}
	fault = &pattern.Fault{Code: pattern.FaultLua, Message: err.Error(), Line: place(file, 1)}
	if e, ok := err.(*parse.Error); ok {
		fault.Message = e.Message
		switch {
		case e.Pos.Line == parse.EOF:
			fault.Message, fault.Line = e.Message+" at the end of the file", place(file, lines(text))
		default:
			fault.Line = place(file, e.Pos.Line)
			if e.Token != "" {
				fault.Message = fmt.Sprintf("%s near %q", e.Message, clip(e.Token, 40))
			}
		}
	}
	return nil, fault
}
