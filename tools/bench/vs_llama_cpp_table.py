#!/usr/bin/env python3
"""The table and the plot of vs_llama_cpp.sh, from its rows: name, round, JSON of sluice bench, JSON of llama_cpp_speed.py.

Usage: vs_llama_cpp_table.py ROWS [PLOT.svg]
"""
import json
import re
import statistics
import sys

WIDTH, LEFT, BAR, STEP = 760, 300, 14, 24


def memory_rate(row):
    """GB/s of the read test that sluice bench made beside a decode; None where there was none."""
    found = re.search(r"memory at ([0-9.]+) GB/s", row["note"])
    return float(found[1]) if found else None


def read(path):
    """{(case, what): ([tokens/s of sluice], [of llama.cpp], [GB/s of memory])}, in the order of the file."""
    rates = {}
    for line in open(path, encoding="utf-8"):
        name, _, ours, theirs = line.rstrip("\n").split("\t")
        ours, theirs = json.loads(ours), json.loads(theirs)
        for what, row in zip(("prefill", "decode"), ours):
            pair = rates.setdefault((name, what), ([], [], []))
            pair[0].append(row["tokens_per_s"])
            pair[1].append(theirs[what + "_tokens_per_s"])
            pair[2].append(memory_rate(row))
    return rates


def by_memory(pair):
    """Rounds with slow and with fast memory, where a machine had both: [(GB/s, rounds of the pair)], else []."""
    memory = pair[2]
    if None in memory or max(memory) < 1.3 * min(memory):
        return []
    middle = (max(memory) + min(memory)) / 2
    groups = ([i for i, rate in enumerate(memory) if (rate > middle) == fast] for fast in (False, True))
    return [
        (statistics.median(memory[i] for i in group), tuple([column[i] for i in group] for column in pair))
        for group in groups
    ]


def cell(values):
    text = f"{statistics.median(values):.1f}"
    return text + (f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else "")


def ratio(pair):
    return statistics.median(pair[0]) / statistics.median(pair[1])


def plot(rates):
    largest = max(ratio(pair) for pair in rates.values())
    scale = (WIDTH - LEFT - 60) / max(largest, 1)
    height = STEP * (len(rates) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="8" y="16" font-weight="bold">tokens/s of sluice / tokens/s of llama.cpp</text>',
    ]
    for i, ((name, what), pair) in enumerate(rates.items()):
        y = STEP * (i + 1) + 8
        value = ratio(pair)
        color = "#4878a8" if what == "decode" else "#d08a40"
        parts.append(f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">{name}, {what}</text>')
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{value * scale:.1f}" height="{BAR}" fill="{color}"/>')
        parts.append(f'<text x="{LEFT + value * scale + 4:.1f}" y="{y + 11}">{value:.2f}</text>')
    x = LEFT + scale
    parts.append(f'<line x1="{x:.1f}" y1="{STEP}" x2="{x:.1f}" y2="{height - 8}" stroke="black" stroke-dasharray="3"/>')
    return "\n".join(parts + ["</svg>"]) + "\n"


def main():
    rates = read(sys.argv[1])
    print("| | sluice, tokens/s | llama.cpp, tokens/s | ratio |\n|---|---|---|---|")
    for (name, what), pair in rates.items():
        print(f"| {name}: {what} | {cell(pair[0])} | {cell(pair[1])} | {ratio(pair):.2f} |")
        for memory, part in by_memory(pair):
            title = f"{name}: {what}, {len(part[0])} rounds with memory at {memory:.0f} GB/s"
            print(f"| {title} | {cell(part[0])} | {cell(part[1])} | {ratio(part):.2f} |")
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w", encoding="utf-8") as file:
            file.write(plot(rates))


if __name__ == "__main__":
    main()
