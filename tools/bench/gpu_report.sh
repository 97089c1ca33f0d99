#!/usr/bin/env bash
# Tests and speed of the CUDA operations on a GPU.
#
# Usage: tools/bench/gpu_report.sh pack FOLDER      here: builds for ARCHITECTURES (default 90) and puts all that a run needs
#                                                   into FOLDER, which a machine with nothing but a driver can run
#        FOLDER/gpu_report.sh run OUTPUT_FOLDER     there: report.md, bench.json and the logs, in less than 9 minutes
#
# A tool of the CUDA toolkit that is missing or does not run there is skipped and counted.
set -euo pipefail

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0"; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

pack() {
  local folder=$1 source build
  source=$(cd "$here/../.." && pwd)
  build=$source/build/gpu
  cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSLUICE_DEV=ON -DSLUICE_CUDA=ON \
    -DSLUICE_CUDA_ARCHITECTURES="${ARCHITECTURES:-90}" -DSLUICE_CUDA_PTX= >&2
  cmake --build "$build" --target kernels_test offload_test gpu_bench >&2
  mkdir -p "$folder/lib"
  cp "$build"/tests/{kernels_test,offload_test} "$build/tools/gpu_bench" "$here/gpu_report.sh" "$folder"
  strip "$folder"/{kernels_test,offload_test,gpu_bench}
  # The C library is the other machine's.
  ldd "$folder"/{kernels_test,offload_test,gpu_bench} | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
    grep -v -E '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*)\.so' | xargs -r cp -Lt "$folder/lib"
  git -C "$source" rev-parse --short HEAD >"$folder/commit"
  du -sh "$folder" >&2
}

passed=0 failed=0 skipped=0
# step NAME SECONDS COMMAND...: runs it; its output goes to NAME.log
step() {
  local name=$1 seconds=$2
  shift 2
  if timeout "$seconds" "$@" >"$out/$name.log" 2>&1; then
    passed=$((passed + 1)) && echo "- $name: passed" >>"$out/report.md"
  else
    failed=$((failed + 1)) && echo "- $name: FAILED ($?), see $name.log" >>"$out/report.md"
  fi
}

run() {
  out=$1
  mkdir -p "$out"
  export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  {
    echo "# CUDA operations on a GPU"
    echo
    echo "Commit $(cat "$here/commit"), $(date -u +%F), $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || echo 'no nvidia-smi')"
    echo
  } >"$out/report.md"
  local gpu_tests='*CudaDevice*/Gpu'
  step kernels 90 "$here/kernels_test" --gtest_filter="$gpu_tests"
  step device 60 "$here/offload_test" --gtest_filter='Device.*Gpu*'
  # A test that skips itself passes: without a GPU that is no result.
  if grep -q SKIPPED "$out/kernels.log" "$out/device.log"; then
    failed=$((failed + 1))
    echo "- tests were skipped: no GPU was used" >>"$out/report.md"
  fi
  for tool in memcheck racecheck; do
    if command -v compute-sanitizer >/dev/null && timeout 40 compute-sanitizer --tool "$tool" "$here/kernels_test" \
      --gtest_filter='*CudaDevice.SmallOperations*/Gpu' >"$out/$tool-probe.log" 2>&1; then
      step "$tool" 100 compute-sanitizer --tool "$tool" --error-exitcode 9 "$here/kernels_test" --gtest_filter="$gpu_tests"
    else
      skipped=$((skipped + 1))
      echo "- $tool: skipped, compute-sanitizer is missing or does not run here" >>"$out/report.md"
    fi
  done
  step bench 150 "$here/gpu_bench" "$out/bench.json"
  {
    echo
    cat "$out/bench.log"
    echo
    echo "$passed passed, $failed failed, $skipped skipped"
  } >>"$out/report.md"
  cat "$out/report.md"
  [ "$failed" -eq 0 ]
}

case "${1:-}" in
  pack) pack "${2:?a folder}" ;;
  run) run "${2:?a folder for the results}" ;;
  -h | --help) usage ;;
  *) usage >&2; exit 2 ;;
esac
