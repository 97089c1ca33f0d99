#!/usr/bin/env bash
# Tests and speed on a GPU, in one call of less than 9 minutes on a machine that has a driver and nothing else of sluice.
#
# Usage: tools/bench/gpu_report.sh pack FOLDER [MODEL TOKENS]   here: builds for ARCHITECTURES (default 90) and puts all that a run needs into FOLDER.
#            MODEL (.sluice, at most 30 MiB) and TOKENS (lines of token ids) are for the comparison with the processor: tools/bench/cut_model.py
#        FOLDER/gpu_report.sh --dry-run                          anywhere: checks the files, their size and libraries, and prints the steps
#        FOLDER/gpu_report.sh run OUTPUT_FOLDER                  there: report.md, results.json, bench.json and logs.tar.gz, written step by step
#
# TOTAL_S (default 520) bounds the run, SCRATCH (default a temporary folder) holds the models that are made there.
# A tool of the CUDA toolkit that is missing or does not run there is skipped and counted.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
programs="sluice kernels_test offload_test gpu_bench"
most_mib=52  # the repository goes along, and 64 may go in all
usage() { sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

pack() {
  set -e
  local folder=$1 source build
  source=$(cd "$here/../.." && pwd)
  build=$source/build/gpu
  cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSLUICE_DEV=ON -DSLUICE_CUDA=ON ${CMAKE_OPTIONS:-} \
    -DSLUICE_CUDA_ARCHITECTURES="${ARCHITECTURES:-90}" -DSLUICE_CUDA_PTX= \
    -DCMAKE_BUILD_RPATH='$ORIGIN/lib' -DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags >&2
  cmake --build "$build" ${BUILD_OPTIONS:-} --target $programs >&2
  mkdir -p "$folder/lib"
  cp "$build/tools/sluice" "$build/tools/gpu_bench" "$build"/tests/{kernels_test,offload_test} "$folder"
  cp "$here"/{gpu_report.sh,compare_tables.py,cublas_rate.py,gpu_targets.py} "$folder"
  (cd "$folder" && strip $programs)
  # The C library is the other machine's. The others are found beside the programs, and by these alone:
  # through the environment they would also become those of that machine's python3.
  ldd "$build"/tools/{sluice,gpu_bench} "$build"/tests/{kernels_test,offload_test} | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
    grep -v -E '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*)\.so' | xargs -r cp -Lt "$folder/lib"
  if [ -n "${2:-}" ]; then
    cp "$2" "$folder/part.sluice"
    cp "$3" "$folder/part.tokens"
  fi
  git -C "$source" rev-parse --short HEAD >"$folder/commit"
  check "$folder" >&2
}

# Says what is missing or too large; fails if something is.
check() {
  local folder=$1 bad=0 mib
  for file in $programs compare_tables.py cublas_rate.py gpu_targets.py; do
    [ -x "$folder/$file" ] || { echo "missing: $file" && bad=1; }
  done
  for file in commit part.sluice part.tokens; do
    [ -s "$folder/$file" ] || { echo "missing: $file" && bad=1; }
  done
  for program in $programs; do
    ldd "$folder/$program" 2>&1 | grep 'not found' && bad=1
    ldd "$folder/$program" 2>&1 | grep -E '=> /' | grep -v -E "=> $(realpath "$folder")/|/(libc|libm|libdl|librt|libpthread)\.so" && bad=1
  done
  mib=$(du -sm "$folder" | cut -f1)
  echo "$mib MiB in all, $most_mib are allowed"
  [ "$mib" -le "$most_mib" ] || bad=1
  return $bad
}

# step NAME SECONDS COMMAND...: runs it for that long at most, or until the total is over; its output goes to NAME.log
step() {
  local name=$1 seconds=$2 begin=$SECONDS left=$((total_s - SECONDS)) status result
  shift 2
  if [ -n "$dry" ]; then
    printf '%-12s %4s s  %s\n' "$name" "$seconds" "$*"
    return 0
  fi
  [ "$seconds" -lt "$left" ] || seconds=$left
  if [ "$seconds" -lt 5 ]; then
    note "$name" skipped "no time is left" 0
    return 1
  fi
  timeout -k 5 "$seconds" "$@" >"$logs/$name.log" 2>&1
  status=$?
  result=passed
  [ $status -eq 0 ] || result="failed ($status)"
  [ $status -ne 124 ] || result="failed (more than $seconds s)"
  if grep -q '\[  SKIPPED \]' "$logs/$name.log"; then
    result="failed (tests were skipped: no GPU was used)" status=1
  fi
  note "$name" "$result" "" $((SECONDS - begin))
  return $status
}

# note NAME RESULT WHY SECONDS: into the report and the results; what there is so far is packed, so that an end at any time loses nothing
note() {
  case $2 in passed) passed=$((passed + 1)) ;; skipped) skipped=$((skipped + 1)) ;; *) failed=$((failed + 1)) ;; esac
  echo "- $1: $2${3:+, $3} ($4 s)" >>"$out/report.md"
  printf '%s{"step": "%s", "result": "%s", "seconds": %s}' "${results:+,
 }" "$1" "$2" "$4" >>"$logs/steps"
  results=1
  printf '{"commit": "%s", "passed": %s, "failed": %s, "skipped": %s, "steps": [\n %s]}\n' "$(cat "$here/commit")" \
    $passed $failed $skipped "$(cat "$logs/steps")" >"$out/results.json"
  tar -C "$logs" -czf "$out/logs.tar.gz" .
}

