#!/usr/bin/env bash
# Builds sluice with its tests and runs them: the release build, and the address and thread sanitizers.
#
# Usage: tools/test.sh [--full]
# --full: the thread sanitizer runs every test, a build by clang runs them too, and CUDA code is compiled for every GPU
set -euo pipefail

usage() { sed -n '2,5s/^# \{0,1\}//p' "$0"; }
full=OFF
case "${1:-}" in
  "") ;;
  --full) full=ON ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repository"
# shellcheck source-path=SCRIPTDIR source=packages.sh
. tools/packages.sh
ensure_packages "${BUILD_PACKAGES[@]}" libgtest-dev libgmock-dev libbenchmark-dev python3 clang

launcher=()
if command -v ccache >/dev/null; then
  launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
fi
presets=(release asan tsan)
if [ "$full" = ON ]; then
  presets+=(clang)
fi

# Names of tests begin with the sanitizer's.
all=build/all-tests
rm -rf "$all"
mkdir -p "$all"
for preset in "${presets[@]}"; do
  parts=0
  targets=(all)
  gpus=()
  case "$preset" in
    release) [ "$full" = OFF ] || gpus=("-DSLUICE_CUDA_ARCHITECTURES=80;86;89;90;120" "-DSLUICE_CUDA_PTX=80;120") ;;
    asan) parts=16 ;;
    # What threads meet in (tests/CMakeLists.txt).
    tsan) parts=16; [ "$full" = ON ] || targets=(offload_test runtime_test loaders_test) ;;
  esac
  # Fresh: a folder that another compiler was configured for would lose the settings given here.
  cmake --fresh --preset "$preset" "${launcher[@]}" -DSLUICE_DEV=ON -DSLUICE_TEST_PARTS="$parts" -DSLUICE_TSAN_ALL="$full" "${gpus[@]}" >&2
  cmake --build --preset "$preset" --target "${targets[@]}" >&2
  printf 'subdirs("%s")\n' "$repository/build/$preset" >>"$all/CTestTestfile.cmake"
done

export TSAN_OPTIONS=halt_on_error=1
export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1
cd "$all"
ctest --output-on-failure -j2 -E '_NOT_BUILT$'
