package rollout

// Candidate is a target that may belong to a diverse wave.
type Candidate struct {
	ID   string
	Keys []string // such as model, firmware and site, in the order of weight
}

// Diverse chooses n of the candidates so that they differ as much as may be:
// each combination of keys once before any comes twice, and among combinations
// first those with single keys that no chosen one has. It returns their indices
// in the order of choice. It is deterministic for a set of candidates in any
// order, and takes memory linear in them.
func Diverse(candidates []Candidate, n int) []int { return nil }
