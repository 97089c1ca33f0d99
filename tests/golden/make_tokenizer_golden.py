#!/usr/bin/env python3
"""Makes tests/golden/tokenizer/*.json: a small trained tokenizer, strings, and what the PyPI package `tokenizers` makes of them.

Usage: make_tokenizer_golden.py   (needs Python 3.11, tokenizers 0.23.3 and sentencepiece 0.2.3)
Each file: {"tokenizer": the tokenizer.json, "cases": [{"text", "user", "parsed", "special"}], "decode": [{"ids", "all", "plain"}]}:
ids without special tokens parsed, with them parsed, and with them parsed and BOS/EOS added (never a second BOS);
the text of ids with special tokens and without. "text" is hexadecimal UTF-8.
"""
import base64
import json
import pathlib

import tokenizer_cases

HERE = pathlib.Path(__file__).resolve().parent / "tokenizer"
VOCABULARY = 330
TEXT_VOCABULARY = 500  # of the kinds that have a token for each byte besides
RANDOM_TEXTS = 15
RANDOM_IDS = 8

# Instead of the 250 KiB of nmt_nfkc: code points and what they become.
SMALL_CHARSMAP = "FB01\t66 69\nBD\t31 2044 32\n2167\t56 49 49 49\n3000\t20\n9\t20\nA\t20\nD\t20\n65 301\tE9\n212B\tC5\n200B\t\nFEFF\t\n"

FIXED = [
    "", " ", "  ", "\n", "Hello world", " Hello  world ", "don't DON'T they'Ll 'S", "1234567 3.14 1,024", "a\r\n\r\n b", "\t\tx   y",
    "<|im_start|>user\nHi<|im_end|>", "<|im_start|>", "x<|endoftext|>y", "<|endoftext|>first", " <L> <R> x<LR>  y", "word words sword word", "two words",
    "caf\u00e9 cafe\u0301 <caf\u00e9> <cafe\u0301>", "e\u0301\u0323a\u0323\u0301", "\u1100\u1161\u11a8 \uac01", "\u0130STANBUL \u00df", "\u5c71\u306e\u4e0a\u306b\u6708", "\U0001F469\u200d\U0001F469\u200d\U0001F467",
    "\u0645\u0631\u062d\u0628\u0627 \u0e01\u0e48\u0e32 \u0939\u093f\u0928\u094d\u0926\u0940", "\u00bd \u00b2 \u2167 \u2460 \u0663\u0664", "\u00a0x\u3000y\u2003\u200bz\u180e\u0085w", "for(i=0;i<n;++i){a[i]+=b;}//x", "\x00\x01\x7f\x1c", "a--b   c", "<R>    \nx",
    "\u212b\ufb01\ufdfa", "A\u0315\u0300\u05ae\u0062", "a\u1df8\u0323", "'\u017f 're",
]


def golden(name):
    tokenizer = tokenizer_cases.train(name, TEXT_VOCABULARY if name in tokenizer_cases.text_configurations() else VOCABULARY)
    generator = tokenizer_cases.RandomText(name)
    texts = FIXED + [generator.text()[:60] for _ in range(RANDOM_TEXTS)]
    prefix = tokenizer.encode("", add_special_tokens=True).ids
    cases = []
    for text in texts:
        case = {"text": text.encode().hex()}
        tokenizer.encode_special_tokens = True
        case["user"] = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        case["parsed"] = tokenizer.encode(text, add_special_tokens=False).ids
        begins = bool(prefix) and case["parsed"][:1] == prefix[:1]
        case["special"] = case["parsed"] if begins else tokenizer.encode(text, add_special_tokens=True).ids
        cases.append(case)
    size = tokenizer.get_vocab_size()
    lists = [[generator.random.randrange(size) for _ in range(12)] for _ in range(RANDOM_IDS)] + [c["parsed"] for c in cases[8:20]]
    decode = [
        {"ids": ids, "all": tokenizer.decode(ids, skip_special_tokens=False), "plain": tokenizer.decode(ids, skip_special_tokens=True)}
        for ids in lists
    ]
    result = {"tokenizer": json.loads(tokenizer.to_str()), "cases": cases, "decode": decode}
    (HERE / f"{name}.json").write_text(json.dumps(result, ensure_ascii=True, separators=(",", ":")) + "\n")


def sentencepiece_golden(name):
    """NAME.json of tests/golden/sentencepiece: a tokenizer.model in base 64, and what `sentencepiece` makes of the same strings."""
    import sentencepiece

    from compare_sentencepiece import MODELS

    options = dict(MODELS[name])
    model = tokenizer_cases.train_sentencepiece(options.pop("model_type"), min(options.pop("vocab_size"), 520), **options)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    generator = tokenizer_cases.RandomText(name)
    texts = [t.replace("\0", "").replace("\u2581", "") for t in FIXED + [generator.text()[:60] for _ in range(RANDOM_TEXTS)]]
    cases = []
    for text in texts:
        ids = processor.encode(text)
        known = [i for i in ids if i != processor.unk_id()]
        cases.append({"text": text.encode().hex(), "ids": ids, "known": known, "decoded": processor.decode(known)})
    result = {"model": base64.b64encode(model).decode(), "cases": cases}
    (HERE.parent / "sentencepiece" / f"{name}.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    (HERE.parent / "sentencepiece").mkdir(exist_ok=True)
    tokenizer_cases.CHARSMAP_RULES = SMALL_CHARSMAP
    for configuration in tokenizer_cases.all_names():
        golden(configuration)
    for configuration in ("bpe_llama", "bpe_gemma", "unigram_identity"):
        sentencepiece_golden(configuration)
