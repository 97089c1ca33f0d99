"""What the golden makers share: the tiny tokenizer, deterministic torch, and the expected results of a model."""
import json
import os
import pathlib

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

HERE = pathlib.Path(__file__).resolve().parent
BOS, EOS = "<|bos|>", "<|eos|>"
TOKENIZER_VOCAB = 307
SEQUENCES, LENGTH = 2, 96
# Around block borders of 16 and 32, the last position, and a prime.
POSITIONS = [0, 1, 15, 16, 17, 31, 32, 33, 47, 63, 64, 95]
PROMPTS = ["The tide turns now", "12 ships sailed", "Who reads it?"]
GREEDY_TOKENS = 64

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)

CORPUS = [
    "The tide turns at noon and the boats come home with the wind behind them.",
    "In the town there were 12 houses, 3 wells and the old stone bridge.",
    "She said that it was nothing; then she turned the page and read on.",
    "Rain on the roof, rain on the river: the sound of it went on and on.",
    "They don't know where the road ends, but they're going there anyway.",
    "The ship sailed in 1897 and the letters were never sent.",
]


def deterministic():
    logging.disable_progress_bar()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)


def make_tokenizer():
    """Byte-level BPE that splits as SmolLM2's does (single digits, then the GPT-2 expression) and puts a BOS in front."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENIZER_VOCAB,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    assert tokenizer.get_vocab_size() == TOKENIZER_VOCAB
    return tokenizer


def save_tokenizer(tokenizer, directory):
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, chat_template=CHAT_TEMPLATE, model_max_length=128
    )
    fast.save_pretrained(directory)
    # The same file without indentation: ten copies of it are committed.
    path = pathlib.Path(directory) / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False, separators=(",", ":")) + "\n")


def random_tokens(seed, vocab_size):
    return np.random.default_rng(seed).integers(0, vocab_size, size=(SEQUENCES, LENGTH))


def logits_of(model, ids):
    """float32 [sequences, tokens, vocabulary] of one pass over whole sequences."""
    return model(input_ids=torch.as_tensor(np.asarray(ids)), use_cache=False).logits.float().numpy()


def margin(logits):
    """Smallest distance of the most probable token to the second, over all leading dimensions."""
    top = np.sort(logits, axis=-1)[..., -2:]
    return float((top[..., 1] - top[..., 0]).min())


def greedy(model, prompt_ids, count=GREEDY_TOKENS):
    """Next `count` ids without and with a KV cache (asserted equal) and the smallest margin; EOS does not stop it."""
    ids, smallest = list(prompt_ids), np.inf
    for _ in range(count):
        last = logits_of(model, [ids])[0, -1]
        smallest = min(smallest, margin(last))
        ids.append(int(last.argmax()))
    uncached = ids[len(prompt_ids):]

    cached, feed, cache = [], list(prompt_ids), None
    for _ in range(count):
        out = model(input_ids=torch.tensor([feed]), past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        feed = [int(out.logits[0, -1].argmax())]
        cached += feed
    assert cached == uncached, "the KV cache of transformers changes the tokens"
    return uncached, float(smallest)


def logsumexp(logits):
    peak = logits.max(-1, keepdims=True).astype(np.float64)
    return (np.log(np.exp(logits - peak).sum(-1)) + peak[..., 0]).astype(np.float32)


def write_expected_logits(directory, prefix, tokens, logits):
    """tokens.txt and the expected_*.npy files (names start with prefix)."""
    directory = pathlib.Path(directory)
    (directory / f"{prefix}tokens.txt").write_text("".join(" ".join(map(str, row)) + "\n" for row in tokens))
    np.save(directory / f"{prefix}expected_positions.npy", np.array(POSITIONS, np.int64))
    np.save(directory / f"{prefix}expected_logits.npy", np.ascontiguousarray(logits[:, POSITIONS], np.float32))
    np.save(directory / f"{prefix}expected_argmax.npy", logits.argmax(-1).astype(np.int64))
    np.save(directory / f"{prefix}expected_logsumexp.npy", logsumexp(logits))


def attention_of(config):
    """transformers 5.23 adds Falcon's ALiBi twice in its eager attention: to the mask, and to the scores."""
    return "sdpa" if getattr(config, "alibi", False) else "eager"


def load_float32(directory):
    config = AutoConfig.from_pretrained(os.fspath(directory))
    return AutoModelForCausalLM.from_pretrained(
        os.fspath(directory), dtype=torch.float32, attn_implementation=attention_of(config)
    ).eval()


def write_json(path, value):
    pathlib.Path(path).write_text(json.dumps(value, indent=2) + "\n")
