#!/usr/bin/env bash
# Perplexity of a text with every table of operations that this processor runs, and how far each is from that of ref.
#
# Usage: tools/bench/table_perplexity.sh MODEL.sluice TEXT [WINDOWS]    SLUICE is the program
# ref is slow: about half a minute for each window of 512 tokens of a model of 135 million weights.
set -euo pipefail
model=${1:?a .sluice file}
text=${2:?a text}
windows=${3:-4}
sluice=${SLUICE:-build/release/tools/sluice}

perplexity() { # table; nothing if it does not run here
  "$sluice" eval "$model" --text "$text" --windows "$windows" --isa "$1" --json --quiet 2>/dev/null |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["perplexity"])' 2>/dev/null
}
reference=$(perplexity ref)
printf '| | perplexity of %s windows | beside ref |\n|---|---|---|\n| ref | %.5f | |\n' "$windows" "$reference"
for table in avx2 avx512 amx; do
  value=$(perplexity "$table") || continue
  python3 -c 'import sys; a, b = map(float, sys.argv[2:]); print(f"| {sys.argv[1]} | {a:.5f} | {a / b - 1:+.4%} |")' \
    "$table" "$value" "$reference"
done
