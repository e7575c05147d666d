#!/usr/bin/env bash
# Everything that must hold, in the order from quick to slow. `make test` calls
# it; `make lint` calls it with "lint" for the part that runs no test.
#
# What is missing is installed, and it says so: the Go tools from their module
# into bin/, npm packages beside the tests that use them, and with apt (as root
# or by sudo) a C compiler for the race detector and a browser for the status
# page. Without Node the Go part still runs, and what was skipped is listed at
# the end. With CI=true nothing may be skipped.
#
# The last line is "N passed, N failed", counted from the tests themselves.
set -uo pipefail
cd "$(dirname "$0")/.."

ci=false
[ "${CI:-}" = true ] && ci=true
passed=0 failed=0
skips=() failures=()
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
began=$SECONDS

say() { printf '\n== %s (after %s s)\n' "$*" $((SECONDS - began)); }

# remember: keeps what an output says of failed tests, for the end, where
# whoever sees only the last lines finds it.
remember() { grep -hE -A 4 '^(FAIL|console: FAIL|sdk: (FAILED|SKIPPED|NO TEST)) ' "$tmp/output" | cut -c 1-300 >> "$tmp/details"; }

# step NAME COMMAND...: one check that passes or fails as a whole.
step() {
  local name=$1
  shift
  say "$name"
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    failures+=("$name")
  fi
}

# Tests that are the half of another one which runs in a child process; on
# their own they skip themselves.
helpers='^(TestIdleClients|TestKillChild|TestMessagesKillChild|TestFaultSweepChild|TestPowercutRun)$'

# tests NAME GOTEST-ARGS...: tests that are counted one by one.
tests() {
  local name=$1 p=0 f=1 s=0
  shift
  say "$name"
  : > "$tmp/counts"
  local strict=()
  $ci && strict=(-no-skips)
  bin/gotest -counts "$tmp/counts" -helpers "$helpers" "${strict[@]}" -- "$@" 2>&1 | tee "$tmp/output" || {
    failures+=("$name")
    remember
  }
  read -r p f s < "$tmp/counts" || true
  [ "$s" -gt 0 ] && skips+=("$name: $s tests, named above with their reason")
  $ci && f=$((f + s))
  passed=$((passed + p)) failed=$((failed + f))
}

# counted NAME PATTERN COMMAND...: another program's tests; the last line that
# PATTERN matches gives "all failed".
counted() {
  local name=$1 pattern=$2 code line p f
  shift 2
  say "$name"
  "$@" 2>&1 | tee "$tmp/output"
  code=${PIPESTATUS[0]}
  line=$(grep -E "$pattern" "$tmp/output" | tail -1 | sed -E "s/.*$pattern.*/\1 \2/")
  if [ -n "$line" ]; then
    read -r p f <<< "$line"
    p=$((p - f))
  elif [ "$code" -eq 0 ] && grep -q SKIPPED "$tmp/output"; then
    skips+=("$name: see above")
    $ci && failed=$((failed + 1)) && failures+=("$name (skipped)")
    return 0
  else
    p=0 f=0
    [ "$code" -eq 0 ] && p=1
  fi
  [ "$code" -ne 0 ] && [ "$f" -eq 0 ] && f=1
  passed=$((passed + p)) failed=$((failed + f))
  [ "$f" -eq 0 ] || {
    failures+=("$name")
    remember
  }
  return 0
}

# skip NAME REASON: what can't run here. CI takes no excuse.
skip() {
  say "$1: SKIPPED, $2"
  skips+=("$1: $2")
  if $ci; then
    failed=$((failed + 1))
    failures+=("$1 (skipped: $2)")
  fi
}

root=()
can_install() {
  command -v apt-get > /dev/null || return 1
  [ "$(id -u)" -eq 0 ] && return 0
  root=(sudo -n)
  sudo -n true 2> /dev/null
}

# install PACKAGE WHY: with apt, where that is possible.
updated=false
install() {
  can_install || return 1
  echo "Installing the package $1 with apt: $2."
  if ! $updated; then
    "${root[@]}" apt-get update -qq > "$tmp/apt" 2>&1
    updated=true
  fi
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >> "$tmp/apt" 2>&1 || {
    tail -5 "$tmp/apt"
    return 1
  }
}