# table TITLE FILE: its lines, as they are, into the report
table() { [ -n "$dry" ] || { printf '\n## %s\n\n' "$1" && cat "$2" && echo; } >>"$out/report.md" 2>/dev/null; }
code() { [ -n "$dry" ] || { printf '\n## %s\n\n```\n' "$1" && tail -n 40 "$2" && printf '```\n'; } >>"$out/report.md" 2>/dev/null; }

# The most memory that the driver counted while a command ran.
watched() {
  local peak=0 used pid
  "$@" &
  pid=$!
  while kill -0 $pid 2>/dev/null; do
    used=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -i 0 2>/dev/null | head -1)
    case $used in '' | *[!0-9]*) ;; *) [ "$used" -le $peak ] || peak=$used ;; esac
    sleep 0.2
  done
  wait $pid
  local status=$?
  echo "the driver counted $peak MiB at most"
  return $status
}
export -f watched

# The same answer by recorded passes and by kernels that are started one by one, over more than one partition of the attention.
recorded() {
  local answer=(run "$1" --raw -p 'The sky is' --temp 0 -n 300 --ignore-eos --ctx 512 --isa cuda --vram 4G --quiet)
  "$here/sluice" "${answer[@]}" >"$scratch/recorded.txt" && "$here/sluice" "${answer[@]}" --trace "$scratch/trace.json" >"$scratch/started.txt" &&
    wc -c "$scratch/recorded.txt" && cmp "$scratch/recorded.txt" "$scratch/started.txt"
}
export -f recorded

# A tool of the toolkit runs on a few small kernels.
probe() {
  command -v compute-sanitizer >/dev/null && timeout -k 5 $((total_s - SECONDS < 40 ? total_s - SECONDS : 40)) compute-sanitizer --tool "$1" \
    "$here/kernels_test" --gtest_filter='*CudaDevice.SmallOperations*/Gpu' >"$logs/$1-probe.log" 2>&1
}

