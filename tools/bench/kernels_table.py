#!/usr/bin/env python3
"""A Markdown table of kernels_benchmark's JSON: a line for each operation and shape, a column for each table of operations.

Usage: kernels_table.py RESULT.json   (kernels_benchmark --benchmark_out=RESULT.json --benchmark_out_format=json)
Of repetitions it takes the median. A cell: microseconds; GB/s and the share of memory's; GOP/s and the share of arithmetic's.
"""
import json
import statistics
import sys


def cell(runs):
    def median(key):
        values = [run[key] for run in runs if key in run]
        return statistics.median(values) if values else None

    time = median("real_time")
    text = f"{time:.3g} us" if time < 1000 else f"{time / 1000:.3g} ms"
    text += f"; {median('GB/s'):.3g} GB/s, {median('of_memory'):.2f}"
    if median("GOP/s") is not None:
        text += f"; {median('GOP/s'):.3g} GOP/s, {median('of_arithmetic'):.2f}"
    return text


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = json.load(file)["benchmarks"]
    found, tables = {}, []
    for row in rows:
        if row.get("run_type") == "aggregate" or "error_message" in row:
            continue
        parts = row["name"].removesuffix("/real_time").split("/")
        if parts[-1].startswith("repeats"):
            parts.pop()
        if parts[-1] not in tables:
            tables.append(parts[-1])
        found.setdefault(" ".join(parts[:-1]), {}).setdefault(parts[-1], []).append(row)
    print("| | " + " | ".join(tables) + " |\n|---" * 1 + "|---" * len(tables) + "|")
    for name, by_table in found.items():
        print(f"| {name} | " + " | ".join(cell(by_table[t]) if t in by_table else "" for t in tables) + " |")


if __name__ == "__main__":
    main()
