#!/usr/bin/env bash
# Installs the build into a folder of its own, and builds and runs a program against the package.
#
# Usage: install_test.sh BUILD_DIR SOURCE_DIR CXX_COMPILER
set -euo pipefail
build=$1 source=$2 compiler=$3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cmake --install "$build" --prefix "$scratch/prefix" >"$scratch/install.log"
"$scratch/prefix/bin/sluice" version
test -f "$scratch"/prefix/share/doc/sluice/LICENSE
# The package names no place of the machine that built it.
if grep -rnE --include="*.cmake" '/[^ ;"]*libcudart_static' "$scratch"/prefix/lib*; then exit 1; fi
bash -n "$scratch/prefix/share/bash-completion/completions/sluice"
cmake -S "$source/tests/tools/consumer" -B "$scratch/consumer" -G Ninja -DCMAKE_CXX_COMPILER="$compiler" \
  -DCMAKE_PREFIX_PATH="$scratch/prefix" >"$scratch/configure.log"
cmake --build "$scratch/consumer"
"$scratch/consumer/consumer"
