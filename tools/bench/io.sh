#!/usr/bin/env bash
# The reads of `sluice bench io` against fio's on the same file: alternating pairs, the best setting of each, medians. fio reads into the
# same few buffers again, which a cache may hold: like is compared with like by --reuse-buffers; what streaming reads like stands beside.
# fio: io_uring, O_DIRECT, registered buffers and file, 1 MiB, depths 1 to 64; its buffers lie in 2 MiB pages like ours if this script
# can have some reserved (as root; given back at the end), since a read into 4 KiB pages is 256 segments for the drive.
#
# Usage: tools/bench/io.sh FILE [SLUICE] [PAIRS]    a file of a GiB or more on the drive; 5 pairs, 35 s each
# Writes a Markdown table to stdout.
set -euo pipefail
file=${1:?a file on the drive}
sluice=${2:-build/release/tools/sluice}
pairs=${3:-5}
seconds=${SECONDS_EACH:-1}
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

fio_best() { # bytes per second and depth, the best of all depths
  for depth in 1 2 4 8 16 32 64; do
    fio --name=read --filename="$file" --readonly --rw=read --bs=1M --ioengine=io_uring --direct=1 --iodepth=$depth --runtime="$seconds" \
      --time_based "${memory[@]}" --fixedbufs --registerfiles --output-format=json >"$work/fio.json"
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["jobs"][0]["read"]["bw_bytes"], sys.argv[2])' "$work/fio.json" $depth
  done | sort -n | tail -1
}
sluice_best() { # bytes per second and the name of the best setting; with the options given
  "$sluice" bench io "$file" -o json --quiet "$@" >"$work/io.json"
  python3 -c 'import json, sys
best = json.load(open(sys.argv[1]))[-1]
print(best["bytes_per_s"], best["name"].removeprefix("best: "))' "$work/io.json"
}

echo "$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-), $(nproc) processors; $(fio --version), its buffers in $kind; commit $(git -C "$(dirname "$0")" rev-parse --short HEAD); a file of $(($(stat -c %s "$file") >> 20)) MiB"
echo
echo "| pair | fio, GB/s (depth) | bench io --reuse-buffers, GB/s (setting) | the same / fio | bench io (ever new memory, as streaming), GB/s | the same / fio |"
echo "|---|---|---|---|---|---|"
for ((pair = 1; pair <= pairs; ++pair)); do
  if ((pair % 2)); then
    theirs=$(fio_best)
    ours=$(sluice_best --reuse-buffers)
  else
    ours=$(sluice_best --reuse-buffers)
    theirs=$(fio_best)
  fi
  ring=$(sluice_best)
  echo "$theirs | $ours | $ring" >>"$work/pairs"
  python3 - "$pair" "$work/pairs" <<'PY'
import sys
fio, ours, ring = ((float(p.split()[0]), " ".join(p.split()[1:])) for p in open(sys.argv[2]).readlines()[-1].split("|"))
print(f"| {sys.argv[1]} | {fio[0] / 1e9:.2f} ({fio[1]}) | {ours[0] / 1e9:.2f} ({ours[1]}) | {ours[0] / fio[0]:.3f} | {ring[0] / 1e9:.2f} | {ring[0] / fio[0]:.3f} |", flush=True)
PY
done
python3 - "$work/pairs" <<'PY'
import statistics, sys
rows = [[float(part.split()[0]) for part in line.split("|")] for line in open(sys.argv[1])]
m = lambda values: statistics.median(values)
print(f"| median | {m(r[0] for r in rows) / 1e9:.2f} | {m(r[1] for r in rows) / 1e9:.2f} | {m(r[1] / r[0] for r in rows):.3f} "
      f"| {m(r[2] for r in rows) / 1e9:.2f} | {m(r[2] / r[0] for r in rows):.3f} |")
PY
