#!/usr/bin/env bash
# Builds sluice with its tests and runs them: the release build, and the address and thread sanitizers.
#
# Usage: tools/test.sh [--full]
# --full: the thread sanitizer runs every test, and a build by clang runs them too
set -euo pipefail

usage() { sed -n '2,5s/^# \{0,1\}//p' "$0"; }
full=no
case "${1:-}" in
  "") ;;
  --full) full=yes ;;
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

# Names of tests begin with the sanitizer's. What threads meet in is in two folders and the converter: elsewhere the thread
# sanitizer finds nothing and takes long over it.
targets=(offload_test runtime_test loaders_test)
skipped='^thread\.(formats|kernels|tools|layering|fuzz)\.|^thread\.loaders\.([^C]|C[^o]|Co[^n])|_NOT_BUILT$'
presets=(release asan tsan)
if [ "$full" = yes ]; then
  presets+=(clang)
  targets=(all)
  skipped='^$'
fi

all=build/all-tests
rm -rf "$all"
mkdir -p "$all"
for preset in "${presets[@]}"; do
  cmake --preset "$preset" "${launcher[@]}" -DSLUICE_DEV=ON >&2
  if [ "$preset" = tsan ]; then
    cmake --build --preset "$preset" --target "${targets[@]}" >&2
  else
    cmake --build --preset "$preset" >&2
  fi
  printf 'subdirs("%s")\n' "$repository/build/$preset" >>"$all/CTestTestfile.cmake"
done

export TSAN_OPTIONS=halt_on_error=1
export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1
cd "$all"
ctest --output-on-failure -j2 -E "$skipped"
