#!/usr/bin/env python3
"""Cuts a Llama-like checkpoint to its first layers and its first tokens, small enough to be carried to another machine.

Usage: cut_model.py CHECKPOINT OUTPUT_FOLDER TOKENS_FILE TEXT... [--layers 8] [--vocab 16384] [--lines 20] [--length 64]
CHECKPOINT is a folder in the Hugging Face form, or a Llama in a GGUF file.
OUTPUT_FOLDER gets config.json, model.safetensors and the tokenizer of the tokens that are left, TOKENS_FILE lines of token ids of the texts, those outside the cut vocabulary left out.
Needs safetensors, tokenizers and torch; for GGUF transformers and gguf too.
"""
import argparse
import json
import pathlib
import re
import tempfile

import safetensors.torch
import tokenizers


NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
OUTER_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def unpack_gguf(path, folder):
    """A Llama in GGUF as a checkpoint; rows of query and key go back to the order of the Hugging Face form."""
    import gguf
    import torch
    import transformers
    reader = gguf.GGUFReader(path)
    field = lambda name: reader.fields[f"llama.{name}"].contents()
    heads, kv_heads = field("attention.head_count"), field("attention.head_count_kv")
    weights = {}
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        layer, name = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", tensor.name).groups()
        count = {"attn_q": heads, "attn_k": kv_heads}.get(name)
        if count:
            values = values.reshape(count, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        name = OUTER_NAMES[name] if layer is None else f"model.layers.{layer}.{NAMES[name]}"
        weights[name + ".weight"] = torch.from_numpy(values.copy()).half()
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
              "hidden_size": field("embedding_length"), "intermediate_size": field("feed_forward_length"),
              "num_attention_heads": heads, "num_key_value_heads": kv_heads,
              "max_position_embeddings": field("context_length"), "rope_theta": field("rope.freq_base"),
              "rms_norm_eps": field("attention.layer_norm_rms_epsilon"),
              "tie_word_embeddings": "lm_head.weight" not in weights, "torch_dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config))
    transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(folder)


def cut_weights(source, layers, vocab):
    tensors = {}
    for name, tensor in safetensors.torch.load_file(source).items():
        layer = re.search(r"\.layers\.(\d+)\.", name)
        if layer and int(layer.group(1)) >= layers:
            continue
        cut = tensor[:vocab] if name in ("model.embed_tokens.weight", "lm_head.weight") else tensor
        tensors[name] = cut.contiguous()
    return tensors


def cut_tokenizer(checkpoint, output, vocab):
    """Of a BPE tokenizer the tokens that are left, and the merges whose parts and result are."""
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    model = tokenizer["model"]
    left = {token: i for token, i in model["vocab"].items() if i < vocab}
    parts = lambda merge: merge.split(" ") if isinstance(merge, str) else merge
    model["vocab"] = left
    model["merges"] = [merge for merge in model["merges"]
                       if all(part in left for part in parts(merge)) and "".join(parts(merge)) in left]
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["id"] < vocab]
    (output / "tokenizer.json").write_text(json.dumps(tokenizer))


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
    unpacked = tempfile.TemporaryDirectory()
    if options.checkpoint.suffix == ".gguf":
        unpack_gguf(options.checkpoint, pathlib.Path(unpacked.name))
        options.checkpoint = pathlib.Path(unpacked.name)
    options.output.mkdir(parents=True, exist_ok=True)
    config = json.loads((options.checkpoint / "config.json").read_text())
    config.update(num_hidden_layers=options.layers, vocab_size=options.vocab)
    config.update(bos_token_id=0, eos_token_id=0)
    (options.output / "config.json").write_text(json.dumps(config))
    weights = cut_weights(options.checkpoint / "model.safetensors", options.layers, options.vocab)
    safetensors.torch.save_file(weights, options.output / "model.safetensors")
    cut_tokenizer(options.checkpoint, options.output, options.vocab)
    lines = token_lines(options.checkpoint, options.texts, options.vocab, options.lines, options.length)
    options.tokens.write_text("".join(" ".join(map(str, line)) + "\n" for line in lines))


if __name__ == "__main__":
    main()
