package configuration

import "slices"

// EdgeCandidate is a configuration of the modules of an edge device, for one of
// them.
type EdgeCandidate struct {
	Candidate
	Content *Content
}

// Layers says which configurations of an edge device's modules count, as IoT Hub
// does: of those that stand alone the strongest one, and layers that are stronger
// than it. The others get the reason why they are refused. list must hold all
// whose condition selects the device, also those with nothing for the module.
func Layers(list []EdgeCandidate) []Candidate {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b EdgeCandidate) int { return stronger(&a.Candidate, &b.Candidate) })
	base := -1
	out := make([]Candidate, len(list))
	for i := range list {
		out[i] = list[i].Candidate
		switch {
		case base < 0 && !list[i].Content.layer:
			base = i
		case base < 0:
		case list[i].Content.layer:
			out[i].Refused = "a layer is applied only over a configuration that is weaker, and " + list[base].ID + ", which stands alone, is stronger"
		default:
			out[i].Refused = "an edge device has one configuration that stands alone, and " + list[base].ID + " is stronger"
		}
	}
	return out
}
