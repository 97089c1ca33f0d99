#!/usr/bin/env python3
"""Writes the seeds of the tokenizer fuzz target into corpus/tokenizer/.

Standard library only. Usage: make_tokenizer_seeds.py
The first byte of a seed chooses what the rest is: tokenizer.json, tokenizer.model, sluice's own JSON, or text.
"""
import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus" / "tokenizer"
JSON, MODEL, OWN, TEXT = b"\0", b"\1", b"\2", b"\3"


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def number(field, value):
    return varint(field << 3) + varint(value)


def content(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def piece(text, score, kind):
    return content(1, content(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + number(3, kind))


def sentencepiece(unigram, normalizer=b""):
    pieces = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3), ("<0xC3>", 0, 6), ("<0xA9>", 0, 6), ("\u2581", -5, 1), ("a", -3, 1),
              ("b", -4, 1), ("ab", -1, 1), ("\u2581a", -2, 1), ("<tool>", 0, 4)]
    trainer = number(3, 1 if unigram else 2) + number(35, 1) + number(40, 0) + number(41, 1) + number(42, 2)
    return b"".join(piece(*p) for p in pieces) + content(2, trainer) + content(3, normalizer)


def charsmap():
    """One key, "b", that stands for "ab": units of Darts-clone for the root, the character and its value."""
    units = [0] * 256
    root_offset = 1
    units[0] = root_offset << 10
    node = root_offset ^ ord("b")
    leaf_offset = 2
    units[node] = leaf_offset << 10 | 1 << 8 | ord("b")
    units[node ^ leaf_offset] = 1 << 31 | 0
    return struct.pack("<I", len(units) * 4) + struct.pack(f"<{len(units)}I", *units) + b"ab\0"


def write(name, kind, value):
    CORPUS.mkdir(parents=True, exist_ok=True)
    (CORPUS / name).write_bytes(kind + (value if isinstance(value, bytes) else json.dumps(value).encode()))


def main():
    added = [{"id": 0, "content": "<s>", "special": True, "normalized": False}, {"id": 1, "content": "<t>", "lstrip": True, "single_word": True}]
    byte_level = {"type": "ByteLevel", "add_prefix_space": True}
    split = {"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}| ?[^\s\p{L}]+|\s+(?!\S)|[a&&[^b]]"}, "behavior": "Isolated", "invert": False}
    bpe = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3, "<s>": 4}, "merges": ["a b"]}
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
                "special_tokens": {"<s>": {"ids": [4]}}}
    write("json_byte_level", JSON, {
        "model": bpe, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, {"type": "Digits"}, byte_level]},
        "decoder": {"type": "ByteLevel"}, "normalizer": {"type": "NFC"}, "added_tokens": added, "post_processor": template})
    decoder = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    normalizer = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
    write("json_llama2", JSON, {
        "model": {"type": "BPE", "byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>", "merges": [["a", "b"]],
                  "vocab": {"<unk>": 0, "a": 1, "b": 2, "ab": 3, "\u2581": 4, "<0xC3>": 5}},
        "normalizer": normalizer, "decoder": decoder, "added_tokens": added})
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True}
    write("json_unigram", JSON, {
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["\u2581", -2.5], ["a", -3], ["\u2581a", -4]]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]}, "decoder": metaspace,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "StripAccents"}]}})
    write("model_bpe", MODEL, sentencepiece(False, number(4, 0)))
    write("model_unigram", MODEL, sentencepiece(True))
    write("model_charsmap", MODEL, sentencepiece(True, content(2, charsmap()) + number(3, 0)))
    write("own", OWN, {
        "version": 1, "kind": "unigram", "tokens": ["<unk>", "\u2581", "a"], "scores": [None, -1.5, -2], "unknown": 0, "merges": [],
        "pre_tokenizer": [{"kind": "metaspace", "behavior": "isolated", "pattern": "\u2581", "prepend": "always", "split": True}],
        "decoder": [{"kind": "metaspace", "pattern": "\u2581", "drop_first": True}], "prefix": [], "suffix": [], "eos": [2]})
    write("text", TEXT, "a ab  <s>b\u00e9 <t> e\u0301\u2581_\ufb01\n\U0001F600".encode())


if __name__ == "__main__":
    main()
