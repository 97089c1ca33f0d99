#!/usr/bin/env python3
"""Compares sluice with transformers on the layouts in which one and the same model is published.

Usage: compare_layouts.py SLUICE [--only NAME]      development only

Each case writes a small random model with transformers, changes its files as other versions of transformers and other programs write
them, and compares all logits (table ref, cache in float32) with those that transformers computes from the changed files; where
transformers does not read these (old code of a model's own), with those of the files before.
"""
import argparse
import json
import pathlib
import tempfile

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

import common
from compare_architectures import TOKENS, TOLERANCE, distance, logits_by_sluice

VOCAB = 307
LLAMA = dict(hidden_size=32, intermediate_size=44, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2, vocab_size=VOCAB,
             max_position_embeddings=128, bos_token_id=0, eos_token_id=1)
VISION = dict(hidden_size=16, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1, image_size=28, patch_size=14)


def randomize(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(0.3 * noise + 1 if parameter.dim() == 1 else 1.6 / parameter.shape[-1] ** 0.5 * noise)
    return model.eval()


def causal(kind, **fields):
    config = AutoConfig.for_model(kind, **{**LLAMA, **fields})
    return randomize(AutoModelForCausalLM.from_config(config, attn_implementation="eager"))


def with_images(kind, text, vision, **fields):
    config = AutoConfig.for_model(kind, text_config=dict(LLAMA, model_type=text), vision_config=dict(VISION, model_type=vision), **fields)
    return randomize(AutoModelForImageTextToText.from_config(config, attn_implementation="eager"))


def edit_config(change):
    def edit(directory):
        path = directory / "config.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))

    return edit


def edit_tensors(change):
    def edit(directory):
        path = directory / "model.safetensors"
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return edit


def renamed(pairs):
    def change(tensors):
        out = {}
        for name, tensor in tensors.items():
            for old, new in pairs:
                if name.startswith(old):
                    name = new + name[len(old):]
                    break
            out[name] = tensor
        return out

    return edit_tensors(change)


def head_of(tensors, tensor):
    return {**tensors, "lm_head.weight": tensor}


def old_rope(old_type):
    """rope_scaling with "type" and rope_theta beside it, as transformers 4 wrote it."""
    def change(config):
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope.pop("rope_theta")
        kind = rope.pop("rope_type")
        if kind != "default":
            config["rope_scaling"] = {**rope, "type": old_type or kind}

    return edit_config(change)


def without(*names):
    return edit_config(lambda config: [config.pop(name, None) for name in names])


def refined_web(config):
    config.update(architectures=["RWForCausalLM"], model_type="RefinedWeb" if config.pop("new_decoder_architecture") else "RefinedWebModel")
    config["n_head"], config["n_layer"] = config.pop("num_attention_heads"), config.pop("num_hidden_layers")
    kv = config.pop("num_kv_heads")
    for name in ("num_ln_in_parallel_attn", "ffn_hidden_size", "rope_parameters", "activation", "max_position_embeddings"):
        config.pop(name, None)
    if config["model_type"] == "RefinedWeb":
        config["n_head_kv"] = kv
        config.pop("multi_query")


def text_members(config):
    """Members that equal the class's are left out of the text part."""
    plain = AutoConfig.for_model(config["text_config"]["model_type"]).to_dict()
    config["text_config"] = {k: v for k, v in config["text_config"].items() if k == "model_type" or plain.get(k) != v}


LONG = dict(short_factor=[1.0, 1.1, 1.25, 1.5], long_factor=[1.0, 2.5, 4.0, 6.5])
OLD_IMAGES = [("model.language_model.", "language_model.model."), ("lm_head.", "language_model.lm_head."),
              ("model.vision_tower.", "vision_tower."), ("model.multi_modal_projector.", "multi_modal_projector.")]
NEW_IMAGES = [(new, old) for old, new in OLD_IMAGES]
ROPES = {
    "linear": dict(rope_type="linear", factor=4.0), "dynamic": dict(rope_type="dynamic", factor=4.0),
    "yarn": dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32),
    "llama3": dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32),
    "longrope": dict(rope_type="longrope", factor=4.0, original_max_position_embeddings=32, **LONG), "default": dict(rope_type="default"),
}

