#!/usr/bin/env python3
"""The table and the plot of streaming.sh.

Usage: streaming_table.py head                             the first lines of the table
       streaming_table.py round FOLDER "PEAK KILLS"        one round as JSON, from the files that streaming.sh leaves in FOLDER
       streaming_table.py row BUDGET MIB ROUND.json ...    a line of the table, then the medians as JSON
       streaming_table.py plot ROWS.json PLOT.svg          tokens/s over the budget, with the limit's curve
"""
import json
import math
import statistics
import sys

MIB = 2**20
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 760, 420, 60, 50, 40, 20


def head():
    print(
        "| RAM budget | streamed per token | tokens/s | drive, GB/s (best of bench io) | share of drive / streamed | plan: tokens/s | off by | "
        "plan: memory | peak in the cgroup | off by | oom_kill | same tokens | llama.cpp, tokens/s | ratio |"
    )
    print("|" + "---|" * 14)


def one_round(folder, seen):
    plan, run, before, after, llama = (json.load(open(f"{folder}/{name}.json")) for name in ("plan", "run", "io_before", "io", "llama"))
    peak, kills = (int(x) for x in seen.split())
    try:
        same = json.load(open(f"{folder}/unlimited.json"))["tokens"] == run["tokens"]
    except (OSError, ValueError, KeyError):
        same = None
    ram = plan["tiers"]["ram"]
    print(
        json.dumps(
            {
                "streamed": plan["tiers"]["disk"]["streamed_bytes_per_pass"],
                "cycled": plan["tiers"]["disk"]["streamed_bytes_per_pass"] + ram["resident_bytes"],
                "tokens_per_s": run.get("timings", {}).get("decode_tokens_per_s", 0),
                "drive": (before[-1]["bytes_per_s"] + after[-1]["bytes_per_s"]) / 2,
                "predicted": plan["decode"]["tokens_per_s"],
                "processor_s": plan["decode"]["processor_s"],
                "memory": ram["resident_bytes"]
                + ram["ring_bytes"]
                + plan["kv_cache_bytes"]
                + plan["activation_bytes"]
                + plan["overhead_bytes"],
                "peak": peak,
                "kills": kills,
                "same": same,
                "llama": llama.get("decode_tokens_per_s"),
            }
        )
    )


def percent(value, reference):
    return f"{100 * (value / reference - 1):+.1f}%" if reference else "-"


def row(budget, mib, paths):
    rounds = [json.load(open(path)) for path in paths]
    median = {}
    for key in rounds[0]:
        values = [r[key] for r in rounds]
        if key == "same":
            median[key] = None if None in values else all(values)
        elif key in ("peak", "kills"):
            median[key] = max(values)
        else:
            values = [v for v in values if v is not None]
            median[key] = statistics.median(values) if values else None
    # Of what belongs together in time: the median of the rounds' own ratios.
    share = statistics.median(r["tokens_per_s"] * r["streamed"] / r["drive"] for r in rounds)
    off = [r["predicted"] / r["tokens_per_s"] - 1 for r in rounds if r["tokens_per_s"]]
    speed, llama = median["tokens_per_s"], median["llama"]
    same = {True: "yes", False: "NO", None: "unknown"}[median["same"]]
    cells = [
        budget,
        f"{median['streamed'] / MIB:.0f} MiB",
        f"{speed:.3f} ({min(r['tokens_per_s'] for r in rounds):.3f} to {max(r['tokens_per_s'] for r in rounds):.3f})",
        f"{median['drive'] / 1e9:.2f}",
        f"{share:.3f}" if median["streamed"] else "-",
        f"{median['predicted']:.3f}",
        f"{100 * statistics.median(off):+.1f}%" if off else "-",
        f"{median['memory'] / MIB:.0f} MiB",
        f"{median['peak'] / MIB:.0f} MiB",
        percent(median["memory"], median["peak"]),
        str(median["kills"]),
        same,
        f"{llama:.3f}" if llama else "-",
        f"{speed / llama:.2f}" if llama else "-",
    ]
    print("| " + " | ".join(cells) + " |")
    print(json.dumps({"budget": budget, "mib": int(mib), **median}))


