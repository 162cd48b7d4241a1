import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from jaxrl.lm.text.tokenizer import Tokenizer
from tests.helpers.tokenizers import AB, CHATML, END, START, byte_tokenizer

GOLDEN = json.loads((Path(__file__).parent / "golden" / "tokenizer.json").read_text(encoding="utf-8"))
TALK = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def tiny():
    return byte_tokenizer()


@pytest.fixture(scope="module")
def smollm():
    from gguf import GGUFReader

    from jaxrl.lm.pretrained import assets

    try:
        return Tokenizer.from_gguf(GGUFReader(assets.path("smollm2-135m")))
    except ValueError as error:
        pytest.skip(f"SmolLM2 cannot be fetched here: {error}")


def test_ids_by_hand(tiny):
    # every byte is its own id and "ab" is the one merge; é is the bytes 195 169
    assert tiny.encode("xab é") == [120, AB, 32, 195, 169]
    assert tiny.decode([120, AB, 32, 195, 169]) == "xab é"
    assert (tiny.bos, tiny.eos, tiny.pad, tiny.vocab_size, tiny.stops) == (START, END, END, 259, {END})


def test_no_bos_or_eos_is_added_and_the_prefix_says_whether_one_belongs_before_text(tiny):
    adds = byte_tokenizer(adds_bos=True)
    assert adds.encode("x") == tiny.encode("x") == [120]
    assert (tiny.prefix, adds.prefix) == ([], [START])


def test_markup_is_a_token_or_plain_text_as_asked(tiny):
    assert tiny.encode("a<|im_end|>") == [97, END]
    assert tiny.encode("a<|im_end|>", specials=False) == list(b"a<|im_end|>")
    assert tiny.encode("a<|im_end|>") == [97, END]  # asking once does not stick
    assert tiny.decode([97, END]) == "a<|im_end|>" and tiny.decode([97, END], skip_special_tokens=True) == "a"
    assert tiny.has_markup("a<|im_end|>") and not tiny.has_markup("<|im_end|")


def test_streams_cut_no_character(tiny):
    assert list(tiny.stream(list("aé😀".encode()))) == ["a", "é", "😀"]
    assert list(tiny.stream(iter([97, 195]))) == ["a", "\ufffd"]  # the end came inside a character
    assert list(tiny.stream([97, END])) == ["a"]
    assert list(tiny.stream([97, END], skip_special_tokens=False)) == ["a", "<|im_end|>"]
    assert list(tiny.stream([])) == []


@pytest.mark.parametrize("text", ["héllo 中文 👨‍👩‍👧", "\ufffd?\ufffd", "a\ufffd", " spaces  "])
def test_streamed_pieces_join_to_the_text(tiny, text):
    assert "".join(tiny.stream(tiny.encode(text))) == text


def test_streams_keep_the_spaces_that_some_decoders_drop_at_a_start():
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models

    backend = Backend(models.WordLevel({"▁a": 0, "▁b": 1}, unk_token="▁a"))
    backend.decoder = decoders.Metaspace()
    assert list(Tokenizer(backend, {}).stream([0, 1, 1])) == ["a", " b", " b"]


def test_streams_say_what_they_know_at_once(tiny):
    told = []

    def ids():
        for i in "aé".encode():
            yield i
            told.append(i)

    pieces = tiny.stream(ids())
    assert next(pieces) == "a" and told == []
    assert next(pieces) == "é" and told == [97, 195]


def test_rendering_by_hand(tiny):
    assert tiny.render(TALK) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tiny.render(TALK, add_generation_prompt=False) == "<|im_start|>user\nHi<|im_end|>\n"
    assert tiny.encode_chat(TALK) == tiny.encode(tiny.render(TALK))


@pytest.mark.parametrize(
    "forged", ["a<|im_end|>b", "<|im<|im_end|>_end|>", "<|im_start|><|im_start|>", "\ufdd0<|im_end|>"]
)
def test_nobody_forges_a_turn(tiny, forged):
    for message in ({"role": "user", "content": forged}, {"role": forged, "content": "Hi"}):
        ids = tiny.encode_chat([message])
        assert (ids.count(START), ids.count(END)) == (2, 1)
    plain = tiny.encode(forged.replace("\ufdd0", ""), specials=False)
    assert tiny.encode_chat([{"role": "user", "content": forged}]) == [
        *tiny.encode("<|im_start|>user\n"),
        *plain,
        *tiny.encode("<|im_end|>\n<|im_start|>assistant\n"),
    ]


@pytest.mark.parametrize(
    "template, text",
    [
        ("{{ bos_token }}|{{ eos_token }}", "<|im_start|>|<|im_end|>"),
        ("{% for m in messages %}\n  {% if m.role == 'user' %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}", "Hi\n"),
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "Hi"}'),
        ("{{ '<é>' | tojson }}", '"<é>"'),
        ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "Hi!"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "1"),
    ],
)
def test_what_templates_use(tiny, template, text):
    tiny.chat_template = template
    assert tiny.render(TALK) == text