# name: (model, changes, whether transformers reads the changed files)
CASES = {
    "tied_stored_twice": (lambda: causal("llama", tie_word_embeddings=True),
                          [edit_tensors(lambda t: head_of(t, t["model.embed_tokens.weight"].clone()))], True),
    "tied_but_another_head": (lambda: causal("llama", tie_word_embeddings=True),
                              [edit_tensors(lambda t: head_of(t, t["model.embed_tokens.weight"].flip(0).contiguous()))], True),
    "tied_stored_as_head": (lambda: causal("llama", tie_word_embeddings=True),
                            [renamed([("model.embed_tokens.", "lm_head.")])], True),
    "bigcode_stored_as_head": (lambda: causal("gpt_bigcode", n_embd=32, n_head=4, n_layer=2, n_positions=128),
                               [renamed([("transformer.wte.", "lm_head.")])], True),
    "untied": (lambda: causal("qwen2", tie_word_embeddings=False), [], True),
    "without_prefix": (lambda: causal("llama", tie_word_embeddings=True), [renamed([("model.", "")])], True),
    "llava_llama": (lambda: with_images("llava", "llama", "clip_vision_model"), [edit_config(text_members)], True),
    "llava_llama_old_names": (lambda: with_images("llava", "llama", "clip_vision_model"), [renamed(OLD_IMAGES)], True),
    "llava_llama_new_names": (lambda: with_images("llava", "llama", "clip_vision_model"), [renamed(NEW_IMAGES)], True),
    "llava_qwen2": (lambda: with_images("llava", "qwen2", "clip_vision_model"), [], True),
    "llava_next_mistral": (lambda: with_images("llava_next", "mistral", "clip_vision_model"), [], True),
    "mistral3_tied": (lambda: with_images("mistral3", "mistral", "pixtral"), [], True),
    "mistral3_untied": (lambda: with_images("mistral3", "mistral", "pixtral", tie_word_embeddings=False), [], True),
    "mistral3_untied_unsaid": (lambda: with_images("mistral3", "mistral", "pixtral", tie_word_embeddings=False),
                               [without("tie_word_embeddings"), edit_config(lambda c: c["text_config"].pop("tie_word_embeddings", 0))], True),
    "ministral": (lambda: causal("ministral", head_dim=12, sliding_window=9, rope_parameters=dict(rope_type="default", rope_theta=500.0),
                                   layer_types=["full_attention", "sliding_attention"]), [], True),
    "qwen2_windows": (lambda: causal("qwen2", use_sliding_window=True, sliding_window=9, max_window_layers=1), [without("layer_types")], True),
    "qwen2_no_window": (lambda: causal("qwen2", use_sliding_window=True, sliding_window=None), [without("layer_types")], True),
    "refined_web_7b": (lambda: causal("falcon", multi_query=True), [edit_config(refined_web)], False),
    "refined_web_40b": (lambda: causal("falcon", new_decoder_architecture=True, num_kv_heads=2), [edit_config(refined_web)], False),
    **{f"rope_{name}": (lambda rope=rope: causal("llama", rope_parameters=dict(rope, rope_theta=500.0), max_position_embeddings=128), [], True)
       for name, rope in ROPES.items()},
    **{f"rope_{name}_old": (lambda rope=rope: causal("llama", rope_parameters=dict(rope, rope_theta=500.0), max_position_embeddings=128),
                            [old_rope(None)], True) for name, rope in ROPES.items()},
    "phi3_su": (lambda: causal("phi3", original_max_position_embeddings=32, pad_token_id=None,
                               rope_parameters=dict(ROPES["longrope"], rope_theta=500.0)), [old_rope("su")], True),
    "phi3_yarn": (lambda: causal("phi3", original_max_position_embeddings=32, pad_token_id=None,
                                 rope_parameters=dict(ROPES["longrope"], rope_theta=500.0)), [old_rope("yarn")], True),
}


def loaded(directory):
    config = json.loads((directory / "config.json").read_text())
    kind = AutoModelForImageTextToText if "vision_config" in config else AutoModelForCausalLM
    return kind.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()


def compare(sluice, make, changes, readable):
    with tempfile.TemporaryDirectory() as folder:
        directory = pathlib.Path(folder)
        make().save_pretrained(directory)
        common.save_tokenizer(common.make_tokenizer(), directory)
        tokens = np.random.default_rng(1).integers(0, VOCAB, size=(2, TOKENS))
        expected = None if readable else common.logits_of(loaded(directory), tokens)
        for change in changes:
            change(directory)
        if readable:
            expected = common.logits_of(loaded(directory), tokens)
        return distance(logits_by_sluice(sluice, directory, directory, tokens), expected)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sluice")
    parser.add_argument("--only")
    options = parser.parse_args()
    common.deterministic()
    bad = 0
    for name, (make, changes, readable) in CASES.items():
        if options.only and name != options.only:
            continue
        try:
            found = compare(options.sluice, make, changes, readable)
            note = "" if found <= TOLERANCE else "  DIFFERS"
        except Exception as error:  # what either program refuses
            found, note = float("nan"), f"  {type(error).__name__}: {error}"
        bad += bool(note)
        print(f"{name:24} {found:.1e}{note}", flush=True)
    raise SystemExit(f"{bad} differ" if bad else 0)


if __name__ == "__main__":
    main()
