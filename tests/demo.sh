#!/bin/sh
# demo.sh WMTPC RUN_DIR: critic, then verifiable from its value head, on the sample data; then the curves.
set -eu
wmtpc=$1
dir=$2
rm -rf "$dir-critic" "$dir"
echo "== critic: a value head learns which answers are right (policy frozen)"
"$wmtpc" run graphs/critic.wg -c configs/demo.yaml checkpoint.save_dir="$dir-critic" training.n_epochs=1 lr=3e-3
critic=$(ls -d "$dir-critic"/step-* | tail -1)
echo "== verifiable: tokens weigh by how much they raised the expected reward; value head from $critic"
"$wmtpc" run graphs/verifiable.wg -c configs/demo.yaml checkpoint.save_dir="$dir" models.value.path="$critic" lr=1e-3
"$wmtpc" show "$dir"
"$wmtpc" show "$dir" -o "$dir/loss.svg"
echo "picture: $dir/loss.svg"
