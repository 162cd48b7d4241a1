"""Tokenizers rebuilt from the metadata of a GGUF file; here byte-level BPE, in sentencepiece.py the other kind.

The file names its way of splitting text but does not spell it. The name is `tokenizer.ggml.pre`; the splits below are
those of the original models' tokenizer.json files. A wrong split gives text that still reads well and ids the model has
seldom seen, so an unknown name is refused.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from jaxrl.lm.text.sentencepiece import sentencepiece_bpe
from jaxrl.types import InputError

_CONTROL, _USER_DEFINED = 3, 4  # values of tokenizer.ggml.token_type
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _gpt2() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _smollm() -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


def _words(numbers: str) -> Any:
    split = pre_tokenizers.Split(Regex(_WORDS % numbers), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


class _Recipe(NamedTuple):
    split: Callable[[], Any]
    nfc: bool = False  # compose accents before anything else
    whole_words: bool = False  # a word of the vocabulary is never cut, whatever the merges say
    adds_bos: bool = False  # unless the file says otherwise


_RECIPES = {
    "gpt-2": _Recipe(_gpt2),
    "default": _Recipe(_gpt2),
    "smollm": _Recipe(_smollm),
    "llama-bpe": _Recipe(lambda: _words(r"\p{N}{1,3}"), whole_words=True, adds_bos=True),
    "qwen2": _Recipe(lambda: _words(r"\p{N}"), nfc=True),
}


_REMEDY = "put the model's own tokenizer.json (from the model hub) beside the file"
_IDS = ("bos", "eos", "unknown", "padding", "eot")
_SPM_IDS = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}  # where the file does not say


def from_metadata(metadata: dict[str, Any]) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer that the keys under `tokenizer.ggml.` describe, and the keys with the format's defaults.

    Raises InputError if it is neither SentencePiece's BPE ("llama") nor a byte-level BPE ("gpt2") whose way of
    splitting text is known here.
    """
    model = metadata.get("model")
    if model not in ("gpt2", "llama"):
        raise InputError(f"tokenizer.ggml.model = {model!r} is not one of 'gpt2', 'llama'; {_REMEDY}")
    for key in ("tokens", "token_type", "merges" if model == "gpt2" else "scores"):
        if key not in metadata:
            raise InputError(f"the file has no tokenizer.ggml.{key}; {_REMEDY}")
    tokens, metadata = metadata["tokens"], {**(_SPM_IDS if model == "llama" else {}), **metadata}
    for key in (f"{name}_token_id" for name in _IDS):
        if not 0 <= metadata.get(key, 0) < len(tokens):
            raise InputError(f"tokenizer.ggml.{key} = {metadata[key]}, but there are {len(tokens)} tokens; {_REMEDY}")
    tokenizer = sentencepiece_bpe(metadata, _REMEDY) if model == "llama" else _byte_level_bpe(metadata)
    # some converters call the ends of text and of turns ordinary, which would cut them to pieces
    ends = [tokens[metadata[key]] for key in ("bos_token_id", "eos_token_id", "eot_token_id") if key in metadata]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in ends])
    adds_bos = model == "llama" or _RECIPES[metadata["pre"]].adds_bos
    if metadata.get("add_bos_token", adds_bos):
        if "bos_token_id" not in metadata:
            raise InputError(f"text begins with a BOS, but the file has no tokenizer.ggml.bos_token_id; {_REMEDY}")
        bos = metadata["bos_token_id"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{tokens[bos]}:0 $A:0", special_tokens=[(tokens[bos], bos)]
        )
    return tokenizer, metadata


def _byte_level_bpe(metadata: dict[str, Any]) -> Tokenizer:
    pre = metadata.get("pre")
    if pre not in _RECIPES:
        raise InputError(f"tokenizer.ggml.pre = {pre!r} is not one of {', '.join(map(repr, _RECIPES))}; {_REMEDY}")
    tokens, recipe = metadata["tokens"], _RECIPES[pre]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in metadata["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=recipe.whole_words))
    if recipe.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer, tokenizer.decoder = recipe.split(), decoders.ByteLevel()
    tokenizer.add_special_tokens(_of_type(_CONTROL, metadata))
    tokenizer.add_tokens(_of_type(_USER_DEFINED, metadata))
    return tokenizer


def _of_type(kind: int, metadata: dict[str, Any]) -> Sequence[AddedToken]:
    named = zip(metadata["tokens"], metadata["token_type"], strict=True)
    return [AddedToken(token, normalized=False, special=kind == _CONTROL) for token, is_a in named if is_a == kind]
