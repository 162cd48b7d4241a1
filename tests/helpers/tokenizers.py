"""A tokenizer whose ids can be worked out by hand: every byte is its own id ("a" is 97), 256 and 257 are markup. And
small ones of every family."""

import json

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from jaxrl.lm.text import tokenizer as ours
from tests.helpers.chats import MARKUP

START, END, AB = 256, 257, 258
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(*, adds_bos: bool = False, more: tuple[str, ...] = ()) -> ours.Tokenizer:
    """more: further special tokens, from 259 on."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in visible]
    spelling = {b: chr(b) for b in visible} | {b: chr(256 + n) for n, b in enumerate(others)}
    vocabulary = {c: b for b, c in spelling.items()} | {"<|im_start|>": START, "<|im_end|>": END, "ab": AB}
    vocabulary |= {token: AB + 1 + n for n, token in enumerate(more)}
    backend = Tokenizer(models.BPE(vocabulary, [("a", "b")]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, normalized=False) for t in ("<|im_start|>", "<|im_end|>", *more)])
    if adds_bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", START)]
        )
    # As in SmolLM2, padding is EOS.
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    return ours.Tokenizer(backend, special, chat_template=CHATML)


def prepending_tokenizer(more: tuple[str, ...] = ()) -> ours.Tokenizer:
    """As Llama 2's: a space before every text, letters and bytes for tokens, and BOS."""
    letters = [*"▁", *map(chr, range(33, 127))]
    tokens = ["<unk>", *START_END, *(f"<0x{b:02X}>" for b in range(256)), *letters, *more]
    backend = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [], byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(t, normalized=False) for t in ("<unk>", *START_END, *more)])
    backend.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<unk>"}
    return ours.Tokenizer(backend, special, chat_template=CHATML)


START_END = ("<|im_start|>", "<|im_end|>")
CORPUS = [
    "def f(x): return x + 1  # adds one",
    "The quick brown fox jumps over the lazy dog, and then the dog sleeps.",
    "2 + 2 = 4; is that so? Yes, it is what it is!",
    "café naïve 中文 words — and    many spaces\nand lines\n\n",
] * 3


def families() -> dict[str, ours.Tokenizer]:
    """Tokenizers of the kinds that models come with, each trained on a few lines."""
    made = {"byte-level": _byte_level(False), "byte-level, BOS": _byte_level(True)}
    made |= {"prepend": _sentencepiece("prepend", False), "prepend, BOS": _sentencepiece("prepend", True)}
    made |= {f"metaspace {s}": _sentencepiece(s, s == "first") for s in ("first", "always", "never")}
    return made | {"unigram": _sentencepiece("always", True, unigram=True)}


def _byte_level(bos: bool) -> ours.Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    return _trained(backend, trainer, bos)


def bare(texts: list[str], vocab_size: int) -> ours.Tokenizer:
    """As GPT-2's: bytes, pieces of the texts, and an end that is all that there is to pad with."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return ours.Tokenizer(backend, {"eos_token": "<|end|>", "pad_token": "<|end|>"})


def _sentencepiece(scheme: str, bos: bool, unigram: bool = False) -> ours.Tokenizer:
    """scheme: where a space is put before text; "prepend" does so with a normaliser, as Llama 2's tokenizer."""
    backend = Tokenizer(models.Unigram() if unigram else models.BPE(byte_fallback=True, unk_token="<unk>"))
    metaspace = "always" if scheme == "prepend" else scheme
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=metaspace)
    bytes_ = [] if unigram else [f"<0x{b:02X}>" for b in range(256)]
    if unigram:
        trainer = trainers.UnigramTrainer(
            vocab_size=120, unk_token="<unk>", special_tokens=SPECIAL, show_progress=False
        )
    else:
        trainer = trainers.BpeTrainer(vocab_size=550, special_tokens=[*SPECIAL, *bytes_], show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    if bytes_:  # they were special for the trainer only
        spec = json.loads(backend.to_str())
        spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] not in bytes_]
        backend = Tokenizer.from_str(json.dumps(spec))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([] if scheme == "never" else [decoders.Strip(" ", 1, 0)])
    )
    if scheme == "prepend":
        backend.pre_tokenizer = None
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _trained(backend, None, bos)


SPECIAL = ["<unk>", "<s>", "</s>"]


def _trained(backend: Tokenizer, trainer, bos: bool) -> ours.Tokenizer:
    if trainer is not None:
        backend.train_from_iterator(CORPUS, trainer)
    backend.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    if bos:
        start = [("<s>", backend.token_to_id("<s>"))]
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=start)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return ours.Tokenizer(backend, special, chat_template=CHATML)


def save_both(folder: str) -> None:
    """The two tokenizers that scripts/oracle_chats.py reads."""
    for name, tokenizer in chat_tokenizers().items():
        tokenizer.save(f"{folder}/{name}")


def chat_tokenizers() -> dict[str, ours.Tokenizer]:
    """Tokenizers that know all the markup of chats.py."""
    return {"byte": byte_tokenizer(more=MARKUP), "prepending": prepending_tokenizer(more=MARKUP)}
