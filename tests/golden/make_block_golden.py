#!/usr/bin/env python3
"""Writes blocks.json: rows of GGUF blocks and plain types, and the float32 values that the gguf
package decodes them to.

Needs numpy and gguf. Usage: make_block_golden.py > blocks.json
"""
import json

import gguf
import numpy as np

# Scales (float16 bits): zeros, subnormals, one, largest, infinities, NaN, arbitrary.
SCALES = [0x0000, 0x8000, 0x0001, 0x83ff, 0x0400, 0x3c00, 0xbc00, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00,
          0x2e66, 0xa1b2, 0x11ff, 0x5555]
TYPES = ["Q8_0", "Q4_0", "Q4_1"]
# Where d and dmin lie in blocks of 256, and the scales of these few blocks.
SUPER_BLOCKS = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208, None)}
SUPER_SCALES = [0x2e66, 0x83ff, 0xa1b2, 0x7e00, 0x3c00]


def add_small(name, rng, out):
    """Blocks of 32 of one type, a scale each."""
    qtype = gguf.GGMLQuantizationType[name]
    block_size, type_size = gguf.GGML_QUANT_SIZES[qtype]
    blocks = rng.integers(0, 256, (len(SCALES), type_size), dtype=np.uint8)
    blocks[0, 4:] = 0
    blocks[1, 4:] = 0xff
    blocks[:, 0:2] = np.array(SCALES, dtype="<u2").view(np.uint8).reshape(-1, 2)
    if name in ("Q4_1", "Q5_1"):
        minima = np.roll(np.array(SCALES, dtype="<u2"), 5)
        blocks[:, 2:4] = minima.view(np.uint8).reshape(-1, 2)
    with np.errstate(all="ignore"):
        values = gguf.quants.dequantize(blocks.reshape(1, -1), qtype).reshape(-1)
    out.append({"type": name, "bytes": blocks.tobytes().hex(),
                "value_bits": values.astype("<f4").view("<u4").tolist()})


def main():
    rng = np.random.default_rng(20240229)
    out = []
    for name in TYPES:
        add_small(name, rng, out)
    for name in ("F16", "BF16"):
        bits = np.concatenate([np.array(SCALES, dtype="<u2"), rng.integers(0, 65536, 48).astype("<u2")])
        qtype = gguf.GGMLQuantizationType[name]
        values = gguf.quants.dequantize(bits.view(np.uint8 if name == "BF16" else np.float16).reshape(1, -1), qtype)
        out.append({"type": name, "bytes": bits.tobytes().hex(),
                    "value_bits": values.astype("<f4").reshape(-1).view("<u4").tolist()})
    rng = np.random.default_rng(20240301)
    for name in ("Q5_0", "Q5_1"):
        add_small(name, rng, out)
    for name, (scale_at, minimum_at) in SUPER_BLOCKS.items():
        qtype = gguf.GGMLQuantizationType[name]
        blocks = rng.integers(0, 256, (len(SUPER_SCALES), gguf.GGML_QUANT_SIZES[qtype][1]), dtype=np.uint8)
        scales = np.array(SUPER_SCALES, dtype="<u2")
        blocks[:, scale_at:scale_at + 2] = scales.view(np.uint8).reshape(-1, 2)
        if minimum_at is not None:
            blocks[:, minimum_at:minimum_at + 2] = np.roll(scales, 2).view(np.uint8).reshape(-1, 2)
        with np.errstate(all="ignore"):
            values = gguf.quants.dequantize(blocks.reshape(1, -1), qtype).reshape(-1)
        out.append({"type": name, "bytes": blocks.tobytes().hex(),
                    "value_bits": values.astype("<f4").view("<u4").tolist()})
    print("[\n" + ",\n".join(json.dumps(case) for case in out) + "\n]")


if __name__ == "__main__":
    main()
