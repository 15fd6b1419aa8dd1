#!/bin/sh
# run.sh JOBS: everything that `make test` means. Builds with gcc, clang and the sanitizers; runs all tests in the first
# and the third; fuzzes each parser for a few seconds. Any failure ends it.
set -eu
jobs=$1
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
step() { echo "== $1"; }
step "build with gcc"
CC=gcc cmake -G Ninja -S . -B build > /dev/null
ninja -C build -j "$jobs" --quiet
step "tests"
(cd build && ctest --output-on-failure -j "$jobs" --timeout 600)
step "build with AddressSanitizer and UndefinedBehaviorSanitizer"
CC=gcc cmake -G Ninja -S . -B build-asan -DWM_SANITIZE=ON -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g1" > /dev/null
ninja -C build-asan -j "$jobs" --quiet
step "tests under the sanitizers"
(cd build-asan && ctest --output-on-failure -j "$jobs" --timeout 900 -LE slow)
step "build with clang, fuzz targets"
CC=clang cmake -G Ninja -S . -B build-fuzz -DWM_FUZZ=ON -DWM_SANITIZE=ON -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g1" > /dev/null
ninja -C build-fuzz -j "$jobs" --quiet
sh tests/fuzz.sh build-fuzz "${FUZZ_SECONDS:-4}"
echo "all tests passed"
