#!/usr/bin/env python3
"""Speed of llama.cpp (the PyPI package llama-cpp-python): prefill, and decoding of one or of several sequences side by side.

Usage: llama_cpp_speed.py MODEL.gguf [--prompt-tokens N] [--max-tokens N] [--sequences N] [--threads N] [--repeats N] [--flash] [--no-repack]
Prints one JSON object: tokens/s of the prompts and of the decoding, all sequences together, the median of the repeats; and what the
library says of itself.
"""
import argparse
import ctypes
import json
import statistics
import sys
import time

import llama_cpp


def fill(batch, entries):
    """Entries are (token, position, sequence, whether its logits are wanted)."""
    batch.n_tokens = len(entries)
    for i, (token, position, sequence, wanted) in enumerate(entries):
        batch.token[i] = token
        batch.pos[i] = position
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = sequence
        batch.logits[i] = wanted


def decode(context, batch):
    status = llama_cpp.llama_decode(context, batch)
    if status != 0:
        sys.exit(f"llama_decode: {status}")


def trial(context, batch, vocab, options, repeat):
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    prompts = [
        [(i * 7919 + (repeat * options.sequences + s) * 104729) % vocab for i in range(options.prompt_tokens)]
        for s in range(options.sequences)
    ]
    entries = [
        (token, i, s, int(i + 1 == options.prompt_tokens)) for s, prompt in enumerate(prompts) for i, token in enumerate(prompt)
    ]
    begin = time.perf_counter()
    outputs = {}
    for first in range(0, len(entries), 512):
        part = entries[first : first + 512]
        fill(batch, part)
        decode(context, batch)
        for i, entry in enumerate(part):
            if entry[3]:
                outputs[entry[2]] = greedy(context, i, vocab)
    prefill_s = time.perf_counter() - begin
    begin = time.perf_counter()
    for step in range(options.max_tokens - 1):
        fill(batch, [(outputs[s], options.prompt_tokens + step, s, 1) for s in range(options.sequences)])
        decode(context, batch)
        outputs = {s: greedy(context, s, vocab) for s in range(options.sequences)}
    decode_s = time.perf_counter() - begin
    return len(entries) / prefill_s, (options.max_tokens - 1) * options.sequences / decode_s


def greedy(context, row, vocab):
    import numpy

    logits = llama_cpp.llama_get_logits_ith(context, row)
    return int(numpy.argmax(numpy.ctypeslib.as_array(logits, shape=(vocab,))))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    for name, default in {"prompt-tokens": 512, "max-tokens": 32, "sequences": 1, "threads": 2, "repeats": 5}.items():
        parser.add_argument("--" + name, type=int, default=default)
    parser.add_argument("--flash", action="store_true", help="flash attention on (default: the library's choice)")
    parser.add_argument("--no-repack", action="store_true", help="weights stay in the mapped file (default: the library's choice, mostly copies in another layout)")
    options = parser.parse_args()
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model_params = llama_cpp.llama_model_default_params()
    if options.no_repack:
        model_params.use_extra_bufts = False
        if hasattr(model_params, "load_mode"):
            model_params.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP
    model = llama_cpp.llama_model_load_from_file(options.model.encode(), model_params)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = (options.prompt_tokens + options.max_tokens) * options.sequences
    params.n_batch = params.n_ubatch = 512
    params.n_seq_max = options.sequences
    params.n_threads = params.n_threads_batch = options.threads
    params.kv_unified = False
    if options.flash:
        params.flash_attn_type = 1
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        sys.exit("llama.cpp cannot make a context")
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    batch = llama_cpp.llama_batch_init(512, 0, 1)
    trials = [trial(context, batch, vocab, options, repeat) for repeat in range(options.repeats)]
    print(
        json.dumps(
            {
                "prefill_tokens_per_s": statistics.median(t[0] for t in trials),
                "decode_tokens_per_s": statistics.median(t[1] for t in trials),
                "version": llama_cpp.__version__,
                "system": llama_cpp.llama_print_system_info().decode(),
            }
        )
    )


if __name__ == "__main__":
    main()
