#!/bin/sh
# fuzz.sh BUILD SECONDS: runs each libFuzzer target of BUILD for SECONDS, starting from its committed corpus.
set -eu
build=$1
seconds=$2
CC=clang cmake -G Ninja -S . -B "$build" -DWM_FUZZ=ON -DWM_SANITIZE=ON -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g1" > /dev/null
ninja -C "$build" --quiet
for f in tests/fuzz/fuzz_*.c; do
    name=$(basename "$f" .c)
    short=${name#fuzz_}
    work=$(mktemp -d)
    dict=""
    [ -f "tests/fuzz/$short.dict" ] && dict="-dict=tests/fuzz/$short.dict"
    if ! "$build/tests/$name" $dict -max_total_time="$seconds" -max_len=65536 -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="$work/" "$work" "tests/fuzz/corpus/$short" > "$work/log" 2>&1; then
        tail -40 "$work/log"
        echo "fuzz $short: FAILED, input kept in $work"
        exit 1
    fi
    echo "fuzz $short: $(grep -o 'number_of_executed_units: [0-9]*' "$work/log" | grep -o '[0-9]*') inputs, no failure"
    rm -rf "$work"
done
