package query

import "time"

// output makes a page's rows.
type output struct {
	run   *run
	items []*binding // of the query's items; nil for SELECT *
	step  *Step
	load  bool // all rows come from documents
	fetch *Step
	ids   []string
	rows  [][]byte
}

func (r *run) newOutput() *output {
	o := &output{run: r, step: &Step{Kind: "projection", Estimate: -1}}
	if r.query.star {
		return o
	}
	for _, i := range r.query.items {
		b := r.bindings.of(i.path)
		o.items = append(o.items, b)
		if b.missing {
			o.load = true
			r.missing(b)
		}
	}
	return o
}

// render returns a row's JSON from columns; load says that the row's document is
// needed for it. The lock is held.
func (o *output) render(ord uint32) (json []byte, load bool) {
	if o.run.query.star {
		return nil, false
	}
	if o.load {
		return nil, true
	}
	for _, b := range o.items {
		if b.column != nil && b.column.get(ord) == codeCell(codeObject) {
			return nil, true
		}
	}
	return renderRow(o.run.query.items, func(i int) Value { return o.items[i].value(o.run.store, ord) }), false
}

// document returns a row's JSON from its document.
func (o *output) document(doc Value) []byte {
	if o.run.query.star {
		return nil
	}
	return renderRow(o.run.query.items, func(i int) Value { return doc.Value(o.run.query.items[i].path) })
}

// renderRow makes a row's JSON, of items that have a value. No two have one key:
// the parser sees to that.
func renderRow(items []item, value func(i int) Value) []byte {
	members := make([]Member, 0, len(items))
	for i := range items {
		if v := value(i); v.kind != Undefined {
			members = append(members, Member{items[i].key, v})
		}
	}
	return ObjectValue(members).AppendJSON(nil)
}

// bounds returns how many rows are skipped, and how many wanted; one more than
// the page has shows whether more come.
func (r *run) bounds() (skip, want int) {
	want = max(r.ask.Limit, 1)
	if r.query.top >= 0 {
		want = min(want, max(r.query.top-r.ask.Given, 0))
	}
	if r.ask.After == "" && r.ask.Given == 0 {
		skip = r.query.offset
	}
	return skip, want
}

// last reports whether a page of want rows is the last that TOP allows.
func (r *run) last(want int) bool { return r.query.top >= 0 && r.ask.Given+want >= r.query.top }

// byID answers with rows in the order of their ids.
func (r *run) byID() (*Page, error) {
	skip, want := r.bounds()
	if want == 0 {
		return &Page{}, nil
	}
	look := want + 1
	if r.last(want) {
		look = want
	}
	out := r.newOutput()
	list, err := r.candidates(skip + look)
	if err != nil {
		return nil, err
	}
	r.plan.Steps = append(r.plan.Steps, out.step)
	batch := 64
	for (!list.done || len(list.rest) > 0) && len(out.ids) < look {
		n := skip + look - len(out.ids)
		if list.walk || !list.sure { // some may not pass
			n = max(n, batch)
		}
		ords, err := list.next(r, min(verifyBatch, n))
		if err != nil {
			return nil, err
		}
		if list.rest, err = r.take(out, ords, &skip, look); err != nil {
			return nil, err
		}
		batch *= 2 // few of them pass, it seems
	}
	if list.step != nil && list.bits == nil { // a walk, which looked at what there was to judge
		list.step.Rows, list.step.Selected = out.step.Rows, r.plan.Selected
	}
	if len(list.ahead) > 0 {
		list.step.Note = "the first rows by id were enough"
	}
	page := &Page{}
	if len(out.ids) > want {
		page.More, page.Last = true, out.ids[want-1]
		out.ids, out.rows = out.ids[:want], out.rows[:want]
	}
	out.give(page)
	return page, nil
}

func (o *output) give(page *Page) {
	if o.run.query.star {
		page.IDs = o.ids
	} else {
		page.Rows = o.rows
	}
}

// take looks at rows in their order and puts those on the page that pass, until
// it has look of them; it returns those it did not come to. Each row is judged and
// rendered as it is at one moment.
func (r *run) take(out *output, ords []uint32, skip *int, look int) (rest []uint32, err error) {
	type row struct {
		id   string
		json []byte
		load bool
	}
	begin := time.Now()
	var rows []row
	var ids []string
	exact := r.cond == nil || r.cond.exact()
	if err := r.lock(); err != nil {
		return nil, err
	}
	for i, ord := range ords {
		if exact && (len(out.ids)+len(rows) >= look || i&7 == 7 && time.Since(r.locked) > lockTime) {
			rest = ords[i:]
			break
		}
		out.step.Rows++
		if !r.store.isAlive(ord) {
			continue
		}
		this := row{id: r.store.ids.at(ord)}
		if exact {
			if r.where != nil && !r.where.pass(ord) {
				continue
			}
			r.plan.Selected++
			if *skip > 0 {
				*skip--
				continue
			}
			this.json, this.load = out.render(ord)
		}
		this.load = this.load || !exact
		if this.load {
			ids = append(ids, this.id)
		}
		rows = append(rows, this)
	}
	r.unlock()
	out.step.Time += time.Since(begin)
	var docs []Value
	for len(docs) < len(ids) {
		if len(docs) == 0 && out.fetch == nil {
			out.fetch = &Step{Kind: "document fetch", Estimate: -1}
			r.plan.Steps = append(r.plan.Steps, out.fetch)
		}
		more, err := r.documents(ids[len(docs):min(len(ids), len(docs)+documentsBatch)], out.fetch)
		if err != nil {
			return nil, err
		}
		docs = append(docs, more...)
	}
	for i := range rows {
		this := &rows[i]
		if this.load {
			doc := docs[0]
			docs = docs[1:]
			if doc.kind == Undefined || r.where != nil && !r.where.program.eval(doc, r.ask.Now).True() {
				continue
			}
			out.fetch.Selected++
			if !exact {
				r.plan.Selected++
				if *skip > 0 {
					*skip--
					continue
				}
			}
			this.json = out.document(doc)
		}
		if len(out.ids) >= look {
			break
		}
		out.step.Selected++
		out.ids, out.rows = append(out.ids, this.id), append(out.rows, this.json)
		if err := r.hold(int64(len(this.json)+len(this.id)+40), out.step.Kind); err != nil {
			return nil, err
		}
	}
	return rest, r.check(out.step.Kind)
}
