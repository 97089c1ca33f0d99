#!/usr/bin/env python3
"""Makes the tiny random Hugging Face checkpoints of this folder and the results that transformers computes from them.

Usage: make_checkpoints.py [--search] [NAME...]      development only; README.md says what is in each directory
--search prints the first seed of each variant that has wide margins instead of taking the one in VARIANTS.
"""
import argparse
import copy
import json
import pathlib
import shutil
import tempfile

import numpy as np
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

import common

# The most probable token must lead by more than this in every comparison, so that an implementation with
# a different order of summation still chooses the same one.
MIN_MARGIN = 4e-3
# Dropping a feature that a variant is about must move some logit by more than this.
MIN_EFFECT = 0.05
OTHER_EOS = 4

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BASE = dict(vocab_size=common.TOKENIZER_VOCAB, num_hidden_layers=2, max_position_embeddings=128, rms_norm_eps=1e-5)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)

# style: how config.json is written ("new": rope_parameters, transformers 5; "old": rope_scaling and rope_theta).
# omit: keys an old file lacks, so that defaults count. effects: changes of the config that must move the logits.
VARIANTS = {
    "mha": dict(
        seed=33, dtype="float32", style="old", omit=["rope_theta", "num_key_value_heads", "head_dim"],
        config=dict(hidden_size=30, intermediate_size=56, num_attention_heads=3, num_key_value_heads=3,
                    tie_word_embeddings=True, rms_norm_eps=1e-2, rope_parameters=dict(rope_theta=10000.0)),
        effects=[dict(rms_norm_eps=1e-6), dict(rope_parameters=dict(rope_theta=500000.0))],
    ),
    "gqa": dict(
        seed=69, dtype="bfloat16", style="new",
        config=dict(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2,
                    tie_word_embeddings=True, rope_parameters=dict(rope_theta=10000.0)),
        effects=[dict(rope_parameters=dict(rope_theta=500000.0))],
    ),
    "mqa": dict(
        seed=230, dtype="float16", style="new", eos=[1, OTHER_EOS],
        config=dict(hidden_size=48, intermediate_size=72, num_attention_heads=6, num_key_value_heads=1,
                    vocab_size=320, rope_parameters=dict(rope_theta=500000.0)),
        effects=[dict(rope_parameters=dict(rope_theta=10000.0))],
    ),
    "bias_linear": dict(
        seed=13, dtype="bfloat16", style="old", type_key="type",
        config=dict(hidden_size=40, intermediate_size=72, num_attention_heads=4, num_key_value_heads=2,
                    attention_bias=True, mlp_bias=True,
                    rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=10000.0)),
        effects=[dict(attention_bias=False), dict(mlp_bias=False), dict(rope_parameters=dict(rope_theta=10000.0))],
    ),
    "head_dim": dict(
        seed=2, dtype="float16", style="old",
        config=dict(hidden_size=40, intermediate_size=68, num_attention_heads=5, num_key_value_heads=1, head_dim=12,
                    tie_word_embeddings=True, rope_parameters=dict(rope_theta=500000.0)),
        effects=[dict(rope_parameters=dict(rope_theta=10000.0))],
    ),
    "llama3": dict(
        seed=3, dtype="bfloat16", style="new",
        config=dict(hidden_size=48, intermediate_size=76, num_attention_heads=6, num_key_value_heads=2, head_dim=16,
                    tie_word_embeddings=True, rope_parameters=dict(LLAMA3, rope_theta=500.0)),
        effects=[dict(rope_parameters=dict(rope_theta=500.0)),
                 dict(rope_parameters=dict(LLAMA3, rope_theta=500.0, high_freq_factor=1.5))],
    ),
    "llama3_old": dict(
        seed=17, dtype="float32", style="old", type_key="rope_type",
        config=dict(hidden_size=32, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=14,
                    tie_word_embeddings=True, rope_parameters=dict(LLAMA3, rope_theta=10000.0)),
        effects=[dict(rope_parameters=dict(rope_theta=10000.0))],
    ),
    "yarn": dict(
        seed=1, dtype="bfloat16", style="new",
        config=dict(hidden_size=40, intermediate_size=72, num_attention_heads=5, num_key_value_heads=5, head_dim=16,
                    tie_word_embeddings=True, rope_parameters=dict(YARN, rope_theta=100.0)),
        effects=[dict(rope_parameters=dict(rope_theta=100.0)),
                 dict(rope_parameters=dict(YARN, rope_theta=100.0, attention_factor=1.0)),
                 dict(rope_parameters=dict(YARN, rope_theta=100.0, truncate=False))],
    ),
    "yarn_given": dict(
        seed=3, dtype="float16", style="old", type_key="type",
        config=dict(hidden_size=36, intermediate_size=70, num_attention_heads=6, num_key_value_heads=3, head_dim=18,
                    tie_word_embeddings=True,
                    rope_parameters=dict(YARN, rope_theta=1000.0, attention_factor=1.25, beta_fast=4.0,
                                         beta_slow=0.5, truncate=False)),
        effects=[dict(rope_parameters=dict(YARN, rope_theta=1000.0, attention_factor=1.25, beta_fast=4.0,
                                           beta_slow=0.5)),
                 dict(rope_parameters=dict(YARN, rope_theta=1000.0, attention_factor=1.25, truncate=False)),
                 dict(rope_parameters=dict(YARN, rope_theta=1000.0, beta_fast=4.0, beta_slow=0.5, truncate=False))],
    ),
    "sharded": dict(
        seed=27, dtype="bfloat16", style="new", max_shard_size="24KB",
        config=dict(hidden_size=32, intermediate_size=44, num_hidden_layers=3, num_attention_heads=4,
                    num_key_value_heads=4, attention_bias=True,
                    rope_parameters=dict(YARN, rope_theta=50.0, mscale=1.0, mscale_all_dim=0.3)),
        effects=[dict(rope_parameters=dict(YARN, rope_theta=50.0)),
                 dict(rope_parameters=dict(YARN, rope_theta=50.0, mscale=1.0)),
                 dict(attention_bias=False)],
    ),
}


