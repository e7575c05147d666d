package rollout

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestDiverse(t *testing.T) {
	t.Parallel()
	list := []Candidate{
		{"a1", []string{"pump", "1.0", "lyon"}}, {"a2", []string{"pump", "1.0", "lyon"}}, {"a3", []string{"pump", "1.0", "lyon"}},
		{"b1", []string{"pump", "1.0", "oslo"}}, {"c1", []string{"pump", "2.0", "lyon"}}, {"d1", []string{"fan", "3.0", "rome"}},
	}
	for n, want := range [][]string{
		{}, {"a1"}, {"a1", "d1"}, {"a1", "d1", "c1"}, {"a1", "d1", "c1", "b1"}, {"a1", "d1", "c1", "b1", "a2"}, {"a1", "d1", "c1", "b1", "a2", "a3"},
	} {
		var got []string
		for _, i := range Diverse(list, n) {
			got = append(got, list[i].ID)
		}
		if !slices.Equal(got, want) && n > 0 || len(got) != n {
			t.Errorf("%d: got %v, want %v", n, got, want)
		}
	}
	if got := Diverse(list, 100); len(got) != len(list) {
		t.Errorf("more than there are: %v", got)
	}
	if got := Diverse(nil, 5); len(got) != 0 {
		t.Errorf("of none: %v", got)
	}
}

// TestDiverseRandom checks what is promised over random fleets, whatever their
// order: no combination twice before each once, and each next one has as many
// new single keys as any that was left.
func TestDiverseRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		var list []Candidate
		for i := range 1 + r.IntN(60) {
			list = append(list, Candidate{fmt.Sprintf("%03d", i), []string{fmt.Sprint(r.IntN(4)), fmt.Sprint(r.IntN(4)), fmt.Sprint(r.IntN(5))}})
		}
		n := r.IntN(len(list) + 1)
		chosen := Diverse(list, n)
		times := map[string]int{}
		single := map[string]bool{}
		left := slices.Clone(list)
		news := func(c Candidate) int {
			count := 0
			for k, key := range c.Keys {
				if !single[fmt.Sprint(k, key)] {
					count++
				}
			}
			return count
		}
		for _, i := range chosen {
			c := list[i]
			for _, other := range left {
				if times[fmt.Sprint(other.Keys)] < times[fmt.Sprint(c.Keys)] {
					t.Fatalf("seed %d: %v comes again before %v", seed, c, other)
				}
				if times[fmt.Sprint(other.Keys)] == times[fmt.Sprint(c.Keys)] && news(other) > news(c) {
					t.Fatalf("seed %d: %v has less that is new than %v", seed, c, other)
				}
			}
			times[fmt.Sprint(c.Keys)]++
			for k, key := range c.Keys {
				single[fmt.Sprint(k, key)] = true
			}
			at := slices.IndexFunc(left, func(l Candidate) bool { return l.ID == c.ID })
			if at < 0 {
				t.Fatalf("seed %d: %s is chosen twice", seed, c.ID)
			}
			left = slices.Delete(left, at, at+1)
		}
		shuffled := slices.Clone(list)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for k, i := range Diverse(shuffled, n) {
			if shuffled[i].ID != list[chosen[k]].ID {
				t.Fatalf("seed %d: another order of the fleet, another choice", seed)
			}
		}
	}
}

func BenchmarkDiverse(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	var list []Candidate
	for i := range 100_000 {
		list = append(list, Candidate{fmt.Sprintf("device-%06d", i), []string{fmt.Sprint(r.IntN(50)), fmt.Sprint(r.IntN(50)), fmt.Sprint(r.IntN(200))}})
	}
	for b.Loop() {
		Diverse(list, 1000)
	}
}
