#!/usr/bin/env bash
# The 70B shape (llama-3-70b, random weights, int4, about 39 GB) on this machine: synth, plan, run; the peak of memory against the budget.
# Needs 45 GB of disk, which it gives back.
#
# Usage: tools/bench/seventy_b.sh [FOLDER] [RAM_BUDGET]    default: a folder under $TMPDIR, 20G
# Writes its report to stdout. KEEP=1 keeps the model; a model that is already there is used.
set -euo pipefail
folder=${1:-$(mktemp -d)}
budget=${2:-20G}
sluice=${SLUICE:-build/release/tools/sluice}
model=$folder/70b.sluice
[ "${KEEP:-0}" = 1 ] || trap 'rm -f "$model" "$model.partial"' EXIT

mkdir -p "$folder"
if [ ! -f "$model" ]; then
  free_kib=$(df --output=avail "$folder" | tail -1)
  [ "$free_kib" -ge $((45 * 1024 * 1024)) ] || {
    echo "$folder has $((free_kib >> 20)) GiB free, 45 are needed" >&2
    exit 1
  }
  "$sluice" synth --shape llama-3-70b -o "$model"
fi
echo "$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-), $(nproc) processors, $(free -g | awk '/Mem:/ {print $2}') GiB; commit $(git -C "$(dirname "$0")" rev-parse --short HEAD)"
echo
"$sluice" plan "$model" --ram "$budget" --ctx 512 --measure --quiet
echo
CONTEXT=512 TOKENS=8 "$(dirname "$0")/streaming.sh" "$model" "$sluice" "$budget" | tail -n +3
