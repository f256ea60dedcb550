#!/usr/bin/env bash
# Installs Debian packages that are missing: hack/install-debian.sh PACKAGE ...
set -euo pipefail
missing=()
for package in "$@"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ "${#missing[@]}" -eq 0 ] && exit 0
sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)
for needed in apt-get "${sudo[@]}"; do
  command -v "$needed" >/dev/null || { echo "install these first (Debian's names): ${missing[*]}" >&2; exit 1; }
done
echo "installing Debian packages: ${missing[*]}"
"${sudo[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
