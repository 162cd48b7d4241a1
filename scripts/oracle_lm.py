"""Reference values for language models from torch and transformers, which jaxrl itself never imports.

Runs in an environment of its own (torch, transformers, peft, gguf), named on the command line:
    PYTHON scripts/oracle_lm.py tiny tests/lm/golden
    PYTHON scripts/oracle_lm.py rope tests/lm/golden/rope.json
    PYTHON scripts/oracle_lm.py pieces tests/lm/text/golden/pieces.json
    PYTHON scripts/oracle_lm.py adapters tests/lm/pretrained/golden
    PYTHON scripts/oracle_lm.py rewards FOLDER tests/lm/golden/rewards.json
    PYTHON scripts/oracle_lm.py smollm GGUF_DIR tests/lm/golden/smollm2.json
    PYTHON scripts/oracle_lm.py logits MODEL_DIR tokens.npy logits.npy [--gguf FILE] [--adapter DIR]
    PYTHON scripts/oracle_lm.py generate MODEL_DIR prompts.json continuations.json [--gguf FILE] --new 64
    PYTHON scripts/oracle_lm.py speed MODEL_DIR [--gguf FILE] --batch 1 16 --new 128 --threads 2

tiny      a small random model of each architecture: config, tensor names, tokens, logits, greedy continuations
rope      logits and greedy continuations of tiny models with every scaling of the rotary frequencies, on rows longer
          than the first context; both spellings of the config
pieces    SentencePiece's BPE trained on the texts below, with and without a space before text: pieces, ids of strings
adapters  low-rank adapters of tiny models as PEFT saves them: config, tensor names, tokens, logits
rewards   scores of reward models that jaxrl has saved, one a subfolder of FOLDER: the environment of jaxrl writes them
          with `python -m tests.lm.test_reward_parity FOLDER`
smollm    fingerprints of SmolLM2's logits on 20 texts, and greedy continuations of 10 prompts
logits    all logits of a right-padded token array [B, L], float32, of a model or of a PEFT adapter on it
generate  greedy continuations of a list of prompts of token ids, never stopped early
speed     tokens per second of transformers' own sampling

Weights of the tiny models are not stored: `tensor` makes each one from its name and shape, by arithmetic that gives the
same bits everywhere (NumPy guarantees the raw stream of PCG64 and its seeding; it does not guarantee `normal`).
"""

import argparse
import hashlib
import io
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import peft
import safetensors.torch
import sentencepiece
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

RECIPE = "pcg64-uniform-v1"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHARED = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
TINY = {
    "llama": {"model_type": "llama", "tie_word_embeddings": False},
    "llama3": {"model_type": "llama", "tie_word_embeddings": False, "rope_parameters": LLAMA3_ROPE},
    "smollm": {
        "model_type": "llama",
        "tie_word_embeddings": True,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "hidden_size": 24,
        "num_hidden_layers": 3,
    },
    "mistral": {"model_type": "mistral", "tie_word_embeddings": False, "sliding_window": 5, "num_hidden_layers": 3},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": False},
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": True, "head_dim": 16},
    "gemma": {
        "model_type": "gemma",
        "tie_word_embeddings": True,
        "head_dim": 12,
        "num_key_value_heads": 1,
        "hidden_act": "gelu_pytorch_tanh",
    },
}
LENGTH, PROMPTS, NEW = 24, (24, 9), 16
LEAST_MARGIN = 2e-3  # between the best and the second-best logit of every greedy choice recorded
LEAST_EFFECT = 1e-2  # on some logit, of every feature that a tiny model is there to test


