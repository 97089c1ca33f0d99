"""What the makers and comparers of tokenizers share: small trained tokenizers, and random text that is hard to tokenize."""
import functools
import io
import json
import random
import tempfile
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = O200K.replace(CONTRACTIONS + "?", "").replace(r"\p{N}{1,3}", r"\p{N}")
KIMI = r"[\p{Han}]+|" + O200K.replace(UPPER, UPPER[:-1] + r"&&[^\p{Han}]]").replace(LOWER, LOWER[:-1] + r"&&[^\p{Han}]]").replace("/]", "]")
DEEPSEEK_CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
AFMOE_SCRIPTS = "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
DEEPSEEK = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
POSSESSIVE = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
# Constructs in which Oniguruma and PCRE2 differ.
SYNTAX = (
    r"\h{2}\b|[[:punct:]]+$|^\s+|[\w&&[^_\d]]{2,3}+|\p{Greek}+|\p{Letter}{,2}\d|[^\S\n]+|[a-f[x-z]]+\W?|[^\w\s&&[^!]]|(?m:;.)|\u0041\v?|\p{^L}{2}?\R"
)

TEXT = """The tide turns at noon, and the boats come home with the wind behind them; they don't know where the road ends, but they're going anyway.
In 1897 the town had 12 houses, 3 wells & 1,024 lamps (so she'd said: "it's nothing!"). for (int i = 0; i < n; ++i) { sum += a[i] * b[i]; }
Der Fluß fließt über Äcker, où l'été naît, mañana será otro día. Жили-были старик со старухой. Ο ήλιος ανατέλλει στη θάλασσα.
山の上に月が出て、川の水が光る。中国的历史很长,有五千年。 한국어를 공부합니다. हिन्दी में लिखा है। السلام عليكم ورحمة الله. ภาษาไทยไม่มีช่องว่าง שלום עולם
👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 \t\tx\r\n\r\n   indented    words\u00a0here\u3000there ½ ² Ⅷ ①٣٤५६ e\u0301a\u0300o\u0308 ﬁ ℃ Å"""

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def added(flags):
    return [AddedToken(s, special=True, normalized=False) for s in SPECIALS] + (
        [
            AddedToken("<L>", lstrip=True, normalized=False),
            AddedToken("<R>", rstrip=True, normalized=False),
            AddedToken("<LR>", lstrip=True, rstrip=True, special=True, normalized=False),
            AddedToken("word", single_word=True, normalized=False),
            AddedToken("<caf\u00e9>", normalized=True),
            AddedToken("  ", normalized=False),
            AddedToken("    ", normalized=True),
            AddedToken("<|im_start|>user", special=True, normalized=False),
            AddedToken("<think>", normalized=True, special=True),
            AddedToken("two words", normalized=True, single_word=True),
        ]
        if flags
        else []
    )


# Kinds with an added token for each combination of the five flags: the kind that each begins with. Not among the goldens.
FLAG_KINDS = {"every_flag_qwen2": "qwen2", "every_flag_behaviors": "behaviors", "every_flag_gemma": "gemma", "every_flag_llama2": "llama2"}


def every_flag():
    for bits in range(32):
        lstrip, rstrip, single_word, normalized, special = (bits >> i & 1 == 1 for i in range(5))
        # Its name is changed by NFC and by lower case, unless it is special: `tokenizers` would not know it again when it is to be left out.
        name = "<" + ("e" if special and normalized else "E\u0301") + "".join(c for i, c in enumerate("lrwns") if bits >> i & 1) + ">"
        yield AddedToken(name, lstrip=lstrip, rstrip=rstrip, single_word=single_word, normalized=normalized, special=special)


def flag_texts():
    names = [t.content for t in every_flag()]
    return [*names, *(unicodedata.normalize("NFC", n) for n in names), *(n.lower() for n in names)]


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def byte_level(use_regex=False, add_prefix_space=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)


