package query

import (
	"math/rand/v2"
	"testing"
)

func TestEqualBytes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		var row [64]uint8
		few := 1 + random.IntN(255) // of so many values
		for k := range row {
			row[k] = uint8(random.IntN(few) * (1 + random.IntN(2)))
		}
		wanted := row[random.IntN(64)] ^ uint8(random.IntN(2))<<random.IntN(8)
		var want uint64
		for k, v := range row {
			if v == wanted {
				want |= 1 << k
			}
		}
		if got := equalBytes(&row, wanted); got != want {
			t.Fatalf("%v and %d: %064b, want %064b", row, wanted, got, want)
		}
	}
}
