"""Convolutional torsos: from a picture [height, width, channels] to a vector."""

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxrl.networks.initializers import drawn_with, orthogonal
from jaxrl.ops.platform import tuning
from jaxrl.spaces import Box, Space
from jaxrl.types import InputError, Key

TORSOS = ("auto", "flat", "minatar", "nature", "impala")
_NATURE_SIDE = 36  # pixels, the smallest picture of which its layers leave anything
_RELU = 2**0.5  # orthogonal scale before a ReLU


def is_image(space: Space) -> bool:
    """Whether an observation is a picture: three axes, of which the last is channels."""
    return isinstance(space, Box) and len(space.shape) == 3


def torso_kind(torso: str, space: Box) -> str:
    """Which torso sees pictures of this space: "auto" takes "nature" from 36 pixels a side on, else "minatar".

    Raises InputError for pictures too small for it.
    """
    side = min(space.shape[:2])
    kind = torso if torso != "auto" else "nature" if side >= _NATURE_SIDE else "minatar"
    least = {"nature": _NATURE_SIDE, "minatar": 3, "impala": 1}[kind]
    if side < least:
        raise InputError(
            f"torso = {torso!r} needs pictures of at least {least} × {least} pixels, and these are of "
            f"{space.shape[0]} × {space.shape[1]}; use torso = {'minatar' if side >= 3 else 'flat'!r}"
        )
    return kind


def make_torso(kind: str, space: Box, key: Key) -> nnx.Module:
    """The torso `kind` for pictures of this space.

    "minatar": a layer of 16 filters 3×3, then 128 units (Young & Tian 2019, arXiv 1903.03176). "nature": 32 8×8/4, 64
    4×4/2, 64 3×3/1, then 512 (Mnih et al. 2015). "impala": three blocks of 16, 32, 32 channels, each a pooling by two
    and two residual blocks, then 256 (Espeholt et al. 2018, arXiv 1802.01561, figure 3). ReLU throughout.
    """
    # What is stored in bytes is shown to the network between 0 and 1.
    scale = 1 / 255 if np.dtype(space.dtype) == np.uint8 else 1.0
    if kind == "impala":
        return Impala(space.shape, scale, key)
    plan = {"minatar": (((16, 3, 1),), 128), "nature": (((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512)}[kind]
    return Stack(space.shape, scale, *plan, key)


class Conv(nnx.Conv):
    """A convolution of pictures; as `tuning` says, by XLA's or as patches times a matrix, which is the same sum."""

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j f"]:
        if tuning().convolution == "native":
            return super().__call__(x)
        kernel = self.kernel[...]
        patches = _patches(x, self.kernel_size, self.strides, self.padding)
        return patches @ kernel.reshape(-1, kernel.shape[-1]) + self.bias[...]


def _patches(
    x: Float[Array, "b h w c"], sides: Sequence[int], strides: Sequence[int], padding: str
) -> Float[Array, "b i j p"]:
    pads = jax.lax.padtype_to_pads(x.shape[1:3], sides, strides, padding)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    (down, right), (high, broad) = strides, sides
    tall, wide = (x.shape[1] - high) // down * down + 1, (x.shape[2] - broad) // right * right + 1
    starts = itertools.product(range(high), range(broad))
    return jnp.concatenate([x[:, i : i + tall : down, j : j + wide : right] for i, j in starts], axis=-1)


def _conv(key: Key, channels: int, filters: int, side: int, stride: int = 1, padding: str = "VALID") -> Conv:
    sizes, init = (side, side), orthogonal(_RELU)
    strides = (stride, stride)
    return Conv(channels, filters, sizes, strides, padding=padding, kernel_init=init, rngs=drawn_with(key))


def _dense(key: Key, shape: tuple[int, ...], size: int) -> nnx.Linear:
    return nnx.Linear(int(np.prod(shape)), size, kernel_init=orthogonal(_RELU), rngs=drawn_with(key))


def _shape(layers: Callable, shape: tuple[int, ...]) -> tuple[int, ...]:
    return jax.eval_shape(layers, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[1:]


def _over_rows(function: Callable, x: Array) -> Array:
    """function(rows) of pictures with any leading axes, taken as one."""
    lead = x.shape[:-3]
    out = function(x.reshape(-1, *x.shape[-3:]))
    return out.reshape(*lead, *out.shape[1:])


class Stack(nnx.Module):
    """Convolutions (filters, side, stride) one after the other, then a dense layer of `size`."""

    def __init__(self, shape: tuple[int, ...], scale: float, plan: tuple, size: int, key: Key):
        keys = jax.random.split(key, len(plan) + 1)
        channels = [shape[-1], *(filters for filters, _, _ in plan)]
        self.scale, self.size = scale, size
        self.convs = nnx.List(_conv(k, c, *layer) for k, c, layer in zip(keys, channels, plan, strict=False))
        self.dense = _dense(keys[-1], _shape(self._filtered, shape), size)

    def _filtered(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j f"]:
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return x

    def __call__(self, x: Array) -> Float[Array, "*b f"]:
        def rows(x: Array) -> Array:
            x = self._filtered(self.scale * x.astype(jnp.float32))
            return jax.nn.relu(self.dense(x.reshape(len(x), -1)))

        return _over_rows(rows, x)


class Residual(nnx.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, channels: int, key: Key):
        first, second = jax.random.split(key)
        self.first, self.second = (_conv(k, channels, channels, 3, padding="SAME") for k in (first, second))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return x + self.second(jax.nn.relu(self.first(jax.nn.relu(x))))


class Impala(nnx.Module):
    """The residual torso of IMPALA, without its recurrence."""

    def __init__(self, shape: tuple[int, ...], scale: float, key: Key, filters: tuple[int, ...] = (16, 32, 32)):
        keys = jax.random.split(key, (len(filters) + 1, 3))
        channels = [shape[-1], *filters]
        self.scale, self.size = scale, 256
        self.convs = nnx.List(
            _conv(k[0], c, f, 3, padding="SAME") for k, c, f in zip(keys, channels, filters, strict=False)
        )
        self.blocks = nnx.List(Residual(f, k[i]) for k, f in zip(keys, filters, strict=False) for i in (1, 2))
        self.dense = _dense(keys[-1, 0], _shape(self._filtered, shape), self.size)

    def _filtered(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j f"]:
        for i, conv in enumerate(self.convs):
            x = nnx.max_pool(conv(x), (3, 3), (2, 2), padding="SAME")
            x = self.blocks[2 * i + 1](self.blocks[2 * i](x))
        return jax.nn.relu(x)

    def __call__(self, x: Array) -> Float[Array, "*b f"]:
        def rows(x: Array) -> Array:
            x = self._filtered(self.scale * x.astype(jnp.float32))
            return jax.nn.relu(self.dense(x.reshape(len(x), -1)))

        return _over_rows(rows, x)
