#!/usr/bin/env bash
# Measures the figures of docs/results/first_answer.md with the demo model.
#
# Usage: tools/bench/first_answer.sh SLUICE MODEL.gguf TEXT
# SLUICE: the program; MODEL.gguf: SmolLM2-135M-Instruct.Q4_1.gguf; TEXT: wikitext2-valid.txt
set -euo pipefail
sluice=$1 gguf=$2 text=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
model=$work/model.sluice

echo "commit $(git -C "$(dirname "$0")" rev-parse --short HEAD); $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-), $(nproc) processors"
"$sluice" convert "$gguf" -o "$model" --quiet
for isa in ref avx2; do
  for kv in f32 f16; do
    echo "perplexity, $isa, KV $kv: $("$sluice" eval "$model" --text "$text" --windows 40 --isa "$isa" --kv "$kv" --quiet)"
  done
done
for run in 1 2 3 4 5; do
  "$sluice" run "$model" --raw -p "The history of the railway begins" --temp 0 -n 200 --json --quiet |
    python3 -c 'import json, sys; t = json.load(sys.stdin)["timings"]; print("decode, run '"$run"': %.1f tokens/s" % t["decode_tokens_per_s"])'
done
