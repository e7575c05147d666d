package querytest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Subject is a file of scenarios.
type Subject struct {
	File  string // its name
	Title string
	Prose string // Markdown
	Twins []Twin // in the order of the files
	Cases []Case
}

// Twin is a device's or a module's twin in the form of GET /twins/{id}, without
// the attributes that Defaults gives.
type Twin struct {
	ID       string // d1, or d1/m1 of a module
	Document json.RawMessage
}

// Module reports whether the twin is a module's.
func (t Twin) Module() bool { return strings.Contains(t.ID, "/") }

// Case is a query and what it answers.
type Case struct {
	Title    string
	Contract int  // number in the contract's list of cases; 0: none
	Shown    bool // on the reference page
	Line     int  // of the title in the file
	Strict   bool
	Bare     bool // Query is a predicate
	AnyOrder bool // of rows
	Now      time.Time
	Query    string

	IDs   []string // of a SELECT *
	Rows  []string // JSON objects, of other queries
	Error string   // what was found and what was expected; empty: no error
	At    int      // the error's column in characters, from one
}

// Load reads every scenario file (*.txt) of a directory, in the order of their
// names.
func Load(dir fs.FS) ([]Subject, error) {
	names, err := fs.Glob(dir, "*.txt")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var list []Subject
	for _, name := range names {
		data, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, err
		}
		s := Subject{File: path.Base(name)}
		if err := s.parse(dir, string(data)); err != nil {
			return nil, fmt.Errorf("%s:%w", name, err)
		}
		list = append(list, s)
	}
	return list, nil
}

func (s *Subject) parse(dir fs.FS, text string) error {
	var prose []string
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		l := lines[i]
		fail := func(err error) error { return fmt.Errorf("%d: %w", i+1, err) }
		switch word, rest, _ := strings.Cut(l, " "); {
		case i == 0:
			if word != "#" {
				return fail(errors.New("the first line is the title: # and some words"))
			}
			s.Title = rest
		case word == "==" || word == "--":
			n := 1
			for i+n < len(lines) && !strings.HasPrefix(lines[i+n], "== ") && !strings.HasPrefix(lines[i+n], "-- ") {
				n++
			}
			c, err := parseCase(lines[i : i+n])
			if err != nil {
				return fail(err)
			}
			c.Line = i + 1
			s.Cases = append(s.Cases, c)
			i += n - 1
		case word == "twins":
			data, err := fs.ReadFile(dir, rest+".json")
			if err != nil {
				return fail(err)
			}
			if err := s.add(data); err != nil {
				return fail(fmt.Errorf("%s.json: %w", rest, err))
			}
		case word == "twin":
			if err := s.add([]byte(rest)); err != nil {
				return fail(err)
			}
		default:
			prose = append(prose, l)
		}
	}
	s.Prose = strings.TrimSpace(strings.Join(prose, "\n"))
	return nil
}

// add reads twins, one object after the other.
func (s *Subject) add(data []byte) error {
	for d := json.NewDecoder(bytes.NewReader(data)); ; {
		var t Twin
		if err := d.Decode(&t.Document); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var id struct{ DeviceID, ModuleID string }
		if err := json.Unmarshal(t.Document, &id); err != nil {
			return err
		}
		if t.ID = id.DeviceID; id.ModuleID != "" {
			t.ID += "/" + id.ModuleID
		}
		if t.ID == "" || slices.ContainsFunc(s.Twins, func(o Twin) bool { return o.ID == t.ID }) {
			return fmt.Errorf("a twin needs a deviceId of its own, not %q", t.ID)
		}
		s.Twins = append(s.Twins, t)
	}
}

// parseCase reads a case; lines[0] is its title.
func parseCase(lines []string) (Case, error) {
	c := Case{Shown: strings.HasPrefix(lines[0], "== "), Title: lines[0][3:], Now: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)}
	if at := strings.LastIndex(c.Title, " ["); at >= 0 && strings.HasSuffix(c.Title, "]") {
		if n, err := strconv.Atoi(c.Title[at+2 : len(c.Title)-1]); err == nil {
			c.Title, c.Contract = c.Title[:at], n
		}
	}
	var query []string
	answered := false
	before := 0 // characters of the query's lines above the last one
	for _, l := range lines[1:] {
		option, isOption := strings.CutPrefix(l, ": ")
		answer, isAnswer := strings.CutPrefix(l, "> ")
		trimmed := strings.TrimLeft(l, " ")
		switch {
		case isOption && len(query) == 0:
			if err := c.option(option); err != nil {
				return c, err
			}
		case isAnswer && len(query) > 0:
			answered = true
			switch {
			case answer == "nothing":
			case strings.HasPrefix(answer, "{"):
				c.Rows = append(c.Rows, answer)
			default:
				c.IDs = append(c.IDs, strings.Fields(answer)...)
			}
		case strings.HasPrefix(trimmed, "^ ") && len(query) > 0 && !answered:
			answered = true
			c.Error, c.At = trimmed[2:], before+len(l)-len(trimmed)+1
		case strings.HasPrefix(l, "#"): // a remark
		case strings.TrimSpace(l) == "":
		case answered:
			return c, fmt.Errorf("%q stands behind the answer of %q", l, c.Title)
		default:
			if len(query) > 0 {
				before += utf8.RuneCountInString(query[len(query)-1]) + 1
			}
			query = append(query, l)
		}
	}
	if c.Query = strings.Join(query, "\n"); c.Query == "" || !answered {
		return c, fmt.Errorf("%q needs a query and an answer", c.Title)
	}
	return c, nil
}

func (c *Case) option(text string) (err error) {
	word, rest, _ := strings.Cut(text, " ")
	switch word {
	case "strict":
		c.Strict = true
	case "bare":
		c.Bare = true
	case "any":
		c.AnyOrder = true
	case "now":
		c.Now, err = time.Parse(time.RFC3339, rest)
	default:
		err = fmt.Errorf("option %q is not known, expected strict, bare, any order or now", word)
	}
	return err
}

// Defaults returns the attributes that every twin has and scenarios leave out,
// as a JSON object: of a new device without a connection.
func Defaults() string {
	return `{"status":"enabled","statusReason":null,"statusUpdateTime":"0001-01-01T00:00:00Z","connectionState":"Disconnected",` +
		`"lastActivityTime":"0001-01-01T00:00:00Z","cloudToDeviceMessageCount":0,"authenticationType":"sas",` +
		`"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"modelId":"","capabilities":{"iotEdge":false},` +
		`"properties":{"desired":{"$version":1},"reported":{"$version":1}}}`
}
