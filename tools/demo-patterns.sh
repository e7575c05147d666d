#!/usr/bin/env bash
# Patterns over 300 simulated devices, in a terminal: a reboot, a configuration
# that some reject, firmware of which some fall ill, and what the fleet says of it
# afterwards. `make demo-patterns` builds and calls it; it takes about a minute and
# a half and leaves nothing behind.
#
# DEVICES is another number of devices, MUSTER_HTTPS and MUSTER_MQTTS are other
# addresses than free ones. In a terminal it stops now and then until Enter is
# pressed, unless DEMO_PACE=0.
set -euo pipefail
cd "$(dirname "$0")/.."

devices=${DEVICES:-300}
. tools/demo.sh

say "A hub in $dir, and $devices simulated devices. Some fail, some are slow, some offline, some reject a setting, some fall ill of new firmware."
start_hub
start_fleet --devices "$devices" --behaviour managed-mixed --spread 2s
sleep 4
show pattern list
enter

say 'One device first. The run waits for the device to come back, and says what it waits for.'
show pattern run reboot --device sim-000001

say 'Now a setting for all of them, by one command: a job that goes in waves, and skips who has it. Those that reject it get their old one back.'
show pattern run configure --where tags.simulated --param section=pump --param 'settings={"rpm":900}' --param within=10s \
  --waves '5%,100%' --diverse --pause-at 1000 --yes
say 'What became of it, by the phase of the runs, by their errors, and by what the devices say:'
show query "SELECT phase, state, COUNT() AS n FROM devices.runs WHERE pattern = 'configure' GROUP BY phase, state"
show query "SELECT reported.configuration.pump.status AS status, COUNT() AS n FROM devices GROUP BY reported.configuration.pump.status"
enter

say 'New firmware for a fifth of them. Each device tries it in its second slot; whoever is not well goes back.'
show pattern run firmware-update --where "tags.site == 'lyon'" --param version=2.1.0 --param url=https://files.example/fw-2.1.0 --param sha256=9f2c41aa \
  --param soak=2s --param download=40s --waves '100%' --pause-at 1000 --yes
show query "SELECT phase, state, COUNT() AS n FROM devices.runs WHERE pattern = 'firmware-update' GROUP BY phase, state"
show query "SELECT reported.firmware.version AS version, reported.firmware.state AS state, COUNT() AS n FROM devices GROUP BY reported.firmware.version, reported.firmware.state"
say 'One that went back, step by step:'
run=$(./muster run list --pattern firmware-update --state failed -o jsonl | grep '"rolled-back"' | sed -n '1s/.*"runId": *"\([^"]*\)".*/\1/p')
[ -z "$run" ] || show run trace "$run"
say 'The hub and its devices are stopped now, and their directory is removed.'
