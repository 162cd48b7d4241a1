"""SentencePiece's BPE rebuilt from the metadata of a GGUF file: pieces, their scores and their types.

SentencePiece joins the two neighbours whose union has the best score, again and again; `tokenizers` follows a list of
merges, which is written here in the order of the scores. What a file does not spell is as in Llama 2's: no
normalisation but of spaces, and after every special token a new start of text (Kudo & Richardson 2018,
arXiv 1808.06226).
"""

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from jaxrl.types import InputError

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6  # values of tokenizer.ggml.token_type
_SPACE = "▁"


def sentencepiece_bpe(metadata: dict[str, Any], remedy: str) -> Tokenizer:
    """The tokenizer that the keys under `tokenizer.ggml.` describe, without BOS.

    Raises InputError, ending with the remedy, for pieces of a unigram model and whatever else the keys cannot tell.
    """
    tokens, types, prefix = metadata["tokens"], metadata["token_type"], metadata.get("add_space_prefix", True)
    if metadata.get("remove_extra_whitespaces") or metadata.get("precompiled_charsmap"):
        raise InputError(f"tokenizer.ggml.precompiled_charsmap or remove_extra_whitespaces changes the text; {remedy}")
    if prefix and any(_SPACE in t for t, kind in zip(tokens, types, strict=True) if kind == _USER_DEFINED):
        raise InputError(f"tokenizer.ggml.tokens have user-defined pieces with spaces beside a space prefix; {remedy}")
    model = models.BPE(
        {token: i for i, token in enumerate(tokens)},
        _merges(metadata, remedy),
        unk_token=tokens[metadata.get("unknown_token_id", 0)],
        fuse_unk=True,
        byte_fallback=_BYTE in types,
    )
    tokenizer, spaces = Tokenizer(model), normalizers.Replace(" ", _SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefix else spaces
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    text = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(text + strip)
    special = [t for t, kind in zip(tokens, types, strict=True) if kind in (_CONTROL, _UNKNOWN)]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    # where they hold spaces, they are looked for among normalised ones
    defined = [t for t, kind in zip(tokens, types, strict=True) if kind == _USER_DEFINED]
    tokenizer.add_tokens([AddedToken(token, normalized=not prefix) for token in defined])
    return tokenizer


def _merges(metadata: dict[str, Any], remedy: str) -> list[tuple[str, str]]:
    """All ways to make a piece of two others, best pieces first."""
    listed = zip(metadata["tokens"], metadata["scores"], metadata["token_type"], strict=True)
    scores = {token: score for token, score, kind in listed if kind == _NORMAL}
    joined = {score for token, score in scores.items() if len(token) > 1}
    if any(score != int(score) for score in joined):
        raise InputError(f"tokenizer.ggml.scores are log-probabilities: the pieces are of a unigram model; {remedy}")
    if len(joined) < min(2, sum(len(token) > 1 for token in scores)):
        raise InputError(f"tokenizer.ggml.scores are all {next(iter(joined))}, which tells no order; {remedy}")
    place = {token: i for i, token in enumerate(metadata["tokens"])}
    ways = [
        (-score, place[token[:cut]], place[token[cut:]], token[:cut], token[cut:])
        for token, score in scores.items()
        for cut in range(1, len(token))
        if token[:cut] in scores and token[cut:] in scores
    ]
    return [(left, right) for *_, left, right in sorted(ways)]
