#!/usr/bin/env python3
"""Writes rope.json: rotation frequencies as transformers computes them from a config.json.

Needs torch and transformers (made with transformers 5). Usage: make_rope_golden.py > rope.json
"""
import json

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

BASE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128,
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 8192,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
CASES = {
    "default of the class": {},
    "default, head_dim 128, large theta": {"head_dim": 128, "rope_theta": 500000.0},
    "default, integer theta": {"head_dim": 64, "rope_theta": 100000},
    "default, small even head_dim": {"head_dim": 6, "rope_theta": 10000.0},
    "default, head_dim 80": {"head_dim": 80, "rope_theta": 1e6},
    "new spelling": {"rope_parameters": {"rope_type": "default", "rope_theta": 1234567.5}},
    "linear, old spelling": {"rope_scaling": {"type": "linear", "factor": 2.5}},
    "linear, new spelling": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}},
    "llama3 of Llama 3.1": {"head_dim": 128, "rope_theta": 500000.0, "rope_scaling": LLAMA3,
                            "max_position_embeddings": 131072},
    "llama3 of Llama 3.2": {"head_dim": 64, "rope_theta": 500000.0,
                            "rope_scaling": {**LLAMA3, "factor": 32.0}, "max_position_embeddings": 131072},
    "llama3, new spelling, odd numbers": {
        "head_dim": 96, "max_position_embeddings": 9999,
        "rope_parameters": {"rope_theta": 77777.0, "rope_type": "llama3", "factor": 3.3,
                            "low_freq_factor": 1.7, "high_freq_factor": 6.1}},
    "yarn": {"head_dim": 128, "rope_theta": 1e6, "max_position_embeddings": 131072,
             "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
    "yarn without truncation": {
        "head_dim": 64, "rope_theta": 150000, "max_position_embeddings": 131072,
        "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                         "original_max_position_embeddings": 4096, "truncate": False}},
    "yarn with mscale": {
        "head_dim": 64, "max_position_embeddings": 163840,
        "rope_scaling": {"type": "yarn", "factor": 40, "mscale": 0.707, "mscale_all_dim": 1.5,
                         "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1}},
    "yarn, attention_factor given": {
        "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "attention_factor": 1.25,
                         "original_max_position_embeddings": 1024}},
    "yarn, factor null": {
        "max_position_embeddings": 16384,
        "rope_scaling": {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 2048}},
    "yarn, original context by default, betas alike": {
        "rope_parameters": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 3.0, "beta_slow": 3.0,
                            "rope_theta": 9000.0}},
}


def main():
    torch.set_num_threads(1)
    out = []
    for name, fields in CASES.items():
        config_json = {**BASE, **fields}
        rotary = LlamaRotaryEmbedding(LlamaConfig.from_dict(json.loads(json.dumps(config_json))))
        out.append({
            "name": name,
            "config": config_json,
            "attention_factor": float(rotary.attention_scaling),
            "frequency_bits": rotary.inv_freq.to(torch.float32).view(torch.int32).tolist(),
        })
    print("[\n" + ",\n".join(json.dumps(case) for case in out) + "\n]")


if __name__ == "__main__":
    main()
