#!/usr/bin/env python3
"""Makes GGUF files of the checkpoints in architectures/ with llama.cpp's converter, where it knows the architecture.

Usage: make_architectures_gguf.py LLAMA_CPP      the source with conversion/ and gguf-py/ (in the source
package of llama-cpp-python); after make_architectures.py; development only

The results expected of them are those of the checkpoints, except where GGUF cannot say what the configuration does
(CHANGES): there they are those of the checkpoint with that left out. Only the vocabulary is written here, because the converter
knows tokenizers by a hash of what they make of a text, and asks some architectures for a tokenizer.model.
"""
import json
import pathlib
import sys
import types

import numpy as np
import torch
import transformers

import common

NAMES = ["mistral", "qwen2", "qwen3", "phi3", "phi3_long", "gemma", "gemma2", "gemma3", "olmo2", "starcoder2",
         "gpt_bigcode", "falcon", "falcon_two_norms", "olmo3", "seed_oss", "smollm3", "stablelm", "gpt_neox", "bloom", "mpt"]


# The converter does not write windows of these architectures, nor the scale of queries.
CHANGES = {
    "mistral": dict(sliding_window=None),
    "qwen2": dict(use_sliding_window=False, sliding_window=None, layer_types=["full_attention"] * 2),
    "starcoder2": dict(sliding_window=None),
    "gemma2": dict(query_pre_attn_scalar=12),
    "gemma3": dict(query_pre_attn_scalar=8),
}


def write_results(name, changes):
    """What transformers computes of the checkpoint with a changed configuration."""
    directory = common.HERE / "architectures" / name
    config = transformers.AutoConfig.from_pretrained(directory)
    for key, value in changes.items():
        setattr(config, key, value)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, config=config, dtype=torch.float32, attn_implementation="eager").eval()
    seed, logits = 0, np.zeros((1, 2), np.float32)
    while not common.margin(logits) > 4e-3:
        seed += 1
        tokens = common.random_tokens(seed, common.TOKENIZER_VOCAB)
        logits = common.logits_of(model, tokens)
    common.write_expected_logits(directory, "gguf.", tokens, logits)


def set_vocab(self):
    import gguf
    tokenizer = json.loads((self.dir_model / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.get)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    writer = self.gguf_writer
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(common.CHAT_TEMPLATE)


def write_gguf(directory, target, llama_cpp, file_type):
    """Runs llama.cpp's converter, whose source is in the folder llama_cpp, on a checkpoint."""
    sys.path[:0] = [path for path in (str(llama_cpp), str(llama_cpp / "gguf-py")) if path not in sys.path]
    import conversion
    import gguf
    from conversion import base
    target.unlink(missing_ok=True)
    architecture = base.get_model_architecture(base.ModelBase.load_hparams(directory, False), base.ModelType.TEXT)
    if architecture == "MptForCausalLM":  # transformers' own name
        architecture = "MPTForCausalLM"
    model_class = conversion.get_model_class(architecture, mmproj=False)
    model = model_class(directory, gguf.LlamaFileType[file_type], target)
    if model.hparams.get("multi_query") and not model.hparams.get("new_decoder_architecture"):
        # transformers 5 writes the number of query heads, Falcon's own files have none.
        model.hparams["num_kv_heads"] = 1
    if model.hparams.get("model_type") == "gpt_neox":
        # transformers 5 writes the new name.
        model.hparams["rotary_pct"] = model.hparams["rope_parameters"]["partial_rotary_factor"]
    if model.hparams.get("model_type") == "mpt":
        model.hparams["attn_config"].setdefault("clip_qkv", None)
    model.set_vocab = types.MethodType(set_vocab, model)
    model.write()


def convert(name, llama_cpp):
    directory = common.HERE / "architectures" / name
    target = directory / "model.gguf"
    write_gguf(directory, target, llama_cpp, "MOSTLY_BF16")
    print(f"{name:18} {target.stat().st_size}", flush=True)


def main():
    common.deterministic()
    for name in sys.argv[2:] or NAMES:
        convert(name, pathlib.Path(sys.argv[1]))
        if name in CHANGES:
            write_results(name, CHANGES[name])


if __name__ == "__main__":
    main()
