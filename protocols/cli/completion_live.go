package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/alecthomas/kong"

	"github.com/muster-hub/muster/protocols/client"
)

// What a key press asks of a hub at most.
const (
	completionMost  = 50  // candidates
	completionAudit = 200 // entries of the audit, for names of methods
)

// wanted is the argument, or the value of a flag, that the tab key asks for.
type wanted struct {
	node  *kong.Node
	arg   string   // its name in the grammar
	flag  string   // or the flag's
	given []string // the positional words before it
	last  string   // what is typed of it
}

func (w wanted) group() string {
	if w.node.Parent == nil {
		return ""
	}
	return w.node.Parent.Name
}

// liveCandidates asks the hub on this machine for names; when it doesn't
// answer in time there are none.
func (a *app) liveCandidates(ctx context.Context, w wanted, values map[string]string) []string {
	if values["hub"] != "" || a.settings.env(envName("hub")) != "" {
		return nil // a key press should not open connections to other machines
	}
	data := values["data"]
	if data == "" {
		data = a.settings.env(envName("data"))
	}
	if text, ok := a.settings.values["data"].(string); ok && data == "" {
		data = text
	}
	if data == "" {
		data = "./muster-data"
	}
	s, err := a.service(HubFlags{WhichHub: WhichHub{Data: data}})
	if err != nil {
		return nil
	}
	defer s.Close()
	creates := w.node.Name == "create"
	switch {
	case w.flag != "":
		return flagValues(ctx, s, w, values)
	case w.arg == "pattern":
		return patternCandidates(ctx, s, w.last)
	case w.arg == "run":
		return runCandidates(ctx, s, w)
	case w.arg == "name" && w.group() == "key" && w.node.Name == "remove":
		list, err := s.TrustedKeys(ctx)
		return matching(w.last, func(yield func(string, string) bool) {
			for _, k := range list {
				if err != nil || !yield(k.Name, "key") {
					return
				}
			}
		})
	case w.arg == "name" && w.group() == "secret":
		list, err := s.PatternSecrets(ctx)
		return matching(w.last, func(yield func(string, string) bool) {
			for _, x := range list {
				if err != nil || !yield(x.Name, "secret") {
					return
				}
			}
		})
	case w.arg == "module" && !creates && len(w.given) > 0:
		return moduleCandidates(ctx, s, w.given[len(w.given)-1], "", w.last)
	case w.arg == "device" || w.arg == "id" && !creates:
		if device, part, ok := strings.Cut(w.last, "/"); ok {
			return moduleCandidates(ctx, s, device, device+"/", part)
		}
		return deviceCandidates(ctx, s, w.last)
	case w.arg == "name" && w.group() == "policy" && !creates:
		list, err := s.Policies(ctx)
		if err != nil {
			return nil
		}
		return matching(w.last, func(yield func(string, string) bool) {
			for _, p := range list {
				if !yield(p.Name, "policy") {
					return
				}
			}
		})
	case w.arg == "name" && (w.group() == "webhook" || w.group() == "dead-letters") && !creates:
		return matching(w.last, func(yield func(string, string) bool) {
			for hook, err := range s.Webhooks(ctx) {
				if err != nil || !yield(hook.ID, hook.Status) {
					return
				}
			}
		})
	case w.arg == "name" && w.group() == "query":
		return matching(w.last, func(yield func(string, string) bool) {
			for q, err := range s.SavedQueries(ctx, "") {
				if err != nil || !yield(q.Name, q.Text()) {
					return
				}
			}
		})
	case w.arg == "configuration":
		return matching(w.last, func(yield func(string, string) bool) {
			for g, err := range s.Configurations(ctx) {
				if err != nil || !yield(g.ID, g.TargetCondition) {
					return
				}
			}
		})
	case w.arg == "job":
		return jobCandidates(ctx, s, w.last)
	case w.arg == "name" && w.group() == "template":
		return matching(w.last, func(yield func(string, string) bool) {
			for t, err := range s.JobTemplates(ctx) {
				if err != nil || !yield(t.Name, t.Description) {
					return
				}
			}
		})
	case w.arg == "prefix":
		return pathCandidates(ctx, s, sqlTyped(w.last), inSQL)
	case w.arg == "query":
		text := strings.TrimLeft(w.last, "'\"") // a shell leaves the quote there
		if ask, err := askFor(text, false); err != nil || ask.Query != "" {
			return pathCandidates(ctx, s, sqlTyped(text), inSQL)
		}
		return pathCandidates(ctx, s, bareTyped(text), inPredicate)
	case w.arg == "method":
		return methodCandidates(ctx, s, w.last)
	case w.arg == "path=value":
		return candidates([]string{"desired.", "tags."}, w.last)
	}
	return nil
}

// flagValues are what can stand for the value of a flag.
func flagValues(ctx context.Context, s *client.Service, w wanted, values map[string]string) []string {
	named := ""
	if len(w.given) > 0 {
		named = w.given[0]
	}
	group := w.group()
	switch {
	case w.flag == "param" && group == "pattern" && named != "":
		if m := patternOf(ctx, s, named, values["version"]); m != nil {
			return parameterCandidates(m, w.last)
		}
	case w.flag == "version" && group == "pattern" && named != "":
		return matching(w.last, func(yield func(string, string) bool) {
			for p, err := range s.Patterns(ctx) {
				if err != nil || p.Name == named && !yield(p.Version, patternStatus(&p)) {
					return
				}
			}
		})
	case w.flag == "pattern" && group == "run":
		return patternCandidates(ctx, s, w.last)
	case w.flag == "device" && (group == "run" || group == "pattern"):
		return deviceCandidates(ctx, s, w.last)
	case w.flag == "job" && (group == "run" || group == "pattern"):
		return jobCandidates(ctx, s, w.last)
	}
	return nil
}

