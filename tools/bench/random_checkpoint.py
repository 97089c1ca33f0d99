#!/usr/bin/env python3
"""Writes a Hugging Face directory with random weights in the shape of a known Llama model.

    random_checkpoint.py SHAPE DIRECTORY [--type bf16|f16] [--shards N] [--seed N] [--sparse]

With --sparse only the first values of each tensor are written; the rest are holes, which read as zeros, so that a
checkpoint of any size fits on a small disk.

The weights are normal with the deviation that checkpoints have (1/sqrt(columns)), each run of them
taken from a random place among 2^26 values; the norms are about 1. The tokenizer is byte-level, with as many tokens as the embedding has rows.
Needs numpy.
"""
import argparse
import json
import pathlib
import struct

import numpy

SHAPES = {
    # vocabulary, hidden, layers, heads, KV heads, FFN, tied
    "tiny": (512, 256, 2, 4, 2, 704, False),
    "135m": (49152, 576, 30, 9, 3, 1536, True),
    "1b": (128256, 2048, 16, 32, 8, 8192, True),
    "8b": (128256, 4096, 32, 32, 8, 14336, False),
    "70b": (128256, 8192, 80, 64, 8, 28672, False),
}
POOL = 1 << 26
VALUES_AT_ONCE = 1 << 22
SPARSE_VALUES = 1 << 16


def tensors(vocab, hidden, layers, heads, kv_heads, ffn, tied):
    kv = hidden // heads * kv_heads
    yield "model.embed_tokens.weight", (vocab, hidden)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "self_attn.q_proj.weight", (hidden, hidden)
        yield prefix + "self_attn.k_proj.weight", (kv, hidden)
        yield prefix + "self_attn.v_proj.weight", (kv, hidden)
        yield prefix + "self_attn.o_proj.weight", (hidden, hidden)
        yield prefix + "mlp.gate_proj.weight", (ffn, hidden)
        yield prefix + "mlp.up_proj.weight", (ffn, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, ffn)
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    if not tied:
        yield "lm_head.weight", (vocab, hidden)


def tokenizer(vocab_size):
    # GPT-2's printable spelling of bytes, then words that no text becomes, as there are no merges.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    spelling = {byte: chr(byte) for byte in printable}
    spelling.update({byte: chr(256 + i) for i, byte in enumerate(rest)})
    vocab = {spelling[byte]: byte for byte in range(256)}
    vocab.update({f"word{token}": token for token in range(256, vocab_size - 1)})
    vocab["<|eos|>"] = vocab_size - 1
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    eos = {"id": vocab_size - 1, "content": "<|eos|>", "single_word": False, "lstrip": False,
           "rstrip": False, "normalized": False, "special": True}
    return {"version": "1.0", "added_tokens": [eos], "pre_tokenizer": byte_level, "decoder": byte_level,
            "model": {"type": "BPE", "vocab": vocab, "merges": []}}


class Values:
    def __init__(self, seed, type_, sparse):
        self.type, self.sparse = type_, sparse
        self.random = numpy.random.default_rng(seed)
        self.normal = self.random.standard_normal(POOL, dtype=numpy.float32)
        self.pools = {}

    def pool(self, scale, mean):
        if (scale, mean) not in self.pools:
            values = (self.normal * scale + mean).astype(numpy.float32)
            if self.type == "f16":
                self.pools[scale, mean] = values.astype("<f2")
            else:
                self.pools[scale, mean] = (values.view(numpy.uint32) >> 16).astype("<u2")
        return self.pools[scale, mean]

    def write(self, file, shape):
        pool = self.pool(0.02, 1) if len(shape) == 1 else self.pool(shape[-1] ** -0.5, 0)
        count = int(numpy.prod(shape))
        holes = max(0, count - SPARSE_VALUES) if self.sparse else 0
        count -= holes
        while count > 0:
            now = min(count, VALUES_AT_ONCE)
            begin = int(self.random.integers(POOL - now + 1))
            file.write(pool[begin:begin + now].tobytes())
            count -= now
        file.truncate(file.tell() + 2 * holes)
        file.seek(0, 2)


def write_shard(path, named_shapes, values):
    header, offset = {}, 0
    for name, shape in named_shapes:
        size = 2 * int(numpy.prod(shape))
        header[name] = {"dtype": values.type.upper(), "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape in named_shapes:
            values.write(file, shape)
    return offset


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--type", choices=["bf16", "f16"], default="bf16")
    parser.add_argument("--sparse", action="store_true")
    options = parser.parse_args()
    vocab, hidden, layers, heads, kv_heads, ffn, tied = SHAPES[options.shape]
    options.directory.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab,
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": hidden // heads, "intermediate_size": ffn,
        "hidden_act": "silu", "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0, "tie_word_embeddings": tied, "torch_dtype": {"bf16": "bfloat16", "f16": "float16"}[options.type],
    }
    (options.directory / "config.json").write_text(json.dumps(config, indent=1))
    (options.directory / "tokenizer.json").write_text(json.dumps(tokenizer(vocab)))
    (options.directory / "tokenizer_config.json").write_text('{"eos_token": "<|eos|>"}')
    everything = list(tensors(vocab, hidden, layers, heads, kv_heads, ffn, tied))
    total = sum(2 * int(numpy.prod(shape)) for _, shape in everything)
    shards, filled = [[]], 0
    for name, shape in everything:
        if filled * options.shards >= total * len(shards):
            shards.append([])
        shards[-1].append((name, shape))
        filled += 2 * int(numpy.prod(shape))
    values = Values(options.seed, options.type, options.sparse)
    weight_map = {}
    for number, named_shapes in enumerate(shards, 1):
        file_name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_shard(options.directory / file_name, named_shapes, values)
        weight_map.update({name: file_name for name, _ in named_shapes})
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (options.directory / "model.safetensors.index.json").write_text(json.dumps(index))
    print(f"{options.directory}: {total} bytes of tensors in {len(shards)} shards")


if __name__ == "__main__":
    main()
