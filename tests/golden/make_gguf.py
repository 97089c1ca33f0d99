#!/usr/bin/env python3
"""Makes one tiny GGUF file per weight type from the checkpoint in gqa/, and what its weights and logits are.

Usage: make_gguf.py      after make_checkpoints.py; development only; README.md says what is in each file
Weights are quantized and dequantized by the PyPI package gguf; the logits are those of transformers in float32 on the dequantized weights.
"""
import hashlib
import json

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from transformers import LlamaConfig, LlamaForCausalLM

import common

SOURCE = common.HERE / "gqa"
TARGET = common.HERE / "gguf"
# layers: one where the type is wide, to keep files small. untied: an output.weight of its own.
# freqs: a rope_freqs.weight tensor, by which frequencies are divided.
FILES = {
    "f32": dict(type=Type.F32, file_type=gguf.LlamaFileType.ALL_F32, layers=1),
    "f16": dict(type=Type.F16, file_type=gguf.LlamaFileType.MOSTLY_F16, layers=1, freqs=True),
    "bf16": dict(type=Type.BF16, file_type=gguf.LlamaFileType.MOSTLY_BF16, layers=1),
    "q8_0": dict(type=Type.Q8_0, file_type=gguf.LlamaFileType.MOSTLY_Q8_0, layers=1),
    "q4_0": dict(type=Type.Q4_0, file_type=gguf.LlamaFileType.MOSTLY_Q4_0, layers=2, untied=True),
    "q4_1": dict(type=Type.Q4_1, file_type=gguf.LlamaFileType.MOSTLY_Q4_1, layers=2),
}
# The most probable token leads by more than this at every position of the tokens chosen.
MIN_MARGIN = 4e-3
ROPE_FACTORS = np.array([1.0, 1.0, 1.5, 2.25, 4.0, 6.5, 8.0, 8.0], np.float32)
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name):
    parts = name.removesuffix(".weight").split(".")
    if parts[:2] == ["model", "layers"]:
        return f"blk.{parts[2]}.{NAMES['.'.join(parts[3:])]}.weight"
    return {"model.embed_tokens": "token_embd.weight", "model.norm": "output_norm.weight",
            "lm_head": "output.weight"}[".".join(parts)]


def permute(rows, heads):
    """Row order of llama.cpp's converter: the halves of each head interleaved, for its pairwise rotation."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def unpermute(rows, heads):
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def sha256(values):
    return hashlib.sha256(np.ascontiguousarray(values, "<f4").tobytes()).hexdigest()


def add_metadata(writer, config, spec, tokenizer):
    writer.add_name("sluice golden")
    writer.add_file_type(spec["file_type"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(spec["layers"])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    model = tokenizer["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(common.CHAT_TEMPLATE)


def source_tensors(config, spec):
    """Hugging Face names to float32 arrays: the first layers of the source, and a head of its own if untied."""
    state = {name: value.numpy() for name, value in common.load_float32(SOURCE).state_dict().items()}
    kept = {name: value for name, value in state.items()
            if name != "lm_head.weight" and (".layers." not in name or int(name.split(".")[2]) < spec["layers"])}
    if spec.get("untied"):
        kept["lm_head.weight"] = np.roll(state["model.embed_tokens.weight"], 1, axis=0)
    return kept


def make(name, spec, tokenizer):
    config = LlamaConfig.from_pretrained(SOURCE, attn_implementation="eager")
    config.num_hidden_layers = spec["layers"]
    config.tie_word_embeddings = not spec.get("untied")
    path = TARGET / f"{name}.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    add_metadata(writer, config, spec, tokenizer)
    if spec.get("freqs"):
        writer.add_tensor("rope_freqs.weight", ROPE_FACTORS)

    dequantized, checks = {}, {}
    for hf_name, values in source_tensors(config, spec).items():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(hf_name.split(".")[-2])
        kind = spec["type"] if values.ndim == 2 else Type.F32
        stored = gguf.quants.quantize(permute(values, heads) if heads else values, kind)
        writer.add_tensor(gguf_name(hf_name), stored, raw_dtype=kind)
        as_stored = gguf.quants.dequantize(stored, kind)
        assert as_stored.shape == values.shape
        dequantized[hf_name] = unpermute(as_stored, heads) if heads else as_stored
        checks[gguf_name(hf_name)] = dict(hf_name=hf_name, type=kind.name, shape=list(values.shape),
                                          sha256_as_stored=sha256(as_stored), sha256=sha256(dequantized[hf_name]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check_file(path, checks)

    model = LlamaForCausalLM(config).eval()
    weights = {key: torch.from_numpy(value.copy()) for key, value in dequantized.items()}
    missing = model.load_state_dict(weights, strict=False)
    assert set(missing.missing_keys) <= {"lm_head.weight"} and not missing.unexpected_keys
    model.tie_weights()
    if spec.get("freqs"):
        model.model.rotary_emb.inv_freq /= torch.from_numpy(ROPE_FACTORS)
    seed, logits = 0, np.zeros((1, 2), np.float32)
    while not common.margin(logits) > MIN_MARGIN:
        seed += 1
        tokens = common.random_tokens(seed, config.vocab_size)
        logits = common.logits_of(model, tokens)
    common.write_expected_logits(TARGET, f"{name}.", tokens, logits)
    common.write_json(TARGET / f"{name}.expected_tensors.json", checks)
    print(f"{name:5} file {path.stat().st_size:7} tensors {len(checks):2} token seed {seed} logits std {logits.std():.2f} "
          f"argmax margin {common.margin(logits):.4f}", flush=True)


def check_file(path, checks):
    """The file, read back by gguf, holds what was meant."""
    read = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, check in checks.items():
        values = gguf.quants.dequantize(read[name].data, read[name].tensor_type)
        assert sha256(values) == check["sha256_as_stored"], name


def main():
    common.deterministic()
    TARGET.mkdir(exist_ok=True)
    for path in TARGET.iterdir():
        path.unlink()
    tokenizer = json.loads((SOURCE / "tokenizer.json").read_text())
    for name, spec in FILES.items():
        make(name, spec, tokenizer)


if __name__ == "__main__":
    main()