def load_text_model(folder, gguf=None):
    """A causal language model in float32 with plain attention; raises where a tensor is missing or unknown."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=gguf, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    problems = {key: sorted(map(str, value)) for key, value in info.items() if value}
    if problems:
        raise ValueError(f"{folder}: {problems}")
    return model.eval()


def logits_of(model, tokens):
    """Float32 logits [B, L, V] of tokens [B, L]; a causal model needs no mask for padding on the right."""
    with torch.no_grad():
        return model(torch.as_tensor(np.asarray(tokens, np.int64)), use_cache=False).logits.float().numpy()


def continuation(model, prompt, new):
    """The `new` most likely tokens one by one after the prompt, with transformers' `generate` and its cache."""
    plain = transformers.GenerationConfig(do_sample=False, max_new_tokens=new, pad_token_id=0, eos_token_id=None)
    model.generation_config = plain
    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=plain)[0, len(prompt) :].tolist()
    assert len(out) == new, (len(out), new)
    return out


def margin(model, prompt, new_tokens):
    """Least distance of the best from the second-best logit over greedy choices, from one pass over the whole text."""
    logits = logits_of(model, [[*prompt, *new_tokens]])[0, len(prompt) - 1 : -1]
    assert (logits.argmax(-1) == new_tokens).all(), "generate and the whole forward pass disagree"
    best = np.sort(logits, -1)[:, -2:]
    return float((best[:, 1] - best[:, 0]).min())


def short(values):
    """Nested lists of floats with seven significant digits."""
    return [short(v) for v in values] if np.ndim(values) else float(f"{float(values):.7g}")


def write(path, golden):
    """Compact JSON, one line for each entry of the outermost object and of its lists of objects or lists."""
    lines = []
    for key, value in golden.items():
        rows = value if isinstance(value, list) and value and isinstance(value[0], dict | list) else None
        compact = [json.dumps(row, separators=(",", ":"), ensure_ascii=False) for row in rows or [value]]
        lines.append(f"{json.dumps(key)}:" + ("[\n" + ",\n".join(compact) + "\n]" if rows else compact[0]))
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    assert json.loads(text) == golden
    Path(path).write_text(text, encoding="utf-8")


# Tiny models.


def tensor(name, shape):
    """The weights that recipe pcg64-uniform-v1 gives a tensor: uniform, of variance 1 / fan-in, or around 1 for norms.

    Norms have deviation 0.1 around 1, biases deviation 0.5 around 0.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape))).reshape(shape)
    unit = np.sqrt(3.0) * ((raw >> np.uint64(11)) * 2.0**-52 - 1.0)
    if name.endswith("norm.weight"):
        return (1.0 + 0.1 * unit).astype(np.float32)
    scale = 0.5 if name.endswith(".bias") else 1.0 / np.sqrt(shape[-1])
    return (scale * unit).astype(np.float32)


def stored(model):
    """Tensors as a checkpoint stores them, by name: a tied head is left out."""
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    return dict(sorted(state.items()))


def digest(tensors):
    """One sha256 over all names and float32 bytes, in order of names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode() + np.ascontiguousarray(tensors[name], "<f4").tobytes())
    return total.hexdigest()


def tiny_model(name, **changes):
    """The tiny model of that name, with the recipe's weights."""
    config = AutoConfig.for_model(**{**SHARED, **TINY[name], **changes})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for key, value in stored(model).items():
            value.copy_(torch.from_numpy(tensor(key, tuple(value.shape))))
    model.tie_weights()
    return model


def config_file(model):
    """What config.json needs, as transformers writes it today."""
    dropped = {"transformers_version", "dtype", "_name_or_path", "use_cache"}
    found = {key: value for key, value in model.config.to_diff_dict().items() if key not in dropped}
    return {"architectures": [type(model).__name__], **found}


def hub_config(config):
    """The same as published models spell it: `rope_theta` and `rope_scaling`, and no head width where it is usual."""
    rope = dict(config["rope_parameters"])
    theta, kind = rope.pop("rope_theta"), rope["rope_type"]
    usual = config["head_dim"] == config["hidden_size"] // config["num_attention_heads"]
    dropped = {"rope_parameters", "layer_types", *(["head_dim"] if usual else [])}
    older = {key: value for key, value in config.items() if key not in dropped}
    return {**older, "rope_theta": theta, "rope_scaling": None if kind == "default" else rope}


