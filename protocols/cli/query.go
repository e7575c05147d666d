package cli

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

type queryGroup struct {
	Ask    queryAskCmd    `cmd:"" default:"withargs" help:"Answer a query, SELECT ..., or a bare predicate such as 'tags.site == \"A\" && reported.battery < 20'. The word ask may be left out."`
	Run    queryRunCmd    `cmd:"" help:"Answer a saved query."`
	Save   querySaveCmd   `cmd:"" help:"Save a query under a name, or make a new version of one."`
	List   queryListCmd   `cmd:"" help:"List the saved queries."`
	Show   queryShowCmd   `cmd:"" help:"Show a saved query, or its versions."`
	Delete queryDeleteCmd `cmd:"" help:"Delete a saved query with its versions."`
}

// QueryFlags say what becomes of a query's result.
type QueryFlags struct {
	HubFlags
	OutputFlags
	Limit   int           `help:"At most so many rows; 0 shows all. Not with --live, whose result is whole." default:"1000"`
	Explain bool          `help:"Show how the rows are found instead of them: steps, rows touched, time."`
	Watch   bool          `help:"Ask again and again, and mark what changed: + new, ~ changed, - gone. With -o jsonl only changes are written."`
	Live    bool          `help:"Follow the result instead: all rows, then each that enters (+), changes (~) or leaves (-), as it happens. With -o jsonl every event as it comes."`
	Every   time.Duration `help:"How often, with --watch." default:"2s"`
}

// queryPageRows is how many rows one request asks for.
const queryPageRows = 500

// asker asks for a page of one query; of the ask it looks at limit, cursor and
// explain.
type asker func(ctx context.Context, q client.QueryAsk) (client.QueryPage, error)

type queryAskCmd struct {
	QueryFlags
	Modules bool   `help:"A bare predicate is about modules, not devices."`
	Query   string `arg:"" help:"SELECT ... FROM devices, or a predicate; - reads it from standard input."`
}

// Run answers a query.
func (c *queryAskCmd) Run(a *app) error {
	text, err := a.queryText(c.Query)
	if err != nil {
		return err
	}
	ask, err := askFor(text, c.Modules)
	if err != nil {
		return err
	}
	live := client.LiveAsk{Query: ask.Query, Where: ask.Where, Source: ask.Source}
	return a.answer(c.QueryFlags, live, func(s *client.Service) asker {
		return func(ctx context.Context, q client.QueryAsk) (client.QueryPage, error) {
			q.Query, q.Where, q.Source = ask.Query, ask.Where, ask.Source
			return s.Query(ctx, q)
		}
	})
}

// queryMost bounds a query that is read from standard input; the hub takes less.
const queryMost = 1 << 20

func (a *app) queryText(arg string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	text, err := io.ReadAll(io.LimitReader(a.io.In, queryMost))
	return string(text), err
}

// askFor tells a query from a predicate: a query begins with SELECT.
func askFor(text string, modules bool) (client.QueryAsk, error) {
	word, _, _ := strings.Cut(strings.TrimLeft(withoutComments(text), " \t\r\n"), " ")
	word, _, _ = strings.Cut(word, "\n")
	if strings.EqualFold(strings.TrimRight(word, "\t\r*"), "select") {
		if modules {
			return client.QueryAsk{}, usage("--modules goes with a bare predicate", "A query names its source itself: SELECT * FROM devices.modules.")
		}
		return client.QueryAsk{Query: text}, nil
	}
	ask := client.QueryAsk{Where: text}
	if modules {
		ask.Source = "modules"
	}
	return ask, nil
}

// withoutComments drops the comments that a text begins with.
func withoutComments(text string) string {
	for {
		text = strings.TrimLeft(text, " \t\r\n")
		if !strings.HasPrefix(text, "/*") {
			return text
		}
		_, text, _ = strings.Cut(text, "*/")
	}
}

