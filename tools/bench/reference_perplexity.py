#!/usr/bin/env python3
"""Perplexity by transformers (float32) or llama.cpp, counted as `sluice eval --text` counts it; prints JSON.

Usage: reference_perplexity.py MODEL TEXT [--backend transformers|llama.cpp] [--windows N] [--ctx 512] [--threads N]
MODEL is a GGUF file or, with transformers, a Hugging Face directory. Needs torch, transformers and gguf, or llama-cpp-python.

The text is tokenized in one piece, special-token text as ordinary text. Whole windows of --ctx tokens, the rest dropped; a BOS in place of the first
token of a window if the tokenizer adds one; of a window of 512 the logits at positions 256 to 510 are scored on the tokens 257 to 511.
"""
import argparse
import hashlib
import importlib.metadata
import json
import math
import os
import sys
import time

import numpy as np


def gguf_adds_bos(path):
    import gguf

    field = gguf.GGUFReader(path).fields.get("tokenizer.ggml.add_bos_token")
    return bool(field.contents()) if field else None


class Transformers:
    def __init__(self, model, threads):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_grad_enabled(False)
        torch.set_num_threads(threads)
        self.torch = torch
        source = {}
        if os.path.isfile(model):
            folder, source["gguf_file"] = os.path.split(os.path.abspath(model))
        else:
            folder = model
        self.tokenizer = AutoTokenizer.from_pretrained(folder, **source)
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", **source).eval()
        self.bos = self.tokenizer.bos_token_id
        self.adds_bos = gguf_adds_bos(model) if source else None
        if self.adds_bos is None:
            self.adds_bos = self.bos is not None and self.tokenizer("a").input_ids[0] == self.bos
        self.versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}

    def tokenize(self, text):
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False).input_ids

    def logits(self, ids, first, last):
        hidden = self.model.model(input_ids=self.torch.tensor([ids]), use_cache=False).last_hidden_state
        return self.model.lm_head(hidden[0, first:last]).numpy()


class LlamaCpp:
    def __init__(self, model, threads, ctx):
        from llama_cpp import Llama

        self.llama = Llama(model_path=model, n_ctx=ctx, n_batch=ctx, n_ubatch=ctx, n_threads=threads,
                           n_threads_batch=threads, logits_all=True, verbose=False)
        self.bos = self.llama.token_bos()
        self.adds_bos = bool(gguf_adds_bos(model))
        self.versions = {"llama-cpp-python": importlib.metadata.version("llama-cpp-python")}

    def tokenize(self, text):
        return self.llama.tokenize(text.encode(), add_bos=False, special=False)

    def logits(self, ids, first, last):
        self.llama.reset()
        self.llama.eval(ids)
        return self.llama.scores[first:last]


def negative_log_likelihood(logits, targets):
    """Sum in float64 over rows of float32 logits [predictions, vocabulary]."""
    wide = logits.astype(np.float64)
    peak = wide.max(-1)
    logsumexp = peak + np.log(np.exp(wide - peak[:, None]).sum(-1))
    return float((logsumexp - wide[np.arange(len(targets)), targets]).sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--backend", choices=["transformers", "llama.cpp"], default="transformers")
    parser.add_argument("--windows", type=int, help="the first N windows only")
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--ids", help="also writes the token ids of the text to this file")
    args = parser.parse_args()

    if args.backend == "transformers":
        backend = Transformers(args.model, args.threads)
    else:
        backend = LlamaCpp(args.model, args.threads, args.ctx)
    with open(args.text, encoding="utf-8", newline="") as file:
        ids = backend.tokenize(file.read())
    if args.ids:
        with open(args.ids, "w") as file:
            file.write(" ".join(map(str, ids)) + "\n")

    windows = len(ids) // args.ctx
    if args.windows is not None:
        windows = min(windows, args.windows)
    if windows == 0:
        raise SystemExit(f"{args.text}: {len(ids)} tokens are less than a window of {args.ctx}")
    first, last, start, sums = args.ctx // 2, args.ctx - 1, time.monotonic(), []
    for index in range(windows):
        window = list(ids[index * args.ctx:(index + 1) * args.ctx])
        targets = np.array(window[first + 1:])
        if backend.adds_bos:
            window[0] = backend.bos
        sums.append(negative_log_likelihood(backend.logits(window, first, last), targets))
        scored = len(sums) * (last - first)
        print(f"{index + 1}/{windows} {math.exp(math.fsum(sums) / scored):.4f}", file=sys.stderr, flush=True)

    result = {
        "perplexity": math.exp(math.fsum(sums) / scored),
        "tokens_scored": scored,
        "windows": windows,
        "ctx": args.ctx,
        "backend": args.backend,
        "versions": backend.versions,
        "model": os.path.basename(os.path.normpath(args.model)),
        "text": os.path.basename(args.text),
        "text_tokens": len(ids),
        "text_tokens_sha256": hashlib.sha256(np.array(ids, "<i4").tobytes()).hexdigest(),
        "adds_bos": backend.adds_bos,
        "seconds": round(time.monotonic() - start, 1),
        "nll_sums": sums,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
