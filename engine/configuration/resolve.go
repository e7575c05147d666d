package configuration

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Candidate is a configuration whose condition selects a twin, with what it has
// for that twin.
type Candidate struct {
	ID       string
	Priority int
	Created  time.Time
	Settings []Setting // sorted by path
	Refused  string    // why it sets nothing, one sentence; empty: it sets what it can
}

// stronger orders candidates: the strongest first.
func stronger(a, b *Candidate) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), b.Created.Compare(a.Created), strings.Compare(a.ID, b.ID))
}

// Resolution says which candidate sets what in a twin. It does not depend on what
// the twin holds, so it serves all twins with the same candidates.
type Resolution struct {
	Candidates []Candidate // the strongest first
	Won        []Won       // sorted by path; no two conflict
	Lost       []Lost      // sorted by path, of one path the strongest first
	byPath     map[string]int
	applied    []bool  // by candidate
	owners     []Owner // of what won
}

// Won is a setting that holds.
type Won struct {
	Setting
	By int // of Candidates
}

// Lost is a setting that does not, since another one does.
type Lost struct {
	Setting
	Of     int // of Candidates
	Winner int // of Won
}

// Resolve decides between candidates.
func Resolve(candidates []Candidate) *Resolution {
	r := &Resolution{Candidates: slices.Clone(candidates), byPath: map[string]int{}, applied: make([]bool, len(candidates))}
	slices.SortFunc(r.Candidates, func(a, b Candidate) int { return stronger(&a, &b) })
	below := map[string]int{} // a winner below the path, which sets more than an empty object above could
	var won []Won
	at := map[string]int{} // in won
	for i := range r.Candidates {
		c := &r.Candidates[i]
		if c.Refused != "" {
			continue
		}
		// What a candidate sets does not conflict among itself: its settings are
		// compared with those of stronger ones only.
		before := len(won)
		for _, s := range c.Settings {
			winner := r.rival(won[:before], at, below, s)
			if winner >= 0 {
				r.Lost = append(r.Lost, Lost{s, i, winner})
				continue
			}
			won = append(won, Won{s, i})
			r.applied[i] = true
		}
		for k := before; k < len(won); k++ {
			at[won[k].Path] = k
			for path := range above(won[k].Path) {
				if _, ok := below[path]; !ok {
					below[path] = k
				}
			}
		}
	}
	r.sort(won)
	r.owners = make([]Owner, len(r.Won))
	for i, w := range r.Won {
		c := &r.Candidates[w.By]
		r.owners[i] = Owner{w.Path, c.ID, c.Created, Mark(w.Value)}
	}
	return r
}

// Owners returns who owns the paths of a twin to which the resolution was applied,
// sorted by path; not to be changed.
func (r *Resolution) Owners() []Owner { return r.owners }

// rival returns which winner a setting conflicts with, the strongest; -1: none.
func (r *Resolution) rival(won []Won, at, below map[string]int, s Setting) int {
	found := -1
	see := func(k int, ok bool) {
		// Winners are in the order of their strength.
		if ok && s.conflicts(won[k].Setting) && (found < 0 || k < found) {
			found = k
		}
	}
	k, ok := at[s.Path]
	see(k, ok)
	for path := range above(s.Path) {
		k, ok := at[path]
		see(k, ok)
	}
	k, ok = below[s.Path]
	see(k, ok)
	return found
}

// sort puts winners and losers in the order of their paths.
func (r *Resolution) sort(won []Won) {
	order := make([]int, len(won))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(won[a].Path, won[b].Path) })
	place := make([]int, len(won))
	r.Won = make([]Won, len(won))
	for to, from := range order {
		r.Won[to], place[from] = won[from], to
		r.byPath[won[from].Path] = to
	}
	for i := range r.Lost {
		r.Lost[i].Winner = place[r.Lost[i].Winner]
	}
	slices.SortStableFunc(r.Lost, func(a, b Lost) int { return strings.Compare(a.Path, b.Path) })
}

// Applied reports whether a candidate wins a path.
func (r *Resolution) Applied(candidate int) bool { return r.applied[candidate] }

// Winner returns what holds at a path.
func (r *Resolution) Winner(path string) (Won, bool) {
	i, ok := r.byPath[path]
	if !ok {
		return Won{}, false
	}
	return r.Won[i], true
}

// Reason says in one sentence why a setting lost.
func (r *Resolution) Reason(l Lost) string {
	w := r.Won[l.Winner]
	winner, loser := &r.Candidates[w.By], &r.Candidates[l.Of]
	why := "its priority is higher"
	if winner.Priority == loser.Priority {
		why = "it is newer, of the same priority"
		if winner.Created.Equal(loser.Created) {
			why = "its id comes first, of the same priority and age"
		}
	}
	what := "this path"
	switch {
	case isAbove(w.Path, l.Path):
		what = w.Path + ", which lies above it"
	case isAbove(l.Path, w.Path):
		what = w.Path + ", which lies below it"
	}
	return winner.ID + " sets " + what + ", and " + why
}
