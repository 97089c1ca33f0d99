#!/usr/bin/env python3
"""Compares rows of a converted GGUF with what the PyPI package gguf makes of the original: equal to the bit, or it fails.

Usage: compare_gguf_values.py MODEL.gguf MODEL.sluice [ROWS=8]      MODEL.sluice: sluice convert --quant keep
Architecture llama. Of each tensor the first row, the last and ROWS - 2 random ones; .sluice is read by formats/sluice_reader.py. Needs gguf and numpy.
"""
import pathlib
import sys

import gguf
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "formats"))
import sluice_reader  # noqa: E402

NAMES = {
    "token_embd": "embed", "output_norm": "norm", "output": "head", "attn_norm": "attn_norm", "ffn_norm": "ffn_norm",
    "attn_q": "attn.q", "attn_k": "attn.k", "attn_v": "attn.v", "attn_output": "attn.o", "ffn_gate": "ffn.gate",
    "ffn_up": "ffn.up", "ffn_down": "ffn.down",
}


def canonical(name):
    parts = name.split(".")
    prefix = f"layers.{parts[1]}." if parts[0] == "blk" else ""
    return f"{prefix}{NAMES[parts[-2]]}.weight"


def values_of(tensor, row):
    rows = int(tensor.shape[1]) if len(tensor.shape) == 2 else 1
    stored = tensor.data.reshape(rows, -1)[row:row + 1]
    return gguf.quants.dequantize(stored, tensor.tensor_type).reshape(-1).astype(np.float32)


def main():
    source, converted = gguf.GGUFReader(sys.argv[1]), sluice_reader.SluiceFile(sys.argv[2])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 8
    heads = {"attn_q": source.fields["llama.attention.head_count"].contents(),
             "attn_k": source.fields["llama.attention.head_count_kv"].contents()}
    rng = np.random.default_rng(1)
    compared, types = 0, {}
    for tensor in source.tensors:
        rows = int(tensor.shape[1]) if len(tensor.shape) == 2 else 1
        order = np.arange(rows)  # where each of our rows lies: queries and keys are interleaved in GGUF
        part = tensor.name.split(".")[-2]
        if part in heads:
            order = order.reshape(heads[part], -1, 2).swapaxes(1, 2).reshape(-1)
        for row in sorted({0, rows - 1, *rng.integers(0, rows, count - 2).tolist()}):
            want = values_of(tensor, order[row])
            got = np.array(converted.row(canonical(tensor.name), row), np.float32)
            assert np.array_equal(got.view(np.uint32), want.view(np.uint32)), f"{tensor.name}: row {row} differs"
            compared += len(want)
        types[tensor.tensor_type.name] = types.get(tensor.tensor_type.name, 0) + 1
    print(f"{len(source.tensors)} tensors ({', '.join(f'{n} x {t}' for t, n in sorted(types.items()))}), "
          f"{compared} values: equal to the bit")


if __name__ == "__main__":
    main()