# The pre-tokenizers of the models for which llama.cpp made these names.
GGUF_NAMES = {
    "gpt-2": lambda: byte_level(True),
    "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(True)]),
    "llama-bpe": lambda: pre_tokenizers.Sequence([split(LLAMA3), byte_level()]),
    "qwen2": lambda: pre_tokenizers.Sequence([split(QWEN2), byte_level()]),
}


# name: (normalizer, pre-tokenizer without the final ByteLevel or with it, ignore_merges, added tokens with strip flags, BOS)
def configurations():
    seq = pre_tokenizers.Sequence
    return {
        "gpt2": (None, byte_level(True), False, False, False),
        "gpt2_prefix_space": (None, byte_level(True, True), False, True, False),
        "smollm": (None, seq([pre_tokenizers.Digits(individual_digits=True), byte_level(True)]), False, False, False),
        "llama3": (None, seq([split(LLAMA3), byte_level()]), True, False, True),
        "llama3_merges": (None, seq([split(LLAMA3), byte_level()]), False, True, True),
        "qwen2": (normalizers.NFC(), seq([split(QWEN2), byte_level()]), False, False, False),
        "qwen2_flags": (normalizers.NFC(), seq([split(QWEN2), byte_level()]), False, True, True),
        "o200k": (None, seq([split(O200K), byte_level()]), True, False, False),
        "tekken": (None, seq([split(TEKKEN), byte_level()]), True, False, True),
        "kimi": (None, seq([split(KIMI), byte_level()]), False, False, False),
        "deepseek": (None, seq([split(r"\p{N}{1,3}"), split(DEEPSEEK_CJK), split(DEEPSEEK), byte_level()]), False, False, True),
        "possessive": (None, seq([split(POSSESSIVE, "removed", True), byte_level()]), False, True, False),
        "falcon": (
            None,
            seq([pre_tokenizers.Punctuation("contiguous"), byte_level(True), pre_tokenizers.Digits(), split("[0-9][0-9][0-9]")]),
            False, False, False,
        ),
        "behaviors": (
            normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s{3,}"), " "), normalizers.Replace("--", "\u2014")]),
            seq([
                split(r"\s", "merged_with_next"), split(r"[aeiou]+", "merged_with_previous"), split(r"\p{P}", "contiguous"),
                split(r"\d+", "isolated", True), pre_tokenizers.Split("th", "removed"), pre_tokenizers.Split("e", "merged_with_next", True), byte_level(),
            ]),
            False, True, False,
        ),
        # Groups of three digits, counted from the right: one by empty matches, one by lookahead.
        "superbpe": (None, seq([split(r"\p{N}+"), split(r"(?=(\d{3})+(?!\d))"), byte_level()]), False, False, False),
        "afmoe": (None, seq([split(r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"), split(AFMOE_SCRIPTS), split(DEEPSEEK), byte_level()]), False, False, True),
        "syntax": (None, seq([split(SYNTAX), byte_level()]), False, False, False),
    }


def all_names():
    return [*configurations(), *text_configurations()]


def train(name, vocab_size):
    if name in FLAG_KINDS:
        tokenizer = train(FLAG_KINDS[name], vocab_size)
        prepends = FLAG_KINDS[name] == "llama2"  # which changes every name
        tokenizer.add_tokens([t for t in every_flag() if not (prepends and t.special and t.normalized)])
        return tokenizer
    if name in text_configurations():
        return train_text(name, vocab_size)
    normalizer, pre_tokenizer, ignore_merges, flags, bos = configurations()[name]
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    # One character of the alphabet is missing here: there is no unknown token, so its byte is dropped.
    missing = ["\u0142"] if name == "gpt2_prefix_space" else []
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, initial_alphabet=[c for c in alphabet if c not in missing])
    tokenizer.train_from_iterator(TEXT.split("\n") * 2, trainer)
    model = tokenizer.model
    if ignore_merges:
        model.ignore_merges = True
        tokenizer.model = model
    tokenizer.add_tokens(added(flags))
    if bos:
        tokenizer.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))]),
        ])
    return tokenizer


# SentencePiece's own vocabularies as transformers converts them: BPE with bytes for what has no token, and unigram models.
def bytes_first():
    return ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]


