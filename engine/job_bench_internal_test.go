package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// BenchmarkTwinJob compares a job that changes the twins of a whole fleet, 5,000
// of it connected, with single durable updates of the same twins by 256 callers,
// and says how long one update beside the job waits. MUSTER_BENCH_DEVICES says
// how many devices there are.
func BenchmarkTwinJob(b *testing.B) {
	devices := benchDevices(b, 20_000)
	h, err := Open(b.Context(), Options{Storage: storage.Options{Dir: b.TempDir(), Memory: 512 << 20}})
	if err != nil {
		b.Fatal(err)
	}
	fillHub(b, h, devices)
	<-h.queries.ready
	ids := make([]TwinID, devices)
	for i := range ids {
		ids[i] = TwinID{DeviceID: fmt.Sprintf("device-%07d", i)}
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(ids), func(i, k int) { ids[i], ids[k] = ids[k], ids[i] })
	for _, id := range ids[:min(5000, devices)] {
		attach(b, h, id, func(string, json.RawMessage) (int, bool) { return 200, true })
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.Run(ctx) })
	defer func() {
		stop()
		wg.Wait()
		if err := h.Close(); err != nil {
			b.Error(err)
		}
	}()
	singles := func(b *testing.B, n int) float64 {
		begun := time.Now()
		var next atomic.Int64
		var callers sync.WaitGroup
		for range 256 {
			callers.Go(func() {
				for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
					u := TwinUpdate{Desired: fmt.Appendf(nil, `{"fw":{"v":"single-%d"}}`, i)}
					if _, err := h.PatchTwin(ctx, everything, ids[i%int64(devices)], u, IfMatch{}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		callers.Wait()
		return float64(n) / time.Since(begun).Seconds()
	}
	run := 0
	for b.Loop() {
		plain := singles(b, devices)
		run++
		name := fmt.Sprint("job-", run)
		var beside []time.Duration
		done := make(chan struct{})
		var caller sync.WaitGroup
		caller.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				case <-time.After(2 * time.Millisecond):
				}
				begun := time.Now()
				if _, err := h.PatchTwin(ctx, everything, ids[i%devices], TwinUpdate{Tags: fmt.Appendf(nil, `{"n":%d}`, i)}, IfMatch{}); err != nil {
					b.Error(err)
				}
				beside = append(beside, time.Since(begun))
			}
		})
		putJob(b, h, JobSpec{ID: name, Targets: JobTargets{Where: "*"}, Action: JobAction{Twin: &JobTwinPatch{Desired: fmt.Appendf(nil, `{"fw":{"v":%q}}`, name)}}}, nil)
		begun := time.Now()
		for !readJob(b, h, name).State.Status.Final() {
			time.Sleep(5 * time.Millisecond)
		}
		took := time.Since(begun)
		close(done)
		caller.Wait()
		state := readJob(b, h, name).State
		if n := state.Total().Succeeded; n != devices {
			b.Fatalf("%d of %d executions succeeded", n, devices)
		}
		slices.Sort(beside)
		rate := float64(devices) / took.Seconds()
		b.ReportMetric(plain, "single/s")
		b.ReportMetric(rate, "job/s")
		b.ReportMetric(rate/plain*100, "%")
		b.ReportMetric(float64(beside[len(beside)*99/100])/1e6, "ms-beside-p99")
	}
}

