"""A decoder of the Llama family: Llama 2 and 3, SmolLM2, Mistral, Qwen2, Qwen3, Gemma.

The parameters are a Flax NNX module used as a pytree, its layers stacked along a leading axis: training scans over
them, so that compile time does not grow with depth; decoding (generate.py) unrolls the same parameters. Rows are
right-padded: attention is causal, so no token sees the padding after it and no mask is needed.

Letters: B rows, L tokens, D width, V vocabulary, H heads, K key-value heads, C head width, S cache length.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxrl.lm.rope import DynamicScaling, RopeScaling, frequencies
from jaxrl.ops.platform import tuning
from jaxrl.ops.shards import looked_up, typed_by_rows
from jaxrl.types import InputError, Key, Params, PyTree

ACTIVATIONS: dict[str, Callable] = {"silu": jax.nn.silu, "gelu_tanh": jax.nn.gelu}
_STD = 0.02  # of fresh weights


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What fixes a model's program; fields are named as in Hugging Face's config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False
    model_type: str = "llama"
    """Which names the weights have on disk: llama, mistral, qwen2, qwen3 or gemma."""
    qkv_bias: bool = False
    """Qwen2: queries, keys and values have a bias."""
    qk_norm: bool = False
    """Qwen3: queries and keys are normalised per head."""
    sliding_window: int | None = None
    """Mistral: a token attends to itself and the sliding_window - 1 before it."""
    hidden_act: str = "silu"
    """silu, or gelu_tanh (Gemma)."""
    scale_embeddings: bool = False
    """Gemma: embeddings are multiplied by √hidden_size."""


class Linear(nnx.Module):
    """x·W, plus a bias and a low-rank adapter (lora.py) where there is one. Kernels are [in, out]."""

    def __init__(self, kernel: Array, bias: Array | None = None):
        self.kernel = nnx.Param(kernel)
        self.bias = None if bias is None else nnx.Param(bias)
        self.lora_a: nnx.Param | None = nnx.data(None)
        self.lora_b: nnx.Param | None = nnx.data(None)

    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        y = x @ self.kernel.astype(x.dtype)
        if self.bias is not None:
            y = y + self.bias.astype(x.dtype)
        if self.lora_a is not None:
            y = y + (x @ self.lora_a.astype(x.dtype)) @ self.lora_b.astype(x.dtype)
        return y


class RMSNorm(nnx.Module):
    """x / √(mean x² + ε) · weight, in at least float32 (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, weight: Array):
        self.weight = nnx.Param(weight)

    def __call__(self, x: Float[Array, "*b d"], eps: float) -> Float[Array, "*b d"]:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + eps)
        return wide.astype(x.dtype) * self.weight.astype(x.dtype)


class Layer(nnx.Module):
    """The parameters of one layer, or of all of them stacked."""

    def __init__(self, key: Key, c: ModelConfig):
        q_size, kv_size = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        keys = iter(jax.random.split(key, 7))

        def linear(n_in: int, n_out: int, bias: bool = False) -> Linear:
            return Linear(_STD * jax.random.normal(next(keys), (n_in, n_out)), jnp.zeros(n_out) if bias else None)

        self.attn_norm = RMSNorm(jnp.ones(c.hidden_size))
        self.q_proj = linear(c.hidden_size, q_size, c.qkv_bias)
        self.k_proj = linear(c.hidden_size, kv_size, c.qkv_bias)
        self.v_proj = linear(c.hidden_size, kv_size, c.qkv_bias)
        self.o_proj = linear(q_size, c.hidden_size)
        self.q_norm = RMSNorm(jnp.ones(c.head_dim)) if c.qk_norm else None
        self.k_norm = RMSNorm(jnp.ones(c.head_dim)) if c.qk_norm else None
        self.mlp_norm = RMSNorm(jnp.ones(c.hidden_size))
        self.gate_proj = linear(c.hidden_size, c.intermediate_size)
        self.up_proj = linear(c.hidden_size, c.intermediate_size)
        self.down_proj = linear(c.intermediate_size, c.hidden_size)


class Decoder(nnx.Module):
    """All parameters. `layers` is one Layer with a leading axis [num_hidden_layers]; `head` is None where tied; `score`
    is a reward model's, [D, 1] (heads.py), of others None."""

    def __init__(self, key: Key, c: ModelConfig):
        k_embed, k_layers, k_head = jax.random.split(key, 3)
        self.embed = nnx.Param(_STD * jax.random.normal(k_embed, (c.vocab_size, c.hidden_size)))
        self.layers = nnx.data(jax.vmap(lambda k: Layer(k, c))(jax.random.split(k_layers, c.num_hidden_layers)))
        self.norm = RMSNorm(jnp.ones(c.hidden_size))
        shape = (c.hidden_size, c.vocab_size)
        self.head = None if c.tie_word_embeddings else Linear(_STD * jax.random.normal(k_head, shape))
        self.score: Linear | None = nnx.data(None)


