package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/plugins"
	"github.com/muster-hub/muster/protocols/cli"
	"github.com/muster-hub/muster/scripting/author"
	"github.com/muster-hub/muster/scripting/scenario"
)

// authorHooks are the commands of whoever writes patterns.
func authorHooks() cli.AuthorHooks {
	return cli.AuthorHooks{
		New: patternNew, Check: patternCheck, Lint: patternLint, Test: patternTest, Dev: patternDev, Pack: patternPack, Sign: patternSign, Keygen: patternKeygen, Stubs: patternStubs,
	}
}

// errFound and errFailed end a command whose output has said what is wrong.
var (
	errFound  = errors.New("the check has found errors")
	errFailed = errors.New("tests have failed")
	errNone   = errors.New("no test was run")
)

// source is a pattern to be checked or tested.
type source struct {
	name   string // as it was named
	bundle *pattern.Bundle
	find   func(name string) (*pattern.Bundle, error) // others of which its tests speak
}

// sources reads patterns: from folders, from the folders in a folder that is none
// of a pattern itself, from archives, and those that ship by their names.
func sources(args []string, shipped bool) ([]source, error) {
	if shipped {
		names, err := plugins.Names()
		if err != nil {
			return nil, err
		}
		args = append(names, args...)
	} else if len(args) == 0 {
		args = []string{"."}
	}
	var list []source
	for _, arg := range args {
		_, err := os.Stat(arg)
		if b, unknown := plugins.Bundle(arg); unknown == nil && (shipped || errors.Is(err, fs.ErrNotExist)) {
			list = append(list, source{arg, b, plugins.Bundle})
			continue
		}
		b, _, err := author.Read(arg)
		if errors.Is(err, author.ErrNoPattern) {
			inner, _ := filepath.Glob(filepath.Join(arg, "*", pattern.MainFile)) // only a bad pattern is an error
			for _, file := range inner {
				dir := filepath.Dir(file)
				b, _, err := author.Read(dir)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", dir, err)
				}
				list = append(list, source{dir, b, author.Neighbours(dir)})
			}
			if len(inner) > 0 {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		list = append(list, source{arg, b, author.Neighbours(arg)})
	}
	return list, nil
}

func patternNew(f cli.PatternNewFlags, std cli.IO) error {
	dir, err := author.Create(f.In, f.Name, pattern.Scope(f.Kind))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.Err, "Made %s: a program, its test, and what editors need.\nNext: `muster pattern test %s --crash-everywhere`, then edit %s.\n", dir, dir, filepath.Join(dir, pattern.MainFile))
	return err
}

func patternCheck(f cli.PatternCheckFlags, std cli.IO) error {
	bad := false
	all := []author.Finding{}
	patterns, err := sources(f.Dir, false)
	if err != nil {
		return err
	}
	for _, s := range patterns {
		list, _ := author.Check(s.bundle)
		for _, l := range list {
			bad = bad || l.Level == author.LevelError || f.Strict
		}
		if f.Output == "json" {
			all = append(all, list...)
			continue
		}
		if err := author.Text(std.Out, s.name, s.bundle, list); err != nil {
			return err
		}
	}
	if f.Output == "json" {
		e := json.NewEncoder(std.Out)
		e.SetIndent("", "  ")
		if err := e.Encode(all); err != nil {
			return err
		}
	}
	if bad {
		return errFound
	}
	return nil
}

func patternLint(path string, std cli.IO) (errs int, err error) {
	b, _, err := author.Read(path)
	if err != nil {
		return 0, err
	}
	list, _ := author.Check(b)
	if len(list) == 0 {
		return 0, nil
	}
	for _, l := range list {
		if l.Level == author.LevelError {
			errs++
		}
	}
	return errs, author.Text(std.Err, path, b, list)
}

func patternTest(ctx context.Context, f cli.PatternTestFlags, std cli.IO) error {
	var reports []*scenario.Report
	failed, ran := false, 0
	patterns, err := sources(f.Dir, f.Shipped)
	if err != nil {
		return err
	}
	for _, s := range patterns {
		r, err := scenario.Test(ctx, s.bundle, scenario.Options{Run: f.Run, CrashEverywhere: f.CrashEverywhere, Cover: f.Cover, Find: s.find})
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, author.Placed(s.bundle, err))
		}
		failed = failed || !r.Passed()
		ran += len(r.Tests)
		reports = append(reports, r)
		if f.Output == "text" {
			if err := r.Text(std.Out, f.Verbose); err != nil {
				return err
			}
		}
	}
	switch {
	case f.Output == "junit":
		err = scenario.JUnit(std.Out, reports)
	case f.Output == "json" && len(reports) == 1:
		err = reports[0].JSON(std.Out)
	case f.Output == "json":
		err = json.NewEncoder(std.Out).Encode(reports)
	}
	switch {
	case err != nil:
		return err
	case failed:
		return errFailed
	case ran == 0:
		return errNone
	}
	return nil
}

func patternDev(ctx context.Context, f cli.PatternDevFlags, std cli.IO, passed func(archive []byte) (string, error)) error {
	o := author.DevOptions{Trace: f.Trace, Every: f.Every, Once: f.Once, Out: std.Out}
	if passed != nil {
		o.Passed = func(b *pattern.Bundle) (string, error) {
			archive, err := pattern.WriteArchive(b, nil)
			if err != nil {
				return "", err
			}
			return passed(archive)
		}
	}
	return author.Dev(ctx, f.Dir, o)
}

func patternPack(f cli.PatternPackFlags, std cli.IO) error {
	b, s, err := author.Read(f.Dir)
	if err != nil {
		return err
	}
	if s != nil {
		if err := s.Verify(b); err != nil {
			return fmt.Errorf("%w, or delete it", err)
		}
	}
	data, err := pattern.WriteArchive(b, s)
	if err != nil {
		return err
	}
	out := f.Out
	if out == "" {
		m, err := author.Manifest(b)
		if err != nil {
			return err
		}
		out = m.Name + "-" + m.Version + ".tar.gz"
	}
	if out == "-" {
		_, err := std.Out.Write(data)
		return err
	}
	if err := writeWhole(out, data, 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.Err, "Packed %d files into %s. Hash %s.\n", len(b.Files), out, b.Hash())
	return err
}

func patternSign(f cli.PatternSignFlags, std cli.IO) error {
	b, _, err := author.Read(f.Dir)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(f.Key)
	if err != nil {
		return err
	}
	s, err := pattern.Sign(b, strings.TrimSpace(string(key)))
	if err != nil {
		return err
	}
	if err := writeWhole(filepath.Join(f.Dir, pattern.SignatureFile), s.Marshal(), 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.Err, "Signed %s with %s. Any change of the files needs another signature.\n", b.Hash(), s.Key)
	return err
}

func patternKeygen(f cli.PatternKeygenFlags, std cli.IO) error {
	public, private, err := pattern.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(f.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.WriteString(file, private+"\n")
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := writeWhole(f.Out+".pub", []byte(public+"\n"), 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.Err, "The private key is in %s: keep it. Hubs trust the public one in %s.pub after\n  muster pattern key add NAME %s\n", f.Out, f.Out, public)
	return err
}

func patternStubs(f cli.PatternStubsFlags, std cli.IO) error {
	if f.Out == "-" {
		_, err := std.Out.Write(author.Stubs())
		return err
	}
	return writeWhole(f.Out, author.Stubs(), 0o644)
}

// writeWhole writes a file so that nobody finds half of it.
func writeWhole(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
