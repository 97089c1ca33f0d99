#!/usr/bin/env python3
"""Compares sluice's tokenizer with the PyPI package `tokenizers`, id for id. For development; the tests do not need it.

Usage: compare_tokenizers.py DRIVER [--count N] [--seed N] [--only NAME] [--text FILE] [--gguf FILE] [--hf DIRECTORY]

DRIVER is the program of tests/support/tokenize_lines, for example:
    g++ -std=c++20 -O2 -I. tests/support/tokenize_lines/main.cc build/release/loaders/libsluice_loaders.a \\
        build/release/formats/libsluice_formats.a -lpcre2-8 -lutf8proc -lxxhash -lfmt -o tokenize_lines
Without --gguf and --hf: the small tokenizers of tokenizer_cases.py, trained anew. With --gguf FILE what transformers makes of
that file: its tokenizer.json as it is, and the file itself against it with the pre-tokenizer that the file names, because
transformers ignores tokenizer.ggml.pre and takes GPT-2's. Needs Python 3.11, tokenizers 0.23, transformers 5.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

import tokenizer_cases


class Driver:
    def __init__(self, program, kind, path):
        self.command = [program, kind, str(path)]

    def ask(self, lines):
        result = subprocess.run(self.command, input="\n".join(lines) + "\n", capture_output=True, text=True)
        if result.returncode:
            raise SystemExit(f"{self.command}: {result.stderr}")
        return result.stdout.split("\n")[: len(lines)]


def encode_lines(texts, flag, kind):
    return [f"e {flag} {kind}{text.encode().hex()}" for text in texts]


def report(what, texts, expected, got):
    bad = [(t, e, g) for t, e, g in zip(texts, expected, got) if e != g]
    print(f"  {what}: {len(texts)} texts, {len(bad)} differ", flush=True)
    for text, e, g in bad[:3]:
        print(f"    {ascii(text if not isinstance(text, str) else text[:200])}\n      expected {str(e)[:300]}\n      got      {str(g)[:300]}")
    return len(bad)


def ids_of(answers):
    return [[int(x) for x in a.split()] if not a.startswith("error") else a for a in answers]


def compare(tokenizer, driver, texts):
    bad = 0
    encoded = {}
    for parse in (False, True):
        tokenizer.encode_special_tokens = not parse
        for add in (False, True):
            expected = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=add)]
            if add and parse:  # no second BOS here
                prefix = tokenizer.encode("", add_special_tokens=True).ids
                expected = [e[len(prefix):] if prefix and e[len(prefix):len(prefix) + 1] == prefix[:1] else e for e in expected]
            got = ids_of(driver.ask(encode_lines(texts, int(add), "p" if parse else "u")))
            bad += report(f"encode parse_special={parse} add_special={add}", texts, expected, got)
            encoded[parse, add] = expected
    ids = encoded[True, False]
    for skip in (False, True):
        expected = [tokenizer.decode(x, skip_special_tokens=skip) for x in ids]
        for verb in "di":
            answers = driver.ask([f"{verb} {int(skip)} {' '.join(map(str, x))}" for x in ids])
            bad += report(f"decode {verb} skip_special={skip}", ids, expected, [bytes.fromhex(a).decode() for a in answers])
    return bad


def random_ids(tokenizer, driver, generator, count):
    """Ids in any order: most are not whole characters."""
    size = tokenizer.get_vocab_size()
    ids = [[generator.random.randrange(size) for _ in range(generator.random.randint(0, 20))] for _ in range(count)]
    expected = [tokenizer.decode(x, skip_special_tokens=False) for x in ids]
    bad = 0
    for verb in "di":
        answers = driver.ask([f"{verb} 0 {' '.join(map(str, x))}" for x in ids])
        bad += report(f"decode {verb} of random ids", ids, expected, [bytes.fromhex(a).decode() for a in answers])
    return bad


def invalid_bytes(tokenizer, driver, generator, count):
    """Ill-formed UTF-8 against Python's errors="replace"."""
    r = generator.random
    raw = []
    for _ in range(count):
        data = bytearray(generator.text().encode())
        for _ in range(r.randint(1, 4)):
            if data and r.random() < 0.7:
                data[r.randrange(len(data))] = r.choice([0x80, 0xBF, 0xC0, 0xC2, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5, 0xFF, r.randrange(256)])
            else:
                del data[r.randint(0, len(data)):]
        raw.append(bytes(data))
    tokenizer.encode_special_tokens = True
    expected = [e.ids for e in tokenizer.encode_batch([x.decode(errors="replace") for x in raw], add_special_tokens=False)]
    return report("encode ill-formed UTF-8", raw, expected, ids_of(driver.ask([f"e 0 u{x.hex()}" for x in raw])))