# Keys lie as the product with a query reads them: on a CPU attention takes a quarter of the time that way.
KVCache = tuple[tuple[Float[Array, "B K C S"], Float[Array, "B K S C"]], ...]


class LanguageModel(NamedTuple):
    """A Network for tokens, and the pieces that keep [B, L, V] from ever being formed.

    init(key) -> params; apply(params, tokens [B, L]) -> logits [B, L, V] in at least float32.
    hidden(params, tokens [B, L]) -> [B, L, D]; unembed(params, hidden [..., D]) -> logits [..., V].
    prefill(params, tokens [B, L], S) -> (hidden [B, L, D], cache): the same as `hidden`, and a cache with room for S.
    extend(params, layers, tokens [B, T], start [B], cache) -> (hidden [B, T, D], cache): go on from a cache, each row
    at its own position, unrolled; layers: `unstack(params)`, once for many tokens.
    """

    config: ModelConfig
    dtype: jnp.dtype
    init: Callable[[Key], Params]
    apply: Callable[..., Float[Array, "B L V"]]
    hidden: Callable[..., Float[Array, "B L D"]]
    unembed: Callable[..., Float[Array, "... V"]]
    prefill: Callable[..., tuple[Float[Array, "B L D"], KVCache]]
    extend: Callable[..., tuple[Float[Array, "B T D"], KVCache]]
    unstack: Callable[[Params], PyTree] | None = None


def language_model(config: ModelConfig, *, dtype: str = "float32", remat: bool | None = None) -> LanguageModel:
    """The functions of a model of this shape.

    dtype: of activations and matrix products; normalisation, softmax and logits are at least float32 in any case.
    remat: recompute each layer in the backward pass, which keeps one activation a layer instead of about twenty; None
    does so where it is no slower.
    Raises InputError, when called, for rows wider than the context of a model with dynamic NTK scaling.
    """
    return _language_model(config, jnp.dtype(dtype), tuning().remat if remat is None else remat)


