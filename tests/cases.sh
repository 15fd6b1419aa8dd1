#!/bin/sh
# cases.sh REPLAY PYTHON CASE..: each recorded case in f64 and f32, judged by compare.py; in f64 also without fusion, which
# must give the same bits.
set -eu
replay=$1 python=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
out=$(mktemp -d "${TMPDIR:-/tmp}/wm_case_XXXXXX")
trap 'rm -rf "$out"' EXIT
for case in "$@"; do
    [ -d "$case" ] || continue
    for dtype in f64 f32; do
        "$replay" "$case" --out "$out/$dtype" --dtype $dtype
        "$python" "$here/compare.py" "$case" "$out/$dtype" --dtype $dtype
    done
    "$replay" "$case" --out "$out/plain" --off fuse
    cmp "$out/f64/got.safetensors" "$out/plain/got.safetensors"
    cmp "$out/f64/got.json" "$out/plain/got.json"
done
