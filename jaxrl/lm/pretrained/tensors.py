"""Named arrays on disk to the decoder's stacked parameters and back: one table of names, one way through it.

Files hold matrices as [out, in], one array a layer; the decoder has kernels [in, out], all layers in one array.
"""

from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.lm.heads import init_head, with_head
from jaxrl.lm.transformer import Decoder, ModelConfig, language_model
from jaxrl.types import InputError, PyTree

DTYPES = ("float32", "bfloat16", "float16")
_LAYER, _BLOCK = "model.layers.{i}.", "blk.{i}."
# Our key path: the name in safetensors, the name in GGUF.
NAMES = {
    ".embed.value": ("model.embed_tokens.weight", "token_embd.weight"),
    ".norm.weight.value": ("model.norm.weight", "output_norm.weight"),
    ".head.kernel.value": ("lm_head.weight", "output.weight"),
    ".score.kernel.value": ("score.weight", "cls.output.weight"),
    ".layers.attn_norm.weight.value": (_LAYER + "input_layernorm.weight", _BLOCK + "attn_norm.weight"),
    ".layers.q_proj.kernel.value": (_LAYER + "self_attn.q_proj.weight", _BLOCK + "attn_q.weight"),
    ".layers.k_proj.kernel.value": (_LAYER + "self_attn.k_proj.weight", _BLOCK + "attn_k.weight"),
    ".layers.v_proj.kernel.value": (_LAYER + "self_attn.v_proj.weight", _BLOCK + "attn_v.weight"),
    ".layers.o_proj.kernel.value": (_LAYER + "self_attn.o_proj.weight", _BLOCK + "attn_output.weight"),
    ".layers.q_proj.bias.value": (_LAYER + "self_attn.q_proj.bias", _BLOCK + "attn_q.bias"),
    ".layers.k_proj.bias.value": (_LAYER + "self_attn.k_proj.bias", _BLOCK + "attn_k.bias"),
    ".layers.v_proj.bias.value": (_LAYER + "self_attn.v_proj.bias", _BLOCK + "attn_v.bias"),
    ".layers.q_norm.weight.value": (_LAYER + "self_attn.q_norm.weight", _BLOCK + "attn_q_norm.weight"),
    ".layers.k_norm.weight.value": (_LAYER + "self_attn.k_norm.weight", _BLOCK + "attn_k_norm.weight"),
    ".layers.mlp_norm.weight.value": (_LAYER + "post_attention_layernorm.weight", _BLOCK + "ffn_norm.weight"),
    ".layers.gate_proj.kernel.value": (_LAYER + "mlp.gate_proj.weight", _BLOCK + "ffn_gate.weight"),
    ".layers.up_proj.kernel.value": (_LAYER + "mlp.up_proj.weight", _BLOCK + "ffn_up.weight"),
    ".layers.down_proj.kernel.value": (_LAYER + "mlp.down_proj.weight", _BLOCK + "ffn_down.weight"),
}
HF, GGUF = ({path: names[i] for path, names in NAMES.items()} for i in (0, 1))
IGNORED = ("rotary_emb.inv_freq", "rope_freqs.weight")
"""Ends of the names of arrays that follow from the config and are computed instead."""
Convert = Callable[[str, np.ndarray], np.ndarray]
Places = Callable[[Decoder], PyTree]
"""places(shapes of a decoder) -> a Sharding for each."""
Tensor = tuple[str, tuple[int, ...], Callable[[], np.ndarray]]
"""An array to be written: its name, its shape, and the function that makes it."""