// patternCandidates are the names of patterns.
func patternCandidates(ctx context.Context, s *client.Service, last string) []string {
	return matching(last, func(yield func(string, string) bool) {
		before := ""
		for p, err := range s.Patterns(ctx) {
			if err != nil || p.Name != before && !yield(p.Name, p.Summary) {
				return
			}
			before = p.Name
		}
	})
}

// runCandidates are the newest runs that a command can be about.
func runCandidates(ctx context.Context, s *client.Service, w wanted) []string {
	f := client.RunFilter{}
	switch w.node.Name {
	case "approve", "deny":
		f.Asks = true
	case "cancel":
		f.State = "active"
	}
	return matching(w.last, func(yield func(string, string) bool) {
		for r, err := range s.Runs(ctx, f) {
			if err != nil || !yield(r.ID, r.Pattern+" on "+r.Target()+", "+r.State) {
				return
			}
		}
	})
}

func jobCandidates(ctx context.Context, s *client.Service, last string) []string {
	return matching(last, func(yield func(string, string) bool) {
		for j, err := range s.Jobs(ctx, client.JobFilter{}) {
			if err != nil || !yield(j.ID, j.Status+", "+jobText(&j)) {
				return
			}
		}
	})
}

// matching collects the names that begin with prefix, at most completionMost.
func matching(prefix string, names iter.Seq2[string, string]) []string {
	var out []string
	for name, text := range names {
		if strings.HasPrefix(name, prefix) {
			out = append(out, name+"\t"+text)
		}
		if len(out) == completionMost {
			break
		}
	}
	return out
}

func deviceCandidates(ctx context.Context, s *client.Service, last string) []string {
	var out []string
	for d, err := range s.FirstDevices(ctx, last, completionMost) {
		if err != nil {
			break
		}
		out = append(out, d.DeviceID+"\t"+strings.ToLower(d.ConnectionState))
	}
	return out
}

func moduleCandidates(ctx context.Context, s *client.Service, device, before, last string) []string {
	list, err := s.Modules(ctx, device)
	if err != nil {
		return nil
	}
	return matching(before+last, func(yield func(string, string) bool) {
		for _, m := range list {
			if !yield(before+m.ModuleID, strings.ToLower(m.ConnectionState)) {
				return
			}
		}
	})
}

// methodCandidates are the names of methods that were called lately.
func methodCandidates(ctx context.Context, s *client.Service, last string) []string {
	var seen []string
	counts, n := map[string]int{}, 0
	for e, err := range s.Audit(ctx) {
		if n++; err != nil || n > completionAudit {
			break
		}
		var details struct{ Method string }
		if len(e.Details) == 0 || json.Unmarshal(e.Details, &details) != nil || details.Method == "" {
			continue
		}
		if counts[details.Method]++; !slices.Contains(seen, details.Method) {
			seen = append(seen, details.Method)
		}
	}
	return matching(last, func(yield func(string, string) bool) {
		for _, m := range seen {
			if !yield(m, fmt.Sprintf("called %d times lately", counts[m])) {
				return
			}
		}
	})
}

// typed is a query, or a beginning of one, that ends in a path.
type typed struct {
	before string // stays as it is
	path   string // as the hub finds it: keys without quotes
}

// sqlTyped takes a text of the SQL language apart.
func sqlTyped(text string) typed {
	before := strings.TrimRightFunc(text, func(r rune) bool {
		return strings.ContainsRune("_.-$[]", r) || unicode.IsLetter(r) || unicode.IsDigit(r)
	})
	return typed{before, text[len(before):]}
}

// barePathEnd is a path at the end of a predicate. The last of its keys may lack
// brackets that it needs, or the end of them; a shell's double quotes leave the
// backslashes before its quotes.
var barePathEnd = regexp.MustCompile(`[\pL_$](?:[\pL\pN_.$-]|\[\\?["'][^"'\\]*(?:\\?["']\]?)?)*$`)

// bareQuotes are around a key of a bare predicate, and before it where it is typed.
var bareQuotes = regexp.MustCompile(`(\[)\\?["']|\\?["']\]?`)

// bareTyped takes a predicate apart.
func bareTyped(text string) typed {
	place := barePathEnd.FindStringIndex(text)
	if place == nil {
		return typed{before: text}
	}
	// tags["a-b"].c is tags.a-b.c.
	path := bareQuotes.ReplaceAllStringFunc(text[place[0]:], func(quote string) string {
		if quote[0] == '[' {
			return "."
		}
		return ""
	})
	return typed{text[:place[0]], path}
}

// pathCandidates completes a path, which the hub spells in both languages.
func pathCandidates(ctx context.Context, s *client.Service, t typed, spelled func(client.SchemaPathName) string) []string {
	list, err := s.SchemaPaths(ctx, "", t.path, completionMost)
	if err != nil {
		return nil
	}
	var out []string
	for _, p := range list {
		text := "no column"
		if len(p.Types) > 0 {
			text = fmt.Sprintf("%s, %d twins", strings.Join(p.Types, " or "), p.Twins)
		}
		out = append(out, t.before+spelled(p)+"\t"+text)
	}
	return out
}

func inSQL(p client.SchemaPathName) string { return p.Path }

func inPredicate(p client.SchemaPathName) string { return p.Bare }
