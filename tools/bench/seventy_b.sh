#!/usr/bin/env bash
# The 70B shape (llama-3-70b, random weights, int4, about 39 GB) on this machine: synth, plan, run; the peak of memory against the budget.
# Needs 45 GB of disk, which it gives back.
#
# Usage: tools/bench/seventy_b.sh [FOLDER] [RAM_BUDGET]    default: a folder under $TMPDIR, what is free less 4 GiB
# Writes its report to stdout. KEEP=1 keeps the model; a model that is already there is used. SHAPE=llama-3-8b tries the script itself.
# TOKENS (8), PROMPT (200), ROUNDS (1) as in streaming.sh.
set -euo pipefail
folder=${1:-$(mktemp -d)}
budget=${2:-$(awk '/MemAvailable/ {print int($2 / 1024) - 4096 "M"}' /proc/meminfo)}
sluice=${SLUICE:-build/release/tools/sluice}
shape=${SHAPE:-llama-3-70b}
model=$folder/$shape.sluice
here=$(dirname "$0")
[ "${KEEP:-0}" = 1 ] || trap 'rm -f "$model" "$model".partial "$model".partial.journal' EXIT

mkdir -p "$folder"
echo "$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-), $(nproc) processors, $(free -g | awk '/Mem:/ {print $2}') GiB; commit $(git -C "$here" rev-parse --short HEAD)"
echo
if [ ! -f "$model" ]; then
  free_kib=$(df --output=avail "$folder" | tail -1)
  [ "$shape" != llama-3-70b ] || [ "$free_kib" -ge $((45 * 1024 * 1024)) ] || {
    echo "$folder has $((free_kib >> 20)) GiB free, 45 are needed" >&2
    exit 1
  }
  begin=$(date +%s.%N)
  "$sluice" synth --shape "$shape" -o "$model" --quiet
  size=$(stat -c %s "$model")
  awk -v size="$size" -v begin="$begin" -v end="$(date +%s.%N)" \
    'BEGIN { printf "synth: %.2f GB in %.1f s, %.2f GB/s\n\n", size / 1e9, end - begin, size / 1e9 / (end - begin) }'
fi
"$sluice" plan "$model" --ram "$budget" --ctx 512 --measure --quiet
echo
# Its tokens against those of a run in three quarters of the budget: without a bound it would take all the memory there is.
mib=$(python3 -c 'import sys; t = sys.argv[1]; print(int(float(t[:-1]) * {"M": 1, "G": 1024}[t[-1]]))' "$budget")
CONTEXT=512 TOKENS=${TOKENS:-8} PROMPT=${PROMPT:-200} ROUNDS=${ROUNDS:-1} REFERENCE="--ram $((mib * 3 / 4))M" \
  "$here/streaming.sh" "$model" "$sluice" "$budget" | tail -n +3
