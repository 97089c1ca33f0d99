#!/usr/bin/env bash
# A model in less memory than it has: tokens/s at several budgets against what the drive and the memory allow, what plan
# predicted, the peak of memory, and the tokens of an unlimited run. Each run is inside a memory cgroup of the budget where one can
# be made (version 1 or 2, as root).
#
# Usage: tools/bench/streaming.sh MODEL.sluice [SLUICE] [BUDGET ...]    budgets such as 2200M; default: 25, 50, 75, 100% of the file
# Writes a Markdown table to stdout, and rows of JSON to $JSON if that is set.
set -euo pipefail
model=${1:?a .sluice file}
sluice=${2:-build/release/tools/sluice}
shift $(($# < 2 ? $# : 2))
size_mib=$(($(stat -c %s "$model") >> 20))
if [ $# -gt 0 ]; then
  budgets=("$@")
else
  budgets=("$((size_mib / 4))M" "$((size_mib / 2))M" "$((size_mib * 3 / 4))M" "$((size_mib + 700))M")
fi
tokens=${TOKENS:-12}
context=${CONTEXT:-512}

group=
make_group() { # MiB
  group=
  if [ -d /sys/fs/cgroup/memory ] && mkdir -p /sys/fs/cgroup/memory/sluice_bench 2>/dev/null; then
    group=/sys/fs/cgroup/memory/sluice_bench
    echo "$1M" >"$group/memory.limit_in_bytes"
    echo 0 >"$group/memory.max_usage_in_bytes" 2>/dev/null || true
  elif [ -f /sys/fs/cgroup/cgroup.controllers ] && mkdir -p /sys/fs/cgroup/sluice_bench 2>/dev/null; then
    group=/sys/fs/cgroup/sluice_bench
    echo "$1M" >"$group/memory.max" && echo 0 >"$group/memory.swap.max" || group=
  fi
}
peak_and_kills() { # what the control group saw: bytes, kills
  if [ -z "$group" ]; then
    echo "0 0"
  elif [ -f "$group/memory.max_usage_in_bytes" ]; then
    echo "$(cat "$group/memory.max_usage_in_bytes") $(sed -n 's/^oom_kill //p' "$group/memory.oom_control")"
  else
    echo "$(cat "$group/memory.peak" 2>/dev/null || echo 0) $(sed -n 's/^oom_kill //p' "$group/memory.events")"
  fi
}
inside_group() {
  if [ -n "$group" ]; then
    bash -c 'echo $$ >"$0/cgroup.procs"; exec "$@"' "$group" "$@"
  else
    "$@"
  fi
}
field() { python3 -c 'import json, sys; v = json.load(open(sys.argv[1]))
for k in sys.argv[2].split("."): v = v[k]
print(v)' "$1" "$2"; }

work=$(mktemp -d)
trap 'rm -rf "$work"; [ -z "$group" ] || rmdir "$group" 2>/dev/null || true' EXIT
run() { # options
  "$sluice" run "$model" --raw -p "The history of the railway begins with" --temp 0 -n "$tokens" --ctx "$context" --ignore-eos --json --quiet "$@"
}
run >"$work/unlimited.json" 2>/dev/null || true

echo "$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-), $(nproc) processors; commit $(git -C "$(dirname "$0")" rev-parse --short HEAD); $(basename "$model"), $size_mib MiB; $tokens tokens after a prompt, context $context"
echo
echo "| RAM budget | streamed per token | tokens/s | drive, GB/s (best of bench io) | share of drive / streamed | plan: tokens/s | off by | peak in the cgroup | oom_kill | same tokens |"
echo "|---|---|---|---|---|---|---|---|---|---|"
for budget in "${budgets[@]}"; do
  mib=$(python3 -c 'import sys; t = sys.argv[1]; print(int(float(t[:-1]) * {"M": 1, "G": 1024}[t[-1]]))' "$budget")
  "$sluice" plan "$model" --ram "$budget" --ctx "$context" --measure --json --quiet >"$work/plan.json"
  make_group "$mib"
  inside_group "$sluice" run "$model" --raw -p "The history of the railway begins with" --temp 0 -n "$tokens" --ctx "$context" \
    --ignore-eos --json --quiet --ram "$budget" >"$work/run.json"
  seen=$(peak_and_kills)
  [ -z "$group" ] || rmdir "$group"
  group=
  "$sluice" bench io "$model" -o json --quiet >"$work/io.json" 2>/dev/null
  python3 - "$work" "$budget" "$seen" <<'PY'
import json, os, sys
work, budget, seen = sys.argv[1:]
plan, run, io = (json.load(open(f"{work}/{n}.json")) for n in ("plan", "run", "io"))
drive = io[-1]["bytes_per_s"]
streamed = plan["tiers"]["disk"]["streamed_bytes_per_pass"]
speed = run["timings"]["decode_tokens_per_s"]
predicted = plan["decode"]["tokens_per_s"]
peak, kills = (int(x) for x in seen.split())
try:
    same = json.load(open(f"{work}/unlimited.json"))["tokens"] == run["tokens"]
except (OSError, ValueError):
    same = None
share = f"{speed / (drive / streamed):.3f}" if streamed else "-"
print(f"| {budget} | {streamed / 2**20:.0f} MiB | {speed:.3f} | {drive / 1e9:.2f} | {share} | {predicted:.3f} | {100 * (predicted / speed - 1):+.1f}% | "
      f"{peak / 2**20:.0f} MiB | {kills} | {'yes' if same else 'unknown' if same is None else 'NO'} |")
if os.environ.get("JSON"):
    with open(os.environ["JSON"], "a") as out:
        json.dump({"budget": budget, "streamed": streamed, "tokens_per_s": speed, "drive": drive, "predicted": predicted, "peak": peak, "kills": kills, "same": same}, out)
        out.write("\n")
PY
done