def tiny_golden(name, seed):
    """Everything a test needs to know of one tiny model, or None where a greedy choice is too close."""
    model = tiny_model(name)
    tokens = np.random.RandomState(seed).randint(0, SHARED["vocab_size"], (2, LENGTH)).tolist()
    prompts = [row[:length] for row, length in zip(tokens, PROMPTS, strict=True)]
    greedy = [continuation(model, prompt, NEW) for prompt in prompts]
    if min(margin(model, *pair) for pair in zip(prompts, greedy, strict=True)) < LEAST_MARGIN:
        return None
    tensors = {key: value.numpy() for key, value in stored(model).items()}
    config = config_file(model)
    return {
        "recipe": RECIPE,
        "sha256": digest(tensors),
        "config": config,
        "hub_config": hub_config(config),
        "tensors": [[key, list(value.shape)] for key, value in tensors.items()],
        "tokens": tokens,
        "logits": short(logits_of(model, tokens).reshape(2 * LENGTH, -1)),
        "greedy_prompts": prompts,
        "greedy": greedy,
    }


# What a tiny model computes with one of its features left out: each must change the logits.


def edited(name, edit, **changes):
    """The tiny model with its weights or modules edited in place."""
    model = tiny_model(name, **changes)
    with torch.no_grad():
        edit(model)
    return model


def each_attention(edit):
    """The edit, on every layer's attention."""
    return lambda model: [edit(layer.self_attn) for layer in model.model.layers]


def tile_heads(attention):
    """Query head h reads key-value head h % G, instead of h // (H / G)."""
    order = torch.arange(4).reshape(2, 2).T.flatten()
    query, out = attention.q_proj.weight, attention.o_proj.weight
    query.copy_(query.reshape(4, 8, -1)[order].reshape(query.shape))
    out.copy_(out.reshape(-1, 4, 8)[:, order].reshape(out.shape))


def no_bias(attention):
    for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
        linear.bias.zero_()


def no_norm(attention):
    attention.q_norm = attention.k_norm = torch.nn.Identity()


def norm_after_rotation(model):
    """QK-norm weights reversed within the head: what order and orientation matter for."""
    each_attention(lambda a: a.q_norm.weight.copy_(a.q_norm.weight.flip(0)))(model)


def plain_norms(model):
    """Norm weights used as they are, without the 1 of Gemma."""
    for key, value in model.named_parameters():
        if key.endswith("norm.weight"):
            value.sub_(1.0)


def plain_embeddings(model):
    model.model.embed_tokens.embed_scale.fill_(1.0)


def one_head(model):
    """The head tied to the embeddings."""
    model.lm_head.weight = model.model.embed_tokens.weight


def interleaved(attention):
    """Rotary pairs (0, 1), (2, 3) instead of the halves: the order that GGUF stores."""
    for weight in (attention.q_proj.weight, attention.k_proj.weight):
        split = weight.reshape(-1, 4, 2, weight.shape[1]).transpose(1, 2)
        weight.copy_(split.reshape(weight.shape))


DEFAULT_ROPE = {"rope_type": "default", "rope_theta": LLAMA3_ROPE["rope_theta"]}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": LLAMA3_ROPE["rope_theta"], "factor": 8.0}
WITHOUT = {
    "llama": {
        "grouped heads tiled": lambda: edited("llama", each_attention(tile_heads)),
        "head tied": lambda: edited("llama", one_head),
        "rotary pairs interleaved": lambda: edited("llama", each_attention(interleaved)),
        "norm epsilon 1e-6": lambda: tiny_model("llama", rms_norm_eps=1e-6),
    },
    "llama3": {
        "rope unscaled": lambda: tiny_model("llama3", rope_parameters=DEFAULT_ROPE),
        "rope scaled evenly": lambda: tiny_model("llama3", rope_parameters=LINEAR_ROPE),
        "low_freq_factor 2": lambda: tiny_model("llama3", rope_parameters={**LLAMA3_ROPE, "low_freq_factor": 2.0}),
    },
    "smollm": {"rope base 10000": lambda: tiny_model("smollm", rope_parameters={**DEFAULT_ROPE, "rope_theta": 1e4})},
    "mistral": {
        "no window": lambda: tiny_model("mistral", sliding_window=None),
        "window 6": lambda: tiny_model("mistral", sliding_window=6),
        "window 4": lambda: tiny_model("mistral", sliding_window=4),
    },
    "qwen2": {"no bias": lambda: edited("qwen2", each_attention(no_bias))},
    "qwen3": {
        "no QK-norm": lambda: edited("qwen3", each_attention(no_norm)),
        "norm weights reversed": lambda: edited("qwen3", norm_after_rotation),
    },
    "gemma": {
        "norms without the 1": lambda: edited("gemma", plain_norms),
        "embeddings unscaled": lambda: edited("gemma", plain_embeddings),
        "silu": lambda: tiny_model("gemma", hidden_act="silu"),
    },
}


