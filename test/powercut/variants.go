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
			name: "db-sync",
			text: "a checkpoint calls Badger's Sync instead of syncing all files",
			patches: []hooked.Patch{{File: "storage/checkpoint.go", Edits: []hooked.Edit{
				{From: "if err := db.syncBadgerFiles(); err != nil {", To: "if err := db.badger.Sync(); err != nil {"},
			}}},
		},
		{
			name: "no-repair",
			text: "nothing is repaired before Badger opens",
			patches: []hooked.Patch{{File: "storage/recover.go", Edits: []hooked.Edit{
				{From: "return db.repairPastCheckpoint(name, man)", To: "return nil"},
			}}},
		},
		{
			name: "lying-disk",
			text: "syncs of the journal do nothing",
			args: []string{"-powercut.lie"},
		},
	}
}