def mixed_runs(tokenizer, driver, generator, count):
    """User text between parsed special tokens: the ids of each part alone."""
    if tokenizer.normalizer is not None or '"first"' in tokenizer.to_str():  # a text alone is not the same as after a token
        return 0
    bad_texts, expected, lines = [], [], []
    start, end = tokenizer.token_to_id("<|im_start|>"), tokenizer.token_to_id("<|im_end|>")
    if start is None or end is None:
        return 0
    tokenizer.encode_special_tokens = True
    for _ in range(count):
        text = generator.text()
        expected.append([start, *tokenizer.encode(text, add_special_tokens=False).ids, end])
        lines.append("e 0 p" + "<|im_start|>".encode().hex() + " u" + text.encode().hex() + " p" + "<|im_end|>".encode().hex())
        bad_texts.append(text)
    return report("user text between parsed tokens", bad_texts, expected, ids_of(driver.ask(lines)))


def compare_all(name, tokenizer, driver, arguments, extra_texts=()):
    print(name, flush=True)
    generator = tokenizer_cases.RandomText(arguments.seed)
    texts = [generator.text() for _ in range(arguments.count)] + list(extra_texts)
    texts += [t for length in (97, 128 * 1024) for t in generator.long_runs(length)] if arguments.long else []
    bad = compare(tokenizer, driver, texts)
    bad += random_ids(tokenizer, driver, generator, arguments.count // 4)
    bad += invalid_bytes(tokenizer, driver, generator, arguments.count // 4)
    bad += mixed_runs(tokenizer, driver, generator, arguments.count // 4)
    return bad


def pre_tokenizer_name(path):
    from gguf import GGUFReader

    return GGUFReader(path).fields["tokenizer.ggml.pre"].contents()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("driver")
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only")
    parser.add_argument("--long", action="store_true", help="runs of 128 KiB of one class too")
    parser.add_argument("--text")
    parser.add_argument("--gguf")
    parser.add_argument("--hf")
    arguments = parser.parse_args()
    extra = []
    if arguments.text:
        content = pathlib.Path(arguments.text).read_bytes().decode()
        extra = [content, *content.split("\n")]
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        if arguments.gguf:
            from transformers import AutoTokenizer

            where, file = os.path.split(os.path.abspath(arguments.gguf))
            AutoTokenizer.from_pretrained(where, gguf_file=file).save_pretrained(folder)
            reference = Tokenizer.from_file(folder + "/tokenizer.json")
            bad += compare_all("gguf as tokenizer.json", reference, Driver(arguments.driver, "hf", folder), arguments, extra)
            reference.pre_tokenizer = tokenizer_cases.GGUF_NAMES[pre_tokenizer_name(arguments.gguf)]()
            bad += compare_all("gguf", reference, Driver(arguments.driver, "gguf", arguments.gguf), arguments, extra)
        if arguments.hf:
            reference = Tokenizer.from_file(arguments.hf + "/tokenizer.json")
            bad += compare_all(arguments.hf, reference, Driver(arguments.driver, "hf", arguments.hf), arguments, extra)
        if not (arguments.gguf or arguments.hf):
            for name in [arguments.only] if arguments.only else tokenizer_cases.all_names():
                path = pathlib.Path(folder) / name
                path.mkdir()
                tokenizer = tokenizer_cases.train(name, 900)
                tokenizer.save(str(path / "tokenizer.json"))
                driver = Driver(arguments.driver, "hf", path)
                bad += compare_all(name, tokenizer, driver, arguments, extra)
                stored = path / "stored.json"
                stored.write_text(driver.ask(["j"])[0])
                arguments_again = argparse.Namespace(**{**vars(arguments), "count": arguments.count // 10, "long": False})
                bad += compare_all(name + " stored", tokenizer, Driver(arguments.driver, "json", stored), arguments_again)
    print("differences:", bad)
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
