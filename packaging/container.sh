#!/usr/bin/env bash
# Builds the container image: packaging/container.sh [NAME], default muster.
#
# Needs Go, one of buildah, podman and docker, and this machine's CA
# certificates; no base image, so nothing is fetched.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:-muster}
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
umask 022

for authorities in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
  [ -f "$authorities" ] && break
done
[ -f "$authorities" ] || { echo 'There are no CA certificates here: install the package ca-certificates.' >&2; exit 1; }
CGO_ENABLED=0 GOOS=linux "${GO:-go}" build -trimpath -ldflags='-s -w' -o "$context/muster" .
cp -L "$authorities" "$context/ca-certificates.crt"
mkdir -m 0700 "$context/data"
cp packaging/Containerfile "$context/"

# The docker format, since the other one knows no health check.
if command -v buildah > /dev/null; then
  exec buildah build --format docker --tag "$name" --file "$context/Containerfile" "$context"
elif command -v podman > /dev/null; then
  exec podman build --format docker --tag "$name" --file "$context/Containerfile" "$context"
elif command -v docker > /dev/null; then
  exec docker build --tag "$name" --file "$context/Containerfile" "$context"
fi
echo 'No container engine is here: install buildah, podman or docker.' >&2
exit 1