def effects(name, golden):
    """Largest change of a logit for each feature left out."""
    whole = np.asarray(golden["logits"]).reshape(2, LENGTH, -1)
    return {
        what: float(np.abs(logits_of(build(), golden["tokens"]) - whole).max()) for what, build in WITHOUT[name].items()
    }


def tiny(options):
    """Golden files of all tiny models; fails where a feature would make no difference."""
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    for name in TINY:
        golden = next(found for seed in range(100) if (found := tiny_golden(name, seed)))
        fresh = {key: tensor(key, tuple(shape)) for key, shape in golden["tensors"]}
        assert digest(fresh) == golden["sha256"], name
        found = effects(name, golden)
        assert min(found.values()) > LEAST_EFFECT, (name, found)
        write(folder / f"{name}.json", golden)
        print(json.dumps({name: short(np.std(golden["logits"])), **{key: short(v) for key, v in found.items()}}))


# Scaled rotary frequencies.

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 2.0, "beta_slow": 0.05}
ROPE = {
    "linear": ("llama", {"rope_type": "linear", "factor": 4.0}),
    "dynamic": ("llama", {"rope_type": "dynamic", "factor": 4.0}),
    "llama3": ("llama", {**LLAMA3_ROPE, "original_max_position_embeddings": 16}),
    "yarn": ("llama", YARN),
    "yarn, usual betas": ("qwen3", {k: v for k, v in YARN.items() if not k.startswith("beta")}),
    "yarn, attention_factor": ("llama", {**YARN, "attention_factor": 1.5}),
    "yarn, mscale": ("qwen2", {**YARN, "mscale": 2.0, "mscale_all_dim": 0.5}),
    "yarn, mscale alone": ("llama", {**YARN, "mscale": 2.0}),
    "yarn, not truncated": ("llama", {**YARN, "truncate": False}),
    "yarn, no factor": ("llama", {**YARN, "factor": None}),
    "yarn, of the whole context": ("llama", {k: v for k, v in YARN.items() if not k.startswith("original")}),
}
ROPE_LENGTH, ROPE_PLACES, ROPE_PROMPT = 60, (5, 20, 40, 59), 40


def rope_golden(what, seed):
    """What a test needs to know of one scaling, or None where a greedy choice is too close."""
    name, parameters = ROPE[what]
    parameters = {"rope_theta": 500.0, **parameters}
    model = tiny_model(name, rope_parameters=dict(parameters))
    tokens = np.random.RandomState(seed).randint(0, SHARED["vocab_size"], ROPE_LENGTH).tolist()
    new = continuation(model, tokens[:ROPE_PROMPT], NEW)
    if margin(model, tokens[:ROPE_PROMPT], new) < LEAST_MARGIN:
        return None
    found = logits_of(model, [tokens])[0]
    plain = logits_of(tiny_model(name, rope_parameters={"rope_type": "default", "rope_theta": 500.0}), [tokens])[0]
    effect = float(np.abs(found - plain).max())
    assert effect > LEAST_EFFECT or (what == "dynamic" and effect == 0), (what, effect)
    print(json.dumps({what: short(effect)}))
    config = {**config_file(model), "rope_parameters": parameters}
    return {
        "what": what,
        "config": config,
        "hub_config": hub_config(config),
        "tensors": [[key, list(value.shape)] for key, value in stored(model).items()],
        "tokens": tokens,
        "places": list(ROPE_PLACES),
        "logits": short(found[list(ROPE_PLACES)]),
        "prompt_length": ROPE_PROMPT,
        "greedy": new,
    }