// BenchmarkManyJobs runs 200 jobs at once over 10,000 connected devices, each
// over a twentieth of them, half of the jobs methods, and says what the loop
// takes of a processor when they are done.
func BenchmarkManyJobs(b *testing.B) {
	const jobs = 200
	devices := benchDevices(b, 10_000)
	h, err := Open(b.Context(), Options{Storage: storage.Options{Dir: b.TempDir(), Memory: 512 << 20}})
	if err != nil {
		b.Fatal(err)
	}
	fillHub(b, h, devices)
	<-h.queries.ready
	ids := make([]TwinID, devices)
	for i := range ids {
		ids[i] = TwinID{DeviceID: fmt.Sprintf("device-%07d", i)}
		attach(b, h, ids[i], func(string, json.RawMessage) (int, bool) { return 200, true })
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { h.runJobs(ctx) })
	defer func() {
		stop()
		wg.Wait()
		if err := h.Close(); err != nil {
			b.Error(err)
		}
	}()
	round := 0
	for b.Loop() {
		round++
		begun := time.Now()
		random := rand.New(rand.NewPCG(uint64(round), 7))
		for i := range jobs {
			random.Shuffle(devices, func(i, k int) { ids[i], ids[k] = ids[k], ids[i] })
			action := JobAction{Method: &JobMethodCall{Name: "m"}}
			if i%2 == 0 {
				action = JobAction{Twin: &JobTwinPatch{Desired: fmt.Appendf(nil, `{"job":"%d-%d"}`, round, i)}}
			}
			putJob(b, h, JobSpec{ID: fmt.Sprintf("j-%d-%d", round, i), Action: action}, ids[:devices/20])
		}
		for h.JobStats().Active > 0 || readJob(b, h, fmt.Sprintf("j-%d-%d", round, jobs-1)).State.Status != rollout.JobCompleted {
			time.Sleep(10 * time.Millisecond)
		}
		b.ReportMetric(float64(jobs*(devices/20))/time.Since(begun).Seconds(), "executions/s")
		for i := range jobs {
			if s := readJob(b, h, fmt.Sprintf("j-%d-%d", round, i)).State; s.Waves[0].Succeeded != devices/20 {
				b.Fatalf("job %d: %+v", i, s)
			}
		}
	}
	time.Sleep(time.Second) // what they left settles
	before := processorTime()
	time.Sleep(5 * time.Second)
	b.ReportMetric(float64(processorTime()-before)/float64(5*time.Second)*100, "%-of-a-core-after")
}

// BenchmarkJobsOfSameDevices runs method jobs which all have the same devices as
// targets, all there from the beginning: each device is called by one job after
// the other. What an execution takes of a processor should not grow with the
// number of jobs. MUSTER_BENCH_DEVICES says how many devices there are.
func BenchmarkJobsOfSameDevices(b *testing.B) {
	devices := benchDevices(b, 100)
	for _, jobs := range []int{25, 50, 100, 200} {
		b.Run(fmt.Sprint(jobs), func(b *testing.B) {
			for b.Loop() {
				benchmarkSameDevices(b, jobs, devices)
			}
		})
	}
}

func benchmarkSameDevices(b *testing.B, jobs, devices int) {
	h, err := Open(b.Context(), Options{Storage: storage.Options{Dir: b.TempDir(), Memory: 512 << 20}})
	if err != nil {
		b.Fatal(err)
	}
	fillHub(b, h, devices)
	<-h.queries.ready
	ids := make([]TwinID, devices)
	for i := range ids {
		ids[i] = TwinID{DeviceID: fmt.Sprintf("device-%07d", i)}
		attach(b, h, ids[i], func(string, json.RawMessage) (int, bool) { return 200, true })
	}
	name := func(i int) string { return fmt.Sprint("j-", i) }
	for i := range jobs {
		putJob(b, h, JobSpec{ID: name(i), Action: JobAction{Method: &JobMethodCall{Name: "m"}}, Policy: rollout.Policy{Priority: i % 3}}, ids)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	begun, used := time.Now(), processorTime()
	wg.Go(func() { h.runJobs(ctx) })
	for i := range jobs {
		for readJob(b, h, name(i)).State.Status != rollout.JobCompleted {
			time.Sleep(10 * time.Millisecond)
		}
	}
	n := float64(jobs * devices)
	b.ReportMetric(n/time.Since(begun).Seconds(), "executions/s")
	b.ReportMetric(float64(processorTime()-used)/n/1000, "cpu-us/execution")
	stop()
	wg.Wait()
	if err := h.Close(); err != nil {
		b.Error(err)
	}
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
