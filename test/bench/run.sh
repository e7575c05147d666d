#!/bin/sh
# Measures Muster beside other software. Usage:
#
#   test/bench/run.sh storage|mqtt|method|start|idle [FLAGS]
#
# Add -h after the subcommand for its flags. Needs Go and a Linux machine; for
# storage and mqtt also PostgreSQL 15, which it installs with apt when it is
# missing and it may (root, or sudo without a password). Data goes to a temporary
# directory: set TMPDIR to the disk that is to be measured (not a tmpfs). Nothing
# of what it starts outlives it. Figures go to standard output.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

command -v go >/dev/null || { echo "run.sh: Go is missing; install it from https://go.dev/dl" >&2; exit 1; }

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

case "${1:-}" in
storage | mqtt)
	case " $* " in
	*" -clients 0 "*) ;; # without PostgreSQL
	*)
		if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
			echo "run.sh: installing postgresql-15 with apt-get" >&2
			as_root apt-get update -q >&2
			# Without a cluster of the distribution's own: the benchmark makes its own.
			as_root mkdir -p /etc/postgresql-common
			[ -e /etc/postgresql-common/createcluster.conf ] ||
				echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
			as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postgresql-15 >&2
		fi
		;;
	esac
	;;
esac

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
echo "run.sh: building" >&2
(cd "$here" && go build -o "$build/bench" .)
case "${1:-}" in
mqtt | method | start | idle)
	(cd "$root" && go build -o "$build/muster" .)
	sub=$1
	shift
	set -- "$sub" -muster "$build/muster" "$@"
	;;
esac
"$build/bench" "$@"