def make_config(variant, **changes):
    fields = copy.deepcopy({**BASE, **variant["config"], **changes})
    fields["rope_parameters"] = {"rope_type": "default", **fields["rope_parameters"]}
    return LlamaConfig(bos_token_id=0, eos_token_id=1, attn_implementation="eager", **fields)


def random_model(variant, seed):
    """Weights with gains that keep the residual stream in motion, so that a wrong rotation or norm shows in the logits."""
    model = LlamaForCausalLM(make_config(variant)).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("norm.weight"):
            parameter.copy_(1.0 + 0.3 * noise)
        elif name.endswith(".bias"):
            parameter.copy_(0.4 * noise)
        else:
            gain = 2.0 if ("embed_tokens" in name or "lm_head" in name) else 1.6
            parameter.copy_(gain / parameter.shape[1] ** 0.5 * noise)
    # Rows that pad the vocabulary have no token: they must not win.
    for matrix in (model.model.embed_tokens.weight, model.lm_head.weight):
        matrix[common.TOKENIZER_VOCAB:] = 0.2 * torch.randn(
            matrix[common.TOKENIZER_VOCAB:].shape, generator=generator) / matrix.shape[1] ** 0.5
    return model


def save(model, variant, directory):
    copy.deepcopy(model).to(DTYPES[variant["dtype"]]).save_pretrained(
        directory, max_shard_size=variant.get("max_shard_size", "5GB"))
    GenerationConfig(bos_token_id=0, eos_token_id=variant.get("eos", 1)).save_pretrained(directory)


