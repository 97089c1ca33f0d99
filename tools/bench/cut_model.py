#!/usr/bin/env python3
"""Cuts a Llama-like checkpoint to its first layers and its first tokens, small enough to be carried to another machine.

Usage: cut_model.py CHECKPOINT OUTPUT_FOLDER TOKENS_FILE TEXT... [--layers 8] [--vocab 16384] [--lines 20] [--length 64]
OUTPUT_FOLDER gets config.json and model.safetensors (no tokenizer), TOKENS_FILE lines of token ids of the texts, those outside the cut vocabulary left out.
Needs safetensors, tokenizers and torch.
"""
import argparse
import json
import pathlib
import re

import safetensors.torch
import tokenizers


def cut_weights(source, layers, vocab):
    tensors = {}
    for name, tensor in safetensors.torch.load_file(source).items():
        layer = re.search(r"\.layers\.(\d+)\.", name)
        if layer and int(layer.group(1)) >= layers:
            continue
        cut = tensor[:vocab] if name in ("model.embed_tokens.weight", "lm_head.weight") else tensor
        tensors[name] = cut.contiguous()
    return tensors


def token_lines(checkpoint, texts, vocab, lines, length):
    tokenizer = tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    ids = [i for text in texts for i in tokenizer.encode(pathlib.Path(text).read_text()).ids if i < vocab]
    if len(ids) < lines * length:
        raise SystemExit(f"the texts have {len(ids)} tokens, {lines * length} are needed")
    return [ids[i * length:(i + 1) * length] for i in range(lines)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("tokens", type=pathlib.Path)
    parser.add_argument("texts", nargs="+")
    for name, value in (("layers", 8), ("vocab", 16384), ("lines", 20), ("length", 64)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    config = json.loads((options.checkpoint / "config.json").read_text())
    config.update(num_hidden_layers=options.layers, vocab_size=options.vocab)
    config.update(bos_token_id=0, eos_token_id=0)
    (options.output / "config.json").write_text(json.dumps(config))
    weights = cut_weights(options.checkpoint / "model.safetensors", options.layers, options.vocab)
    safetensors.torch.save_file(weights, options.output / "model.safetensors")
    lines = token_lines(options.checkpoint, options.texts, options.vocab, options.lines, options.length)
    options.tokens.write_text("".join(" ".join(map(str, line)) + "\n" for line in lines))


if __name__ == "__main__":
    main()
