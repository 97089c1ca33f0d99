#!/usr/bin/env bash
# A model in less memory than it has: tokens/s at several budgets against what the drive allows, what plan predicted, the peak of memory,
# the tokens of an unlimited run, and llama.cpp beside it. Each run is inside a memory cgroup of the budget where one can be made (version
# 1 or 2 under $CGROUP_ROOT, as root). Plan, drive, run, drive and llama.cpp follow each other; the drive's rate of a round is the mean of
# the two measurements around the run. The medians of $ROUNDS rounds are printed.
#
# Usage: tools/bench/streaming.sh MODEL.sluice [SLUICE] [BUDGET ...]    budgets such as 2200M; default: 25, 50, 75% of the file, and all
# ROUNDS (default 3), TOKENS (12; MEMORY_TOKENS, 40, where nothing streams), CONTEXT (512) and PROMPT (tokens of the prompt; default: what
# the context has room for, so that all the memory is used that the plan counts).
# REFERENCE: options of the run whose tokens are compared (default: none, a run without a bound).
# GGUF=FILE.gguf with PYTHON, which has llama-cpp-python: llama.cpp with mmap and without repacking, in the same cgroup (best: the same
# weights, `sluice convert --quant keep`). LLAMA_TOKENS (4).
# Writes a Markdown table to stdout, rows of JSON to $JSON, and a plot to $PLOT (SVG), where those are set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
model=${1:?a .sluice file}
sluice=${2:-build/release/tools/sluice}
shift $(($# < 2 ? $# : 2))
size_mib=$(($(stat -c %s "$model") >> 20))
if [ $# -gt 0 ]; then
  budgets=("$@")
else
  budgets=("$((size_mib / 4))M" "$((size_mib / 2))M" "$((size_mib * 3 / 4))M" "$((size_mib + 700))M")
fi
context=${CONTEXT:-512}
python=${PYTHON:-python3}
cgroups=${CGROUP_ROOT:-/sys/fs/cgroup}

group=
make_group() { # MiB
  group=
  if [ -d "$cgroups/memory" ] && mkdir -p "$cgroups/memory/sluice_bench" 2>/dev/null; then
    group=$cgroups/memory/sluice_bench
    echo "$1M" >"$group/memory.limit_in_bytes"
    echo 0 >"$group/memory.max_usage_in_bytes" 2>/dev/null || true
  elif [ -f "$cgroups/cgroup.controllers" ]; then
    echo +memory 2>/dev/null >"$cgroups/cgroup.subtree_control" || true
    mkdir -p "$cgroups/sluice_bench" 2>/dev/null && [ -f "$cgroups/sluice_bench/memory.max" ] || return 0
    group=$cgroups/sluice_bench
    echo "$1M" >"$group/memory.max"
    [ ! -f "$group/memory.swap.max" ] || echo 0 >"$group/memory.swap.max"
  fi
}
drop_group() {
  [ -z "$group" ] || for _ in 1 2 3 4 5; do if rmdir "$group" 2>/dev/null; then break; else sleep 0.2; fi; done
  group=
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

work=$(mktemp -d)
trap 'rm -rf "$work"; drop_group' EXIT
# What earlier runs left in the page cache is charged to nobody's budget: each run begins without it.
forget() {
  python3 -c 'import os, sys
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)' "$@"
}
head -c 500 /dev/zero | tr '\0' ' ' | sed 's/ / The history of the railway begins with roads of wood and stone./g' >"$work/text"
ids=$("$sluice" tokenize "$model" -f "$work/text" --no-special 2>/dev/null | wc -w)
run=("$sluice" run "$model" --raw --temp 0 --ctx "$context" --ignore-eos --json --quiet)
# Sets tokens, prompt_tokens (about so many, whatever the tokenizer is) and case: where the prompt and the unlimited run's answer lie.
choose_length() { # TOKENS
  tokens=$1
  prompt_tokens=${PROMPT:-$((context - tokens - 4))}
  case=$work/$prompt_tokens.$tokens
  [ ! -f "$case.json" ] || return 0
  head -c $((prompt_tokens * $(stat -c %s "$work/text") / (ids > 0 ? ids : 1))) "$work/text" >"$case.txt"
  # shellcheck disable=SC2086  # several options
  "${run[@]}" -f "$case.txt" -n "$tokens" ${REFERENCE:-} >"$case.json" 2>/dev/null || true
}

echo "$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-), $(nproc) processors; commit $(git -C "$here" rev-parse --short HEAD); $(basename "$model"), $size_mib MiB; ${TOKENS:-12} tokens (${MEMORY_TOKENS:-40} where nothing streams) after a prompt of ${PROMPT:-"the rest"}, context $context; medians of ${ROUNDS:-3}"
echo
"$here/streaming_table.py" head
for budget in "${budgets[@]}"; do
  mib=$(python3 -c 'import sys; t = sys.argv[1]; print(int(float(t[:-1]) * {"M": 1, "G": 1024}[t[-1]]))' "$budget")
  rm -f "$work"/round.*
  for round in $(seq "${ROUNDS:-3}"); do
    "$sluice" plan "$model" --ram "$budget" --ctx "$context" --measure --json --quiet >"$work/plan.json"
    streams=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["tiers"]["disk"]["streamed_bytes_per_pass"] > 0)' "$work/plan.json")
    if [ "$streams" = True ]; then choose_length "${TOKENS:-12}"; else choose_length "${MEMORY_TOKENS:-40}"; fi
    cp "$case.json" "$work/unlimited.json"
    "$sluice" bench io "$model" -o json --quiet >"$work/io_before.json" 2>/dev/null
    forget "$model"
    make_group "$mib"
    inside_group "${run[@]}" -f "$case.txt" -n "$tokens" --ram "$budget" >"$work/run.json" || echo '{}' >"$work/run.json"
    seen=$(peak_and_kills)
    drop_group
    "$sluice" bench io "$model" -o json --quiet >"$work/io.json" 2>/dev/null
    echo '{}' >"$work/llama.json"
    if [ -n "${GGUF:-}" ]; then
      forget "$GGUF"
      make_group "$mib"
      inside_group "$python" "$here/llama_cpp_speed.py" "$GGUF" --no-repack --threads "$(nproc)" --prompt-tokens 8 --max-tokens \
        "${LLAMA_TOKENS:-4}" --repeats 1 >"$work/llama.json" 2>"$work/llama.err" || echo '{}' >"$work/llama.json"
      drop_group
    fi
    "$here/streaming_table.py" round "$work" "$seen" >"$work/round.$round"
  done
  "$here/streaming_table.py" row "$budget" "$mib" "$work"/round.* | tee "$work/row.out" | sed -n 1p
  sed -n 2p "$work/row.out" >>"$work/rows.json"
done
if [ -n "${JSON:-}" ]; then cat "$work/rows.json" >>"$JSON"; fi
if [ -n "${PLOT:-}" ]; then "$here/streaming_table.py" plot "$work/rows.json" "$PLOT"; fi
