#!/usr/bin/env python3
"""The targets of the GPU beside what a run of gpu_report.sh measured, as a table.

Usage: gpu_targets.py BENCH.json LOG_FOLDER
BENCH.json is gpu_bench's, LOG_FOLDER holds vram.log, prefill.log and cublas.log. What is missing there is said to be not measured. A target that is missed is
no error: exit code 0.
"""
import json
import pathlib
import re
import sys

# Rows, columns and number of each layer's matrices in the shape llama-3-8b.
LAYERS = 32
MATRICES = (((4096, 4096), 2), ((1024, 4096), 2), ((14336, 4096), 2), ((4096, 14336), 1))
PROMPT_TOKENS = 4096
VRAM_MIB = 8192  # of the step "vram"


def load(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def text(path):
    try:
        return path.read_text()
    except OSError:
        return ""


def column(log, row, index):
    """A number of the first row of a markdown table whose name begins so."""
    for line in log.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > index and cells[1].startswith(row) and cells[index]:
            return float(cells[index])
    return None


def kernels(bench):
    """(what, measured, bound, whether more is better) of gpu_bench's rows."""
    rows = {row["name"]: row for row in (bench or {}).get("results", [])}
    share = lambda name: rows[name]["share"] if name in rows else None
    ratio = lambda a, b: rows[a]["seconds"] / rows[b]["seconds"] if a in rows and b in rows else None
    for kind in [name[:-len(", 1 tokens")] for name in rows if name.startswith("int4") and name.endswith(", 1 tokens")] or ["int4"]:
        yield f"{kind}: share of the read rate, 1 token", share(f"{kind}, 1 tokens"), 0.88, True
        yield f"{kind}: time of 16 tokens / of 1", ratio(f"{kind}, 16 tokens", f"{kind}, 1 tokens"), 1.15, False
        for tokens in (512, 1024, 2048):
            yield f"{kind}: share of the mma peak, {tokens} tokens", share(f"{kind}, {tokens} tokens"), 0.75, True
    panels = [name for name in rows if name.startswith("4096 tokens, int4") and "a layer of 8B" in name and "panel" in name]
    for name in panels or ["4096 tokens, int4, a layer of 8B, panel in f16"]:
        yield f"{name}: share of cuBLAS in f16", share(name), 0.85, True
    attentions = [name[:-len(", blocks in order")] for name in rows if name.startswith("decode attention") and name.endswith(", blocks in order")]
    for name in attentions or ["decode attention"]:
        yield f"{name}: share of the read rate", share(f"{name}, blocks in order"), 0.80, True
        yield f"{name}: time with blocks spread / in order", ratio(f"{name}, blocks spread", f"{name}, blocks in order"), 1.10, False


def models(bench, logs):
    read = next((row["value"] for row in (bench or {}).get("results", []) if row["name"] == "read of memory"), None)
    vram = text(logs / "vram.log")
    decode = column(vram, "decode", 3)
    yield "8B shape: share of the read rate, decode", decode / read if decode and read else None, 0.75, True
    peak = re.search(r"the driver counted (\d+) MiB", vram)
    yield "8B shape: MiB that the driver counted", (float(peak.group(1)) or None) if peak else None, VRAM_MIB, False
    rate = column(text(logs / "prefill.log"), "prefill", 2)
    cublas = {(row["rows"], row["cols"]): row["seconds"] for row in load(logs / "cublas.log") or [] if row["tokens"] == PROMPT_TOKENS}
    share = None
    if rate and all(shape in cublas for shape, _ in MATRICES):
        share = LAYERS * sum(count * cublas[shape] for shape, count in MATRICES) / (PROMPT_TOKENS / rate)
    yield f"8B shape: prefill of {PROMPT_TOKENS} beside cuBLAS in f16 on the same matrices", share, 0.6, True


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    bench, logs = load(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2])
    print("| | measured | target | |\n|---|---|---|---|")
    for what, measured, bound, more in [*kernels(bench), *models(bench, logs)]:
        target = f"{'at least' if more else 'at most'} {bound:g}"
        if measured is None:
            print(f"| {what} | | {target} | not measured |")
            continue
        met = measured >= bound if more else measured <= bound
        print(f"| {what} | {measured:.4g} | {target} | {'met' if met else 'missed'} |")


if __name__ == "__main__":
    main()
