# What the demos share; they source it, from the project's folder. It makes a
# directory for a hub, which ends and goes with the demo.

dir=$(mktemp -d)
export MUSTER_DATA=$dir/data
serve=(./muster serve --https "${MUSTER_HTTPS:-127.0.0.1:0}" --mqtts "${MUSTER_MQTTS:-127.0.0.1:0}")
unset MUSTER_HTTPS MUSTER_MQTTS MUSTER_HTTP
bold='' dim='' plain=''
[ -t 1 ] && bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
hub='' fleet='' watcher='' feed=''

stop() {
  code=$?
  trap '' INT TERM HUP EXIT
  for pid in "$watcher" "$feed" "$fleet" "$hub"; do
    [ -n "$pid" ] && kill -TERM "$pid" 2> /dev/null && wait "$pid" 2> /dev/null
  done
  rm -rf "$dir"
  exit "$code"
}
trap stop INT TERM HUP EXIT

say() { printf '\n%s\n' "$(fold -s -w 78 <<< "$*")"; }
# typed prints a command as one would type it.
typed() {
  local word
  printf '\n%s$ muster' "$bold"
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=,%@+-]+$ ]] || { [[ $word == *\'* ]] && word="\"$word\"" || word="'$word'"; }
    printf ' %s' "$word"
  done
  printf '%s\n' "$plain"
}
# show prints a command and runs it. Its exit code says how a job ended, which
# here is part of the story.
show() {
  typed "$@"
  ./muster "$@" || printf '%s(exit code %d)%s\n' "$dim" "$?" "$plain"
}
enter() {
  [ -t 0 ] && [ -t 1 ] && [ "${DEMO_PACE:-1}" != 0 ] || return 0
  printf '%s-- Enter --%s' "$dim" "$plain"
  read -r || true
}
# start_hub starts the hub and waits until it answers.
start_hub() {
  "${serve[@]}" > "$dir/hub.log" 2>&1 &
  hub=$!
  for _ in $(seq 600); do
    ./muster status --timeout 2s > /dev/null 2>&1 && return
    kill -0 "$hub" 2> /dev/null || break
    sleep 0.1
  done
  cat "$dir/hub.log" >&2
  exit 1
}
# start_fleet prints a command that simulates devices, and runs it from now on.
start_fleet() {
  typed simulate "$@"
  ./muster simulate "$@" --quiet > /dev/null 2> "$dir/fleet.log" &
  fleet=$!
}
