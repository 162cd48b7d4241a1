"""A DPO step, and sampling, of a language model of SmolLM2-135M's shape with random weights: nothing is downloaded."""

import time

import jax
import jax.numpy as jnp

from jaxrl import DPO, LMConfig, replace
from jaxrl.benchmarks.ceilings import matmul_rate
from jaxrl.benchmarks.timing import spread, timed
from jaxrl.data.arrays import Data
from jaxrl.data.preferences import Completions, Pairs
from jaxrl.lm import generate, language_model
from jaxrl.lm.transformer import ModelConfig
from jaxrl.reports.throughput import short
from jaxrl.training import program

SHAPE = ModelConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    head_dim=64,
    max_position_embeddings=8192,
    rope_theta=100_000.0,
    tie_word_embeddings=True,
)
SMALL = ModelConfig(97, 16, 32, 2, 2, 1, 8, 64, tie_word_embeddings=True)
# Dense floating-point operations per second from the makers' data sheets: bfloat16, and float32 as JAX multiplies it
# by default there, which is TF32 from Ampere on. Longer names first: the first that is part of the device's counts.
PEAKS = {
    "H100 PCIe": (756e12, 378e12),
    "H100 NVL": (835e12, 418e12),
    "H100": (989e12, 495e12),
    "H200": (989e12, 495e12),
    "B200": (2250e12, 1125e12),
    "A100": (312e12, 156e12),
    "L40S": (362e12, 183e12),
    "L4": (121e12, 60e12),
    "A10": (125e12, 62e12),
    "4090": (165e12, 83e12),
    "TPU v6": (918e12, None),
    "TPU v5p": (459e12, None),
    "TPU v5": (197e12, None),
    "TPU v4": (275e12, None),
}


def peak(device: str, dtype: str) -> float | None:
    """Operations per second that the maker promises, where the table knows."""
    found = next((rates for name, rates in PEAKS.items() if name.lower() in device.lower()), (None, None))
    return found[dtype == "float32"]


def utilisation(flops: float, seconds: float, dtype: str) -> dict:
    """Model FLOP/s, its share of the maker's peak (MFU) and of a large matrix product measured here."""
    most, size = peak(jax.devices()[0].device_kind, dtype), 512 if jax.default_backend() == "cpu" else 8192
    measured = matmul_rate(size, size, size, dtype=dtype)
    share = None if most is None else flops / seconds / most
    return {"flops_per_second": flops / seconds, "mfu": share, "of_measured_matmul": flops / seconds / measured}


def told(share: dict) -> str:
    """For a headline."""
    mfu = "no peak known" if share["mfu"] is None else f"MFU {share['mfu']:.1%}"
    return f"{mfu}, {share['of_measured_matmul']:.1%} of a measured matmul"


def size_of(params) -> int:
    """Number of parameters."""
    return sum(x.size for x in jax.tree.leaves(params))


def pairs_of(count: int, length: int, vocabulary: int) -> Pairs:
    """Random pairs without padding, half prompt."""
    keys = jax.random.split(jax.random.key(1))
    half, whole = jnp.full(count, length // 2), jnp.full(count, length)
    sides = [jax.random.randint(key, (count, length), 0, vocabulary) for key in keys]
    return Pairs(*(Completions(tokens, half, whole, None, jnp.arange(count)) for tokens in sides))


def dpo_step(dtype: str, smoke: bool, rounds: int = 10) -> dict:
    """Seconds of a step that trains all parameters beside a frozen reference: 8N operations a token (2N of them the
    reference's), attention not counted."""
    shape, count, length = (SMALL, 2, 16) if smoke else (SHAPE, 16, 512)
    model, config = language_model(shape, dtype=dtype), replace(DPO(lm=LMConfig(dtype=dtype)), batch_size=count)
    config = replace(config, epochs=1000)
    params, data = jax.jit(model.init)(jax.random.key(0)), Data((pairs_of(count, length, shape.vocab_size),))

    def made(params, data):
        return program(config, network=model, params=params, data=data)

    state = jax.jit(lambda p, d, key: made(p, d).init(key))(params, data, jax.random.key(2))
    step = jax.jit(lambda p, d, state: made(p, d).step(state), donate_argnums=2)
    step = step.lower(params, data, state).compile()
    memory, losses, times = step.memory_analysis().temp_size_in_bytes, [], []
    for _ in range(2 if smoke else rounds + 1):
        began = time.perf_counter()
        state, metrics = jax.block_until_ready(step(params, data, state))
        times.append(time.perf_counter() - began)
        losses.append(float(metrics["loss"].value))
    seconds, tokens = spread(times[1:]), 2 * count * length
    share = utilisation(8 * size_of(params) * tokens, seconds.median, dtype)
    rate = f"{seconds.median:.4f} s a step ({seconds.min:.4f} … {seconds.max:.4f}), {short(tokens / seconds.median)}"
    figures = {"seconds": seconds._asdict(), "tokens_per_step": tokens, "parameters": size_of(params), **share}
    figures |= {"tokens_per_second": tokens / seconds.median, "first_step_seconds": times[0]}
    figures |= {"temporary_bytes": memory, "first_loss": losses[0]}
    return {"headline": f"{rate} tokens/s, {told(share)}, {memory / 2**30:.1f} GiB temporary", "figures": figures}


def sampling(dtype: str, smoke: bool, rounds: int = 5) -> dict:
    """Tokens per second, sampled at temperature 1: 2N operations a token, attention not counted."""
    shape, cases, prompt, new = (SMALL, (2,), 4, 8) if smoke else (SHAPE, (64, 512), 16, 128)
    model, found = language_model(shape, dtype=dtype), {}
    params = jax.jit(model.init)(jax.random.key(0))
    for rows in cases:
        tokens = jax.random.randint(jax.random.key(1), (rows, prompt), 0, shape.vocab_size)
        keys, lengths = jax.random.split(jax.random.key(2), rows), jnp.full(rows, prompt)

        def call(tokens=tokens, keys=keys, lengths=lengths):
            return generate(model, params, tokens, lengths, keys, max_new_tokens=new)

        first = timed(call)
        seconds = spread([timed(call) for _ in range(2 if smoke else rounds)])
        share = utilisation(2 * size_of(params) * rows * new, seconds.median, dtype)
        rate = rows * new / seconds.median
        found[str(rows)] = {"tokens_per_second": rate, "seconds": seconds._asdict(), "first_seconds": first, **share}
    rates = "; ".join(f"batch {n}: {short(f['tokens_per_second'])} tokens/s, {told(f)}" for n, f in found.items())
    return {"headline": f"{rates} (prompt {prompt}, {new} new)", "figures": found}
