"""A tokenizer whose ids can be worked out by hand: every byte is its own id ("a" is 97), 256 and 257 are markup."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from jaxrl.lm.text import tokenizer as ours

START, END, AB = 256, 257, 258
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(*, adds_bos: bool = False) -> ours.Tokenizer:
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in visible]
    spelling = {b: chr(b) for b in visible} | {b: chr(256 + n) for n, b in enumerate(others)}
    vocabulary = {c: b for b, c in spelling.items()} | {"<|im_start|>": START, "<|im_end|>": END, "ab": AB}
    backend = Tokenizer(models.BPE(vocabulary, [("a", "b")]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, normalized=False) for t in ("<|im_start|>", "<|im_end|>")])
    if adds_bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", START)]
        )
    # As in SmolLM2, padding is EOS.
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    return ours.Tokenizer(backend, special, chat_template=CHATML)
