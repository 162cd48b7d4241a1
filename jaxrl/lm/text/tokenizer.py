"""Text to token ids and back, by Hugging Face `tokenizers`; conversations by the model's own chat template.

A tokenizer comes from a folder (tokenizer.json and its companions) or out of a GGUF file's metadata. Two things that
are often muddled are kept apart: *markup* (special tokens such as <|im_end|>, which templates write) and *text* (which
people write). Text that merely looks like markup stays text wherever it is somebody else's.
"""

import datetime
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxrl.lm.extras import package
from jaxrl.types import InputError

Message = dict[str, Any]

_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")
_GUARD = "\ufdd0"  # a code point that Unicode reserves for no text at all


class Tokenizer:
    """Main arguments: a `tokenizers.Tokenizer`, and its special tokens by role, as in {"eos_token": "<|im_end|>"}.

    bos, eos, pad: ids, or None. prefix: the ids that go before plain text ([bos] where this tokenizer adds one, or []).
    stops: the ids that end a generation, EOS among them. vocab_size: ids, added tokens included.
    """

    def __init__(
        self, backend: Any, special: dict[str, str], *, chat_template: str | None = None, stops: Iterable[int] = ()
    ):
        backend.no_truncation()
        backend.no_padding()
        self._backend, self.special, self.chat_template = backend, special, chat_template
        for role, token in special.items():
            if backend.token_to_id(token) is None:
                raise InputError(f"{role} = {token!r} is not in the vocabulary; name a token that is")
        self.bos, self.eos, self.pad = (backend.token_to_id(special.get(name, "")) for name in _NAMES[:3])
        self.stops = frozenset(stops) | ({self.eos} - {None})
        self.vocab_size = backend.get_vocab_size()
        added = backend.encode("", add_special_tokens=True).ids
        self.prefix = [self.bos] if added and added[0] == self.bos else []
        markup = [token.content for token in backend.get_added_tokens_decoder().values() if token.special]
        longest_first = sorted(markup, key=len, reverse=True)
        self._markup = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._template = None

    @classmethod
    def from_folder(cls, path: str | Path) -> "Tokenizer":
        """From a folder with tokenizer.json, as `save`, `save_pretrained` and the model hub write it.

        Special tokens come from tokenizer_config.json, special_tokens_map.json or config.json, in that order; further
        stop tokens from generation_config.json; the template from chat_template.jinja or tokenizer_config.json.
        Raises InputError if there is no tokenizer.json.
        """
        folder = Path(path)
        if not (folder / "tokenizer.json").is_file():
            remedy = "load it with transformers' AutoTokenizer and save_pretrained it there"
            raise InputError(f"{folder} has no tokenizer.json; {remedy}")
        backend = _tokenizers().Tokenizer.from_file(str(folder / "tokenizer.json"))
        config, tokens = _json(folder / "tokenizer_config.json"), _json(folder / "special_tokens_map.json")
        model, generation = _json(folder / "config.json"), _json(folder / "generation_config.json")
        ends = [*_ids(generation.get("eos_token_id")), *_ids(model.get("eos_token_id"))]
        special = {}
        for name in _NAMES:
            token = config.get(name) or tokens.get(name)
            token = token["content"] if isinstance(token, dict) else token
            by_id = ends if name == "eos_token" else _ids(model.get(f"{name}_id"))
            if token is None and by_id:
                token = backend.id_to_token(by_id[0])
            if token is not None:
                special[name] = token
        return cls(backend, special, chat_template=_template_of(folder, config), stops=ends)

    @classmethod
    def from_gguf(cls, reader: Any, folder: str | Path | None = None) -> "Tokenizer":
        """From the metadata of a `gguf.GGUFReader`, or from a folder as far as that tells, and then from the metadata.

        Raises InputError for metadata that describe neither a known byte-level BPE nor SentencePiece's.
        """
        _tokenizers()  # or the sentence that it is absent: the module imports it
        from jaxrl.lm.text.bpe import from_metadata

        found = {k.removeprefix("tokenizer.ggml."): f.contents() for k, f in reader.fields.items() if "tokenizer." in k}
        told = None if folder is None else cls.from_folder(folder)
        backend, found = from_metadata(found) if told is None else (told._backend, found)
        keys = ("bos", "eos", "padding", "unknown")
        ids = {name: found.get(f"{key}_token_id") for name, key in zip(_NAMES, keys, strict=True)}
        special = {name: backend.id_to_token(i) for name, i in ids.items() if i is not None}
        template, stops = found.get("tokenizer.chat_template"), {*_ids(found.get("eot_token_id"))}
        if told is not None:
            special = {**{k: v for k, v in special.items() if v is not None}, **told.special}
            template, stops = told.chat_template or template, stops | told.stops
        return cls(backend, special, chat_template=template, stops=stops)

    def encode(self, text: str, specials: bool = True) -> list[int]:
        """The ids of the text alone: no BOS, no EOS. With specials=False, markup in it is encoded as plain text."""
        self._backend.encode_special_tokens = not specials
        return self._backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of the ids; bytes that are no UTF-8 become U+FFFD."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)

    def stream(self, ids: Iterable[int], skip_special_tokens: bool = True) -> Iterator[str]:
        """The text of ids as they arrive, in pieces that cut no character; joined, they are what `decode` gives."""
        known, held = [], []  # known: ids already told, kept because a decoder may treat the first id differently

        def text_of_held() -> str:
            return self.decode(known + held, skip_special_tokens)[len(self.decode(known, skip_special_tokens)) :]

        for i in ids:
            held.append(i)
            text = text_of_held()
            if text and not text.endswith("\ufffd"):
                yield text
                known, held = held, []
        if held and (text := text_of_held()):
            yield text

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The conversation as the chat template writes it, ending where the assistant begins to speak.

        Raises InputError if there is no template, or if the template refuses the messages.
        """
        if self.chat_template is None:
            raise InputError("the tokenizer has no chat template; give prompt and completion as text, or set one")
        jinja2 = package("jinja2", "chat templates")
        try:
            self._template = self._template or _compile(self.chat_template)
            return self._template.render(
                messages=list(messages), add_generation_prompt=add_generation_prompt, **self.special
            )
        except (jinja2.TemplateError, TypeError) as error:
            raise InputError(f"the chat template refuses the messages: {error}") from error

    def encode_chat(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> list[int]:
        """The ids of the rendered conversation. Markup inside a message stays plain text: nobody forges a turn."""
        text = self.render([self._guarded(m) for m in messages], add_generation_prompt)
        if _GUARD not in text:
            return self.encode(text)
        ids, start = [], 0
        for markup in self._markup.finditer(text):
            ids += [*self._plain(text[start : markup.start()]), self._backend.token_to_id(markup[0])]
            start = markup.end()
        return ids + self._plain(text[start:])

    def has_markup(self, text: str) -> bool:
        """Whether the text spells a special token."""
        return self._markup.search(text) is not None

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json, which transformers reads alike."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {**self.special, "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        (folder / "tokenizer.json").write_text(self._backend.to_str(), encoding="utf-8")
        for name, content in (("tokenizer_config", config), ("special_tokens_map", self.special)):
            text = json.dumps(content, indent=2, ensure_ascii=False)
            (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")

    def fingerprint(self) -> str:
        """sha256 over all that decides which ids a text or a conversation becomes."""
        parts = [self._backend.to_str(), self.chat_template, self.special, sorted(self.stops)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _guarded(self, message: Message) -> Message:
        def guard(text: str) -> str:
            return self._markup.sub(lambda found: found[0][:1] + _GUARD + found[0][1:], text)

        return {name: guard(value) if isinstance(value, str) else value for name, value in message.items()}

    def _plain(self, text: str) -> list[int]:
        return self.encode(text.replace(_GUARD, ""), specials=False)


def _tokenizers() -> Any:
    return package("tokenizers", "tokenizers of text")


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _ids(value: int | list[int] | None) -> list[int]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _template_of(folder: Path, config: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several by name, as models with tools have them
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return template


def _compile(source: str) -> Any:
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %}…{% endgeneration %} marks the assistant's words for others; here it changes nothing."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)  # jinja's own would escape < and >

    # A template is a program out of a downloaded file: hence the sandbox.
    extensions = [Generation, loopcontrols]
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return env.from_string(source)
