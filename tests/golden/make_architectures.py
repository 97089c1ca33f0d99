#!/usr/bin/env python3
"""Makes a tiny random checkpoint of each architecture and the results that transformers computes from it.

Usage: make_architectures.py [NAME...]      development only; README.md says what is in each directory
The first seed is taken whose most probable tokens lead by a clear margin everywhere.
"""
import argparse
import copy
import shutil

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

import common

# As in make_checkpoints.py.
MIN_MARGIN = 4e-3
MIN_EFFECT = 0.05
GREEDY_TOKENS = 24

BASE = dict(vocab_size=common.TOKENIZER_VOCAB, num_hidden_layers=2, max_position_embeddings=128)
SMALL = dict(hidden_size=32, intermediate_size=44, num_attention_heads=4, num_key_value_heads=2)
ROPE = dict(rope_type="default", rope_theta=10000.0)
GPT = dict(hidden_size=32, num_attention_heads=4)
LONG = dict(rope_type="longrope", rope_theta=10000.0, short_factor=[1.0, 1.1, 1.25, 1.5], long_factor=[1.0, 2.5, 4.0, 6.5])
GEMMA3_ROPE = dict(
    full_attention=dict(rope_type="linear", factor=8.0, rope_theta=100000.0),
    sliding_attention=dict(rope_type="default", rope_theta=10000.0),
)

