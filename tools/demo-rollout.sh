#!/usr/bin/env bash
# A rollout over 2,000 simulated devices of which eight in a hundred fail: it
# stops itself, an operator finds out why, and goes on. `make demo-rollout` builds
# and calls it; it takes about two minutes and leaves nothing behind.
#
#   make demo-rollout                  the operator repairs the cause, retries and resumes
#   DEMO=rollback make demo-rollout    the operator cancels, and takes back what was done
#
# DEVICES is another number of devices, MUSTER_HTTPS and MUSTER_MQTTS are other
# addresses than free ones. In a terminal it stops now and then until Enter is
# pressed, unless DEMO_PACE=0.
set -euo pipefail
cd "$(dirname "$0")/.."

demo=${DEMO:-resume} devices=${DEVICES:-2000}
case $demo in resume | rollback) ;; *)
  echo "DEMO is '$demo', expected resume or rollback." >&2
  exit 2
  ;;
esac
. tools/demo.sh

# until_paused watches a job until it has paused itself.
until_paused() {
  typed job watch "$1"
  ./muster job watch "$1" 2> /dev/null &
  watcher=$!
  exec 3< <(exec ./muster job watch "$1" -o jsonl 2> /dev/null)
  feed=$!
  grep -q -m1 '"status":"paused"' <&3 || {
    echo "The job $1 has not paused itself." >&2
    exit 1
  }
  sleep 1.5 # what is on its way comes back
  kill -TERM "$watcher" "$feed" 2> /dev/null || true
  wait "$watcher" 2> /dev/null || true
  exec 3<&-
  watcher='' feed=''
}

say "A hub in $dir, and $devices simulated devices. Eight in a hundred are of batch B, whose flow meters nobody has calibrated."
start_hub
start_fleet --devices "$devices" --behaviour bad-batch --prefix pump-
until [ "$(./muster query -o csv "SELECT COUNT() AS n FROM devices WHERE connectionState = 'Connected'" | tail -1)" = "$devices" ]; do
  kill -0 "$fleet" 2> /dev/null || { cat "$dir/fleet.log" >&2; exit 1; }
  sleep 0.5
done
echo "All $devices are connected."
enter

say 'All of them shall use the profile "eco". First on one in a hundred, chosen so that sites and models differ; then on a tenth; then on all. Each wave has a moment to show trouble. When five in a hundred of a wave fail, it stops itself.'
job=(--where tags.simulated --method applyProfile --payload '{"profile":"eco"}'
  --waves '1%,10%,100%' --diverse --soak 3s --pause-at 5% --least 100 --parallel 40)
show job preview "${job[@]}" --sample 3
enter
show job create "${job[@]}" --id eco --description 'profile eco for all pumps' --yes
until_paused eco

say 'It has stopped itself. What failed, and why?'
show job show eco
show job executions eco --status rejected --limit 5
sick=$(./muster job executions eco --status rejected -o jsonl | sed -n '1s/.*"deviceId": *"\([^"]*\)".*/\1/p')
say "What does $sick say for itself, and who else is like it?"
show job executions --device "$sick" -o json
show query "SELECT deviceId, tags.batch AS batch, tags.site AS site, tags.model AS model FROM devices WHERE deviceId = '$sick'"
show query "SELECT tags.batch AS batch, COUNT() AS devices FROM devices GROUP BY tags.batch"
enter

if [ "$demo" = resume ]; then
  say 'Batch B needs to be calibrated. That is a job too, of a desired property:'
  show job create --where "tags.batch == 'B'" --patch desired.calibrated=true --id calibrate --yes --watch
  say 'Now those that failed are tried again, and the rollout goes on:'
  typed job retry eco
  ./muster job retry eco > /dev/null
  typed job resume eco
  ./muster job resume eco > /dev/null
  show job watch eco
  say 'Done. What it did is kept for a month, device by device:'
  show job show eco
else
  say 'Not today: the rollout ends here, and what was changed is taken back on those that took it.'
  show job cancel eco --reason 'batch B is not calibrated' --yes
  show job watch eco
  typed job export eco --status succeeded --to "$dir/changed.csv"
  ./muster job export eco --status succeeded --to "$dir/changed.csv"
  sed '1d' "$dir/changed.csv" | cut -d, -f"$(head -1 "$dir/changed.csv" | tr , '\n' | grep -n -x deviceId | cut -d: -f1)" > "$dir/changed"
  show job create --ids "@$dir/changed" --method applyProfile --payload '{"profile":"normal"}' --parallel 40 --id eco-back --description 'eco taken back' --yes --watch
  show job list
fi
say 'The hub and its devices are stopped now, and their directory is removed.'
