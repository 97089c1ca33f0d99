#!/usr/bin/env python3
"""kernels_benchmark measures every operation of the CPU tables, and its counters are there.

Usage: kernels_benchmark_test.py PROGRAM OPS_H
"""
import json
import re
import subprocess
import sys


def main():
    program, header = sys.argv[1:]
    with open(header, encoding="utf-8") as file:
        table = file.read().split("struct OpTable {")[1]
    operations = set(re.findall(r"\(\*(\w+)\)\(const \w+Args&", table))
    # Some are of devices alone (ops.h); combine_attention runs in the splits of attention.
    operations -= {"rotate_store", "top_k", "unpack_f16", "round_f16", "shift_rows", "combine_attention"}
    assert "attention" in operations and "matmul" in operations, operations

    names = subprocess.run([program, "--benchmark_list_tests"], check=True, capture_output=True, text=True).stdout.split("\n")
    missing = operations - {name.split("/")[0] for name in names}
    assert not missing, f"no benchmark of {missing}"
    assert any(name.startswith("attention/GQA split") for name in names)

    # The smallest shape of each operation, on two threads, once.
    for pattern in (r"^(rms_norm|layer_norm|scale_add|rope|store_kv|activate|softcap|quantize|round_bf16|gather_rows)/.*x1/", r"^attention/GQA.* behind (511|4095)/"):
        found = subprocess.run(
            [program, "--threads=2", f"--benchmark_filter={pattern}", "--benchmark_min_time=0.001", "--benchmark_format=json"],
            check=True, capture_output=True, text=True,
        )
        rows = json.loads(found.stdout)["benchmarks"]
        assert rows, pattern
        for row in rows:
            if "error_message" in row:
                # A table, or a processor, without this operation.
                assert row["name"].split("/")[0] in ("round_bf16", "attention"), row
                continue
            assert row["GB/s"] > 0 and row["of_memory"] > 0, row
            assert row["name"].split("/")[0] != "attention" or row["of_arithmetic"] > 0, row

    wrong = subprocess.run([program, "--threads=0"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "kernels_benchmark" in wrong.stderr, wrong


if __name__ == "__main__":
    main()