def rope(options):
    """Golden file of all scalings; fails where one makes no difference."""
    found = [next(g for seed in range(100) if (g := rope_golden(what, seed))) for what in ROPE]
    write(options.out, {"recipe": RECIPE, "cases": found})


# Adapters.

SOME = {"r": 3, "lora_alpha": 2, "task_type": "CAUSAL_LM"}
ADAPTERS = {
    # name: (tiny model, settings of PEFT)
    "plain": ("llama", {**SOME, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.05}),
    "rslora": ("qwen2", {**SOME, "target_modules": "all-linear", "use_rslora": True}),
    "some_layers": ("mistral", {**SOME, "target_modules": ["o_proj", "down_proj"], "layers_to_transform": [0, 2]}),
    "pattern": ("smollm", {**SOME, "target_modules": r".*\.(q|up)_proj", "exclude_modules": ["layers.1.mlp.up_proj"]}),
}


def adapter_golden(name, folder):
    """A tiny model with an adapter of the recipe's weights, saved in `folder` as PEFT saves it."""
    base, settings = ADAPTERS[name]
    model = tiny_model(base)
    tokens = np.random.RandomState(0).randint(0, SHARED["vocab_size"], (2, LENGTH)).tolist()
    before = logits_of(model, tokens)
    adapted = peft.get_peft_model(model, peft.LoraConfig(**settings)).eval()
    with torch.no_grad():
        for key, value in peft.get_peft_model_state_dict(adapted).items():
            value.copy_(torch.from_numpy(tensor(key, tuple(value.shape))))
    adapted.save_pretrained(folder / name)
    saved = safetensors.torch.load_file(folder / name / "adapter_model.safetensors")
    tensors = {key: saved[key].numpy() for key in sorted(saved)}
    logits = logits_of(adapted, tokens)
    assert np.abs(logits - before).max() > LEAST_EFFECT, name
    return {
        "recipe": RECIPE,
        "base": base,
        "config": json.loads((folder / name / "adapter_config.json").read_text()),
        "sha256": digest(tensors),
        "tensors": [[key, list(value.shape)] for key, value in tensors.items()],
        "tokens": tokens,
        "logits": short(logits[:, ::3].reshape(-1, logits.shape[-1])),
    }


def adapters(options):
    """Golden files of adapters: the logits of every third token."""
    Path(options.out).mkdir(parents=True, exist_ok=True)
    for name in ADAPTERS:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(options.out) / f"adapter_{name}.json", adapter_golden(name, Path(folder)))


# SmolLM2.