def nice_step(largest, steps=6):
    raw = largest / steps
    power = 10 ** math.floor(math.log10(raw))
    return min((f * power for f in (1, 2, 5, 10) if f * power >= raw), default=raw)


def limit_at(mib, rows):
    """Tokens/s if every byte beyond the budget came at the drive's rate, and nothing else took time but the processor."""
    drive = statistics.median(r["drive"] for r in rows)
    cycled = rows[0]["cycled"]
    processor_s = min(r["processor_s"] for r in rows)
    streamed = max(0.0, cycled - mib * MIB)
    return 1 / max(streamed / drive, processor_s)


def plot(rows_path, out_path):
    rows = [json.loads(line) for line in open(rows_path, encoding="utf-8") if line.strip()]
    most_mib = max(r["mib"] for r in rows) * 1.05
    most_rate = max(max(r["tokens_per_s"] for r in rows), limit_at(most_mib, rows)) * 1.1
    x_of = lambda mib: LEFT + mib / most_mib * (WIDTH - LEFT - RIGHT)
    y_of = lambda rate: HEIGHT - BOTTOM - rate / most_rate * (HEIGHT - BOTTOM - TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="8" y="16" font-weight="bold">tokens/s over the RAM budget; {rows[0]["cycled"] / MIB:.0f} MiB of weights are used in each pass</text>',
    ]
    step = nice_step(most_rate)
    for i in range(int(most_rate / step) + 1):
        y = y_of(i * step)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{i * step:g}</text>')
    step = nice_step(most_mib)
    for i in range(int(most_mib / step) + 1):
        x = x_of(i * step)
        parts.append(f'<line x1="{x:.1f}" y1="{HEIGHT - BOTTOM}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM + 5}" stroke="black"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{i * step:g} MiB</text>')
    curve = " ".join(f"{x_of(m):.1f},{y_of(limit_at(m, rows)):.1f}" for m in (most_mib * k / 300 for k in range(301)))
    parts.append(f'<polyline points="{curve}" fill="none" stroke="black" stroke-dasharray="4"/>')
    series = [("sluice", "#4878a8", "tokens_per_s"), ("llama.cpp (mmap)", "#d08a40", "llama")]
    for name, color, key in series:
        points = [(x_of(r["mib"]), y_of(r[key])) for r in rows if r[key]]
        if len(points) > 1:
            parts.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" fill="none" stroke="{color}"/>')
        for x, y in points:
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>')
    legend = [("limit: the drive reads what the budget does not hold, or the processor", "black")]
    legend += [(name, color) for name, color, key in series if any(r[key] for r in rows)]
    for i, (name, color) in enumerate(legend):
        parts.append(f'<rect x="{LEFT + 12}" y="{TOP + 4 + 18 * i}" width="12" height="4" fill="{color}"/>')
        parts.append(f'<text x="{LEFT + 30}" y="{TOP + 10 + 18 * i}">{name}</text>')
    parts.append(f'<line x1="{LEFT}" y1="{TOP}" x2="{LEFT}" y2="{HEIGHT - BOTTOM}" stroke="black"/>')
    parts.append(f'<line x1="{LEFT}" y1="{HEIGHT - BOTTOM}" x2="{WIDTH - RIGHT}" y2="{HEIGHT - BOTTOM}" stroke="black"/>')
    with open(out_path, "w", encoding="utf-8") as file:
        file.write("\n".join(parts + ["</svg>"]) + "\n")


def main():
    command, arguments = sys.argv[1], sys.argv[2:]
    if command == "head":
        head()
    elif command == "round":
        one_round(*arguments)
    elif command == "row":
        row(arguments[0], arguments[1], arguments[2:])
    elif command == "plot":
        plot(*arguments)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
