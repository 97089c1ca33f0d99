#!/usr/bin/env bash
# The reads of `sluice bench io` against fio's on the same file, in pairs. fio reads into the same few buffers again, which a cache may
# hold: like is compared with like by --reuse-buffers; what streaming reads like (ever new memory) stands beside.
# Both: io_uring, O_DIRECT, registered buffers and file, 1 MiB, depths 1 to 64. At each depth the two alternate within a second, and so do
# then $RUNS (3) longer runs of $LONG seconds (2) at the depth that was best for each: their medians are a pair's figures, so that neither
# is the luckiest of many. fio's buffers lie in 2 MiB pages like ours if this script can have some reserved (as root; given back at the
# end), since a read into 4 KiB pages is 256 segments for the drive.
#
# Usage: tools/bench/io.sh FILE [SLUICE] [PAIRS]    a file of a GiB or more on the drive; 5 pairs, about 45 s each
# Writes a Markdown table to stdout.
set -euo pipefail
file=${1:?a file on the drive}
sluice=${2:-build/release/tools/sluice}
pairs=${3:-5}
runs=${RUNS:-3}
long=${LONG:-2}
command -v fio >/dev/null || { echo "fio is missing (package fio)" >&2; exit 1; }

pages=/proc/sys/vm/nr_hugepages
reserved=$(cat $pages)
work=$(mktemp -d)
give_back() {
  rm -rf "$work"
  [ "$(cat $pages)" = "$reserved" ] || echo "$reserved" >$pages
}
trap give_back EXIT
memory=(--iomem=mmap)
kind="4 KiB pages"
if { echo $((reserved + 100)) >$pages; } 2>/dev/null && [ "$(cat $pages)" -ge $((reserved + 80)) ]; then
  memory=(--iomem=mmaphuge)
  kind="2 MiB pages"
fi

fio_rate() { # DEPTH SECONDS: bytes per second
  fio --name=read --filename="$file" --readonly --rw=read --bs=1M --ioengine=io_uring --direct=1 --iodepth="$1" --runtime="$2" \
    --time_based "${memory[@]}" --fixedbufs --registerfiles --output-format=json >"$work/fio.json"
  python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["jobs"][0]["read"]["bw_bytes"])' "$work/fio.json"
}
sluice_rate() { # DEPTH SECONDS [OPTION ...]: the same
  local depth=$1 seconds=$2
  shift 2
  "$sluice" bench io "$file" -o json --quiet --read-size 1M --depth "$depth" --seconds "$seconds" "$@" >"$work/io.json"
  python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[-1]["bytes_per_s"])' "$work/io.json"
}
best_of() { sort -k2 -g "$1" | tail -1 | cut -d' ' -f1; } # lines of "DEPTH RATE": the depth

echo "$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-), $(nproc) processors; $(fio --version), its buffers in $kind; commit $(git -C "$(dirname "$0")" rev-parse --short HEAD); a file of $(($(stat -c %s "$file") >> 20)) MiB; medians of $runs runs of $long s"
echo
echo "| pair | fio, GB/s (depth) | bench io --reuse-buffers, GB/s (depth) | the same / fio | bench io, best of its settings, ever new memory, GB/s | the same / fio |"
echo "|---|---|---|---|---|---|"
for ((pair = 1; pair <= pairs; ++pair)); do
  rm -f "$work"/sweep.* "$work"/long.*
  for depth in 1 2 4 8 16 32 64; do
    if ((pair % 2)); then
      echo "$depth $(fio_rate $depth 1)" >>"$work/sweep.fio"
      echo "$depth $(sluice_rate $depth 1 --reuse-buffers)" >>"$work/sweep.sluice"
    else
      echo "$depth $(sluice_rate $depth 1 --reuse-buffers)" >>"$work/sweep.sluice"
      echo "$depth $(fio_rate $depth 1)" >>"$work/sweep.fio"
    fi
  done
  their_depth=$(best_of "$work/sweep.fio")
  our_depth=$(best_of "$work/sweep.sluice")
  for ((run = 0; run < runs; ++run)); do
    fio_rate "$their_depth" "$long" >>"$work/long.fio"
    sluice_rate "$our_depth" "$long" --reuse-buffers >>"$work/long.sluice"
  done
  "$sluice" bench io "$file" -o json --quiet >"$work/ring.json"
  python3 - "$work" "$pair" "$their_depth" "$our_depth" <<'PY'
import json, statistics, sys
work, pair, their_depth, our_depth = sys.argv[1:]
fio, ours = (statistics.median(float(line) for line in open(f"{work}/long.{name}")) for name in ("fio", "sluice"))
ring = json.load(open(f"{work}/ring.json"))[-1]["bytes_per_s"]
print(f"| {pair} | {fio / 1e9:.2f} ({their_depth}) | {ours / 1e9:.2f} ({our_depth}) | {ours / fio:.3f} | {ring / 1e9:.2f} | {ring / fio:.3f} |", flush=True)
with open(f"{work}/pairs", "a") as pairs:
    print(fio, ours, ring, file=pairs)
PY
done
python3 - "$work/pairs" <<'PY'
import statistics, sys
rows = [[float(value) for value in line.split()] for line in open(sys.argv[1])]
m = lambda values: statistics.median(values)
print(f"| median | {m(r[0] for r in rows) / 1e9:.2f} | {m(r[1] for r in rows) / 1e9:.2f} | {m(r[1] / r[0] for r in rows):.3f} "
      f"| {m(r[2] for r in rows) / 1e9:.2f} | {m(r[2] / r[0] for r in rows):.3f} |")
PY
