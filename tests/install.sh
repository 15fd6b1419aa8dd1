#!/bin/sh
# install.sh build|test: installs the Debian packages that are missing, as root or through sudo, and says which.
set -eu
need="gcc cmake ninja-build flex bison libyaml-dev libjansson-dev libxxhash-dev libunistring-dev libssl-dev"
if [ "${1:-build}" = test ]; then
    need="$need libcriterion-dev clang libclang-rt-14-dev clang-format python3 graphviz"
fi
missing=""
for p in $need; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
echo "installing:$missing"
as=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo > /dev/null || { echo "these packages are missing and need root to install:$missing" >&2; exit 69; }
    as=sudo
fi
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
if ! { $as apt-get update && $as apt-get install -y --no-install-recommends $missing; } > "$log" 2>&1; then
    cat "$log" >&2
    echo "the packages could not be installed:$missing" >&2
    exit 69
fi
rm -f "$log"