LONG = (
    "The lighthouse at the end of the peninsula had not been lit for thirty years when Marta bought it. The roof "
    "leaked, the stairs groaned, and the great lens at the top was grey with salt. She spent the first winter mending "
    "what she could reach from a ladder, and the second learning what she could not. By the third spring the rooms "
    "were dry, the garden had beans and onions in it, and the fishermen no longer smiled when she asked about the "
    "weather. It was one of them, an old man named Tomas, who told her about the log books. They were in the cellar of "
    "the harbour office, he said, forty volumes of them, every ship and every storm since 1871, written down each "
    "night by whoever kept the light. Nobody had read them. Nobody had thrown them away, either. She carried the first "
    "one home under her coat, because it had begun to rain, and lit the stove, and opened it at the page where the "
    "ribbon lay. The handwriting was small and even. Wind north-west, it said. Two boats out. I do not expect them "
    "before morning, but I shall stay awake."
)
TEXTS = [
    "Hello",
    "The capital of France is Paris, and the capital of Japan is Tokyo.",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness.",
    "Movie review: a quiet, sharply observed comedy whose second half never quite earns its tears.",
    "Movie review: loud, long and lifeless.",
    "I don't think it's what they'd've wanted; we're sure you'll agree, won't you?",
    [{"role": "user", "content": "What is gravity?"}],
    [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "Is water wet?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "And ice?"},
    ],
    "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n",
    '<p class="note">if (x &lt; 3 && y != "z") { return x[0]; }</p>',
    "3.14159 + 2.71828 = 5.85987; 1,024 * 16 = 16384; on 2024-02-29 at 23:59:60",
    "Żółta łódź, ça va déjà, naïve Ångström, größer als Zürich, ¿qué pasó?",
    "敏捷的棕色狐狸跳过懒狗。日本語の文章と한국어 문장.",
    "Great job 🎉🎉 see you tomorrow 👩‍🚀🇩🇪 ❤️",
    "  two spaces,   three,\ta tab,\n\n\nthree newlines and trailing   ",
    "<|im_start|>user\nmarkup <|im_end|> in the <|endoftext|> middle <|im_start|>",
    "SELECT name, COUNT(*) AS n FROM films WHERE year >= 1999 GROUP BY name ORDER BY n DESC LIMIT 10;",
    "AaAaAa bbbbbbbbbbbb CAMELCase snake_case kebab-case http://example.org/a?b=c#d",
    "Ω(n log n) ≤ ∑ᵢ xᵢ² → ∞, ‘quoted’ — “dashes”… Привет, мир! שלום مرحبا",
    LONG,
]
PROMPT_TEXTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "Movie review:",
    "def is_prime(n):\n",
    [{"role": "user", "content": "What is gravity?"}],
    [{"role": "user", "content": "Write a haiku about autumn."}],
    [{"role": "system", "content": "You are a pirate."}, {"role": "user", "content": "How are you?"}],
    "1, 1, 2, 3, 5, 8,",
    "Das Wetter ist heute",
    LONG,
    "Water boils at",
    "The three primary colours are",
    [{"role": "user", "content": "Name two planets."}],
    "Dear Sir or Madam,",
    "import numpy as np\n",
    "My favourite film is",
]


# Reward models.

SCORED = [
    "Say it.<|im_end|>",
    "a",
    "<|im_start|>user\nWhich is better?<|im_end|>\n",
    "It ends twice<|im_end|><|im_end|>",
]