# Where cuBLASLt lies, if it is on the machine: in the toolkit or in a package of Python's. "." where the loader finds it by itself.
cublaslt_folder() {
  local folder packages
  ldconfig -p 2>/dev/null | grep -q 'libcublasLt\.so\.1[23] ' && echo . && return
  packages=$(python3 -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' 2>/dev/null)
  for folder in /usr/local/cuda*/lib64 /usr/local/cuda*/targets/x86_64-linux/lib "$packages"/nvidia/cu13/lib "$packages"/nvidia/cublas/lib; do
    for file in "$folder"/libcublasLt.so.1[23]; do
      [ -e "$file" ] && echo "$folder" && return
    done
  done
}

steps() {
  local sluice=$here/sluice part=$here/part.sluice tokens=$here/part.tokens
  local gpu_tests='*CudaDevice*/Gpu' large=$scratch/8b.sluice
  step doctor 20 "$sluice" doctor
  code "Machine" "$logs/doctor.log"
  step kernels 90 "$here/kernels_test" --gtest_filter="$gpu_tests"
  # Not for the sanitizers: it is tens of thousands of launches.
  step overlap 40 "$here/kernels_test" --gtest_filter='*CudaOverlap*/Gpu'
  step device 40 "$here/offload_test" --gtest_filter='Device.*Gpu*'

  # A part of a model, teacher-forced, on the GPU and on the processor.
  step exact 60 "$sluice" eval "$part" --tokens "$tokens" --logits "$scratch/exact.npy" --isa ref --kv f32
  step cpu 30 "$sluice" eval "$part" --tokens "$tokens" --logits "$scratch/cpu.npy" --vram 0
  step gpu 30 "$sluice" eval "$part" --tokens "$tokens" --logits "$scratch/gpu.npy" --isa cuda --vram 4G
  step gpu-again 30 "$sluice" eval "$part" --tokens "$tokens" --logits "$scratch/again.npy" --isa cuda --vram 4G
  step tokens 40 python3 "$here/compare_tables.py" "$tokens" "$scratch"/{exact,cpu,gpu,again}.npy
  code "SmolLM2's first layers against the processor" "$logs/tokens.log"

  step recorded 40 bash -c 'recorded "$@"' - "$part"

  # What multiplies prompts in f16 is not packed: the machine has it, or that is skipped.
  local f16 with_f16="env"
  f16=$(cublaslt_folder)
  [ "${f16:-.}" = . ] || with_f16="env LD_LIBRARY_PATH=$f16"
  if [ -n "$dry$f16" ]; then
    step f16-products 40 $with_f16 "$here/kernels_test" --gtest_filter='CublasLtOnGpu.*'
    code "Products in f16 through cuBLASLt" "$logs/f16-products.log"
    for name in f16 f16-again; do
      step $name 30 $with_f16 "$sluice" eval "$part" --tokens "$tokens" --logits "$scratch/$name.npy" --vram 4G --prefill f16
    done
    step tokens-f16 40 python3 "$here/compare_tables.py" "$tokens" "$scratch"/{exact,cpu,f16,f16-again}.npy
    code "The same with prompts in f16" "$logs/tokens-f16.log"
  else
    note f16-products skipped "there is no libcublasLt.so.13 or .12" 0
  fi

  step bench 140 $with_f16 "$here/gpu_bench" "$out/bench.json"
  table "Operations" "$logs/bench.log"

  # The shape of a model of 8 billion weights, all in GPU memory.
  if step synth 90 "$sluice" synth --shape llama-3-8b -o "$large" --quiet; then
    step vram 60 bash -c 'watched "$@"' - "$sluice" bench "$large" --isa cuda --vram 8G --prompt-tokens 512 -n 64 --repeats 2
    code "8B shape in --vram 8G, prompt of 512" "$logs/vram.log"
    step prefill 50 "$sluice" bench "$large" --isa cuda --prompt-tokens 4096 -n 32 --repeats 2
    code "8B shape, prompt of 4096" "$logs/prefill.log"
    if [ -n "$dry$f16" ]; then
      step prefill-f16 50 $with_f16 "$sluice" bench "$large" --prefill f16 --prompt-tokens 4096 -n 32 --repeats 2
      code "8B shape, prompt of 4096 in f16" "$logs/prefill-f16.log"
    fi
    step batch 50 "$sluice" bench "$large" --isa cuda --prompt-tokens 128 -n 64 --sequences 16 --repeats 2
    code "8B shape, 16 sequences" "$logs/batch.log"
  fi
  step cublas 40 python3 "$here/cublas_rate.py"
  code "cuBLAS, f16" "$logs/cublas.log"
  step targets 20 python3 "$here/gpu_targets.py" "$out/bench.json" "$logs"
  table "Targets" "$logs/targets.log"

  for tool in memcheck racecheck; do
    if [ -n "$dry" ] || { [ $((total_s - SECONDS)) -gt 5 ] && probe "$tool"; }; then
      step "$tool" 90 compute-sanitizer --tool "$tool" --error-exitcode 9 "$here/kernels_test" --gtest_filter="$gpu_tests"
      code "$tool" "$logs/$tool.log"
    else
      note "$tool" skipped "compute-sanitizer is missing or does not run here, or no time is left" 0
    fi
  done
}

run() {
  dry=${2:-}
  total_s=${TOTAL_S:-520} SECONDS=0 passed=0 failed=0 skipped=0 results=""
  if [ -n "$dry" ]; then
    out=OUT logs=LOGS scratch=SCRATCH
    check "$here"
    local bad=$?
    steps
    return $bad
  fi
  out=$1
  mkdir -p "$out" && out=$(cd "$out" && pwd)
  scratch=${SCRATCH:-$(mktemp -d)}
  logs=$scratch/logs
  mkdir -p "$logs"
  {
    echo "# sluice on a GPU"
    echo
    echo "Commit $(cat "$here/commit"), $(date -u +%F), $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo 'no nvidia-smi'), $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-)"
    echo
  } >"$out/report.md"
  export XDG_CACHE_HOME=$scratch/cache
  export PATH=$PATH:/usr/local/cuda/bin:/usr/local/nvidia/bin here scratch
  steps
  printf '\n%s passed, %s failed, %s skipped in %s s\n' $passed $failed $skipped $SECONDS >>"$out/report.md"
  [ -n "${SCRATCH:-}" ] || rm -rf "$scratch"
  cat "$out/report.md"
  [ "$failed" -eq 0 ]
}

case "${1:-}" in
  pack) pack "${2:?a folder}" "${3:-}" "${4:-}" ;;
  run) run "${2:?a folder for the results}" ;;
  --dry-run) run - dry ;;
  -h | --help) usage ;;
  *) usage >&2 && exit 2 ;;
esac