# effects: changes of the config, each of which must move some logit. greedy: False where transformers rotates a
# growing sequence anew but not the keys in its cache. distinct: tokens that each greedy answer has at least.
VARIANTS = {
    "mistral": dict(type="mistral", config=dict(SMALL, head_dim=12, sliding_window=24, rope_parameters=ROPE),
                    effects=[dict(sliding_window=None), dict(sliding_window=25)]),
    "qwen2": dict(type="qwen2", config=dict(SMALL, use_sliding_window=True, sliding_window=20, max_window_layers=1,
                                            rope_parameters=ROPE),
                  effects=[dict(use_sliding_window=False), dict(max_window_layers=0)]),
    "qwen3": dict(type="qwen3", config=dict(SMALL, head_dim=16, tie_word_embeddings=True, rope_parameters=ROPE), effects=[]),
    "phi3": dict(type="phi3", config=dict(SMALL, sliding_window=40,
                                          rope_parameters=dict(ROPE, partial_rotary_factor=0.5)),
                 effects=[dict(sliding_window=None)]),
    "phi3_long": dict(type="phi3", greedy=False,
                      config=dict(SMALL, original_max_position_embeddings=32,
                                  rope_parameters=dict(LONG, original_max_position_embeddings=32)),
                      effects=[dict(rope_parameters=ROPE)]),
    "phi3_short": dict(type="phi3", config=dict(SMALL, original_max_position_embeddings=112,
                                                rope_parameters=dict(LONG, original_max_position_embeddings=112)),
                       effects=[dict(rope_parameters=ROPE)]),
    "gemma": dict(type="gemma", config=dict(SMALL, head_dim=12, rope_parameters=ROPE), effects=[]),
    "gemma2": dict(type="gemma2", config=dict(SMALL, head_dim=12, sliding_window=16, query_pre_attn_scalar=20,
                                              attn_logit_softcapping=5.0, final_logit_softcapping=20.0,
                                              rope_parameters=ROPE),
                   effects=[dict(query_pre_attn_scalar=12), dict(attn_logit_softcapping=None),
                            dict(final_logit_softcapping=None), dict(sliding_window=17),
                            dict(layer_types=["full_attention", "sliding_attention"])]),
    "gemma3": dict(type="gemma3_text", config=dict(hidden_size=24, intermediate_size=28, num_attention_heads=4,
                                                   num_key_value_heads=2, num_hidden_layers=6, head_dim=8,
                                                   sliding_window=16, query_pre_attn_scalar=20,
                                                   rope_parameters=GEMMA3_ROPE),
                   effects=[dict(layer_types=["sliding_attention"] * 6), dict(layer_types=["full_attention"] * 6),
                            dict(query_pre_attn_scalar=8)]),
    "olmo2": dict(type="olmo2", config=dict(SMALL, rope_parameters=ROPE), effects=[]),
    "starcoder2": dict(type="starcoder2", config=dict(SMALL, sliding_window=20, rope_parameters=ROPE),
                       effects=[dict(sliding_window=None), dict(hidden_act="relu")]),
    "gpt_bigcode": dict(type="gpt_bigcode", config=dict(n_embd=32, n_head=4, n_layer=2, n_positions=128, vocab_size=307),
                        effects=[dict(activation_function="relu")]),
    "gpt_bigcode_mha": dict(type="gpt_bigcode", config=dict(n_embd=32, n_head=4, n_layer=2, n_positions=128,
                                                            vocab_size=307, multi_query=False, n_inner=40),
                            effects=[]),
    "opt": dict(type="opt", config=dict(GPT, ffn_dim=48), effects=[dict(activation_function="gelu")]),
    "opt_post_norm": dict(type="opt", config=dict(GPT, ffn_dim=48, do_layer_norm_before=False, word_embed_proj_dim=20), effects=[]),
    "falcon_alibi": dict(type="falcon", config=dict(hidden_size=36, num_attention_heads=6, alibi=True, parallel_attn=False,
                                                    multi_query=False, bias=True), effects=[dict(alibi=False)]),
    "bloom": dict(type="bloom", config=dict(hidden_size=36, n_head=6), distinct=3, effects=[]),
    "mpt": dict(type="mpt", config=dict(d_model=36, n_heads=6, max_seq_len=128), effects=[]),
    "falcon": dict(type="falcon", config=dict(GPT, rope_parameters=ROPE), effects=[dict(activation="relu")]),
    "falcon_two_norms": dict(type="falcon", config=dict(GPT, new_decoder_architecture=True, num_kv_heads=2,
                                                        rope_parameters=ROPE), effects=[]),
    "falcon_one_norm": dict(type="falcon", config=dict(GPT, new_decoder_architecture=True, num_kv_heads=2,
                                                       num_ln_in_parallel_attn=1, ffn_hidden_size=56,
                                                       rope_parameters=ROPE), effects=[]),
    "falcon_sequential": dict(type="falcon", config=dict(GPT, parallel_attn=False, multi_query=False, bias=True,
                                                         rope_parameters=ROPE), effects=[]),
    "olmo3": dict(type="olmo3", config=dict(SMALL, num_hidden_layers=4, intermediate_size=24, sliding_window=18, rope_parameters=dict(
                      full_attention=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32, rope_theta=10000.0),
                      sliding_attention=ROPE)),
                  effects=[dict(layer_types=["full_attention"] * 4), dict(sliding_window=19),
                           dict(rope_parameters=dict(full_attention=ROPE, sliding_attention=ROPE))]),
    "seed_oss": dict(type="seed_oss", config=dict(SMALL, head_dim=12, attention_out_bias=True, rope_parameters=ROPE), effects=[]),
    "smollm3": dict(type="smollm3", config=dict(SMALL, num_hidden_layers=4, intermediate_size=24, rope_parameters=ROPE),
                    effects=[dict(no_rope_layers=[1, 1, 1, 1]), dict(no_rope_layers=[1, 1, 0, 1])]),
    "stablelm": dict(type="stablelm", config=dict(SMALL, use_qkv_bias=True, rope_parameters=dict(ROPE, partial_rotary_factor=0.25)),
                     effects=[dict(rope_parameters=dict(ROPE, partial_rotary_factor=0.5))]),
    "stablelm_parallel": dict(type="stablelm", config=dict(SMALL, use_parallel_residual=True,
                                                           rope_parameters=dict(ROPE, partial_rotary_factor=0.5)), effects=[]),
    "gpt_neox": dict(type="gpt_neox", config=dict(GPT, intermediate_size=48, rope_parameters=dict(ROPE, partial_rotary_factor=0.25)),
                     effects=[dict(use_parallel_residual=False), dict(rope_parameters=dict(ROPE, partial_rotary_factor=0.5))]),
    "dynamic": dict(type="llama", greedy=False,
                    config=dict(SMALL, max_position_embeddings=32, tie_word_embeddings=True,
                                rope_parameters=dict(rope_type="dynamic", factor=4.0, rope_theta=100.0)),
                    effects=[dict(rope_parameters=dict(ROPE, rope_theta=100.0))]),
}


