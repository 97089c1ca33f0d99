#!/usr/bin/env python3
"""Compares sluice with transformers on random small configurations of every architecture.

Usage: compare_architectures.py SLUICE [--count N] [--only TYPE] [--seed N] [--gguf LLAMA_CPP]   development only

Each case draws sizes, options, the type of the weights, shards, and which members that equal their default are left out of
config.json; then logits of random tokens and greedy tokens through the cache are compared: table ref, weights as they are stored, cache
in float32. --gguf converts each case with llama.cpp's converter too and compares the file's logits with those of the checkpoint's.
"""
import argparse
import json
import logging
import os
import pathlib
import random
import subprocess
import tempfile

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

import common
import make_architectures_gguf

TOLERANCE = 2e-4  # times the standard deviation of the logits, where that is more than 1
TOKENS = 72
NO_GGUF = ("opt", "falcon_alibi")  # llama.cpp does not know them


def rope(pick, theta=10000.0, kinds=("default", "linear", "llama3", "yarn")):
    kind = pick(kinds)
    fields = dict(rope_type=kind, rope_theta=pick([theta, 500000.0, 123.5]))
    if kind == "linear":
        fields["factor"] = pick([2.0, 8.0, 1.5])
    if kind == "llama3":
        fields.update(factor=pick([8.0, 32.0]), low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=pick([16, 32]))
    if kind == "yarn":
        fields.update(factor=pick([4.0, 2.5]), original_max_position_embeddings=pick([16, 32]))
        if pick([True, False]):
            fields.update(beta_fast=pick([32.0, 16.0]), beta_slow=pick([1.0, 2.0]))
        if pick([True, False]):
            fields.update(attention_factor=pick([1.0, 0.8, 1.3]))
        if pick([True, False]):
            fields.update(mscale=pick([1.0, 0.7]), mscale_all_dim=pick([1.0, 0.5]))
        if pick([True, False]):
            fields.update(truncate=pick([True, False]))
    return fields


def sizes(pick, explicit_dim=True):
    kv = pick([1, 2, 3, 4])
    heads = kv * pick([1, 2, 3])
    dim = pick([4, 8, 16, 20, 32])
    hidden = heads * (pick([6, 10, 24]) if explicit_dim and pick([True, False]) else dim)
    fields = dict(hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=kv, intermediate_size=pick([17, 44, 64, 100]),
                  num_hidden_layers=pick([1, 2, 3]), tie_word_embeddings=pick([True, False]))
    if hidden != heads * dim:
        fields["head_dim"] = dim
    fields["rms_norm_eps"] = pick([1e-5, 1e-6, 1e-3])
    return fields


def window(pick):
    return pick([None, 1, 5, 16, 33, 1000])


def llama(pick):
    return dict(sizes(pick), rope_parameters=rope(pick), attention_bias=pick([True, False]), mlp_bias=pick([True, False]))


def mistral(pick):
    return dict(sizes(pick), rope_parameters=rope(pick), sliding_window=window(pick))


def qwen2(pick):
    fields = dict(sizes(pick, explicit_dim=False), rope_parameters=rope(pick))
    if pick([True, False]):
        fields.update(use_sliding_window=True, sliding_window=pick([1, 7, 20]), max_window_layers=pick([0, 1, 2, 28]))
    return fields


