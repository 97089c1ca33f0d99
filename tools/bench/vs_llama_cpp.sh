#!/usr/bin/env bash
# sluice beside llama.cpp, alternating in one run: prefill, decoding, decoding behind a long context, several sequences side by side.
#
# Usage: tools/bench/vs_llama_cpp.sh CASE ...
#   CASE is NAME,MODEL.gguf,MODEL.sluice,PROMPT_TOKENS,NEW_TOKENS,SEQUENCES; both files with the same weights (sluice convert --quant keep).
# PYTHON has llama-cpp-python (default python3), SLUICE is the program, ROUNDS how often (default 3), THREADS for both (default: all
# processors), QUIET a command that runs each measurement (none).
# Writes a Markdown table of medians to stdout, and with PLOT=FILE.svg a plot of the ratios.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
sluice=${SLUICE:-build/release/tools/sluice}
python=${PYTHON:-python3}
threads=${THREADS:-$(nproc)}
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT

for round in $(seq "${ROUNDS:-3}"); do
  for case in "$@"; do
    IFS=, read -r name gguf file prompt new sequences <<<"$case"
    ours=$(${QUIET:-} "$sluice" bench "$file" --threads "$threads" --prompt-tokens "$prompt" -n "$new" --sequences "$sequences" \
      --repeats 1 -o json --quiet)
    theirs=$(${QUIET:-} "$python" "$here/llama_cpp_speed.py" "$gguf" --threads "$threads" --prompt-tokens "$prompt" \
      --max-tokens "$new" --sequences "$sequences" --repeats 1)
    printf '%s\t%s\t%s\t%s\n' "$name" "$round" "$(tr -d '\n' <<<"$ours")" "$theirs" >>"$rows"
  done
done
"$python" "$here/vs_llama_cpp_table.py" "$rows" ${PLOT:+"$PLOT"}