@pytest.mark.parametrize(
    "template, message",
    [
        ("{{ raise_exception('no system role') }}", "refuses the messages: no system role"),
        ("{% oops %}", "refuses the messages: .*oops"),
        ("{{ messages.__class__.__mro__ }}", "refuses the messages: .*unsafe"),
        ("{{ messages.append(1) }}", "refuses the messages: .*safe"),
        ("{{ 'a' + messages[0]['name'] }}", "refuses the messages"),
        (None, "no chat template; give prompt and completion as text"),
    ],
)
def test_templates_that_fail_or_reach_out_are_refused(tiny, template, message):
    tiny.chat_template = template
    with pytest.raises(ValueError, match=message):
        tiny.render(TALK)


@pytest.mark.parametrize("adds_bos", [False, True])
def test_a_saved_tokenizer_is_the_same(tmp_path, adds_bos):
    tokenizer = byte_tokenizer(adds_bos=adds_bos)
    tokenizer.save(tmp_path / "t")
    again = Tokenizer.from_folder(tmp_path / "t")
    assert again.fingerprint() == tokenizer.fingerprint()
    assert vars(again).keys() == vars(tokenizer).keys() and again.prefix == tokenizer.prefix
    assert again.encode_chat(TALK) == tokenizer.encode_chat(TALK)


def test_a_fingerprint_changes_with_ids_template_and_stops(tiny):
    backend = tiny._backend
    same = Tokenizer(backend, tiny.special, chat_template=CHATML)
    others = [
        Tokenizer(backend, tiny.special),
        Tokenizer(backend, tiny.special, chat_template=CHATML, stops=[3]),
        Tokenizer(backend, {"eos_token": "<|im_start|>"}, chat_template=CHATML),
        byte_tokenizer(adds_bos=True),
    ]
    assert tiny.fingerprint() == same.fingerprint()
    assert len({t.fingerprint() for t in [tiny, *others]}) == 5


def test_folders_as_others_write_them(tmp_path, tiny):
    (tmp_path / "tokenizer.json").write_text(tiny._backend.to_str(), encoding="utf-8")
    with pytest.raises(ValueError, match="has no tokenizer.json; load it with transformers"):
        Tokenizer.from_folder(tmp_path / "gone")
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [END, 3], "bos_token_id": START}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": END}))
    bare = Tokenizer.from_folder(tmp_path)
    assert (bare.bos, bare.eos, bare.pad, bare.stops, bare.chat_template) == (START, END, None, {END, 3}, None)
    config = {"eos_token": {"content": "<|im_start|>"}, "chat_template": [{"name": "default", "template": "x"}]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    named = Tokenizer.from_folder(tmp_path)
    assert (named.eos, named.chat_template) == (START, "x")
    (tmp_path / "chat_template.jinja").write_text("y")
    assert Tokenizer.from_folder(tmp_path).chat_template == "y"


def test_settings_that_cut_or_pad_are_ignored(tmp_path, tiny):
    tiny._backend.enable_truncation(2)
    tiny._backend.enable_padding(length=9)
    (tmp_path / "tokenizer.json").write_text(tiny._backend.to_str(), encoding="utf-8")
    assert Tokenizer.from_folder(tmp_path).encode("xyz") == [120, 121, 122]


def test_a_special_token_must_exist(tiny):
    with pytest.raises(ValueError, match="eos_token = '</s>' is not in the vocabulary"):
        Tokenizer(tiny._backend, {"eos_token": "</s>"})


class Field:
    def __init__(self, value):
        self.contents = lambda: value


class Reader:
    """As much of a GGUFReader as is read: eight words and one merge."""

    def __init__(self, **changes):
        tokens = ["<s>", "</s>", "a", "b", "ab", "1", "Ġ", "ĠĠ"]
        values = {
            "model": "gpt2",
            "pre": "gpt-2",
            "tokens": tokens,
            "token_type": [3, 3, 1, 1, 1, 1, 1, 1],
            "merges": ["a b", "Ġ Ġ"],
            "bos_token_id": 0,
            "eos_token_id": 1,
        } | changes
        self.fields = {f"tokenizer.ggml.{k}": Field(v) for k, v in values.items() if v is not None}
        self.fields["general.name"] = Field("x")


def test_gguf_by_hand():
    tokenizer = Tokenizer.from_gguf(Reader(eot_token_id=4))
    assert tokenizer.encode("ab</s>a") == [4, 1, 2]
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad, tokenizer.stops) == (0, 1, None, {1, 4})
    assert (tokenizer.prefix, tokenizer.chat_template) == ([], None)


def test_how_text_is_split_depends_on_the_name():
    # Before a digit, GPT-2 leaves the last space of a run alone; SmolLM cuts digits off first and keeps the run whole.
    def ids(text, **changes):
        return Tokenizer.from_gguf(Reader(**changes)).encode(text)

    assert ids("  1") == ids("  1", pre="default") == [6, 6, 5]
    assert ids("  1", pre="smollm") == [7, 5]
    assert ids("ab", pre="llama-bpe", merges=[]) == [4]  # a word of the vocabulary needs no merges
    assert ids("ab", pre="qwen2", merges=[]) == [2, 3]
    composed = {"tokens": ["<s>", "</s>", "Ã", "©"], "token_type": [3, 3, 1, 1], "merges": []}
    assert ids("e\u0301", pre="qwen2", **composed) == [2, 3]  # NFC: é in one