def text_decoder(strip):
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if strip else []))


def text_configurations():
    """name: (model, normalizer, pre-tokenizer, decoder, added tokens with strip flags, BOS)"""
    n, p, d = normalizers, pre_tokenizers, decoders
    escape = n.Replace(" ", "\u2581")
    return {
        "llama2": ("bpe", n.Sequence([n.Prepend("\u2581"), escape]), None, text_decoder(True), False, True),
        "llama2_flags": ("bpe", n.Sequence([n.Prepend("\u2581"), escape]), None, text_decoder(True), True, True),
        "mistral": ("bpe", None, p.Metaspace("\u2581", "first", False), text_decoder(True), False, True),
        "gemma": ("bpe", escape, p.Split(" ", "merged_with_previous"), text_decoder(False), False, True),
        "metaspace_bpe": ("bpe_unknown", n.NFKC(), p.Metaspace("\u2581", "always", True), d.Metaspace("\u2581", "always", True), True, False),
        "characters": ("bpe_unfused", n.Sequence([n.NFD(), n.StripAccents(), n.Strip()]), p.Sequence([p.Whitespace(), p.Metaspace("\u2581", "never", True)]), d.Metaspace("\u2581", "never", True), False, False),
        "t5": ("unigram", n.Sequence([n.Nmt(), n.NFKC(), n.Replace(Regex(" {2,}"), " ")]), p.Metaspace("\u2581", "always", True), d.Metaspace("\u2581", "always", True), False, False),
        "unigram_bytes": ("unigram_bytes", None, p.Sequence([p.WhitespaceSplit(), p.Metaspace("\u2581", "first", True)]), text_decoder(False), True, True),
        "unigram_whole": ("unigram_bytes", n.Sequence([n.Prepend("\u2581"), escape]), None, text_decoder(True), False, False),
        "charsmap": ("unigram", n.Sequence([n.Precompiled(charsmap()), n.Strip(), n.Replace(Regex(" {2,}"), "\u2581")]), p.Metaspace("\u2581", "always", True), d.Metaspace("\u2581", "always", True), False, False),
    }


CHARSMAP_RULES = None  # the lines of a file for --normalization_rule_tsv, or None for nmt_nfkc


@functools.cache
def charsmap():
    """The character map that SentencePiece puts into a model."""
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        rules.write(CHARSMAP_RULES or "")
        rules.flush()
        options = {"normalization_rule_tsv": rules.name} if CHARSMAP_RULES else {}
        return dict(fields(dict(fields(train_sentencepiece("unigram", 420, **options)))[3]))[2]


def fields(message):
    """Number and content of the fields of a protocol buffer message."""
    def varint(at):
        value = shift = 0
        while True:
            value |= (message[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if message[at - 1] < 128:
                return value, at

    at = 0
    while at < len(message):
        tag, at = varint(at)
        if tag & 7 == 0:
            value, at = varint(at)
        else:
            size, at = varint(at) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], at)
            value, at = message[at : at + size], at + size
        yield tag >> 3, value


def train_sentencepiece(model_type, vocab_size, **options):
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.split("\n") * 4), model_writer=model, model_type=model_type, vocab_size=vocab_size,
        hard_vocab_limit=False, minloglevel=2, num_threads=1, **options)
    return model.getvalue()


def train_text(name, vocab_size):
    kind, normalizer, pre_tokenizer, decoder, flags, bos = text_configurations()[name]
    unigram, has_bytes = kind.startswith("unigram"), kind in ("bpe", "unigram_bytes")
    tokenizer = Tokenizer(models.Unigram() if unigram else models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    first = bytes_first() if has_bytes else bytes_first()[:3]
    options = dict(vocab_size=vocab_size, show_progress=False)
    # Without a pre-tokenizer merges would cross whole sentences; words are enough to learn from.
    words = [w for w in TEXT.replace("\n", " ").split(" ")] * 4
    trainer = trainers.UnigramTrainer(special_tokens=first, unk_token="<unk>", **options) if unigram else trainers.BpeTrainer(special_tokens=first, **options)
    tokenizer.train_from_iterator(words, trainer)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = []
    state["model"].update(unk_token="<unk>", fuse_unk=kind != "bpe_unfused") if not unigram else None
    state["model"]["byte_fallback"] = has_bytes
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in first[:3]])
    # Where the normalizer changes a special token, `tokenizers` does not know it again when it is to be left out.
    tokenizer.add_tokens([t for t in added(flags) if not (t.special and t.normalized)])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


