// Package rollout decides how an action spreads over a fleet: which targets are
// due next, when to wait and what for, and when to stop.
//
// It is pure: no I/O, no clock (time is an argument), no randomness, nothing of
// Muster. What it knows of a job are its [Policy], which never changes, and its
// [State], a handful of counters which the job's record stores. Whoever runs a
// job keeps the state true by telling each move of an execution ([State.Move])
// and asks [Plan.Advance] what is to be done.
//
// # Moves of the clock
//
// The host's clock may jump. What counts on time is built so that a jump back
// or forth neither starts a stampede nor loses work:
//
//   - The rate is a bucket that holds at most two seconds' worth, so that a
//     jump forward lets no more through than a pause of two seconds would; a
//     jump back keeps what is in it and goes on from the new time.
//   - Windows have no memory: one is open or closed by the time that it is. A
//     window that was open before a jump back opens again at its time.
//   - The end is taken once (State.Ended); a jump back doesn't undo it.
//   - A soak that began "in the future" begins again now: it may last longer,
//     never shorter than the clock says.
//   - An occurrence of a recurring job is known by its time, and only later
//     ones are due: a jump back repeats none, a jump forward over several runs
//     the latest of them.
package rollout