finish() {
  say done
  [ -f muster ] && echo "The binary has $(wc -c < muster) bytes."
  if [ ${#skips[@]} -gt 0 ]; then
    echo 'Skipped:'
    printf '  %s\n' "${skips[@]}"
  fi
  if [ ${#failures[@]} -gt 0 ]; then
    echo 'Failed:'
    printf '  %s\n' "${failures[@]}"
    [ -s "$tmp/details" ] && echo 'What was said of it:' && head -60 "$tmp/details" | sed 's/^/  /'
  fi
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
  exit
}

# --- what is needed -------------------------------------------------------

if ! command -v go > /dev/null; then
  echo 'Go is missing: install Go 1.26 or later, https://go.dev/dl/'
  exit 1
fi
say "$(go version)"
echo 'Building the Go tools of tools/go.mod into bin/ (staticcheck, gotest).'
mkdir -p bin
(cd tools && go build -o ../bin/ honnef.co/go/tools/cmd/staticcheck ./gotest) || exit 1

# --- checks that run no test ------------------------------------------------

formatted() {
  local files
  files=$(git ls-files -z --cached --others --exclude-standard '*.go' 2> /dev/null | xargs -0 -r gofmt -l)
  [ -z "$files" ] || { printf 'not formatted, run gofmt -w:\n%s\n' "$files"; return 1; }
}
modern() {
  local diff
  diff=$(go fix -diff ./... 2>&1) && return 0
  printf '%s\n' "$diff" | head -100
  return 1
}
built() {
  CGO_ENABLED=0 go build -trimpath -o muster .
}

step 'build' built
step 'gofmt' formatted
step 'go vet' go vet ./...
for module in tools test/bench test/sdk/sandbox; do
  step "go vet in $module" go -C "$module" vet ./...
done
step 'go fix' modern
step 'staticcheck' bin/staticcheck -checks 'all,-ST1003' ./...
[ "${1:-}" = lint ] && finish

# --- tests -------------------------------------------------------------------

race=(-race)
if ! command -v cc > /dev/null && ! command -v gcc > /dev/null; then
  install gcc 'the race detector needs a C compiler' && install libc6-dev 'the race detector needs the C headers'
fi
if ! command -v cc > /dev/null && ! command -v gcc > /dev/null; then
  race=()
  skip 'race detector' 'there is no C compiler and none could be installed; the tests run without it'
fi
for shell in zsh fish; do
  command -v "$shell" > /dev/null || install "$shell" 'a shell to press the tab key in' || skip "completion in $shell" 'it could not be installed'
done
# go vet has been here already.
tests 'tests, architecture and documents included' "${race[@]}" -vet=off -timeout 15m ./...

# What the race detector gets a share of, because it is the same work many times,
# here in full and without it (raceDetector says so in the tests themselves).
in_full=(
  # storage: 100 kills under load, 20 in the middle of messages, damage anywhere
  TestKill TestMessagesKill TestFlippedBits TestDamagedTail TestManifestWithATornLastRecordOpens
  # engine/query: 20,000 comparisons with a plain evaluator, and other random queries
  TestColumnsAgree TestColumnsAgreeOnManyRows TestLiveModel TestRandomQueries
  TestLargeDictionary TestSelect TestTokenSoup TestRoundTrip TestBareIsSQL
  # engine/rollout: 100,000 random policies against a model; engine/configuration: as many
  # random cases against a plain evaluator; engine/pattern: as many random programs
  TestModel TestRunIsItsProgram
  TestResolutionIsThatOfANaiveEvaluator TestAnyOrderOfChangesEndsInTheSameTwin
  # engine: a stop at each step of laying out a job; as many configurations and runs as there may be
  TestLayOutResumes TestManyConfigurations TestRunHostile
  # plugins: the scenarios of each pattern that ships with a crash wherever one makes a difference
  TestScenarios
  # protocols/cli: commands of patterns and runs, each of which builds the whole tree
  TestPatternOutputs TestPatternSends
)
tests 'in full, what the race detector gets a share of: kills of a store, random policies, configurations and queries, scenarios with crashes' \
  -vet=off -timeout 15m -run "^($(IFS='|'; echo "${in_full[*]}"))\$" \
  ./engine ./storage ./engine/query ./engine/rollout ./engine/configuration ./engine/pattern ./plugins ./protocols/cli
MUSTER_CONTAINMENT_ROUNDS=5 tests 'containment: each attack on a hub with other traffic, five times' -vet=off -run 'TestContainment$' .
tests 'workers: each attack without the sandbox' -vet=off -run 'TestAttacksOutside$' ./scripting

if command -v dpkg-deb > /dev/null; then
  for tool in lintian systemd-analyze:systemd fakeroot man:man-db; do
    command -v "${tool%%:*}" > /dev/null || install "${tool##*:}" 'to look at the Debian package'
  done
  counted 'Debian package' 'package: ([0-9]+) checks, ([0-9]+) failed' packaging/test.sh
else
  skip 'Debian package' 'dpkg-deb is missing'
fi

counted 'power cuts: images in which unsynced pages are missing or torn, and variants that must be caught' \
  'storage +([0-9]+) images.* ([0-9]+) bad' go run ./test/powercut -images "${POWERCUT_IMAGES:-200}"

if ! command -v node > /dev/null || ! command -v npm > /dev/null; then
  skip 'SDK conformance' 'Node with npm is missing, https://nodejs.org/'
  skip 'status page' 'Node with npm is missing, https://nodejs.org/'
  finish
fi
counted 'SDK conformance' 'sdk: ([0-9]+) tests .* ([0-9]+) not passed' env MUSTER_BIN="$PWD/muster" node test/sdk/run.mjs

browser() {
  local b
  for b in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
    [ -n "$b" ] && command -v "$b" > /dev/null && "$b" --version > /dev/null 2>&1 && command -v "$b" && return
  done
  return 1
}
if [ ! -d test/console/node_modules/playwright-core ]; then
  echo 'Installing the npm packages of test/console/package-lock.json into test/console/node_modules.'
  npm ci --prefix test/console --no-audit --no-fund --silent
fi
chromium=$(browser) || { install chromium 'a browser for the status page' > "$tmp/browser"; cat "$tmp/browser"; chromium=$(browser); }
if [ -z "$chromium" ]; then
  echo 'Installing Chromium with playwright-core: there is no package that works here.'
  (cd test/console && { npx playwright-core install --with-deps chromium-headless-shell || npx playwright-core install chromium-headless-shell; }) > "$tmp/browser" 2>&1 || tail -5 "$tmp/browser"
fi
if [ -n "$chromium" ] || (cd test/console && node -e 'process.exit(require("fs").existsSync(require("playwright-core").chromium.executablePath()) ? 0 : 1)'); then
  counted 'status page' 'console: ([0-9]+) tests, ([0-9]+) failed' env MUSTER_BIN="$PWD/muster" CHROMIUM="$chromium" node test/console/run.mjs
else
  skip 'status page' 'there is no Chromium and none could be installed'
fi
finish
