#!/usr/bin/env bash
# One table of the places that weights can be in and the ways in which they are read: the logits of all are the same to the bit.
#
# Usage: tools/bench/same_logits.sh MODEL.sluice [SLUICE]    a model of 64 MiB or more, so that something streams
# ISA: the instruction set (default: the fastest). Writes a Markdown table to stdout; exit code 1 if any logits differ.
set -euo pipefail
model=${1:?a .sluice file}
sluice=${2:-build/release/tools/sluice}
isa=(${ISA:+--isa "$ISA"})
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -c 'for line in range(3): print(*((line * 7919 + i * 104729) % 997 + 3 for i in range(96)))' >"$work/ids"
# Bytes: the smallest budget that works, and all of it.
read -r smallest whole < <("$sluice" plan "$model" --ctx 96 --json --quiet |
  python3 -c 'import json, sys; p = json.load(sys.stdin); print(p["ram_smallest_bytes"], p["ram_for_all_bytes"])')
part() { echo $((((smallest + (whole - smallest) * $1 / 100) >> 20) + 1))M; } # PERCENT

echo "$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-); commit $(git -C "$(dirname "$0")" rev-parse --short HEAD); $(basename "$model")${ISA:+, $ISA}"
echo
echo "| weights | options | SHA-256 of the logits | as in the first row |"
echo "|---|---|---|---|"
first=
bad=0
row() { # NAME OPTION ...
  local name=$1
  shift
  "$sluice" eval "$model" --tokens "$work/ids" --logits "$work/logits.npy" --ctx 96 --quiet "${isa[@]}" "$@" 2>"$work/err" || { cat "$work/err" >&2; exit 1; }
  local sum
  sum=$(sha256sum "$work/logits.npy" | cut -c1-16)
  first=${first:-$sum}
  local same=yes
  if [ "$sum" != "$first" ]; then same=NO bad=1; fi
  echo "| $name | \`$*\` | $sum | $same |"
}
row "all in memory" --io auto
row "all in memory, one thread" --threads 1
row "mapped" --io mmap
for percent in 75 50 25 0; do
  for io in uring pread; do
    row "$percent% of what may stream in memory" --ram "$(part $percent)" --io "$io"
  done
done
row "the first half of the layers on disk" --place "layers.0-14=disk" --ram "$(part 90)"
row "all feed-forward parts on disk" --place "ffn=disk" --ram "$(part 90)"
exit $bad