def make_config(variant, **changes):
    fields = copy.deepcopy({**BASE, **variant["config"], **changes})
    if variant["type"] in ("gpt_bigcode", "bloom", "mpt"):
        fields.pop("max_position_embeddings")
    if variant["type"] == "gpt_bigcode":
        fields.pop("num_hidden_layers")
    return AutoConfig.for_model(variant["type"], bos_token_id=0, eos_token_id=1, pad_token_id=None, **fields)


def model_of(config):
    return AutoModelForCausalLM.from_config(config, attn_implementation=common.attention_of(config)).eval()


def random_model(variant, seed):
    model = model_of(make_config(variant))
    generator = torch.Generator().manual_seed(seed)
    lacks_one = variant["type"].startswith("gemma")
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1 and name.endswith(".weight"):
            parameter.copy_(0.3 * noise + (0.0 if lacks_one else 1.0))
            if lacks_one and name == "model.norm.weight":
                parameter.copy_((1.0 + parameter) * model.config.hidden_size ** 0.5 - 1.0)
        elif parameter.dim() == 1:
            # Bloom's would lead to one token whatever comes before.
            parameter.copy_((0.1 if variant["type"] == "bloom" else 0.4) * noise)
        elif any(part in name for part in ("wpe", "embed_positions")):
            parameter.copy_(0.5 * noise)
        else:
            gain = 2.0 if any(part in name for part in ("embed", "lm_head", "wte")) else 1.6
            if lacks_one and "embed" in name:  # the model multiplies by this root, and would repeat its last token
                gain /= model.config.hidden_size ** 0.5
            parameter.copy_((gain / parameter.shape[1] ** 0.5 * noise).to(torch.bfloat16).float())
    return model


def results(model, tokenizer, tokens, greedy, distinct):
    """Logits of the tokens, greedy continuations and margins; None where a margin is too small."""
    logits = common.logits_of(model, tokens)
    margin = common.margin(logits)
    if not margin > MIN_MARGIN:
        return None
    answers = []
    for text in common.PROMPTS if greedy else []:
        prompt = tokenizer.encode(text).ids
        ids, smallest = common.greedy(model, prompt, GREEDY_TOKENS)
        if not smallest > MIN_MARGIN or len(set(ids)) < distinct:
            return None
        answers.append(dict(text=text, prompt_ids=prompt, next_ids=ids, min_margin=smallest))
    return logits, margin, answers


def smallest_effect(model, variant, tokens, logits):
    smallest = np.inf
    for changes in variant["effects"]:
        other = model_of(make_config(variant, **changes))
        other.load_state_dict(model.state_dict())
        effect = float(np.abs(common.logits_of(other, tokens) - logits).max())
        assert effect > MIN_EFFECT, f"{changes} moves the logits by {effect} only"
        smallest = min(smallest, effect)
    return smallest


def make(name, variant, tokenizer):
    directory = common.HERE / "architectures" / name
    for seed in range(1, 400):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        model = random_model(variant, seed)
        dtype = torch.float32 if name == "opt" else torch.bfloat16
        copy.deepcopy(model).to(dtype).save_pretrained(directory)
        model = common.load_float32(directory)
        tokens = common.random_tokens(seed, common.TOKENIZER_VOCAB)
        found = results(model, tokenizer, tokens, variant.get("greedy", True), variant.get("distinct", 6))
        if found:
            break
    else:
        raise SystemExit(f"{name}: no seed has wide margins")
    logits, margin, answers = found
    effect = smallest_effect(model, variant, tokens, logits)
    GenerationConfig(bos_token_id=0, eos_token_id=1).save_pretrained(directory)
    common.save_tokenizer(tokenizer, directory)
    rounding = float(np.abs(common.logits_of(copy.deepcopy(model).double(), tokens) - logits).max())
    common.write_expected_logits(directory, "", tokens, logits)
    common.write_json(directory / "expected_greedy.json", dict(seed=seed, argmax_margin=margin, prompts=answers))
    total = sum(path.stat().st_size for path in directory.iterdir())
    print(f"{name:18} seed {seed:3} total {total:7} logits std {logits.std():.2f} max {np.abs(logits).max():.1f} margin "
          f"{margin:.4f} smallest effect {effect:.2f} float32 against float64 {rounding:.1e}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    common.deterministic()
    tokenizer = common.make_tokenizer()
    for name in args.names or VARIANTS:
        make(name, VARIANTS[name], tokenizer)


if __name__ == "__main__":
    main()
