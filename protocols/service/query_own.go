package service

import (
	"net/http"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/query"
)

type ownQueryBody struct {
	Query   string `json:"query,omitempty" doc:"A query: SELECT ... . It or where."`
	Where   string `json:"where,omitempty" doc:"A bare predicate, such as tags.site == \"A\": the whole twins that it matches."`
	Source  string `json:"source,omitempty" enum:"devices,modules" doc:"What where is about; devices when absent."`
	Limit   int    `json:"limit,omitempty" doc:"Rows of the page, 1 to query_page; 100 when absent. Of an export: rows in all, as many as there are when absent."`
	Cursor  string `json:"cursor,omitempty" doc:"The cursor of the page before; it belongs to the same query."`
	Explain bool   `json:"explain,omitempty" doc:"Adds how the rows were found."`
}

type queryResult struct {
	ItemType string      `json:"itemType" enum:"Twin,Raw,DeviceJob" doc:"Twin: whole twins. Raw: rows of what was selected."`
	Items    []any       `json:"items" doc:"An object each."`
	Columns  []string    `json:"columns,omitempty" doc:"Of Raw and DeviceJob: the members of a row, in the order in which they were selected; of whole rows of jobs and runs, all that a row may have."`
	Cursor   string      `json:"cursor" doc:"Send it for what follows; empty at the end."`
	Plan     *query.Plan `json:"plan,omitempty" schema:"object" doc:"With explain: the steps, what they looked at and what they took. Times are nanoseconds."`
	PlanText string      `json:"planText,omitempty" doc:"The same for people."`
}

func ownQueryRoutes() []*route {
	format := parameter{name: "format", kind: "string", text: "ndjson or csv: all rows as a stream, without pages; as the Accept header application/x-ndjson or text/csv does. A stream that ends in an error is cut off."}
	limit := parameter{name: "limit", kind: "integer", text: "Rows of the page; 100 when absent. Of a stream: rows in all."}
	table := []*route{
		{
			method: http.MethodPost, pattern: "/api/v1/query", operation: "query", tag: tagQueries, permission: auth.ServiceConnect, query: []parameter{format},
			summary: "Answers a query or a bare predicate. What was acknowledged before it is in the result.", request: ownQueryBody{}, response: queryResult{}, maxBody: queryBodyBytes, reads: true, handle: runQuery,
		},
		{
			method: http.MethodGet, pattern: "/api/v1/queries/{name}/result", operation: "getQueryResult", tag: tagQueries, permission: auth.ServiceConnect,
			query: []parameter{
				limit,
				{name: "cursor", kind: "string", text: "The cursor of the page before."},
				{name: "version", kind: "integer", text: "A version of the query that is kept; the newest when absent."},
				{name: "explain", kind: "boolean", text: "Adds how the rows were found."},
				format,
			},
			summary: "Answers a saved query.", response: queryResult{}, handle: getQueryResult,
		},
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

// queryBodyBytes has room for the longest query with every character escaped.
const queryBodyBytes = 512 << 10

// queryAsk is what a client asks of a query.
type queryAsk struct {
	query   engine.SavedQuery // without a name, when it is not saved
	limit   int               // 0: none was given
	cursor  string
	explain bool
}

// request is the ask as the engine takes it.
func (a *queryAsk) request(limit int, token string) engine.QueryRequest {
	r := a.query.Request()
	r.Max, r.Token = limit, token
	return r
}

func runQuery(c *call) (answer, error) {
	f, err := c.members("query", "where", "source", "limit", "cursor", "explain")
	if err != nil {
		return answer{}, err
	}
	var a queryAsk
	if a.query.Text, a.query.Source, err = queryText(f); err != nil {
		return answer{}, err
	}
	n, given, err := f.integer("limit")
	if err != nil {
		return answer{}, err
	}
	if given && (n < 1 || n > 1<<31) {
		return answer{}, invalid("limit is %d; expected at least 1", n)
	}
	a.limit = int(n)
	if a.cursor, err = f.text("cursor"); err != nil {
		return answer{}, err
	}
	if a.explain, err = f.boolean("explain"); err != nil {
		return answer{}, err
	}
	return c.answerQuery(a)
}

func getQueryResult(c *call) (answer, error) {
	version, err := c.integer("version", 0, 1, 1<<53)
	if err != nil {
		return answer{}, err
	}
	a := queryAsk{cursor: c.query.Get("cursor")}
	if a.limit, err = c.integer("limit", 0, 1, 1<<31); err != nil {
		return answer{}, err
	}
	switch text := c.query.Get("explain"); text {
	case "", "false":
	case "true":
		a.explain = true
	default:
		return answer{}, invalid("the query parameter explain is %q; expected true or false", clip(text))
	}
	if a.query, err = c.hub.SavedQuery(c.r.Context(), c.caller, c.params[0], uint64(version)); err != nil {
		return answer{}, err
	}
	return c.answerQuery(a)
}

// answerQuery answers one page, or all of them as a stream.
func (c *call) answerQuery(a queryAsk) (answer, error) {
	limits := c.hub.Limits()
	c.wait(limits.QueryTime)
	format, err := c.exportFormat()
	if err != nil {
		return answer{}, err
	}
	if format != nil {
		if a.cursor != "" || a.explain {
			return answer{}, invalid("cursor and explain go with pages; a stream has all rows")
		}
		return c.export(a, format)
	}
	if a.limit > limits.QueryPage {
		return answer{}, invalid("limit is %d; expected 1 to %d: more come page by page with the cursor, or as a stream with ?format=ndjson", a.limit, limits.QueryPage)
	}
	if a.limit == 0 {
		a.limit = pageDefault
	}
	p, err := c.hub.Query(c.r.Context(), c.caller, a.request(a.limit, a.cursor))
	if err != nil {
		return answer{}, err
	}
	r := queryResult{ItemType: string(p.Item), Items: queryItems(p), Cursor: p.Token}
	if p.Item != engine.QueryTwins {
		if r.Columns, err = c.columnsOf(a); err != nil {
			return answer{}, err
		}
	}
	if a.explain && p.Plan != nil {
		r.Plan, r.PlanText = p.Plan, p.Plan.String()
	}
	return answer{body: r}, nil
}

// columnsOf returns the members of a query's rows in order.
func (c *call) columnsOf(a queryAsk) ([]string, error) {
	q, err := c.hub.ParseQuery(a.request(0, ""))
	if err != nil {
		return nil, err
	}
	return q.Keys(), nil
}
