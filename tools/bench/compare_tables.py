#!/usr/bin/env python3
"""Holds the logits of a GPU against the processor's, teacher-forced.

Usage: compare_tables.py TOKENS EXACT.npy CPU.npy GPU.npy [GPU_AGAIN.npy]    a JSON object; exit 1 if a rule is broken
TOKENS: lines of token ids; the .npy are what `sluice eval --tokens TOKENS --logits FILE` wrote with --isa ref --kv f32, with the processor's fastest
table, and with --isa cuda (twice). Rules: the GPU is at most 1.25 times as far (root mean square) from EXACT as CPU is, and its largest distance at most
twice; its most probable token is EXACT's wherever the margin exceeds twice the largest distance that it may have; its perplexity is within 0.3% of CPU's;
two runs give the same bytes. Needs numpy.
"""
import json
import pathlib
import sys

import numpy as np


def perplexity(logits, tokens):
    wide = logits[:, :-1].astype(np.float64)
    peak = wide.max(-1)
    logsumexp = peak + np.log(np.exp(wide - peak[..., None]).sum(-1))
    chosen = np.take_along_axis(wide, tokens[:, 1:, None], -1)[..., 0]
    return float(np.exp((logsumexp - chosen).mean()))


def main():
    if len(sys.argv) not in (5, 6):
        raise SystemExit(__doc__)
    tokens = np.array([[int(i) for i in line.split()] for line in pathlib.Path(sys.argv[1]).read_text().splitlines()])
    exact, cpu, gpu = (np.load(path) for path in sys.argv[2:5])
    distance = {name: np.abs(logits.astype(np.float64) - exact) for name, logits in (("cpu", cpu), ("gpu", gpu))}
    rms = {name: float(np.sqrt((d ** 2).mean())) for name, d in distance.items()}
    largest = {name: float(d.max()) for name, d in distance.items()}
    top = np.sort(exact, -1)
    wide = (top[..., -1] - top[..., -2]) > 4 * largest["cpu"]
    differ = int(((gpu.argmax(-1) != exact.argmax(-1)) & wide).sum())
    ppl = {name: perplexity(logits, tokens) for name, logits in (("exact", exact), ("cpu", cpu), ("gpu", gpu))}
    result = {"positions": int(wide.size), "positions_with_a_wide_margin": int(wide.sum()), "most_probable_differ": differ,
              "most_probable_differ_anywhere_from_cpu": int((gpu.argmax(-1) != cpu.argmax(-1)).sum()),
              "rms_from_exact": rms, "largest_from_exact": largest, "perplexity": ppl,
              "perplexity_gpu_beside_cpu": ppl["gpu"] / ppl["cpu"] - 1}
    rules = {"as close as the processor": rms["gpu"] <= 1.25 * rms["cpu"] and largest["gpu"] <= 2 * largest["cpu"],
             "most probable token": differ == 0,
             "perplexity": abs(result["perplexity_gpu_beside_cpu"]) <= 0.003}
    if len(sys.argv) == 6:
        rules["same bits twice"] = pathlib.Path(sys.argv[4]).read_bytes() == pathlib.Path(sys.argv[5]).read_bytes()
    result["rules"] = rules
    print(json.dumps(result, indent=1))
    return 0 if all(rules.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