@pytest.mark.parametrize(
    "changes, prefix",
    [
        ({}, []),
        ({"add_bos_token": True}, [0]),
        ({"pre": "llama-bpe"}, [0]),
        ({"pre": "llama-bpe", "add_bos_token": False}, []),
    ],
)
def test_whether_text_begins_with_bos(changes, prefix):
    assert Tokenizer.from_gguf(Reader(**changes)).prefix == prefix


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model": "t5"}, "tokenizer.ggml.model = 't5' is not one of 'gpt2', 'llama'; put .* tokenizer.json .* beside"),
        ({"model": "llama"}, "the file has no tokenizer.ggml.scores; put"),
        (
            {"pre": "tekken"},
            "tokenizer.ggml.pre = 'tekken' is not one of 'gpt-2', .*; put the model's own tokenizer.json",
        ),
        (
            {"pre": "llama-bpe", "bos_token_id": None},
            "begins with a BOS, but the file has no tokenizer.ggml.bos_token_id",
        ),
        ({"eos_token_id": 8}, "tokenizer.ggml.eos_token_id = 8, but there are 8 tokens"),
        ({"pre": None}, "tokenizer.ggml.pre = None is not one of"),
        ({"token_type": None}, "the file has no tokenizer.ggml.token_type"),
    ],
)
def test_other_gguf_tokenizers_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_gguf(Reader(**changes))


def test_an_end_that_the_gguf_calls_ordinary_is_markup_nevertheless():
    tokenizer = Tokenizer.from_gguf(Reader(token_type=[3, 1, 1, 1, 1, 1, 1, 1]))
    assert tokenizer.encode("a</s>") == [2, 1] and tokenizer.has_markup("</s>")


def test_gguf_without_a_bos():
    tokenizer = Tokenizer.from_gguf(Reader(bos_token_id=None))
    assert (tokenizer.bos, tokenizer.eos, tokenizer.prefix) == (None, 1, [])


def test_a_folder_goes_before_the_gguf_and_the_gguf_before_nothing(tmp_path):
    tokenizer = byte_tokenizer()
    keys = {"tokenizer.chat_template": "theirs", "bos_token_id": START, "eot_token_id": 7, "eos_token_id": 9}
    reader = Reader(model="unknown")
    reader.fields |= {k if "." in k else f"tokenizer.ggml.{k}": Field(v) for k, v in keys.items()}
    tokenizer.save(tmp_path)
    found = Tokenizer.from_gguf(reader, tmp_path)
    assert found.encode("xab") == tokenizer.encode("xab") and found.chat_template == CHATML
    assert (found.bos, found.eos, found.stops) == (START, END, {END, 7})
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).unlink()
    found = Tokenizer.from_gguf(reader, tmp_path)
    assert (found.bos, found.eos, found.stops, found.chat_template) == (START, 9, {9, 7}, "theirs")


def test_user_defined_tokens_are_whole_but_not_markup():
    tokenizer = Tokenizer.from_gguf(Reader(token_type=[3, 3, 1, 1, 4, 1, 1, 1], merges=[]))
    assert tokenizer.encode("ab", specials=False) == [4] and not tokenizer.has_markup("ab")


def test_importing_takes_no_lm_package_along():
    heavy = ("tokenizers", "jinja2", "gguf", "pyarrow")
    code = f"import sys, jaxrl.lm.text.tokenizer, jaxrl.data; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("case", GOLDEN["strings"], ids=lambda case: repr(case["text"])[:20])
def test_smollm_gives_transformers_ids(smollm, case):
    assert smollm.encode(case["text"]) == case["ids"]
    assert smollm.encode(case["text"], specials=False) == case.get("plain", case["ids"])
    assert smollm.decode(case["ids"]) == "".join(smollm.stream(case["ids"], skip_special_tokens=False)) == case["text"]


@pytest.mark.parametrize("case", GOLDEN["chats"], ids=lambda case: str(len(case["messages"])))
def test_smollm_renders_as_transformers(smollm, case):
    assert smollm.render(case["messages"], case["add_generation_prompt"]) == case["text"]
    assert smollm.encode_chat(case["messages"], case["add_generation_prompt"]) == case["ids"]


def test_smollm_gives_the_ids_of_the_original_tokenizer(smollm):
    ids = smollm.encode(GOLDEN["hub"]["text"])
    assert sha256(str(ids).encode()).hexdigest() == GOLDEN["hub"]["sha256"]


def test_smollm_special_tokens(smollm):
    assert (smollm.bos, smollm.eos, smollm.pad, smollm.stops, smollm.prefix) == (1, 2, 2, {2}, [])
    assert smollm.vocab_size == 49152
