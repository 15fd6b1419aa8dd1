#!/bin/sh
# run.sh JOBS: everything that `make test` means. Builds with gcc, with gcc and the sanitizers, and with clang (fuzz targets);
# fuzzes each parser for a few seconds; runs all tests under the sanitizers, then in the plain build, whose summary is the
# last thing printed. Any failure ends it.
set -eu
jobs=$1
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
began=$(date +%s)
step() { echo "== $1 ($(($(date +%s) - began)) s)"; }
# Compiled kernels are kept here for all three builds: they are the same.
export WMTPC_CACHE="$root/build/run-cache"
build() { # build FOLDER COMPILER OPTIONS..
    folder=$1 compiler=$2
    shift 2
    CC=$compiler cmake -G Ninja -S . -B "$folder" "$@" > "$root/$folder.log" 2>&1 || { cat "$root/$folder.log"; exit 1; }
    rm -f "$root/$folder.log"
    ninja -C "$folder" -j "$jobs" --quiet
}
tests() { # tests FOLDER OPTIONS..
    folder=$1
    shift
    (cd "$folder" && ctest --output-on-failure -j "$jobs" --timeout 1500 "$@")
}
step "build with gcc"
build build gcc
step "build with gcc, AddressSanitizer and UndefinedBehaviorSanitizer"
build build-asan gcc -DWM_SANITIZE=ON "-DWM_TEST_CACHE=$root/build" -DCMAKE_BUILD_TYPE=Debug "-DCMAKE_C_FLAGS_DEBUG=-O1 -g1"
step "build with clang, the sanitizers and libFuzzer"
build build-fuzz clang -DWM_FUZZ=ON -DWM_SANITIZE=ON -DCMAKE_BUILD_TYPE=Debug "-DCMAKE_C_FLAGS_DEBUG=-O1 -g1"
step "fuzz"
sh tests/fuzz.sh build-fuzz "${FUZZ_SECONDS:-4}"
step "tests under the sanitizers"
tests build-asan -LE slow
step "tests"
tests build
