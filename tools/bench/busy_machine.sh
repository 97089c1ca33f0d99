#!/usr/bin/env bash
# Decoding speed on an idle machine and beside busy loops, one for each processor; medians of five, alternating.
#
# Usage: tools/bench/busy_machine.sh MODEL [SLUICE]
set -euo pipefail
model=${1:?a model}
sluice=${2:-build/release/tools/sluice}

speed() {
  "$sluice" run "$model" -p "Write a long story about the sea." -n 120 --temp 0 --json 2>/dev/null |
    python3 -c 'import json, sys; print(round(json.load(sys.stdin)["timings"]["decode_tokens_per_s"], 1))'
}
beside_loops() {
  local loops=()
  for _ in $(seq "$(nproc)"); do
    while :; do :; done &
    loops+=($!)
  done
  speed
  kill "${loops[@]}"
  wait "${loops[@]}" 2>/dev/null || true
}
median() { sort -n | sed -n 3p; }

idle=() busy=()
for _ in 1 2 3 4 5; do
  idle+=("$(speed)")
  busy+=("$(beside_loops)")
done
printf 'idle %s tokens/s (%s), beside %s busy loops %s tokens/s (%s)\n' "$(printf '%s\n' "${idle[@]}" | median)" "${idle[*]}" \
  "$(nproc)" "$(printf '%s\n' "${busy[@]}" | median)" "${busy[*]}"