def reward_golden(folder):
    """Scores of texts of several lengths in one padded batch, as transformers gives them with nothing but the folder;
    each is what it is alone. Fails where a tensor is missing or unknown, and where padding is a token that ends one.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    problems = {key: sorted(map(str, value)) for key, value in info.items() if value}
    assert not problems and model.config.num_labels == 1, (folder, problems)
    assert model.config.pad_token_id == tokenizer.pad_token_id, folder
    batch = tokenizer(SCORED, padding=True, return_tensors="pt")
    ids = [tokenizer(text)["input_ids"] for text in SCORED]
    with torch.no_grad():
        together = model.eval()(**batch).logits[:, 0].numpy()
        alone = [model(torch.tensor([row])).logits[0, 0].item() for row in ids]
    assert all(row[-1] != tokenizer.pad_token_id for row in ids), folder
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    assert np.ptp(together) > LEAST_EFFECT
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    return {
        "name": folder.name,
        "sha256": digest({key: value.numpy() for key, value in tensors.items()}),
        "config": json.loads((folder / "config.json").read_text()),
        "tokenizer": json.loads((folder / "tokenizer_config.json").read_text()),
        "ids": ids,
        "scores": short(together),
    }


def rewards(options):
    """Golden file of all reward models in a folder."""
    found = [reward_golden(folder) for folder in sorted(Path(options.folder).iterdir())]
    write(options.out, {"texts": SCORED, "cases": found})


# SentencePiece.

PIECES = {
    "llama": {"byte_fallback": True},
    "gemma": {
        "byte_fallback": True,
        "add_dummy_prefix": False,
        "user_defined_symbols": ["\n\n", "▁▁", "▁▁▁", "<mask>"],
    },
    "without bytes": {"byte_fallback": False},
}


def strings(texts, count):
    """Pieces of the texts, shuffled and joined, with spaces and strange characters in odd places."""
    draw = random.Random(0)
    words = [word for text in texts for word in text.split(" ")]
    odd = [" ", "  ", "   ", "\n", "\n\n", "\t", "é", "ё", "敏", "🎉", "<mask>", "▁", "x", "\u00a0", "\u200b"]
    joined = [[draw.choice([*words, *odd]) for _ in range(draw.randint(1, 6))] for _ in range(count)]
    return ["", " ", "  a", "a  ", "\n", *(draw.choice([" ", "", "  "]).join(parts) for parts in joined)]


def pieces_golden(name):
    """One trained model and what it makes of strings."""
    texts, model = [text for text in TEXTS if isinstance(text, str)], io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=500 if PIECES[name]["byte_fallback"] else 300,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        **PIECES[name],
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    kinds = [trained.IsUnknown, trained.IsControl, trained.IsUnused, trained.IsByte]
    defined = PIECES[name].get("user_defined_symbols", [])

    def kind(i):
        found = [number for number, test in zip((2, 3, 5, 6), kinds, strict=True) if test(i)]
        return 4 if trained.IdToPiece(i) in defined else found[0] if found else 1

    every = range(trained.GetPieceSize())
    return {
        "name": name,
        "tokens": [trained.IdToPiece(i) for i in every],
        "scores": [trained.GetScore(i) for i in every],
        "token_type": [kind(i) for i in every],
        "add_space_prefix": PIECES[name].get("add_dummy_prefix", True),
        "strings": [[text, trained.EncodeAsIds(text)] for text in strings(texts, 200)],
    }


def pieces(options):
    """Golden file of SentencePiece models."""
    write(options.out, {"models": [pieces_golden(name) for name in PIECES]})


# SmolLM2 again.


def plain(tokenizer, text):
    """The text itself, or a conversation as the chat template writes it."""
    if isinstance(text, str):
        return text
    return tokenizer.apply_chat_template(text, tokenize=False, add_generation_prompt=True)


def columns(text, count, vocab):
    """Vocabulary entries at which the logits of a text are recorded."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return sorted((np.random.PCG64(seed).random_raw(count) % np.uint64(vocab)).tolist())


def signs(vocab):
    """A fixed vector of +-1 / sqrt(V), whose product with the logits depends on every one of them."""
    raw = np.random.PCG64(0).random_raw(vocab)
    return (2.0 * (raw >> np.uint64(63)) - 1.0) / np.sqrt(vocab)


def fingerprint(model, text, ids):
    """Ids and, for each position, what is kept of the logits."""
    logits = logits_of(model, [ids])[0].astype(np.float64)
    best = logits.max(-1)
    total = best + np.log(np.exp(logits - best[:, None]).sum(-1))
    places = columns(text, 16, logits.shape[-1])
    following = logits[np.arange(len(ids) - 1), ids[1:]] - total[:-1]
    return {
        "text": text,
        "ids": ids,
        "columns": places,
        "logits": short(logits[:, places]),
        "signed": short(logits @ signs(logits.shape[-1])),
        "logsumexp": short(total),
        "next": short(following) if len(following) else [],
        "argmax": logits.argmax(-1).tolist(),
        "max": short(best),
    }


def greedy_record(model, text, ids, eos, new=64):
    """A prompt with its continuation, where the end of the text first came, and how close the closest choice was."""
    tokens = continuation(model, ids, new)
    end = tokens.index(eos) if eos in tokens else None
    return {"text": text, "ids": ids, "tokens": tokens, "eos_at": end, "margin": short(margin(model, ids, tokens))}