// answer shows a query's result as the flags say.
func (a *app) answer(f QueryFlags, live client.LiveAsk, of func(*client.Service) asker) error {
	switch {
	case f.Limit < 0:
		return usage("--limit is negative", "Give 0 for all rows, or how many.")
	case f.Watch && f.Explain:
		return usage("--watch and --explain are both given", "Give one of them.")
	case f.Live && (f.Watch || f.Explain):
		return usage("--live goes without --watch and --explain", "Give one of them.")
	case f.Live && f.Output != "table" && f.Output != "jsonl":
		return usage("--live goes with -o table or jsonl", "Leave -o out, or give -o jsonl for one event a line.")
	case f.Live && f.Limit > 0 && a.settings.origin["limit"] == "flag": // elsewhere it is for all commands
		return usage("--live goes without --limit: what leaves the result and what enters it can't be told of a part",
			"Leave --limit out and narrow the query, or ask again and again with --watch, which takes --limit.")
	case f.Live:
		return a.followQuery(f, live)
	case f.Watch && f.Output != "table" && f.Output != "jsonl":
		return usage("--watch goes with -o table or jsonl", "Leave -o out, or give -o jsonl for one change a line.")
	}
	s, err := a.service(f.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	ask := of(s)
	if f.Watch {
		return a.watchQuery(f, ask)
	}
	ctx, stop := a.with(f.HubFlags)
	defer stop()
	if f.Explain {
		return a.explainQuery(ctx, f, ask)
	}
	return a.printRows(ctx, f, ask)
}

func (a *app) explainQuery(ctx context.Context, f QueryFlags, ask asker) error {
	q := client.QueryAsk{Explain: true, Limit: queryPageRows}
	if f.Limit > 0 {
		q.Limit = min(q.Limit, f.Limit)
	}
	p, err := ask(ctx, q)
	if err != nil {
		return err
	}
	if f.Output != "table" {
		if len(p.Plan) == 0 {
			p.Plan = []byte("{}")
		}
		return a.printRecord(f.OutputFlags, p.Plan, []field{{"plan", p.Plan}})
	}
	text := strings.TrimRight(p.PlanText, "\n")
	if text == "" {
		text = "There is no plan: nothing had to be looked for."
	}
	_, err = fmt.Fprintln(a.io.Out, printableLines(text))
	return err
}

// queryPages walks the pages of a result, up to limit rows; 0 is no bound.
// more is set on the last page when rows were left out for the limit.
func queryPages(ctx context.Context, limit int, ask asker) iter.Seq2[resultPage, error] {
	return func(yield func(resultPage, error) bool) {
		var q client.QueryAsk
		left := limit
		for {
			q.Limit = queryPageRows
			if limit > 0 {
				q.Limit = min(q.Limit, left)
			}
			p, err := ask(ctx, q)
			if err != nil {
				yield(resultPage{}, err)
				return
			}
			left -= len(p.Items)
			done := p.Cursor == "" || limit > 0 && left <= 0
			if !yield(resultPage{p, done && p.Cursor != ""}, nil) || done {
				return
			}
			q.Cursor = p.Cursor
		}
	}
}

type resultPage struct {
	client.QueryPage
	more bool
}

type queryRunCmd struct {
	QueryFlags
	Name string `arg:"" help:"Name of the saved query."`
}

// Run answers a saved query.
func (c *queryRunCmd) Run(a *app) error {
	return a.answer(c.QueryFlags, client.LiveAsk{Name: c.Name}, func(s *client.Service) asker {
		return func(ctx context.Context, q client.QueryAsk) (client.QueryPage, error) {
			return s.SavedQueryResult(ctx, c.Name, q)
		}
	})
}

type querySaveCmd struct {
	HubFlags
	OutputFlags
	Description string            `help:"What it is for." placeholder:"TEXT"`
	Label       map[string]string `help:"A label; repeatable." placeholder:"KEY=VALUE" mapsep:"none"`
	Modules     bool              `help:"A bare predicate is about modules, not devices."`
	ETag        string            `name:"etag" help:"Save it only if it still has this ETag; * only if it exists." placeholder:"ETAG"`
	Name        string            `arg:"" help:"Name of the query."`
	Query       string            `arg:"" help:"SELECT ... FROM devices, or a predicate; - reads it from standard input."`
}

// Run saves a query.
func (c *querySaveCmd) Run(a *app) error {
	text, err := a.queryText(c.Query)
	if err != nil {
		return err
	}
	ask, err := askFor(text, c.Modules)
	if err != nil {
		return err
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	q, err := s.PutSavedQuery(ctx, c.Name, client.SavedQuerySettings{
		Query: ask.Query, Where: ask.Where, Source: ask.Source, Description: c.Description, Labels: c.Label,
	}, c.ETag)
	if err != nil {
		return err
	}
	return a.printSavedQuery(c.OutputFlags, q)
}

func (a *app) printSavedQuery(o OutputFlags, q client.SavedQuery) error {
	return a.printRecord(o, q, []field{
		{"name", q.Name}, {"query", q.Text()}, {"source", q.Source}, {"description", q.Description}, {"labels", labelText(q.Labels)},
		{"version", q.Version}, {"by", q.Principal}, {"created", q.Created}, {"changed", q.Updated}, {"etag", q.ETag},
	})
}

func labelText(m map[string]string) string { return strings.TrimSpace(properties(m)) }

type queryListCmd struct {
	HubFlags
	OutputFlags
	Label string `help:"Only those with this label." placeholder:"KEY[=VALUE]"`
}

// Run lists the saved queries.
func (c *queryListCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	sh := &sheet{columns: []string{"NAME", "VERSION", "SOURCE", "CHANGED", "LABELS", "DESCRIPTION", "QUERY"}, empty: "No saved queries; `muster query save NAME QUERY` saves one."}
	for q, err := range s.SavedQueries(ctx, c.Label) {
		if err != nil {
			return err
		}
		sh.add(q, q.Name, q.Version, q.Source, q.Updated, labelText(q.Labels), q.Description, q.Text())
	}
	return a.print(c.OutputFlags, sh)
}

type queryShowCmd struct {
	HubFlags
	OutputFlags
	Version  uint64 `help:"A version before the newest." placeholder:"N"`
	Versions bool   `help:"All versions that are kept, newest first."`
	Name     string `arg:"" help:"Name of the saved query."`
}

// Run shows a saved query.
func (c *queryShowCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	if !c.Versions {
		q, err := s.SavedQuery(ctx, c.Name, c.Version)
		if err != nil {
			return err
		}
		return a.printSavedQuery(c.OutputFlags, q)
	}
	sh := &sheet{columns: []string{"VERSION", "CHANGED", "BY", "LABELS", "DESCRIPTION", "QUERY"}}
	for q, err := range s.SavedQueryVersions(ctx, c.Name) {
		if err != nil {
			return err
		}
		sh.add(q, q.Version, q.Updated, q.Principal, labelText(q.Labels), q.Description, q.Text())
	}
	return a.print(c.OutputFlags, sh)
}

type queryDeleteCmd struct {
	HubFlags
	Yes  bool   `short:"y" help:"Don't ask."`
	ETag string `name:"etag" help:"Delete it only if it still has this ETag." placeholder:"ETAG"`
	Name string `arg:"" help:"Name of the saved query."`
}

// Run deletes a saved query.
func (c *queryDeleteCmd) Run(a *app) error {
	s, ctx, stop, err := a.connectConfirmed(c.HubFlags, c.Yes, fmt.Sprintf("Delete the saved query %s with its versions?", printable(c.Name)))
	if err != nil {
		return err
	}
	defer stop()
	if err := s.DeleteSavedQuery(ctx, c.Name, c.ETag); err != nil {
		return err
	}
	a.note("Deleted the saved query %s.", printable(c.Name))
	return nil
}
