package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/muster-hub/muster/engine/query"
)

// columnFigures are what columns cost by themselves.
type columnFigures struct {
	bytes int64
	patch time.Duration // of three properties
}

// measureColumns loads the twins' own properties into columns in this process,
// as a hub does at its start, and then applies patches to them.
func measureColumns(ctx context.Context, twins int, stdout io.Writer) (columnFigures, error) {
	var f columnFigures
	sections := make([][2]query.Value, twins)
	var parsing sync.WaitGroup
	workers := max(1, runtime.GOMAXPROCS(0))
	errs := make([]error, workers)
	for w := range workers {
		parsing.Go(func() {
			for i := w; i < twins && errs[w] == nil; i += workers {
				tags, desired := twinSections(i)
				if sections[i][0], errs[w] = query.ParseValue(tags); errs[w] == nil {
					sections[i][1], errs[w] = query.ParseValue(desired)
				}
			}
		})
	}
	parsing.Wait()
	for _, err := range errs {
		if err != nil {
			return f, err
		}
	}
	columns := query.NewColumns(query.ColumnOptions{ID: query.Path{"deviceId"}})
	began := time.Now()
	builder := columns.Build()
	var loading sync.WaitGroup
	for w := range workers {
		loader := builder.Loader()
		loading.Go(func() {
			for i := w; i < twins && ctx.Err() == nil; i += workers {
				loader.Add(twinID(i), uint32(i), []query.Field{
					{Path: query.Path{"tags"}, Value: sections[i][0]},
					{Path: query.Path{"properties", "desired"}, Value: sections[i][1]},
				})
			}
		})
	}
	loading.Wait()
	builder.Done()
	took := time.Since(began)
	if err := ctx.Err(); err != nil {
		return f, err
	}
	s := columns.Stats()
	f.bytes = s.Bytes
	fmt.Fprintf(stdout, "\ncolumns in this process: %d rows, %d columns, %d dictionary entries, %.1f MB with ids, loaded by %d goroutines in %.2f s\n",
		s.Rows, s.Columns, s.Entries, float64(s.Bytes)/1e6, workers, took.Seconds())

	const patches = 300_000
	battery, uptime, temperature := query.Path{"properties", "desired", "battery"}, query.Path{"tags", "uptime"}, query.Path{"properties", "desired", "temperature"}
	changes := make([]query.Change, patches)
	for i := range changes {
		changes[i] = query.Change{ID: twinID(rand.IntN(twins)), Fields: []query.Field{
			{Path: battery, Value: query.NumberValue(float64(rand.IntN(101)))},
			{Path: uptime, Value: query.NumberValue(float64(rand.IntN(10_000_000)))},
			{Path: temperature, Value: query.NumberValue(float64(rand.IntN(6000)) / 100)},
		}}
	}
	began = time.Now()
	for i := range changes {
		columns.Apply(changes[i : i+1])
	}
	f.patch = time.Since(began) / patches
	fmt.Fprintf(stdout, "patches of three properties, one after the other: %d, %v each\n", patches, f.patch)
	return f, nil
}
