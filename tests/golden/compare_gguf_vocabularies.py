#!/usr/bin/env python3
"""Runs the vocabularies of llama.cpp's source package (models/ggml-vocab-*.gguf with .inp and .out) through sluice. For development.

Usage: compare_gguf_vocabularies.py DRIVER FOLDER
DRIVER as in compare_tokenizers.py. The files carry the licences of their models and are not in this repository. Files without
.inp and .out are loaded only. Where a file names a tokenizer whose normalizer llama.cpp leaves out (NFC), its texts are
compared once more without it, and both counts are shown.
"""
import json
import pathlib
import sys
import tempfile

from compare_tokenizers import Driver, encode_lines, ids_of


def main():
    program, folder = sys.argv[1:3]
    files = sorted(pathlib.Path(folder).glob("ggml-vocab-*.gguf"))
    if not files:
        raise SystemExit(f"{folder}: no ggml-vocab-*.gguf")
    failed = 0
    for file in files:
        driver = Driver(program, "gguf", file)
        try:
            stored = driver.ask(["j 0"])[0]
        except SystemExit as error:
            print(f"{file.name}: refused: {str(error).strip().rsplit(']: ', 1)[-1]}")
            continue
        inputs = pathlib.Path(f"{file}.inp")
        if not inputs.exists():
            print(f"{file.name}: loads, no golden")
            continue
        texts = inputs.read_bytes().decode().split("\n__ggml_vocab_test__\n")
        expected = [[int(x) for x in line.split()] for line in pathlib.Path(f"{file}.out").read_text().split("\n")][: len(texts)]
        different = sum(e != g for e, g in zip(expected, ids_of(driver.ask(encode_lines(texts, 0, "u"))), strict=True))
        line = f"{file.name}: {len(texts)} texts, {different} differ"
        state = json.loads(stored)
        if different and state["normalizer"] == [{"kind": "nfc"}]:
            state["normalizer"] = []
            with tempfile.NamedTemporaryFile("w", suffix=".json") as plain:
                plain.write(json.dumps(state))
                plain.flush()
                got = ids_of(Driver(program, "json", plain.name).ask(encode_lines(texts, 0, "u")))
            different = sum(e != g for e, g in zip(expected, got, strict=True))
            line += f"; without NFC {different} differ"
        failed += different
        print(line)
    print("differences:", failed)
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