def smollm(options):
    """Fingerprints and greedy continuations of SmolLM2."""
    tokenizer = AutoTokenizer.from_pretrained(options.folder, gguf_file=options.gguf)
    model = load_text_model(options.folder, options.gguf)
    eos = model.config.eos_token_id
    encoded = {text: tokenizer(text)["input_ids"] for text in (plain(tokenizer, t) for t in [*TEXTS, *PROMPT_TEXTS])}
    prompts = [plain(tokenizer, text) for text in PROMPT_TEXTS]
    records = [greedy_record(model, text, encoded[text], eos) for text in prompts]
    clear = [record for record in records if record["margin"] >= LEAST_MARGIN][:10]
    assert len(clear) == 10, [record["margin"] for record in records]
    texts = [plain(tokenizer, text) for text in TEXTS]
    golden = {
        "model": options.gguf,
        "eos": eos,
        "texts": [fingerprint(model, text, encoded[text]) for text in texts],
        "greedy": clear,
    }
    write(options.out, golden)
    size = Path(options.out).stat().st_size
    print(json.dumps({"bytes": size, "margins": [r["margin"] for r in records], "ends": [r["eos_at"] for r in clear]}))


# Live comparison.


def logits(options):
    """All logits of a token array, a few rows at a time."""
    tokens = np.load(options.tokens)
    model = load_text_model(options.folder, options.gguf)
    if options.adapter:
        model = peft.PeftModel.from_pretrained(model, options.adapter).eval()
    rows = [logits_of(model, tokens[start : start + 4]) for start in range(0, len(tokens), 4)]
    np.save(options.out, np.concatenate(rows))


def generate(options):
    """Greedy continuations of a JSON list of prompts."""
    model = load_text_model(options.folder, options.gguf)
    prompts = json.loads(Path(options.prompts).read_text())
    Path(options.out).write_text(json.dumps([continuation(model, prompt, options.new) for prompt in prompts]))


def timed(model, batch, options):
    """Seconds of the faster of two repeats, after a warm-up."""
    prompt = torch.from_numpy(np.random.RandomState(0).randint(100, model.config.vocab_size, (batch, options.prompt)))
    chosen = transformers.GenerationConfig(
        do_sample=options.sample, max_new_tokens=options.new, pad_token_id=0, eos_token_id=None, top_k=0
    )
    model.generation_config = chosen
    seconds = []
    for repeat in range(3):
        start = time.perf_counter()
        out = model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=chosen)
        seconds += [time.perf_counter() - start] if repeat else []
        assert out.shape == (batch, options.prompt + options.new), out.shape
    return min(seconds)


def speed(options):
    """Generated tokens per second for each batch size."""
    torch.set_num_threads(options.threads)
    model = load_text_model(options.folder, options.gguf)
    model.set_attn_implementation("sdpa")
    found = {batch: timed(model, batch, options) for batch in options.batch}
    shared = {key: getattr(options, key) for key in ("new", "prompt", "threads", "sample")}
    rates = {str(batch): short(batch * options.new / seconds) for batch, seconds in found.items()}
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps({"tokens_per_second": rates, **shared, **versions}))


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (tiny, rope, pieces, adapters, rewards, smollm, logits, generate, speed):
        sub = commands.add_parser(command.__name__, help=command.__doc__)
        sub.set_defaults(run=command, threads=1)
        names = {
            tiny: ["out"],
            rope: ["out"],
            pieces: ["out"],
            adapters: ["out"],
            rewards: ["folder", "out"],
            smollm: ["folder", "out"],
            logits: ["folder", "tokens", "out"],
            generate: ["folder", "prompts", "out"],
            speed: ["folder"],
        }
        for name in names[command]:
            sub.add_argument(name)
        if command is logits:
            sub.add_argument("--adapter")
        if command not in (tiny, rope, pieces, adapters, rewards):
            sub.add_argument("--gguf", default=GGUF if command is smollm else None)
        if command in (generate, speed):
            sub.add_argument("--new", type=int, default=64)
        if command is speed:
            sub.add_argument("--batch", type=int, nargs="+", default=[1, 16])
            sub.add_argument("--prompt", type=int, default=16)
            sub.add_argument("--threads", type=int, default=2)
            sub.add_argument("--sample", action="store_true")
    return parser.parse_args()


def main():
    """Run one subcommand, on one thread unless told otherwise."""
    options = arguments()
    torch.set_num_threads(options.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    options.run(options)


if __name__ == "__main__":
    sys.exit(main())