class RandomText:
    """Text of characters that Unicode 14 has (the tables of PCRE2 10.42 and utf8proc 2.8)."""

    def __init__(self, seed):
        assert unicodedata.unidata_version.startswith("14."), "needs Python 3.11, whose Unicode is 14"
        self.random = random.Random(seed)
        self.all = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
        self.marks = [c for c in self.all if unicodedata.category(c).startswith("M")]
        self.numbers = [c for c in self.all if unicodedata.category(c).startswith("N")]
        self.spaces = list("    \t\n\r\x0b\x0c\x85\u00a0\u1680\u180e\u2000\u2009\u200b\u2028\u2029\u202f\u205f\u3000\ufeff\x1c\x1f")
        self.controls = [chr(c) for c in [*range(32), *range(127, 160)]]
        self.words = TEXT.split() + ["'S", "'re", "'LL", "'\u017f", "'Ve", "word", "two words", "caf\u00e9", "cafe\u0301", "\u0130", "\ufdfa", "\u1e9b\u0323", "--", "\u212b"]
        self.specials = SPECIALS + ["<L>", "<R>", "<LR>", "<caf\u00e9>", "<cafe\u0301>", "<think>", "<|im_start|>user", "<|im_", "end|>", "word", "  ", "    ", "two words", "<s>", "</s>", "<unk>", "<0x41>", "<0x0A>", "\u2581", "\u2581\u2581a"]
        self.emoji = [c for c in self.all if 0x1F000 <= ord(c) < 0x1FB00] + ["\u200d", "\ufe0f", "\u20e3", "\U0001F3FD"]

    def block(self):
        start = self.random.choice(self.all)
        return [c for c in map(chr, range(ord(start) & ~0x7F, (ord(start) & ~0x7F) + 128)) if unicodedata.category(c) not in ("Cn", "Cs")]

    def piece(self):
        r = self.random
        kind = r.randrange(14)
        if kind <= 3:
            return r.choice(["", " ", " ", "\n"]) + r.choice(self.words)
        if kind == 4:
            return r.choice(self.specials)
        if kind == 5:
            return "".join(r.choices(self.spaces, k=r.randint(1, 5)))
        if kind == 6:
            return "".join(r.choices(self.emoji, k=r.randint(1, 4)))
        if kind == 7:
            return "".join(r.choices(self.all, k=r.randint(1, 3)))
        if kind == 8:
            return r.choice(self.words)[:1] + "".join(r.choices(self.marks, k=r.randint(1, 4)))
        if kind == 9:
            return "".join(r.choices(self.numbers if r.random() < 0.3 else "0123456789", k=r.randint(1, 8)))
        if kind == 10:
            return "".join(r.choices(self.controls, k=r.randint(1, 3)))
        if kind == 11:
            return "".join(r.choices("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", k=r.randint(1, 5)))
        if kind == 12:
            return r.choice(self.words).swapcase()
        return "".join(r.choices(self.block(), k=r.randint(1, 12)))

    def text(self):
        return "".join(self.piece() for _ in range(self.random.randint(0, 12)))

    def long_runs(self, length):
        """Runs of one class, with and without something at the end."""
        atoms = ["a", "A", "1", " ", "\n", "\r\n", "\t", "!", "\u0301", "\u4e2d", "\U0001F600", "\u00a0", "aB", " a", "\n ", "'s", "e\u0301", "\u0323\u0301", "\u200d", "ab1 "]
        for atom in atoms:
            run = atom * (length // len(atom.encode()))
            yield run
            yield "x " + run + "y"
        yield "a" + "\u0301" * (length // 4) + "\u0323" * (length // 4)
