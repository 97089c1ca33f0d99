#!/usr/bin/env bash
# The program on processors that are not here, emulated by qemu-user (Debian: qemu-user): which operations each is offered, whether answers (with
# the same operations) and conversions are those of this processor, whether what it cannot run is refused, and a part of the tests. qemu-user emulates no
# AVX-512: an avx512 processor shows there that a table is not taken for its name.
#
# Usage: tools/bench/other_cpus.sh [BUILD]     default: build/release, with tests
# CPUS: names for qemu-x86_64 -cpu, each with the operations expected: "Haswell=avx2 SandyBridge=ref"; TESTS: a filter for kernels_test ("": none)
# Writes a Markdown table to stdout; exit code 1 if anything is not as expected.
set -euo pipefail
repository=$(cd "$(dirname "$0")/../.." && pwd)
build=$(realpath "${1:-build/release}")
sluice=$build/tools/sluice
golden=$repository/tests/golden
# The last ones lack one feature each of those that a table needs; without xsave the operating system saves no registers of AVX.
cpus=${CPUS:-qemu64=ref core2duo=ref Nehalem=ref SandyBridge=ref IvyBridge=ref Opteron_G5=ref Haswell=avx2 Skylake-Client=avx2
  Skylake-Server=avx2 Icelake-Server=avx2 EPYC=avx2 EPYC-Milan=avx2 max=avx2 Haswell,-avx2=ref Haswell,-fma=ref Haswell,-f16c=ref
  Haswell,-xsave=ref}
tests=${TESTS-CpuFeatures.*:SelectTable.*:Quantize.*:GatherRows.*:RmsNorm.*:Rope.*:Activate.*}
command -v qemu-x86_64 >/dev/null || { echo "qemu-x86_64 is missing: apt-get install qemu-user" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SLUICE_CACHE=$work/cache SLUICE_VRAM=0
bad=0
fail() { echo "$*" >&2; bad=1; }

models=()
convert() { # SOURCE QUANTIZATION
  models+=("$work/${#models[@]}.sluice")
  "$sluice" convert "$golden/$1" -o "${models[-1]}" --quant "$2" --quiet
}
convert gqa int4:g32
convert gqa int8
convert gguf/kquants.gguf keep
convert gguf/q4_1.gguf keep
convert gguf/bf16.gguf keep
head -n 1 "$golden/gqa/tokens.txt" >"$work/ids"

# Texts of all models, then the bits of their logits: `answers NAME TABLE COMMAND...`, in files $work/NAME.text and .logits.
answers() {
  local name=$1 table=$2 model
  shift 2
  : >"$work/$name.text"
  : >"$work/$name.logits"
  for model in "${models[@]}"; do
    "$@" run "$model" --raw -p "The tide comes in, and the tide goes out" -n 32 --temp 0 --ignore-eos --isa "$table" --threads 2 --json --quiet |
      python3 -c 'import json, sys; print(json.load(sys.stdin)["tokens"])' >>"$work/$name.text" || return
    "$@" eval "$model" --tokens "$work/ids" --logits "$work/logits.npy" --isa "$table" --threads 2 --quiet >/dev/null || return
    sha256sum <"$work/logits.npy" >>"$work/$name.logits"
  done
}
same() { if cmp -s "$work/$1" "$work/$2"; then echo yes; else echo no; fi; }

for table in ref avx2; do
  answers "native-$table" "$table" "$sluice"
done

echo "$(qemu-x86_64 --version | head -n 1); $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-); commit $(git -C "$repository" rev-parse --short HEAD)"
echo
echo "| processor | operations that doctor names | chosen | same tokens as here | same bits of logits | same conversion | others refused | tests |"
echo "|---|---|---|---|---|---|---|---|"
for entry in $cpus; do
  cpu=${entry%=*} expected=${entry##*=}
  on_cpu() { qemu-x86_64 -cpu "$cpu" "$@"; }
  on_cpu "$sluice" doctor --json >"$work/doctor" 2>"$work/err" || fail "$cpu: doctor: exit code $?, $(tail -n 1 "$work/err")"
  tables=$(python3 -c 'import json, sys; print(" ".join(json.load(sys.stdin)["tables"]))' <"$work/doctor") || tables=none
  [ "${tables##* }" = "$expected" ] || fail "$cpu: doctor names $tables, expected was $expected"
  on_cpu "$sluice" run "${models[0]}" --raw -p x -n 2 --temp 0 >/dev/null 2>"$work/err" || fail "$cpu: run: exit code $?, $(tail -n 1 "$work/err")"
  chosen=$(sed -n 's/.*: isa \([a-z0-9]*\).*/\1/p' "$work/err")
  [ "$chosen" = "$expected" ] || fail "$cpu: run chose $chosen, expected was $expected"
  tokens='' logits='' refused='' tested='' converted=yes
  rm -f "$work/there.sluice"
  on_cpu "$sluice" convert "$golden/gqa" -o "$work/there.sluice" --quant int4:g32 --quiet 2>"$work/err" || fail "$cpu: convert: exit code $?, $(tail -n 1 "$work/err")"
  cmp -s "$work/there.sluice" "${models[0]}" || { fail "$cpu: convert gives another file"; converted=NO; }
  for table in $tables; do
    answers emulated "$table" on_cpu "$sluice" 2>"$work/err" || fail "$cpu: $table: $(tail -n 1 "$work/err")"
    equal=$(same emulated.text "native-$table.text")
    [ "$equal" = yes ] || fail "$cpu: other tokens with $table"
    tokens+="$table $equal " logits+="$table $(same emulated.logits "native-$table.logits") "
  done
  for table in avx2 avx512 amx; do
    if [[ " $tables " = *" $table "* ]]; then continue; fi
    code=0
    on_cpu "$sluice" run "${models[0]}" --raw -p x -n 1 --isa "$table" >/dev/null 2>"$work/err" || code=$?
    if [ "$code" = 3 ] && grep -q "cannot run the operations \"$table\"" "$work/err"; then
      refused+="$table "
    else
      fail "$cpu: $table: exit code $code, $(tail -n 1 "$work/err")"
    fi
  done
  if [ -n "$tests" ]; then
    if on_cpu "$build/tests/kernels_test" --gtest_brief=1 --gtest_filter="$tests" >"$work/tests" 2>&1; then
      tested=$(grep -o "[0-9]* tests\?\.$" "$work/tests" || echo passed)
    else
      fail "$cpu: tests: exit code $?"
      tail -n 20 "$work/tests" >&2
      tested=NO
    fi
  fi
  echo "| $cpu | $tables | $chosen | $tokens| $logits| $converted | $refused| $tested |"
done
exit $bad
