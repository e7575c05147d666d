package main

import "github.com/muster-hub/muster/test/powercut/hooked"

// variant is a store that loses acknowledged data or does not open after some
// power cuts. The harness must find each.
type variant struct {
	name    string
	text    string
	patches []hooked.Patch
	args    []string
}

func variants() []variant {
	return []variant{
		{
			name: "lying-disk",
			text: "syncs of the journal do nothing",
			args: []string{"-powercut.lie"},
		},
	}
}