@functools.cache  # equal arguments are one program
def _language_model(c: ModelConfig, dtype: jnp.dtype, remat: bool) -> LanguageModel:

    def embed(params: Decoder, tokens: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        x = looked_up(params.embed[...], jnp.asarray(tokens)).astype(dtype)
        return x * jnp.asarray(math.sqrt(c.hidden_size), dtype) if c.scale_embeddings else x

    def forward(params: Decoder, tokens: Int[Array, "B L"], keep: bool) -> tuple[Float[Array, "B L D"], Any]:
        _check_width(c, tokens.shape[1])
        places = jnp.arange(tokens.shape[1])[None]
        rotation = rotary(c, places)
        window = None if c.sliding_window is None else (c.sliding_window - 1, 0)

        def body(x, layer):
            kept = None

            def attend(q, k, v):
                nonlocal kept
                kept = (k, v) if keep else None
                if dtype == jnp.float64:  # dot_product_attention would take its softmax in float32
                    seen = visible(c, places, q.shape[1])
                    return cached_attention(q, k.transpose(0, 2, 3, 1), v.swapaxes(1, 2), seen)
                return jax.nn.dot_product_attention(q, k, v, is_causal=True, local_window_size=window)

            return block(c, layer, x, rotation, attend), kept

        x, kept = jax.lax.scan(jax.checkpoint(body) if remat else body, embed(params, tokens), params.layers)
        return params.norm(x, c.rms_norm_eps), kept

    def hidden(params: Decoder, tokens: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        return forward(params, tokens, keep=False)[0]

    def prefill(params: Decoder, tokens: Int[Array, "B L"], length: int) -> tuple[Float[Array, "B L D"], KVCache]:
        _check_width(c, length)
        x, kept = forward(params, tokens, keep=True)
        room = ((0, 0), (0, length - tokens.shape[1]), (0, 0), (0, 0))
        keys, values = (jnp.pad(y, ((0, 0), *room)) for y in kept)
        keys, values = keys.transpose(0, 1, 3, 4, 2), values.swapaxes(2, 3)
        return x, tuple((keys[i], values[i]) for i in range(c.num_hidden_layers))

    def unembed(params: Decoder, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        kernel = params.embed[...].T if params.head is None else params.head.kernel[...]
        wide = jnp.promote_types(hidden.dtype, jnp.float32)
        return jnp.matmul(hidden, kernel.astype(hidden.dtype), preferred_element_type=wide)

    def extend(
        params: Decoder, layers: list[Layer], tokens: Int[Array, "B T"], start: Int[Array, " B"], cache: KVCache
    ):
        positions = start[:, None] + jnp.arange(tokens.shape[1])
        rotation, rows = rotary(c, positions), jnp.arange(tokens.shape[0])[:, None]
        seen = visible(c, positions, cache[0][1].shape[2])
        x, extended = embed(params, tokens), []
        for layer, (keys, values) in zip(layers, cache, strict=True):

            def attend(q, k, v, keys=keys, values=values):
                extended.append((keys.at[rows, :, :, positions].set(k), values.at[rows, :, positions].set(v)))
                return cached_attention(q, *extended[-1], seen)

            x = block(c, layer, x, rotation, attend)
        return params.norm(x, c.rms_norm_eps), tuple(extended)

    def apply(params: Decoder, tokens: Int[Array, "B L"]) -> Float[Array, "B L V"]:
        return unembed(params, hidden(params, tokens))

    apply, hidden, unembed = (typed_by_rows(function, 1) for function in (apply, hidden, unembed))
    return LanguageModel(c, dtype, lambda key: Decoder(key, c), apply, hidden, unembed, prefill, extend, unstack)


def _check_width(c: ModelConfig, width: int) -> None:
    if isinstance(c.rope_scaling, DynamicScaling) and width > c.max_position_embeddings:
        raise InputError(
            f"rows of {width} tokens are wider than the {c.max_position_embeddings} of the model, whose rope_scaling "
            "is dynamic: beyond, a token's rotation would depend on the length of its row; shorten or narrow the rows"
        )


def block(c: ModelConfig, layer: Layer, x: Float[Array, "B L D"], rotation: tuple, attend: Callable) -> Array:
    """One layer: attention, then the gated MLP of SwiGLU, each on normalised input and added to its own input."""

    def heads(y: Array, norm: RMSNorm | None = None) -> Float[Array, "B L H C"]:
        y = y.reshape(*y.shape[:2], -1, c.head_dim)
        return y if norm is None else norm(y, c.rms_norm_eps)

    y = layer.attn_norm(x, c.rms_norm_eps)
    q = rotate(heads(layer.q_proj(y), layer.q_norm), rotation)
    k = rotate(heads(layer.k_proj(y), layer.k_norm), rotation)
    x = x + layer.o_proj(attend(q, k, heads(layer.v_proj(y))).reshape(*x.shape[:2], -1))
    y = layer.mlp_norm(x, c.rms_norm_eps)
    return x + layer.down_proj(ACTIVATIONS[c.hidden_act](layer.gate_proj(y)) * layer.up_proj(y))


def visible(c: ModelConfig, positions: Int[Array, "B T"], length: int) -> Bool[Array, "B T S"]:
    """Which of the places 0 … length - 1 a token at each position attends to."""
    distance = positions[:, :, None] - jnp.arange(length)
    return (distance >= 0) & (distance < (c.sliding_window or length))


def cached_attention(
    q: Float[Array, "B T H C"], k: Float[Array, "B K C S"], v: Float[Array, "B K S C"], seen: Bool[Array, "B T S"]
) -> Float[Array, "B T H C"]:
    """Attention of few tokens to many, in the cache's layout: `dot_product_attention` would transpose all of it."""
    rows, count, _, width = q.shape
    grouped = q.reshape(rows, count, k.shape[1], -1, width).swapaxes(1, 2)  # B K T G C
    shape, wide = grouped.shape, jnp.promote_types(q.dtype, jnp.float32)
    score = jnp.matmul(grouped.reshape(*shape[:2], -1, width), k, preferred_element_type=wide) / math.sqrt(width)
    score = score.reshape(*shape[:4], -1)
    weight = jax.nn.softmax(jnp.where(seen[:, None, :, None], score, -jnp.inf)).astype(v.dtype)
    found = jnp.matmul(weight.reshape(*shape[:2], -1, v.shape[2]), v)
    return found.reshape(shape).swapaxes(1, 2).reshape(q.shape)


def rotary(c: ModelConfig, positions: Int[Array, "B L"]) -> tuple[Float[Array, "B L 1 C/2"], Float[Array, "B L 1 C/2"]]:
    """Cosine and sine of position · frequency (Su et al. 2021, arXiv 2104.09864), float32, times YaRN's factor."""
    frequency, scale = frequencies(c.rope_theta, c.head_dim, c.rope_scaling)
    angle = (positions[..., None] * frequency)[:, :, None]
    return jnp.cos(angle) * scale, jnp.sin(angle) * scale


def rotate(x: Float[Array, "B L H C"], rotation: tuple[Array, Array]) -> Float[Array, "B L H C"]:
    """Rotate the pairs (x_i, x_{i + C/2}): the half-rotation layout of Hugging Face's weights."""
    cos, sin = (r.astype(jnp.promote_types(x.dtype, jnp.float32)) for r in rotation)
    a, b = jnp.split(x.astype(cos.dtype), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def unstack(params: Decoder) -> list[Layer]:
    """The layers one by one, for `extend`."""
    count = params.layers.attn_norm.weight.shape[0]
    return [jax.tree.map(lambda x, i=i: x[i], params.layers) for i in range(count)]
