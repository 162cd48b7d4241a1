"""Pgx: board and card games, 2048, and MinAtar's games. The only file that imports pgx.

A game of several players is played against opponents that draw their moves evenly of those that are legal. Pgx's
MinAtar games are under the GNU GPL version 3, as MinAtar is; the rest of Pgx is under the Apache License.
"""

import functools
import warnings
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pgx

from jaxrl.envs.base import cast_like, strong
from jaxrl.envs.options import construct, refuse_unknown
from jaxrl.ops.masks import MASK
from jaxrl.ops.platform import computed_now
from jaxrl.spaces import Box, Discrete, Space
from jaxrl.types import InputError, Key, PyTree, Step

UNAVAILABLE = {"bridge_bidding": "needs tables of double-dummy results, which Pgx downloads"}
_ME = 0


def names() -> list[str]:
    """Pgx's games that work."""
    return [name for name in pgx.available_envs() if name not in UNAVAILABLE]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PgxEnv:
    """A game of Pgx. All of it is static.

    The agent is player 0, and Pgx draws who begins. A step is the agent's move and all that the others then make; its
    reward is what the agent got of all of them. Where the agent may be forbidden a move, an observation is a dict:
    "observation", and "action_mask" of the moves that are legal.
    """

    raw: Any = field(metadata={"static": True})
    observation_space: Space = field(metadata={"static": True}, repr=False)
    time_limit: int | None = field(default=None, metadata={"static": True})
    name: str = field(default="", metadata={"static": True})

    @property
    def truncates(self) -> bool:
        """Never: Pgx's games end by their rules alone."""
        return False

    @property
    def action_space(self) -> Discrete:
        """Pgx's."""
        return Discrete(_num_actions(self.raw))

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """A game just begun, where the agent is to move: (state, obs)."""
        k_init, k_others = jax.random.split(key)
        state = self._others(k_others, strong(self.raw.init(k_init)))
        return state, self._shown(state)

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Step]:
        """The agent's move, and those of the others until it is to move again."""
        k_step, k_others = jax.random.split(key)
        after = self._others(k_others, self._moved(k_step, state, action))
        reward = after.rewards[_ME].astype(jnp.float32)
        return after, Step(self._shown(after), reward, after.terminated, jnp.zeros((), bool), {})

    def _others(self, key: Key, state: Any) -> Any:
        """The state once the agent is to move or the game is over; `rewards` are the sum of those on the way."""
        if self.raw.num_players == 1:
            return state

        def waits(carry: tuple[Key, Any]) -> jax.Array:
            return (carry[1].current_player != _ME) & ~carry[1].terminated

        def move(carry: tuple[Key, Any]) -> tuple[Key, Any]:
            key, k_act, k_step = jax.random.split(carry[0], 3)
            action = jax.random.categorical(k_act, jnp.where(carry[1].legal_action_mask, 0.0, -jnp.inf))
            after = self._moved(k_step, carry[1], action)
            return key, after.replace(rewards=carry[1].rewards + after.rewards)

        return jax.lax.while_loop(waits, move, (key, state))[1]

    def _moved(self, key: Key, state: Any, action: Any) -> Any:
        state = state.replace(rewards=jnp.zeros_like(state.rewards))  # some games leave them as they were
        return cast_like(self.raw.step(state, action, key), state)

    def _shown(self, state: Any) -> PyTree:
        picture = self.raw._observe(state, jnp.int32(_ME))  # after an end it need not be the agent's turn
        return {"observation": picture, MASK: state.legal_action_mask} if _has_mask(self.raw) else picture


def _has_mask(raw: Any) -> bool:
    """Whether a game forbids moves: MinAtar's do not."""
    return not raw.id.startswith("minatar-")


@functools.cache
def _num_actions(raw: Any) -> int:
    return jax.eval_shape(raw.init, jax.random.key(0)).legal_action_mask.shape[0]


@functools.lru_cache(maxsize=None, typed=True)  # two raw objects hash differently and would compile everything twice
def make(name: str, /, **options: Any) -> PgxEnv:
    """Pgx's game `name`. `options` go to the constructor of a MinAtar game, such as sticky_action_prob 0.0.
    MinAtar's have a time limit of 2500 steps here: it is Freeway's own length, and some of the others need never end.

    Raises InputError for one that cannot work here, with the reason, and for an option that its constructor refuses.
    """
    title = f"pgx/{name}"
    if name in UNAVAILABLE:
        raise InputError(f"{title} is not available: it {UNAVAILABLE[name]}")
    if not name.startswith("minatar-"):
        refuse_unknown(title, options, ())
    with computed_now(), warnings.catch_warnings():  # lest what is kept belong to another's trace
        warnings.simplefilter("ignore")
        raw = pgx.make(name)
        if options:
            raw = construct(title, type(raw), options)
        state = jax.eval_shape(raw.init, jax.random.key(0))
    bounds = (0, 1) if state.observation.dtype == bool else (-np.inf, np.inf)
    space: Space = Box(state.observation.shape, *bounds, state.observation.dtype)
    if _has_mask(raw):
        space = {"observation": space, MASK: Box(state.legal_action_mask.shape, 0, 1, bool)}
    return PgxEnv(raw, space, None if _has_mask(raw) else 2500, name)
