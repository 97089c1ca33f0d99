#!/usr/bin/env python3
"""Reads converted golden GGUF files with formats/sluice_reader.py and compares every value with the gguf package's.

Usage: sluice_reader_test.py SLUICE SOURCE_DIR      exit 0: equal to the bit
"""
import hashlib
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

program, source = sys.argv[1], pathlib.Path(sys.argv[2])
sys.path.insert(0, str(source / "formats"))
import sluice_reader  # noqa: E402

NAMES = {
    "model.embed_tokens.weight": "embed.weight", "lm_head.weight": "head.weight", "model.norm.weight": "norm.weight",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn.q",
    "self_attn.k_proj": "attn.k", "self_attn.v_proj": "attn.v", "self_attn.o_proj": "attn.o",
    "mlp.gate_proj": "ffn.gate", "mlp.up_proj": "ffn.up", "mlp.down_proj": "ffn.down", "model.layers.": "layers.",
}


def canonical(name):
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name


compared = 0
with tempfile.TemporaryDirectory() as folder:
    for kind in ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "kquants"):
        path = pathlib.Path(folder) / f"{kind}.sluice"
        gguf = source / "tests/golden/gguf" / f"{kind}.gguf"
        subprocess.run([program, "convert", gguf, "-o", path, "--quant", "keep", "--quiet"], check=True)
        file = sluice_reader.SluiceFile(path)
        file.verify()
        expected = json.loads((gguf.parent / f"{kind}.expected_tensors.json").read_text())
        for tensor in expected.values():
            if tensor["hf_name"] is None or canonical(tensor["hf_name"]) not in file.tensors:
                continue
            name = canonical(tensor["hf_name"])
            digest = hashlib.sha256()
            for row in range(file.tensors[name]["rows"]):
                values = file.row(name, row)
                digest.update(struct.pack(f"<{len(values)}f", *values))
            assert digest.hexdigest() == tensor["sha256"], f"{kind}: {name} differs from the gguf package"
            compared += 1
        missing = set(file.tensors) - {canonical(t["hf_name"]) for t in expected.values() if t["hf_name"]}
        assert not missing, f"{kind}: nothing to compare {missing} with"

        # A flipped byte is found here too.
        data = bytearray(path.read_bytes())
        data[-5000] ^= 1
        path.write_bytes(data)
        try:
            sluice_reader.SluiceFile(path).verify()
        except AssertionError as error:
            assert "checksum" in str(error)
        else:
            raise SystemExit("a flipped byte was not found")
print(f"{compared} tensors equal to the bit")
