#!/bin/sh
# Measures Muster beside other software. Usage:
#
#   test/bench/run.sh [storage|mqtt|telemetry|method|events|webhooks|backup|start|idle|storm|query|live|jobs|patterns|soak [FLAGS]]
#
# Without a subcommand all but backup and soak run, with their defaults: about two
# hours. Add -h after a subcommand for its flags. Needs Go and a Linux machine
# with nothing else to do; for storage, mqtt and query also PostgreSQL, for query
# Python 3 (for its SQLite), for telemetry Mosquitto, which it installs with apt-get when they are missing (as root, or by
# sudo without a password). Data goes to a temporary directory: set TMPDIR to the disk that is
# to be measured (not a tmpfs). Nothing that it starts outlives it. Figures go
# to standard output, everything else to standard error.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

command -v go >/dev/null || { echo "run.sh: Go is missing; install it from https://go.dev/dl" >&2; exit 1; }

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

need_postgresql() {
	case " $* " in
	*" -clients 0 "* | *" -h "*) return ;;
	esac
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && return
	echo "run.sh: installing the package postgresql with apt-get" >&2
	as_root apt-get update -q >&2
	# Without a cluster of the distribution's own: the benchmark makes its own.
	as_root mkdir -p /etc/postgresql-common
	[ -e /etc/postgresql-common/createcluster.conf ] ||
		echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postgresql >&2
}

need_mosquitto() {
	case " $* " in
	*" -mosquitto=false "* | *" -h "*) return ;;
	esac
	[ -x /usr/sbin/mosquitto ] && return
	echo "run.sh: installing the package mosquitto with apt-get" >&2
	as_root apt-get update -q >&2
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends mosquitto >&2
	# Not the distribution's own broker: the benchmark starts one.
	! [ -d /run/systemd/system ] || as_root systemctl disable --now mosquitto >&2
}

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
echo "run.sh: building" >&2
(cd "$here" && go build -o "$build/bench" .)
(cd "$root" && go build -trimpath -o "$build/muster" .)

measure() {
	echo "commit: $(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown), $(go version)"
	sub=$1
	shift
	case "$sub" in
	storage)
		need_postgresql "$@"
		"$build/bench" storage "$@"
		;;
	mqtt)
		need_postgresql "$@"
		"$build/bench" mqtt -muster "$build/muster" "$@"
		;;
	jobs | patterns)
		"$build/bench" "$sub" -muster "$build/muster" -memory 4GiB "$@" # a later -memory wins
		;;
	query)
		case " $* " in
		*" -postgres=false "*) ;;
		*) need_postgresql "$@" ;;
		esac
		"$build/bench" query -muster "$build/muster" -memory 4GiB "$@" # a later -memory wins
		;;
	telemetry)
		need_mosquitto "$@"
		"$build/bench" telemetry -muster "$build/muster" "$@"
		;;
	*) "$build/bench" "$sub" -muster "$build/muster" "$@" ;;
	esac
}

if [ $# -gt 0 ]; then
	measure "$@"
else
	for sub in storage mqtt telemetry method events webhooks query live jobs patterns start idle storm; do
		measure "$sub"
		echo
	done
fi
