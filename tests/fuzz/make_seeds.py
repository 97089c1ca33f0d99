#!/usr/bin/env python3
"""Writes the seeds of the GGUF, safetensors and configuration fuzz targets into corpus/.

Standard library only. Usage: make_seeds.py
"""
import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus"
U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q8_0": (8, 32, 34), "BF16": (30, 1, 2)}


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def kv(key, kind, value):
    formats = {U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q"}
    if kind == STRING:
        packed = text(value)
    elif kind == ARRAY:
        element = STRING if isinstance(value[0], str) else I32
        items = b"".join(text(v) if element == STRING else struct.pack("<i", v) for v in value)
        packed = struct.pack("<IQ", element, len(value)) + items
    else:
        packed = struct.pack(formats[kind], value)
    return text(key) + struct.pack("<I", kind) + packed


def gguf(keys, tensors, version=3):
    infos, data = b"", b""
    for name, dims, kind in tensors:
        type_id, block_values, block_bytes = TYPES[kind]
        size = dims[0] // block_values * block_bytes * (dims[1] if len(dims) > 1 else 1)
        infos += text(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims) + struct.pack("<IQ", type_id, len(data))
        data += bytes(-size % 32 + size)
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(kv(*k) for k in keys) + infos
    return head + bytes(-len(head) % 32) + data


def llama(kind, more_keys=(), more_tensors=(), tied=True):
    keys = [("general.architecture", STRING, "llama"), ("general.alignment", U32, 32), ("llama.block_count", U32, 1),
            ("llama.context_length", U32, 64), ("llama.embedding_length", U32, 32), ("llama.feed_forward_length", U32, 32),
            ("llama.attention.head_count", U32, 2), ("llama.attention.head_count_kv", U32, 1),
            ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5), ("tokenizer.ggml.model", STRING, "gpt2"),
            ("tokenizer.ggml.pre", STRING, "llama-bpe"), ("tokenizer.ggml.tokens", ARRAY, ["a", "b", "ab", "!"]),
            ("tokenizer.ggml.token_type", ARRAY, [1, 1, 1, 3]), ("tokenizer.ggml.merges", ARRAY, ["a b"]),
            ("tokenizer.ggml.eos_token_id", U32, 3), ("tokenizer.ggml.add_bos_token", BOOL, False),
            ("tokenizer.chat_template", STRING, "{{ messages }}"), *more_keys]
    tensors = [("token_embd.weight", (32, 4), kind), ("blk.0.attn_norm.weight", (32,), "F32"),
               ("blk.0.attn_q.weight", (32, 32), kind), ("blk.0.attn_k.weight", (32, 16), kind),
               ("blk.0.attn_v.weight", (32, 16), kind), ("blk.0.attn_output.weight", (32, 32), kind),
               ("blk.0.ffn_norm.weight", (32,), "F32"), ("blk.0.ffn_gate.weight", (32, 32), kind),
               ("blk.0.ffn_up.weight", (32, 32), kind), ("blk.0.ffn_down.weight", (32, 32), kind),
               ("output_norm.weight", (32,), "F32"), *more_tensors]
    if not tied:
        tensors.append(("output.weight", (32, 4), kind))
    return gguf(keys, tensors)


def safetensors(header, data_bytes):
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + bytes(data_bytes)


def write(folder, name, content):
    path = CORPUS / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def main():
    write("gguf", "empty", gguf([], []))
    write("gguf", "version2", gguf([("a", U64, 1), ("b", ARRAY, ["x", ""])], [("w", (3, 5), "F16")], version=2))
    for kind in ("Q4_0", "Q4_1", "Q8_0"):
        write("gguf", f"llama_{kind.lower()}", llama(kind))
    write("gguf", "llama_untied_yarn", llama("Q4_0", [
        ("llama.rope.scaling.type", STRING, "yarn"), ("llama.rope.scaling.factor", F32, 4.0)], tied=False))
    write("gguf", "llama_bias", llama("Q4_0", [], [
        (f"blk.0.attn_{n}.bias", (size,), "F32") for n, size in (("q", 32), ("k", 16), ("v", 16), ("output", 32))]))

    one = {"w": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}}
    two = {"__metadata__": {"format": "pt"}, "b": {"dtype": "BF16", "shape": [3], "data_offsets": [4, 10]},
           "a": {"dtype": "U8", "shape": [2, 2], "data_offsets": [0, 4]}, "z": {"dtype": "I64", "shape": [0], "data_offsets": [4, 4]}}
    write("safetensors", "one", safetensors(one, 8))
    write("safetensors", "two", safetensors(two, 10))
    write("safetensors", "header", json.dumps(two).encode() + b"\x0a")
    write("safetensors", "index", json.dumps({"metadata": {"total_size": 8}, "weight_map": {"w": "m-1.safetensors"}}))

    base = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 9, "hidden_size": 8,
            "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": None,
            "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True}
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 0.7, "mscale_all_dim": 1.0,
            "beta_fast": 32, "beta_slow": 1, "truncate": False}
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 5e5}
    write("config", "hf_old", json.dumps({**base, "rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}}))
    write("config", "hf_llama3", json.dumps({**base, "rope_parameters": llama3, "attention_bias": True}))
    write("config", "hf_yarn", json.dumps({**base, "rope_parameters": yarn, "mlp_bias": True}))
    write("config", "own", json.dumps({
        "activation": "silu", "architecture": "llama", "attention_bias": False, "attention_output_bias": False,
        "context_length": 64, "head_dim": 4, "hidden_size": 8, "intermediate_size": 12, "mlp_bias": False, "name": "n",
        "norm_eps": 1e-05, "num_heads": 2, "num_kv_heads": 1, "num_layers": 1, "tie_embeddings": True, "vocab_size": 9,
        "rope": {"attention_factor": 1.0, "beta_fast": 32.0, "beta_slow": 1.0, "dim": 4, "factor": 1.0,
                 "frequency_divisors": [1.0, 2.5], "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_context": 0.0,
                 "theta": 10000.0, "truncate": True, "type": "default"}}))


if __name__ == "__main__":
    main()