def assemble(
    config: ModelConfig,
    tensors: Mapping[str, np.ndarray],
    names: Mapping[str, str],
    convert: Convert,
    *,
    dtype: str = "float32",
    source: str = "the mapping",
    places: Places | None = None,
) -> Decoder:
    """The decoder whose arrays are `tensors`, each read when it is needed: the mapping may be lazy.

    names: our key path -> name on disk, {i} standing for the layer. convert(path, array) undoes what the format does
    to an array. places(shapes) -> where each array lies: each device is then given its part alone, which is all that is
    read at a time where the mapping can read parts: part(name, slices).
    Raises InputError with a sentence naming tensors that are missing, unknown or of another shape.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)}")
    shapes, structure = _wanted(config, score=names[".score.kernel.value"] in tensors)
    wanted = {path: x.shape for path, x in shapes.items()}
    if config.tie_word_embeddings and names[".embed.value"] not in tensors:  # under the head's name, then
        names = {**names, ".embed.value": names[".head.kernel.value"]}
    _compare_names(config, set(tensors), {n for path in wanted for n in _expand(names, path, config)}, names, source)
    _check_tied_head(config, tensors, names, source)

    def read(path: str, name: str, shape: tuple[int, ...], part: tuple[slice, ...]) -> np.ndarray:
        kernel = path.endswith(".kernel.value")
        stored, part = (shape[::-1], part[::-1]) if kernel else (shape, part)
        found = tensors.shape(name) if hasattr(tensors, "shape") else tensors[name].shape
        if found != stored:
            raise InputError(f"{name} in {source} has shape {found}, but its config calls for {stored}")
        by_parts = hasattr(tensors, "part")
        array = tensors.part(name, part) if by_parts else tensors[name]
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise InputError(f"{name} in {source} is {array.dtype}; jaxrl reads floating-point weights only")
        array = convert(path, array)
        array = array if by_parts else array[part]
        return array.T if kernel else array

    def build(path: str, shape: tuple[int, ...], place: jax.sharding.Sharding | None) -> jax.Array:
        layered, homes = path.startswith(".layers."), _expand(names, path, config)

        def part(index: tuple[slice, ...]) -> np.ndarray:
            sizes = [len(range(*i.indices(n))) for i, n in zip(index, shape, strict=True)]
            found = np.empty(sizes, jnp.dtype(dtype))
            slots, chosen, rest = (found, homes[index[0]], index[1:]) if layered else (found[None], homes, index)
            for slot, name in zip(slots, chosen, strict=True):
                slot[...] = read(path, name, shape[1:] if layered else shape, rest)
            return found

        return jnp.asarray(part((slice(None),) * len(shape))) if place is None else _dealt(shape, place, part)

    homes = [None] * len(wanted)
    if places is not None:
        homes = jax.tree.leaves(places(jax.tree.unflatten(structure, shapes.values())))
    made = [build(path, shape, home) for (path, shape), home in zip(wanted.items(), homes, strict=True)]
    return jax.tree.unflatten(structure, made)


def _dealt(shape: tuple[int, ...], place: jax.sharding.Sharding, part: Callable[[tuple], np.ndarray]) -> jax.Array:
    """The array whose parts are part(index), each made when its devices take it: no more of it is on the host."""
    devices: dict[tuple, list] = {}
    for device, index in place.addressable_devices_indices_map(shape).items():
        devices.setdefault(tuple((i.start, i.stop) for i in index), []).append(device)
    parts = []
    for bounds, takers in devices.items():
        made = part(tuple(slice(*ends) for ends in bounds))
        parts += [jax.device_put(made, device) for device in takers]
        jax.block_until_ready(parts)
    return jax.make_array_from_single_device_arrays(shape, place, parts)


def disassemble(
    config: ModelConfig, params: Decoder, names: Mapping[str, str], convert: Convert, dtype: str = "float32"
) -> Iterator[Tensor]:
    """The arrays as they are on disk, made one by one, so that a writer holds few of them at once.

    The arrays are contiguous, as safetensors needs them: it writes a transposed view wrongly and says nothing.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)}")
    leaves = {jax.tree_util.keystr(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(params)}
    wanted = {path: x.shape for path, x in _wanted(config, score=params.score is not None)[0].items()}
    if any(".lora_" in path for path in leaves):
        raise InputError("these parameters have a low-rank adapter, which the file has no place for; merge it first")
    shapes = {path: leaf.shape for path, leaf in leaves.items()}
    if wrong := sorted(path for path in {**shapes, **wanted} if shapes.get(path) != wanted.get(path)):
        raise InputError(
            f"the parameters are not of this config: it has no place, or another shape, for {listing(wrong)}"
        )
    for path, leaf in leaves.items():
        layered, transposed = path.startswith(".layers."), path.endswith(".kernel.value")
        shape = leaf.shape[1:] if layered else leaf.shape
        for i, name in enumerate(_expand(names, path, config)):

            def make(path=path, leaf=leaf, i=i, layered=layered, transposed=transposed) -> np.ndarray:
                array = np.asarray(leaf[i] if layered else leaf)
                array = convert(path, array.T if transposed else array)
                return np.ascontiguousarray(array, jnp.dtype(dtype))

            yield name, shape[::-1] if transposed else shape, make


def _wanted(config: ModelConfig, score: bool) -> tuple[dict[str, jax.ShapeDtypeStruct], PyTree]:
    """Shapes by key path, and the decoder's structure; nothing random is computed. score: of a reward model."""

    def init(key: jax.Array) -> Decoder:
        params = language_model(config).init(key)
        return with_head(params, init_head(config.hidden_size)) if score else params

    shapes = jax.eval_shape(init, jax.random.key(0))
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}, structure


def _expand(names: Mapping[str, str], path: str, config: ModelConfig) -> list[str]:
    if not path.startswith(".layers."):
        return [names[path]]
    return [names[path].format(i=i) for i in range(config.num_hidden_layers)]


def _compare_names(
    config: ModelConfig, found: set[str], wanted: set[str], names: Mapping[str, str], source: str
) -> None:
    if missing := sorted(wanted - found):
        raise InputError(
            f"{source} lacks {listing(missing)}, which its config calls for; {_where_else(missing, found, names)}"
        )
    allowed = wanted | ({names[".head.kernel.value"]} if config.tie_word_embeddings else set())
    if unknown := sorted(name for name in found - allowed if not name.endswith(IGNORED)):
        raise InputError(
            f"{source} holds {listing(unknown)}, for which a {config.model_type} model has no place; "
            "it is another architecture than its config says, or has an adapter to be merged first"
        )


def _where_else(missing: list[str], found: set[str], names: Mapping[str, str]) -> str:
    if missing == [names[".head.kernel.value"]]:
        return "download it again, or set tie_word_embeddings to true in its config"
    if wrapped := next((name for name in sorted(found) if name.endswith("." + missing[-1])), None):
        return f"its names begin with {wrapped.removesuffix(missing[-1])!r}: save the model inside that, by itself"
    if missing[-1].removeprefix("model.") in found:
        return "it is a model without its head: take the one that generates text (…ForCausalLM)"
    return "download it again"


def _check_tied_head(config: ModelConfig, tensors: Mapping, names: Mapping[str, str], source: str) -> None:
    head, embed = names[".head.kernel.value"], names[".embed.value"]
    if config.tie_word_embeddings and head in tensors and not np.array_equal(tensors[head], tensors[embed]):
        raise InputError(
            f"{head} in {source} differs from {embed}, though its config ties them; "
            "set tie_word_embeddings to false in config.json to use both"
        )


def listing(names: list[str], shown: int = 8) -> str:
    """The first few of them, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
