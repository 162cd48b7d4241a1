"""Text to token ids and back, by Hugging Face `tokenizers`; conversations by the model's own chat template.

A tokenizer comes from a folder (tokenizer.json and its companions) or out of a GGUF file's metadata. Two things that
are often muddled are kept apart: *markup* (special tokens such as <|im_end|>, which templates write) and *text* (which
people write). Text that merely looks like markup stays text wherever it is somebody else's, unless it is asked for.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.lm.extras import package
from jaxrl.lm.text import fragments
from jaxrl.lm.text.folder import ROLES, ids_of, read_folder, write_folder
from jaxrl.lm.text.markup import GUARD, Marks, guarded, pattern_of, split_tokens
from jaxrl.lm.text.templates import Message, continued, joined, opening, render
from jaxrl.types import InputError

PAD = "<|pad|>"


class Exchange(NamedTuple):
    """A prompt and one answer as ids. ended: whether the template ends the answer with a special token."""

    prompt: list[int]
    answer: list[int]
    ended: bool


class Tokenizer:
    """Main arguments: a `tokenizers.Tokenizer`, and its special tokens by role, as in {"eos_token": "<|im_end|>"}.

    bos, eos, pad: ids, or None. unknown: the id of what it does not know, or None where that is no id of its own.
    prefix: the ids that go before plain text ([bos] where this tokenizer adds one, or []).
    vocab_size: one more than the largest id, added tokens included. templates: further chat templates by name;
    "tool_use" is taken where there are tools.
    """

    def __init__(
        self,
        backend: Any,
        special: dict[str, str],
        *,
        chat_template: str | None = None,
        templates: dict[str, str] | None = None,
        stops: Iterable[int] = (),
    ):
        backend.no_truncation()
        backend.no_padding()
        self._backend, self.special, self.chat_template = backend, special, chat_template
        self.templates, self.more_stops, self._known_marks = templates or {}, frozenset(stops), None
        for role, token in special.items():
            if backend.token_to_id(token) is None:
                raise InputError(f"{role} = {token!r} is not in the vocabulary; name a token that is")
        known = {token.content for token in backend.get_added_tokens_decoder().values()}
        backend.add_special_tokens([token for token in special.values() if token not in known])  # whole, and no text
        self.bos, self.eos, self.pad, unknown = (backend.token_to_id(special.get(name, "")) for name in ROLES)
        self.unknown = None if unknown in (self.bos, self.eos, self.pad) else unknown
        self._added = backend.get_added_tokens_decoder()
        self.vocab_size = max([backend.get_vocab_size(), *(i + 1 for i in self._added)])
        first = backend.encode("", add_special_tokens=True).ids
        self.prefix = [self.bos] if first and first[0] == self.bos else []
        self._tokens = pattern_of(self._added.values())
        normalized = any(token.special and token.normalized for token in self._added.values())
        self._spelt_otherwise = normalized and backend.normalizer is not None  # as "<|END|>", which no guard would find
        self._special_ids = {i for i, token in self._added.items() if token.special} | self.more_stops
        self._special_ids |= {self.eos} - {None}

    @classmethod
    def from_folder(cls, path: str | Path) -> "Tokenizer":
        """From a folder with tokenizer.json, as `save`, `save_pretrained` and the model hub write it.

        Special tokens come from tokenizer_config.json, special_tokens_map.json or config.json, in that order; further
        stop tokens from generation_config.json; templates from chat_template.jinja and additional_chat_templates/, or
        tokenizer_config.json. Raises InputError if there is no tokenizer.json, or none that can be read.
        """
        found = read_folder(Path(path), _tokenizers())
        default = found.templates.pop("default", None)
        return cls(found.backend, found.special, chat_template=default, templates=found.templates, stops=found.stops)

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
        ids = {name: found.get(f"{key}_token_id") for name, key in zip(ROLES, keys, strict=True)}
        special = {name: backend.id_to_token(i) for name, i in ids.items() if i is not None}
        template, templates, stops = found.get("tokenizer.chat_template"), {}, {*ids_of(found.get("eot_token_id"))}
        if told is not None:
            special = {**{k: v for k, v in special.items() if v is not None}, **told.special}
            template, templates, stops = told.chat_template or template, told.templates, stops | told.more_stops
        return cls(backend, special, chat_template=template, templates=templates, stops=stops)

    @property
    def stops(self) -> frozenset[int]:
        """The ids that end a generation: EOS, those that the model's files name, and what its chat template puts after
        an answer.
        """
        return self.more_stops | {i for i in (self.eos, self._end_of_turn()) if i is not None}

    def encode(self, text: str, specials: bool = True, goes_on: bool = False) -> list[int]:
        """The ids of a text from its start on: no BOS, no EOS. With specials=False, markup in it is plain text.

        goes_on: more text follows, which `encode_inside` encodes.
        """
        backend = self._open if goes_on else self._backend
        return _encode(backend, text) if specials else self._plain(backend, text)

    def encode_prompt(self, text: str, markup: str = "text") -> list[int]:
        """The ids of a text that the model is to go on with: BOS if this tokenizer adds one and the text begins with
        none, then the text. markup: what special tokens that it spells are, "text" or "tokens".
        """
        ids = self.encode(text, specials=markup == "tokens", goes_on=True)
        return ids if self.prefix and ids[:1] == self.prefix else [*self.prefix, *ids]

    def encode_inside(self, text: str, specials: bool = True) -> list[int]:
        """The ids of a text that goes on from other text: nothing is put before it, so that the two together decode to
        their concatenation.
        """
        return _encode(self._inside, text) if specials else self._plain(self._inside, text)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of the ids; bytes that are no UTF-8 become U+FFFD."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)

    def decode_after(self, before: Sequence[int], ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of `ids` where they follow on `before`: some decoders drop a space at the start of what they get."""
        known, whole = self.decode(before, skip_special_tokens), self.decode([*before, *ids], skip_special_tokens)
        return whole[len(known) :] if whole.startswith(known) else self.decode(ids, skip_special_tokens)

    def stream(self, ids: Iterable[int], skip_special_tokens: bool = True) -> Iterator[str]:
        """The text of ids as they arrive, in pieces that cut no character; joined, they are what `decode` gives."""
        known, held = [], []  # known: ids already told, kept because a decoder may treat the first id differently
        for i in ids:
            held.append(i)
            text = self.decode_after(known, held, skip_special_tokens)
            if text and not text.endswith("\ufffd"):
                yield text
                known, held = held, []
        if held and (text := self.decode_after(known, held, skip_special_tokens)):
            yield text

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True, **variables: Any) -> str:
        """The conversation as the chat template writes it, ending where the assistant begins to speak.

        variables: what else the template may ask for: tools, documents, `now` (a date), its own switches.
        Raises InputError if there is no template, or if the template refuses the messages.
        """
        template = self.templates.get("tool_use") if variables.get("tools") else None
        template = template or self.chat_template
        if template is None:
            raise InputError("the tokenizer has no chat template; give prompt and completion as text, or set one")
        asked = {"messages": list(messages), "add_generation_prompt": add_generation_prompt}
        nothing = {"tools": None, "documents": None}  # as templates expect it
        return render(template, **{**self.special, **nothing, **variables, **asked})

    def encode_chat(
        self, messages: Sequence[Message], add_generation_prompt: bool = True, *, markup: str = "text", **variables: Any
    ) -> list[int]:
        """The ids of the rendered conversation, up to where the assistant begins to speak; where its last turn is the
        assistant's and add_generation_prompt is true, up to that turn's last word, which is to be gone on with.

        markup: special tokens spelt in messages are "text", so that nobody forges a turn, or "tokens".
        """
        messages, variables = self._guarded((list(messages), variables), markup)
        write = functools.partial(self.render, **variables)
        if add_generation_prompt and messages and messages[-1]["role"] == "assistant":
            return self._rendered(continued(write, messages), self._backend)
        return self._rendered(write(messages, add_generation_prompt), self._backend)

    def encode_exchanges(
        self,
        prompt: Sequence[Message],
        answers: Sequence[Message],
        *,
        goes_on: bool = False,
        markup: str = "text",
        **variables: Any,
    ) -> list[Exchange]:
        """A prompt with each answer, as the chat template writes them: what it adds once an answer is there is the
        answer, with its end of turn, its thoughts and its tool calls.

        goes_on: the prompt's last turn is the assistant's, and the answers go on with it. Other arguments as for
        `encode_chat`. Raises InputError if the template refuses the messages, or an answer changes what it writes
        before.
        """
        prompt, answers, variables = self._guarded((list(prompt), list(answers), variables), markup)
        write = functools.partial(self.render, **variables)
        before = continued(write, prompt) if goes_on else opening(write, prompt)
        ids, made = self._rendered(before, self._backend), []
        backend = self._after_token if ids and ids[-1] in self._added else self._inside
        for answer in answers:
            text = write(joined(prompt, answer) if goes_on else [*prompt, answer], False)
            if not text.startswith(before):
                raise InputError(
                    f"has an answer that the chat template opens otherwise than {before[-40:]!r}, with which it asks "
                    "for one; give chat_template_kwargs that suit the answer, or prompt and answer as text"
                )
            added = self._rendered(text[self._end_of_token(text, len(before)) :], backend)
            made.append(Exchange(ids, added, self.ends(added)))
        return made

    def ends(self, ids: Sequence[int]) -> bool:
        """Whether the last of the ids, white space aside, is a special token or a stop."""
        last = next((i for i in reversed(ids) if i in self._special_ids or self.decode([i]).strip()), None)
        return last in self._special_ids

    def has_markup(self, text: str) -> bool:
        """Whether the text spells a special token, or another with which the chat template marks turns."""
        return self._marks().pattern.search(text) is not None

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json, which transformers reads alike."""
        default = {} if self.chat_template is None else {"default": self.chat_template}
        write_folder(Path(folder), self._backend.to_str(), self.special, default | self.templates)

    def padded_apart(self) -> "Tokenizer":
        """This one, with a padding token that ends no text: its own, another special one, or `PAD`, which is added.

        It is never one that texts are made of: as a special token that would be cut out of them, and change their ids.
        """
        some = (self.pad, self.bos, *sorted(self._special_ids - {self.unknown}))
        apart = next((i for i in some if i is not None and i not in self.stops), None)
        pad = PAD if apart is None else self._backend.id_to_token(apart)
        backend = type(self._backend).from_str(self._backend.to_str())
        backend.add_special_tokens([pad])
        told = {"chat_template": self.chat_template, "templates": self.templates, "stops": self.more_stops}
        return Tokenizer(backend, self.special | {"pad_token": pad}, **told)

    def same_ids(self, other: "Tokenizer") -> bool:
        """Whether a text becomes the same ids, unless it spells the padding of one of them."""
        padding = {t.special["pad_token"] for t in (self, other) if t.pad is not None and t.pad not in t.stops}
        mine, others = (json.loads(t._backend.to_str()) for t in (self, other))
        for spec in (mine, others):
            spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] not in padding]
        return mine == others

    def fingerprint(self) -> str:
        """sha256 over all that decides which ids a text or a conversation becomes."""
        parts = [self._backend.to_str(), self.chat_template, self.templates, self.special, sorted(self.stops)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @functools.cached_property
    def _inside(self) -> Any:
        return fragments.inside(self._backend)

    @functools.cached_property
    def _open(self) -> Any:
        return fragments.to_be_continued(self._backend)

    @functools.cached_property
    def _after_token(self) -> Any:
        return fragments.after_token(self._backend)

    def _marks(self) -> Marks:
        """What people's words must not become: special tokens, and others that the template writes around a turn."""
        template = self.chat_template
        if self._known_marks is None or self._known_marks[0] != template:
            try:
                turn = "" if template is None else self.render([{"role": "user", "content": GUARD}])
            except InputError:  # a template for other conversations
                turn = ""
            written = {found[found.lastindex] for found in self._tokens.finditer(turn)}
            marks = {i: t for i, t in self._added.items() if i in self._special_ids or t.content in written}
            # a single character has no inside to be guarded
            pattern = pattern_of(token for token in marks.values() if len(token.content) > 1)
            self._known_marks = (template, Marks(pattern, frozenset(marks) - {self.unknown}))
        return self._known_marks[1]

    def _guarded(self, value: Any, markup: str) -> Any:
        return value if markup == "tokens" else tuple(guarded(x, self._marks().pattern) for x in value)

    def _end_of_token(self, text: str, place: int) -> int:
        """The place, or the end of the token that swallows the white space around it."""
        swallowing = (found.end() for found in self._tokens.finditer(text) if found.start() < place < found.end())
        return next(swallowing, place)

    def _rendered(self, text: str, backend: Any) -> list[int]:
        """The ids of what a template wrote, guarded text as plain text. backend: for a text in this place."""
        if GUARD not in text and backend is self._backend and not self._spelt_otherwise:
            return _encode(backend, text)
        ids = []
        for plain, token in split_tokens(text, self._tokens):
            if plain:
                ids += self._plain(backend, plain.replace(GUARD, ""))
            if token is not None:
                ids.append(self._backend.token_to_id(token))
            backend = self._after_token
        return ids

    def _plain(self, backend: Any, text: str) -> list[int]:
        """The ids of a text in which markup is plain text."""
        ids, marks = _encode(backend, text, as_text=True), self._marks()
        if marks.ids.isdisjoint(ids):
            return ids
        # Unigram knows special tokens as words too, and some that mark turns are not special: each is cut in two
        cuts = [0, *(found.start(found.lastindex) + 1 for found in marks.pattern.finditer(text)), len(text)]
        if len(cuts) == 2:
            raise InputError(f"spells a special token in other characters, {text[:60]!r}; leave them out of the text")
        first, *rest = [text[a:b] for a, b in itertools.pairwise(cuts)]
        return [*self._plain(backend, first), *(i for part in rest for i in self._plain(self._inside, part))]

    def _end_of_turn(self) -> int | None:
        talk = [{"role": "user", "content": "?"}, {"role": "assistant", "content": GUARD}]
        try:
            end = self.render(talk, False).rpartition(GUARD)[2]
        except InputError:  # no template, or one that is for other conversations
            return None
        ends = (self._backend.token_to_id(token) for _, token in split_tokens(end, self._tokens) if token)
        return next((i for i in ends if i in self._special_ids), None)


def _encode(backend: Any, text: str, *, as_text: bool = False) -> list[int]:
    backend.encode_special_tokens = as_text
    return backend.encode(text, add_special_tokens=False).ids


def _tokenizers() -> Any:
    return package("tokenizers", "tokenizers of text")
