#!/usr/bin/env bash
# Runs a hub in ./muster-data and fifty simulated devices in one terminal.
# Ctrl-C stops both, the devices first. `make run` builds and calls it.
#
# MUSTER_HTTP, MUSTER_HTTPS and MUSTER_MQTTS name other addresses when the usual
# ports are taken.
set -uo pipefail
cd "$(dirname "$0")/.."

# Jobs in groups of their own: Ctrl-C reaches this script alone, which then
# stops them in order.
set -m
export MUSTER_DATA=${MUSTER_DATA:-./muster-data}
export MUSTER_HTTP=${MUSTER_HTTP:-127.0.0.1:8080}
export MUSTER_BANNER=fleet
hub='' fleet=''

stop() {
  trap '' INT TERM HUP
  [ -n "$fleet" ] && kill -INT "$fleet" 2>/dev/null && wait "$fleet" 2>/dev/null
  if [ -n "$hub" ] && kill -TERM "$hub" 2>/dev/null; then
    wait "$hub"
    code=$?
    [ "$code" -eq 0 ] && echo "The hub has stopped. Its data is in $MUSTER_DATA; make run goes on with it."
    exit "$code"
  fi
  exit "${1:-0}"
}
trap 'stop 0' INT TERM HUP

./muster serve </dev/null &
hub=$!
for _ in $(seq 600); do
  ./muster status --timeout 2s >/dev/null 2>&1 && break
  kill -0 "$hub" 2>/dev/null || {
    wait "$hub"
    code=$?
    echo 'Other addresses, for example: MUSTER_HTTP=127.0.0.1:8081 MUSTER_HTTPS=127.0.0.1:8444 MUSTER_MQTTS=127.0.0.1:8884 make run'
    exit "$code"
  }
  sleep 0.1
done
./muster demo </dev/null &
fleet=$!
wait -n "$hub" "$fleet"
code=$?
kill -0 "$hub" 2>/dev/null || { kill -INT "$fleet" 2>/dev/null; exit "$code"; }
echo "The simulated devices have ended; the hub goes on. Ctrl-C stops it."
fleet=''
wait "$hub"
