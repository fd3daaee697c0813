#!/usr/bin/env bash
# debian_packages.sh NAME...: installs those that are missing; without root it says which they are. On other systems CMake does.
set -euo pipefail

command -v dpkg-query >/dev/null && command -v apt-get >/dev/null || exit 0
missing=()
for name in "$@"; do
    [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "Debian packages are missing. Install them: sudo apt-get install ${missing[*]}" >&2
    exit 1
fi
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
