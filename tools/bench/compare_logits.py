#!/usr/bin/env python3
"""Compares the logits of sluice with those in a golden directory.

Usage: compare_logits.py DIR_OR_GGUF... SLUICE_BINARY [--style both] [--max-abs 1e-3] [-- MORE OPTIONS OF EVAL]
DIR is a checkpoint of tests/golden (config.json, tokens.txt, expected_*.npy); a GGUF has its tokens and results beside it (q8_0.gguf, q8_0.tokens.txt).
Each is converted with `--quant keep` and evaluated with `--isa ref --kv f32`. Prints the largest absolute difference of the logits and of their logsumexp
and how many of the most probable tokens differ. Exits with 1 if one is above --max-abs, not a number, or a command fails. Needs numpy.
"""
import argparse
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

import numpy as np


def command(*words):
    words = [str(word) for word in words]
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(words)}: exit status {done.returncode}: {done.stderr.strip()[-400:]}")


def logits_of(binary, source, tokens, options):
    """float32 [sequences, tokens, vocabulary] of sluice."""
    with tempfile.TemporaryDirectory() as folder:
        model, out = pathlib.Path(folder) / "model.sluice", pathlib.Path(folder) / "out.npy"
        command(binary, "convert", source, "-o", model, "--quant", "keep")
        command(binary, "eval", model, "--tokens", tokens, "--logits", out, "--isa", "ref", "--kv", "f32", *options)
        return np.load(out)


def logsumexp(logits):
    wide = logits.astype(np.float64)
    peak = wide.max(-1)
    return peak + np.log(np.exp(wide - peak[..., None]).sum(-1))


def compare(logits, folder, prefix):
    """(largest difference of logits, of logsumexp, most probable tokens that differ, tokens)"""
    expected = {name: np.load(folder / f"{prefix}expected_{name}.npy")
                for name in ("positions", "logits", "logsumexp", "argmax")}
    shape = (*expected["argmax"].shape, expected["logits"].shape[-1])
    if logits.dtype != np.float32 or logits.shape != shape:
        raise RuntimeError(f"logits are {logits.dtype} {logits.shape}, not float32 {shape}")
    at_positions = np.abs(logits[:, expected["positions"]].astype(np.float64) - expected["logits"]).max()
    return (at_positions, np.abs(logsumexp(logits) - expected["logsumexp"]).max(),
            int((logits.argmax(-1) != expected["argmax"]).sum()), expected["argmax"].size)


def with_other_style(directory, folder):
    """A copy of the checkpoint whose config.json is the other one."""
    copy = pathlib.Path(folder) / directory.name
    shutil.copytree(directory, copy)
    (copy / "config_other_style.json").replace(copy / "config.json")
    return copy


def main():
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=pathlib.Path)
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--style", choices=["one", "both"], default="one", help="also read config_other_style.json")
    parser.add_argument("--max-abs", type=float, default=1e-3)
    args = parser.parse_args(arguments[:split])
    failed = False

    def check(label, source, folder, prefix):
        nonlocal failed
        try:
            logits = logits_of(args.binary.resolve(), source, folder / f"{prefix}tokens.txt", arguments[split + 1:])
            difference, sum_difference, wrong, count = compare(logits, folder, prefix)
        except (RuntimeError, OSError, ValueError) as error:
            failed = True
            print(f"{label:26} FAILED {error}", flush=True)
            return
        good = difference <= args.max_abs and sum_difference <= args.max_abs  # NaN is not
        failed = failed or not good
        print(f"{label:26} logits {difference:.3e}  logsumexp {sum_difference:.3e}  argmax {wrong} of {count} differ"
              f"  {'ok' if good else 'ABOVE ' + str(args.max_abs)}", flush=True)

    for source in args.sources:
        if source.suffix == ".gguf":
            check(source.name, source, source.parent, f"{source.stem}.")
            continue
        check(source.name, source, source, "")
        if args.style == "both":
            with tempfile.TemporaryDirectory() as folder:
                check(f"{source.name} (other config)", with_other_style(source, folder), source, "")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
