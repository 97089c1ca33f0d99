#!/usr/bin/env python3
"""Rate of f16 matrix products through cuBLAS (PyTorch's) on the shapes of tools/bench/gpu_bench. Prints a JSON list; needs PyTorch and a GPU.

Usage: cublas_rate.py
"""
import json

import torch


def seconds(rows, cols, tokens):
    weights = torch.randn(rows, cols, device="cuda", dtype=torch.float16)
    x = torch.randn(tokens, cols, device="cuda", dtype=torch.float16)
    times = []
    for _ in range(9):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        torch.nn.functional.linear(x, weights)
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return sorted(times[2:])[len(times[2:]) // 2]  # the first two warm up


def main():
    rows = []
    for shape in ((8192, 28672), (4096, 4096), (1024, 4096), (14336, 4096), (4096, 14336)):
        for tokens in (512, 1024, 2048, 4096):
            s = seconds(*shape, tokens)
            rows.append({"rows": shape[0], "cols": shape[1], "tokens": tokens, "seconds": s,
                         "tflop_per_s": 2 * shape[0] * shape[1] * tokens / s / 1e12})
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
