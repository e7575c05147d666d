package scenario

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/muster-hub/muster/engine/pattern"
)

func TestTry(t *testing.T) {
	dir := os.Getenv("TRY")
	b := &pattern.Bundle{Files: map[string][]byte{}}
	filepath.Walk(dir, func(p string, i os.FileInfo, err error) error {
		if err == nil && !i.IsDir() {
			rel, _ := filepath.Rel(dir, p)
			b.Files[filepath.ToSlash(rel)], _ = os.ReadFile(p)
		}
		return nil
	})
	r, err := Test(context.Background(), b, Options{CrashEverywhere: true, Cover: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range r.Tests {
		t.Logf("%s %v crashes %d virtual %v", x.Name, x.Time, x.Crashes, x.Virtual)
		if f := x.Failure; f != nil {
			t.Errorf("%s %s %s\n%s %s", f.Place, f.Message, f.Crash, f.Diff, f.Source)
			for _, tr := range f.Runs {
				t.Logf("%+v", tr)
			}
		}
	}
	t.Logf("%+v", r.Cover)
}
