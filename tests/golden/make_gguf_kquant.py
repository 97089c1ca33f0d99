#!/usr/bin/env python3
"""Makes gguf/kquants.gguf: a tiny Llama whose matrices have the types of a Q4_K_M file, and what its weights and logits are.

Usage: make_gguf_kquant.py      after make_checkpoints.py and make_gguf.py; development only; README.md says what is in the file
The package gguf cannot quantize to K types, so their blocks are drawn; it dequantizes them, and transformers computes logits in float32 from that.
"""
import json

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from transformers import LlamaConfig, LlamaForCausalLM

import common
import make_gguf

TARGET = common.HERE / "gguf"
NAME = "kquants"
HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM = 512, 32, 2, 1, 16
# Rows of 512 can have K types; rows of 32 get those that llama.cpp falls back to.
TYPES = {
    "model.embed_tokens": (Type.Q4_K, common.TOKENIZER_VOCAB, HIDDEN),
    "self_attn.q_proj": (Type.Q4_K, HEADS * HEAD_DIM, HIDDEN),
    "self_attn.k_proj": (Type.Q5_K, KV_HEADS * HEAD_DIM, HIDDEN),
    "self_attn.v_proj": (Type.Q6_K, KV_HEADS * HEAD_DIM, HIDDEN),
    "self_attn.o_proj": (Type.Q5_0, HIDDEN, HEADS * HEAD_DIM),
    "mlp.gate_proj": (Type.Q6_K, FFN, HIDDEN),
    "mlp.up_proj": (Type.Q5_K, FFN, HIDDEN),
    "mlp.down_proj": (Type.Q5_1, HIDDEN, FFN),
}


def f16_bytes(values):
    return np.asarray(values, "<f2").reshape(-1, 1).view(np.uint8)


def draw(kind, rows, cols, rng):
    """Blocks of random integers; their values have a standard deviation of 0.05 to 0.13."""
    if kind in (Type.Q5_0, Type.Q5_1):
        return gguf.quants.quantize(rng.normal(0, 0.05, (rows, cols)).astype(np.float32), kind)
    count = rows * cols // 256
    raw = lambda width: rng.integers(0, 256, (count, width), dtype=np.uint8)  # noqa: E731
    if kind == Type.Q6_K:
        scales = rng.integers(-100, 101, (count, 16)).astype(np.int8).view(np.uint8)
        d = f16_bytes(rng.uniform(4e-5, 6e-5, count))
        return np.concatenate([raw(128), raw(64), scales, d], axis=1).reshape(rows, -1)
    levels = 15 if kind == Type.Q4_K else 31
    scales = rng.integers(8, 64, (count, 8))
    # dmin is half of levels times d, so that scale and minimum alike centre a group; then they part a little.
    minima = np.clip(scales + rng.integers(-2, 3, (count, 8)), 0, 63)
    d = rng.uniform(0.8, 1.2, count) * 0.005 / levels * 2
    packed = np.zeros((count, 12), np.uint8)
    packed[:, 0:4] = scales[:, :4] | (scales[:, 4:] >> 4 << 6)
    packed[:, 4:8] = minima[:, :4] | (minima[:, 4:] >> 4 << 6)
    packed[:, 8:12] = (scales[:, 4:] & 15) | ((minima[:, 4:] & 15) << 4)
    parts = [f16_bytes(d), f16_bytes(d * levels / 2), packed] + ([raw(32)] if kind == Type.Q5_K else []) + [raw(128)]
    return np.concatenate(parts, axis=1).reshape(rows, -1)


def main():
    common.deterministic()
    rng = np.random.default_rng(44)
    config = LlamaConfig.from_pretrained(make_gguf.SOURCE, attn_implementation="eager")
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = HIDDEN, FFN, 1
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = HEADS, KV_HEADS, HEAD_DIM
    config.vocab_size = common.TOKENIZER_VOCAB
    config.tie_word_embeddings = True

    path = TARGET / f"{NAME}.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    spec = dict(file_type=gguf.LlamaFileType.MOSTLY_Q4_K_M, layers=1)
    make_gguf.add_metadata(writer, config, spec, json.loads((make_gguf.SOURCE / "tokenizer.json").read_text()))
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)

    dequantized, checks = {}, {}
    for name, (kind, rows, cols) in TYPES.items():
        hf_name = f"{name}.weight" if name.startswith("model.") else f"model.layers.0.{name}.weight"
        stored = draw(kind, rows, cols, rng)
        assert stored.dtype == np.uint8 and stored.shape == gguf.quants.quant_shape_to_byte_shape((rows, cols), kind)
        writer.add_tensor(make_gguf.gguf_name(hf_name), stored, raw_dtype=kind)
        heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(hf_name.split(".")[-2])
        as_stored = gguf.quants.dequantize(stored, kind)
        assert as_stored.shape == (rows, cols)
        dequantized[hf_name] = make_gguf.unpermute(as_stored, heads) if heads else as_stored
        checks[make_gguf.gguf_name(hf_name)] = dict(
            hf_name=hf_name, type=kind.name, shape=[rows, cols], sha256_as_stored=make_gguf.sha256(as_stored),
            sha256=make_gguf.sha256(dequantized[hf_name]))
    for hf_name in ("model.layers.0.input_layernorm.weight", "model.layers.0.post_attention_layernorm.weight",
                    "model.norm.weight"):
        values = rng.uniform(0.7, 1.3, HIDDEN).astype(np.float32)
        writer.add_tensor(make_gguf.gguf_name(hf_name), values, raw_dtype=Type.F32)
        dequantized[hf_name] = values
        checks[make_gguf.gguf_name(hf_name)] = dict(hf_name=hf_name, type="F32", shape=[HIDDEN],
                                                    sha256_as_stored=make_gguf.sha256(values),
                                                    sha256=make_gguf.sha256(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    make_gguf.check_file(path, checks)

    model = LlamaForCausalLM(config).eval()
    missing = model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in dequantized.items()}, strict=False)
    assert set(missing.missing_keys) <= {"lm_head.weight"} and not missing.unexpected_keys
    model.tie_weights()
    seed, logits = 0, np.zeros((1, 2), np.float32)
    while not common.margin(logits) > make_gguf.MIN_MARGIN:
        seed += 1
        tokens = common.random_tokens(seed, config.vocab_size)
        logits = common.logits_of(model, tokens)
    common.write_expected_logits(TARGET, f"{NAME}.", tokens, logits)
    common.write_json(TARGET / f"{NAME}.expected_tensors.json", checks)
    deviations = {name.split(".")[-2]: round(float(v.std()), 3) for name, v in dequantized.items()}
    print(f"{NAME} file {path.stat().st_size} token seed {seed} logits std {logits.std():.2f} "
          f"argmax margin {common.margin(logits):.4f} deviations {deviations}")


if __name__ == "__main__":
    main()