def qwen3(pick):
    fields = sizes(pick)
    fields.setdefault("head_dim", fields["hidden_size"] // fields["num_attention_heads"])
    fields.update(rope_parameters=rope(pick), attention_bias=pick([True, False]))
    if pick([True, False]):
        fields.update(use_sliding_window=True, sliding_window=pick([1, 7, 20]), max_window_layers=pick([0, 1, 2, 28]))
    return fields


def phi3(pick):
    fields = dict(sizes(pick, explicit_dim=False), sliding_window=window(pick))
    dim = fields["hidden_size"] // fields["num_attention_heads"]
    partial = pick([1.0, 0.5]) if dim % 4 == 0 else 1.0
    rotating = int(dim * partial)
    if pick([True, False]):
        fields["rope_parameters"] = dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=partial)
        return fields
    original = pick([32, 200])
    fields["original_max_position_embeddings"] = original
    fields["rope_parameters"] = dict(
        rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=partial, original_max_position_embeddings=original,
        short_factor=[1.0 + 0.1 * i for i in range(rotating // 2)], long_factor=[1.0 + 0.9 * i for i in range(rotating // 2)])
    return fields


def gemma(pick):
    return dict(sizes(pick), rope_parameters=rope(pick, kinds=("default",)), attention_bias=pick([True, False]))


def gemma2(pick):
    return dict(gemma(pick), query_pre_attn_scalar=pick([8, 20, 256]), attn_logit_softcapping=pick([None, 5.0, 50.0]),
                final_logit_softcapping=pick([None, 20.0]), sliding_window=pick([1, 9, 40]))


def gemma3_text(pick):
    fields = dict(sizes(pick), query_pre_attn_scalar=pick([8, 20, 256]), sliding_window=pick([1, 9, 40]), num_hidden_layers=pick([1, 5, 6, 7]),
                  final_logit_softcapping=pick([None, 20.0]), attn_logit_softcapping=pick([None, 9.0]))
    fields["rope_parameters"] = dict(full_attention=rope(pick, 1000000.0, ("default", "linear")),
                                     sliding_attention=dict(rope_type="default", rope_theta=10000.0))
    if pick([True, False]):
        fields["layer_types"] = [pick(["full_attention", "sliding_attention"]) for _ in range(fields["num_hidden_layers"])]
    return fields


def olmo2(pick):
    return dict(sizes(pick, explicit_dim=False), rope_parameters=rope(pick), attention_bias=pick([True, False]))


def starcoder2(pick):
    fields = dict(sizes(pick, explicit_dim=False), rope_parameters=rope(pick), use_bias=pick([True, False]), sliding_window=window(pick),
                  norm_epsilon=pick([1e-5, 1e-3]), hidden_act=pick(["gelu_pytorch_tanh", "gelu", "silu"]))
    del fields["rms_norm_eps"]
    return fields


def gpt_bigcode(pick):
    heads = pick([1, 2, 4])
    return dict(n_embd=heads * pick([8, 12, 16]), n_head=heads, n_layer=pick([1, 2, 3]), n_positions=128, n_inner=pick([None, 40]),
                multi_query=pick([True, False]), activation_function=pick(["gelu_pytorch_tanh", "gelu", "relu", "gelu_new"]),
                tie_word_embeddings=pick([True, False]), layer_norm_epsilon=pick([1e-5, 1e-3]))


def opt(pick):
    heads = pick([1, 2, 4])
    hidden = heads * pick([8, 12, 16])
    return dict(hidden_size=hidden, word_embed_proj_dim=pick([hidden, hidden, 20, 37]), num_attention_heads=heads, ffn_dim=pick([17, 48]),
                num_hidden_layers=pick([1, 2]), activation_function=pick(["relu", "gelu"]), enable_bias=pick([True, False]),
                tie_word_embeddings=pick([True, False]), do_layer_norm_before=pick([True, False]),
                _remove_final_layer_norm=pick([True, False]))


def falcon(pick):
    kv = pick([1, 2, 4])
    heads = kv * pick([1, 2, 3])
    fields = dict(hidden_size=heads * pick([8, 12, 16]), num_attention_heads=heads, num_hidden_layers=pick([1, 2]), bias=pick([True, False]),
                  ffn_hidden_size=pick([50, 64]), tie_word_embeddings=pick([True, False]), rope_parameters=rope(pick, kinds=("default",)))
    if pick([True, False]):
        fields.update(new_decoder_architecture=True, num_kv_heads=kv, num_ln_in_parallel_attn=pick([1, 2, None]))
    else:
        fields.update(parallel_attn=pick([True, False]), multi_query=pick([True, False]))
    return fields


def falcon_alibi(pick):
    heads = pick([1, 2, 3, 4, 6, 7])
    return dict(hidden_size=heads * pick([8, 12, 16]), num_attention_heads=heads, num_hidden_layers=pick([1, 2]), bias=pick([True, False]),
                tie_word_embeddings=pick([True, False]), alibi=True, parallel_attn=pick([True, False]), multi_query=pick([True, False]))


def bloom(pick):
    heads = pick([1, 2, 3, 4, 6, 7, 12])
    return dict(hidden_size=heads * pick([8, 12]), n_head=heads, n_layer=pick([1, 2]), layer_norm_epsilon=pick([1e-5, 1e-3]),
                tie_word_embeddings=pick([True, False]))


def mpt(pick):
    heads = pick([1, 2, 3, 4, 6, 7, 12])
    return dict(d_model=heads * pick([8, 12]), n_heads=heads, n_layers=pick([1, 2]), max_seq_len=128)


def olmo3(pick):
    fields = dict(sizes(pick, explicit_dim=False), attention_bias=pick([True, False]), sliding_window=pick([1, 9, 40]),
                  num_hidden_layers=pick([1, 4, 5]))
    theta = pick([10000.0, 500000.0])
    fields["rope_parameters"] = dict(full_attention=dict(rope(pick), rope_theta=theta),
                                     sliding_attention=dict(rope_type="default", rope_theta=theta))
    return fields


def seed_oss(pick):
    return dict(llama(pick), attention_out_bias=pick([True, False]))


def smollm3(pick):
    fields = dict(llama(pick), num_hidden_layers=pick([1, 4, 5]), no_rope_layer_interval=pick([2, 4]))
    fields.pop("head_dim", None)
    fields["hidden_size"] = fields["num_attention_heads"] * pick([8, 16])
    if pick([True, False]):
        fields["no_rope_layers"] = [pick([0, 1]) for _ in range(fields["num_hidden_layers"])]
    if pick([True, False]):
        fields.update(use_sliding_window=True, sliding_window=pick([1, 7, 20]))
    return fields


def stablelm(pick):
    fields = dict(sizes(pick, explicit_dim=False), use_qkv_bias=pick([True, False]), use_parallel_residual=pick([True, False]),
                  layer_norm_eps=pick([1e-5, 1e-3]))
    del fields["rms_norm_eps"]
    dim = fields["hidden_size"] // fields["num_attention_heads"]
    partial = pick([p for p in (0.25, 0.5, 1.0) if dim * p % 2 == 0])
    fields["rope_parameters"] = dict(rope_type="default", rope_theta=pick([10000.0, 500.0]), partial_rotary_factor=partial)
    return fields


def gpt_neox(pick):
    heads = pick([1, 2, 3, 4])
    dim = pick([8, 16])
    return dict(hidden_size=heads * dim, num_attention_heads=heads, intermediate_size=pick([17, 64]), num_hidden_layers=pick([1, 2]),
                use_parallel_residual=pick([True, False]), attention_bias=pick([True, False]), tie_word_embeddings=pick([True, False]),
                layer_norm_eps=pick([1e-5, 1e-3]), hidden_act=pick(["gelu", "gelu_fast", "relu"]),
                rope_parameters=dict(rope_type="default", rope_theta=pick([10000.0, 500.0]), partial_rotary_factor=pick([0.25, 0.5, 1.0])))


ARCHITECTURES = dict(llama=llama, mistral=mistral, qwen2=qwen2, qwen3=qwen3, phi3=phi3, gemma=gemma, gemma2=gemma2, gemma3_text=gemma3_text,
                     olmo2=olmo2, starcoder2=starcoder2, gpt_bigcode=gpt_bigcode, opt=opt, falcon=falcon, olmo3=olmo3, seed_oss=seed_oss,
                     smollm3=smollm3, stablelm=stablelm, gpt_neox=gpt_neox, falcon_alibi=falcon_alibi, bloom=bloom, mpt=mpt)


def random_model(config, seed):
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(seed)
    lacks_one = config.model_type.startswith("gemma")
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            parameter.copy_(0.3 * noise + (1.0 if name.endswith("weight") and not lacks_one else 0.0))
        else:
            gain = 1.0 if any(part in name for part in ("embed", "lm_head", "wte", "wpe")) else 1.6 / parameter.shape[1] ** 0.5
            if "lm_head" in name or (config.tie_word_embeddings and "embed" in name):
                gain = 2.0 / parameter.shape[1] ** 0.5
            parameter.copy_(gain * noise)
    return model


# Options that GGUF files of an architecture have no word for are given the only value they can have.
def sayable_in_gguf(kind, fields):
    if kind.startswith("gemma"):
        fields.update(tie_word_embeddings=True, attention_bias=False)
        if kind != "gemma3_text":
            fields["rope_parameters"] = dict(rope_type="default", rope_theta=10000.0)
        fields.update({name: 7.5 for name in ("attn_logit_softcapping", "final_logit_softcapping") if kind == "gemma2"})
    if kind == "gemma3_text":
        fields.update(attn_logit_softcapping=None, final_logit_softcapping=None)
        fields.pop("layer_types", None)
    yarn = fields.get("rope_parameters", {})
    for name in ("mscale", "mscale_all_dim", "truncate"):
        yarn.pop(name, None)
    if "full_attention" in yarn and kind == "olmo3":
        yarn["full_attention"] = {k: v for k, v in yarn["full_attention"].items() if k not in ("mscale", "mscale_all_dim", "truncate")}
        if yarn["full_attention"]["rope_type"] == "llama3":
            yarn["full_attention"] = yarn["sliding_attention"]
    if kind in ("stablelm", "gpt_neox"):
        yarn["rope_theta"] = 10000.0
    if kind == "falcon" or (kind in ("qwen2", "qwen3", "starcoder2", "olmo2", "seed_oss") and yarn["rope_type"] == "llama3"):
        fields["rope_parameters"] = dict(rope_type="default", rope_theta=10000.0)
    if kind == "smollm3":
        fields.update(no_rope_layer_interval=4, use_sliding_window=False, sliding_window=None)
        fields.pop("no_rope_layers", None)
    if kind == "gpt_neox":
        fields.update(hidden_act="gelu", tie_word_embeddings=False)
    if kind == "stablelm":
        fields["tie_word_embeddings"] = False
    if kind == "bloom":
        fields["tie_word_embeddings"] = True
    if kind == "starcoder2":
        fields["hidden_act"] = "gelu_pytorch_tanh"
    if kind == "gpt_bigcode":
        fields.update(activation_function="gelu_pytorch_tanh", multi_query=True, tie_word_embeddings=True, n_inner=None)
    if kind == "falcon":
        fields.update(parallel_attn=True, bias=False)
        fields.update(dict(num_ln_in_parallel_attn=2) if "num_kv_heads" in fields else dict(multi_query=True))
        fields.pop("ffn_hidden_size")
    return fields


def save(config, model, tokenizer, rng, directory, complete):
    # llama.cpp's converter adds the 1 that Gemma's norms lack in the type of the checkpoint.
    exact = complete and config.model_type.startswith("gemma")
    dtype = torch.float32 if exact else rng.choice([torch.float32, torch.bfloat16, torch.float16])
    shard = rng.choice(["1GB", "20KB"])
    model.to(dtype).save_pretrained(directory, max_shard_size=shard)
    GenerationConfig(bos_token_id=0, eos_token_id=1).save_pretrained(directory)
    common.save_tokenizer(tokenizer, directory)
    # Members that equal what the class assumes are left out of many published files.
    path = pathlib.Path(directory) / "config.json"
    members = json.loads(path.read_text())
    if not complete and rng.random() < 0.5:
        plain = type(config)().to_dict()
        for name, value in list(members.items()):
            if name not in ("model_type", "architectures") and name in plain and plain[name] == value and rng.random() < 0.7:
                del members[name]
        path.write_text(json.dumps(members))
    return f"{str(dtype)[6:]}, shards of {shard}"


def program(sluice, *arguments):
    done = subprocess.run([sluice, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, arguments[:2]))}: {done.stderr.strip()}")
    return done.stdout


def logits_by_sluice(sluice, source, directory, tokens):
    model = directory / "model.sluice"
    program(sluice, "convert", source, "-o", model, "--quant", "keep", "--force", "--quiet")
    (directory / "tokens.txt").write_text("".join(" ".join(map(str, row)) + "\n" for row in tokens))
    program(sluice, "eval", model, "--tokens", directory / "tokens.txt", "--logits", directory / "logits.npy", "--isa", "ref", "--kv", "f32",
            "--quiet")
    return np.load(directory / "logits.npy")


# What GGUF files cannot say, so that their logits are those of the checkpoint without it (make_architectures_gguf.py). Gemma's scale of
# queries is the size of a head there.
def left_out_of_gguf(config):
    kind = config.model_type
    if kind in ("mistral", "starcoder2"):
        return dict(sliding_window=None)
    if kind in ("qwen2", "qwen3"):
        return dict(use_sliding_window=False, sliding_window=None, layer_types=["full_attention"] * config.num_hidden_layers)
    if kind in ("gemma2", "gemma3_text"):
        return dict(query_pre_attn_scalar=config.head_dim)
    return {}


def distance(actual, expected):
    return float(np.abs(actual - expected).max()) / max(1.0, float(expected.std()))


def compare_gguf(sluice, llama_cpp, directory, tokens):
    """The distance of the GGUF file's logits, or None where llama.cpp's converter refuses the checkpoint."""
    target = directory / "model.gguf"
    try:
        make_architectures_gguf.write_gguf(directory, target, llama_cpp, "ALL_F32")
    except (Exception, SystemExit) as error:  # whatever its converter raises
        return None, f"{type(error).__name__}: {error}"
    config = AutoConfig.from_pretrained(directory)
    for name, value in left_out_of_gguf(config).items():
        setattr(config, name, value)
    model = AutoModelForCausalLM.from_pretrained(directory, config=config, dtype=torch.float32, attn_implementation="eager").eval()
    try:
        actual = logits_by_sluice(sluice, target, directory, tokens)
    except RuntimeError as error:
        return float("inf"), str(error)
    return distance(actual, common.logits_of(model, tokens)), ""


def draw(kind, seed, gguf):
    rng = random.Random(f"{kind} {seed}")
    base = dict(vocab_size=rng.choice([307, 320] if not gguf else [309]), bos_token_id=0, eos_token_id=1, pad_token_id=None)
    if kind not in ("gpt_bigcode", "bloom", "mpt"):
        base["max_position_embeddings"] = 128
    fields = ARCHITECTURES[kind](rng.choice)
    if gguf:
        fields = sayable_in_gguf(kind, fields)
    return rng, fields, AutoConfig.for_model(kind.removesuffix("_alibi"), **{**base, **fields})


class Tally:
    def __init__(self, name):
        self.name, self.count, self.good, self.refused, self.worst = name, 0, 0, 0, 0.0

    def add(self, found, note, description):
        self.count += 1
        if found is None:
            self.refused += 1
        elif found <= TOLERANCE:
            self.good += 1
            self.worst = max(self.worst, found)
            return
        print(f"{found} {note}\n  {description}", flush=True)

    def line(self):
        refused = f", {self.refused} refused by the converter" if self.refused else ""
        return f"{self.name:20} {self.good} of {self.count} within {TOLERANCE}, the worst of them {self.worst:.1e}{refused}"


def compare(args, kind, seed, tokenizer, plain, gguf):
    rng, fields, config = draw(kind, seed, gguf)
    with tempfile.TemporaryDirectory() as folder:
        directory = pathlib.Path(folder)
        form = save(config, random_model(config, seed), tokenizer, rng, directory, complete=gguf is not None)
        description = f"{kind} {seed} ({form}) {fields}"
        tokens = np.random.default_rng(seed).integers(0, config.vocab_size, size=(2, TOKENS))
        expected = common.logits_of(common.load_float32(directory), tokens)
        try:
            plain.add(distance(logits_by_sluice(args.sluice, directory, directory, tokens), expected), "", description)
        except RuntimeError as error:
            plain.add(float("inf"), str(error), description)
        if gguf:
            gguf.add(*compare_gguf(args.sluice, args.gguf, directory, tokens), "GGUF of " + description)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sluice")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=ARCHITECTURES)
    parser.add_argument("--gguf", type=pathlib.Path, metavar="LLAMA_CPP")
    args = parser.parse_args()
    common.deterministic()
    logging.disable(logging.WARNING)
    os.environ["TQDM_DISABLE"] = "1"
    tokenizer = common.make_tokenizer()
    failed = 0
    for kind in [args.only] if args.only else ARCHITECTURES:
        plain, gguf = Tally(kind), Tally(kind + ", GGUF") if args.gguf and kind not in NO_GGUF else None
        for seed in range(args.seed, args.seed + args.count):
            compare(args, kind, seed, tokenizer, plain, gguf)
        for tally in filter(None, (plain, gguf)):
            failed += tally.count - tally.good - tally.refused
            print(tally.line(), flush=True)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
