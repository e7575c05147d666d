#!/bin/sh
# A fleet against a hub that has it hard. Usage:
#
#   test/fleet/run.sh kill    2,000 devices, ten rounds of kill -9 and restart, then a backup of the
#                             running hub, a restore and a resume; what was acknowledged is looked up
#                             after each. About ten minutes. DEVICES, ROUNDS and RATE (messages a
#                             second) change it.
#   test/fleet/run.sh soak    500 messages a second with twins, methods and checkpoints for ten minutes
#                             (-duration 1h for an hour); says whether memory, goroutines, descriptors
#                             and disk stay flat. -h lists the flags.
#   test/fleet/run.sh storm   5,000 devices lose their network in one moment, beside what a bare TLS
#                             server takes for as many; -h lists the flags.
#   test/fleet/run.sh queries a million random queries against a plain evaluator, with and without
#                             columns, through changes and restarts. COMPARISONS and SEED change it.
#   test/fleet/run.sh import  an import of 200,000 lines while the hub is killed again and again: exact
#                             counts, no identity missing or there twice, each error once. LINES changes it.
#   test/fleet/run.sh sweep   a kill at each named step of jobs, configurations and imports
#   test/fleet/run.sh patterns five shipped patterns over 1,000 devices each while the hub is killed three times: every
#                             run ends right, and no device gets a command twice. DEVICES and KILLS change it.
#   test/fleet/run.sh nightly queries, kill, import, sweep, patterns, a soak of an hour, storm and a million pairs of queries and
#                             changes, one after the other.
#
# Needs Go, and enough open files: three for each device (ulimit -n). Figures go to standard output.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
sub=${1:-}
[ $# -eq 0 ] || shift

kill_rounds() {
	echo "commit: $(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown), $(go version)"
	echo "command: test/fleet/run.sh kill, ${DEVICES:-2000} devices, ${ROUNDS:-10} rounds, ${RATE:-500} messages a second"
	echo "date: $(date -u +%Y-%m-%dT%H:%M:%SZ), load average $(cut -d' ' -f1-3 /proc/loadavg)"
	cd "$root"
	MUSTER_FLEET_DEVICES=${DEVICES:-2000} MUSTER_FLEET_ROUNDS=${ROUNDS:-10} MUSTER_FLEET_RATE=${RATE:-500} \
		go test . -run '^TestFleetSurvivesKills$' -count=1 -v -timeout 90m
}

# A kill at each named step of long work, the first and the last time that a hub comes to it.
sweep() {
	echo "commit: $(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown), $(go version)"
	cd "$root"
	MUSTER_SWEEP=all go test ./engine -run '^TestFaultSweep$' -count=1 -v -timeout 60m
}

queries() {
	echo "commit: $(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown), $(go version)"
	cd "$root"
	MUSTER_QUERY_COMPARISONS=${COMPARISONS:-1000000} MUSTER_QUERY_SEED=${SEED:-$(date +%s)} \
		go test ./engine/query -run '^TestColumnsAgree' -count=1 -v -timeout 3h
}

import_kills() {
	echo "commit: $(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown), $(go version)"
	cd "$root"
	MUSTER_IMPORT_LINES=${LINES:-200000} go test . -run '^TestKilledImportResumes$' -count=1 -v -timeout 60m
}

patterns() {
	echo "commit: $(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown), $(go version)"
	echo "command: test/fleet/run.sh patterns, ${DEVICES:-1000} devices, ${KILLS:-3} kills of each pattern"
	echo "date: $(date -u +%Y-%m-%dT%H:%M:%SZ), load average $(cut -d' ' -f1-3 /proc/loadavg)"
	cd "$root"
	MUSTER_PATTERN_DEVICES=${DEVICES:-1000} MUSTER_PATTERN_KILLS=${KILLS:-3} \
		go test . -run '^TestPatternsSurviveKills$' -count=1 -v -timeout 60m
}

case "$sub" in
patterns) patterns ;;
queries) queries ;;
import) import_kills ;;
kill) kill_rounds ;;
soak | storm) "$root/test/bench/run.sh" "$sub" "$@" ;;
sweep)
	sweep
	;;
nightly)
	queries
	kill_rounds
	import_kills
	sweep
	patterns
	"$root/test/bench/run.sh" soak -duration 1h
	"$root/test/bench/run.sh" storm
	(cd "$root" && MUSTER_QUERY_PAIRS=1000000 go test ./engine -run '^TestQueryHistory$' -count=1 -v -timeout 60m)
	;;
*)
	sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
	exit 2
	;;
esac
