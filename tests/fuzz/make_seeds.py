#!/usr/bin/env python3
"""Writes the seeds of the GGUF, safetensors, .sluice and configuration fuzz targets into corpus/.

Standard library only. Usage: make_seeds.py
"""
import json
import pathlib
import struct
import sys

CORPUS = pathlib.Path(__file__).parent / "corpus"
sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "formats"))
from sluice_reader import xxh3_64  # noqa: E402

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


PAGE = 4096
SLUICE_KINDS = {"f32": (0, 32), "f16": (1, 16), "bf16": (2, 16), "int8": (3, 8), "int4": (4, 4)}


def tile_bytes(kind, offset, group, cols, tile_rows):
    """FORMAT.md, section "Tiles"."""
    bits = SLUICE_KINDS[kind][1]
    if kind not in ("int8", "int4"):
        return (cols if kind == "f32" else cols + cols % 2) * bits // 8 * tile_rows
    padded = -(-cols // 32) * 32

    def header(groups):
        return -(-groups * tile_rows * (2, 3, 4)[offset] // (4 * tile_rows)) * 4 * tile_rows

    channels = [min(128, padded - k) for k in range(0, padded, 128)]
    return (0 if group else header(1)) + sum(header(-(-n // group) if group else 0) + n * bits // 8 * tile_rows for n in channels)


def sluice(groups, texts=(), max_piece_rows=1 << 30):
    """groups: [(kind, layer, [(name, kind, offset kind, group size, tile rows, rows, cols)])]; texts: {section: text}.

    Gives the file, and its compact form for the fuzz target: the metadata without its padding, then the number of pages that follow."""
    names, tensors, pieces, hashes, extents = b"", b"", [], [], []
    data = b""
    number = 0
    for g, (group_kind, layer, members) in enumerate(groups):
        begin = len(data)
        for name, kind, offset, group, tile_rows, rows, cols in members:
            first = len(pieces)
            for row in range(0, rows, max_piece_rows):
                count = min(max_piece_rows, rows - row)
                piece = bytes(-(-count // tile_rows) * tile_bytes(kind, offset, group, cols, tile_rows))
                piece += bytes(-len(piece) % PAGE)
                pieces.append([len(data), len(piece), number, row, count, len(hashes)])
                hashes += [xxh3_64(piece[at:at + (1 << 20)]) for at in range(0, len(piece), 1 << 20)]
                data += piece
            tensors += struct.pack("<QIBBHHHIQQQQQ", len(names), len(name), SLUICE_KINDS[kind][0], offset, group, 1, tile_rows, g,
                                   rows, cols, first, len(pieces) - first, 0)
            names += name.encode()
            number += 1
        extents.append((group_kind, layer, number - len(members), len(members), begin, len(data) - begin))
    config = {"activation": "silu", "architecture": "llama", "attention_bias": False, "attention_output_bias": False,
              "context_length": 64, "head_dim": 4, "hidden_size": 8, "intermediate_size": 12, "mlp_bias": False, "name": "n",
              "norm_eps": 1e-05, "num_heads": 2, "num_kv_heads": 1, "num_layers": 1, "tie_embeddings": True, "vocab_size": 9,
              "rope": {"attention_factor": 1.0, "beta_fast": 32.0, "beta_slow": 1.0, "dim": 4, "factor": 1.0,
                       "frequency_divisors": [], "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_context": 0.0,
                       "theta": 10000.0, "truncate": True, "type": "default"}}
    metadata_size = 0
    for _ in range(2):  # the size is known after the first round
        sections = {1: json.dumps(config).encode(), **{k: v.encode() for k, v in dict(texts).items()}, 4: names, 5: tensors,
                    6: b"".join(struct.pack("<4I4Q", k, layer, 0xFFFFFFFF, 0, first, count, metadata_size + at, size)
                                for k, layer, first, count, at, size in extents),
                    7: b"".join(struct.pack("<6Q", metadata_size + p[0], *p[1:]) for p in pieces),
                    8: struct.pack(f"<{len(hashes)}Q", *hashes)}
        directory, body = b"", b""
        for kind, content in sections.items():
            directory += struct.pack("<IIQQ", kind, 0, 512 + len(body), len(content))
            body += content + bytes(-len(content) % 8)
        metadata_size = -(-(512 + len(body)) // PAGE) * PAGE
    padded = body + bytes(metadata_size - 512 - len(body))
    head = b"\x89SLUICE\n" + struct.pack("<IIQQQQQIIII", 1, 512, 0, 0, metadata_size + len(data), metadata_size, xxh3_64(padded),
                                          PAGE, 1 << 20, len(sections), 0) + directory.ljust(384, b"\0") + bytes(48)
    head += struct.pack("<Q", xxh3_64(head))
    return head + padded + data, head + body + bytes([len(data) // PAGE])


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

    one = [(1, 0, [("w", "f32", 0, 0, 16, 3, 5)])]
    write("sluice_file", "one", sluice(one)[0])
    write("sluice_file", "one_compact", sluice(one)[1])
    several = [(0, 0xFFFFFFFF, [("embed", "int8", 0, 32, 1, 9, 8)]),
               (1, 0, [("norm", "f32", 0, 0, 1, 1, 8), ("q", "int4", 1, 128, 16, 37, 40), ("k", "int4", 2, 32, 16, 16, 200)]),
               (2, 0, [("up", "int8", 0, 0, 16, 17, 8), ("down", "bf16", 0, 0, 16, 8, 13)])]
    write("sluice_file", "several_compact", sluice(several, {2: "{}", 3: "{{ messages }}", 9: "{}"})[1])
    pieces = [(1, 0, [("w", "f16", 0, 0, 16, 40, 100)]), (4, 0xFFFFFFFF, [("v", "f32", 0, 0, 1, 50, 7)])]
    write("sluice_file", "pieces", sluice(pieces, max_piece_rows=16)[0])
    write("sluice_file", "pieces_compact", sluice(pieces, max_piece_rows=16)[1])

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
