#!/usr/bin/env python3
"""Compares sluice's tokenizer with the PyPI package `tokenizers`, id for id. For development; the tests do not need it.

Usage: compare_tokenizers.py DRIVER [--count N] [--seed N] [--only NAME,...] [--text FILE] [--gguf FILE] [--hf DIRECTORY]

DRIVER is the program of tests/support/tokenize_lines, for example:
    g++ -std=c++20 -O2 -I. tests/support/tokenize_lines/main.cc build/release/loaders/libsluice_loaders.a \\
        build/release/formats/libsluice_formats.a -lpcre2-8 -lutf8proc -lxxhash -lfmt -o tokenize_lines
Without --gguf and --hf: the small tokenizers of tokenizer_cases.py, trained anew. With --gguf FILE what transformers makes of
that file: its tokenizer.json as it is, and the file itself against it with the pre-tokenizer that the file names, because
transformers ignores tokenizer.ggml.pre and takes GPT-2's. Every text is encoded with and without parsed special tokens, and decoded in one
piece and in increments; a tenth of the texts (all, below 10,000) also with BOS and EOS, and decoded without special tokens. Needs Python 3.11, tokenizers 0.23, transformers 5.
"""
import argparse
import array
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time

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


class BatchDriver:
    """One process that answers in blocks of sized byte strings."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.stdin.close()
        self.process.wait()

    def ask(self, texts, verbs):
        """For each verb the list of answers, None for an error."""
        raw = [t.encode() for t in texts]
        request = f"b {len(raw)} {' '.join(verbs)}\n".encode() + b"".join(struct.pack("=I", len(t)) + t for t in raw)
        self.process.stdin.write(request)
        self.process.stdin.flush()
        return [[self.answer() for _ in raw] for _ in verbs]

    def answer(self):
        size = int.from_bytes(self.read(4), sys.byteorder)
        return None if size == 0xFFFFFFFF else self.read(size)

    def read(self, size):
        data = self.process.stdout.read(size)
        if len(data) != size:
            raise SystemExit(f"the driver ended with {self.process.wait()}")
        return data


def report(what, texts, expected, got):
    bad = [(t, e, g) for t, e, g in zip(texts, expected, got) if e != g]
    print(f"  {what}: {len(texts)} texts, {len(bad)} differ", flush=True)
    for text, e, g in bad[:3]:
        print(f"    {ascii(text if not isinstance(text, str) else text[:200])}\n      expected {str(e)[:300]}\n      got      {str(g)[:300]}")
    return len(bad)


def ids_of(answers):
    return [[int(x) for x in a.split()] if not a.startswith("error") else a for a in answers]


def packed(ids):
    return array.array("i", ids).tobytes()


def without_second_bos(ids, prefix):
    return ids[len(prefix):] if prefix and ids[len(prefix):len(prefix) + 1] == prefix[:1] else ids


def expected_answers(tokenizer, texts, verbs):
    answers, first = [], None
    prefix = tokenizer.encode("", add_special_tokens=True).ids
    for verb, flag in verbs:
        if verb in "up":
            tokenizer.encode_special_tokens = verb == "u"
            ids = [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=flag == "1")]
            first = ids if first is None else first
            answers.append([packed(without_second_bos(x, prefix) if verb + flag == "p1" else x) for x in ids])
        elif verb == "i" and ("d" + flag) in verbs:
            answers.append(answers[verbs.index("d" + flag)])
        else:
            answers.append([t.encode() for t in tokenizer.decode_batch(first, skip_special_tokens=flag == "1")])
    return answers


MEANING = {"u": "encode as text", "p": "encode with special tokens", "d": "decode", "i": "decode in increments"}
BATCH = 10000


def compare(tokenizer, driver, texts):
    """Number of answers that differ; those of each verb are counted."""
    started = time.monotonic()
    counts, bad = {}, {}
    with BatchDriver(driver.command) as batches:
        for at in range(0, len(texts), BATCH):
            part = texts[at : at + BATCH]
            tenth = len(part) if len(texts) < 10 * BATCH else -(-len(part) // 10)
            for chosen, verbs in ((part, ["u0", "p0", "d0", "i0"]), (part[:tenth], ["u1", "p1", "d1", "i1"])):
                expected = expected_answers(tokenizer, chosen, verbs)
                for verb, wanted, got in zip(verbs, expected, batches.ask(chosen, verbs)):
                    counts[verb] = counts.get(verb, 0) + len(chosen)
                    if wanted != got:
                        bad.setdefault(verb, []).extend((t, w, g) for t, w, g in zip(chosen, wanted, got) if w != g)
    for verb, count in counts.items():
        print(f"  {MEANING[verb[0]]}, flag {verb[1]}: {count} texts, {len(bad.get(verb, []))} differ", flush=True)
        for text, wanted, got in bad.get(verb, [])[:3]:
            shown = [x if x is None or verb[0] in "di" else array.array("i", x).tolist() for x in (wanted, got)]
            print(f"    {ascii(text[:200])}\n      expected {str(shown[0])[:300]}\n      got      {str(shown[1])[:300]}")
    print(f"  {time.monotonic() - started:.0f} s", flush=True)
    return sum(map(len, bad.values()))


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
    if name.split()[0] in tokenizer_cases.FLAG_KINDS:
        generator.specials += tokenizer_cases.flag_texts()
    bad = compare(tokenizer, driver, [generator.text() for _ in range(arguments.count)])
    texts = list(extra_texts)
    texts += [t for length in (97, 128 * 1024) for t in generator.long_runs(length)] if arguments.long else []
    bad += compare(tokenizer, driver, texts) if texts else 0
    few = min(arguments.count // 4, 25000)
    bad += random_ids(tokenizer, driver, generator, few)
    bad += invalid_bytes(tokenizer, driver, generator, few)
    bad += mixed_runs(tokenizer, driver, generator, few)
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
            for name in arguments.only.split(",") if arguments.only else [*tokenizer_cases.all_names(), *tokenizer_cases.FLAG_KINDS]:
                path = pathlib.Path(folder) / name
                path.mkdir()
                tokenizer = tokenizer_cases.train(name, 900)
                tokenizer.save(str(path / "tokenizer.json"))
                driver = Driver(arguments.driver, "hf", path)
                bad += compare_all(name, tokenizer, driver, arguments, extra)
                stored = path / "stored.json"
                stored.write_text(driver.ask(["j"])[0])
                arguments_again = argparse.Namespace(**{**vars(arguments), "count": min(arguments.count // 10, 1000), "long": False})
                bad += compare_all(name + " stored", tokenizer, Driver(arguments.driver, "json", stored), arguments_again)
    print("differences:", bad)
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
