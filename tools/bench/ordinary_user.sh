#!/usr/bin/env bash
# The tests of offload, runtime and tools, what doctor says, and a streamed answer, as the user nobody with 8 MiB of lockable memory: what
# runs as root hides that limit. Needs root to become another user.
#
# Usage: tools/bench/ordinary_user.sh [BUILD] [MODEL.sluice [BUDGET]]    default: build/release; a model only if one is named
set -euo pipefail
build=$(realpath "${1:-build/release}")
model=${2:-}
budget=${3:-2200M}
limit_kib=${LIMIT_KIB:-8192}
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
chmod 777 "$home"
as_nobody() {
  (ulimit -l "$limit_kib" && cd "$home" && exec setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$home" TMPDIR="$home" "$@")
}
as_nobody "$build/tools/sluice" doctor | grep -i -E 'lock|io_uring' || true
for test in offload_test runtime_test tools_test; do
  [ -x "$build/tests/$test" ] || continue
  as_nobody "$build/tests/$test" --gtest_brief=1 | tail -3 | sed "s/^/$test: /"
done
if [ -n "$model" ]; then
  as_nobody "$build/tools/sluice" run "$(realpath "$model")" --raw -p "The history of the railway" --temp 0 -n 4 --ctx 128 --ignore-eos \
    --ram "$budget" 2>&1 | tail -4
fi
