#!/usr/bin/env bash
# Builds the Debian package twice and looks at it: the same bytes, the files
# that it should hold, a unit that systemd understands, settings that the hub
# takes, and dpkg installing, upgrading and purging it in a directory of its own.
#
# It changes nothing on this machine. It needs dpkg, lintian and systemd-analyze,
# and fakeroot where it does not run as root. The last line is
# "package: N checks, N failed".
set -uo pipefail
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
checks=0 bad=0

check() { # WHAT COMMAND...
  local what=$1
  shift
  checks=$((checks + 1))
  if "$@" > "$tmp/out" 2>&1; then
    echo "ok    $what"
  else
    bad=$((bad + 1))
    echo "FAIL  $what"
    sed 's/^/      /' "$tmp/out" | head -40
  fi
}

export COMPRESS=gzip
build() { packaging/deb.sh "$tmp/$1"; }
check 'builds' build one
check 'builds again' build two
deb=$(echo "$tmp"/one/*.deb)
check 'the same bytes twice' cmp "$deb" "$tmp"/two/*.deb
list() { dpkg-deb --contents "$deb" | awk '$1 !~ /^d/ { print $1, $6 }' | diff packaging/contents.txt -; }
check 'holds packaging/contents.txt' list
owners() { ! dpkg-deb --contents "$deb" | awk '{ print $2 }' | grep -v '^root/root$'; }
check 'everything belongs to root' owners
check 'lintian finds nothing' lintian --allow-root --fail-on error,warning "$deb"

x=$tmp/x
dpkg-deb --extract "$deb" "$x"
check 'the settings are valid' "$x/usr/bin/muster" --config "$x/etc/muster/muster.yaml" check-config --data "$tmp/none"
for shell in bash zsh fish; do
  file=$(find "$x/usr/share" -path "*$shell*" -name '*muster*' -type f)
  check "completion for $shell" grep -q __complete "$file"
done
manual() { ! man --warnings -l "$x/usr/share/man/man1/muster.1.gz" 2>&1 > /dev/null | grep .; }
if command -v man > /dev/null; then
  check 'the manual page' manual
fi
unit() {
  local out
  cp -r /lib/systemd/system/*.target "$x/lib/systemd/system/"
  install -D /bin/true "$x/bin/kill"
  out=$(systemd-analyze verify --man=no --root="$x" /lib/systemd/system/muster.service 2>&1 | grep -F muster)
  [ -z "$out" ] || { echo "$out"; return 1; }
}
check 'systemd understands the unit' unit

# --- dpkg, in a directory of its own -------------------------------------------

root=$tmp/root
mkdir -p "$root/var/lib/dpkg/"{info,updates,triggers}
touch "$root/var/lib/dpkg/"{status,available}
as=()
[ "$(id -u)" -eq 0 ] || as=(fakeroot)
dpkg_in() { "${as[@]}" dpkg --root="$root" --force-script-chrootless --force-depends --force-not-root --log=/dev/null "$@"; }
check 'installs' dpkg_in --install "$deb"
check 'the program is there' test -x "$root/usr/bin/muster"
echo 'memory: 1GiB' >> "$root/etc/muster/muster.yaml"
mkdir -p "$root/var/lib/muster" "$tmp/newer"
echo precious > "$root/var/lib/muster/data"
upgrade() {
  dpkg-deb -R "$deb" "$tmp/newer" && sed -i 's/^Version: .*/Version: 9.0/' "$tmp/newer/DEBIAN/control" &&
    dpkg-deb --root-owner-group -Zgzip --build "$tmp/newer" "$tmp/newer.deb" && dpkg_in --install "$tmp/newer.deb"
}
check 'upgrades' upgrade
check 'changed settings stay' grep -q '^memory: 1GiB' "$root/etc/muster/muster.yaml"
check 'removes' dpkg_in --remove muster
check 'the program is gone' test ! -e "$root/usr/bin/muster"
check 'settings are still there' test -e "$root/etc/muster/muster.yaml"
check 'purges' dpkg_in --purge muster
check 'settings are gone' test ! -e "$root/etc/muster"
check 'data stays' grep -q precious "$root/var/lib/muster/data"

echo "package: $checks checks, $bad failed"
[ "$bad" -eq 0 ]