def old_style(config, variant):
    """config.json as transformers 4 wrote it."""
    old = {key: value for key, value in config.items() if key not in ("rope_parameters", "dtype")}
    rope = dict(config["rope_parameters"])
    old["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    old["rope_scaling"] = None if kind == "default" else {variant.get("type_key", "rope_type"): kind, **rope}
    old["torch_dtype"] = config["dtype"]
    old["transformers_version"] = "4.46.0"
    for key in variant.get("omit", []):
        del old[key]
    return dict(sorted(old.items()))


def write_configs(directory, variant):
    """config.json in the variant's style, config_other_style.json in the other one."""
    new = json.loads((directory / "config.json").read_text())
    old = old_style(new, variant)
    first, second = (old, new) if variant["style"] == "old" else (new, old)
    common.write_json(directory / "config.json", first)
    common.write_json(directory / "config_other_style.json", second)


def logits_with_config(directory, config_path, tokens):
    """Logits of the same weights read through another config file."""
    with tempfile.TemporaryDirectory() as folder:
        for path in directory.glob("model*"):
            shutil.copy(path, folder)
        shutil.copy(config_path, pathlib.Path(folder) / "config.json")
        return common.logits_of(common.load_float32(folder), tokens)


def smallest_effect(model, variant, tokens, logits):
    smallest = np.inf
    for changes in variant["effects"]:
        other = LlamaForCausalLM(make_config(variant, **changes)).eval()
        other.load_state_dict(model.state_dict(), strict=not any(key.endswith("bias") for key in changes))
        smallest = min(smallest, float(np.abs(common.logits_of(other, tokens) - logits).max()))
    return smallest


def results(model, tokenizer, tokens):
    """Logits of the tokens, greedy continuations and margins; None where a margin is too small or a loop too short."""
    logits = common.logits_of(model, tokens)
    argmax_margin = common.margin(logits)
    if not argmax_margin > MIN_MARGIN:
        return None
    answers, usable = [], set(range(2, common.TOKENIZER_VOCAB)) - {OTHER_EOS}
    for text in common.PROMPTS:
        prompt = tokenizer.encode(text).ids
        assert 8 <= len(prompt) <= 16, (text, len(prompt))
        tokens_out, smallest = common.greedy(model, prompt)
        # No special token and no padding row, so that text can be compared too; and no short loop.
        if not smallest > MIN_MARGIN or not all(t in usable for t in tokens_out) or len(set(tokens_out)) < 16:
            return None
        answers.append(dict(text=text, prompt_ids=prompt, next_ids=tokens_out, min_margin=smallest))
    return logits, argmax_margin, answers


def search(name, variant, tokenizer):
    for seed in range(1, 2000):
        model = random_model(variant, seed)
        for parameter in model.parameters():  # not the buffers: the frequencies stay float32
            parameter.copy_(parameter.to(DTYPES[variant["dtype"]]))
        tokens = common.random_tokens(seed, variant["config"].get("vocab_size", BASE["vocab_size"]))
        found = results(model, tokenizer, tokens)
        if found and smallest_effect(model, variant, tokens, found[0]) > MIN_EFFECT:
            return seed
    raise SystemExit(f"{name}: no seed has wide margins")


def make(name, variant, tokenizer):
    directory = common.HERE / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    seed = variant["seed"]
    save(random_model(variant, seed), variant, directory)
    write_configs(directory, variant)
    common.save_tokenizer(tokenizer, directory)

    model = common.load_float32(directory)
    tokens = common.random_tokens(seed, model.config.vocab_size)
    found = results(model, tokenizer, tokens)
    assert found, f"{name}: seed {seed} gives narrow margins here; use --search"
    logits, argmax_margin, answers = found
    effect = smallest_effect(model, variant, tokens, logits)
    assert effect > MIN_EFFECT, f"{name}: a feature moves the logits by {effect} only"
    other = logits_with_config(directory, directory / "config_other_style.json", tokens)
    assert np.array_equal(other, logits), f"{name}: the two styles of config differ"

    rounding = float(np.abs(common.logits_of(copy.deepcopy(model).double(), tokens) - logits).max())
    common.write_expected_logits(directory, "", tokens, logits)
    common.write_json(directory / "expected_greedy.json", dict(seed=seed, argmax_margin=argmax_margin, prompts=answers))
    total = sum(path.stat().st_size for path in directory.iterdir())
    weights = sum(path.stat().st_size for path in directory.glob("model*.safetensors"))
    print(f"{name:12} weights {weights:7} total {total:7} logits std {logits.std():.2f} max {np.abs(logits).max():.1f} "
          f"argmax margin {argmax_margin:.4f} greedy margin {min(a['min_margin'] for a in answers):.4f} "
          f"smallest effect {effect:.2f} float32 against float64 {rounding:.1e}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    common.deterministic()
    tokenizer = common.make_tokenizer()
    for name in args.names or VARIANTS:
        if args.search:
            print(f"{name}: seed={search(name, VARIANTS[name], tokenizer)}", flush=True)
        else:
            make(name, VARIANTS[name], tokenizer)


if __name__ == "__main__":
    main()
