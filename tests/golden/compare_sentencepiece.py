#!/usr/bin/env python3
"""Compares sluice's reading of tokenizer.model with the PyPI package `sentencepiece`, id for id. For development.

Usage: compare_sentencepiece.py DRIVER [--count N] [--seed N]
DRIVER as in compare_tokenizers.py. Trains small models anew; needs Python 3.11 and sentencepiece 0.2.
SentencePiece does not find control tokens in text, so the texts here are all of a user; the user-defined tokens are found.
"""
import argparse
import pathlib
import sys
import tempfile

import sentencepiece

import tokenizer_cases
from compare_tokenizers import Driver, encode_lines, ids_of, report

MODELS = {
    "bpe_llama": dict(model_type="bpe", vocab_size=900, byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True),
    "bpe_gemma": dict(model_type="bpe", vocab_size=900, byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False, user_defined_symbols=["<mask>", "<tool>", "\n", "\n\n"]),
    "bpe_nfkc": dict(model_type="bpe", vocab_size=700),
    "unigram": dict(model_type="unigram", vocab_size=420),
    "unigram_bytes": dict(model_type="unigram", vocab_size=640, byte_fallback=True, normalization_rule_name="nfkc_cf"),
    "unigram_identity": dict(model_type="unigram", vocab_size=420, normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("driver")
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--text")
    arguments = parser.parse_args()
    bad = 0
    for name, options in MODELS.items():
        print(name, flush=True)
        options = dict(options)
        model = tokenizer_cases.train_sentencepiece(options.pop("model_type"), options.pop("vocab_size"), **options)
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "tokenizer.model").write_bytes(model)
            (pathlib.Path(folder) / "tokenizer_config.json").write_text('{"add_bos_token": true}')
            driver = Driver(arguments.driver, "hf", folder)
            processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            generator = tokenizer_cases.RandomText(arguments.seed)
            # A NUL ends a key of the character map, and U+2581 is a space to SentencePiece only while it merges.
            texts = [generator.text().replace("\0", "").replace("\u2581", "") for _ in range(arguments.count)]
            if arguments.text:
                texts += pathlib.Path(arguments.text).read_bytes().decode().split("\n")
            expected = [processor.encode(t) for t in texts]
            bad += report("encode", texts, expected, ids_of(driver.ask(encode_lines(texts, 0, "u"))))
            bad += report("encode with BOS", texts, [[1, *e] for e in expected], ids_of(driver.ask(encode_lines(texts, 1, "u"))))
            ids = [[i for i in e if i != 0] for e in expected]
            decoded = [processor.decode(e) for e in ids]
            for verb in "di":
                answers = driver.ask([f"{verb} 0 {' '.join(map(str, e))}" for e in ids])
                bad += report(f"decode {verb}", ids, decoded, [bytes.fromhex(a).decode() for a in answers])
    print("differences:", bad)
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
