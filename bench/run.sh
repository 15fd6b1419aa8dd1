#!/bin/sh
# run.sh: wmtpc beside PyTorch, in pairs, on this machine.
#     bench/run.sh [options of bench/measure.py: --model tiny --stages baseline,rho1 --pairs 3 --threads 2 ..]
# PyTorch: $TORCH_PYTHON names a Python that has it; else bench/.venv, which --install makes (several GB of downloads).
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
if [ "${1:-}" = --install ]; then
    shift
    python3 -m venv bench/.venv
    bench/.venv/bin/pip install --quiet torch
fi
python=${TORCH_PYTHON:-bench/.venv/bin/python}
if ! "$python" -c 'import torch' 2> /dev/null; then
    echo "no PyTorch: set TORCH_PYTHON=/path/to/python, or let bench/run.sh --install make bench/.venv" >&2
    exit 69
fi
build=${BUILD:-build}
if [ ! -x "$build/wmtpc" ]; then
    cmake -G Ninja -S . -B "$build" > /dev/null
    ninja -C "$build" wmtpc
fi
exec python3 bench/measure.py --torch-python "$python" --wmtpc "$build/wmtpc" "$@"
