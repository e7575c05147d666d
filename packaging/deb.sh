#!/usr/bin/env bash
# Builds a Debian package of the hub: packaging/deb.sh [DIR], default dist/.
#
#   GOARCH=arm64 packaging/deb.sh      for another processor
#
# COMPRESS=gzip is quicker and larger. Needs Go, dpkg-deb (package dpkg) and gzip, neither root nor the network. The
# same commit gives the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-dist}
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
umask 022

go=${GO:-go}
goarch=$("$go" env GOARCH)
case $goarch in
arm) arch=armhf ;;
386) arch=i386 ;;
ppc64le) arch=ppc64el ;;
*) arch=$goarch ;;
esac

export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || date +%s)}
number=$(sed -n 's/^const version = "\(.*\)"$/\1/p' main.go)
version=$number
if ! git describe --exact-match --match "v$number" > /dev/null 2>&1; then
  # Before its release: below the release's number, and rising with time.
  version=$number~$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).$(git rev-parse --short=9 HEAD 2> /dev/null || echo source)
fi

# --- the program, and what it says of itself --------------------------------

install -d "$tree/usr/bin"
CGO_ENABLED=0 "$go" build -trimpath -ldflags='-s -w' -o "$tree/usr/bin/muster" .
chmod 0755 "$tree/usr/bin/muster"
say=$tree/usr/bin/muster
if [ "$goarch" != "$("$go" env GOHOSTARCH)" ]; then
  say=$tree/host-muster
  GOARCH=$("$go" env GOHOSTARCH) CGO_ENABLED=0 "$go" build -trimpath -o "$say" .
fi

shell() { # NAME FILE
  install -d "$tree/$(dirname "$2")"
  "$say" completion "$1" > "$tree/$2"
}
shell bash usr/share/bash-completion/completions/muster
shell zsh usr/share/zsh/vendor-completions/_muster
shell fish usr/share/fish/vendor_completions.d/muster.fish

install -d "$tree/usr/share/man/man1"
{
  printf '.TH MUSTER 1 "%s" "Muster %s" "User Commands"\n' "$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%d)" "$number"
  cat packaging/muster.1.head
  printf '.SH COMMANDS\n.nf\n'
  "$say" help | sed -n '/^Commands:/,$p' | sed -e 1,2d -e 's/\\/\\\\/g' -e 's/-/\\-/g' -e "s/^[.']/\\\\\&&/"
  printf '.fi\n'
  cat packaging/muster.1.tail
} | gzip -9n > "$tree/usr/share/man/man1/muster.1.gz"
rm -f "$tree/host-muster"

# --- settings, unit, documents -----------------------------------------------

install -Dm 0644 packaging/muster.yaml "$tree/etc/muster/muster.yaml"
install -Dm 0644 packaging/muster.service "$tree/lib/systemd/system/muster.service"
install -Dm 0644 packaging/muster.sysusers "$tree/usr/lib/sysusers.d/muster.conf"
doc=$tree/usr/share/doc/muster
install -d "$doc/examples"
cp packaging/monitoring/*.json packaging/monitoring/*.yaml "$doc/examples/"
{
  printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nSource: https://github.com/muster-hub/muster\n\n'
  printf 'Files: *\nCopyright: 2026 the authors of Muster\nLicense: Apache-2.0\n On Debian systems the text of this license is in\n /usr/share/common-licenses/Apache-2.0.\n'
} > "$doc/copyright"
printf 'muster (%s) stable; urgency=medium\n\n  * See https://github.com/muster-hub/muster for what changed.\n\n -- The authors of Muster <muster@muster-hub.invalid>  %s\n' \
  "$version" "$(LC_ALL=C date -u -d "@$SOURCE_DATE_EPOCH" -R)" | gzip -9n > "$doc/changelog.gz"
install -d "$tree/usr/share/lintian/overrides"
printf '%s\n' '# Only where systemd runs.' 'muster: maintainer-script-calls-systemctl *' '# Go programs are linked statically.' 'muster: statically-linked-binary [usr/bin/muster]' > "$tree/usr/share/lintian/overrides/muster"

# --- control -------------------------------------------------------------------

install -d "$tree/DEBIAN"
for script in postinst prerm postrm; do
  install -m 0755 "packaging/deb/$script" "$tree/DEBIAN/$script"
done
echo /etc/muster/muster.yaml > "$tree/DEBIAN/conffiles"
(cd "$tree" && find etc lib usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) > "$tree/DEBIAN/md5sums"
cat > "$tree/DEBIAN/control" << END
Package: muster
Version: $version
Architecture: $arch
Maintainer: The authors of Muster <muster@muster-hub.invalid>
Installed-Size: $(du -sk --apparent-size "$tree" | cut -f1)
Depends: adduser
Recommends: ca-certificates
Section: net
Priority: optional
Homepage: https://github.com/muster-hub/muster
Description: device hub that speaks Azure IoT Hub's protocols
 Devices connect to it as to Azure IoT Hub, with Microsoft's unmodified SDKs,
 over MQTT, WebSocket or HTTPS; applications manage them by REST and people on
 the command line. It is one program with its data in one directory.
END
chmod 0755 "$tree"
find "$tree" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +

mkdir -p "$out"
dpkg-deb --root-owner-group "-Z${COMPRESS:-xz}" --build "$tree" "$out/muster_${version}_$arch.deb"
